/* amx.c - forward (and, on turned weights, backward-data) convolutions on AMX, see amx.h.
 *
 * A thread takes a band of output rows of one picture, converts the input rows that it needs to bf16 with the padding
 * written out, as [channel block of 32][row][pixel][32], and multiplies: a tile of A is 16 pixels x 32 channels, a
 * tile of B 32 channels x 16 outputs, C is 16 pixels x 16 outputs and so exactly 16 pixels of nChw16c. Four
 * accumulators (32 pixels x 32 outputs) run over all channel blocks and taps. Where the width is no multiple of 16,
 * either a row ends with a tile that overlaps the one before (the same pixels twice, with the same bits), or tiles run
 * on over the ends of rows, whichever takes fewer.
 *
 * Few input channels: K of a pixel is (kx, c), 7*3 of 32, and only rows are taps. With channels interleaved that is a
 * stretch of memory, so a tile's rows overlap: they start 3 numbers apart. Few output channels: N is (kx, o),
 * the kernel makes z(pixel, kx, o) for one row of taps at a time, and y(x) is the sum of z(x+kx, kx). */
#include "core/cpu/amx_kern.h"
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

static bool few(int c) {
    return c % 16 != 0;
}

bool dr_amx_takes(const dr_amx_conv *c) {
    if (few(c->ic) && few(c->oc)) return false;
    if (c->pad < 0 || c->pad >= c->k || c->k > 7) return false;
    return !(few(c->ic) && c->ic * c->k > 32) && !(few(c->oc) && c->oc * c->k > 32);
}

/* The convolution as the kernel sees it. */
typedef struct plan {
    const dr_amx_conv *c;
    int oh, ow;             /* of the convolution */
    int kw, n_cb, n_ob;     /* taps in a row, blocks of 32 inputs and (even number of) blocks of 16 outputs */
    int width;              /* outputs of the kernel in a row: ow, or the padded input width for few outputs */
    int pitch, rows, bands; /* band buffer: pixels in a row, output rows in a band */
    int px;                 /* bf16 between pixels there: 32, or few */
    size_t row, block;      /* between rows and channel blocks */
    bool flat;              /* tiles run on over the ends of rows */
    size_t z_block;         /* floats between blocks of z */
    size_t w_bytes, x_bytes, z_bytes;
} plan;

/* z of one row, planar. */
static int zt_pitch(const plan *p) {
    return up(p->width, 16);
}
static size_t zt_bytes(const plan *p) {
    return (size_t)p->n_ob * 16 * (size_t)zt_pitch(p) * sizeof(float);
}

static plan plan_of(const dr_amx_conv *c) {
    plan p = {.c = c, .oh = c->ih + 2 * c->pad - c->k + 1, .ow = c->iw + 2 * c->pad - c->k + 1};
    bool in = few(c->ic), out = few(c->oc);
    p.kw = in || out ? 1 : c->k;
    p.n_cb = in ? 1 : (c->ic + 31) / 32;
    p.n_ob = up(out ? up(c->oc * c->k, 16) / 16 : c->oc / 16, 2);
    p.width = out ? c->iw + 2 * c->pad : p.ow;
    p.pitch = c->iw + 2 * c->pad;
    p.px = in ? c->ic : 32;
    p.row = (size_t)(in ? interleaved(c, p.pitch + 16) : p.pitch * 32);
    /* at least 256 pixels a band, at most half a megabyte: a function of the shape only */
    size_t row = (size_t)p.n_cb * p.row * sizeof(bf16);
    p.rows = (256 + p.width - 1) / p.width;
    if (row * (size_t)p.rows < 128 << 10) p.rows = (int)((128 << 10) / row);
    if (p.rows < 4) p.rows = 4;
    if (p.rows > p.oh) p.rows = p.oh;
    p.bands = (p.oh + p.rows - 1) / p.rows;
    p.rows = (p.oh + p.bands - 1) / p.bands;
    p.bands = (p.oh + p.rows - 1) / p.rows;
    p.block = p.row * (size_t)(p.rows + c->k - 1);
    p.flat = !in && (p.rows * p.pitch - (p.pitch - p.width) + 15) / 16 < p.rows * ((p.width + 15) / 16);
    p.z_block = (size_t)(p.rows * p.width + 16) * 16;
    p.w_bytes = (size_t)p.n_ob * (size_t)p.n_cb * (size_t)(c->k * p.kw) * TILE * sizeof(bf16);
    /* tiles may read 16 pixels past the end */
    p.x_bytes = round64(row * (size_t)(p.rows + c->k - 1) + 64 * 32);
    p.z_bytes = out ? (size_t)p.n_ob * p.z_block * sizeof(float) + zt_bytes(&p) : 0;
    return p;
}

size_t dr_amx_conv_scratch(const dr_amx_conv *c, int threads) {
    plan p = plan_of(c);
    return p.w_bytes + round64((size_t)p.n_ob * 64) + (size_t)threads * (p.x_bytes + p.z_bytes);
}

/* ---- weights: [ob][cb][tap][16 pairs of channels][16 outputs][2] ---- */

/* Block `ob` of 16 outputs; all channels in multiples of 16. */
static void pack_blocked(const plan *p, const float *w, int ob, bf16 *to) {
    const dr_amx_conv *c = p->c;
    int kk = c->k * c->k;
    size_t lane = (size_t)(c->flip ? kk : c->ic * kk), step = (size_t)(c->flip ? c->oc * kk : kk);
    if (ob * 16 >= c->oc) ob = c->oc / 16 - 1; /* the odd block's partner: computed, not stored elsewhere */
    const __m512i at = _mm512_mullo_epi32(_mm512_set1_epi32((int)lane),
                                          _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
    const float *base = w + (size_t)(ob * 16) * lane;
    for (int cb = 0; cb < p->n_cb; cb++)
        for (int t = 0; t < kk; t++, to += TILE)
            for (int q = 0; q < 16; q++) {
                int ch = cb * 32 + 2 * q;
                __m512 a = _mm512_setzero_ps(), b = a;
                if (ch < c->ic) {
                    const float *s = base + (size_t)ch * step + (c->flip ? kk - 1 - t : t);
                    a = _mm512_i32gather_ps(at, s, 4);
                    b = _mm512_i32gather_ps(at, s + step, 4);
                }
                _mm512_storeu_si512(to + q * 32, to_pairs(a, b));
            }
}

/* Weight of the layer, by output, input and tap. */
static float weight(const dr_amx_conv *c, const float *w, int o, int i, int ky, int kx) {
    int k = c->k;
    if (c->flip)
        return w[((size_t)(i * c->oc + o) * (size_t)k + (size_t)(k - 1 - ky)) * (size_t)k + (size_t)(k - 1 - kx)];
    return w[((size_t)(o * c->ic + i) * (size_t)k + (size_t)ky) * (size_t)k + (size_t)kx];
}

static void pack_few(const plan *p, const float *w, int ob, bf16 *to) {
    const dr_amx_conv *c = p->c;
    bool in = few(c->ic);
    int n_k = in ? c->ic * c->k : c->ic, n_n = in ? c->oc : c->oc * c->k;
    for (int cb = 0; cb < p->n_cb; cb++)
        for (int ky = 0; ky < c->k; ky++, to += TILE)
            for (int q = 0; q < 16; q++) {
                float v[2][16] = {0};
                for (int h = 0; h < 2; h++)
                    for (int l = 0; l < 16; l++) {
                        int kk = cb * 32 + 2 * q + h, nn = ob * 16 + l;
                        if (kk >= n_k || nn >= n_n) continue;
                        v[h][l] = in ? weight(c, w, nn, kk % c->ic, ky, kk / c->ic)
                                     : weight(c, w, nn % c->oc, kk, ky, nn / c->oc);
                    }
                _mm512_storeu_si512(to + q * 32, to_pairs(_mm512_loadu_ps(v[0]), _mm512_loadu_ps(v[1])));
            }
}

/* ---- input rows: [cb][row][pixel][32], padding written out ---- */

static void band_blocked(const plan *p, const float *x, int y0, int rows, bf16 *to) {
    const dr_amx_conv *c = p->c;
    size_t plane = (size_t)c->ih * (size_t)c->iw * 16;
    const __m512 zero = _mm512_setzero_ps();
    for (int cb = 0; cb < p->n_cb; cb++)
        for (int r = 0; r < rows; r++) {
            bf16 *t = to + ((size_t)cb * (size_t)(p->rows + c->k - 1) + (size_t)r) * p->row;
            int y = y0 + r - c->pad;
            if (y < 0 || y >= c->ih) {
                memset(t, 0, (size_t)p->pitch * 64);
                continue;
            }
            const float *a = x + (size_t)(2 * cb) * plane + (size_t)y * (size_t)c->iw * 16, *b = a + plane;
            memset(t, 0, (size_t)c->pad * 64);
            t += c->pad * 32;
            if (cb * 32 + 16 < c->ic)
                for (int i = 0; i < c->iw; i++)
                    _mm512_storeu_si512(t + i * 32, to_bf16(_mm512_loadu_ps(a + i * 16), _mm512_loadu_ps(b + i * 16)));
            else
                for (int i = 0; i < c->iw; i++)
                    _mm512_storeu_si512(t + i * 32, to_bf16(_mm512_loadu_ps(a + i * 16), zero));
            memset(t + c->iw * 32, 0, (size_t)c->pad * 64);
        }
}

static void band_few(const plan *p, const float *x, int y0, int rows, bf16 *to) {
    const dr_amx_conv *c = p->c;
    for (int r = 0; r < rows; r++, to += p->row) {
        int y = y0 + r - c->pad;
        interleave(c, y >= 0 && y < c->ih ? x + (size_t)y * (size_t)c->iw : NULL, to, (int)p->row);
    }
}

/* ---- the work ---- */

/* 2x2 tiles over all of K: a0, a1 are the first pixels, b0, b1 the weights of two output blocks. */
static void multiply(const plan *p, const bf16 *a0, const bf16 *a1, const bf16 *b0, const bf16 *b1, const float *bias0,
                     const float *bias1, float *const out[4]) {
    size_t row = p->row, ld = (size_t)p->px * sizeof(bf16);
    _tile_loadd(0, bias0, 0);
    _tile_loadd(1, bias1, 0);
    _tile_loadd(2, bias0, 0);
    _tile_loadd(3, bias1, 0);
    for (int cb = 0; cb < p->n_cb; cb++, a0 += p->block, a1 += p->block)
        for (int ky = 0; ky < p->c->k; ky++)
            for (int kx = 0; kx < p->kw; kx++, b0 += TILE, b1 += TILE) {
                size_t at = (size_t)ky * row + (size_t)kx * 32;
                _tile_loadd(4, a0 + at, ld);
                _tile_loadd(6, b0, 64);
                _tile_loadd(5, a1 + at, ld);
                _tile_loadd(7, b1, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(3, 5, 7);
            }
    _tile_stored(0, out[0], 64);
    _tile_stored(1, out[1], 64);
    _tile_stored(2, out[2], 64);
    _tile_stored(3, out[3], 64);
}

/* Where the outputs of a band go: n_store blocks of 16 outputs, strides in floats. */
typedef struct sink {
    float *y;
    size_t ob_stride, row_stride;
    int n_store;
} sink;

/* Copy the outputs of a tile that starts at pixel `q` of the band (rows of `pitch` pixels) and does not lie in one row.
 */
static void scatter(const plan *p, const float *tile, int q, int rows, float *y, size_t row_stride) {
    for (int i = 0; i < 16; i++) {
        int r = (q + i) / p->pitch, x = (q + i) % p->pitch;
        if (r < rows && x < p->width) memcpy(y + (size_t)r * row_stride + (size_t)x * 16, tile + i * 16, 64);
    }
}

/* `rows` rows of outputs from a converted band. */
static void band_run(const plan *p, int rows, const bf16 *xb, const bf16 *wb, const float *bias, sink to) {
    int across = (p->width + 15) / 16;
    int tiles = p->flat ? (rows * p->pitch - (p->pitch - p->width) + 15) / 16 : rows * across;
    size_t w_block = (size_t)p->n_cb * (size_t)(p->c->k * p->kw) * TILE;
    float small[4][256] __attribute__((aligned(64)));
    for (int ob = 0; ob < p->n_ob; ob += 2) {
        for (int t = 0; t < tiles; t += 2) {
            float *out[4];
            const bf16 *a[2];
            bool whole[2];
            int q[2]; /* first pixel, in rows of `pitch` */
            for (int h = 0; h < 2; h++) {
                int i = t + h < tiles ? t + h : t, r = p->flat ? i * 16 / p->pitch : i / across;
                int x = p->flat ? i * 16 % p->pitch : i % across * 16;
                if (!p->flat && x + 16 > p->width && p->width >= 16) x = p->width - 16;
                q[h] = r * p->pitch + x;
                a[h] = xb + (size_t)r * p->row + (size_t)(x * p->px);
                whole[h] = x + 16 <= p->width;
                for (int o = 0; o < 2; o++)
                    out[h * 2 + o] = whole[h] && ob + o < to.n_store ? to.y + (size_t)(ob + o) * to.ob_stride +
                                                                           (size_t)r * to.row_stride + (size_t)x * 16
                                                                     : small[h * 2 + o];
            }
            multiply(p, a[0], a[1], wb + (size_t)ob * w_block, wb + (size_t)(ob + 1) * w_block, bias + ob * 16,
                     bias + ob * 16 + 16, out);
            for (int i = 0; i < 4; i++)
                if (!whole[i / 2] && ob + i % 2 < to.n_store)
                    scatter(p, small[i], q[i / 2], rows, to.y + (size_t)(ob + i % 2) * to.ob_stride, to.row_stride);
        }
    }
}

/* y(o,row,x) = b + sum over kx of z(row, x+kx, kx*oc+o), row by row through planar zt. */
static void gather_few(const plan *p, int rows, const float *z, const float *b, float *y, int y0, float *zt) {
    const dr_amx_conv *c = p->c;
    int pitch = zt_pitch(p);
    for (int r = 0; r < rows; r++) {
        for (int ob = 0; ob * 16 < c->oc * c->k; ob++)
            for (int x = 0; x < p->width; x += 16) {
                const float *from = z + (size_t)ob * p->z_block + (size_t)(r * p->width + x) * 16;
                __m512i v[16];
                for (int i = 0; i < 16; i++) v[i] = _mm512_loadu_si512(from + i * 16);
                transpose16(v);
                for (int i = 0; i < 16; i++) _mm512_storeu_si512(zt + (ob * 16 + i) * pitch + x, v[i]);
            }
        for (int o = 0; o < c->oc; o++) {
            float *t = y + ((size_t)o * (size_t)p->oh + (size_t)(y0 + r)) * (size_t)p->ow;
            for (int x = 0; x < p->ow; x++) t[x] = b ? b[o] : 0;
            for (int kx = 0; kx < c->k; kx++) {
                const float *from = zt + (kx * c->oc + o) * pitch + kx;
                for (int x = 0; x < p->ow; x++) t[x] += from[x];
            }
        }
    }
}

void dr_amx_conv_run(const dr_amx_conv *c, const float *x, const float *w, const float *b, float *y, void *scratch) {
    plan plan_ = plan_of(c);
    const plan *p = &plan_;
    bool in = few(c->ic), out = few(c->oc);
    bf16 *wb = scratch;
    float *bias = (float *)(void *)((char *)scratch + p->w_bytes);
    char *own = (char *)bias + round64((size_t)p->n_ob * 64);
    size_t w_block = (size_t)p->n_cb * (size_t)(c->k * p->kw) * TILE;
    memset(bias, 0, (size_t)p->n_ob * 64);
    if (b && !out) memcpy(bias, b, (size_t)c->oc * sizeof *b);
#pragma omp parallel
    {
        bf16 *xb = (bf16 *)(void *)(own + (size_t)omp_get_thread_num() * (p->x_bytes + p->z_bytes));
        float *z = (float *)(void *)((char *)xb + p->x_bytes);
        memset((char *)xb + p->x_bytes - 64 * 32, 0, 64 * 32);
#pragma omp for schedule(dynamic, 1)
        for (int ob = 0; ob < p->n_ob; ob++) {
            if (in || out)
                pack_few(p, w, ob, wb + (size_t)ob * w_block);
            else
                pack_blocked(p, w, ob, wb + (size_t)ob * w_block);
        }
        tiles_on();
#pragma omp for schedule(dynamic, 1)
        for (int i = 0; i < c->n * p->bands; i++) {
            int n = i / p->bands, y0 = i % p->bands * p->rows, rows = p->oh - y0 < p->rows ? p->oh - y0 : p->rows;
            const float *xn = x + (size_t)n * (size_t)c->ic * (size_t)c->ih * (size_t)c->iw;
            float *yn = y + (size_t)n * (size_t)c->oc * (size_t)p->oh * (size_t)p->ow;
            if (in)
                band_few(p, xn, y0, rows + c->k - 1, xb);
            else
                band_blocked(p, xn, y0, rows + c->k - 1, xb);
            if (out) {
                band_run(p, rows, xb, wb, bias, (sink){z, p->z_block, (size_t)p->width * 16, p->n_ob});
                gather_few(p, rows, z, b, yn, y0, z + (size_t)p->n_ob * p->z_block);
            } else {
                size_t row = (size_t)p->ow * 16;
                band_run(p, rows, xb, wb, bias, (sink){yn + (size_t)y0 * row, (size_t)p->oh * row, row, c->oc / 16});
            }
        }
        _tile_release();
    }
}
