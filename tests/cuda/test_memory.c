/* test_memory.c - the emulated device runs short of memory: what is kept for speed alone is given back first, what
 * cannot be had is told with numbers, and results are right afterwards (recordings: test_parity_record.c). */
#include "tests/cuda/parity.h"
#include "tests/cuda/sim.h"

#define MB     ((size_t)1 << 20)
#define PLENTY ((size_t)4 << 30)

static dr_error err;

static dr_backend *open_be(void) {
    dr_backend *be = NULL;
    err = (dr_error){0};
    return dr_backend_open("cuda", NULL, &be, NULL, &err) ? NULL : be;
}

/* A wide tensor goes through scratch memory: 32 MB of it at least are kept afterwards. */
static bool use_scratch(dr_backend *be) {
    static float x[16 * 16 * 16], y[16 * 16 * 16];
    dr_tensor t = {.shape = {1, 16, 16, 16}};
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = (float)(i % 128);
    bool ok = !dr_be_alloc(be, dr_be_tensor_bytes(be, t.shape), &t.data, &err) && !dr_be_upload(be, x, t, &err) &&
              !dr_be_download(be, t, y, &err) && !memcmp(x, y, sizeof x);
    dr_be_free(be, t.data);
    return ok;
}

static uint64_t used(dr_backend *be) {
    dr_device_info i;
    return dr_be_info(be, &i) ? i.memory_used : UINT64_MAX;
}

TEST(trim_gives_back_what_is_kept_for_speed) {
    if (!find_sim()) SKIP("no emulated module");
    dr_backend *be = open_be();
    CHECK_MSG(be, "%s", err.text);
    size_t before = sim.live_bytes();
    CHECK_MSG(use_scratch(be), "%s", err.text);
    CHECK(used(be) >= 32 * MB && sim.live_bytes() >= before + 32 * MB);
    dr_be_trim(be);
    CHECK(used(be) == 0 && sim.live_bytes() == before);
    dr_be_trim(be); /* nothing is left to give */
    CHECK_MSG(use_scratch(be), "%s", err.text);
    dr_backend_close(be);
}

TEST(an_allocation_gets_what_the_scratch_memory_holds) {
    if (!find_sim()) SKIP("no emulated module");
    dr_backend *be = open_be();
    void *p = NULL, *q = NULL;
    CHECK_MSG(be && use_scratch(be), "%s", err.text);
    sim.set_memory(sim.live_bytes() + 4 * MB);
    CHECK_MSG(!dr_be_alloc(be, 20 * MB, &p, &err) && p, "%s", err.text);
    dr_status s = dr_be_alloc(be, 20 * MB, &q, &err); /* there is no more */
    CHECK_MSG(s == DR_NOMEM && strstr(err.text, "no room for 20 MB") && strstr(err.text, "16 of") &&
                  strstr(err.text, "MB are free"),
              "%d %s", (int)s, err.text);
    sim.set_memory(PLENTY);
    CHECK(use_scratch(be));
    dr_be_free(be, p);
    dr_backend_close(be);
}

TEST(nothing_is_given_back_while_recording) {
    if (!find_sim()) SKIP("no emulated module");
    dr_backend *be = open_be();
    CHECK_MSG(be && use_scratch(be), "%s", err.text);
    uint64_t held = used(be);
    CHECK(!dr_be_record_begin(be, &err));
    dr_be_trim(be);
    CHECK(used(be) == held);
    CHECK(!dr_be_record_end(be, NULL, &err));
    dr_backend_close(be);
}

/* Prepared weights are allocated while the call's scratch memory is in use: it must not go for them. */
TEST(scratch_memory_in_use_stays) {
    if (!find_sim()) SKIP("no emulated module");
    enum { C = 3, O = 2048, SIDE = 20, K = 7 };
    static float x[C * SIDE * SIDE], w[(size_t)O * C * K * K];
    const dr_conv2d_desc d = {.k = K, .pad = 3, .frozen = true};
    const size_t n = (size_t)O * SIDE * SIDE;
    float *y[2] = {malloc(n * sizeof(float)), malloc(n * sizeof(float))};
    dr_backend *be = open_be();
    dr_tensor tx = {.shape = {1, C, SIDE, SIDE}}, ty = {.shape = {1, O, SIDE, SIDE}};
    void *tw = NULL;
    dr_slot slot = {0};
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = (float)(i % 13) - 6;
    for (size_t i = 0; i < sizeof w / sizeof *w; i++) w[i] = (float)(i % 7) - 3;
    CHECK_MSG(be && !dr_be_alloc(be, dr_be_tensor_bytes(be, tx.shape), &tx.data, &err) &&
                  !dr_be_alloc(be, dr_be_tensor_bytes(be, ty.shape), &ty.data, &err) &&
                  !dr_be_alloc(be, sizeof w, &tw, &err),
              "%s", err.text);
    CHECK(!dr_be_upload(be, x, tx, &err) && !dr_be_upload_raw(be, w, tw, sizeof w, &err) && use_scratch(be));
    CHECK_MSG(!dr_be_conv2d(be, d, tx, tw, NULL, ty, NULL, &err) && !dr_be_download(be, ty, y[0], &err), "%s",
              err.text);
    sim.set_memory(sim.live_bytes() + 1000); /* the scratch memory holds, the prepared weights have no room */
    dr_status s = dr_be_conv2d(be, d, tx, tw, NULL, ty, &slot, &err);
    CHECK_MSG(s == DR_NOMEM && used(be) >= 32 * MB, "%d %s", (int)s, err.text);
    sim.set_memory(PLENTY);
    err = (dr_error){0};
    CHECK_MSG(!dr_be_conv2d(be, d, tx, tw, NULL, ty, &slot, &err) && !dr_be_download(be, ty, y[1], &err), "%s",
              err.text);
    CHECK(!memcmp(y[0], y[1], n * sizeof(float)));
    dr_slot_clear(&slot);
    dr_be_free(be, tx.data);
    dr_be_free(be, ty.data);
    dr_be_free(be, tw);
    dr_backend_close(be);
    free(y[0]);
    free(y[1]);
}
