/* test_parity_pixels.c - pictures on and off the module's device against core/image/convert.c: equal bits for every
 * depth and number of channels, with mirrored edges, rows with gaps, and more than one round of the staging ring. */
#include "core/image/convert.h"
#include "core/tensor/pool.h"
#include "tests/cuda/emulated.h"
#include "tests/t.h"

static dr_error err;

static dr_status open_side(dr_backend **be, dr_pool *pool) {
    err = (dr_error){0};
    dr_status s = dr_backend_open("cuda", &(dr_backend_opts){.precision = DR_PREC_BF16}, be, NULL, &err);
    if (!s) dr_pool_init(pool, *be, 1 << 20);
    return s;
}

static unsigned char byte(size_t i) {
    uint64_t v = (i + 1) * 0x9e3779b97f4a7c15u;
    return (unsigned char)((v ^ (v >> 29)) >> 24);
}

/* In: the planes equal those of the CPU. Out: values of all sorts give the CPU's pixels, alpha and gaps stay. */
static void there_and_back(dr_backend *be, dr_pool *pool, int w, int h, int channels, int depth, size_t gap) {
    dr_image img = {0}, want = {0};
    const int pw = dr_round_up(w, 4) + (w > 1 ? 4 : 0), ph = dr_round_up(h, 4);
    const size_t n = 3 * (size_t)pw * (size_t)ph;
    float *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b);
    dr_tensor x = {0};
    dr_status s = dr_image_init(&img, w, h, channels, depth, &err);
    const size_t stride = img.stride + gap;
    unsigned char *rows = malloc(stride * (size_t)h);
    for (size_t i = 0; i < stride * (size_t)h; i++) rows[i] = byte(i);
    for (int y = 0; y < h; y++)
        memcpy((char *)img.pixels + (size_t)y * img.stride, rows + (size_t)y * stride, img.stride);
    const dr_pixel_view v = {w, h, channels, depth, stride, rows};
    if (!s) s = dr_image_copy(&img, &want, &err);
    if (!s) s = dr_pool_tensor(pool, (dr_shape){1, 3, ph, pw}, &x, &err);
    if (!s) s = dr_be_fill(be, 7, x, &err);
    if (!s) s = dr_be_pixels_in(be, &v, x, &err);
    if (!s) s = dr_be_download(be, x, a, &err);
    dr_planar_from_image(&img, b, pw, ph);
    bool in = !s && !memcmp(a, b, n * sizeof *a);
    /* around the levels, halfway between two, outside the range, not a number */
    const float half = depth == 8 ? 127.5f : 32767.5f;
    for (size_t i = 0; i < n; i++) {
        a[i] = ((float)(byte(3 * i) * 257 % (int)(2 * half + 1)) + (float)(i % 7) * 0.25f) / half - 1.0f;
        if (i % 97 == 0) a[i] = i % 2 ? NAN : (float)(byte(i) - 128);
    }
    if (!s) s = dr_be_upload(be, a, x, &err);
    if (!s) s = dr_be_pixels_out(be, x, &v, &err);
    dr_planar_to_image(a, pw, ph, &want);
    bool out = !s;
    for (int y = 0; y < h && out; y++) {
        out = !memcmp((char *)want.pixels + (size_t)y * want.stride, rows + (size_t)y * stride, want.stride);
        for (size_t i = img.stride; i < stride; i++)
            out = out && rows[(size_t)y * stride + i] == byte((size_t)y * stride + i);
    }
    dr_image_done(&img);
    dr_image_done(&want);
    free(rows);
    free(a);
    free(b);
    dr_pool_reset(pool);
    CHECK_MSG(!s, "%s", err.text);
    CHECK_MSG(in && out, "%d x %d, %d channels of %d bits, gap %zu: in %d out %d", w, h, channels, depth, gap, in, out);
}

TEST(pixels_are_those_of_the_cpu) {
    static const int sides[][2] = {{1, 1}, {2, 3}, {17, 9}, {64, 40}, {301, 5}};
    dr_backend *be;
    dr_pool pool;
    CHECK_MSG(!open_side(&be, &pool), "%s", err.text);
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++)
        for (int channels = 1; channels <= 4 && !t_bad; channels++)
            for (int depth = 8; depth <= 16 && !t_bad; depth += 8)
                for (size_t gap = 0; gap <= 6 && !t_bad; gap += 6)
                    there_and_back(be, &pool, sides[i][0], sides[i][1], channels, depth, gap);
    dr_pool_done(&pool);
    dr_backend_close(be);
}

/* 24 MB through a ring of 16, with pieces that end inside of rows. */
TEST(pictures_longer_than_the_ring) {
    dr_backend *be;
    dr_pool pool;
    CHECK_MSG(!open_side(&be, &pool), "%s", err.text);
    there_and_back(be, &pool, 2003, 2001, 3, 16, 0);
    if (!t_bad) there_and_back(be, &pool, 1203, 1001, 4, 8, 6);
    dr_pool_done(&pool);
    dr_backend_close(be);
}

/* A fault anywhere gives an error, not a wrong picture; and the next transfer is right again. */
TEST(faults_are_told) {
    dr_backend *be;
    dr_pool pool;
    unsigned char px[3 * 16 * 16] = {0};
    const dr_pixel_view v = {16, 16, 3, 8, 48, px};
    dr_tensor x;
    CHECK_MSG(!open_side(&be, &pool), "%s", err.text);
    CHECK(!dr_pool_tensor(&pool, (dr_shape){1, 3, 16, 16}, &x, &err));
    dr_backend_fail_after(1);
    CHECK(dr_be_pixels_in(be, &v, x, &err) == DR_BACKEND);
    dr_backend_fail_after(1);
    CHECK(dr_be_pixels_out(be, x, &v, &err) == DR_BACKEND);
    dr_backend_fail_after(0);
    there_and_back(be, &pool, 16, 16, 3, 8, 0);
    dr_pool_done(&pool);
    dr_backend_close(be);
}
