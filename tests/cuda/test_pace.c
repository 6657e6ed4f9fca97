/* test_pace.c - the module's slices (cuda/pace.c) on a modelled clock: work takes the device a set time and ends only
 * when the host has waited for it or has spent as much itself. Queued work stays below the bound, slices follow the
 * calls' times, the device hardly idles, nobody spins, and results are those without. */
#include "core/train/step.h"
#include "tests/cuda/parity.h"
#include "tests/cuda/sim.h"

#define US        1e-6
#define MS        1e-3
#define BOUND     (5.2 * MS) /* two slices of at most 2.5 ms, and a call's own rounding */
#define HOST      (4 * US)
#define WAKE      (30 * US)
#define CALLS_MAX 32 /* as in pace.c */

static dr_error err;

typedef struct rig {
    dr_backend *be;
    dr_tensor t;
    void *p;
} rig;

static bool open_rig(rig *r, bool background) {
    *r = (rig){0};
    err = (dr_error){0};
    if (dr_backend_open("cuda", &(dr_backend_opts){.background = background}, &r->be, NULL, &err)) return false;
    if (dr_be_alloc(r->be, 4096, &r->p, &err)) return false;
    r->t = (dr_tensor){{1, 1, 1, 4}, r->p};
    return true;
}
static void close_rig(rig *r) {
    dr_be_free(r->be, r->p);
    dr_backend_close(r->be);
}

/* So many calls of one launch each, of so long, paced. */
static bool calls(rig *r, int n, double work) {
    sim.clock(work, HOST, WAKE);
    for (int i = 0; i < n; i++)
        if (dr_be_fill(r->be, (float)i, r->t, &err) || dr_be_pace(r->be, &err)) return false;
    return true;
}

static cusim_time read_clock(void) {
    cusim_time t;
    sim.clock_read(&t);
    return t;
}

TEST(queued_work_is_bounded_and_the_device_does_not_idle) {
    if (!find_sim()) SKIP("no emulated module");
    static const double work[] = {1 * US, 8 * US, 20 * US, 60 * US, 150 * US, 400 * US, 1 * MS, 2 * MS};
    for (size_t i = 0; i < sizeof work / sizeof *work; i++) {
        rig r;
        CHECK_MSG(open_rig(&r, true), "%s", err.text);
        CHECK_MSG(calls(&r, 3000, work[i]) && !dr_be_sync(r.be, &err), "%s", err.text);
        cusim_time t = read_clock();
        sim.clock(-1, 0, 0);
        close_rig(&r);
        double host = 3000 * HOST, least = t.busy > host ? t.busy : host;
        printf("# calls of %4.0f us: at most %.2f ms queued, took %.4f of what the slower of the two needs, "
               "%ld spins\n",
               work[i] / US, t.most / MS, t.now / least, t.spins);
        CHECK_MSG(t.most <= BOUND, "%.2f ms", t.most / MS);
        CHECK_MSG(t.most >= 1.9 * work[i] || work[i] < HOST, "the device runs dry");
        CHECK_MSG(t.now <= 1.02 * least, "%.3f s, needed are %.3f s", t.now, least);
        CHECK(t.spins == 0);
        if (work[i] < HOST) CHECK_MSG(t.waited < 0.01 * t.now, "waits for a device that is faster: %.4f s", t.waited);
    }
}

/* As a training does, in every step: a stretch of small calls, then one of large ones. */
TEST(fast_and_slow_stretches) {
    if (!find_sim()) SKIP("no emulated module");
    rig r;
    double first = 0, later = 0;
    CHECK_MSG(open_rig(&r, true), "%s", err.text);
    for (int round = 0; round < 30; round++)
        for (int part = 0; part < 3; part++) {
            const double work[] = {10 * US, 400 * US, 90 * US};
            CHECK_MSG(calls(&r, part == 0 ? 500 : 200, work[part]), "%s", err.text);
            double most = read_clock().most;
            if (round == 0 && most > first) first = most;
            if (round > 0 && most > later) later = most;
        }
    CHECK(!dr_be_sync(r.be, &err));
    cusim_time t = read_clock();
    sim.clock(-1, 0, 0);
    close_rig(&r);
    printf("# at most %.2f ms queued where slow calls came first, %.2f ms later; took %.4f of the device's time\n",
           first / MS, later / MS, t.now / t.busy);
    CHECK_MSG(first <= 2 * CALLS_MAX * 400 * US, "%.2f ms", first / MS); /* nobody can know what was not there before */
    CHECK_MSG(later <= BOUND, "%.2f ms", later / MS);
    CHECK_MSG(t.now < 1.05 * t.busy, "%.3f s, the device needs %.3f s", t.now, t.busy);
}

TEST(what_was_slow_is_forgotten_in_time) {
    if (!find_sim()) SKIP("no emulated module");
    rig r;
    CHECK_MSG(open_rig(&r, true) && calls(&r, 100, 2 * MS) && calls(&r, 100, 20 * US), "%s", err.text);
    long before = sim.calls();
    CHECK(calls(&r, 64, 20 * US));
    long cautious = sim.calls() - before;
    CHECK(calls(&r, 20000, 20 * US));
    before = sim.calls();
    CHECK(calls(&r, 64, 20 * US));
    long free_again = sim.calls() - before;
    sim.clock(-1, 0, 0);
    close_rig(&r);
    CHECK_MSG(cautious > free_again + 64, "%ld calls of the runtime, then %ld", cautious, free_again);
    CHECK_MSG(free_again < 64 + 64 + 6 * 4, "%ld calls of the runtime for 64 of ours", free_again);
}

TEST(a_pause_of_the_host_is_no_slow_call) {
    if (!find_sim()) SKIP("no emulated module");
    rig r;
    CHECK_MSG(open_rig(&r, true) && calls(&r, 1000, 50 * US), "%s", err.text);
    sim.clock(50 * US, 0.5, WAKE); /* stood still for half a second */
    CHECK(!dr_be_fill(r.be, 0, r.t, &err) && !dr_be_sync(r.be, &err));
    CHECK(calls(&r, 2 * CALLS_MAX, 50 * US));
    long before = sim.calls();
    CHECK(calls(&r, 2 * CALLS_MAX, 50 * US));
    long n = sim.calls() - before;
    sim.clock(-1, 0, 0);
    close_rig(&r);
    CHECK_MSG(n <= 2 * CALLS_MAX + 2 * 4, "%ld calls of the runtime for %d of ours", n, 2 * CALLS_MAX);
}

TEST(background_work_sleeps_and_requests_spin) {
    if (!find_sim()) SKIP("no emulated module");
    for (int background = 0; background < 2; background++) {
        rig r;
        float x[4];
        CHECK_MSG(open_rig(&r, background), "%s", err.text);
        sim.clock(1 * MS, HOST, WAKE);
        for (int i = 0; i < 5; i++) CHECK(!dr_be_fill(r.be, 1, r.t, &err));
        CHECK(!dr_be_sync(r.be, &err));
        cusim_time t = read_clock();
        CHECK_MSG(t.now >= t.busy, "it has not waited: %.4f of %.4f s", t.now, t.busy);
        CHECK(!dr_be_download(r.be, r.t, x, &err) && x[3] == 1);
        t = read_clock();
        sim.clock(-1, 0, 0);
        close_rig(&r);
        CHECK_MSG(background ? t.spins == 0 : t.spins > 0, "%ld", t.spins);
    }
}

TEST(nothing_happens_while_a_run_is_recorded) {
    if (!find_sim()) SKIP("no emulated module");
    rig r;
    dr_slot slot = {0};
    CHECK_MSG(open_rig(&r, true), "%s", err.text);
    for (int i = 0; i < 10; i++) CHECK(!dr_be_fill(r.be, 1, r.t, &err) && !dr_be_pace(r.be, &err));
    CHECK(!dr_be_record_begin(r.be, &err));
    for (int i = 0; i < 100; i++) {
        CHECK(!dr_be_fill(r.be, 2, r.t, &err));
        long before = sim.calls();
        CHECK(!dr_be_pace(r.be, &err) && sim.calls() == before);
    }
    CHECK_MSG(!dr_be_record_end(r.be, &slot, &err), "%s", err.text);
    dr_slot_clear(&slot);
    close_rig(&r);
}

/* Any call of pace fails: it says so, what follows is right if the device lives, and nothing is left behind. */
TEST(every_call_of_it_may_fail) {
    if (!find_sim()) SKIP("no emulated module");
    size_t before = sim.live();
    int noticed = 0;
    for (int sticky = 0; sticky < 2; sticky++)
        for (long n = 1; n <= 60 && !t_bad; n++) {
            rig r;
            dr_status s = DR_OK;
            float x[4] = {0};
            CHECK_MSG(open_rig(&r, true), "%s", err.text);
            sim.clock(1 * MS, HOST, WAKE);
            sim.fail_with(n, sticky ? 719 : 1);
            for (int i = 0; i < 40 && !s; i++) {
                s = dr_be_pace(r.be, &err);
                if (!s) s = dr_be_fill(r.be, 5, r.t, &err);
            }
            sim.fail_with(0, 0);
            noticed += s != DR_OK;
            CHECK_MSG(s == DR_BACKEND && strstr(err.text, "cuda: "), "call %ld: %d %s", n, (int)s, err.text);
            CHECK_MSG(!sticky == !strstr(err.text, "the device is lost"), "call %ld: %s", n, err.text);
            err = (dr_error){0};
            if (!sticky) {
                for (int i = 0; i < 40; i++)
                    CHECK_MSG(!dr_be_pace(r.be, &err) && !dr_be_fill(r.be, 7, r.t, &err), "call %ld: %s", n, err.text);
                CHECK(!dr_be_download(r.be, r.t, x, &err) && x[0] == 7 && x[3] == 7);
            } else {
                CHECK(dr_be_fill(r.be, 7, r.t, &err) == DR_BACKEND);
            }
            sim.clock(-1, 0, 0);
            close_rig(&r);
            CHECK_MSG(sim.live() == before, "call %ld: %zu things are left", n, sim.live() - before);
        }
    CHECK(noticed == 120);
}

/* ---- a training step ----------------------------------------------------------------------------------------------
 */

typedef struct asked {
    int n;
} asked;
static bool between(void *arg) {
    ((asked *)arg)->n++;
    return true;
}

/* Two steps; the weights of G_A afterwards, and the clock after each. */
static dr_status train(bool yields, float *weights, size_t count, cusim_time ret[2], int *ret_asked) {
    static float x[2 * 3 * 64 * 64];
    const dr_objective obj = {.w_gan = 1, .w_nce = 1, .w_idt = 1, .dual = true, .g_gan = DR_GAN_HINGE_REAL};
    dr_nets_config c = {.g = {16, 5, 1}, .d = {16, 2}, .ema = true};
    dr_backend *be = NULL;
    dr_nets nets = {0};
    dr_step s = {0};
    dr_train_metrics m = {0};
    asked a = {0};
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = (float)((i * 37) % 200) / 100 - 1;
    err = (dr_error){0};
    dr_status st = dr_backend_open("cuda", &(dr_backend_opts){.background = true}, &be, NULL, &err);
    if (!st) st = dr_nets_init(&nets, &c, be, &err);
    if (!st) st = dr_nets_random(&nets, 1, 1, &err);
    if (!st) {
        dr_step_init(&s, &nets, &obj);
        s.lr = s.lr_f = 1e-3;
        if (yields) s.graph.between = between, s.graph.between_arg = &a;
        for (int i = 0; i < 2 && !st; i++) {
            sim.clock(-1, 0, 0);
            sim.clock(250 * US, 6 * US, WAKE); /* a large crop: the host is forty times as fast */
            st = dr_step_run(&s, i, 1.0, 1, 64, x, x + 3 * 64 * 64, &m, &err);
            ret[i] = read_clock();
        }
        sim.clock(-1, 0, 0);
        if (!st) st = dr_be_download_raw(be, nets.g[0].params.value, weights, count * sizeof *weights, &err);
        dr_step_done(&s);
    }
    *ret_asked = a.n;
    if (nets.be) dr_nets_done(&nets);
    dr_backend_close(be);
    return st;
}

TEST(a_training_step_gives_the_same_bits_and_keeps_its_queue_short) {
    if (!find_sim()) SKIP("no emulated module");
    enum { COUNT = 20000 };
    static float plain[COUNT], paced[COUNT];
    cusim_time free_run[2], t[2];
    int n_asked = 0;
    CHECK_MSG(!train(false, plain, COUNT, free_run, &n_asked) && !n_asked, "%s", err.text);
    CHECK_MSG(!train(true, paced, COUNT, t, &n_asked), "%s", err.text);
    for (int i = 0; i < 2; i++)
        printf("# step %d: at most %.1f ms queued, without pace %.0f ms; %.3f s where the device needs %.3f s\n", i,
               t[i].most / MS, free_run[i].most / MS, t[i].now, t[i].busy);
    CHECK_MSG(n_asked > 1000 && !memcmp(plain, paced, sizeof plain), "%d questions", n_asked);
    CHECK_MSG(free_run[1].most > 50 * MS, "%.1f ms: there is nothing to pace", free_run[1].most / MS);
    CHECK_MSG(t[0].most <= 8 * MS && t[1].most <= BOUND, "%.1f, %.1f ms", t[0].most / MS, t[1].most / MS);
    for (int i = 0; i < 2; i++)
        CHECK_MSG(t[i].now < 1.05 * t[i].busy, "%.3f s, the device needs %.3f s", t[i].now, t[i].busy);
}
