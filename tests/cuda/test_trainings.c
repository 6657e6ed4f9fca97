/* test_trainings.c - trainings on the CUDA module as a whole: a checkpoint of the one backend goes on on the other, and
 * a training that leaves out steps has the same bits after a resume.
 *
 * Interchangeable means: what the file holds is accepted, nothing of it is lost (options, step, schedule, all six nets,
 * moments, moving average, image pools with their random state), and the losses that follow are those of a training
 * that never left the CPU, within what f32 sums in another order do to Adam's first steps. */
#include "core/model/safetensors.h"
#include "core/train/state.h"
#include "tests/cuda/emulated.h"

#include "tests/core/skip_cases.h"

enum { HALF = 2, ALL = 4 };

typedef struct course {
    dr_train_metrics m[ALL];
} course;

/* From where the trainer is, up to step `to`. */
static dr_status walk(dr_trainer *t, int64_t to, course *c, dr_error *e) {
    dr_status s = DR_OK;
    while (!s && dr_trainer_at(t) < to) s = dr_trainer_step(t, &c->m[dr_trainer_at(t)], e);
    return s;
}

/* Largest relative difference of the losses of the steps from..ALL. */
static double apart(const course *a, const course *b, int from) {
    double most = 0;
    for (int k = from; k < ALL; k++) {
        if (a->m[k].n != b->m[k].n || a->m[k].n < 4 || a->m[k].step != b->m[k].step ||
            a->m[k].lr_factor != b->m[k].lr_factor)
            return INFINITY;
        for (int i = 0; i < a->m[k].n; i++) {
            double d = fabs(a->m[k].value[i] - b->m[k].value[i]) / (fabs(a->m[k].value[i]) + 1e-3);
            if (strcmp(a->m[k].name[i], b->m[k].name[i]) || !isfinite(d)) return INFINITY;
            most = fmax(most, d);
        }
    }
    return most;
}

/* The same tensors with the same shapes, and the same metadata but for the device and the checksum. *ret: the largest
 * relative distance of a tensor; *ret_equal: all bits are the same. */
static bool same_content(const char *a, const char *b, double *ret, bool *ret_equal) {
    dr_st *x = NULL, *y = NULL;
    dr_error e = {0};
    bool ok = !dr_st_open(a, &x, &e) && !dr_st_open(b, &y, &e) && !dr_st_verify(x, &e) && !dr_st_verify(y, &e) &&
              dr_st_count(x) == dr_st_count(y) && dr_st_meta_count(x) == dr_st_meta_count(y);
    *ret = 0;
    *ret_equal = true;
    for (size_t i = 0; ok && i < dr_st_meta_count(x); i++) {
        const char *key, *value, *other;
        dr_st_meta_at(x, i, &key, &value);
        other = dr_st_meta(y, key);
        if (!strcmp(key, "train.device") || !strcmp(key, "derain.crc32")) continue;
        if (!other || strcmp(value, other)) printf("# %s is %s and %s\n", key, value, other ? other : "missing");
        ok = other && !strcmp(value, other);
    }
    for (size_t i = 0; ok && i < dr_st_count(x); i++) {
        const dr_st_tensor *t = dr_st_at(x, i), *u = dr_st_find(y, t->name);
        ok = u && dr_st_has_shape(u, t->rank, t->dims) && u->dtype == t->dtype;
        if (!ok) printf("# tensor %s\n", t->name);
        float *p = malloc(2 * t->count * sizeof *p), *q = p + t->count;
        ok = ok && !dr_st_read_f32(t, p, &e) && !dr_st_read_f32(u, q, &e);
        double d = 0, norm = 0;
        for (size_t k = 0; ok && k < t->count; k++) {
            d += ((double)p[k] - (double)q[k]) * ((double)p[k] - (double)q[k]);
            norm += (double)p[k] * (double)p[k];
        }
        if (ok) *ret_equal = *ret_equal && !memcmp(p, q, t->count * sizeof *p);
        if (ok && norm > 0) *ret = fmax(*ret, sqrt(d / norm));
        free(p);
    }
    dr_st_close(x);
    dr_st_close(y);
    return ok;
}

/* A file to start from, with weights of the size that trained ones have: the random start of `full` is so small that
 * Adam's first steps, whose length is the rate whatever the gradient, make another net of it by the last digit. */
static dr_status write_start(const dr_train_opts *in, const char *path, dr_error *e) {
    dr_train_opts o = *in;
    dr_objective obj;
    dr_backend *be = NULL;
    dr_nets nets = {0};
    dr_status s = dr_preset_fill(&o, &obj, e);
    const dr_nets_config c = {{o.ngf, o.blocks, o.residual}, {o.ndf, o.d_layers}, false};
    if (!s) s = dr_backend_open("cpu", &(dr_backend_opts){.threads = 1}, &be, NULL, e);
    if (!s) s = dr_nets_init(&nets, &c, be, e);
    if (!s) s = dr_nets_random(&nets, 77, 1.0, e);
    if (!s) s = dr_state_export_all(&nets, &o, 0, path, e);
    dr_nets_done(&nets);
    dr_backend_close(be);
    return s;
}

/* HALF steps on `first`, the rest on `then`, against a training that is on the CPU all the time. */
static void changes_backend(const char *preset, const char *first, const char *then, double tol) {
    skip_world w;
    dr_trainer *t = NULL;
    dr_error e = {0};
    course want = {0}, got = {0};
    double d = INFINITY;
    bool equal = false;
    CHECK(skip_begin(&w));
    dr_train_opts o = skip_opts(&w, "cpu", "f32");
    o.preset = preset, o.steps = ALL, o.streaks = "procedural", o.seed = 12, o.lr = o.lr_f = 1e-5, o.residual = 3;
    o.ema_decay = 0.9, o.ema_age = 50, o.warmup = 0; /* the average stays away from the weights */
    char start[600];
    snprintf(start, sizeof start, "%s", fixture_path(&w.fx, "start.safetensors"));
    o.init = start;
    CHECK_MSG(!write_start(&o, o.init, &e), "%s", e.text);
    CHECK_MSG(!dr_trainer_open(&o, &t, &e) && !walk(t, ALL, &want, &e), "%s", e.text);
    dr_trainer_close(t);

    o.backend = first;
    CHECK_MSG(!dr_trainer_open(&o, &t, &e) && !walk(t, HALF, &got, &e) && !dr_trainer_save(t, w.a, &e), "%s", e.text);
    dr_trainer_close(t);

    /* what is left open comes from the file */
    dr_train_opts r;
    dr_train_opts_init(&r);
    r.rainy = w.rainy, r.n_rainy = 1, r.clean = w.clean, r.n_clean = 1, r.streaks = "procedural";
    r.threads = 2, r.backend = then, r.resume = w.a;
    CHECK_MSG(!dr_trainer_open(&r, &t, &e), "%s", e.text);
    CHECK_MSG(dr_trainer_at(t) == HALF && strstr(dr_trainer_describe(t), "NOTE: the checkpoint comes from '"), "%s",
              dr_trainer_describe(t));
    CHECK_MSG(!dr_trainer_save(t, w.b, &e), "%s", e.text); /* nothing is lost on the way through the other's memory */
    CHECK(same_content(w.a, w.b, &d, &equal) && equal);
    CHECK_MSG(!walk(t, ALL, &got, &e) && dr_trainer_finished(t) && !dr_trainer_save(t, w.b, &e), "%s", e.text);
    dr_trainer_close(t);
    const double before = apart(&want, &got, 0), after = apart(&want, &got, HALF);

    /* the end of both, tensor by tensor */
    o.backend = "cpu";
    CHECK_MSG(!dr_trainer_open(&o, &t, &e) && !walk(t, ALL, &want, &e) && !dr_trainer_save(t, w.a, &e), "%s", e.text);
    dr_trainer_close(t);
    CHECK(same_content(w.a, w.b, &d, &equal) && !equal);
    printf("# %s, %s then %s: losses within %.2g, after the change %.2g; tensors %.2g\n", preset, first, then, before,
           after, d);
    CHECK(before <= tol && after <= tol && d <= 0.1);
    fixture_done(&w.fx);
}

TEST(product_begins_on_the_module_and_ends_on_the_cpu) {
    changes_backend("product", "cuda", "cpu", 1e-3);
}
TEST(product_begins_on_the_cpu_and_ends_on_the_module) {
    changes_backend("product", "cpu", "cuda", 1e-3);
}
TEST(full_begins_on_the_module_and_ends_on_the_cpu) {
    changes_backend("full", "cuda", "cpu", 2e-3);
}
TEST(full_begins_on_the_cpu_and_ends_on_the_module) {
    changes_backend("full", "cpu", "cuda", 2e-3);
}

/* What went wrong in a step on the module is no matter of its precision. */
TEST(skipped_and_resumed_in_f32) {
    skipped_and_resumed("cuda", "f32");
}
TEST(skipped_and_resumed_in_bf16) {
    skipped_and_resumed("cuda", "bf16");
}
