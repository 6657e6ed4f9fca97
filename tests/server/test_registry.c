/* test_registry.c - versions of models with real (tiny) networks: registration across starts, import, changes of the
 * default while pictures are derained, what a failed load leaves, orphans, and the memory of a thousand changes. */
#include "core/base/fs.h"
#include "core/base/log.h"
#include "core/base/parse.h"
#include "server/model_files.h"
#include "server/registry.h"
#include "server/registry_engines.h"
#include "tests/cuda/emulated.h"
#include "tests/db/util.h"
#include "tests/t.h"
#include <dirent.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/stat.h>

enum { SIDE = 32, PLANES = 3 * SIDE * SIDE };

static char dir[256];
static db_store *db;
static srv_registry *reg;

static const char *in_dir(const char *name) {
    static char path[8][400];
    static int i;
    snprintf(path[i = (i + 1) % 8], 400, "%s/%s", dir, name);
    return path[i];
}

static bool make_model(const char *name, uint64_t seed) {
    const dr_model_spec spec = {.ngf = 16, .blocks = 1, .seed = seed, .name = "tiny"};
    return !dr_model_init_file(&spec, in_dir(name), NULL);
}

static const char *backend = "cpu";

static dr_status up_with(const char *model, int workers, dr_error *err) {
    static char path[400], data[300];
    snprintf(path, sizeof path, "%s", in_dir(model));
    snprintf(data, sizeof data, "%s/data", dir);
    const srv_registry_opts o = {.data = data, .model = path, .backend = backend, .threads = 1, .workers = workers};
    srv_registry_opts with_db = o;
    dr_status s = db_open(data, NULL, &db, err);
    with_db.db = db;
    return s ? s : srv_registry_open(&with_db, &reg, err);
}

static void down(void) {
    srv_registry_close(reg);
    db_close(db);
    reg = NULL;
    db = NULL;
}

static void begin(void) {
    dr_log_setup(DR_LOG_ERROR, false); /* a line a change would be thousands */
    scratch_make(dir, sizeof dir);
    if (!make_model("a.safetensors", 1) || !make_model("b.safetensors", 2) || !make_model("c.safetensors", 3)) abort();
}

static void end(void) {
    down();
    scratch_rm(dir);
}

static dr_status add(const char *file, const char *job, db_verdict verdict, int64_t *ret_version, bool *ret_made) {
    char path[400];
    snprintf(path, sizeof path, "%s", in_dir(file));
    const srv_version_new in = {.name = "tiny",
                                .origin = DB_TRAINED,
                                .verdict = verdict,
                                .parent = 1,
                                .job = job,
                                .weights = path,
                                .card = "# a card\n",
                                .gate_json = "{\"verdict\":\"x\"}"};
    dr_error err = {0};
    dr_status s = srv_registry_add(reg, &in, ret_version, ret_made, &err);
    if (s) printf("# %s\n", err.text);
    return s;
}

static int64_t now(void) {
    srv_model_id id;
    srv_registry_served(reg, &id);
    return id.version;
}

static dr_status use(int64_t version, bool force, dr_error *err) {
    return srv_registry_set_default(reg, "tiny", version, 0, force, NULL, NULL, err);
}

static bool picture(dr_model *m, float *ret) {
    float in[PLANES];
    for (int i = 0; i < PLANES; i++) in[i] = (float)(i * 37 % 255) / 127.5f - 1;
    return !dr_model_forward(m, in, SIDE, SIDE, ret, NULL);
}

TEST(a_start_registers_and_the_next_one_remembers) {
    int64_t v = 0;
    bool made = false;
    dr_error err = {0};
    begin();
    CHECK_MSG(up_with("a.safetensors", 1, &err) == DR_OK, "%s", err.text);
    CHECK(now() == 1);
    CHECK(add("b.safetensors", "job_1", DB_ACCEPTED, &v, &made) == DR_OK && v == 2 && made);
    CHECK(add("b.safetensors", "job_1", DB_ACCEPTED, &v, &made) == DR_OK && v == 2 && !made); /* the job asks again */
    CHECK(use(2, false, NULL) == DR_OK && now() == 2);
    down();
    CHECK(up_with("a.safetensors", 1, NULL) == DR_OK && now() == 2); /* a restart keeps the default */
    down();
    CHECK(up_with("c.safetensors", 1, NULL) == DR_OK); /* other weights in the settings: they are meant */
    CHECK(now() == 1);
    down();
    CHECK(up_with("b.safetensors", 1, NULL) == DR_OK); /* the bytes of version 2, but configured: their own number */
    int64_t b = now();
    CHECK(b == 1);
    CHECK(use(2, false, NULL) == DR_OK && now() == 2);
    down();
    CHECK(unlink(in_dir("data/models/tiny/2/model.safetensors")) == 0);
    CHECK(up_with("b.safetensors", 1, NULL) == DR_OK && now() == b); /* the default is gone: still serving */
    end();
}

TEST(a_rejected_version_serves_only_by_force_and_rolls_back) {
    int64_t v = 0, back = 0, rev = 0;
    bool made;
    dr_error err = {0};
    begin();
    CHECK(up_with("a.safetensors", 1, NULL) == DR_OK);
    CHECK(add("b.safetensors", "job_1", DB_REJECTED, &v, &made) == DR_OK);
    CHECK(use(v, false, &err) == DR_CONFLICT && !strcmp(err.what, "version_rejected") && now() == 1);
    err = (dr_error){0};
    CHECK(srv_registry_set_default(reg, "tiny", 0, 0, false, NULL, NULL, &err) == DR_CONFLICT);
    CHECK(!strcmp(err.what, "no_previous_version"));
    CHECK(use(v, true, NULL) == DR_OK && now() == v);
    CHECK(srv_registry_set_default(reg, "tiny", 0, 0, false, &back, &rev, NULL) == DR_OK && back == 1 && now() == 1);
    err = (dr_error){0};
    CHECK(srv_registry_set_default(reg, "tiny", 1, rev + 5, false, NULL, NULL, &err) == DR_CONFLICT);
    CHECK(!strcmp(err.what, "revision_changed"));
    CHECK(use(99, false, NULL) == DR_NOT_FOUND);
    CHECK(srv_registry_set_default(reg, "other", 1, 0, false, NULL, NULL, NULL) == DR_NOT_FOUND);
    end();
}

TEST(what_cannot_be_loaded_leaves_the_old_one) {
    int64_t v = 0;
    bool made;
    dr_error err = {0};
    srv_registry_stats st;
    begin();
    CHECK(up_with("a.safetensors", 1, NULL) == DR_OK);
    CHECK(add("b.safetensors", "job_1", DB_ACCEPTED, &v, &made) == DR_OK);
    CHECK(add("c.safetensors", "job_2", DB_ACCEPTED, &v, &made) == DR_OK && v == 3);
    char *bytes;
    size_t n;
    CHECK(dr_fs_read(in_dir("a.safetensors"), 1 << 24, &bytes, &n, NULL) == DR_OK);
    CHECK(dr_fs_write_atomic(in_dir("data/models/tiny/2/model.safetensors"), bytes, n, NULL) == DR_OK); /* another's */
    CHECK(dr_fs_write_atomic(in_dir("data/models/tiny/3/model.safetensors"), bytes, n / 2, NULL) == DR_OK);
    free(bytes);
    for (int64_t i = 2; i <= 3; i++) {
        err = (dr_error){0};
        CHECK(use(i, false, &err) == DR_CONFLICT && !strcmp(err.what, "version_unusable") && now() == 1);
    }
    srv_registry_stats_get(reg, &st);
    CHECK(st.loads == 2 && st.loads_failed == 2 && st.swaps == 0);
    db_model m = {0};
    CHECK(db_model_get(db, "tiny", 0, &m, NULL) == DR_OK && m.version == 1); /* nor does the row */
    db_model_clear(&m);
    srv_borrow b = {0};
    err = (dr_error){0};
    CHECK(srv_registry_borrow(reg, 0, "tiny", 2, &b, &err) == DR_CONFLICT && !strcmp(err.what, "version_unusable"));
    CHECK(srv_registry_borrow(reg, 0, "tiny", 0, &b, NULL) == DR_OK && b.id.version == 1);
    srv_registry_give_back(reg, &b);
    end();
}

TEST(files_without_a_row_are_swept_at_start) {
    int64_t v = 0;
    bool made;
    begin();
    CHECK(up_with("a.safetensors", 1, NULL) == DR_OK);
    CHECK(add("b.safetensors", "job_1", DB_NOT_JUDGED, &v, &made) == DR_OK && v == 2);
    down();
    CHECK(mkdir(in_dir("data/models/tmp.mdl_x"), 0700) == 0 && mkdir(in_dir("data/models/tiny/7"), 0700) == 0);
    CHECK(mkdir(in_dir("data/models/lost"), 0700) == 0 && mkdir(in_dir("data/models/lost/1"), 0700) == 0);
    CHECK(dr_fs_write_atomic(in_dir("data/models/tmp.mdl_x/sent"), "x", 1, NULL) == DR_OK);
    CHECK(dr_fs_write_atomic(in_dir("data/models/tiny/7/model.safetensors"), "x", 1, NULL) == DR_OK);
    CHECK(up_with("a.safetensors", 1, NULL) == DR_OK);
    CHECK(!dr_fs_is_dir(in_dir("data/models/tmp.mdl_x")) && !dr_fs_is_dir(in_dir("data/models/tiny/7")));
    CHECK(!dr_fs_is_dir(in_dir("data/models/lost")));
    CHECK(dr_fs_exists(in_dir("data/models/tiny/2/model.safetensors")));
    CHECK(dr_fs_exists(in_dir("data/models/tiny/2/card.md")));
    end();
}

/* --- import --- */

typedef struct answer {
    sem_t sem;
    dr_status s;
    srv_change c;
    dr_error err;
} answer;

static void on_done(void *arg, dr_status s, const srv_change *c, const dr_error *err) {
    answer *a = arg;
    a->s = s;
    a->c = *c;
    a->err = *err;
    sem_post(&a->sem);
}

static dr_status import(const char *name, const char *file, answer *a) {
    char stage[SRV_PATH], from[400];
    snprintf(from, sizeof from, "%s", in_dir(file));
    *a = (answer){0};
    sem_init(&a->sem, 0, 0);
    dr_error err = {0};
    if (srv_mfiles_stage(srv_registry_root(reg), stage, &err) || srv_mfiles_adopt(stage, "sent", from, &err)) {
        printf("# %s\n", err.text);
        return DR_INTERNAL;
    }
    srv_registry_import_async(reg, name, stage, "sent", on_done, a);
    while (sem_wait(&a->sem)) {
    }
    return a->s;
}

static int entries(const char *folder) {
    int n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) n += e->d_name[0] != '.';
    if (d) closedir(d);
    return n;
}

TEST(an_import_is_checked_numbered_and_made_once) {
    answer a;
    begin();
    CHECK(up_with("a.safetensors", 1, NULL) == DR_OK);
    CHECK_MSG(import("tiny", "b.safetensors", &a) == DR_OK, "%s", a.err.text);
    CHECK(a.c.version == 2 && a.c.made);
    CHECK(import("tiny", "b.safetensors", &a) == DR_OK && a.c.version == 2 && !a.c.made);
    CHECK(import("fresh", "c.safetensors", &a) == DR_OK && a.c.version == 1 && a.c.made);
    db_model m = {0};
    CHECK(db_model_get(db, "fresh", 0, &m, NULL) == DR_OK && m.origin == DB_IMPORTED); /* the first is the default */
    db_model_clear(&m);
    CHECK(dr_fs_write_atomic(in_dir("junk"), "no weights", 10, NULL) == DR_OK);
    CHECK(import("tiny", "junk", &a) == DR_CORRUPT);
    CHECK(entries(in_dir("data/models")) == 2 && entries(in_dir("data/models/tiny")) == 1); /* nothing staged is left */
    srv_borrow b = {0};
    CHECK(srv_registry_borrow(reg, 0, "fresh", 0, &b, NULL) == DR_OK && !strcmp(b.id.name, "fresh"));
    float out[PLANES];
    CHECK(picture(b.model, out));
    srv_registry_give_back(reg, &b);
    CHECK(now() == 1);
    end();
}

TEST(names_that_could_leave_the_folder_are_refused) {
    CHECK(srv_model_name_ok("derain-2.x_Y") && !srv_model_name_ok("") && !srv_model_name_ok("..") &&
          !srv_model_name_ok(".x") && !srv_model_name_ok("a/b") && !srv_model_name_ok("tmp.x") &&
          !srv_model_name_ok("a b"));
}

/* --- changes while pictures are derained --- */

enum { WORKERS = 2, CHANGES = 60 };
static float want[2][PLANES];
static atomic_bool over;
static atomic_int bad, done[2];

static void *work(void *arg) {
    int i = (int)(intptr_t)arg;
    float out[PLANES];
    while (!atomic_load(&over)) {
        srv_borrow b = {0};
        if (srv_registry_borrow(reg, i, "tiny", 0, &b, NULL)) {
            atomic_fetch_add(&bad, 1);
            break;
        }
        int64_t v = b.id.version;
        if (!picture(b.model, out) || memcmp(out, want[v - 1], sizeof out)) atomic_fetch_add(&bad, 1);
        srv_registry_give_back(reg, &b);
        atomic_fetch_add(&done[v - 1], 1);
    }
    return NULL;
}

TEST(every_picture_is_that_of_the_version_it_names) {
    int64_t v = 0;
    bool made;
    pthread_t t[WORKERS];
    begin();
    CHECK(up_with("a.safetensors", WORKERS, NULL) == DR_OK);
    CHECK(add("b.safetensors", "job_1", DB_ACCEPTED, &v, &made) == DR_OK && v == 2);
    for (int i = 0; i < 2; i++) {
        srv_borrow b = {0};
        CHECK(srv_registry_borrow(reg, 0, "tiny", i + 1, &b, NULL) == DR_OK && b.id.version == i + 1);
        CHECK(picture(b.model, want[i]));
        srv_registry_give_back(reg, &b);
    }
    CHECK(memcmp(want[0], want[1], sizeof want[0]) != 0);
    for (int i = 0; i < WORKERS; i++) CHECK(!pthread_create(&t[i], NULL, work, (void *)(intptr_t)i));
    int failed = 0;
    for (int i = 0; i < CHANGES; i++) failed += use(1 + (i + 1) % 2, false, NULL) != DR_OK;
    atomic_store(&over, true);
    for (int i = 0; i < WORKERS; i++) pthread_join(t[i], NULL);
    CHECK(!failed && !atomic_load(&bad));
    CHECK_MSG(atomic_load(&done[0]) && atomic_load(&done[1]), "%d %d", atomic_load(&done[0]), atomic_load(&done[1]));
    end();
}

static int64_t rss(void) {
    char *text = NULL, *p;
    size_t len;
    int64_t pages = 0;
    if (dr_fs_read("/proc/self/statm", 4096, &text, &len, NULL)) return 0;
    p = strchr(text, ' ') + 1;
    p[strcspn(p, " ")] = 0;
    if (!dr_parse_i64(p, 0, INT64_MAX, &pages)) pages = 0;
    free(text);
    return pages * sysconf(_SC_PAGESIZE);
}

TEST(a_thousand_changes_leave_memory_where_it_was) {
    int64_t v = 0;
    bool made;
    begin();
    CHECK(up_with("a.safetensors", 1, NULL) == DR_OK);
    CHECK(add("b.safetensors", "job_1", DB_ACCEPTED, &v, &made) == DR_OK && v == 2);
    for (int i = 0; i < 50; i++) CHECK(use(1 + (i + 1) % 2, false, NULL) == DR_OK);
    int64_t before = rss();
    for (int i = 0; i < 1000; i++) CHECK(use(1 + (i + 1) % 2, false, NULL) == DR_OK);
    int64_t after = rss();
    srv_registry_stats st;
    srv_registry_stats_get(reg, &st);
    printf("# resident before %lld, after %lld bytes\n", (long long)before, (long long)after);
    CHECK(st.swaps == 1050);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CHECK(after - before < 2 << 20); /* a model of this size takes 0.5 MB: 1000 leaked ones could not hide */
#endif
    end();
}

/* --- engines --- */

TEST(a_gpu_has_two_engines_for_any_number_of_workers) {
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int w, e;
    for (int n = 1; n <= 64; n++) {
        srv_engines_count("cpu", n, &w, &e);
        CHECK(w == n && e == n);
        srv_engines_count("cuda", n, &w, &e);
        CHECK(w == n && e == (n < 2 ? n : 2));
    }
    srv_engines_count("cpu", 0, &w, &e);
    CHECK(w == 1 && e == 1);
    srv_engines_count("cuda", 0, &w, &e);
    CHECK(w == (cores > 8 ? 8 : cores) && e == (w < 2 ? w : 2));
}

TEST(versions_on_a_gpu_are_lent_by_engine) {
    char module[600];
    float a[PLANES], b[PLANES], other[PLANES];
    int64_t v;
    bool made;
    dr_error err = {0};
    snprintf(module, sizeof module, "%s/derain-cuda.so", getenv("DERAIN_MODULE_DIR"));
    if (!dr_fs_exists(module)) SKIP("no emulated module");
    begin();
    backend = "cuda";
    dr_status s = up_with("a.safetensors", 5, &err);
    backend = "cpu";
    CHECK_MSG(!s, "%s", err.text);
    CHECK(srv_registry_on_gpu(reg) && srv_registry_workers(reg) == 5 && srv_registry_engines(reg) == 2);
    srv_borrow x = {0}, y = {0};
    CHECK(!srv_registry_borrow(reg, 0, "tiny", 0, &x, NULL) && !srv_registry_borrow(reg, 1, "tiny", 0, &y, NULL));
    CHECK(x.model != y.model && picture(x.model, a) && picture(y.model, b) && !memcmp(a, b, sizeof a));
    srv_registry_give_back(reg, &x);
    srv_registry_give_back(reg, &y);
    CHECK(add("b.safetensors", "job_1", DB_ACCEPTED, &v, &made) == DR_OK);
    CHECK(!srv_registry_borrow(reg, 1, "tiny", v, &x, NULL) && x.id.version == v && picture(x.model, other));
    CHECK(memcmp(a, other, sizeof a));
    srv_registry_give_back(reg, &x);
    CHECK(use(v, false, NULL) == DR_OK && !srv_registry_borrow(reg, 0, "tiny", 0, &y, NULL));
    CHECK(y.id.version == v && picture(y.model, b) && !memcmp(b, other, sizeof b));
    srv_registry_give_back(reg, &y);
    end();
}
