/* test_kern_resample.cpp - pads and filters of cuda/k_resample.cu, forward and backward, against the definitions in
 * double, over awkward sizes, both layouts and all types. */
#include "tests/cuda/kern_test.h"

typedef void forward_fn(cudaStream_t, dk_map, const void *, void *);

static bool legal(kind k, dk_map m, int p) {
    int need = k == PAD ? p + 1 : k == DOWN ? 2 : 1; /* mirroring needs a pixel behind the edge */
    return m.h >= need && m.w >= need;
}

static void launch(kind k, bool forward, dk_map m, int p, const void *from, void *to) {
    if (k == PAD) (forward ? dk_pad_reflect : dk_pad_reflect_bwd)(NULL, m, p, from, to);
    if (k == DOWN) (forward ? dk_blur_down : dk_blur_down_bwd)(NULL, m, from, to);
    if (k == UP) (forward ? dk_blur_up : dk_blur_up_bwd)(NULL, m, from, to);
}

static void check_one(kind k, dk_map m, int p) {
    if (!legal(k, m, p)) return;
    dk_map o = out_of(k, m, p);
    for (int forward = 1; forward >= 0; forward--) {
        dk_map from = forward ? m : o, to = forward ? o : m;
        double *in = random_host(from, 0.3, 1), *want = (double *)malloc(dk_count(to) * sizeof *want);
        resample(k, forward, m, p, forward ? in : want, forward ? want : in);
        void *d_in = put(from, in), *d_out = dev_out(to);
        launch(k, forward, m, p, d_in, d_out);
        cudaError_t e = cudaDeviceSynchronize();
        double w = worst(to, d_out, want, 0.5), back = worst(from, d_in, in, 1);
        cudaFree(d_in);
        cudaFree(d_out);
        free(in);
        free(want);
        const char *what = forward ? "forward" : "backward";
        CHECK_MSG(!e && !cudaGetLastError(), "%s %s: %s", what, map_text(m), cudaGetErrorString(e));
        CHECK_MSG(w <= tolerance(to), "%s %s p %d: error %g", what, map_text(m), p, w);
        CHECK_MSG(back == 0, "%s %s: the input changed", what, map_text(m));
    }
}

static void check_all(kind k, int p) {
    static const int sides[][2] = {{2, 2}, {1, 7}, {9, 1}, {3, 5},   {5, 3}, {4, 4},
                                   {2, 9}, {7, 2}, {8, 6}, {13, 11}, {1, 1}};
    static const int channels[][2] = {{8, 1}, {16, 3}, {24, 2}, {72, 1}, {264, 1}}; /* and images */
    for (size_t s = 0; s < LEN(sides); s++) {
        for (size_t c = 0; c < LEN(channels); c++) {
            if (c >= 3 && s % 3) continue; /* the wide ones at some of the sizes */
            for (int t = DK_F32; t <= DK_F16 && !t_bad; t++)
                check_one(k, map(true, (dk_type)t, channels[c][1], channels[c][0], sides[s][0], sides[s][1]), p);
        }
        for (int n = 1; n <= 3 && !t_bad; n++) check_one(k, map(false, DK_F32, n, 4 - n, sides[s][0], sides[s][1]), p);
    }
}

TEST(pad_by_one) {
    check_all(PAD, 1);
}
TEST(pad_by_three) {
    check_all(PAD, 3);
}
TEST(pad_by_none_copies) {
    check_all(PAD, 0);
}
TEST(blur_down) {
    check_all(DOWN, 0);
}
TEST(blur_up) {
    check_all(UP, 0);
}

/* Long rows: more than one block across, and several pixels to a thread. */
TEST(large_maps) {
    for (int k = PAD; k <= UP && !t_bad; k++) {
        check_one((kind)k, map(true, DK_BF16, 1, 8, 5, 531), k == PAD ? 3 : 0);
        check_one((kind)k, map(false, DK_F32, 1, 2, 6, 700), k == PAD ? 3 : 0);
    }
    if (!t_bad) check_one(PAD, map(true, DK_BF16, 1, 2056, 2, 3), 1); /* more than 256 groups of channels */
    if (!t_bad) check_one(UP, map(true, DK_F32, 1, 2056, 2, 2), 0);
}

/* <F x, y> = <x, F' y> with the kernels on both sides. */
TEST(adjoints) {
    for (int k = PAD; k <= UP; k++) {
        dk_map m = map(true, DK_F32, 2, 16, 7, 10), o = out_of((kind)k, m, 3);
        double *x = random_host(m, 0, 1), *y = random_host(o, 0, 1);
        void *dx = put(m, x), *dy = put(o, y), *fx = dev_out(o), *ay = dev_out(m);
        launch((kind)k, true, m, 3, dx, fx);
        launch((kind)k, false, m, 3, dy, ay);
        double *hfx = get(o, fx), *hay = get(m, ay), a = 0, b = 0;
        for (size_t i = 0; i < dk_count(o); i++) a += hfx[i] * y[i];
        for (size_t i = 0; i < dk_count(m); i++) b += hay[i] * x[i];
        void *all[] = {dx, dy, fx, ay};
        for (size_t i = 0; i < LEN(all); i++) cudaFree(all[i]);
        free(x);
        free(y);
        free(hfx);
        free(hay);
        CHECK_MSG(fabs(a - b) < 1e-3, "kind %d: %.9g and %.9g", k, a, b);
    }
}
