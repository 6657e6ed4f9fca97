/* test_opts.c - command lines, help, completion, the configuration file, result names. */
#include "client/names.h"
#include "client/opts.h"
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "server/version.h"
#include "tests/t.h"
#include <sys/stat.h>
#include <unistd.h>

static char *args[16];
static int n_args;
static dr_error err;
static dr_status parse(cli_options *o, const char *cmd, const char *const *words) {
    char *argv[16] = {(char[]){"x"}};
    int argc = 1;
    for (; words[argc - 1]; argc++) argv[argc] = (char *)(uintptr_t)words[argc - 1];
    err = (dr_error){0};
    *o = (cli_options){0};
    return cli_opts_parse(cli_command_find(cmd), argc, argv, o, args, &n_args, &err);
}
#define PARSE(o, cmd, ...) parse(o, cmd, (const char *const[]){__VA_ARGS__, NULL})

TEST(options_in_every_form) {
    cli_options o;
    CHECK(PARSE(&o, "put", "-o", "x.png", "in.png", "--force", "--format=jpeg") == DR_OK);
    CHECK(n_args == 1 && strcmp(args[0], "in.png") == 0 && strcmp(o.out, "x.png") == 0 && o.force &&
          strcmp(o.format, "jpeg") == 0);
    CHECK(PARSE(&o, "put", "-fqox.png", "-") == DR_OK && o.force && o.quiet && strcmp(o.out, "x.png") == 0 &&
          strcmp(args[0], "-") == 0);
    CHECK(PARSE(&o, "put", "--", "--force") == DR_OK && !o.force && strcmp(args[0], "--force") == 0);
    CHECK(PARSE(&o, "put", "a", "-j", "7", "--timeout", "2m", "--url=http://h:1/") == DR_OK);
    CHECK(o.parallel == 7 && o.timeout_s == 120 && strcmp(o.url, "http://h:1/") == 0);
    CHECK(PARSE(&o, "jobs", "--state", "failed", "--json", "--limit", "500") == DR_OK && o.json && o.limit == 500);
    CHECK(PARSE(&o, "show", "--help") == DR_OK && o.help);
}

TEST(wrong_command_lines_are_refused) {
    cli_options o;
    CHECK(PARSE(&o, "put", "--frmat", "png", "x") == DR_INVALID && strstr(err.text, "--frmat"));
    CHECK(PARSE(&o, "put", "x", "--format", "gif") == DR_INVALID && strstr(err.text, "png|jpeg"));
    CHECK(PARSE(&o, "put", "x", "--format", "pn") == DR_INVALID);
    CHECK(PARSE(&o, "put", "x", "-o") == DR_INVALID && PARSE(&o, "put", "x", "--output") == DR_INVALID);
    CHECK(PARSE(&o, "put", "x", "--output=") == DR_INVALID && PARSE(&o, "put", "x", "--force=1") == DR_INVALID);
    CHECK(PARSE(&o, "put", "x", "-z") == DR_INVALID && PARSE(&o, "put", "x", "y") == DR_INVALID &&
          strstr(err.text, "'y'"));
    CHECK(PARSE(&o, "put", "--force") == DR_INVALID && strstr(err.text, "FILE|DIR|-"));
    CHECK(PARSE(&o, "put", "x", "-j", "0") == DR_INVALID && PARSE(&o, "put", "x", "-j", "3x") == DR_INVALID);
    CHECK(PARSE(&o, "jobs", "--limit", "501") == DR_INVALID && PARSE(&o, "jobs", "--state", "done") == DR_INVALID);
    CHECK(PARSE(&o, "jobs", "x") == DR_INVALID && PARSE(&o, "jobs", "--timeout", "0s") == DR_INVALID &&
          PARSE(&o, "jobs", "--force") == DR_INVALID);
    CHECK(!cli_command_find("frobnicate") && !cli_command_find(""));
}

TEST(help_and_completion_name_every_option) {
    char *bash = cli_bash_completion(), *all = cli_help(NULL);
    CHECK(bash && all);
    for (const cli_command *c = cli_commands; c->name; c++) {
        char *help = cli_help(c), word[64];
        CHECK(help && strstr(all, c->name) && strstr(bash, c->name));
        for (const cli_opt *o = c->opts; o->name; o++) {
            snprintf(word, sizeof word, "--%s", o->name);
            CHECK_MSG(strstr(help, word) && strstr(bash, word), "%s %s", c->name, word);
        }
        CHECK(strstr(help, "--json") && strstr(help, "--url"));
        dr_free(help);
    }
    dr_free(bash);
    dr_free(all);
}

static char *slurp(const char *path) {
    char *data = NULL;
    size_t n;
    if (dr_fs_read(path, 1 << 20, &data, &n, NULL)) return NULL;
    return data;
}

TEST(the_completion_file_is_the_printed_one) {
    char *file = slurp("docs/completion/derain.bash"), *bash = cli_bash_completion();
    CHECK(file && bash);
    CHECK_MSG(strcmp(file, bash) == 0, "run: derain completion > docs/completion/derain.bash");
    dr_free(file);
    dr_free(bash);
}

TEST(the_man_page_names_every_command_and_option) {
    char *man = slurp("docs/man/derain.1");
    CHECK(man);
    for (const cli_command *c = cli_commands; c->name; c++) {
        char word[64];
        snprintf(word, sizeof word, ".SS %s", c->name);
        CHECK_MSG(strstr(man, word), "%s", word);
        const cli_opt *tables[] = {c->opts, cli_common_opts};
        for (int t = 0; t < 2; t++)
            for (const cli_opt *o = tables[t]; o->name; o++) {
                char esc[96], *p = esc;
                memcpy(p, "\\-\\-", 4), p += 4;
                for (const char *q = o->name; *q; q++) {
                    if (*q == '-') *p++ = '\\';
                    *p++ = *q;
                }
                *p = 0;
                CHECK_MSG(strstr(man, esc), "%s %s", c->name, esc);
            }
    }
    dr_free(man);
}

TEST(one_version) {
    CHECK(strcmp(cli_version(), srv_version()) == 0 && strcmp(cli_commit(), srv_commit()) == 0);
}

TEST(config_file) {
    char path[] = "/tmp/derain-conf-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
    cli_config c = {0};
    CHECK(dr_fs_write_atomic(path, "# here\n\n url = http://a:1 \nkey=se cret\r\n", 39, NULL) == DR_OK);
    CHECK(cli_config_read(path, true, &c, NULL) == DR_OK && strcmp(c.url, "http://a:1") == 0 &&
          strcmp(c.key, "se cret") == 0);
    cli_config_clear(&c);
    const struct {
        const char *text, *words;
    } bad[] = {{"url = x\nfoo = 1\n", "line 2: unknown setting 'foo'"},
               {"url\n", "line 1"},
               {"url =\n", "'url' is empty"},
               {"url = a\nurl = b", "twice"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dr_error e = {0};
        CHECK(dr_fs_write_atomic(path, bad[i].text, strlen(bad[i].text), NULL) == DR_OK);
        CHECK_MSG(cli_config_read(path, true, &c, &e) == DR_INVALID && strstr(e.text, bad[i].words), "%zu: %s", i,
                  e.text);
    }
    unlink(path);
    CHECK(cli_config_read(path, false, &c, NULL) == DR_OK && !c.url &&
          cli_config_read(path, true, &c, NULL) == DR_NOT_FOUND);
    setenv("XDG_CONFIG_HOME", "/xdg", 1);
    char *p = cli_config_path();
    CHECK(p && strcmp(p, "/xdg/derain.conf") == 0);
    dr_free(p);
    unsetenv("XDG_CONFIG_HOME");
    setenv("HOME", "/home/me", 1);
    p = cli_config_path();
    CHECK(p && strcmp(p, "/home/me/.config/derain.conf") == 0);
    dr_free(p);
}

static bool named(const char *in, const char *format, bool whole, const char *want) {
    char *got = cli_result_name(in, format, whole);
    bool same = got && strcmp(got, want) == 0;
    if (!same) printf("# %s -> %s, not %s\n", in, got ? got : "-", want);
    dr_free(got);
    return same;
}

TEST(names_of_results) {
    CHECK(named("a.jpg", "png", false, "a.derained.png") && named("a.b.PNG", "jpeg", false, "a.b.derained.jpg"));
    CHECK(named("a", "png", false, "a.derained.png") && named(".png", "png", false, ".png.derained.png") &&
          named("a.jpg", "png", true, "a.jpg.derained.png"));
    CHECK(cli_is_picture_name("x.JPeG") && cli_is_picture_name("x.png") && !cli_is_picture_name("x.gif") &&
          !cli_is_picture_name("png") && !cli_is_picture_name(".png"));
    CHECK(cli_is_result_name("x.derained.png") && cli_is_result_name("x.derained.JPG") &&
          !cli_is_result_name("derained.png") && !cli_is_result_name("x.derained.txt"));
    CHECK(strcmp(cli_result_format(NULL, "d/o.JPG"), "jpeg") == 0 &&
          strcmp(cli_result_format("png", "o.jpg"), "png") == 0);
    CHECK(strcmp(cli_result_format(NULL, NULL), "png") == 0 && strcmp(cli_result_format(NULL, "a.jpg/o"), "png") == 0);
}

TEST(items_of_a_folder) {
    char dir[] = "/tmp/derain-dir-XXXXXX", path[64];
    CHECK(mkdtemp(dir));
    const char *files[] = {"b.png",     "a.jpg",       "a.png",  "a.derained.png",
                           "notes.txt", ".hidden.png", "c.jpeg", "c.derained.png"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        CHECK(dr_fs_write_atomic(path, "x", 1, NULL) == DR_OK);
    }
    cli_item *it = NULL;
    size_t n = 0;
    CHECK(cli_folder_items(dir, NULL, "png", &it, &n, NULL) == DR_OK && n == 4);
    CHECK(strstr(it[0].in, "/a.jpg") && strstr(it[0].out, "/a.jpg.derained.png") &&
          !it[0].exists); /* a.jpg and a.png share a stem */
    CHECK(strstr(it[1].out, "/a.png.derained.png") && strstr(it[2].out, "/b.derained.png") && it[3].exists);
    cli_items_free(it, n);
    CHECK(cli_folder_items(dir, "/elsewhere", "jpeg", &it, &n, NULL) == DR_OK &&
          strcmp(it[3].out, "/elsewhere/c.derained.jpg") == 0 && !it[3].exists);
    cli_items_free(it, n);
    CHECK(cli_folder_items("/nonexistent", NULL, "png", &it, &n, NULL) != DR_OK);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    rmdir(dir);
}
