/* test_commands.c - whole command lines through cli_run(), against a responder that plays the service. */
#include "client/cli.h"
#include "client/run.h"
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "tests/client/responder.h"
#include "tests/t.h"
#include <fcntl.h>
#include <jansson.h>
#include <sys/stat.h>

#define ID "job_01ARZ3NDEKTSV4RRFFQ69G5FAV"
static const char picture[] = "\x89PNG\r\n\x1a\n and so on";
enum { PICTURE = sizeof picture - 1 };

static char dir[64], *out, *words; /* stdout and stderr of the last run */

static char *slurp(const char *path, size_t *ret_n) {
    char *data = NULL;
    size_t n = 0;
    if (dr_fs_read(path, 1 << 20, &data, &n, NULL)) return NULL;
    if (ret_n) *ret_n = n;
    return data;
}
static char *in_dir(const char *name) {
    static char buf[8][128];
    static int k;
    k = (k + 1) % 8;
    snprintf(buf[k], sizeof buf[k], "%s/%s", dir, name);
    return buf[k];
}

/* Run a command with stdout and stderr caught. */
static int run(responder *r, const char *const *line) {
    char *argv[24] = {(char[]){"derain"}};
    int argc = 1;
    for (; line[argc - 1]; argc++) argv[argc] = (char *)(uintptr_t)line[argc - 1];
    if (r) setenv("DERAIN_URL", r->url, 1);
    setenv("XDG_CONFIG_HOME", dir, 1);
    fflush(stdout);
    fflush(stderr);
    int old1 = dup(1), old2 = dup(2), f1 = open(in_dir("stdout"), O_CREAT | O_TRUNC | O_WRONLY, 0600),
        f2 = open(in_dir("stderr"), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    dup2(f1, 1);
    dup2(f2, 2);
    int code = cli_run(argc, argv);
    fflush(stdout);
    fflush(stderr);
    dup2(old1, 1);
    dup2(old2, 2);
    close(f1), close(f2), close(old1), close(old2);
    dr_free(out);
    dr_free(words);
    out = slurp(in_dir("stdout"), NULL);
    words = slurp(in_dir("stderr"), NULL);
    return code;
}
#define RUN(r, ...) run(r, (const char *const[]){__VA_ARGS__, NULL})

static bool begin(responder *r, void (*answer)(responder *, int, const seen *, int)) {
    snprintf(dir, sizeof dir, "/tmp/derain-cmd-XXXXXX");
    r->answer = answer;
    return mkdtemp(dir) && responder_start(r) == 0;
}
static void end(responder *r) {
    char cmd[96];
    responder_stop(r);
    char **names = NULL;
    size_t n = 0;
    if (dr_fs_list(dir, &names, &n, NULL) == DR_OK) {
        for (size_t i = 0; i < n; i++) unlink(in_dir(names[i]));
        dr_fs_list_free(names, n);
    }
    snprintf(cmd, sizeof cmd, "%s/sub", dir);
    if (dr_fs_list(cmd, &names, &n, NULL) == DR_OK) {
        for (size_t i = 0; i < n; i++) {
            char p[256];
            snprintf(p, sizeof p, "%s/%s", cmd, names[i]);
            unlink(p);
        }
        dr_fs_list_free(names, n);
        rmdir(cmd);
    }
    rmdir(dir);
    dr_free(out);
    dr_free(words);
    out = words = NULL;
}
static bool write_file(const char *name, const char *data, size_t n) {
    return dr_fs_write_atomic(in_dir(name), data, n, NULL) == DR_OK;
}
static bool is_picture(const char *name) {
    size_t n = 0;
    char *d = slurp(in_dir(name), &n);
    bool same = d && n == PICTURE && memcmp(d, picture, n) == 0;
    dr_free(d);
    return same;
}

/* --- put
 * ------------------------------------------------------------------------------------------------------------------------
 */

static void at_once(responder *r, int fd, const seen *q, int i) {
    (void)r, (void)i, (void)q;
    reply(fd, 200, "image/png", "X-Derain-Model: derain/1\r\n", picture, PICTURE);
}
TEST(put_a_file) {
    responder r = {0};
    CHECK(begin(&r, at_once) && write_file("a.jpg", "\xff\xd8\xff", 3));
    CHECK(RUN(&r, "put", in_dir("a.jpg"), "--model", "fine tuned:3", "--depth", "16", "--metadata", "strip") == CLI_OK);
    CHECK(is_picture("a.derained.png") && strstr(words, "a.derained.png") && !*out);
    CHECK(strcmp(r.log[0].path, "/v1/derain?format=png&depth=16&metadata=strip&model=fine%20tuned&version=3") == 0);
    CHECK(strcmp(r.log[0].accept, "image/*") == 0 && strncmp(r.log[0].prefer, "wait=", 5) == 0 &&
          strlen(r.log[0].idem) > 20);
    /* never over a file that exists, unless told so */
    CHECK(RUN(&r, "put", in_dir("a.jpg")) == CLI_USAGE && strstr(words, "--force") && r.n == 1);
    CHECK(RUN(&r, "put", in_dir("a.jpg"), "-fq") == CLI_OK && r.n == 2 && !*words);
    CHECK(strcmp(r.log[0].idem, r.log[1].idem) != 0);
    CHECK(RUN(&r, "put", in_dir("a.jpg"), "-o", in_dir("x.jpg")) == CLI_OK && is_picture("x.jpg") &&
          strstr(r.log[2].path, "format=jpeg"));
    CHECK(mkdir(in_dir("sub"), 0700) == 0);
    CHECK(RUN(&r, "put", in_dir("a.jpg"), "-o", in_dir("sub"), "--json") == CLI_OK && is_picture("sub/a.derained.png"));
    json_t *o = json_loads(out, 0, NULL);
    CHECK(o && strcmp(json_string_value(json_object_get(o, "state")), "succeeded") == 0 &&
          json_integer_value(json_object_get(o, "bytes")) == PICTURE);
    json_decref(o);
    CHECK(RUN(&r, "put", in_dir("a.jpg"), "-o", "-") == CLI_OK && memcmp(out, picture, 8) == 0);
    CHECK(RUN(&r, "put", in_dir("a.jpg"), "-o", "-", "--json") == CLI_USAGE);
    CHECK(RUN(&r, "put", in_dir("missing.jpg")) == CLI_FAILED && strstr(words, "missing.jpg"));
    CHECK(RUN(&r, "put", in_dir("a.jpg"), "-n", "-o", in_dir("new.png")) == CLI_OK && strstr(out, "new.png") &&
          !dr_fs_exists(in_dir("new.png")));
    end(&r);
}

static void later(responder *r, int fd, const seen *q, int i) {
    (void)i;
    const char *last = r->arg;
    if (strcmp(q->method, "POST") == 0)
        reply_json(fd, 202, "Location: /v1/jobs/" ID "\r\nRetry-After: 1\r\n",
                   "{\"id\":\"" ID "\",\"state\":\"queued\"}");
    else if (strstr(q->path, "/result"))
        reply(fd, 200, "image/png", "", picture, PICTURE);
    else if (r->n < 4)
        reply_json(fd, 200, "", "{\"id\":\"" ID "\",\"state\":\"running\",\"progress\":0.5}");
    else
        reply_json(fd, 200, "", last);
}
TEST(put_follows_a_job_that_takes_longer) {
    responder r = {.arg = (char[]){"{\"id\":\"" ID "\",\"state\":\"succeeded\"}"}};
    CHECK(begin(&r, later) && write_file("a.png", picture, PICTURE));
    CHECK(RUN(&r, "put", in_dir("a.png")) == CLI_OK && is_picture("a.derained.png"));
    CHECK(r.n == 5 && strstr(r.log[1].path, "/v1/jobs/" ID "?wait=") &&
          strcmp(r.log[4].path, "/v1/jobs/" ID "/result") == 0);
    end(&r);
}
TEST(put_reports_a_job_that_failed) {
    responder r = {
        .arg = (char[]){
            "{\"id\":\"" ID
            "\",\"state\":\"failed\",\"problem\":{\"code\":\"image_corrupt\",\"detail\":\"wrong CRC in IDAT\"}}"}};
    CHECK(begin(&r, later) && write_file("a.png", picture, PICTURE));
    CHECK(RUN(&r, "put", in_dir("a.png"), "--json") == CLI_FAILED && strstr(words, "wrong CRC in IDAT") &&
          !dr_fs_exists(in_dir("a.derained.png")));
    json_t *o = json_loads(out, 0, NULL);
    CHECK(o && strcmp(json_string_value(json_object_get(json_object_get(o, "problem"), "code")), "image_corrupt") == 0);
    CHECK(strcmp(json_string_value(json_object_get(o, "job")), ID) == 0 &&
          json_is_null(json_object_get(o, "output")) == 0);
    json_decref(o);
    end(&r);
}
static void never_ends(responder *r, int fd, const seen *q, int i) {
    (void)r, (void)i;
    if (strcmp(q->method, "POST") == 0)
        reply_json(fd, 202, "", "{\"id\":\"" ID "\",\"state\":\"queued\"}");
    else
        reply_json(fd, 200, "", "{\"id\":\"" ID "\",\"state\":\"running\",\"progress\":0.1}");
}
TEST(put_and_watch_time_out) {
    responder r = {0};
    CHECK(begin(&r, never_ends) && write_file("a.png", picture, PICTURE));
    CHECK(RUN(&r, "put", in_dir("a.png"), "--timeout", "1s") == CLI_TIMED_OUT);
    CHECK(RUN(&r, "watch", ID, "--timeout", "1s") == CLI_TIMED_OUT);
    CHECK(r.n < 30); /* it does not spin on a service that does not hold its answers */
    end(&r);
}
TEST(put_async_prints_the_job) {
    responder r = {0};
    CHECK(begin(&r, never_ends) && write_file("a.png", picture, PICTURE));
    CHECK(RUN(&r, "put", in_dir("a.png"), "--async") == CLI_OK && strcmp(out, ID "\n") == 0 && r.n == 1);
    CHECK(strcmp(r.log[0].prefer, "respond-async") == 0 && strcmp(r.log[0].accept, "application/json") == 0);
    CHECK(RUN(&r, "put", in_dir("a.png"), "--async", "-o", "x") == CLI_USAGE);
    end(&r);
}

static void by_content(responder *r, int fd, const seen *q, int i) {
    (void)r, (void)i;
    if (q->len && strstr(q->body, "BAD"))
        reply_json(fd, 415, "", "{\"code\":\"unsupported_format\",\"detail\":\"these bytes are no picture\"}");
    else
        reply(fd, 200, "image/png", "", picture, PICTURE);
}
TEST(put_a_folder_goes_on_after_a_failure_and_skips_what_is_done) {
    responder r = {0};
    CHECK(begin(&r, by_content) && mkdir(in_dir("sub"), 0700) == 0);
    char name[32];
    for (int i = 0; i < 7; i++) {
        snprintf(name, sizeof name, "sub/p%d.png", i);
        CHECK(write_file(name, i == 3 ? "BAD" : "fine", i == 3 ? 3 : 4));
    }
    CHECK(write_file("sub/readme.txt", "hello", 5));
    CHECK(RUN(&r, "put", in_dir("sub")) == CLI_FAILED);
    CHECK(strstr(words, "p3.png") && strstr(words, "no picture") && strstr(words, "6 derained") &&
          strstr(words, "1 failed"));
    CHECK(is_picture("sub/p0.derained.png") && is_picture("sub/p6.derained.png") &&
          !dr_fs_exists(in_dir("sub/p3.derained.png")));
    CHECK(r.n == 7);
    CHECK(RUN(&r, "put", in_dir("sub"), "--json", "-q") == CLI_FAILED && r.n == 8);
    json_t *o = json_loads(out, 0, NULL);
    CHECK(o && json_integer_value(json_object_get(o, "skipped")) == 6 &&
          json_integer_value(json_object_get(o, "failed")) == 1);
    CHECK(json_array_size(json_object_get(o, "files")) == 7);
    json_decref(o);
    unlink(in_dir("sub/p3.png"));
    CHECK(RUN(&r, "put", in_dir("sub")) == CLI_OK && r.n == 8);
    CHECK(RUN(&r, "put", in_dir("sub"), "-o", in_dir("a.txt"), "-n") == CLI_OK);
    CHECK(RUN(&r, "put", in_dir("sub"), "-o", "-") == CLI_USAGE);
    end(&r);
}
TEST(put_a_folder_without_server_stops_at_once) {
    responder r = {0};
    CHECK(begin(&r, at_once) && mkdir(in_dir("sub"), 0700) == 0 && write_file("sub/a.png", "x", 1) &&
          write_file("sub/b.png", "x", 1));
    CHECK(RUN(&r, "put", in_dir("sub"), "--url", "http://127.0.0.1:1", "-j", "1") == CLI_UNREACHABLE &&
          strstr(words, "1 not tried"));
    end(&r);
}
static void no_picture(responder *r, int fd, const seen *q, int i) {
    (void)r, (void)q, (void)i;
    reply(fd, 200, "text/html", "", "<p>hi", 5);
}
TEST(put_refuses_answers_that_are_no_picture) {
    responder r = {0};
    CHECK(begin(&r, no_picture) && write_file("a.png", picture, PICTURE));
    CHECK(RUN(&r, "put", in_dir("a.png")) == CLI_FAILED && !dr_fs_exists(in_dir("a.derained.png")));
    end(&r);
}

/* --- jobs
 * ------------------------------------------------------------------------------------------------------------------------
 */

static void pages(responder *r, int fd, const seen *q, int i) {
    (void)r, (void)i;
    if (strstr(q->path, "cursor=c%2F2"))
        reply_json(fd, 200, "",
                   "{\"items\":[{\"id\":\"job_2\",\"state\":\"failed\",\"created_at\":\"2026-01-01T00:00:00.000Z\","
                   "\"input\":{\"format\":\"png\",\"width\":4,\"height\":5},\"model\":{\"name\":\"derain\",\"version\":"
                   "1}}],\"next_cursor\":null}");
    else
        reply_json(fd, 200, "",
                   "{\"items\":[{\"id\":\"job_1\",\"state\":\"running\",\"progress\":0.25,\"created_at\":\"2026-01-"
                   "02T03:04:05.000Z\",\"input\":{\"format\":\"jpeg\",\"width\":640,\"height\":480},\"model\":{"
                   "\"name\":\"derain\",\"version\":1}}],\"next_cursor\":\"c/2\"}");
}
TEST(jobs_lists_and_pages) {
    responder r = {0};
    CHECK(begin(&r, pages));
    CHECK(RUN(&r, "jobs", "--state", "failed", "--label", "a=b c", "--limit", "7") == CLI_OK && strstr(out, "job_1") &&
          !strstr(out, "job_2"));
    CHECK(strcmp(r.log[0].path, "/v1/jobs?limit=7&state=failed&label=a%3Db%20c") == 0 && strstr(words, "--all"));
    CHECK(strstr(out, "25 %") && strstr(out, "2026-01-02 03:04:05") && strstr(out, "jpeg 640x480") &&
          strstr(out, "derain:1"));
    CHECK(RUN(&r, "jobs", "--all") == CLI_OK && strstr(out, "job_1") && strstr(out, "job_2"));
    CHECK(RUN(&r, "jobs", "--all", "--json") == CLI_OK);
    json_t *o = json_loads(out, 0, NULL);
    CHECK(o && json_array_size(json_object_get(o, "items")) == 2 && json_is_null(json_object_get(o, "next_cursor")));
    json_decref(o);
    end(&r);
}

static void one_job(responder *r, int fd, const seen *q, int i) {
    (void)r, (void)i;
    if (strstr(q->path, "gone"))
        reply_json(fd, 410, "", "{\"code\":\"job_gone\",\"detail\":\"it was erased\"}");
    else if (strstr(q->path, "/cancel"))
        reply_json(fd, 200, "",
                   strstr(q->path, "ended") ? "{\"cancelled\":false,\"job\":{}}" : "{\"cancelled\":true,\"job\":{}}");
    else if (strstr(q->path, "early/result"))
        reply_json(fd, 409, "", "{\"code\":\"not_ready\",\"detail\":\"the job is queued\"}");
    else if (strstr(q->path, "/result"))
        reply(fd, 200, "image/png", "", picture, PICTURE);
    else if (strstr(q->path, "failed"))
        reply_json(fd, 200, "",
                   "{\"id\":\"job_failed\",\"state\":\"failed\",\"problem\":{\"code\":\"image_corrupt\",\"detail\":"
                   "\"cut off\"}}");
    else
        reply_json(fd, 200, "",
                   "{\"id\":\"" ID "\",\"type\":\"derain\",\"state\":\"succeeded\",\"input\":{\"format\":\"png\","
                   "\"width\":64,\"height\":48,\"bit_depth\":8,\"channels\":3,\"bytes\":12345},"
                   "\"result\":{\"format\":\"png\",\"bytes\":10,\"sha256\":\"abc\"},\"timings_ms\":{\"queue\":1,"
                   "\"infer\":1500},\"model\":{\"name\":\"derain\",\"version\":1},\"attempt\":2}");
}
TEST(show_watch_get_cancel) {
    responder r = {0};
    CHECK(begin(&r, one_job));
    CHECK(RUN(&r, "show", ID) == CLI_OK && strstr(out, "succeeded") && strstr(out, "64x48") &&
          strstr(out, "infer 1.50 s") && strstr(out, "attempts"));
    CHECK(RUN(&r, "show", ID, "--json") == CLI_OK && strstr(out, "\"bit_depth\": 8"));
    CHECK(RUN(&r, "show", "../x?y") == CLI_OK && strcmp(r.log[2].path, "/v1/jobs/..%2Fx%3Fy") == 0);
    CHECK(RUN(&r, "show", "gone", "--json") == CLI_REFUSED && strstr(out, "job_gone") &&
          strstr(words, "it was erased"));
    CHECK(RUN(&r, "watch", ID) == CLI_OK && RUN(&r, "watch", "failed") == CLI_FAILED && strstr(out, "cut off"));
    CHECK(RUN(&r, "get", ID, "-o", in_dir("g.png")) == CLI_OK && is_picture("g.png"));
    CHECK(RUN(&r, "get", ID, "-o", in_dir("g.png")) == CLI_USAGE &&
          RUN(&r, "get", ID, "-o", in_dir("g.png"), "-f") == CLI_OK);
    CHECK(RUN(&r, "get", ID, "-o", dir) == CLI_OK && is_picture(ID ".png"));
    CHECK(RUN(&r, "get", ID, "-o", "-") == CLI_OK && memcmp(out, picture, 8) == 0);
    CHECK(RUN(&r, "get", "early") == CLI_REFUSED && strstr(words, "queued"));
    CHECK(RUN(&r, "get", "failed", "--wait") == CLI_FAILED && strstr(words, "cut off"));
    CHECK(RUN(&r, "get", ID, "--wait", "-f", "-o", in_dir("g.png")) == CLI_OK);
    CHECK(RUN(&r, "cancel", ID, "--reason", "no \"longer\" needed") == CLI_OK && strstr(words, "is cancelled"));
    CHECK(strstr(r.log[(r.n - 1) % 64].body, "no \\\"longer\\\" needed"));
    CHECK(RUN(&r, "cancel", "ended") == CLI_OK && strstr(words, "had ended"));
    end(&r);
}

/* --- training
 * -------------------------------------------------------------------------------------------------------- */

static void no_training(responder *r, int fd, const seen *s, int k) {
    (void)r, (void)s, (void)k; /* every call makes the same job */
    reply_json(fd, 201, "", "{\"id\":\"" ID "\",\"state\":\"queued\"}");
}
TEST(train_sets_any_member) {
    responder r = {0};
    CHECK(begin(&r, no_training));
    CHECK(RUN(&r, "train", "--dataset", "ds_X", "--steps", "7", "--set", "lr=1e-4", "--set", "gate.clean_psnr_min=35",
              "--set", "gate.make_default=false", "--set", "labels.site=7", "--set", "parent=none") == CLI_OK);
    json_t *o = json_loads(r.log[0].body, 0, NULL), *gate = json_object_get(o, "gate");
    CHECK(json_integer_value(json_object_get(o, "steps")) == 7 && json_real_value(json_object_get(o, "lr")) == 1e-4);
    CHECK(json_integer_value(json_object_get(gate, "clean_psnr_min")) == 35 &&
          json_is_false(json_object_get(gate, "make_default")));
    CHECK(!strcmp(json_string_value(json_object_get(json_object_get(o, "labels"), "site")), "7"));
    CHECK(!strcmp(json_string_value(json_object_get(o, "parent")), "none"));
    json_decref(o);
    int asked = r.n;
    CHECK(RUN(&r, "train", "--dataset", "ds_X", "--set", "lr") == CLI_USAGE && strstr(words, "NAME=VALUE"));
    CHECK(RUN(&r, "train", "--dataset", "ds_X", "--set", "=1") == CLI_USAGE &&
          RUN(&r, "train", "--dataset", "ds_X", "--set", "gate.=1") == CLI_USAGE &&
          RUN(&r, "train", "--dataset", "ds_X", "--set", ".x=1") == CLI_USAGE);
    CHECK(r.n == asked); /* nothing was sent */
    end(&r);
}

/* --- models, doctor, the rest
 * -------------------------------------------------------------------------------------------------------- */

static void whole_service(responder *r, int fd, const seen *q, int i) {
    (void)i;
    static const char tiny[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x40\0\0\0\x30\x08\x02\0\0\0....";
    if (strstr(q->path, "/v1/models"))
        reply_json(
            fd, 200, "",
            r->arg ? "{\"items\":[]}"
                   : "{\"items\":[{\"name\":\"derain\",\"version\":1,\"state\":\"ready\",\"default\":true,\"sha256\":"
                     "\"aa\",\"bytes\":3000000,\"arch\":{\"kind\":\"resnet\",\"ngf\":32,\"blocks\":6}}]}");
    else if (strstr(q->path, "/v1/version"))
        reply_json(
            fd, 200, "",
            "{\"version\":\"0.1.0\",\"commit\":\"abc\",\"backend\":\"cpu\",\"device\":null,\"cpu_kernels\":\"avx2\"}");
    else if (strstr(q->path, "/v1/limits"))
        reply_json(fd, 200, "",
                   "{\"body_max_bytes\":268435456,\"pixels_max\":100000000,\"side_min\":16,\"side_max\":32768,\"queue_"
                   "max\":256,\"formats_in\":[\"png\",\"jpeg\"],\"formats_out\":[\"png\",\"jpeg\"]}");
    else if (strstr(q->path, "/v1/derain"))
        reply(fd, 200, "image/png", "", tiny, sizeof tiny - 1);
    else
        reply_json(fd, 200, "", "{\"status\":\"ok\"}");
}
TEST(doctor_and_models) {
    responder r = {0};
    CHECK(begin(&r, whole_service));
    CHECK(RUN(&r, "doctor") == CLI_OK && strstr(out, "all is well") && strstr(out, "ok     round trip"));
    CHECK(RUN(&r, "doctor", "--json") == CLI_OK);
    json_t *o = json_loads(out, 0, NULL);
    CHECK(o && json_is_true(json_object_get(o, "ok")) && json_array_size(json_object_get(o, "checks")) == 6);
    json_decref(o);
    const char *sent = r.log[5].body; /* a valid PNG went out: signature, IHDR, IEND */
    CHECK(r.log[5].len > 9000 && memcmp(sent, "\x89PNG", 4) == 0 && memcmp(sent + 12, "IHDR", 4) == 0 &&
          memcmp(sent + r.log[5].len - 8, "IEND\xae\x42\x60\x82", 8) == 0);
    CHECK(RUN(&r, "models") == CLI_OK && strstr(out, "1 (default)") && strstr(out, "ngf 32, 6 blocks"));
    r.arg = (char[]){"none"};
    CHECK(RUN(&r, "doctor") == CLI_FAILED && strstr(out, "FAILED model") && strstr(out, "what to do"));
    CHECK(RUN(&r, "doctor", "--url", "http://127.0.0.1:1") == CLI_UNREACHABLE && strstr(out, "FAILED reach"));
    end(&r);
}

TEST(help_version_and_usage) {
    responder r = {0};
    CHECK(begin(&r, at_once));
    CHECK(RUN(&r, "--help") == CLI_OK && strstr(out, "doctor") && RUN(&r, "--version") == CLI_OK &&
          strncmp(out, "derain ", 7) == 0);
    CHECK(RUN(&r, "help", "put") == CLI_OK && strstr(out, "--async") && RUN(&r, "put", "--help") == CLI_OK &&
          strstr(out, "--async"));
    CHECK(RUN(&r, "frob") == CLI_USAGE && strstr(words, "frob") && run(&r, (const char *const[]){NULL}) == CLI_USAGE);
    CHECK(RUN(&r, "put", "--frob") == CLI_USAGE && RUN(&r, "completion") == CLI_OK && strstr(out, "complete -o"));
    CHECK(RUN(&r, "jobs", "--url", "nonsense") == CLI_USAGE &&
          RUN(&r, "jobs", "--key-file", in_dir("none")) == CLI_USAGE);
    CHECK(r.n == 0);
    end(&r);
}

TEST(settings_file_environment_flags) {
    responder r = {0};
    char text[128];
    CHECK(begin(&r, pages));
    snprintf(text, sizeof text, "url = %s/\nkey = filekey\n", r.url);
    CHECK(write_file("derain.conf", text, strlen(text)) && write_file("k", "flagkey\n", 8));
    unsetenv("DERAIN_URL");
    unsetenv("DERAIN_KEY");
    CHECK(RUN(NULL, "jobs") == CLI_OK && strcmp(r.log[0].auth, "Bearer filekey") == 0 &&
          strncmp(r.log[0].path, "/v1/jobs", 8) == 0);
    setenv("DERAIN_KEY", "envkey", 1);
    CHECK(RUN(NULL, "jobs") == CLI_OK && strcmp(r.log[1].auth, "Bearer envkey") == 0);
    CHECK(RUN(NULL, "jobs", "--key-file", in_dir("k")) == CLI_OK && strcmp(r.log[2].auth, "Bearer flagkey") == 0);
    unsetenv("DERAIN_KEY");
    setenv("DERAIN_URL", "http://127.0.0.1:1", 1);
    CHECK(RUN(NULL, "jobs") == CLI_UNREACHABLE && RUN(NULL, "jobs", "--url", r.url) == CLI_OK);
    CHECK(write_file("derain.conf", "color = red\n", 12) && RUN(NULL, "jobs") == CLI_USAGE && strstr(words, "line 1"));
    end(&r);
}
