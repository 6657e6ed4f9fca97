/* test_train_plan.c - what a training is said to hold against what a process really holds (VmHWM, in a child each).
 */
#include "core/trainer.h"
#include "tests/core/train_fixture.h"
#include "tests/t.h"
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

static fixture fx;
static const char *rainy[1], *clean[1];
static char rainy_dir[600], clean_dir[600];

static bool begin(int side) {
    if (!fixture_init(&fx) || !fixture_mkdir(&fx, "rainy") || !fixture_mkdir(&fx, "clean")) return false;
    snprintf(rainy_dir, sizeof rainy_dir, "%s/rainy", fx.dir);
    snprintf(clean_dir, sizeof clean_dir, "%s/clean", fx.dir);
    rainy[0] = rainy_dir, clean[0] = clean_dir;
    return fixture_picture(&fx, "rainy/1.png", side, side + 8, 3, 1) &&
           fixture_picture(&fx, "clean/1.png", side + 8, side, 3, 2);
}

static dr_train_opts options(const char *preset, int crop, int batch, int ngf) {
    dr_train_opts o;
    dr_train_opts_init(&o);
    o.rainy = rainy, o.n_rainy = 1, o.clean = clean, o.n_clean = 1;
    o.preset = preset, o.backend = "cpu", o.threads = 2, o.steps = 100;
    o.crop = crop, o.batch = batch, o.ngf = ngf;
    return o;
}

static long status_kb(const char *key) {
    char line[200];
    long kb = -1;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key))) kb = strtol(line + strlen(key) + 1, NULL, 10);
    if (f) fclose(f);
    return kb;
}

/* MB that opening, six steps, a sheet and a checkpoint add to a fresh process; negative when it fails. */
static double measure(const dr_train_opts *o) {
    double *mb = mmap(NULL, sizeof *mb, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int st = 0;
    *mb = -1;
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        dr_trainer *t;
        dr_train_metrics m;
        dr_error e = {0};
        char path[700];
        long before = status_kb("VmRSS");
        snprintf(path, sizeof path, "%s/x", fx.dir);
        dr_status s = dr_trainer_open(o, &t, &e);
        for (int i = 0; i < (o->batch < 6 ? 6 : 2) && !s; i++)
            s = dr_trainer_step(t, &m, &e); /* the sheet has six rows */
        if (!s) s = dr_trainer_sheet(t, path, &e);
        if (!s) s = dr_trainer_save(t, path, &e);
        if (s) printf("# %s\n", e.text);
        if (!s) *mb = (double)(status_kb("VmHWM") - before) / 1024;
        fflush(stdout);
        _exit(s != 0);
    }
    waitpid(pid, &st, 0);
    double got = *mb;
    munmap(mb, sizeof *mb);
    return st ? -1 : got;
}

static double mb(uint64_t n) {
    return (double)n / (1 << 20);
}

static void report(const dr_train_opts *o, double *ret_plan, double *ret_real) {
    dr_train_size z = {0};
    dr_error e = {0};
    dr_status s = dr_train_plan(o, &z, &e);
    if (s) printf("# %s\n", e.text);
    *ret_plan = s ? -1 : mb(z.total);
    *ret_real = measure(o);
    printf("# %s crop %d batch %d ngf %d %s: planned %.0f MB (nets %.0f, step %.0f, sheet %.0f, file %.0f, host %.0f), "
           "held "
           "%.0f MB, ratio %.2f\n",
           o->preset, o->crop, o->batch, o->ngf, o->precision ? o->precision : "f32", *ret_plan, mb(z.nets), mb(z.step),
           mb(z.sheet), mb(z.file), mb(z.host), *ret_real, *ret_plan / *ret_real);
}

#ifdef __SANITIZE_ADDRESS__
enum { SANITIZED = 1 };
#elif defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

TEST(a_training_holds_no_more_than_planned_and_not_much_less) {
    CHECK(begin(300));
    dr_train_opts o[3] = {options("product", 96, 1, 32), options("released", 64, 1, 32), options("full", 64, 1, 32)};
    o[0].precision = "bf16";
    for (int i = 0; i < 3; i++) {
        double plan = 0, real = 0;
        report(&o[i], &plan, &real);
        CHECK(real > 0);
        if (SANITIZED) continue; /* shadow memory counts too */
        CHECK_MSG(plan >= real, "case %d", i);
        CHECK_MSG(plan <= 1.3 * real, "case %d", i);
    }
    fixture_done(&fx);
}

TEST(planning_takes_no_time_and_no_memory) {
    CHECK(begin(80));
    dr_train_opts o = options("released", 4096, 64, 256);
    o.blocks = 32, o.ndf = 256;
    dr_train_size z;
    dr_error e = {0};
    long before = status_kb("VmHWM");
    clock_t start = clock();
    CHECK_MSG(!dr_train_plan(&o, &z, &e), "%s", e.text);
    printf("# %.1f TB planned in %.1f ms of processor time, peak grew by %ld kB\n", mb(z.total) / (1 << 20),
           1e3 * (double)(clock() - start) / CLOCKS_PER_SEC, status_kb("VmHWM") - before);
    CHECK(z.total > (uint64_t)1 << 40);
    CHECK(SANITIZED || status_kb("VmHWM") - before < 4096);
    o.blocks = 4;
    CHECK(dr_train_plan(&o, &z, &e) == DR_INVALID && *e.text);
    fixture_done(&fx);
}

TEST(sizes_come_from_the_files_that_it_begins_with) {
    CHECK(begin(80));
    dr_train_opts o = options("product", 64, 1, 16);
    o.blocks = 5, o.ndf = 16;
    dr_trainer *t;
    dr_train_metrics m;
    dr_train_size z, of_file;
    dr_error e = {0};
    char ckpt[600], all[600];
    snprintf(ckpt, sizeof ckpt, "%s/c.safetensors", fx.dir);
    snprintf(all, sizeof all, "%s/t.safetensors", fx.dir);
    CHECK_MSG(!dr_trainer_open(&o, &t, &e), "%s", e.text);
    CHECK(!dr_trainer_step(t, &m, &e) && !dr_trainer_save(t, ckpt, &e) && !dr_trainer_export_all(t, all, &e));
    dr_trainer_close(t);
    CHECK(!dr_train_plan(&o, &z, &e) && z.file == 0);
    dr_train_opts from = options("product", 64, 1, -1);
    for (int i = 0; i < 2; i++) {
        from.init = i ? NULL : all;
        from.resume = i ? ckpt : NULL;
        from.crop = i ? -1 : 64;
        CHECK_MSG(!dr_train_plan(&from, &of_file, &e), "%s", e.text);
        CHECK(of_file.nets == z.nets && of_file.step == z.step && of_file.file > 0);
    }
    from.resume = NULL, from.init = fixture_path(&fx, "none");
    CHECK(dr_train_plan(&from, &z, &e) == DR_NOT_FOUND);
    CHECK(fixture_write(&fx, "bad", "no tensors", 10));
    from.init = fixture_path(&fx, "bad");
    CHECK(dr_train_plan(&from, &z, &e) == DR_CORRUPT);
    fixture_done(&fx);
}
