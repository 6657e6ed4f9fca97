/* test_config.c - the settings table: sources and their order, bounds, errors with line numbers, help and dump. */
#include "core/base/alloc.h"
#include "server/config.h"
#include "tests/t.h"
#include <unistd.h>

static dr_status parse(srv_config *c, const char *text, dr_error *err) {
    *err = (dr_error){0};
    return srv_config_parse(c, "f", text, strlen(text), err);
}

TEST(defaults_are_the_documented_ones) {
    srv_config c;
    dr_error err = {0};
    srv_config_init(&c);
    CHECK(!srv_config_defaults(&c, &err));
    CHECK(!strcmp(c.listen, "127.0.0.1:8650") && c.queue_max == 256 && c.workers == 0 && c.threads == 0);
    CHECK(c.body_max_bytes == 256 << 20 && c.pixels_max == 100000000 && c.side_max == 32768);
    CHECK(c.job_attempts_max == 5 && c.result_ttl == 86400 && c.spool_max_bytes == INT64_C(10) << 30);
    CHECK(c.sync_wait_max_s == 300 && c.free_min_bytes == 1 << 30 && c.free_min_percent == 5 && !c.insecure);
    srv_config_done(&c);
}

TEST(every_default_is_within_its_bounds_and_every_key_is_unique) {
    for (size_t i = 0; i < srv_config_n_rows; i++) {
        const srv_config_row *row = &srv_config_rows[i];
        srv_config c;
        dr_error err = {0};
        srv_config_init(&c);
        CHECK_MSG(!srv_config_set(&c, row->key, row->init, &err), "%s: %s", row->key, err.text);
        srv_config_done(&c);
        CHECK(row->help && strlen(row->help) > 10);
        for (size_t j = i + 1; j < srv_config_n_rows; j++) CHECK(strcmp(row->key, srv_config_rows[j].key) != 0);
    }
}

TEST(a_file_is_read_with_comments_blanks_and_crlf) {
    srv_config c;
    dr_error err;
    srv_config_init(&c);
    CHECK(!parse(
        &c, "# a comment\n\n  queue_max=7\r\n\tresult_ttl =  2h \nlog_json = yes\nmem_budget = 512M\nlisten=[::1]:1",
        &err));
    CHECK(c.queue_max == 7 && c.result_ttl == 7200 && c.log_json && c.mem_budget == 512 << 20 &&
          !strcmp(c.listen, "[::1]:1"));
    srv_config_done(&c);
}

TEST(errors_name_file_line_and_key) {
    static const struct {
        const char *text, *expect;
    } cases[] = {
        {"queue_max = 1\nqueue_mix = 2\n", "f:2: unknown setting 'queue_mix'"},
        {"\n\nworkers = 65", "f:3: workers must be 0 to 64"},
        {"batch = 0", "f:1: batch must be 1 to 64"},
        {"batch_window_ms = -1", "f:1: batch_window_ms must be 0 to 1000"},
        {"threads = 2x", "f:1: threads must be"},
        {"backend = tpu", "f:1: backend must be one of auto|cpu|cuda, not 'tpu'"},
        {"insecure = maybe", "f:1: insecure must be yes or no"},
        {"body_max_bytes = 12 parsecs", "f:1: body_max_bytes must be"},
        {"result_ttl = -1", "f:1: result_ttl must be"},
        {"just words", "f:1: expected 'key = value'"},
        {"= 5", "f:1: unknown setting ''"},
        {"queue_max =", "f:1: queue_max must be"},
        {"drain_s = 99999999999999999999", "f:1: drain_s must be"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        srv_config c;
        dr_error err;
        srv_config_init(&c);
        dr_status s = parse(&c, cases[i].text, &err);
        srv_config_done(&c);
        CHECK_MSG(s == DR_INVALID, "%s", cases[i].text);
        CHECK_MSG(!strncmp(err.text, cases[i].expect, strlen(cases[i].expect)), "%s", err.text);
    }
}

TEST(a_nul_byte_in_a_file_is_refused) {
    srv_config c;
    dr_error err = {0};
    srv_config_init(&c);
    CHECK(srv_config_parse(&c, "f", "data = /a\0b\n", 12, &err) == DR_INVALID);
    srv_config_done(&c);
}

TEST(flags_beat_the_environment_which_beats_the_file) {
    char path[] = "/tmp/derain-config-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    CHECK(write(fd, "queue_max = 1\nworkers = 2\nthreads = 3\n", 38) == 38);
    close(fd);
    char *argv[] = {"serve", "--queue-max", "10", "--config", path, "--insecure", NULL};
    char *env[] = {"PATH=/bin", "DERAIND_QUEUE_MAX=20", "DERAIND_WORKERS=21", NULL};
    srv_config c;
    srv_config_ask ask = SRV_ASK_HELP;
    dr_error err = {0};
    srv_config_init(&c);
    dr_status s = srv_config_load(&c, 6, argv, env, NULL, &ask, &err);
    unlink(path);
    CHECK_MSG(!s, "%s", err.text);
    CHECK(ask == SRV_ASK_RUN && c.queue_max == 10 && c.workers == 21 && c.threads == 3 && c.insecure);
    srv_config_done(&c);
}

static dr_status load(int argc, char **argv, char **env, srv_config_ask *ask, dr_error *err) {
    srv_config c;
    srv_config_init(&c);
    *err = (dr_error){0};
    dr_status s = srv_config_load(&c, argc, argv, env, NULL, ask, err);
    srv_config_done(&c);
    return s;
}

TEST(bad_command_lines) {
    dr_error err;
    srv_config_ask ask;
    CHECK(load(2, (char *[]){"serve", "--nope"}, NULL, &ask, &err) == DR_INVALID &&
          strstr(err.text, "unknown option '--nope'"));
    CHECK(load(2, (char *[]){"serve", "--queue_max=3"}, NULL, &ask, &err) == DR_INVALID);
    CHECK(load(2, (char *[]){"serve", "--queue-max"}, NULL, &ask, &err) == DR_INVALID &&
          strstr(err.text, "needs a value"));
    CHECK(load(2, (char *[]){"serve", "--queue-max=zero"}, NULL, &ask, &err) == DR_INVALID &&
          strstr(err.text, "--queue-max"));
    CHECK(load(2, (char *[]){"serve", "extra"}, NULL, &ask, &err) == DR_INVALID);
    CHECK(load(3, (char *[]){"serve", "--config", "/nonexistent/x"}, NULL, &ask, &err) != DR_OK);
    char *env[] = {"DERAIND_QUEUEMAX=3", NULL};
    CHECK(load(1, (char *[]){"serve"}, env, &ask, &err) == DR_INVALID && strstr(err.text, "DERAIND_QUEUEMAX"));
}

TEST(help_works_even_beside_bad_values_in_the_environment) {
    dr_error err;
    srv_config_ask ask = SRV_ASK_RUN;
    char *env[] = {"DERAIND_QUEUE_MAX=x", NULL};
    CHECK(!load(2, (char *[]){"serve", "--help"}, env, &ask, &err) && ask == SRV_ASK_HELP);
    dr_buf b;
    dr_buf_init(&b, 1 << 20);
    srv_config_help(&b);
    CHECK(!b.status);
    for (size_t i = 0; i < srv_config_n_rows; i++) {
        char flag[80] = "--";
        size_t n = 2;
        for (const char *p = srv_config_rows[i].key; *p; p++) flag[n++] = *p == '_' ? '-' : *p;
        flag[n] = 0;
        CHECK_MSG(strstr(b.data, flag), "%s", flag);
    }
    dr_buf_done(&b);
}

TEST(a_dump_can_be_read_back) {
    srv_config a, c;
    dr_error err = {0};
    dr_buf first, second;
    srv_config_init(&a);
    srv_config_init(&c);
    dr_buf_init(&first, 1 << 16);
    dr_buf_init(&second, 1 << 16);
    CHECK(!srv_config_defaults(&a, &err));
    CHECK(!srv_config_set(&a, "queue_max", "9", &err) && !srv_config_set(&a, "listen", "[::1]:0", &err));
    srv_config_dump(&a, &first);
    CHECK_MSG(!srv_config_parse(&c, "dump", first.data, first.len, &err), "%s", err.text);
    srv_config_dump(&c, &second);
    CHECK(!strcmp(first.data, second.data) && strstr(first.data, "queue_max = 9\n"));
    dr_buf_done(&first);
    dr_buf_done(&second);
    srv_config_done(&a);
    srv_config_done(&c);
}

TEST(no_memory_at_any_point_is_an_error_not_a_leak) {
    for (long n = 1;; n++) {
        srv_config c;
        dr_error err = {0};
        srv_config_init(&c);
        dr_alloc_fail_after(n, false);
        dr_status s = srv_config_defaults(&c, &err);
        bool reached = dr_alloc_count() >= n;
        dr_alloc_fail_after(0, false);
        srv_config_done(&c);
        if (!reached) {
            CHECK(!s && n > 3);
            return;
        }
        CHECK(s == DR_NOMEM);
    }
}
