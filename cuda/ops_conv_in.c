/* ops_conv_in.c - large windows over few inputs, as the generator's first layer: 7x7 over three colours.
 *
 * As it is, each tap is a pixel of 8 channels of which 3 are used, no Hopper engine takes 7x7, and tensor cores that go
 * through 32 channels at a time work on 3 of 32. By columns, the 7 pixels of 3 colours in a row of the window become 21
 * channels (of 24) of one pixel, and a 7 x 1 convolution over those is left: 147 products of 168 are used, and every
 * architecture has its best engines for it. The price is a pass that writes and reads 48 bytes a pixel (bf16). Doing
 * the same in both directions (147 channels of 152, a 1 x 1 convolution) would cost 304.
 *
 * Which is faster is not to be told without the device at hand, so the whole window stays the way to go until tuning
 * has timed both; the answer is kept in the file of tuned plans. What by columns cannot do is then done whole.
 *
 * The pass goes through scratch memory of a bounded size: whole pictures as long as they fit, else bands of rows, which
 * overlap by a window less one. */
#include "cuda/ops_conv.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>

/* Half of a large device's second-level cache, so that a band is read from there. A lower one takes tests through
 * bands.
 */
#ifdef DR_CUSIM
enum { COLUMNS_MAX = 16 << 10 };
#else
enum { COLUMNS_MAX = 32 << 20 };
#endif
enum { WARM = 2, RUNS = 3, AT_A_TIME = 4 };

bool conv_takes_columns(const gpu *g, const conv_call *c) {
    return c->d.k >= 5 && c->d.k <= 64 && c->d.pad == 0 && c->x.shape.c <= 4 && c->y.shape.c >= 16 &&
           gpu_map(g, c->y.shape).wide;
}

/* How a call is cut: `images` of them at a time with all rows, or one with `rows` rows of output at a time. */
typedef struct cut {
    int channels, images, rows;
    size_t bytes; /* of the largest piece */
} cut;

static int even(int all, int most) {
    const int parts = (all + most - 1) / most;
    return (all + parts - 1) / parts;
}

static cut cut_of(const gpu *g, const conv_call *c) {
    const dr_shape x = c->x.shape, y = c->y.shape;
    cut r = {.channels = conv_round8(c->d.k * x.c), .images = 1, .rows = y.h};
    const size_t row = (size_t)y.w * (size_t)r.channels * conv_elt(g), image = row * (size_t)x.h;
    if (image <= COLUMNS_MAX) {
        const size_t most = COLUMNS_MAX / image;
        r.images = even(x.n, most < (size_t)x.n ? (int)most : x.n);
    } else {
        const size_t most = COLUMNS_MAX / row, more = (size_t)c->d.k - 1;
        r.rows = even(y.h, most > more + 1 ? (int)(most - more) : 1);
    }
    r.bytes = gpu_aligned((size_t)r.images * (size_t)(r.rows + c->d.k - 1) * row);
    return r;
}

static dr_status run_columns(gpu *g, const conv_call *c, dr_error *err) {
    const dr_shape x = c->x.shape, y = c->y.shape;
    const cut p = cut_of(g, c);
    const int more = c->d.k - 1;
    cv_shape s = {p.images, p.channels, p.rows + more, y.w, y.c, c->d.k, 0, g->type, 1};
    void *mem;
    dr_status st = gpu_scratch(g, p.bytes + conv_weight_bytes(g, s) + 256, &mem, err);
    if (st) return st;
    char *at = (char *)mem + p.bytes;
    const void *w;
    if ((st = conv_weights(g, c, CONV_COLUMNS, s, &at, &w, err))) return st;
    for (int n = 0; n < x.n; n += p.images)
        for (int row = 0; row < y.h; row += p.rows) {
            s.n = p.images < x.n - n ? p.images : x.n - n;
            const int rows = p.rows < y.h - row ? p.rows : y.h - row;
            s.h = rows + more;
            const float *from = (const float *)c->x.data + (size_t)n * (size_t)x.c * (size_t)x.h * (size_t)x.w;
            char *to =
                (char *)c->y.data + ((size_t)n * (size_t)y.h + (size_t)row) * (size_t)y.w * (size_t)y.c * conv_elt(g);
            dk_gather_columns(g->stream, (dk_map){s.n, x.c, x.h, x.w, false, DK_F32}, c->d.k, row, s.h, p.channels,
                              g->type, from, mem);
            if ((st = cv_run(g->conv, CV_FORWARD, s, mem, w, to, err))) return st;
        }
    if (c->b) dk_bias_add(g->stream, gpu_map(g, y), c->b, c->y.data);
    return gpu_launched(g, "conv2d", err);
}

/* ---- which way ----------------------------------------------------------------------------------------------------
 */

typedef dr_status way(gpu *g, const conv_call *c, dr_error *err);

static int by_value(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Median milliseconds on the device; the first runs make plans, tune them and pack weights that stay. */
static dr_status timed(gpu *g, const conv_call *c, way *run, float *ret, dr_error *err) {
    cudaEvent_t from = NULL, to = NULL;
    float ms[RUNS];
    dr_status s = gpu_check(g, cudaEventCreate(&from), "cudaEventCreate", err);
    if (!s) s = gpu_check(g, cudaEventCreate(&to), "cudaEventCreate", err);
    for (int i = 0; i < WARM + RUNS && !s; i++) {
        s = gpu_check(g, cudaEventRecord(from, g->stream), "cudaEventRecord", err);
        for (int k = 0; k < (i < WARM ? 1 : AT_A_TIME) && !s; k++) s = run(g, c, err);
        if (!s) s = gpu_check(g, cudaEventRecord(to, g->stream), "cudaEventRecord", err);
        if (!s) s = gpu_check(g, cudaEventSynchronize(to), "cudaEventSynchronize", err);
        if (!s && i >= WARM)
            s = gpu_check(g, cudaEventElapsedTime(&ms[i - WARM], from, to), "cudaEventElapsedTime", err);
    }
    if (from) (void)cudaEventDestroy(from);
    if (to) (void)cudaEventDestroy(to);
    if (s) return s;
    qsort(ms, RUNS, sizeof *ms, by_value);
    *ret = ms[RUNS / 2] / AT_A_TIME;
    return DR_OK;
}

static void say(const gpu *g, const char *text) {
    if (g->host.log_debug) g->host.log_debug(text);
}

static dr_status choose(gpu *g, const conv_call *c, cv_shape s, dr_error *err) {
    float whole = FLT_MAX, columns = FLT_MAX;
    char text[200];
    dr_error why = {0};
    dr_status st = timed(g, c, conv_run_whole, &whole, err);
    if (st) return st;
    st = timed(g, c, run_columns, &columns, &why);
    if (st && g->lost) return g->host.fail(err, st, "%s", why.text);
    snprintf(text, sizeof text,
             "tuned the %dx%d window over %d channels of %dx%dx%d: %.4f ms by columns, %.4f ms whole", c->d.k, c->d.k,
             c->x.shape.c, s.n, s.h, s.w, (double)columns, (double)whole);
    say(g, st ? why.text : text);
    return cv_set_columns(g->conv, s, !st && columns < whole, err);
}

dr_status conv_run_in(gpu *g, const conv_call *c, dr_error *err) {
    const cv_shape s = conv_whole(g, c->d, c->x.shape, c->y.shape);
    int columns = cv_columns(g->conv, s);
    if (columns < 0 && cv_is_tuning(g->conv) && !g->recording) {
        dr_status st = choose(g, c, s, err);
        if (st) return st;
        columns = cv_columns(g->conv, s);
    }
    if (columns != 1) return conv_run_whole(g, c, err);
    dr_error why = {0};
    dr_status st = run_columns(g, c, &why);
    if (!st || st == DR_NOMEM || g->lost || g->recording) {
        if (st) g->host.fail(err, st, "%s", why.text);
        return st;
    }
    say(g, why.text); /* a file that promised too much */
    st = cv_set_columns(g->conv, s, false, err);
    return st ? st : conv_run_whole(g, c, err);
}
