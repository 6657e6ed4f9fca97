/* amx_dw.c - the backward-weights convolution on AMX, see amx.h.
 *
 * dw(o,c,ky,kx) = sum over pixels p of dy(o,p) x(c, p+tap): K is the pixels. A tile of A is 16 channels x 32 pixels of
 * a row of x, kept planar in bf16 so that a tap is just an address; a tile of B is 32 pixels x 16 outputs of dy, in
 * pairs of pixels. Rows of dy are filled with zeros to a multiple of 32 pixels, those of x to what the taps can reach.
 * The pictures are taken in chunks of rows whose two conversions fit the caches; a unit of work is 32 channels x 32
 * outputs x one tap, and its four tiles wait in memory between chunks.
 *
 * Few planar channels on the x side: the taps of a row take the place of channels, (kx, c), as in amx.c. */
#include "core/cpu/amx_kern.h"
#include <omp.h>

typedef struct plan {
    const dr_amx_conv *c;
    bool in;
    int oh, ow, ow32;
    int n_c, n_o; /* channels of x (virtual for few) and outputs, in multiples of 32 */
    int kw, taps;
    int pitch, rows, chunks;
    size_t plane; /* pixels between channels of the planar x */
    size_t x_bytes, y_bytes, acc_bytes;
} plan;

static plan plan_of(const dr_amx_conv *c) {
    plan p = {.c = c, .in = c->ic % 16 != 0, .oh = c->ih + 2 * c->pad - c->k + 1, .ow = c->iw + 2 * c->pad - c->k + 1};
    p.ow32 = up(p.ow, 32);
    p.n_c = p.in ? 32 : up(c->ic, 32);
    p.n_o = up(c->oc, 32);
    p.kw = p.in ? 1 : c->k;
    p.taps = c->k * p.kw;
    p.pitch = p.ow32 + 32;
    size_t row = ((size_t)p.n_c * (size_t)p.pitch + (size_t)p.n_o * (size_t)p.ow32) * sizeof(bf16);
    p.rows = (int)((size_t)(1 << 20) / row);
    if (p.rows < 4) p.rows = 4;
    if (p.rows > p.oh) p.rows = p.oh;
    p.chunks = (p.oh + p.rows - 1) / p.rows;
    p.rows = (p.oh + p.chunks - 1) / p.chunks;
    p.chunks = (p.oh + p.rows - 1) / p.rows;
    size_t lines = (size_t)(p.rows + c->k - 1) * (size_t)p.pitch / 32;
    p.plane = (lines | 1) * 32; /* odd: channels of a tile fall into different cache sets */
    p.x_bytes = (size_t)p.n_c * p.plane * sizeof(bf16);
    p.y_bytes = (size_t)p.n_o * (size_t)p.rows * (size_t)p.ow32 * sizeof(bf16);
    p.acc_bytes = (size_t)p.n_c * (size_t)p.n_o * (size_t)p.taps * sizeof(float);
    return p;
}

size_t dr_amx_dw_scratch(const dr_amx_conv *c) {
    plan p = plan_of(c);
    return p.x_bytes + p.y_bytes + p.acc_bytes;
}

/* 16x16 of 32 bits. */
static void transpose16(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/* One row of 16 channels of x (pixels of 16 floats, or NULL for a row of padding) to planar rows `plane` apart. */
static void x_row(const plan *p, const float *x, bf16 *to) {
    const __m512 zero = _mm512_setzero_ps();
    int pad = p->c->pad, iw = x ? p->c->iw : 0;
    for (int g = 0; g < p->pitch; g += 32) {
        __m512i r[16];
        for (int i = 0; i < 16; i++) {
            int q = g + 2 * i - pad;
            r[i] = to_pairs(q >= 0 && q < iw ? _mm512_loadu_ps(x + (ptrdiff_t)q * 16) : zero,
                            q + 1 >= 0 && q + 1 < iw ? _mm512_loadu_ps(x + (ptrdiff_t)(q + 1) * 16) : zero);
        }
        transpose16(r);
        for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + (size_t)i * p->plane + g, r[i]);
    }
}

/* One row of virtual channel (kx, ch) of planar x, or of zeros. */
static void x_row_few(const plan *p, const float *x, int kx, bf16 *to) {
    for (int g = 0; g < p->pitch; g += 32) {
        float v[32];
        for (int i = 0; i < 32; i++) {
            int q = g + i + kx - p->c->pad;
            v[i] = x && q >= 0 && q < p->c->iw ? x[q] : 0;
        }
        _mm512_storeu_si512(to + g, to_bf16(_mm512_loadu_ps(v), _mm512_loadu_ps(v + 16)));
    }
}

/* One row of 16 outputs of dy to pairs of pixels. */
static void y_row(const plan *p, const float *dy, bf16 *to) {
    const __m512 zero = _mm512_setzero_ps();
    for (int q = 0; q < p->ow32; q += 2)
        _mm512_storeu_si512(to + q * 16, to_pairs(dy && q < p->ow ? _mm512_loadu_ps(dy + q * 16) : zero,
                                                  dy && q + 1 < p->ow ? _mm512_loadu_ps(dy + q * 16 + 16) : zero));
}

static void convert_x(const plan *p, const float *x, int y0, int rows, int block, bf16 *xp) {
    const dr_amx_conv *c = p->c;
    size_t hw = (size_t)c->ih * (size_t)c->iw;
    for (int r = 0; r < rows; r++) {
        int y = y0 + r - c->pad;
        bool inside = y >= 0 && y < c->ih;
        bf16 *to = xp + (size_t)(block * 16) * p->plane + (size_t)r * (size_t)p->pitch;
        if (!p->in) {
            inside = inside && block * 16 < c->ic;
            x_row(p, inside ? x + ((size_t)block * hw + (size_t)y * (size_t)c->iw) * 16 : NULL, to);
            continue;
        }
        for (int l = 0; l < 16; l++) {
            int v = block * 16 + l, ch = v % c->ic, kx = v / c->ic;
            bool real = inside && kx < c->k;
            x_row_few(p, real ? x + (size_t)ch * hw + (size_t)y * (size_t)c->iw : NULL, kx, to + (size_t)l * p->plane);
        }
    }
}

static void convert_y(const plan *p, const float *dy, int y0, int rows, int block, bf16 *yp) {
    for (int r = 0; r < rows; r++) {
        bool real = block * 16 < p->c->oc;
        y_row(p, real ? dy + (((size_t)block * (size_t)p->oh + (size_t)(y0 + r)) * (size_t)p->ow) * 16 : NULL,
              yp + ((size_t)block * (size_t)p->rows + (size_t)r) * (size_t)p->ow32 * 16);
    }
}

/* 32 channels x 32 outputs for one tap over the rows of a chunk; acc holds 4 tiles. */
static void unit(const plan *p, const bf16 *x, const bf16 *dy, int rows, bool first, float *acc) {
    size_t ld = p->plane * sizeof(bf16), half = 16 * p->plane, y_half = (size_t)p->rows * (size_t)p->ow32 * 16;
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
    for (int r = 0; r < rows; r++, x += p->pitch, dy += p->ow32 * 16)
        for (int q = 0; q < p->ow32; q += 32) {
            _tile_loadd(4, x + q, ld);
            _tile_loadd(6, dy + q * 16, 64);
            _tile_loadd(5, x + half + q, ld);
            _tile_loadd(7, dy + y_half + q * 16, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
    _tile_stored(0, acc, 64);
    _tile_stored(1, acc + 256, 64);
    _tile_stored(2, acc + 512, 64);
    _tile_stored(3, acc + 768, 64);
}

/* Element (c, o) of the 32x32 block that starts at `acc`. */
static float element(const float *acc, int c, int o) {
    return acc[(size_t)((c / 16 * 2 + o / 16) * 256 + c % 16 * 16 + o % 16)];
}

/* dw += the block of channels cb*32.. and outputs ob*32... */
static void add_block(const plan *p, const float *acc, int cb, int ob, float *dw) {
    const dr_amx_conv *c = p->c;
    int k = c->k, kk = k * k, n_c = p->in ? c->ic * k : c->ic;
    for (int o = 0; o < 32 && ob * 32 + o < c->oc; o++)
        for (int l = 0; l < 32 && cb * 32 + l < n_c; l++) {
            int oo = ob * 32 + o, v = cb * 32 + l;
            for (int t = 0; t < p->taps; t++) {
                int ch = p->in ? v % c->ic : v, ky = p->in ? t : t / k, kx = p->in ? v / c->ic : t % k;
                int tap = ky * k + kx;
                size_t at = c->flip ? (size_t)(ch * c->oc + oo) * (size_t)kk + (size_t)(kk - 1 - tap)
                                    : (size_t)(oo * c->ic + ch) * (size_t)kk + (size_t)tap;
                dw[at] += element(acc + (size_t)t * 1024, l, o);
            }
        }
}

void dr_amx_dw_run(const dr_amx_conv *c, const float *x, const float *dy, float *dw, void *scratch) {
    plan plan_ = plan_of(c);
    const plan *p = &plan_;
    bf16 *xp = scratch, *yp = (bf16 *)(void *)((char *)scratch + p->x_bytes);
    float *acc = (float *)(void *)((char *)scratch + p->x_bytes + p->y_bytes);
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
                    convert_x(p, xn, y0, rows + c->k - 1, b, xp);
                else
                    convert_y(p, yn, y0, rows, b - 2 * nc, yp);
            }
#pragma omp for schedule(dynamic, 1)
            for (int u = 0; u < nc * no * p->taps; u++) {
                int t = u % p->taps, ob = u / p->taps % no, cb = u / p->taps / no;
                const bf16 *xu = xp + (size_t)(cb * 32) * p->plane + (size_t)(t / p->kw) * (size_t)p->pitch + t % p->kw;
                const bf16 *yu = yp + (size_t)(ob * 32) * (size_t)p->rows * (size_t)p->ow32;
                unit(p, xu, yu, rows, i == 0, acc + (size_t)u * 1024);
            }
        }
        _tile_release();
#pragma omp for schedule(dynamic, 1)
        for (int u = 0; u < nc * no; u++) add_block(p, acc + (size_t)(u * p->taps) * 1024, u / no, u % no, dw);
    }
}
