/* freq.c - mean magnitude of the spectrum of a difference, and its gradient.
 *
 * The transform is linear, so that of d = a - b is all there is to do, and it is done by two products with tables of
 * waves: any side, no library, sums in a fixed order. For sides of some hundred pixels that is a few thousandths of a
 * training step. With m = w/2 + 1 columns, since the others are conjugates of these:
 *
 *   d[y][x]  -- along x -->  A[y][q][v]  -- along y -->  F[v][q][u]      q = 0: real parts, 1: imaginary parts
 *
 * and backward the same with the transposed waves: P = F/|F|, P[v][q][u] -> B[v][q][y] -> dd[y][x]. A table's rows
 * stand in the order in which the left matrix has its columns in memory, so that no step needs a transposition. Column
 * v counts twice for its conjugate, but v = 0 and v = w/2 stand for themselves.
 *
 * Waves are computed in double and kept as f32 for one call; one plane at a time, whose rows the threads share.
 * Backward transforms once more instead of keeping the spectrum. */
#include "core/cpu/conv.h"
#include "core/cpu/entries.h"
#include <math.h>

enum { ROWS = 30 }; /* a multiple of the row tile of every instruction set */

/* One side: places i (rows of the table) to places j (columns), each with one part or two. */
typedef struct side {
    int n, i, i_parts, j, j_parts;
    bool parts_apart; /* rows are (part, i), else (i, part); columns are always (part, j) */
    bool back;        /* the transpose of the transform */
} side;

static int rows_of(side s) {
    return s.i * s.i_parts;
}
static int cols_of(side s) {
    return s.j * s.j_parts;
}

/* cos and sin of 2 pi k/n over sqrt(n); exact at the quarters, so that real bins have no imaginary dust. */
static void roots(int n, float *c, float *s) {
    static const double quarter[] = {1, 0, -1, 0};
    double unit = 1 / sqrt((double)n);
    for (int k = 0; k < n; k++) {
        double angle = 2 * M_PI * (double)k / (double)n;
        bool exact = 4 * k % n == 0;
        c[k] = (float)(unit * (exact ? quarter[4 * k / n] : cos(angle)));
        s[k] = (float)(unit * (exact ? quarter[(4 * k / n + 3) % 4] : sin(angle)));
    }
}

/* The real matrix of e^(-2 pi i ij/n)/sqrt(n), or of its conjugate for the way back. */
static void waves(side s, const float *c, const float *sn, float *t) {
    for (int r = 0; r < rows_of(s); r++) {
        int i = s.parts_apart ? r % s.i : r / s.i_parts, p = s.parts_apart ? r / s.i : r % s.i_parts;
        for (int q = 0; q < s.j_parts; q++) {
            const float *of = p == q ? c : sn;
            float sign = p != q && (q > p) != s.back ? -1.0f : 1.0f;
            for (int j = 0, k = 0; j < s.j; j++, k = (k + i) % s.n) *t++ = sign * of[k];
        }
    }
}

typedef struct spectrum {
    dr_cpu *cpu;
    int h, w, m;
    float *along_x, *along_y, *back_y, *back_x; /* packed tables; the last two where there is a gradient */
    float *x, *y;                               /* h * 2m floats each */
    double *part;                               /* m sums */
} spectrum;

static size_t packed_floats(const dr_kern *kern, side s) {
    size_t panel = (size_t)kern->panel;
    return ((size_t)cols_of(s) + panel - 1) / panel * panel * (size_t)rows_of(s);
}

static void make_table(const dr_kern *kern, side s, float *room, float *packed) {
    float *c = room, *sn = c + s.n, *t = sn + s.n;
    roots(s.n, c, sn);
    waves(s, c, sn, t);
    kern->pack(rows_of(s), cols_of(s), t, cols_of(s), 1, packed);
}

static dr_status prepare(dr_cpu *c, int h, int w, bool back, spectrum *ret, dr_error *err) {
    const dr_kern *kern = c->kern;
    int m = w / 2 + 1;
    side sides[] = {{.n = w, .i = w, .i_parts = 1, .j = m, .j_parts = 2},
                    {.n = h, .i = h, .i_parts = 2, .j = h, .j_parts = 2},
                    {.n = h, .i = h, .i_parts = 2, .j = h, .j_parts = 2, .parts_apart = true, .back = true},
                    {.n = w, .i = m, .i_parts = 2, .j = w, .j_parts = 1, .back = true}};
    size_t at[4], floats = (2 * (size_t)m + 15) / 16 * 16, room = 0, plane = (size_t)h * 2 * (size_t)m;
    int n = back ? 4 : 2;
    for (int i = 0; i < n; i++) {
        size_t t = (size_t)rows_of(sides[i]) * (size_t)cols_of(sides[i]) + 2 * (size_t)sides[i].n;
        at[i] = floats;
        floats += packed_floats(kern, sides[i]);
        room = t > room ? t : room;
    }
    void *scratch;
    dr_status s = dr_cpu_scratch(c, (floats + 2 * plane + room) * sizeof(float), &scratch, err);
    if (s) return s;
    float *f = scratch, *tables[4] = {0};
    *ret = (spectrum){.cpu = c, .h = h, .w = w, .m = m, .part = scratch, .x = f + floats, .y = f + floats + plane};
    for (int i = 0; i < n; i++) make_table(kern, sides[i], f + floats + 2 * plane, tables[i] = f + at[i]);
    ret->along_x = tables[0], ret->along_y = tables[1], ret->back_y = tables[2], ret->back_x = tables[3];
    return DR_OK;
}

/* C (m,n) = A (m,k) B with a packed B; A by strides. */
static void product(const spectrum *s, int m, int n, int k, const float *a, ptrdiff_t a_m, ptrdiff_t a_k,
                    const float *packed, float *y) {
    int blocks = (m + ROWS - 1) / ROWS, nt = (size_t)m * (size_t)n * (size_t)k < 200000 ? 1 : s->cpu->threads;
#pragma omp parallel for schedule(dynamic) num_threads(nt) if (nt > 1)
    for (int i = 0; i < blocks; i++) {
        int from = i * ROWS, rows = m - from < ROWS ? m - from : ROWS;
        s->cpu->kern->gemm(rows, n, k, a + from * a_m, a_m, a_k, packed, NULL, false, y + (ptrdiff_t)from * n, n);
    }
}

/* x = F of one plane of a - b. */
static void forward(const spectrum *s, const float *a, const float *b) {
    s->cpu->kern->axpby((size_t)s->h * (size_t)s->w, -1, b, a, s->x);
    product(s, s->h, 2 * s->m, s->w, s->x, s->w, 1, s->along_x, s->y);
    product(s, s->m, 2 * s->h, 2 * s->h, s->y, 1, s->m, s->along_y, s->x);
}

static int times(const spectrum *s, int v) {
    return v == 0 || 2 * v == s->w ? 1 : 2;
}

/* Sum of |F| over all bins of the plane in x. */
static double sizes(const spectrum *s) {
    int h = s->h, nt = dr_cpu_threads(s->cpu, 2 * (size_t)s->m * (size_t)h);
#pragma omp parallel for schedule(dynamic, 8) num_threads(nt) if (nt > 1)
    for (int v = 0; v < s->m; v++) {
        const float *re = s->x + (size_t)v * 2 * (size_t)h, *im = re + h;
        double sum = 0;
        for (int u = 0; u < h; u++) sum += sqrt((double)re[u] * (double)re[u] + (double)im[u] * (double)im[u]);
        s->part[v] = sum * times(s, v);
    }
    double sum = 0;
    for (int v = 0; v < s->m; v++) sum += s->part[v];
    return sum;
}

/* x = each F/|F|, counted as its column counts. */
static void directions(const spectrum *s, double each) {
    int h = s->h, nt = dr_cpu_threads(s->cpu, 2 * (size_t)s->m * (size_t)h);
#pragma omp parallel for schedule(dynamic, 8) num_threads(nt) if (nt > 1)
    for (int v = 0; v < s->m; v++) {
        float *re = s->x + (size_t)v * 2 * (size_t)h, *im = re + h;
        double coef = each * times(s, v);
        for (int u = 0; u < h; u++) {
            double size = sqrt((double)re[u] * (double)re[u] + (double)im[u] * (double)im[u]);
            double f = size > 0 ? coef / size : 0;
            re[u] = (float)(f * (double)re[u]);
            im[u] = (float)(f * (double)im[u]);
        }
    }
}

dr_status dr_cpu_freq(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor loss, dr_error *err) {
    spectrum p;
    dr_status s = prepare(dr_cpu_of(be), a.shape.h, a.shape.w, false, &p, err);
    if (s) return s;
    size_t n = dr_shape_count(a.shape), plane = (size_t)p.h * (size_t)p.w;
    double sum = 0;
    for (size_t at = 0; at < n; at += plane) {
        forward(&p, (const float *)a.data + at, (const float *)b.data + at);
        sum += sizes(&p);
    }
    *(float *)loss.data = (float)(sum / (double)n);
    return DR_OK;
}

dr_status dr_cpu_freq_bwd(dr_backend *be, dr_tensor a, dr_tensor b, float g, dr_tensor da, dr_error *err) {
    spectrum p;
    dr_status s = prepare(dr_cpu_of(be), a.shape.h, a.shape.w, true, &p, err);
    if (s) return s;
    size_t n = dr_shape_count(a.shape), plane = (size_t)p.h * (size_t)p.w;
    for (size_t at = 0; at < n; at += plane) {
        forward(&p, (const float *)a.data + at, (const float *)b.data + at);
        directions(&p, (double)g / (double)n);
        product(&p, p.m, 2 * p.h, 2 * p.h, p.x, 2 * p.h, 1, p.back_y, p.y);
        product(&p, p.h, p.w, 2 * p.m, p.y, 1, p.h, p.back_x, (float *)da.data + at);
    }
    return DR_OK;
}
