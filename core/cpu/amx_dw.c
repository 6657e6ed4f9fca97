/* amx_dw.c - the backward-weights convolution on AMX, see amx.h.
 *
 * dw(o,c,ky,kx) = sum over pixels p of dy(o,p) x(c, p+tap): K is the pixels. A tile of A is 16 outputs x 32 pixels of
 * dy, turned planar; a tile of B is 32 pixels of x in pairs x 16 channels. A tap must move x by whole pairs, so x is
 * kept twice, in pairs (0,1)(2,3).. for even kx and (1,2)(3,4).. for odd; then every tile is one aligned kilobyte.
 * Rows of dy are filled with zeros to a multiple of 32 pixels, those of x to what the taps can reach.
 * The pictures are taken in chunks of rows that fit the second-level cache; a unit of work is 32 channels x 32
 * outputs x one tap, and its four tiles wait in memory between chunks.
 *
 * Few planar channels on the x side: the taps of a row take the place of channels, (kx, c), as in amx.c. */
#include "core/cpu/amx_kern.h"
#include <omp.h>

typedef struct plan {
    const dr_amx_conv *c;
    bool in;
    int parts, oh, ow, ow32;
    int n_c, n_o; /* channels of x (virtual for few) and outputs, in multiples of 32 */
    int kw, taps, copies;
    int pairs, rows, x_rows, chunks; /* pairs in a row of x, rows of dy and of x in a chunk */
    int few_row;                     /* bf16 of an interleaved row */
    size_t copy;                     /* bf16 of one copy of x */
    size_t x_part, y_part;           /* between the parts of x and of dy */
    size_t x_bytes, y_bytes, acc_bytes;
} plan;

static plan plan_of(const dr_amx_conv *c) {
    plan p = {.c = c, .in = c->ic % 16 != 0, .oh = c->ih + 2 * c->pad - c->k + 1, .ow = c->iw + 2 * c->pad - c->k + 1};
    p.parts = c->split ? 2 : 1;
    p.ow32 = up(p.ow, 32);
    p.n_c = p.in ? 32 : up(c->ic, 32);
    p.n_o = up(c->oc, 32);
    p.kw = p.in ? 1 : c->k;
    p.taps = c->k * p.kw;
    p.copies = p.kw > 1 ? 2 : 1;
    p.pairs = p.ow32 / 2 + p.kw / 2;
    size_t row = (size_t)(32 * p.pairs * p.copies * 2 + p.n_o * p.ow32) * (size_t)p.parts *
                 sizeof(bf16); /* what a unit of work touches */
    p.rows = (int)((size_t)(1 << 20) / row);
    if (p.rows < 4) p.rows = 4;
    if (p.rows > p.oh) p.rows = p.oh;
    p.chunks = (p.oh + p.rows - 1) / p.rows;
    p.rows = (p.oh + p.chunks - 1) / p.chunks;
    p.chunks = (p.oh + p.rows - 1) / p.rows;
    p.x_rows = p.rows + c->k - 1;
    p.few_row = p.in ? up(2 * p.pairs * c->ic + 64, 32) : 0;
    p.copy = (size_t)p.n_c * (size_t)p.x_rows * (size_t)p.pairs * 2;
    p.x_part = (size_t)p.copies * p.copy;
    p.y_part = (size_t)p.n_o * (size_t)p.rows * (size_t)p.ow32;
    p.x_bytes = (size_t)p.parts * p.x_part * sizeof(bf16);
    p.y_bytes = (size_t)p.parts * p.y_part * sizeof(bf16);
    p.acc_bytes = (size_t)p.n_c * (size_t)p.n_o * (size_t)p.taps * sizeof(float);
    return p;
}

size_t dr_amx_dw_scratch(const dr_amx_conv *c, int threads) {
    plan p = plan_of(c);
    return p.x_bytes + p.y_bytes + p.acc_bytes + (size_t)(threads * p.parts * p.few_row) * sizeof(bf16);
}

static __m512 pixel(const float *x, int at, int n) {
    return at >= 0 && at < n ? _mm512_loadu_ps(x + (ptrdiff_t)at * 16) : _mm512_setzero_ps();
}

/* One row of 16 channels of x (`iw` pixels of 16 floats; 0 for a row of padding) to pairs that start at `shift`. */
static void x_row(const plan *p, const float *x, int iw, int shift, bf16 *to) {
    int at = shift - p->c->pad;
    for (int j = 0; j < p->pairs; j++, at += 2, to += 32) {
        __m512 a, b;
        if (at >= 0 && at < iw - 1)
            a = _mm512_loadu_ps(x + at * 16), b = _mm512_loadu_ps(x + at * 16 + 16);
        else
            a = pixel(x, at, iw), b = pixel(x, at + 1, iw);
        __m512i v = to_bf16(a, b);
        _mm512_storeu_si512(to, pairs(v));
        if (p->parts > 1) _mm512_storeu_si512(to + p->x_part, pairs(rest(a, b, v)));
    }
}

/* Virtual channels block*16.. = (kx, ch): those of a pixel are neighbours in a row of interleaved planar x. */
static void x_row_few(const plan *p, const bf16 *row, int block, bf16 *to) {
    int ic = p->c->ic;
    row += block * 16;
    for (int j = 0; j < p->pairs; j++, row += 2 * ic, to += 32)
        _mm512_storeu_si512(to,
                            zip16(_mm256_loadu_si256((const void *)row), _mm256_loadu_si256((const void *)(row + ic))));
}

static void convert_x(const plan *p, const float *x, int y0, int block, int rows, bf16 *xp, bf16 *few_row) {
    const dr_amx_conv *c = p->c;
    for (int r = 0; r < rows; r++) {
        int y = y0 + r - c->pad;
        bool inside = y >= 0 && y < c->ih;
        bf16 *to = xp + ((size_t)block * (size_t)p->x_rows + (size_t)r) * (size_t)p->pairs * 32;
        if (p->in) {
            interleave(c, inside ? x + (size_t)y * (size_t)c->iw : NULL, -c->pad, p->few_row, few_row,
                       p->parts > 1 ? (size_t)p->few_row : 0);
            for (int i = 0; i < p->parts; i++)
                x_row_few(p, few_row + i * p->few_row, block, to + (size_t)i * p->x_part);
            continue;
        }
        bool real = inside && block * 16 < c->ic;
        const float *from = real ? x + ((size_t)block * (size_t)c->ih + (size_t)y) * (size_t)c->iw * 16 : NULL;
        for (int k = 0; k < p->copies; k++) x_row(p, from, real ? c->iw : 0, k, to + (size_t)k * p->copy);
    }
}

/* 16 outputs of dy to tiles of 16 outputs x 32 pixels. */
static void convert_y(const plan *p, const float *dy, int y0, int block, int rows, bf16 *yp) {
    bool real = block * 16 < p->c->oc;
    for (int r = 0; r < rows; r++) {
        const float *from = real ? dy + ((size_t)block * (size_t)p->oh + (size_t)(y0 + r)) * (size_t)p->ow * 16 : NULL;
        bf16 *to = yp + ((size_t)block * (size_t)p->rows + (size_t)r) * (size_t)p->ow32 * 16;
        for (int g = 0; g < p->ow32; g += 32, to += TILE) {
            __m512i v[16], l[16];
            for (int i = 0; i < 16; i++) {
                int q = g + 2 * i;
                __m512 a = pixel(from, q, real ? p->ow : 0), b = pixel(from, q + 1, real ? p->ow : 0);
                __m512i u = to_bf16(a, b);
                v[i] = pairs(u);
                if (p->parts > 1) l[i] = pairs(rest(a, b, u));
            }
            transpose16(v);
            for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + i * 32, v[i]);
            if (p->parts == 1) continue;
            transpose16(l);
            for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + p->y_part + i * 32, l[i]);
        }
    }
}

static inline __attribute__((always_inline)) void step(void) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
}

/* 32 channels x 32 outputs for one tap over the rows of a chunk; acc holds 4 tiles. */
static void unit(const plan *p, const bf16 *x, const bf16 *dy, int rows, bool first, float *acc) {
    size_t x_half = (size_t)p->x_rows * (size_t)p->pairs * 32, y_half = (size_t)p->rows * (size_t)p->ow32 * 16;
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, acc, 64);
        _tile_loadd(1, acc + 256, 64);
        _tile_loadd(2, acc + 512, 64);
        _tile_loadd(3, acc + 768, 64);
    }
    for (int r = 0; r < rows; r++, x += p->pairs * 32)
        for (int q = 0; q < p->ow32; q += 32, dy += TILE) {
            const bf16 *xq = x + q * 16;
            _tile_loadd(4, dy, 64);
            _tile_loadd(5, dy + y_half, 64);
            if (p->parts > 1) {
                _tile_loadd(6, xq + p->x_part, 64);
                _tile_loadd(7, xq + x_half + p->x_part, 64);
                step();
            }
            _tile_loadd(6, xq, 64);
            _tile_loadd(7, xq + x_half, 64);
            step();
            if (p->parts > 1) {
                _tile_loadd(4, dy + p->y_part, 64);
                _tile_loadd(5, dy + y_half + p->y_part, 64);
                step();
            }
        }
    _tile_stored(0, acc, 64);
    _tile_stored(1, acc + 256, 64);
    _tile_stored(2, acc + 512, 64);
    _tile_stored(3, acc + 768, 64);
}

/* Element (c, o) of the 32x32 block that starts at `acc`. */
static float element(const float *acc, int c, int o) {
    return acc[(size_t)((o / 16 * 2 + c / 16) * 256 + o % 16 * 16 + c % 16)];
}

/* dw += the block of channels cb*32.. and outputs ob*32.., few input channels. */
static void add_block_few(const plan *p, const float *acc, int ob, float *dw) {
    const dr_amx_conv *c = p->c;
    int k = c->k, kk = k * k;
    for (int o = ob * 32; o < ob * 32 + 32 && o < c->oc; o++)
        for (int v = 0; v < c->ic * k; v++)
            for (int ky = 0; ky < k; ky++) {
                int ch = v % c->ic, tap = ky * k + v / c->ic;
                size_t at = c->flip ? (size_t)(ch * c->oc + o) * (size_t)kk + (size_t)(kk - 1 - tap)
                                    : (size_t)(o * c->ic + ch) * (size_t)kk + (size_t)tap;
                dw[at] += element(acc + (size_t)ky * 1024, v, o % 32);
            }
}

/* The same for channels in blocks: dw of one output and 32 channels is contiguous, (channel, tap); each 16 of it are
 * gathered from the tiles at the same places for every output. */
static void add_block(const plan *p, const float *acc, int cb, int ob, float *dw) {
    const dr_amx_conv *c = p->c;
    int32_t at[32 * 49];
    int n_c = c->ic - cb * 32 < 32 ? c->ic - cb * 32 : 32, n = n_c * p->taps; /* n_c is 16 or 32, n a multiple of 16 */
    for (int l = 0, i = 0; l < n_c; l++)
        for (int t = 0; t < p->taps; t++) at[i++] = t * 1024 + l / 16 * 256 + l % 16;
    for (int o = 0; o < 32 && ob * 32 + o < c->oc; o++) {
        const float *from = acc + o / 16 * 512 + o % 16 * 16;
        float *to = dw + ((size_t)(ob * 32 + o) * (size_t)c->ic + (size_t)(cb * 32)) * (size_t)p->taps;
        for (int i = 0; i < n; i += 16) {
            __m512 v = _mm512_i32gather_ps(_mm512_loadu_si512(at + i), from, 4);
            _mm512_storeu_ps(to + i, _mm512_add_ps(_mm512_loadu_ps(to + i), v));
        }
    }
}

void dr_amx_dw_run(const dr_amx_conv *c, const float *x, const float *dy, float *dw, void *scratch) {
    plan plan_ = plan_of(c);
    const plan *p = &plan_;
    bf16 *xp = scratch, *yp = (bf16 *)(void *)((char *)scratch + p->x_bytes);
    float *acc = (float *)(void *)((char *)scratch + p->x_bytes + p->y_bytes);
    bf16 *few_row = (bf16 *)(void *)((char *)acc + p->acc_bytes); /* one for each thread */
    int nc = p->n_c / 32, no = p->n_o / 32;
#pragma omp parallel
    {
        tiles_on();
        for (int i = 0; i < c->n * p->chunks; i++) {
            int n = i / p->chunks, y0 = i % p->chunks * p->rows, rows = p->oh - y0 < p->rows ? p->oh - y0 : p->rows;
            const float *xn = x + (size_t)n * (size_t)c->ic * (size_t)c->ih * (size_t)c->iw;
            const float *yn = dy + (size_t)n * (size_t)c->oc * (size_t)p->oh * (size_t)p->ow;
#pragma omp for schedule(dynamic, 1)
            for (int b = 0; b < 2 * (nc + no); b++) {
                if (b < 2 * nc)
                    convert_x(p, xn, y0, b, rows + c->k - 1, xp,
                              few_row + (size_t)(omp_get_thread_num() * p->parts * p->few_row));
                else
                    convert_y(p, yn, y0, b - 2 * nc, rows, yp);
            }
#pragma omp for schedule(dynamic, 1)
            for (int u = 0; u < nc * no * p->taps; u++) {
                int t = u % p->taps, ob = u / p->taps % no, cb = u / p->taps / no;
                int ky = t / p->kw, kx = t % p->kw;
                const bf16 *xu = xp + (size_t)(kx % 2) * p->copy +
                                 ((size_t)(cb * 2 * p->x_rows + ky) * (size_t)p->pairs + (size_t)(kx / 2)) * 32;
                const bf16 *yu = yp + (size_t)(ob * 32) * (size_t)p->rows * (size_t)p->ow32;
                unit(p, xu, yu, rows, i == 0, acc + (size_t)u * 1024);
            }
        }
        _tile_release();
#pragma omp for schedule(dynamic, 1)
        for (int u = 0; u < nc * no; u++) {
            const float *from = acc + (size_t)(u * p->taps) * 1024;
            if (p->in)
                add_block_few(p, from, u, dw);
            else
                add_block(p, from, u / no, u % no, dw);
        }
    }
}
