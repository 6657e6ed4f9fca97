/* augment.c - draws and runs sampling plans.
 *
 * A window is made in two steps: resample (only where the plan changes the size) gives the window's pixels as bytes,
 * then place() copies them through two index tables that hold flips, turn and mirror continuation. */
#include "core/train/augment.h"
#include "core/base/alloc.h"
#include <math.h>
#include <string.h>

#define COEF_BITS 22 /* Pillow's fixed point for 8-bit pictures */

/* Weights of one axis: output pixel i is the sum of n[i] source pixels from first[i] on. */
typedef struct axis {
    int count, taps;
    int *first, *n;
    int32_t *weight; /* count rows of taps */
} axis;

static double bicubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

static void axis_done(axis *a) {
    dr_free(a->first);
    dr_free(a->n);
    dr_free(a->weight);
}

/* Output pixels out0 .. out0+count-1 of `in` pixels resized to `out`. */
static bool axis_init(axis *a, int in, int out, int out0, int count) {
    double scale = (double)in / out, wide = scale < 1 ? 1 : scale, support = 2 * wide;
    *a = (axis){.count = count, .taps = (int)ceil(support) * 2 + 1};
    size_t cells;
    double *w = dr_malloc(sizeof *w * (size_t)a->taps);
    if (w && dr_mul_size((size_t)count, (size_t)a->taps, &cells)) {
        a->first = dr_calloc((size_t)count, sizeof *a->first);
        a->n = dr_calloc((size_t)count, sizeof *a->n);
        a->weight = dr_calloc(cells, sizeof *a->weight);
    }
    if (!a->weight || !a->first || !a->n) {
        dr_free(w);
        axis_done(a);
        *a = (axis){0};
        return false;
    }
    for (int i = 0; i < count; i++) {
        double center = (out0 + i + 0.5) * scale, sum = 0;
        int lo = (int)(center - support + 0.5), hi = (int)(center + support + 0.5);
        if (lo < 0) lo = 0;
        if (hi > in) hi = in;
        for (int j = lo; j < hi; j++) sum += w[j - lo] = bicubic((j - center + 0.5) / wide);
        for (int j = lo; j < hi; j++)
            a->weight[(size_t)i * (size_t)a->taps + (size_t)(j - lo)] =
                (int32_t)lrint(w[j - lo] / sum * (1 << COEF_BITS));
        a->first[i] = lo;
        a->n[i] = hi - lo;
    }
    dr_free(w);
    return true;
}

static uint8_t clip8(int64_t v) {
    v = (v + (1 << (COEF_BITS - 1))) >> COEF_BITS;
    return v < 0 ? 0 : v > 255 ? 255 : (uint8_t)v;
}

/* The nx x ny pixels at (plan->x, plan->y) of the resized picture, into a new block of 3-byte pixels. */
static uint8_t *resample(const dr_sample_plan *plan, dr_pixels p, int nx, int ny) {
    axis ax = {0}, ay = {0};
    uint8_t *tmp = NULL, *ret = NULL;
    if (!axis_init(&ax, p.w, plan->vw, plan->x, nx) || !axis_init(&ay, p.h, plan->vh, plan->y, ny)) goto out;
    int y0 = ay.first[0], y1 = ay.first[ny - 1] + ay.n[ny - 1];
    size_t row = (size_t)nx * 3, bytes;
    if (!dr_mul_size(row, (size_t)(y1 - y0), &bytes)) goto out;
    tmp = dr_malloc(bytes);
    ret = dr_malloc(row * (size_t)ny);
    if (!tmp || !ret) {
        dr_free(ret);
        ret = NULL;
        goto out;
    }
    for (int y = y0; y < y1; y++) {
        const uint8_t *src = p.data + (size_t)y * (size_t)p.w * 3;
        uint8_t *dst = tmp + (size_t)(y - y0) * row;
        for (int x = 0; x < nx; x++) {
            const int32_t *w = ax.weight + (size_t)x * (size_t)ax.taps;
            const uint8_t *s = src + (size_t)ax.first[x] * 3;
            int64_t r = 0, g = 0, b = 0;
            for (int j = 0; j < ax.n[x]; j++, s += 3)
                r += (int64_t)w[j] * s[0], g += (int64_t)w[j] * s[1], b += (int64_t)w[j] * s[2];
            dst[3 * x] = clip8(r);
            dst[3 * x + 1] = clip8(g);
            dst[3 * x + 2] = clip8(b);
        }
    }
    for (int y = 0; y < ny; y++) {
        const int32_t *w = ay.weight + (size_t)y * (size_t)ay.taps;
        const uint8_t *s = tmp + (size_t)(ay.first[y] - y0) * row;
        for (size_t i = 0; i < row; i++) {
            int64_t v = 0;
            for (int j = 0; j < ay.n[y]; j++) v += (int64_t)w[j] * s[(size_t)j * row + i];
            ret[(size_t)y * row + i] = clip8(v);
        }
    }
out:
    dr_free(tmp);
    axis_done(&ax);
    axis_done(&ay);
    return ret;
}

/* Index i of a row of n pixels that goes on as its mirror image. */
static int mirror(int i, int n) {
    if (n == 1) return 0;
    int period = 2 * (n - 1);
    i %= period;
    if (i < 0) i += period;
    return i < n ? i : period - i;
}

/* crop x crop floats from rows of w pixels: column xi[j] of row yi[i], exchanged when turned. */
static void place(const dr_sample_plan *plan, const uint8_t *data, int w, const int *xi, const int *yi, float *ret) {
    size_t n = (size_t)plan->crop, area = n * n;
    for (size_t i = 0; i < n; i++) {
        float *r = ret + i * n, *g = r + area, *b = g + area;
        for (size_t j = 0; j < n; j++) {
            size_t row = (size_t)(plan->turn ? yi[j] : yi[i]), col = (size_t)(plan->turn ? xi[i] : xi[j]);
            const uint8_t *s = data + (row * (size_t)w + col) * 3;
            r[j] = (float)s[0] / 255.0f;
            g[j] = (float)s[1] / 255.0f;
            b[j] = (float)s[2] / 255.0f;
        }
    }
}

dr_sample_plan dr_augment_plan(const dr_augment_opts *o, int w, int h, dr_rng *rng) {
    dr_sample_plan p = {.crop = o->crop, .vw = w, .vh = h};
    double u_scale = dr_rng_uniform(rng), u_x = dr_rng_uniform(rng), u_y = dr_rng_uniform(rng);
    uint64_t bits = dr_rng_u64(rng);
    if (o->mode == DR_CROP_RELEASED) {
        p.vw = p.vh = 2 * o->crop;
    } else if (o->mode == DR_CROP_SQUEEZED) {
        p.vw = p.vh = o->crop;
    } else if (o->scale_min < 1 && w > 2 * o->crop && h > 2 * o->crop) {
        double s = o->scale_min + (1 - o->scale_min) * u_scale;
        p.vw = (int)lrint(w * s);
        p.vh = (int)lrint(h * s);
        if (p.vw < o->crop || p.vh < o->crop) p.vw = w, p.vh = h;
    }
    if (p.vw > o->crop) p.x = (int)(u_x * (p.vw - o->crop + 1));
    if (p.vh > o->crop) p.y = (int)(u_y * (p.vh - o->crop + 1));
    p.flip_x = o->flip_x && (bits & 1);
    p.flip_y = o->flip_y && (bits & 2);
    p.turn = o->turn && (bits & 4);
    return p;
}

dr_status dr_augment_run(const dr_sample_plan *plan, dr_pixels p, float *ret, dr_error *err) {
    int n = plan->crop, x = plan->x, y = plan->y, w = p.w, h = p.h;
    uint8_t *window = NULL;
    const uint8_t *data = p.data;
    int *index = dr_malloc(sizeof *index * 2 * (size_t)n);
    if (!index) return dr_fail(err, DR_NOMEM, "no memory for a training sample");
    if (plan->vw != p.w || plan->vh != p.h) {
        w = plan->vw - x < n ? plan->vw - x : n;
        h = plan->vh - y < n ? plan->vh - y : n;
        window = resample(plan, p, w, h);
        if (!window) {
            dr_free(index);
            return dr_fail(err, DR_NOMEM, "no memory for a resized training sample");
        }
        data = window;
        x = y = 0;
    }
    for (int i = 0; i < n; i++) {
        index[i] = mirror(x + (plan->flip_x ? n - 1 - i : i), w);
        index[n + i] = mirror(y + (plan->flip_y ? n - 1 - i : i), h);
    }
    place(plan, data, w, index, index + n, ret);
    dr_free(window);
    dr_free(index);
    return DR_OK;
}
