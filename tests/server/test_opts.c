/* test_opts.c - option tables: every kind, bounds, mixing with arguments, and what is refused. */
#include "server/opts.h"

#include "server/commands.h"
#include "tests/t.h"
#include <fcntl.h>
#include <unistd.h>

static struct {
    bool json;
    int threads, size[2];
    int64_t steps;
    uint64_t seed, budget;
    double lr;
    const char *backend, *out;
    srv_opt_list rainy;
} v;

static const srv_opt table[] = {
    {.name = "json", .kind = SRV_OPT_FLAG, .to = &v.json, .help = "for machines"},
    SRV_OPTS_ENGINE(&v.backend, &v.threads),
    {.name = "size", .kind = SRV_OPT_SIZE, .to = v.size, .arg = "WxH", .lo = 16, .hi = 1000, .help = "size"},
    {.name = "steps", .kind = SRV_OPT_I64, .to = &v.steps, .arg = "N", .lo = 1, .hi = 1e9, .help = "steps"},
    {.name = "seed", .kind = SRV_OPT_U64, .to = &v.seed, .arg = "N", .help = "seed"},
    {.name = "mem", .kind = SRV_OPT_BYTES, .to = &v.budget, .arg = "BYTES", .help = "budget"},
    {.name = "lr", .kind = SRV_OPT_DOUBLE, .to = &v.lr, .arg = "X", .lo = 0, .hi = 1, .help = "rate"},
    {.name = "out", .kind = SRV_OPT_TEXT, .to = &v.out, .arg = "FILE", .help = "output", .letter = 'o'},
    {.name = "rainy", .kind = SRV_OPT_LIST, .to = &v.rainy, .arg = "DIR", .help = "folder"},
    {0},
};
static const srv_opts_spec spec = {.command = "test", .args = "IN OUT", .what = "Test.", .opts = table, .args_max = 2};

static const char *args[32];
static int n_args;
static char said[4096]; /* what went to stdout and stderr */

static int parse(const srv_opts_spec *s, int argc, const char **argv) {
    char path[] = "/tmp/test_opts_XXXXXX";
    int fd = mkstemp(path), out = dup(1), errfd = dup(2);
    memset(&v, 0, sizeof v);
    n_args = -1;
    fflush(stdout);
    fflush(stderr);
    dup2(fd, 1);
    dup2(fd, 2);
    int rc = srv_opts_parse(s, argc, (char **)(size_t)argv, args, &n_args);
    fflush(stdout);
    fflush(stderr);
    dup2(out, 1);
    dup2(errfd, 2);
    close(out);
    close(errfd);
    ssize_t n = pread(fd, said, sizeof said - 1, 0);
    said[n > 0 ? n : 0] = 0;
    close(fd);
    unlink(path);
    return rc;
}
#define PARSE(...)                                                                                                     \
    parse(&spec, (int)(sizeof((const char *[]){"test", __VA_ARGS__}) / sizeof(char *)),                                \
          (const char *[]){"test", __VA_ARGS__})

TEST(all_kinds) {
    CHECK(PARSE("in.png", "--json", "--threads", "3", "--backend=cpu", "--size", "640x480", "--steps=5", "-o", "x",
                "--seed", "18446744073709551615", "--mem", "2G", "--lr", "1e-4", "--rainy", "a", "--rainy=b", "--",
                "-out-") == SRV_OPTS_GO);
    CHECK(v.json && v.threads == 3 && !strcmp(v.backend, "cpu") && v.size[0] == 640 && v.size[1] == 480 &&
          v.steps == 5);
    CHECK(!strcmp(v.out, "x") && v.seed == UINT64_MAX && v.budget == 2ull << 30 && v.lr == 1e-4);
    CHECK(v.rainy.n == 2 && !strcmp(v.rainy.v[1], "b"));
    CHECK(n_args == 2 && !strcmp(args[0], "in.png") && !strcmp(args[1], "-out-"));
    CHECK(PARSE("-", "--out", "-") == SRV_OPTS_GO && n_args == 1 && !strcmp(args[0], "-") && !strcmp(v.out, "-"));
}

TEST(wrong_usage_names_what_is_wrong) {
    static const struct {
        const char *a, *b, *says;
    } bad[] = {
        {"--nothing", "x", "unknown option '--nothing'"},
        {"--thread", "1", "unknown option"},
        {"-x", "1", "unknown option '-x'"},
        {"-oX", "1", "unknown option '-oX'"},
        {"--threads", "1.5", "--threads"},
        {"--threads", "-1", "--threads: '-1' is not a number from 0 to 1024"},
        {"--threads", "9999999999999", "--threads"},
        {"--backend", "gpu", "'gpu' is not one of auto|cpu|cuda"},
        {"--backend", "", "'' is not one of"},
        {"--backend", "auto|cpu", "is not one of"},
        {"--size", "15x20", "--size"},
        {"--size", "20", "--size"},
        {"--steps", "0", "--steps"},
        {"--steps", "1x", "--steps"},
        {"--seed", "-1", "--seed"},
        {"--mem", "2Q", "--mem"},
        {"--lr", "nan", "--lr"},
        {"--lr", "2", "--lr: '2' is not a number from 0 to 1"},
        {"--json=1", "x", "--json takes no value"},
        {"x", "--out", "--out needs a value"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int rc = PARSE(bad[i].a, bad[i].b);
        CHECK_MSG(rc == SRV_EXIT_USAGE && strstr(said, bad[i].says) && n_args == -1, "%s %s -> %d: %s", bad[i].a,
                  bad[i].b, rc, said);
    }
    CHECK(PARSE("a", "b", "c") == SRV_EXIT_USAGE && strstr(said, "unexpected argument 'c'"));
}

TEST(required_and_counted) {
    srv_opt rows[] = {table[0], table[6], {0}};
    rows[1].required = true;
    srv_opts_spec s = spec;
    s.opts = rows;
    s.args_min = 1;
    CHECK(parse(&s, 2, (const char *[]){"test", "in"}) == SRV_EXIT_USAGE && strstr(said, "is missing"));
    CHECK(parse(&s, 3, (const char *[]){"test", "--mem", "1"}) == SRV_EXIT_USAGE && strstr(said, "missing arguments"));
    CHECK(parse(&s, 4, (const char *[]){"test", "--mem", "1", "in"}) == SRV_OPTS_GO && n_args == 1);
}

TEST(help_lists_every_option) {
    CHECK(PARSE("--help") == SRV_EXIT_OK);
    for (const srv_opt *o = table; o->name; o++) CHECK_MSG(strstr(said, o->name), "%s", o->name);
    CHECK(strstr(said, "-o, --out FILE") && strstr(said, "usage: deraind test [options] IN OUT"));
    CHECK(PARSE("-h", "--nothing") == SRV_EXIT_OK);
}

TEST(list_has_an_end) {
    const char *argv[2 * SRV_OPT_LIST_MAX + 3] = {"test"};
    for (int i = 0; i <= SRV_OPT_LIST_MAX; i++) argv[1 + 2 * i] = "--rainy", argv[2 + 2 * i] = "d";
    CHECK(parse(&spec, 2 * SRV_OPT_LIST_MAX + 1, argv) == SRV_OPTS_GO && v.rainy.n == SRV_OPT_LIST_MAX);
    CHECK(parse(&spec, 2 * SRV_OPT_LIST_MAX + 3, argv) == SRV_EXIT_USAGE && strstr(said, "--rainy"));
}
