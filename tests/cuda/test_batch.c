/* test_batch.c - several pictures at once on the emulated device: each gets what it gets alone, to the bit, plainly and
 * replayed; a small device makes smaller batches, a broken one hands every picture to the CPU on its own. */
#include "tests/core/batch_rig.h"
#include "tests/cuda/emulated.h"

#include <dlfcn.h>

static struct {
    void (*fail_with)(long n, int error);
    long (*calls)(void);
    size_t (*live)(void);
    void (*set_memory)(size_t bytes);
} sim;
static rig r;
static const dr_engine_opts gpu = {.backend = "cuda", .threads = 1, .fallback = true};

static bool find_sim(void) {
    char path[600];
    snprintf(path, sizeof path, "%s/derain-cuda.so", getenv("DERAIN_MODULE_DIR"));
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const char *names[] = {"cusim_fail_with", "cusim_calls", "cusim_live", "cusim_set_memory"};
    void *to[] = {&sim.fail_with, &sim.calls, &sim.live, &sim.set_memory};
    for (int i = 0; lib && i < 4; i++) {
        void *p = dlsym(lib, names[i]);
        if (!p) return false;
        memcpy(to[i], &p, sizeof p);
    }
    return lib;
}

/* The same weights on an engine that has run nothing. */
static dr_status reload(const dr_engine_opts *o) {
    dr_model_close(r.m);
    dr_engine_close(r.e);
    r.m = NULL;
    r.e = NULL;
    return rig_load(&r, o);
}

static void equal_to_alone(const dr_engine_opts *o) {
    CHECK_MSG(!rig_open(&r, o), "%s", r.err.text);
    for (int n = 1; n <= 4 && !t_bad; n++)
        for (int from = 0; from < RIG_MOST && !t_bad; from += 3) {
            int equal = rig_run(&r, from, n);
            CHECK_MSG(equal == n, "%d of %d from %d are equal: %s", equal, n, from, r.err.text);
            CHECK(rig_has_plan(&r, n));
        }
    CHECK(rig_run(&r, 0, RIG_MOST) == RIG_MOST);
    CHECK_MSG(atomic_load(&r.e->be->n_replayed) > 0, "no run was replayed");
    rig_close(&r);
}

TEST(every_batch_gives_what_its_pictures_get_alone) {
    if (!find_sim()) SKIP("no emulated module");
    equal_to_alone(&gpu);
}

TEST(in_bf16_and_f32_too) {
    if (!find_sim()) SKIP("no emulated module");
    equal_to_alone(&(dr_engine_opts){.backend = "cuda", .threads = 1, .precision = "bf16"});
    if (!t_bad) equal_to_alone(&(dr_engine_opts){.backend = "cuda", .threads = 1, .precision = "f32"});
}

/* ---- memory -------------------------------------------------------------------------------------------------------
 */

static size_t in_use(void) {
    dr_device_info d;
    return dr_be_info(r.e->be, &d) ? (size_t)(d.memory_all - d.memory_free) : 0;
}

/* Batches of 6 on a device that is made larger step by step, from too small for one to large enough for all. */
TEST(a_batch_is_as_large_as_the_device_allows) {
    if (!find_sim()) SKIP("no emulated module");
    bool whole = false, part = false, cpu = false;
    CHECK_MSG(!rig_open(&r, &gpu), "%s", r.err.text);
    for (size_t more = 0; !whole && more < (size_t)64 << 20;
         more += more < (size_t)24 << 20 ? (more ? more / 2 : 64 << 10) : 128 << 10) {
        CHECK_MSG(!reload(&gpu), "%s", r.err.text);
        sim.set_memory(in_use() + more);
        CHECK(!rig_decode(&r, 0, 6));
        dr_status s = dr_model_run_pictures(r.m, r.p, 6, &r.err);
        sim.set_memory((size_t)4 << 30);
        int n_cpu = 0;
        for (int i = 0; i < 6; i++) {
            bool is = false;
            if (!s) s = rig_answer_is_alone(&r, i, i, &is);
            CHECK_MSG(!s && !*r.stats[i].lost, "%zu KB: %s", more >> 10, r.err.text);
            CHECK_MSG(is || r.stats[i].on_cpu, "%zu KB: picture %d is another", more >> 10, i);
            n_cpu += r.stats[i].on_cpu;
        }
        cpu = cpu || n_cpu == 6;
        part = part || (!n_cpu && (rig_has_plan(&r, 2) || rig_has_plan(&r, 3)));
        whole = !n_cpu && !rig_has_plan(&r, 1) && !rig_has_plan(&r, 2) && !rig_has_plan(&r, 3);
        CHECK(!whole || rig_has_plan(&r, 6));
        CHECK(!rig_has_plan(&r, 6) || more > (1 << 20)); /* it does not even try */
    }
    CHECK_MSG(cpu && part && whole, "on the CPU %d, in parts %d, at once %d", cpu, part, whole);
    rig_close(&r);
}

/* The figures say that there is room, and then there is none. */
TEST(memory_that_fails_after_all_splits_the_batch) {
    if (!find_sim()) SKIP("no emulated module");
    CHECK_MSG(!rig_open(&r, &gpu), "%s", r.err.text);
    CHECK(!reload(&gpu) && !rig_decode(&r, 0, 6));
    long from = sim.calls();
    CHECK(!dr_model_run_pictures(r.m, r.p, 6, NULL));
    long n = sim.calls() - from, split = 0;
    for (long i = 1; i <= n && !t_bad; i += i < 12 ? 1 : 7) {
        CHECK(!reload(&gpu) && !rig_decode(&r, 0, 6));
        sim.fail_with(i, 2); /* no memory, once */
        dr_status s = dr_model_run_pictures(r.m, r.p, 6, &r.err);
        sim.fail_with(0, 0);
        for (int k = 0; k < 6; k++) {
            bool is = false;
            if (!s) s = rig_answer_is_alone(&r, k, k, &is);
            CHECK_MSG(!s && is && !r.stats[k].on_cpu, "call %ld, picture %d: %s", i, k, r.err.text);
        }
        split += rig_has_plan(&r, 3);
    }
    CHECK_MSG(split > 3, "%ld batches were split", split);
    rig_close(&r);
}

/* ---- faults -------------------------------------------------------------------------------------------------------
 */

/* A call of the table fails, the device goes on: everybody gets the device's picture. */
TEST(a_failure_in_common_is_none_of_the_pictures) {
    if (!find_sim()) SKIP("no emulated module");
    CHECK_MSG(!rig_open(&r, &(dr_engine_opts){.backend = "cuda", .threads = 1}), "%s", r.err.text);
    long n = 0;
    for (bool fired = true; fired && !t_bad;) {
        CHECK(!rig_decode(&r, 1, 3));
        dr_backend_fail_after(++n);
        dr_status s = dr_model_run_pictures(r.m, r.p, 3, &r.err);
        dr_backend_fail_after(0);
        for (int i = 0; i < 3; i++) {
            bool is = false;
            if (!s) s = rig_answer_is_alone(&r, i, 1 + i, &is);
            CHECK_MSG(!s && is && !r.stats[i].on_cpu, "call %ld, picture %d: %s", n, i, r.err.text);
        }
        fired = n < 40; /* more calls than a run has */
    }
    rig_close(&r);
}

/* The device is gone, at every stage of a batch: each picture is the CPU's, and so are those that come later. */
TEST(a_lost_device_hands_every_picture_to_the_cpu) {
    if (!find_sim()) SKIP("no emulated module");
    static rig host;
    CHECK_MSG(!rig_open(&host, &(dr_engine_opts){.backend = "cpu", .threads = 1}), "%s", host.err.text);
    CHECK_MSG(!rig_open(&r, &gpu), "%s", r.err.text);
    CHECK(!reload(&gpu) && !rig_decode(&r, 0, 3));
    long from = sim.calls(), lost = 0, rest = 0;
    CHECK(!dr_model_run_pictures(r.m, r.p, 3, NULL));
    const long n = sim.calls() - from;
    for (long i = 1; i <= n && !t_bad; i += i < 10 || i > n - 10 ? 1 : 5) {
        CHECK(!reload(&gpu) && !rig_decode(&r, 0, 3));
        sim.fail_with(i, 719); /* launch failure: the context is gone */
        dr_status s = dr_model_run_pictures(r.m, r.p, 3, &r.err);
        sim.fail_with(0, 0);
        int n_cpu = 0;
        for (int k = 0; k < 3; k++) {
            struct rig_answer mine = r.alone[k];
            bool is = false;
            void *data;
            size_t len;
            if (!s) s = dr_picture_encode(r.p[k], &data, &len, &r.stats[k], &r.err);
            CHECK_MSG(!s, "call %ld, picture %d: %s", i, k, r.err.text);
            const struct rig_answer *want = r.stats[k].on_cpu ? &host.alone[k] : &mine;
            is = len == want->len && !memcmp(data, want->data, len);
            dr_free(data);
            CHECK_MSG(is, "call %ld, picture %d, on the CPU %d: another picture", i, k, r.stats[k].on_cpu);
            CHECK_MSG(!r.stats[k].on_cpu || strstr(r.stats[k].lost, "cuda"), "call %ld: '%s'", i, r.stats[k].lost);
            /* why, and not only that: but where the question for free memory broke it, nobody was told */
            CHECK_MSG(!r.stats[k].on_cpu || i <= 2 || !strstr(r.stats[k].lost, ": the device is lost"),
                      "call %ld: '%s'", i, r.stats[k].lost);
            n_cpu += r.stats[k].on_cpu;
        }
        lost += n_cpu == 3;
        rest += n_cpu == 1 || n_cpu == 2; /* the first were out already */
        if (!n_cpu) continue;
        CHECK(!rig_decode(&r, 0, 2) && !dr_model_run_pictures(r.m, r.p, 2, NULL) && !rig_has_plan(&r, 2));
        for (int k = 0; k < 2; k++) {
            bool is;
            CHECK(!rig_answer_is_alone(&r, k, k, &is) && r.stats[k].on_cpu);
        }
    }
    CHECK_MSG(lost > 5 && rest > 0, "%ld lost, %ld at the end", lost, rest);
    rig_close(&host);
    rig_close(&r);
}

TEST(without_fallback_every_picture_says_the_error) {
    if (!find_sim()) SKIP("no emulated module");
    CHECK(!rig_open(&r, &(dr_engine_opts){.backend = "cuda", .threads = 1}) && !rig_decode(&r, 0, 3));
    sim.fail_with(9, 719);
    dr_status s = dr_model_run_pictures(r.m, r.p, 3, NULL);
    sim.fail_with(0, 0);
    CHECK(!s);
    for (int i = 0; i < 3; i++) {
        bool is;
        r.err = (dr_error){0};
        s = rig_answer_is_alone(&r, i, i, &is);
        CHECK_MSG(s == DR_BACKEND && strstr(r.err.text, "cuda"), "%d: %d %s", i, (int)s, r.err.text);
    }
    rig_close(&r);
}

/* ---- cancelling ---------------------------------------------------------------------------------------------------
 */

static bool cancel_two(void *arg) {
    rig *x = arg;
    atomic_store(&x->cancel[0], true);
    atomic_store(&x->cancel[2], true);
    return true;
}

TEST(a_cancelled_picture_disturbs_nobody) {
    if (!find_sim()) SKIP("no emulated module");
    CHECK(!rig_open(&r, &gpu));
    dr_model_set_yield(r.m, cancel_two, &r);
    for (int round = 0; round < 3; round++) { /* the third is replayed */
        CHECK(!rig_decode(&r, 0, 4) && !dr_model_run_pictures(r.m, r.p, 4, NULL));
        for (int i = 0; i < 4; i++) {
            bool is;
            CHECK(rig_answer_is_alone(&r, i, i, &is) == (i % 2 ? DR_OK : DR_CANCELLED) && is == (i % 2 == 1));
        }
    }
    rig_close(&r);
}
