/* test_skips.c - trainings with steps that are left out since something in them is not finite: what a checkpoint keeps
 * of that, and what ends them. Single steps: tests/cuda/test_skips.c. */
#include "core/train/skips.h"
#include "tests/core/skip_cases.h"

TEST(resumed_training_counts_on_with_the_same_bits) {
    skipped_and_resumed("cpu", "f32");
}

TEST(what_is_too_much) {
    dr_skips k = {0};
    for (int i = 0; i < DR_SKIPS_ROW - 1; i++) dr_skips_note(&k, true);
    CHECK(k.all == 9 && dr_skips_row(&k) == 9 && dr_skips_lately(&k) == 9 && !dr_skips_too_many(&k));
    dr_skips_note(&k, false);
    CHECK(k.all == 9 && dr_skips_row(&k) == 0 && dr_skips_lately(&k) == 9);
    for (int i = 0; i < DR_SKIPS_ROW; i++) dr_skips_note(&k, true);
    CHECK(k.all == 19 && dr_skips_too_many(&k));
    k = (dr_skips){0};
    for (int i = 0; i < 1000; i++) { /* every fifth: 13 of 64 */
        dr_skips_note(&k, i % 5 == 0);
        CHECK(!dr_skips_too_many(&k));
    }
    CHECK(k.all == 200);
    for (int i = 0; i < 64; i++) dr_skips_note(&k, i % 4 == 0);
    CHECK(dr_skips_lately(&k) == 16 && dr_skips_too_many(&k));
    k = (dr_skips){.lately = UINT64_MAX};
    CHECK(dr_skips_row(&k) == 64);
}

/* Steps with losses that are not finite until the training ends; from the checkpoint before the last it ends as well.
 */
TEST(ten_in_a_row_end_a_training) {
    skip_world w;
    dr_trainer *t = NULL;
    dr_train_metrics m = {0};
    dr_error e = {0};
    CHECK(skip_begin(&w));
    const dr_train_opts o = skip_opts(&w, "cpu", "f32");
    CHECK_MSG(!dr_trainer_open(&o, &t, &e) && !go_on(t, 11, 0x7fc, w.a, &m, &e), "%s", e.text);
    CHECK(m.skipped && m.n_skipped == 9);
    CHECK(go_on(t, 12, 0x7ff << 2, NULL, &m, &e) == DR_CORRUPT && !strcmp(e.what, "diverged"));
    CHECK(m.skipped && m.n_skipped == 10 && m.step == 12);
    CHECK_MSG(strstr(e.text, "10 steps in a row were left out, 10 of 12 in all") && strstr(e.text, "lr"), "%s", e.text);
    e = (dr_error){0};
    CHECK(dr_trainer_step(t, &m, &e) == DR_CONFLICT && dr_trainer_save(t, w.b, &e) == DR_CONFLICT);
    dr_trainer_close(t);
    dr_train_opts again = skip_opts(&w, "cpu", NULL);
    again.resume = w.a;
    e = (dr_error){0};
    CHECK_MSG(!dr_trainer_open(&again, &t, &e), "%s", e.text);
    CHECK(go_on(t, 12, 0x7ff << 2, NULL, &m, &e) == DR_CORRUPT && strstr(e.text, "10 steps in a row"));
    dr_trainer_close(t);
    e = (dr_error){0}; /* a good one in between, and it goes on */
    CHECK_MSG(!dr_trainer_open(&again, &t, &e) && !go_on(t, 13, 1 << 12, NULL, &m, &e), "%s", e.text);
    CHECK(dr_trainer_skipped(t) == 10);
    dr_trainer_close(t);
    fixture_done(&w.fx);
}

TEST(a_quarter_of_the_last_steps_ends_a_training) {
    skip_world w;
    dr_trainer *t = NULL;
    dr_train_metrics m = {0};
    dr_error e = {0};
    CHECK(skip_begin(&w));
    const dr_train_opts o = skip_opts(&w, "cpu", "f32");
    CHECK_MSG(!dr_trainer_open(&o, &t, &e), "%s", e.text);
    CHECK(go_on(t, 40, 0x5555555555555555, NULL, &m, &e) == DR_CORRUPT && !strcmp(e.what, "diverged"));
    CHECK_MSG(dr_trainer_at(t) == 31 && strstr(e.text, "16 of the last 64 steps were left out, 16 of 31 in all"), "%s",
              e.text);
    dr_trainer_close(t);
    fixture_done(&w.fx);
}

/* Without any help from a test. */
TEST(a_rate_that_is_much_too_high_diverges) {
    skip_world w;
    dr_trainer *t = NULL;
    dr_train_metrics m = {0};
    dr_error e = {0};
    CHECK(skip_begin(&w));
    dr_train_opts o = skip_opts(&w, "cpu", "f32");
    o.lr = 1e25;
    CHECK_MSG(!dr_trainer_open(&o, &t, &e), "%s", e.text);
    CHECK(go_on(t, 30, 0, NULL, &m, &e) == DR_CORRUPT);
    CHECK_MSG(!strcmp(e.what, "diverged") && dr_trainer_at(t) <= 20, "step %d: %s", (int)dr_trainer_at(t), e.text);
    dr_trainer_close(t);
    fixture_done(&w.fx);
}

static dr_status open_patched(skip_world *w, const char *from, const char *to, int64_t *ret_skipped) {
    char *data = NULL;
    size_t n = 0;
    dr_trainer *t = NULL;
    dr_error e = {0};
    if (dr_fs_read(w->a, 1 << 28, &data, &n, NULL)) return DR_IO;
    char *at = memmem(data, n, from, strlen(from));
    if (at) memcpy(at, to, strlen(to));
    bool ok = at && strlen(from) == strlen(to) && fixture_write(&w->fx, "b.safetensors", data, n);
    dr_free(data);
    if (!ok) return DR_IO;
    dr_train_opts o = skip_opts(w, "cpu", NULL);
    o.resume = w->b;
    dr_status s = dr_trainer_open(&o, &t, &e);
    if (!s) *ret_skipped = dr_trainer_skipped(t);
    dr_trainer_close(t);
    return s;
}

TEST(a_checkpoint_says_how_many) {
    skip_world w;
    dr_trainer *t = NULL;
    dr_train_metrics m = {0};
    dr_error e = {0};
    int64_t n = -1;
    CHECK(skip_begin(&w));
    const dr_train_opts o = skip_opts(&w, "cpu", "f32");
    CHECK_MSG(!dr_trainer_open(&o, &t, &e) && !go_on(t, 3, 1 << 1, w.a, &m, &e), "%s", e.text);
    dr_trainer_close(t);
    CHECK(!open_patched(&w, "\"train.skipped\":\"1\"", "\"train.skipped\":\"1\"", &n) && n == 1);
    CHECK(!open_patched(&w, "\"train.skipped\":\"1\"", "\"train.skipped\":\"3\"", &n) && n == 3);
    CHECK(open_patched(&w, "\"train.skipped\":\"1\"", "\"train.skipped\":\"4\"", &n) == DR_CORRUPT); /* 3 steps */
    CHECK(open_patched(&w, "\"train.skipped\":\"1\"", "\"train.skipped\":\"0\"", &n) == DR_CORRUPT); /* 1 lately */
    CHECK(open_patched(&w, "\"train.skipped\":\"1\"", "\"train.skipped\":\"x\"", &n) == DR_CORRUPT);
    CHECK(open_patched(&w, "\"train.skipped\":\"1\"", "\"train.skippeX\":\"1\"", &n) == DR_CORRUPT); /* half of it */
    CHECK(open_patched(&w, "0000000000000002\"", "000000000000000g\"", &n) == DR_CORRUPT);
    fixture_done(&w.fx);
}
