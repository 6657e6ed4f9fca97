/* test_trainer.c - the objective as a whole: presets, schedule, every loss term, resume to the bit, weights in and out.
 */
#include "core/model/safetensors.h"
#include "core/train/preset.h"
#include "core/trainer.h"
#include "tests/core/same_file.h"
#include "tests/core/train_fixture.h"
#include "tests/t.h"

static fixture fx;
static const char *rainy[1], *clean[1];
static char rainy_dir[600], clean_dir[600];

static bool make_pictures(void) {
    if (!fixture_init(&fx) || !fixture_mkdir(&fx, "rainy") || !fixture_mkdir(&fx, "clean")) return false;
    snprintf(rainy_dir, sizeof rainy_dir, "%s", fixture_path(&fx, "rainy"));
    snprintf(clean_dir, sizeof clean_dir, "%s", fixture_path(&fx, "clean"));
    rainy[0] = rainy_dir;
    clean[0] = clean_dir;
    bool ok = true;
    for (unsigned i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "rainy/%u.png", i);
        ok = ok && fixture_picture(&fx, name, 80, 72, 3, (int)i + 1);
        snprintf(name, sizeof name, "clean/%u.png", i);
        ok = ok && fixture_picture(&fx, name, 90, 70, 3, (int)i + 101);
    }
    return ok;
}

static dr_train_opts small(const char *preset) {
    dr_train_opts o;
    dr_train_opts_init(&o);
    o.rainy = rainy, o.n_rainy = 1, o.clean = clean, o.n_clean = 1;
    o.preset = preset;
    o.steps = 6, o.crop = 64, o.ngf = 16, o.blocks = 5, o.ndf = 16, o.d_layers = 2, o.threads = 2, o.backend = "cpu";
    return o;
}

TEST(schedule_is_the_published_one) {
    CHECK(dr_schedule(0, 600, 0.5) == 1.0 && dr_schedule(299, 600, 0.5) == 1.0);
    CHECK(fabs(dr_schedule(300, 600, 0.5) - (1 - 1.0 / 301)) < 1e-12);
    CHECK(fabs(dr_schedule(599, 600, 0.5) - 1.0 / 301) < 1e-12);
    CHECK(dr_schedule(0, 1, 0.4) == 1.0);
}

TEST(presets_fill_what_is_open) {
    dr_train_opts o;
    dr_objective obj;
    dr_train_opts_init(&o);
    o.preset = "released";
    CHECK(!dr_preset_fill(&o, &obj, NULL));
    CHECK(o.ngf == 64 && o.blocks == 9 && o.crop == 256 && o.residual == 0 && obj.dual && obj.w_nce == 2 &&
          o.lr == 1e-4 && o.lr_f == 1e-3 && o.ema_decay == 0);
    dr_train_opts_init(&o);
    o.preset = "full";
    CHECK(!dr_preset_fill(&o, &obj, NULL));
    CHECK(o.ngf == 64 && o.blocks == 9 && o.crop == 256 && o.residual == 0 && o.lr == 1e-4 && o.lr_f == 1e-3 &&
          o.ema_decay == 0.999 && o.decay_part == 0.5);
    CHECK(obj.dual && obj.w_gan == 1 && obj.w_nce == 2 && obj.w_idt == 1 && obj.w_cycle == 20 && obj.w_nce_extra == 2 &&
          obj.w_color == 10 && obj.w_freq == 0.2 && obj.w_transplant == 0 && obj.g_gan == DR_GAN_HINGE_REAL);
    dr_train_opts_init(&o);
    o.w_color = 1; /* of G_A(a) alone */
    CHECK(!dr_preset_fill(&o, &obj, NULL) && !obj.dual && obj.w_color == 1 && obj.w_freq == 0);
    dr_train_opts_init(&o);
    o.w_freq = 1; /* of both reconstructions */
    CHECK(!dr_preset_fill(&o, &obj, NULL) && obj.dual && obj.w_freq == 1);
    dr_train_opts_init(&o);
    o.w_freq = INFINITY;
    CHECK(dr_preset_fill(&o, &obj, NULL) == DR_INVALID);
    dr_train_opts_init(&o);
    o.w_idt = 3;
    CHECK(!dr_preset_fill(&o, &obj, NULL) && !strcmp(o.preset, "product"));
    CHECK(!obj.dual && obj.w_idt == 3 && obj.w_transplant == 10 && o.residual == 1);
    static const struct {
        int crop, batch, blocks;
        const char *preset, *precision;
    } bad[] = {{62, 1, 6, "product", NULL}, {66, 1, 6, "product", NULL}, {64, 0, 6, "product", NULL},
               {64, 1, 4, "product", NULL}, {64, 1, 6, "best", NULL},    {64, 1, 6, "product", "fp8"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dr_error e = {0};
        dr_train_opts_init(&o);
        o.crop = bad[i].crop, o.batch = bad[i].batch, o.blocks = bad[i].blocks, o.preset = bad[i].preset;
        o.precision = bad[i].precision;
        CHECK(dr_preset_fill(&o, &obj, &e) == DR_INVALID && e.text[0]);
    }
}

/* Runs o to its end (or `stop` steps), saving there; the last metrics come back. */
static dr_status run(const dr_train_opts *o, int64_t stop, const char *save, dr_train_metrics *m, dr_error *err) {
    dr_trainer *t;
    dr_status s = dr_trainer_open(o, &t, err);
    if (s) return s;
    while (!s && !dr_trainer_finished(t) && dr_trainer_at(t) < stop) s = dr_trainer_step(t, m, err);
    if (!s && save) s = dr_trainer_save(t, save, err);
    dr_trainer_close(t);
    return s;
}

static void resume_case(dr_train_opts o, const char *what) {
    dr_error e = {0};
    dr_train_metrics m;
    char a[600], b[600];
    snprintf(a, sizeof a, "%s", fixture_path(&fx, "a.safetensors"));
    snprintf(b, sizeof b, "%s", fixture_path(&fx, "b.safetensors"));
    CHECK_MSG(!run(&o, 99, a, &m, &e), "%s: %s", what, e.text);
    CHECK_MSG(!run(&o, 3, b, &m, &e), "%s: %s", what, e.text);
    dr_train_opts again;
    dr_train_opts_init(&again);
    again.rainy = o.rainy, again.n_rainy = 1, again.clean = o.clean, again.n_clean = 1;
    again.streaks = o.streaks;
    again.threads = o.threads, again.backend = "cpu", again.resume = b;
    CHECK_MSG(!run(&again, 99, b, &m, &e), "%s: %s", what, e.text);
    CHECK_MSG(same_file(a, b), "%s", what);
}

TEST(resumed_equals_unbroken_to_the_bit) {
    CHECK(make_pictures());
    resume_case(small("released"), "released");
    resume_case(small("full"), "full");
    dr_train_opts o = small("product");
    o.streaks = "procedural";
    resume_case(o, "product");
    o = small("released"); /* everything at once */
    o.pool = 2, o.batch = 2, o.w_cycle = 5, o.w_nce_extra = 1, o.w_transplant = 4, o.ema_decay = 0.9, o.residual = 3;
    o.w_color = 3, o.w_freq = 2;
    resume_case(o, "all terms");
    o = small("product");
    o.precision = "bf16";
    resume_case(o, "bf16");
    fixture_done(&fx);
}

/* Largest change of a weight of the exported generator by one step of o. */
static double moved_by_a_step(const dr_train_opts *o, const char *init) {
    dr_trainer *t;
    dr_train_metrics m;
    dr_st *before = NULL, *after = NULL;
    char out[600];
    double most = -1;
    snprintf(out, sizeof out, "%s", fixture_path(&fx, "moved.safetensors"));
    if (dr_trainer_open(o, &t, NULL)) return -1;
    if (!dr_trainer_step(t, &m, NULL) && !dr_trainer_export(t, out, "F32", NULL) && !dr_st_open(init, &before, NULL) &&
        !dr_st_open(out, &after, NULL)) {
        const dr_st_tensor *a = dr_st_find(before, "model.1.weight"), *b = dr_st_find(after, "model.1.weight");
        size_t n = (size_t)16 * 3 * 7 * 7;
        float x[16 * 3 * 7 * 7], y[16 * 3 * 7 * 7];
        if (a && b && !dr_st_read_f32(a, x, NULL) && !dr_st_read_f32(b, y, NULL))
            for (size_t i = 0; i < n; i++) most = fmax(most, fabs((double)x[i] - (double)y[i]));
    }
    dr_st_close(before);
    dr_st_close(after);
    dr_trainer_close(t);
    return most;
}

TEST(a_fine_tune_does_not_forget_at_once_where_it_came_from) {
    CHECK(make_pictures());
    dr_train_opts o = small("product");
    dr_error e = {0};
    dr_train_metrics m;
    char init[600];
    snprintf(init, sizeof init, "%s", fixture_path(&fx, "init.safetensors"));
    dr_trainer *t;
    CHECK_MSG(!dr_trainer_open(&o, &t, &e), "%s", e.text);
    while (!dr_trainer_finished(t)) CHECK(!dr_trainer_step(t, &m, &e));
    CHECK(!dr_trainer_export(t, init, "F32", &e));
    dr_trainer_close(t);
    o.init = init, o.lr = 1e-2;
    double old = moved_by_a_step(&o, init);
    o.ema_age = 0; /* as a training from nothing would */
    double young = moved_by_a_step(&o, init);
    CHECK_MSG(old >= 0 && old < 2e-5, "%g", old); /* a thousandth of a step of Adam */
    CHECK_MSG(young > 2e-3, "%g", young);
    o.ema_age = -1;
    resume_case(o, "from weights");
    fixture_done(&fx);
}

/* Another name of the same length for an option in a file's header, as if it had been written before there was one. */
static bool forget(const char *path, const char *key) {
    char *data = NULL;
    size_t n = 0, len = strlen(key), at = 0;
    if (dr_fs_read(path, 1 << 28, &data, &n, NULL)) return false;
    while (at + len < n && memcmp(data + at, key, len) != 0) at++;
    bool found = at + len < n;
    if (found) data[at] = 'x';
    bool ok = found && !dr_fs_write_atomic(path, data, n, NULL);
    dr_free(data);
    return ok;
}

TEST(checkpoints_from_before_an_option_go_on) {
    CHECK(make_pictures());
    static const char *const presets[] = {"product", "released"};
    for (int i = 0; i < 2; i++) {
        dr_error e = {0};
        dr_train_metrics m;
        dr_train_opts o = small(presets[i]);
        char a[600], b[600];
        snprintf(a, sizeof a, "%s", fixture_path(&fx, "a.safetensors"));
        snprintf(b, sizeof b, "%s", fixture_path(&fx, "b.safetensors"));
        CHECK_MSG(!run(&o, 3, a, &m, &e) && !run(&o, 2, b, &m, &e), "%s", e.text);
        CHECK(forget(b, "train.w_color") && forget(b, "train.w_freq") && forget(b, "train.ema_age"));
        o.resume = b;
        CHECK_MSG(!run(&o, 3, b, &m, &e), "%s", e.text);
        CHECK_MSG(same_file(a, b), "%s", presets[i]);
    }
    fixture_done(&fx);
}

typedef struct pauses {
    int asked, stop_at;
} pauses;

/* Every so often another piece of work on the same kernels passes in between. */
static bool pause_at_times(void *arg) {
    pauses *p = arg;
    if (++p->asked % 37 == 0) {
        static volatile double sink;
        for (int i = 0; i < 200000; i++) sink = sink + i;
    }
    return p->asked != p->stop_at;
}

TEST(yielding_between_ops_changes_no_bit) {
    CHECK(make_pictures());
    dr_train_opts o = small("released");
    dr_train_metrics m;
    dr_error e = {0};
    char a[600], b[600];
    snprintf(a, sizeof a, "%s", fixture_path(&fx, "a.safetensors"));
    snprintf(b, sizeof b, "%s", fixture_path(&fx, "b.safetensors"));
    CHECK_MSG(!run(&o, 2, a, &m, &e), "%s", e.text);
    dr_trainer *t;
    pauses p = {0};
    CHECK(!dr_trainer_open(&o, &t, &e));
    dr_trainer_set_yield(t, pause_at_times, &p);
    while (dr_trainer_at(t) < 2) CHECK_MSG(!dr_trainer_step(t, &m, &e), "%s", e.text);
    CHECK_MSG(p.asked > 300, "asked %d times", p.asked); /* forward, backward and optimizer of two steps */
    CHECK(!dr_trainer_save(t, b, &e));
    CHECK(same_file(a, b));
    /* broken off: half a step gets into no file */
    p.stop_at = p.asked + 150;
    CHECK(dr_trainer_step(t, &m, &e) == DR_CANCELLED);
    CHECK(dr_trainer_save(t, b, NULL) == DR_CONFLICT && dr_trainer_export(t, b, "F16", NULL) == DR_CONFLICT);
    CHECK(dr_trainer_export_all(t, b, NULL) == DR_CONFLICT && dr_trainer_step(t, &m, NULL) == DR_CONFLICT);
    CHECK(same_file(a, b));
    dr_trainer_close(t);
    fixture_done(&fx);
}

TEST(every_term_is_named) {
    CHECK(make_pictures());
    dr_train_opts o = small("released");
    o.w_cycle = 5, o.w_nce_extra = 1, o.w_transplant = 4, o.w_color = 1, o.w_freq = 1;
    dr_train_metrics m = {0};
    dr_error e = {0};
    CHECK_MSG(!run(&o, 1, NULL, &m, &e), "%s", e.text);
    static const char *const want[] = {"d_A_real", "d_A_fake", "d_B_real", "d_B_fake", "adv_A",     "adv_B",  "nce_1",
                                       "nce_2",    "nce_3",    "nce_4",    "cycle_A",  "cycle_B",   "freq_A", "freq_B",
                                       "color_A",  "color_B",  "idt_A",    "idt_B",    "transplant"};
    CHECK(m.n == (int)(sizeof want / sizeof *want));
    for (int i = 0; i < m.n; i++) {
        int found = 0;
        for (int k = 0; k < m.n; k++) found += !strcmp(m.name[k], want[i]);
        CHECK_MSG(found == 1 && isfinite(m.value[i]), "%s", want[i]);
    }
    fixture_done(&fx);
}

/* METHOD.md 13 (g) in small: an objective of identity alone is learned. */
TEST(identity_is_learned) {
    CHECK(make_pictures());
    dr_train_opts o = small("released");
    o.w_gan = 0, o.w_nce = 0, o.lr = 2e-3, o.steps = 60;
    dr_train_metrics first = {0}, last = {0};
    dr_error e = {0};
    CHECK_MSG(!run(&o, 1, NULL, &first, &e), "%s", e.text);
    CHECK_MSG(!run(&o, 60, NULL, &last, &e), "%s", e.text);
    double a = 0, b = 0;
    for (int i = 0; i < first.n; i++) a += strncmp(first.name[i], "idt", 3) ? 0 : first.value[i];
    for (int i = 0; i < last.n; i++) b += strncmp(last.name[i], "idt", 3) ? 0 : last.value[i];
    CHECK_MSG(b < 0.6 * a, "identity %g then %g", a, b);
    fixture_done(&fx);
}

TEST(weights_go_out_and_in) {
    CHECK(make_pictures());
    dr_train_opts o = small("product");
    dr_error e = {0};
    dr_train_metrics m;
    char gen[600], all[600], ckpt[600];
    snprintf(gen, sizeof gen, "%s", fixture_path(&fx, "g.safetensors"));
    snprintf(all, sizeof all, "%s", fixture_path(&fx, "t.safetensors"));
    snprintf(ckpt, sizeof ckpt, "%s", fixture_path(&fx, "c.safetensors"));
    dr_trainer *t;
    CHECK_MSG(!dr_trainer_open(&o, &t, &e), "%s", e.text);
    CHECK(dr_trainer_sheet(t, fixture_path(&fx, "s.png"), NULL) == DR_CONFLICT); /* nothing seen yet */
    CHECK(!dr_trainer_step(t, &m, &e));
    CHECK(!dr_trainer_export(t, gen, "F16", &e) && !dr_trainer_export_all(t, all, &e) && !dr_trainer_save(t, ckpt, &e));
    CHECK(dr_trainer_export(t, gen, "I64", NULL) == DR_INVALID);
    CHECK(!dr_trainer_sheet(t, fixture_path(&fx, "s.png"), &e));
    dr_trainer_close(t);
    dr_st *f;
    CHECK(!dr_st_open(gen, &f, &e));
    CHECK(dr_st_find(f, "model.1.weight") && !dr_st_find(f, "G_A.model.1.weight") && !dr_st_verify(f, &e));
    CHECK(!strcmp(dr_st_meta(f, "derain.ngf"), "16") && !strcmp(dr_st_meta(f, "derain.residual"), "1"));
    dr_st_close(f);
    /* sizes follow the file */
    dr_train_opts from = small("product");
    from.ngf = from.blocks = from.ndf = from.d_layers = -1;
    for (int i = 0; i < 3; i++) {
        from.init = i == 0 ? gen : i == 1 ? all : ckpt;
        CHECK_MSG(!run(&from, 1, NULL, &m, &e), "%s", e.text);
    }
    /* what does not fit says which tensor */
    dr_train_opts other = small("product");
    other.ngf = 32, other.init = gen;
    CHECK(run(&other, 1, NULL, &m, &e) == DR_CORRUPT && strstr(e.text, "model.1.weight"));
    /* a checkpoint is not resumed with other sizes, another preset or another kind of file */
    static const char *const words[] = {"crop", "preset", "seed", "no training checkpoint"};
    for (int i = 0; i < 4; i++) {
        dr_train_opts r = small("product");
        r.resume = i == 3 ? gen : ckpt;
        if (i == 0) r.crop = 68;
        if (i == 1) r.preset = "released";
        if (i == 2) r.seed = 9;
        e = (dr_error){0};
        CHECK(run(&r, 1, NULL, &m, &e) != DR_OK);
        CHECK_MSG(strstr(e.text, words[i]), "%s", e.text);
    }
    fixture_done(&fx);
}
