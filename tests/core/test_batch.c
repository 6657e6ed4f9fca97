/* test_batch.c - several pictures at once on the CPU: each gets what it gets alone, to the bit; memory, cancelling and
 * faults are each picture's own. */
#include "tests/core/batch_rig.h"

static rig r;
static const dr_engine_opts cpu = {.backend = "cpu", .threads = 2};

TEST(every_batch_gives_what_its_pictures_get_alone) {
    CHECK_MSG(!rig_open(&r, &cpu), "%s", r.err.text);
    for (int n = 1; n <= RIG_MOST && !t_bad; n++)
        for (int from = 0; from < RIG_MOST && !t_bad; from += n == RIG_MOST ? RIG_MOST : 3) {
            int equal = rig_run(&r, from, n);
            CHECK_MSG(equal == n, "%d of %d from %d are equal: %s", equal, n, from, r.err.text);
            CHECK(rig_has_plan(&r, n));
        }
    rig_close(&r);
}

TEST(batches_give_the_same_for_any_number_of_threads) {
    static rig one;
    CHECK(!rig_open(&one, &(dr_engine_opts){.backend = "cpu", .threads = 1}));
    CHECK(!rig_open(&r, &(dr_engine_opts){.backend = "cpu", .threads = 3}));
    for (int i = 0; i < RIG_MOST; i++) { /* what it is compared with: another engine's */
        dr_free(r.alone[i].data);
        r.alone[i] = one.alone[i];
        one.alone[i].data = NULL;
    }
    CHECK(rig_run(&r, 0, RIG_MOST) == RIG_MOST);
    rig_close(&one);
    rig_close(&r);
}

TEST(what_is_no_batch_is_refused_and_harms_nobody) {
    static const rig_kind other = {44, 24, 3, 8, 0, DR_FORMAT_PNG};
    void *in = NULL, *out;
    size_t len, out_len;
    dr_error err = {0};
    dr_picture *odd = NULL;
    bool is;
    CHECK(!rig_open(&r, &cpu) && !rig_decode(&r, 0, 3));
    CHECK(dr_model_run_pictures(r.m, r.p, 0, &err) == DR_INVALID);
    CHECK(dr_model_run_pictures(r.m, r.p, DR_BATCH_MAX + 1, NULL) == DR_INVALID);
    CHECK(!rig_encoded(&other, 1, &in, &len, NULL) && !dr_picture_open(in, len, NULL, &odd, NULL));
    dr_picture *mixed[] = {r.p[0], odd};
    CHECK(dr_model_run_pictures(r.m, &odd, 1, NULL) == DR_INVALID); /* not decoded */
    CHECK(dr_picture_encode(odd, &out, &out_len, NULL, NULL) == DR_INVALID);
    CHECK(!dr_picture_decode(odd, NULL) && dr_picture_decode(odd, NULL) == DR_INVALID);
    err = (dr_error){0};
    CHECK(dr_model_run_pictures(r.m, mixed, 2, &err) == DR_INVALID && strstr(err.text, "40 x 24 and 44 x 24"));
    CHECK(!dr_model_run_pictures(r.m, r.p, 3, NULL));
    for (int i = 0; i < 3; i++) CHECK(!rig_answer_is_alone(&r, i, i, &is) && is);
    CHECK(dr_model_run_pictures(r.m, r.p, 3, NULL) == DR_INVALID); /* twice */
    dr_picture_close(odd);
    dr_free(in);
    rig_close(&r);
}

TEST(a_batch_keeps_to_the_smallest_budget) {
    CHECK(!rig_open(&r, &cpu));
    uint64_t one = dr_model_run_bytes(r.m, 40, 24);
    r.lim.mem_budget = 3 * (one - (1 << 20)) + (1 << 20);
    CHECK(rig_run(&r, 0, 5) == 5 && rig_has_plan(&r, 3) && rig_has_plan(&r, 2) && !rig_has_plan(&r, 5));
    r.lim.mem_budget = one;
    CHECK(rig_run(&r, 0, 4) == 4 && !rig_has_plan(&r, 4));
    r.lim.mem_budget = dr_model_run_bytes_min(r.m, 40, 24) - 1; /* not even one */
    CHECK(!rig_decode(&r, 0, 2) && !dr_model_run_pictures(r.m, r.p, 2, NULL));
    for (int i = 0; i < 2; i++) {
        bool is;
        r.err = (dr_error){0};
        CHECK(rig_answer_is_alone(&r, i, i, &is) == DR_TOO_LARGE && !strcmp(r.err.what, "memory"));
    }
    rig_close(&r);
}

/* ---- cancelling ---------------------------------------------------------------------------------------------------
 */

static struct { int asked, at, n; /* cancel the first n at the at-th question */ } plot;

static bool between(void *arg) {
    rig *x = arg;
    if (++plot.asked == plot.at)
        for (int i = 0; i < plot.n; i++) atomic_store(&x->cancel[i], true);
    return true;
}

TEST(a_cancelled_picture_disturbs_nobody) {
    bool is;
    CHECK(!rig_open(&r, &cpu));
    dr_model_set_yield(r.m, between, &r);
    for (int at = 1; at < 12; at += 5) {
        plot.asked = 0, plot.at = at, plot.n = 2;
        CHECK(!rig_decode(&r, 0, 4) && !dr_model_run_pictures(r.m, r.p, 4, NULL));
        for (int i = 0; i < 2; i++) CHECK(rig_answer_is_alone(&r, i, i, &is) == DR_CANCELLED);
        for (int i = 2; i < 4; i++) CHECK(!rig_answer_is_alone(&r, i, i, &is) && is);
    }
    CHECK(!rig_decode(&r, 0, 4)); /* before the run: it takes no part */
    atomic_store(&r.cancel[1], true);
    CHECK(!dr_model_run_pictures(r.m, r.p, 4, NULL) && rig_has_plan(&r, 3));
    for (int i = 0; i < 4; i++)
        CHECK(rig_answer_is_alone(&r, i, i, &is) == (i == 1 ? DR_CANCELLED : DR_OK) && is == (i != 1));
    rig_close(&r);
}

TEST(when_all_are_cancelled_the_run_ends) {
    bool is;
    CHECK(!rig_open(&r, &cpu));
    dr_model_set_yield(r.m, between, &r);
    plot.asked = plot.at = 0;
    CHECK(rig_run(&r, 0, 3) == 3);
    const int all = plot.asked;
    CHECK(all > 8);
    plot.asked = 0, plot.at = 4, plot.n = 3;
    CHECK(!rig_decode(&r, 0, 3) && !dr_model_run_pictures(r.m, r.p, 3, NULL));
    CHECK_MSG(plot.asked < 6, "asked %d times, %d in a whole run", plot.asked, all);
    for (int i = 0; i < 3; i++) CHECK(rig_answer_is_alone(&r, i, i, &is) == DR_CANCELLED);
    rig_close(&r);
}

static bool never(void *arg) {
    ++*(int *)arg;
    return false;
}

TEST(a_run_that_is_broken_off_is_no_failure_to_try_again) {
    bool is;
    CHECK(!rig_open(&r, &cpu));
    int asked = 0;
    dr_model_set_yield(r.m, never, &asked);
    CHECK(!rig_decode(&r, 0, 3) && !dr_model_run_pictures(r.m, r.p, 3, NULL) && asked == 1);
    for (int i = 0; i < 3; i++) CHECK(rig_answer_is_alone(&r, i, i, &is) == DR_CANCELLED);
    rig_close(&r);
}

static float lowest, highest;
static bool watch(void *arg) {
    rig *x = arg;
    for (int i = 0; i < 3; i++) {
        float now = atomic_load(&x->progress[i]);
        if (i && now != atomic_load(&x->progress[0])) lowest = -1;
        if (now > highest) highest = now;
    }
    return true;
}

TEST(each_picture_has_its_progress_and_times) {
    bool is;
    CHECK(!rig_open(&r, &cpu));
    lowest = highest = 0;
    CHECK(!rig_decode(&r, 0, 3));
    dr_model_set_yield(r.m, watch, &r);
    CHECK(!dr_model_run_pictures(r.m, r.p, 3, NULL));
    CHECK_MSG(lowest == 0 && highest > 0.8f, "%g %g", (double)lowest, (double)highest);
    for (int i = 0; i < 3; i++) {
        CHECK(atomic_load(&r.progress[i]) > 0.95f && atomic_load(&r.progress[i]) < 1);
        CHECK(!rig_answer_is_alone(&r, i, i, &is) && atomic_load(&r.progress[i]) == 1.0f);
        CHECK(r.stats[i].decode_ms > 0 && r.stats[i].infer_ms > 0 && r.stats[i].encode_ms > 0);
        CHECK(r.stats[i].infer_ms == r.stats[0].infer_ms && !r.stats[i].on_cpu && !*r.stats[i].lost);
    }
    rig_close(&r);
}

/* ---- faults -------------------------------------------------------------------------------------------------------
 */

/* One call of the backend fails: what was tried together is tried again alone, and every picture is right. */
TEST(a_failure_in_common_is_none_of_the_pictures) {
    CHECK(!rig_open(&r, &cpu));
    dr_model_set_yield(r.m, between, &r);
    plot.asked = plot.at = 0;
    CHECK(rig_run(&r, 1, 3) == 3);
    const int all = plot.asked;
    long n = 0;
    for (bool fired = true; fired && !t_bad;) {
        CHECK(!rig_decode(&r, 1, 3));
        plot.asked = 0;
        dr_backend_fail_after(++n);
        dr_status s = dr_model_run_pictures(r.m, r.p, 3, &r.err);
        dr_backend_fail_after(0);
        fired = plot.asked != all; /* then there was more than the one run */
        for (int i = 0; i < 3; i++) {
            bool is = false;
            if (!s) s = rig_answer_is_alone(&r, i, 1 + i, &is);
            CHECK_MSG(!s && is, "call %ld, picture %d: %s", n, i, r.err.text);
        }
    }
    CHECK_MSG(n > 20, "%ld calls", n);
    rig_close(&r);
}

TEST(no_allocation_that_fails_leaks_or_spoils) {
    CHECK(!rig_open(&r, &cpu));
    for (long n = 1, most = 1; n <= most; n++) {
        r.err = (dr_error){0};
        dr_alloc_fail_after(n, false);
        dr_status s = rig_decode(&r, 0, 3);
        if (!s) s = dr_model_run_pictures(r.m, r.p, 3, &r.err);
        for (int i = 0; i < 3 && !s; i++) {
            bool is;
            s = rig_answer_is_alone(&r, i, i, &is);
            CHECK_MSG(s || is, "allocation %ld, picture %d", n, i);
        }
        if (dr_alloc_count() > most) most = dr_alloc_count();
        dr_alloc_fail_after(0, false);
        CHECK_MSG(!s || (s == DR_NOMEM && r.err.code == s), "allocation %ld: %d %s", n, s, r.err.text);
        CHECK(most < 3000);
    }
    rig_close(&r);
}
