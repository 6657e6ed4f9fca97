/* test_faults.c - the emulated module when a call of the CUDA runtime fails: every one in turn, in a forward pass and
 * in a training step. The caller gets an error that says what failed, nothing stays allocated, and the next run is
 * right. */
#include "core/train/step.h"
#include "tests/cuda/parity.h"
#include "tests/cuda/sim.h"

static dr_error err;

/* One training step of small nets: forward, backward, optimizer, all of it. */
static dr_status step(void) {
    static float x[2 * 3 * 64 * 64];
    const dr_objective obj = {.w_gan = 1, .w_nce = 1, .w_idt = 1, .dual = true, .g_gan = DR_GAN_HINGE_REAL};
    dr_nets_config c = {.g = {16, 5, 1}, .d = {16, 2}, .ema = true};
    dr_backend *be = NULL;
    dr_nets nets = {0};
    dr_step s = {0};
    dr_train_metrics m = {0};
    err = (dr_error){0}; /* the first failure stays in it */
    dr_status st = dr_backend_open("cuda", &(dr_backend_opts){.precision = DR_PREC_BF16}, &be, NULL, &err);
    if (!st) st = dr_nets_init(&nets, &c, be, &err);
    if (!st) st = dr_nets_random(&nets, 1, 1, &err);
    if (!st) {
        dr_step_init(&s, &nets, &obj);
        s.lr = s.lr_f = 1e-4;
        s.ema_decay = 0.9;
        st = dr_step_run(&s, 0, 1.0, 1, 64, x, x + 3 * 64 * 64, &m, &err);
        dr_step_done(&s);
    }
    if (nets.be) dr_nets_done(&nets);
    dr_backend_close(be);
    return st;
}

/* cudaErrorUnknown (sticky), and no memory, at call n. */
static void fault_at(long n, int error, dr_status want) {
    size_t before = sim.live();
    err = (dr_error){0};
    sim.fail_with(n, error);
    dr_status s = step();
    sim.fail_with(0, 0);
    CHECK_MSG(sim.live() == before, "call %ld: %zu things more are alive than before", n, sim.live() - before);
    if (s) CHECK_MSG(strstr(err.text, "cuda"), "call %ld: '%s' does not say where it comes from", n, err.text);
    if (s && want) CHECK_MSG(s == want, "call %ld: status %d, not %d: %s", n, (int)s, (int)want, err.text);
}

TEST(a_step_without_faults_leaves_nothing) {
    if (!find_sim()) SKIP("no emulated module");
    size_t before = sim.live();
    CHECK_MSG(!step(), "%s", err.text);
    CHECK(sim.live() == before);
}

TEST(every_call_may_fail) {
    if (!find_sim()) SKIP("no emulated module");
    long from = sim.calls();
    CHECK_MSG(!step(), "%s", err.text);
    long n = sim.calls() - from, failed = 0;
    CHECK(n > 100);
    for (long i = 1; i <= n && !t_bad; i += i < 40 ? 1 : n / 16) { /* all of opening and making, then a sample */
        fault_at(i, i % 2 ? 999 : 2, 0);                           /* sticky; no memory */
        failed += err.code != 0;
    }
    printf("# %ld calls in a step; %ld faults were noticed\n", n, failed);
    CHECK(failed > 40);
    CHECK_MSG(!step(), "after the faults: %s", err.text);
}

TEST(a_small_device_says_how_much_is_free) {
    if (!find_sim()) SKIP("no emulated module");
    size_t before = sim.live();
    sim.set_memory(8 << 20);
    dr_status s = step();
    sim.set_memory((size_t)4 << 30);
    CHECK_MSG(s == DR_NOMEM && strstr(err.text, "MB are free"), "%d %s", (int)s, err.text);
    CHECK(sim.live() == before);
}

TEST(no_device_is_one_line_and_the_cpu_goes_on) {
    if (!find_sim()) SKIP("no emulated module");
    sim.set_devices(0);
    dr_backend *be = NULL;
    const char *note = NULL;
    err = (dr_error){0};
    dr_status s = dr_backend_open("cuda", NULL, &be, NULL, &err);
    dr_status a = dr_backend_open("auto", NULL, &be, &note, &err);
    bool cpu = !a && !strcmp(be->ops->name, "cpu");
    if (!a) dr_backend_close(be);
    sim.set_devices(1);
    CHECK(s == DR_UNAVAILABLE && cpu && note && strstr(note, "no device") && !strchr(note, '\n'));
}
