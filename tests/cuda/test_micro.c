/* test_micro.c - training on an emulated device that is too small for the batch: the step takes fewer pictures at a
 * time and its gradients are those it would have had so from the start; the trainer plans for what is free, tells it,
 * keeps it in its checkpoint, and says in numbers what cannot be. */
#include "core/trainer.h"
#include "tests/core/micro.h"
#include "tests/core/train_fixture.h"
#include "tests/cuda/sim.h"
#include "tests/t.h"

#define MB     ((size_t)1 << 20)
#define PLENTY ((size_t)4 << 30)
enum { BATCH = 4 };

static dr_error err;

/* Few terms: emulation is slow. All of them are in tests/core/test_micro.c. */
static const dr_objective few = {.w_gan = 1, .w_nce = 1, .dual = true, .g_gan = DR_GAN_HINGE_REAL};

/* The device's size is set when the nets are there. */
static size_t device_size;
static void limit(int i, void *arg) {
    (void)arg;
    if (i == 0) sim.set_memory(device_size);
}

static dr_status run(int micro, size_t bytes, micro_run *ret) {
    device_size = bytes;
    err = (dr_error){0};
    dr_status s = micro_steps("cuda", &few, BATCH, micro, 1, limit, NULL, ret, &err);
    sim.set_memory(PLENTY);
    return s;
}

static bool same_bits(const micro_run *a, const micro_run *b, dr_net from, dr_net to) {
    for (dr_net i = from; i < to; i++)
        if (memcmp(a->grad[i], b->grad[i], a->n[i] * sizeof(float))) return false;
    return true;
}

TEST(a_batch_that_does_not_fit_is_done_in_parts) {
    if (!find_sim()) SKIP("no emulated module");
    static const int at_once[3] = {0, 2, 1};
    static const size_t sizes[] = {104, 168, 210}; /* MB; the pool takes pieces of 64 */
    micro_run ref[3], got = {0};
    size_t live = sim.live();
    for (int i = 0; i < 3; i++)
        CHECK_MSG(!run(at_once[i], PLENTY, &ref[i]) && ref[i].micro == at_once[i], "%s", err.text);
    printf("# a step holds %zu MB, two at a time %zu MB, one %zu MB\n", ref[0].high_water / MB, ref[1].high_water / MB,
           ref[2].high_water / MB);
    for (int i = 1; i < 3; i++)
        CHECK(!same_bits(&ref[i - 1], &ref[i], DR_NET_G_A, DR_NET_G_B)); /* they can be told apart */
    int n_small = 0, n_first = 0, n_second = 0;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes && !t_bad; k++) {
        dr_status s = run(0, sizes[k] * MB, &got);
        bool as_asked = false;
        int d = -1; /* how the discriminators' half was done */
        for (int i = 0; i < 3 && !s; i++) {
            as_asked = as_asked || (got.micro == at_once[i] && same_bits(&ref[i], &got, 0, DR_NETS));
            if (d < 0 && same_bits(&ref[i], &got, DR_NET_D_A, DR_NET_F1)) d = i;
        }
        printf("# %zu MB: %s\n", sizes[k],
               s           ? err.text
               : got.micro ? got.micro == 2 ? "two at a time" : "one"
                           : "whole");
        if (s) {
            CHECK_MSG(s == DR_NOMEM && got.micro == 1 && strstr(err.text, "MB are free"), "%s", err.text);
            n_small++;
        } else {
            n_first += d > 0;      /* the discriminators' half was done with less, */
            n_second += !as_asked; /* the generators' with still less */
            CHECK(d >= 0 && (got.micro || as_asked));
            for (int i = 0; i < DR_NETS; i++) CHECK(micro_distance(ref[0].grad[i], got.grad[i], got.n[i]) < 1e-5);
            CHECK(!memcmp(ref[0].rng, got.rng, sizeof got.rng)); /* the image pools were asked once */
        }
        micro_done(&got);
        CHECK_MSG(sim.live() == live, "%zu things are left", sim.live() - live);
    }
    CHECK_MSG(n_small && n_first && n_second, "%d %d %d", n_small, n_first, n_second);
    for (int i = 0; i < 3; i++) micro_done(&ref[i]);
}

/* ---- the trainer ---------------------------------------------------------------------------------------------------
 */

static fixture fx;
static const char *rainy[1], *clean[1];
static char rainy_dir[600], clean_dir[600], checkpoint[600];

static bool begin(void) {
    if (!fixture_init(&fx) || !fixture_mkdir(&fx, "rainy") || !fixture_mkdir(&fx, "clean")) return false;
    snprintf(rainy_dir, sizeof rainy_dir, "%s/rainy", fx.dir);
    snprintf(clean_dir, sizeof clean_dir, "%s/clean", fx.dir);
    snprintf(checkpoint, sizeof checkpoint, "%s/c.safetensors", fx.dir);
    rainy[0] = rainy_dir, clean[0] = clean_dir;
    return fixture_picture(&fx, "rainy/1.png", 80, 72, 3, 1) && fixture_picture(&fx, "clean/1.png", 72, 80, 3, 2);
}

static dr_train_opts options(const char *precision) {
    dr_train_opts o;
    dr_train_opts_init(&o);
    o.rainy = rainy, o.n_rainy = 1, o.clean = clean, o.n_clean = 1;
    o.preset = "product", o.backend = "cuda", o.precision = precision, o.threads = 1, o.steps = 100;
    o.crop = 64, o.batch = BATCH, o.ngf = 16, o.blocks = 5, o.ndf = 16;
    return o;
}

/* What a device holds after a step, against the plan. */
TEST(what_the_device_will_hold_is_known_before) {
    if (!find_sim()) SKIP("no emulated module");
    CHECK(begin());
    for (int i = 0; i < 3 && !t_bad; i++) {
        dr_train_opts o = options(i == 1 ? "bf16" : "f32");
        dr_trainer *t = NULL;
        dr_train_metrics m;
        dr_train_size z;
        dr_device_state d;
        if (i == 2) o.micro_batch = 1;
        err = (dr_error){0};
        CHECK_MSG(!dr_train_plan(&o, &z, &err) && !dr_trainer_open(&o, &t, &err) && !dr_trainer_step(t, &m, &err), "%s",
                  err.text);
        CHECK(dr_trainer_device(t, &d));
        double ratio = (double)z.device / (double)d.memory_used;
        printf("# %s, %d at a time: planned %.1f MB on the device, held %.1f MB\n", o.precision, dr_trainer_at_once(t),
               (double)z.device / MB, (double)d.memory_used / MB);
        dr_trainer_close(t);
        CHECK_MSG(ratio >= 1 && ratio < 1.1, "%.3f", ratio);
        CHECK(i == 2 ? z.device == z.device_least : z.device >= z.device_least);
    }
    fixture_done(&fx);
}

TEST(a_trainer_takes_what_fits_and_remembers_it) {
    if (!find_sim()) SKIP("no emulated module");
    CHECK(begin());
    dr_train_opts o = options("f32"), again = options("f32");
    dr_trainer *t = NULL;
    dr_train_metrics m;
    dr_train_size z;
    dr_error e = {0};
    CHECK(!dr_train_plan(&o, &z, &e));
    sim.set_memory((size_t)z.device + 255 * MB); /* short of the workspace that it may want */
    dr_status s = dr_trainer_open(&o, &t, &e);
    sim.set_memory(PLENTY);
    CHECK_MSG(!s && dr_trainer_at_once(t) == BATCH / 2 && strstr(dr_trainer_describe(t), "; 2 of a batch at a time"),
              "%s", s ? e.text : dr_trainer_describe(t));
    CHECK_MSG(!dr_trainer_step(t, &m, &e) && !dr_trainer_save(t, checkpoint, &e), "%s", e.text);
    dr_trainer_close(t);
    again.resume = checkpoint; /* with all the memory there is: the bits go on as they began */
    CHECK_MSG(!dr_trainer_open(&again, &t, &e) && dr_trainer_at_once(t) == BATCH / 2, "%s", e.text);
    dr_trainer_close(t);
    again.micro_batch = BATCH; /* unless it is told otherwise */
    CHECK_MSG(!dr_trainer_open(&again, &t, &e) && dr_trainer_at_once(t) == BATCH, "%s", e.text);
    CHECK(!strstr(dr_trainer_describe(t), "at a time"));
    dr_trainer_close(t);
    fixture_done(&fx);
}

TEST(what_never_fits_is_refused_with_numbers) {
    if (!find_sim()) SKIP("no emulated module");
    CHECK(begin());
    dr_train_opts o = options("f32");
    dr_trainer *t = NULL;
    dr_train_size z;
    dr_error e = {0};
    size_t live = sim.live();
    CHECK(!dr_train_plan(&o, &z, &e));
    sim.set_memory((size_t)z.device_least - MB);
    dr_status s = dr_trainer_open(&o, &t, &e);
    sim.set_memory(PLENTY);
    printf("# %s\n", e.text);
    CHECK(s == DR_TOO_LARGE && !strcmp(e.what, "training_too_large") && e.actual == (int64_t)z.device_least);
    CHECK(strstr(e.text, "crop 64") && strstr(e.text, "MB are free") && sim.live() == live);
    fixture_done(&fx);
}

/* Memory that somebody else takes between the start and the first step. */
TEST(a_step_without_room_shrinks_or_says_so) {
    if (!find_sim()) SKIP("no emulated module");
    CHECK(begin());
    dr_train_opts o = options("f32");
    dr_trainer *t = NULL;
    dr_train_metrics m;
    dr_train_size z;
    dr_error e = {0};
    CHECK(!dr_train_plan(&o, &z, &e));
    CHECK_MSG(!dr_trainer_open(&o, &t, &e) && dr_trainer_at_once(t) == BATCH, "%s", e.text);
    sim.set_memory((size_t)z.device - MB);
    dr_status s = dr_trainer_step(t, &m, &e);
    CHECK_MSG(!s && dr_trainer_at_once(t) < BATCH, "%s", e.text);
    sim.set_memory(PLENTY);
    dr_trainer_close(t);
    CHECK_MSG(!dr_trainer_open(&o, &t, &e), "%s", e.text);
    sim.set_memory((size_t)z.device_least - MB);
    s = dr_trainer_step(t, &m, &e);
    sim.set_memory(PLENTY);
    printf("# %s\n", e.text);
    CHECK(s == DR_TOO_LARGE && !strcmp(e.what, "training_too_large") && strstr(e.text, "a batch of 4"));
    CHECK(dr_trainer_save(t, checkpoint, &e)); /* half a step is no state */
    dr_trainer_close(t);
    fixture_done(&fx);
}
