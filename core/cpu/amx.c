/* amx.c - forward (and, on turned weights, backward-data) convolutions on AMX, see amx.h.
 *
 * A thread takes a block of outputs of one picture, converts the inputs that it needs to bf16 with the padding written
 * out, and multiplies: a tile of A is 16 pixels x 32 channels, a tile of B 32 channels x 16 outputs, C is 16 pixels x
 * 16 outputs and so exactly 16 pixels of nChw16c. Four accumulators (32 pixels x 32 outputs) run over all channel
 * blocks and taps. Where the width is no multiple of 16, either a row ends with a tile that overlaps the one before
 * (the same pixels twice, with the same bits), or tiles run on over the ends of rows, whichever takes fewer.
 *
 * Few input channels: K of a pixel is (kx, c), 7*3 of 32, and only rows are taps. With channels interleaved that is a
 * stretch of memory, so a tile's rows overlap: they start 3 numbers apart. Few output channels: N is (kx, o), the
 * kernel makes z(pixel, kx, o) for one row of taps at a time, and y(x) is the sum of z(x+kx, kx). */
#include "core/cpu/amx_kern.h"
#include "core/cpu/conv_stats.h"
#include <cpuid.h>
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ARCH_REQ_XCOMP_PERM_ = 0x1023, XTILEDATA = 18 };

bool dr_amx_open(void) {
    unsigned a, b, c, d, a1, b1, c1, d1;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !__get_cpuid_count(7, 1, &a1, &b1, &c1, &d1)) return false;
    bool amx = (d >> 22 & 1) && (d >> 24 & 1);                                   /* AMX-BF16, AMX-TILE */
    bool avx = (b >> 16 & 1) && (b >> 30 & 1) && (b >> 31 & 1) && (a1 >> 5 & 1); /* AVX-512 F, BW, VL, BF16 */
    return amx && avx && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM_, XTILEDATA) == 0;
}

bool dr_amx_takes(const dr_amx_conv *c) {
    if (few(c->ic) && few(c->oc)) return false;
    if (c->pad < 0 || c->pad >= c->k || c->k > 7) return false;
    return !(few(c->ic) && c->ic * c->k > 32) && !(few(c->oc) && c->oc * c->k > 32);
}

/* z of one row, planar. */
static int zt_pitch(const amx_plan *p) {
    return up(p->in_cols, 16);
}

/* A function of the shape only: at least 256 outputs in a block, and inputs for the second-level cache. */
static amx_plan plan_of(const dr_amx_conv *c) {
    amx_plan p = {.c = c, .oh = c->ih + 2 * c->pad - c->k + 1, .ow = c->iw + 2 * c->pad - c->k + 1};
    bool in = few(c->ic), out = few(c->oc);
    p.parts = c->split ? 2 : 1;
    p.kw = in || out ? 1 : c->k;
    p.n_cb = in ? 1 : (c->ic + 31) / 32;
    p.n_ob = up(out ? up(c->oc * c->k, 16) / 16 : c->oc / 16, 2);
    p.n_x = p.ow <= 320 ? 1 : (p.ow + 255) / 256;
    p.cols = p.n_x == 1 ? p.ow : up((p.ow + p.n_x - 1) / p.n_x, 16);
    p.n_x = (p.ow + p.cols - 1) / p.cols;
    p.in_cols = p.cols + c->k - 1;
    p.px = in ? c->ic : 32;
    p.row = (size_t)(in ? up((p.in_cols + 16) * c->ic + 64, 32) : p.in_cols * 32);
    size_t row = (size_t)p.n_cb * p.row * (size_t)p.parts * sizeof(bf16);
    p.rows = (256 + p.cols - 1) / p.cols;
    if (row * (size_t)p.rows < 128 << 10) p.rows = (int)((128 << 10) / row);
    if (p.rows < 4) p.rows = 4;
    if (p.rows > p.oh) p.rows = p.oh;
    p.n_y = (p.oh + p.rows - 1) / p.rows;
    p.rows = (p.oh + p.n_y - 1) / p.n_y;
    p.n_y = (p.oh + p.rows - 1) / p.rows;
    p.in_rows = p.rows + c->k - 1;
    p.block = p.row * (size_t)p.in_rows;
    p.part = p.block * (size_t)p.n_cb;
    int width = out ? p.in_cols : p.cols;
    p.flat = !in && (p.rows * p.in_cols - (p.in_cols - width) + 15) / 16 < p.rows * ((width + 15) / 16);
    p.z_block = (size_t)(p.rows * p.in_cols + 16) * 16;
    p.x_bytes = round64(p.part * (size_t)p.parts * sizeof(bf16) + 64 * 32); /* tiles may read 16 pixels past the end */
    p.t_bytes = in ? 0 : amx_rows_bytes(&p);
    p.z_bytes = out ? (size_t)p.n_ob * (p.z_block + 16 * (size_t)zt_pitch(&p)) * sizeof(float) : 0;
    return p;
}

static size_t w_block(const amx_plan *p) {
    return (size_t)p->n_cb * (size_t)(p->c->k * p->kw * p->parts) * TILE;
}
static size_t part_bytes(const amx_plan *p) {
    size_t blocks = (size_t)p->n_y * (size_t)p->n_x;
    if (!p->c->out_stats) return 0;
    return round64(blocks * sizeof(int)) + (size_t)p->c->n * blocks * (size_t)p->c->oc * 3 * sizeof(float);
}

size_t dr_amx_weights_bytes(const dr_amx_conv *c) {
    amx_plan p = plan_of(c);
    return (size_t)p.n_ob * w_block(&p) * sizeof(bf16);
}

void dr_amx_prepare(const dr_amx_conv *c, const float *w, void *prepared) {
    amx_plan p = plan_of(c);
    bf16 *wb = prepared;
#pragma omp parallel for schedule(dynamic, 1)
    for (int ob = 0; ob < p.n_ob; ob++) amx_pack(&p, w, ob, wb + (size_t)ob * w_block(&p));
}

size_t dr_amx_conv_scratch(const dr_amx_conv *c, int threads) {
    amx_plan p = plan_of(c);
    return round64((size_t)p.n_ob * 64) + part_bytes(&p) + (size_t)threads * (p.x_bytes + p.t_bytes + p.z_bytes);
}

/* ---- the work ---- */

static inline __attribute__((always_inline)) void step(void) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
}

/* 2x2 tiles over all of K: a0, a1 are the first pixels, b0, b1 the weights of two output blocks. */
static void multiply(const amx_plan *p, const bf16 *a0, const bf16 *a1, const bf16 *b0, const bf16 *b1,
                     const float *bias, float *const out[4]) {
    size_t row = p->row, part = p->part, ld = (size_t)p->px * sizeof(bf16);
    int k = p->c->k, kw = p->kw;
    _tile_loadd(0, bias, 0);
    _tile_loadd(1, bias + 16, 0);
    _tile_loadd(2, bias, 0);
    _tile_loadd(3, bias + 16, 0);
    for (int cb = 0; cb < p->n_cb; cb++, a0 += p->block, a1 += p->block)
        for (int ky = 0; ky < k; ky++) {
            const bf16 *r0 = a0 + (size_t)ky * row, *r1 = a1 + (size_t)ky * row;
            if (p->parts == 1) {
                for (int kx = 0; kx < kw; kx++, b0 += TILE, b1 += TILE, r0 += 32, r1 += 32) {
                    _tile_loadd(4, r0, ld);
                    _tile_loadd(6, b0, 64);
                    _tile_loadd(5, r1, ld);
                    _tile_loadd(7, b1, 64);
                    step();
                }
                continue;
            }
            /* high x low, high x high, low x high: every step loads only what changes */
            for (int kx = 0; kx < kw; kx++, b0 += 2 * TILE, b1 += 2 * TILE, r0 += 32, r1 += 32) {
                _tile_loadd(4, r0, ld);
                _tile_loadd(6, b0 + TILE, 64);
                _tile_loadd(5, r1, ld);
                _tile_loadd(7, b1 + TILE, 64);
                step();
                _tile_loadd(6, b0, 64);
                _tile_loadd(7, b1, 64);
                step();
                _tile_loadd(4, r0 + part, ld);
                _tile_loadd(5, r1 + part, ld);
                step();
            }
        }
    _tile_stored(0, out[0], 64);
    _tile_stored(1, out[1], 64);
    _tile_stored(2, out[2], 64);
    _tile_stored(3, out[3], 64);
}

/* Where the outputs of a block go: n_store blocks of 16 outputs, rows x cols of them, strides in floats. */
typedef struct sink {
    float *y;
    size_t ob_stride, row_stride;
    int n_store, rows, cols;
} sink;

/* Copy the outputs of a tile that starts at pixel `q` of the block and does not lie in one row. */
static void scatter(const amx_plan *p, const float *tile, int q, int ob, const sink *to) {
    for (int i = 0; i < 16; i++) {
        int r = (q + i) / p->in_cols, x = (q + i) % p->in_cols;
        if (r < to->rows && x < to->cols)
            memcpy(to->y + (size_t)ob * to->ob_stride + (size_t)r * to->row_stride + (size_t)x * 16, tile + i * 16, 64);
    }
}

static void block_run(const amx_plan *p, const bf16 *xb, const bf16 *wb, const float *bias, const sink *to) {
    int pitch = p->in_cols, across = (to->cols + 15) / 16;
    int tiles = p->flat ? (to->rows * pitch - (pitch - to->cols) + 15) / 16 : to->rows * across;
    size_t wn = w_block(p);
    float small[4][256] __attribute__((aligned(64)));
    for (int ob = 0; ob < p->n_ob; ob += 2) {
        for (int t = 0; t < tiles; t += 2) {
            float *out[4];
            const bf16 *a[2];
            bool whole[2];
            int q[2]; /* first pixel, in rows of `pitch` */
            for (int h = 0; h < 2; h++) {
                int i = t + h < tiles ? t + h : t, r = p->flat ? i * 16 / pitch : i / across;
                int x = p->flat ? i * 16 % pitch : i % across * 16;
                if (!p->flat && x + 16 > to->cols && to->cols >= 16) x = to->cols - 16;
                q[h] = r * pitch + x;
                a[h] = xb + (size_t)r * p->row + (size_t)(x * p->px);
                whole[h] = x + 16 <= to->cols;
                for (int o = 0; o < 2; o++)
                    out[h * 2 + o] = whole[h] && ob + o < to->n_store ? to->y + (size_t)(ob + o) * to->ob_stride +
                                                                            (size_t)r * to->row_stride + (size_t)x * 16
                                                                      : small[h * 2 + o];
            }
            multiply(p, a[0], a[1], wb + (size_t)ob * wn, wb + (size_t)(ob + 1) * wn, bias + ob * 16, out);
            for (int i = 0; i < 4; i++)
                if (!whole[i / 2] && ob + i % 2 < to->n_store) scatter(p, small[i], q[i / 2], ob + i % 2, to);
        }
    }
}

/* Sums of a block's outputs for the statistics, see conv_stats.h. */
static void block_sums(const sink *to, float *part) {
    for (int ob = 0; ob < to->n_store; ob++, part += DR_SUMS) {
        const float *y = to->y + (size_t)ob * to->ob_stride;
        __m512 first = _mm512_loadu_ps(y), s[4], q[4];
        for (int i = 0; i < 4; i++) s[i] = q[i] = _mm512_setzero_ps();
        for (int r = 0; r < to->rows; r++, y += to->row_stride)
            for (int x = 0; x < to->cols; x++) {
                __m512 d = _mm512_sub_ps(_mm512_loadu_ps(y + x * 16), first);
                s[x & 3] = _mm512_add_ps(s[x & 3], d);
                q[x & 3] = _mm512_fmadd_ps(d, d, q[x & 3]);
            }
        _mm512_storeu_ps(part, first);
        _mm512_storeu_ps(part + 16, _mm512_add_ps(_mm512_add_ps(s[0], s[1]), _mm512_add_ps(s[2], s[3])));
        _mm512_storeu_ps(part + 32, _mm512_add_ps(_mm512_add_ps(q[0], q[1]), _mm512_add_ps(q[2], q[3])));
    }
}

/* y(o,row,x) = b + sum over kx of z(row, x+kx, kx*oc+o), row by row through planar zt. y is the block's first output.
 */
static void gather_few(const amx_plan *p, int rows, int cols, const float *z, const float *b, float *y, float *zt) {
    const dr_amx_conv *c = p->c;
    int pitch = zt_pitch(p);
    for (int r = 0; r < rows; r++) {
        for (int ob = 0; ob * 16 < c->oc * c->k; ob++)
            for (int x = 0; x < p->in_cols; x += 16) {
                const float *from = z + (size_t)ob * p->z_block + (size_t)(r * p->in_cols + x) * 16;
                __m512i v[16];
                for (int i = 0; i < 16; i++) v[i] = _mm512_loadu_si512(from + i * 16);
                transpose16(v);
                for (int i = 0; i < 16; i++) _mm512_storeu_si512(zt + (ob * 16 + i) * pitch + x, v[i]);
            }
        for (int o = 0; o < c->oc; o++) {
            float *t = y + ((size_t)o * (size_t)p->oh + (size_t)r) * (size_t)p->ow;
            for (int x = 0; x < cols; x++) t[x] = b ? b[o] : 0;
            for (int kx = 0; kx < c->k; kx++) {
                const float *from = zt + (kx * c->oc + o) * pitch + kx;
                for (int x = 0; x < cols; x++) t[x] += from[x];
            }
        }
    }
}

void dr_amx_conv_run(const dr_amx_conv *conv, const float *x, const void *prepared, const float *b, float *y,
                     void *scratch) {
    dr_amx_conv copy = *conv, *c = &copy;
    if (c->then == DR_THEN_NONE) c->rh = c->ih, c->rw = c->iw;
    amx_plan plan = plan_of(c);
    const amx_plan *p = &plan;
    bool out = few(c->oc);
    int blocks = p->n_y * p->n_x;
    float *bias = scratch;
    int *counts = (int *)(void *)((char *)scratch + round64((size_t)p->n_ob * 64));
    float *part = (float *)(void *)((char *)counts + round64((size_t)blocks * sizeof(int)));
    char *own = (char *)counts + part_bytes(p);
    memset(bias, 0, (size_t)p->n_ob * 64);
    if (b && !out) memcpy(bias, b, (size_t)c->oc * sizeof *b);
#pragma omp parallel
    {
        bf16 *xb = (bf16 *)(void *)(own + (size_t)omp_get_thread_num() * (p->x_bytes + p->t_bytes + p->z_bytes));
        float *tmp = (float *)(void *)((char *)xb + p->x_bytes), *z = tmp + p->t_bytes / sizeof(float);
        memset((char *)xb + p->x_bytes - 64 * 32, 0, 64 * 32);
        tiles_on();
#pragma omp for schedule(dynamic, 1)
        for (int i = 0; i < c->n * blocks; i++) {
            int n = i / blocks, y0 = i % blocks / p->n_x * p->rows, x0 = i % p->n_x * p->cols;
            int rows = p->oh - y0 < p->rows ? p->oh - y0 : p->rows, cols = p->ow - x0 < p->cols ? p->ow - x0 : p->cols;
            const float *xn = x + (size_t)n * (size_t)c->ic * (size_t)(few(c->ic) ? c->ih * c->iw : c->rh * c->rw);
            float *yn = y + (size_t)n * (size_t)c->oc * (size_t)p->oh * (size_t)p->ow;
            amx_rows(p, xn, n, y0, x0, xb, tmp);
            if (out) {
                sink to = {z, p->z_block, (size_t)p->in_cols * 16, p->n_ob, rows, p->in_cols};
                block_run(p, xb, prepared, bias, &to);
                gather_few(p, rows, cols, z, b, yn + (size_t)y0 * (size_t)p->ow + (size_t)x0,
                           z + (size_t)p->n_ob * p->z_block);
                continue;
            }
            size_t row = (size_t)p->ow * 16;
            sink to = {yn + (size_t)y0 * row + (size_t)x0 * 16, (size_t)p->oh * row, row, c->oc / 16, rows, cols};
            block_run(p, xb, prepared, bias, &to);
            if (!c->out_stats) continue;
            block_sums(&to, part + (size_t)i * (size_t)c->oc * 3);
            if (n == 0) counts[i] = rows * cols;
        }
        _tile_release();
    }
    if (c->out_stats) dr_conv_stats(c->n, c->oc, blocks, counts, part, c->eps, c->out_stats);
}
