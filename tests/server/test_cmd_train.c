/* test_cmd_train.c - deraind train on made pictures: what it writes, that stop and resume change no bit, how it ends on
 * signals, bad options and a full disk. Each training runs in a process of its own. */
#include "core/base/parse.h"
#include "core/tensor/backend.h"
#include "server/commands.h"
#include "tests/core/train_fixture.h"
#include "tests/t.h"
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#define SMALL "--preset", "product", "--ngf", "16", "--ndf", "16", "--blocks", "5", "--crop", "64", "--threads", "1"

typedef struct ended {
    int code; /* exit code, 128 + signal */
    char said[8192];
} ended;

static bool pictures(fixture *f) {
    if (!fixture_init(f) || !fixture_mkdir(f, "r") || !fixture_mkdir(f, "c")) return false;
    char name[32];
    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "%s/%d.png", i % 2 ? "c" : "r", i);
        if (!fixture_picture(f, name, 70 + 9 * i, 100 - 7 * i, 3, 25 * i)) return false;
    }
    return true;
}

enum { ARGS_MAX = 64 };

/* Starts srv_cmd_train with --rainy, --clean and the arguments up to NULL; file_max limits the size of every file. */
static pid_t start(const fixture *f, rlim_t file_max, const char *const *args) {
    char *argv[ARGS_MAX + 6];
    int argc = 0;
    fflush(NULL);
    pid_t pid = fork();
    if (pid) return pid;
    argv[argc++] = strdup("train");
    argv[argc++] = strdup("--rainy");
    argv[argc++] = strdup(fixture_path(f, "r"));
    argv[argc++] = strdup("--clean");
    argv[argc++] = strdup(fixture_path(f, "c"));
    for (int i = 0; i < ARGS_MAX && args[i]; i++) argv[argc++] = strdup(args[i]);
    argv[argc] = NULL;
    if (!freopen(fixture_path(f, "said"), "w", stdout) || dup2(fileno(stdout), STDERR_FILENO) < 0) _exit(99);
    if (file_max) {
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){file_max, file_max});
    }
    int rc = srv_cmd_train(argc, argv);
    while (argc > 0) free(argv[--argc]);
    exit(rc);
}

static ended wait_for(const fixture *f, pid_t pid) {
    ended e = {.code = -1};
    int status = 0;
    if (waitpid(pid, &status, 0) != pid) return e;
    e.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    char *text = NULL;
    size_t len = 0;
    if (!dr_fs_read(fixture_path(f, "said"), 1 << 20, &text, &len, NULL)) snprintf(e.said, sizeof e.said, "%s", text);
    dr_free(text);
    return e;
}

#define RUN(f, ...)              wait_for(f, start(f, 0, (const char *const[]){__VA_ARGS__, NULL}))
#define RUN_LIMITED(f, max, ...) wait_for(f, start(f, max, (const char *const[]){__VA_ARGS__, NULL}))

static bool same_file(const fixture *f, const char *a, const char *b) {
    char *x = NULL, *y = NULL;
    size_t n = 0, m = 0;
    bool same = !dr_fs_read(fixture_path(f, a), 1 << 28, &x, &n, NULL) &&
                !dr_fs_read(fixture_path(f, b), 1 << 28, &y, &m, NULL) && n == m && n > 1000 && memcmp(x, y, n) == 0;
    dr_free(x);
    dr_free(y);
    return same;
}

/* Steps in the first column and the text from the fourth on (the third is seconds); -1 where there is no such row. */
static int64_t csv_row(const fixture *f, const char *name, int row, char ret_rest[1024]) {
    char *text = NULL;
    size_t len = 0;
    int64_t step = -1;
    if (dr_fs_read(fixture_path(f, name), 1 << 20, &text, &len, NULL)) return -1;
    char *p = text;
    for (; row > 0 && p; row--) {
        p = strchr(p, '\n');
        if (p) p++;
    }
    if (p && *p) {
        char *end = strchr(p, '\n'), *c1 = strchr(p, ','), *c2 = c1 ? strchr(c1 + 1, ',') : NULL,
             *c3 = c2 ? strchr(c2 + 1, ',') : NULL;
        if (end && c3 && c3 < end) {
            *end = *c1 = 0;
            if (!dr_parse_i64(p, 0, 1000000, &step)) step = -1;
            snprintf(ret_rest, 1024, "%s", c3 + 1);
        }
    }
    dr_free(text);
    return step;
}

TEST(stopped_and_resumed_gives_the_same_files_as_unbroken) {
    fixture f = {0};
    CHECK(pictures(&f));
    char a[300], b[300], ckpt[340];
    snprintf(a, sizeof a, "%s", fixture_path(&f, "a"));
    snprintf(b, sizeof b, "%s", fixture_path(&f, "b/deep"));
    snprintf(ckpt, sizeof ckpt, "%s/checkpoint.safetensors", b);
    ended e = RUN(&f, SMALL, "--streaks", "procedural", "--steps", "6", "--log-every", "1", "--out", a);
    CHECK_MSG(e.code == 0, "%d: %s", e.code, e.said);
    e = RUN(&f, SMALL, "--streaks", "procedural", "--steps", "6", "--log-every", "1", "--out", b, "--stop-after", "3");
    CHECK_MSG(e.code == 0 && strstr(e.said, "--resume") && strstr(e.said, "3 steps done"), "%d: %s", e.code, e.said);
    CHECK(!same_file(&f, "a/checkpoint.safetensors", "b/deep/checkpoint.safetensors"));
    CHECK(same_file(&f, "b/deep/latest.safetensors", "b/deep/best.safetensors"));
    e = RUN(&f, SMALL, "--streaks", "procedural", "--steps", "6", "--log-every", "1", "--out", b, "--resume", ckpt);
    CHECK_MSG(e.code == 0, "%d: %s", e.code, e.said);
    const char *files[] = {"checkpoint", "latest", "best", "train"};
    for (int i = 0; i < 4; i++) {
        char x[64], y[64];
        snprintf(x, sizeof x, "a/%s.safetensors", files[i]);
        snprintf(y, sizeof y, "b/deep/%s.safetensors", files[i]);
        CHECK_MSG(same_file(&f, x, y), "%s", files[i]);
    }
    char p[1024], q[1024];
    for (int i = 0; i <= 7; i++) {
        int64_t x = csv_row(&f, "a/metrics.csv", i, p), y = csv_row(&f, "b/deep/metrics.csv", i, q);
        CHECK_MSG(x == (i == 0 || i == 7 ? -1 : i) && y == x, "row %d: %d %d", i, (int)x, (int)y);
        if (x > 0) CHECK_MSG(strcmp(p, q) == 0, "row %d: %s and %s", i, p, q);
    }
    CHECK(dr_fs_exists(fixture_path(&f, "a/samples/step_0000006.png")) &&
          dr_fs_exists(fixture_path(&f, "b/deep/samples/step_0000003.png")));
    /* a row that was cut off and rows beyond the checkpoint go when it is resumed */
    FILE *csv = fopen(fixture_path(&f, "b/deep/metrics.csv"), "a");
    CHECK(csv && fputs("7,1,1,1\n8,1", csv) >= 0 && fclose(csv) == 0);
    e = RUN(&f, SMALL, "--streaks", "procedural", "--steps", "6", "--out", b, "--resume", ckpt);
    CHECK_MSG(e.code == 0, "%d: %s", e.code, e.said);
    CHECK(csv_row(&f, "b/deep/metrics.csv", 6, p) == 6 && csv_row(&f, "b/deep/metrics.csv", 7, p) == -1);
    CHECK(same_file(&f, "a/checkpoint.safetensors", "b/deep/checkpoint.safetensors"));
    /* the folder holds a training now */
    e = RUN(&f, SMALL, "--steps", "1", "--out", a);
    CHECK_MSG(e.code == 1 && strstr(e.said, "--overwrite"), "%d: %s", e.code, e.said);
    e = RUN(&f, SMALL, "--steps", "1", "--out", a, "--overwrite", "--init",
            fixture_path(&f, "b/deep/train.safetensors"));
    CHECK_MSG(e.code == 0, "%d: %s", e.code, e.said);
    fixture_done(&f);
}

/* What is asked for here is inherited by the training's process. */
TEST(a_step_that_is_not_finite_is_left_out_and_told) {
    fixture f = {0};
    CHECK(pictures(&f));
    char a[300], rest[1024], ckpt[340];
    snprintf(a, sizeof a, "%s", fixture_path(&f, "a"));
    snprintf(ckpt, sizeof ckpt, "%s/checkpoint.safetensors", a);
    dr_backend_poison(14, 1);
    ended e = RUN(&f, SMALL, "--steps", "6", "--log-every", "1", "--stop-after", "4", "--out", a);
    dr_backend_poison(0, 0);
    CHECK_MSG(e.code == 0 && strstr(e.said, "step 2 was left out: ") && strstr(e.said, "1 left out as not finite"),
              "%d: %s", e.code, e.said);
    e = RUN(&f, SMALL, "--steps", "6", "--log-every", "1", "--out", a, "--resume", ckpt);
    CHECK_MSG(e.code == 0 && strstr(e.said, "6 steps done, 1 left out as not finite"), "%d: %s", e.code, e.said);
    static const int at[] = {1, 3, 4, 5, 6}, so_far[] = {0, 1, 1, 1, 1}; /* no row of the step itself */
    for (int i = 0; i < 5; i++) {
        CHECK(csv_row(&f, "a/metrics.csv", i + 1, rest) == at[i]);
        const char *last = strrchr(rest, ',');
        CHECK_MSG(last && atoi(last + 1) == so_far[i], "row %d: %s", at[i], rest);
    }
    /* a file of an earlier version goes on with its columns */
    char *text = NULL;
    size_t n = 0;
    CHECK(!dr_fs_read(fixture_path(&f, "a/metrics.csv"), 1 << 20, &text, &n, NULL));
    char *column = strstr(text, ",skipped\n");
    CHECK(column);
    memmove(column, column + 8, n - (size_t)(column + 8 - text));
    CHECK(fixture_write(&f, "a/metrics.csv", text, n - 8));
    dr_free(text);
    e = RUN(&f, SMALL, "--steps", "8", "--log-every", "1", "--out", a, "--resume", ckpt);
    CHECK_MSG(e.code == 0 && csv_row(&f, "a/metrics.csv", 7, rest) == 8, "%d: %s", e.code, e.said);
    CHECK(strchr(strrchr(rest, ','), '.'));
    dr_backend_poison(1, 1 << 20);
    e = RUN(&f, SMALL, "--steps", "20", "--log-every", "1", "--out", a, "--overwrite");
    dr_backend_poison(0, 0);
    CHECK_MSG(e.code == 1 && strstr(e.said, "10 steps in a row were left out"), "%d: %s", e.code, e.said);
    fixture_done(&f);
}

TEST(a_signal_ends_it_with_a_checkpoint) {
    fixture f = {0};
    CHECK(pictures(&f));
    const char *const args[] = {SMALL, "--steps", "1000000", "--log-every", "1", "--out", strdup(fixture_path(&f, "o")),
                                NULL};
    pid_t pid = start(&f, 0, args);
    char rest[1024];
    for (int i = 0; i < 2000 && csv_row(&f, "o/metrics.csv", 2, rest) < 0; i++)
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    CHECK(csv_row(&f, "o/metrics.csv", 2, rest) == 2);
    CHECK(kill(pid, SIGTERM) == 0);
    ended e = wait_for(&f, pid);
    free((void *)args[sizeof args / sizeof *args - 2]);
    CHECK_MSG(e.code == 0 && strstr(e.said, "stopped by a signal") && strstr(e.said, "--resume"), "%d: %s", e.code,
              e.said);
    CHECK(dr_fs_exists(fixture_path(&f, "o/checkpoint.safetensors")) &&
          dr_fs_exists(fixture_path(&f, "o/best.safetensors")));
    fixture_done(&f);
}

TEST(evaluation_chooses_the_best) {
    fixture f = {0};
    CHECK(pictures(&f));
    char out[300], rainy[300], clean[300], ckpt[340], rest[1024];
    snprintf(out, sizeof out, "%s", fixture_path(&f, "o"));
    snprintf(rainy, sizeof rainy, "%s", fixture_path(&f, "er"));
    snprintf(clean, sizeof clean, "%s", fixture_path(&f, "ec"));
    snprintf(ckpt, sizeof ckpt, "%s/checkpoint.safetensors", out);
    CHECK(fixture_mkdir(&f, "er") && fixture_mkdir(&f, "ec") && fixture_picture(&f, "er/1.png", 80, 60, 3, 90) &&
          fixture_picture(&f, "ec/1.png", 80, 60, 3, 60));
    ended e = RUN(&f, SMALL, "--steps", "6", "--eval-every", "2", "--eval-rainy", rainy, "--eval-clean", clean, "--out",
                  out, "--stop-after", "5");
    CHECK_MSG(e.code == 0, "%d: %s", e.code, e.said);
    CHECK(csv_row(&f, "o/eval.csv", 1, rest) == 2 && csv_row(&f, "o/eval.csv", 2, rest) == 4 &&
          csv_row(&f, "o/eval.csv", 3, rest) == -1);
    e = RUN(&f, SMALL, "--steps", "6", "--eval-every", "2", "--eval-rainy", rainy, "--eval-clean", clean, "--out", out,
            "--resume", ckpt);
    CHECK_MSG(e.code == 0 && strstr(e.said, "best at step"), "%d: %s", e.code, e.said);
    CHECK(csv_row(&f, "o/eval.csv", 3, rest) == 6 && csv_row(&f, "o/eval.csv", 4, rest) == -1);
    CHECK(dr_fs_exists(fixture_path(&f, "o/best.safetensors")) &&
          !dr_fs_exists(fixture_path(&f, "o/.candidate.safetensors")));
    fixture_done(&f);
}

TEST(a_full_disk_keeps_the_last_good_files) {
    fixture f = {0};
    CHECK(pictures(&f));
    char out[300], ckpt[340];
    snprintf(out, sizeof out, "%s", fixture_path(&f, "o"));
    snprintf(ckpt, sizeof ckpt, "%s/checkpoint.safetensors", out);
    ended e = RUN(&f, SMALL, "--steps", "4", "--stop-after", "2", "--out", out);
    CHECK_MSG(e.code == 0, "%d: %s", e.code, e.said);
    CHECK(!link(ckpt, fixture_path(&f, "kept")));
    e = RUN_LIMITED(&f, 100000, SMALL, "--steps", "4", "--save-every", "1", "--out", out, "--resume", ckpt);
    CHECK_MSG(e.code == 1 && strstr(e.said, "training goes on"), "%d: %s", e.code, e.said);
    CHECK(same_file(&f, "kept", "o/checkpoint.safetensors"));
    char **names = NULL;
    size_t n = 0;
    CHECK(!dr_fs_list(out, &names, &n, NULL));
    size_t want = 5; /* checkpoint, latest, best, train, metrics */
    CHECK_MSG(n == want, "%zu files", n);
    dr_fs_list_free(names, n);
    fixture_done(&f);
}

TEST(preview_is_a_sheet_of_samples) {
    fixture f = {0};
    CHECK(pictures(&f));
    char png[300];
    snprintf(png, sizeof png, "%s", fixture_path(&f, "p.png"));
    ended e = RUN(&f, "--crop", "64", "--streaks", "procedural", "--preview", png, "--preview-samples", "7");
    CHECK_MSG(e.code == 0, "%d: %s", e.code, e.said);
    char *data = NULL;
    size_t len = 0;
    dr_picture_info info;
    dr_limits lim = {0};
    dr_limits_fill(&lim);
    CHECK(!dr_fs_read(png, 1 << 24, &data, &len, NULL) && !dr_probe(data, len, len, &lim, &info, NULL));
    dr_free(data);
    CHECK(info.width > 6 * 64 && info.width < 8 * 64 && info.height > 4 * 64 && info.height < 5 * 64);
    fixture_done(&f);
}

/* The weights of a preset's terms come from the command line: 0 leaves one out. */
TEST(full_has_the_terms_that_are_asked_for) {
    fixture f = {0};
    CHECK(pictures(&f));
    char out[300];
    snprintf(out, sizeof out, "%s", fixture_path(&f, "o"));
    ended e = RUN(&f, "--preset", "full", "--ngf", "16", "--ndf", "16", "--blocks", "5", "--crop", "64", "--threads",
                  "1", "--steps", "1", "--w-color", "0", "--w-freq", "0.5", "--out", out);
    CHECK_MSG(e.code == 0 && strstr(e.said, "preset full") && strstr(e.said, "tanh"), "%d: %s", e.code, e.said);
    char *text = NULL;
    size_t len = 0;
    CHECK(!dr_fs_read(fixture_path(&f, "o/metrics.csv"), 1 << 20, &text, &len, NULL));
    bool ok = strstr(text, ",nce_4,") && strstr(text, ",cycle_B,") && strstr(text, ",freq_A,freq_B,") &&
              !strstr(text, "color");
    dr_free(text);
    CHECK(ok);
    fixture_done(&f);
}

TEST(bad_options_and_files) {
    fixture f = {0};
    CHECK(pictures(&f));
    char out[300], file[300], none[300];
    snprintf(out, sizeof out, "%s", fixture_path(&f, "o"));
    snprintf(file, sizeof file, "%s", fixture_path(&f, "r/0.png"));
    snprintf(none, sizeof none, "%s", fixture_path(&f, "none"));
    CHECK(RUN(&f, "--help").code == 0);
    CHECK(RUN(&f, "--steps", "1").code == 2); /* no --out */
    CHECK(RUN(&f, "--out", out, "--crop", "65").code == 2);
    CHECK(RUN(&f, "--out", out, "--crop", "60").code == 2);
    CHECK(RUN(&f, "--out", out, "--ngf", "20").code == 2);
    CHECK(RUN(&f, "--out", out, "--blocks", "4").code == 2);
    CHECK(RUN(&f, "--out", out, "--steps", "0").code == 2);
    CHECK(RUN(&f, "--out", out, "--steps", "many").code == 2);
    CHECK(RUN(&f, "--out", out, "--preset", "best").code == 2);
    CHECK(RUN(&f, "--out", out, "--w-color", "-1").code == 2);
    CHECK(RUN(&f, "--out", out, "--w-freq", "much").code == 2);
    CHECK(RUN(&f, "--out", out, "--eval-rainy", out).code == 2);
    CHECK(RUN(&f, "--out", out, "--residual-channels", "2").code == 2);
    CHECK(RUN(&f, "--out", out, "--init", file, "--resume", file).code == 2);
    CHECK(RUN(&f, "--out", out, "--frobnicate").code == 2);
    CHECK(!dr_fs_exists(out)); /* nothing was begun */
    ended e = RUN(&f, SMALL, "--steps", "1", "--out", out, "--rainy", none);
    CHECK_MSG(e.code == 1 && strstr(e.said, "none"), "%d: %s", e.code, e.said);
    e = RUN(&f, SMALL, "--steps", "1", "--out", out, "--resume", none);
    CHECK_MSG(e.code == 1 && strstr(e.said, "none"), "%d: %s", e.code, e.said);
    e = RUN(&f, SMALL, "--steps", "1", "--out", out, "--resume", file);
    CHECK_MSG(e.code == 1 && strstr(e.said, "0.png"), "%d: %s", e.code, e.said);
    e = RUN(&f, SMALL, "--steps", "1", "--out", file);
    CHECK_MSG(e.code == 1 && strstr(e.said, "0.png"), "%d: %s", e.code, e.said);
    fixture_done(&f);
}
