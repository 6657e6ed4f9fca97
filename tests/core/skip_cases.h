/* skip_cases.h - trainings with steps that are left out since something in them is not finite, on any backend: which
 * bits they have after a resume, and what they count. For tests/core/test_skips.c and tests/cuda/test_trainings.c. */
#ifndef TESTS_CORE_SKIP_CASES_H
#define TESTS_CORE_SKIP_CASES_H

#include "core/tensor/backend.h"
#include "core/trainer.h"
#include "tests/core/same_file.h"
#include "tests/core/train_fixture.h"
#include "tests/t.h"

typedef struct skip_world {
    fixture fx;
    const char *rainy[1], *clean[1];
    char rainy_dir[600], clean_dir[600], a[600], b[600];
} skip_world;

static bool skip_begin(skip_world *w) {
    if (!fixture_init(&w->fx) || !fixture_mkdir(&w->fx, "rainy") || !fixture_mkdir(&w->fx, "clean")) return false;
    snprintf(w->rainy_dir, sizeof w->rainy_dir, "%s", fixture_path(&w->fx, "rainy"));
    snprintf(w->clean_dir, sizeof w->clean_dir, "%s", fixture_path(&w->fx, "clean"));
    snprintf(w->a, sizeof w->a, "%s", fixture_path(&w->fx, "a.safetensors"));
    snprintf(w->b, sizeof w->b, "%s", fixture_path(&w->fx, "b.safetensors"));
    w->rainy[0] = w->rainy_dir;
    w->clean[0] = w->clean_dir;
    bool ok = true;
    for (int i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "rainy/%d.png", i);
        ok = ok && fixture_picture(&w->fx, name, 80, 72, 3, i + 1);
        snprintf(name, sizeof name, "clean/%d.png", i);
        ok = ok && fixture_picture(&w->fx, name, 90, 70, 3, i + 101);
    }
    return ok;
}

static dr_train_opts skip_opts(const skip_world *w, const char *backend, const char *precision) {
    dr_train_opts o;
    dr_train_opts_init(&o);
    o.rainy = w->rainy, o.n_rainy = 1, o.clean = w->clean, o.n_clean = 1;
    o.preset = "product", o.precision = precision;
    o.steps = 100, o.crop = 64, o.ngf = 16, o.blocks = 5, o.ndf = 16, o.d_layers = 2, o.threads = 2;
    o.pool = 2, o.backend = backend;
    return o;
}

/* Steps up to `to`, those in `bad` (bit k: step k, from 0) with a loss that is not finite; saves where path is given.
 */
static dr_status go_on(dr_trainer *t, int64_t to, uint64_t bad, const char *path, dr_train_metrics *m, dr_error *e) {
    dr_status s = DR_OK;
    while (!s && dr_trainer_at(t) < to) {
        const int64_t k = dr_trainer_at(t);
        dr_backend_poison(k < 64 && bad >> k & 1 ? (k % 2 ? 1 : 7) : 0, 1); /* in either half */
        s = dr_trainer_step(t, m, e);
        dr_backend_poison(0, 0);
    }
    return s || !path ? s : dr_trainer_save(t, path, e);
}

/* Steps are left out, and a resumed training has the bits and the count of an unbroken one. */
static void skipped_and_resumed(const char *backend, const char *precision) {
    skip_world w;
    dr_trainer *t = NULL;
    dr_train_metrics m = {0};
    dr_error e = {0};
    CHECK(skip_begin(&w));
    const dr_train_opts o = skip_opts(&w, backend, precision);
    const uint64_t bad = 1 << 1 | 1 << 2 | 1 << 4;
    CHECK_MSG(!dr_trainer_open(&o, &t, &e) && !go_on(t, 6, bad, w.a, &m, &e), "%s", e.text);
    CHECK(dr_trainer_skipped(t) == 3 && m.n_skipped == 3 && !m.skipped && m.n > 3 && m.step == 6);
    dr_trainer_close(t);
    CHECK_MSG(!dr_trainer_open(&o, &t, &e) && !go_on(t, 3, bad, w.b, &m, &e), "%s", e.text);
    CHECK(m.skipped && m.n == 0 && m.n_skipped == 2 && m.not_finite);
    dr_trainer_close(t);
    dr_train_opts again = skip_opts(&w, backend, NULL);
    again.resume = w.b;
    CHECK_MSG(!dr_trainer_open(&again, &t, &e), "%s", e.text);
    CHECK(dr_trainer_at(t) == 3 && dr_trainer_skipped(t) == 2);
    CHECK_MSG(!go_on(t, 6, bad, w.b, &m, &e), "%s", e.text);
    dr_trainer_close(t);
    CHECK(same_file(w.a, w.b));
    CHECK_MSG(!dr_trainer_open(&o, &t, &e) && !go_on(t, 6, 0, w.b, &m, &e), "%s", e.text);
    dr_trainer_close(t);
    CHECK(!same_file(w.a, w.b));
    fixture_done(&w.fx);
}

#endif
