/* amx.c - forward (and, on turned weights, backward-data) convolutions on AMX, see amx.h.
 *
 * A thread takes a band of output rows of one picture, converts the input rows that it needs to bf16 with the padding
 * written out, as [channel block of 32][row][pixel][32], and multiplies: a tile of A is 16 pixels x 32 channels, a
 * tile of B 32 channels x 16 outputs, C is 16 pixels x 16 outputs and so exactly 16 pixels of nChw16c. Four
 * accumulators (32 pixels x 32 outputs) run over all channel blocks and taps. A row whose width is no multiple of 16
 * ends with a tile that overlaps the one before: the same pixels twice, with the same bits.
 *
 * Few input channels: K of a pixel is (kx, c), 7*3 of 32, and only rows are taps. Few output channels: N is (kx, o),
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
    size_t w_bytes, x_bytes, z_bytes;
} plan;

static plan plan_of(const dr_amx_conv *c) {
    plan p = {.c = c, .oh = c->ih + 2 * c->pad - c->k + 1, .ow = c->iw + 2 * c->pad - c->k + 1};
    bool in = few(c->ic), out = few(c->oc);
    p.kw = in || out ? 1 : c->k;
    p.n_cb = in ? 1 : (c->ic + 31) / 32;
    p.n_ob = up(out ? up(c->oc * c->k, 16) / 16 : c->oc / 16, 2);
    p.width = out ? c->iw + 2 * c->pad : p.ow;
    p.pitch = in ? p.ow : c->iw + 2 * c->pad;
    /* at least 256 pixels a band, at most half a megabyte: a function of the shape only */
    size_t row = (size_t)p.n_cb * (size_t)p.pitch * 64;
    p.rows = (256 + p.width - 1) / p.width;
    if (row * (size_t)p.rows < 128 << 10) p.rows = (int)((128 << 10) / row);
    if (p.rows < 4) p.rows = 4;
    if (p.rows > p.oh) p.rows = p.oh;
    p.bands = (p.oh + p.rows - 1) / p.rows;
    p.rows = (p.oh + p.bands - 1) / p.bands;
    p.bands = (p.oh + p.rows - 1) / p.rows;
    p.w_bytes = (size_t)p.n_ob * (size_t)p.n_cb * (size_t)(c->k * p.kw) * TILE * sizeof(bf16);
    /* tiles may read 16 pixels past the end */
    p.x_bytes = round64(row * (size_t)(p.rows + c->k - 1) + 64 * 32);
    p.z_bytes = out ? round64((size_t)p.n_ob * (size_t)p.rows * (size_t)p.width * 64 + 1024) : 0;
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
            bf16 *t = to + ((size_t)cb * (size_t)(p->rows + c->k - 1) + (size_t)r) * (size_t)p->pitch * 32;
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
    for (int r = 0; r < rows; r++) {
        int y = y0 + r - c->pad;
        for (int i = 0; i < p->pitch; i++, to += 32) {
            float v[32] = {0};
            for (int kx = 0; kx < c->k && y >= 0 && y < c->ih; kx++) {
                int xx = i + kx - c->pad;
                if (xx < 0 || xx >= c->iw) continue;
                for (int ch = 0; ch < c->ic; ch++)
                    v[kx * c->ic + ch] = x[((size_t)ch * (size_t)c->ih + (size_t)y) * (size_t)c->iw + (size_t)xx];
            }
            _mm512_storeu_si512(to, to_bf16(_mm512_loadu_ps(v), _mm512_loadu_ps(v + 16)));
        }
    }
}

/* ---- the work ---- */

/* 2x2 tiles over all of K: a0, a1 are the first pixels, b0, b1 the weights of two output blocks. */
static void multiply(const plan *p, const bf16 *a0, const bf16 *a1, const bf16 *b0, const bf16 *b1, const float *bias0,
                     const float *bias1, float *const out[4]) {
    size_t row = (size_t)p->pitch * 32, block = row * (size_t)(p->rows + p->c->k - 1);
    _tile_loadd(0, bias0, 0);
    _tile_loadd(1, bias1, 0);
    _tile_loadd(2, bias0, 0);
    _tile_loadd(3, bias1, 0);
    for (int cb = 0; cb < p->n_cb; cb++, a0 += block, a1 += block)
        for (int ky = 0; ky < p->c->k; ky++)
            for (int kx = 0; kx < p->kw; kx++, b0 += TILE, b1 += TILE) {
                size_t at = (size_t)ky * row + (size_t)kx * 32;
                _tile_loadd(4, a0 + at, 64);
                _tile_loadd(6, b0, 64);
                _tile_loadd(5, a1 + at, 64);
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

/* `rows` rows of outputs from a converted band; y(ob,row,x,16) with the given strides in floats. */
static void band_run(const plan *p, int rows, const bf16 *xb, const bf16 *wb, const float *bias, int n_store, float *y,
                     size_t ob_stride, size_t row_stride) {
    int across = (p->width + 15) / 16, tiles = rows * across;
    size_t w_block = (size_t)p->n_cb * (size_t)(p->c->k * p->kw) * TILE;
    float small[4][256] __attribute__((aligned(64)));
    for (int ob = 0; ob < p->n_ob; ob += 2) {
        for (int t = 0; t < tiles; t += 2) {
            float *out[4];
            const bf16 *a[2];
            size_t at[2];
            for (int h = 0; h < 2; h++) {
                int i = t + h < tiles ? t + h : t, r = i / across, x0 = i % across * 16;
                if (x0 + 16 > p->width && p->width >= 16) x0 = p->width - 16;
                a[h] = xb + ((size_t)r * (size_t)p->pitch + (size_t)x0) * 32;
                at[h] = (size_t)r * row_stride + (size_t)x0 * 16;
            }
            for (int q = 0; q < 4; q++) {
                bool real = ob + q % 2 < n_store && p->width >= 16;
                out[q] = real ? y + (size_t)(ob + q % 2) * ob_stride + at[q / 2] : small[q];
            }
            multiply(p, a[0], a[1], wb + (size_t)ob * w_block, wb + (size_t)(ob + 1) * w_block, bias + ob * 16,
                     bias + ob * 16 + 16, out);
            for (int q = 0; q < 4 && p->width < 16; q++)
                if (ob + q % 2 < n_store)
                    memcpy(y + (size_t)(ob + q % 2) * ob_stride + at[q / 2], small[q], (size_t)p->width * 64);
        }
    }
}

/* y(o,row,x) = b + sum over kx of z(row, x+kx, kx*oc+o). */
static void gather_few(const plan *p, int rows, const float *z, const float *b, float *y, int y0) {
    const dr_amx_conv *c = p->c;
    size_t block = (size_t)p->rows * (size_t)p->width * 16;
    for (int o = 0; o < c->oc; o++)
        for (int r = 0; r < rows; r++) {
            float *t = y + ((size_t)o * (size_t)p->oh + (size_t)(y0 + r)) * (size_t)p->ow;
            float bias = b ? b[o] : 0;
            for (int i = 0; i < p->ow; i++) {
                float s = bias;
                for (int kx = 0; kx < c->k; kx++) {
                    int j = kx * c->oc + o;
                    s += z[(size_t)(j / 16) * block + ((size_t)r * (size_t)p->width + (size_t)(i + kx)) * 16 +
                           (size_t)(j % 16)];
                }
                t[i] = s;
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
                band_run(p, rows, xb, wb, bias, p->n_ob, z, (size_t)p->rows * (size_t)p->width * 16,
                         (size_t)p->width * 16);
                gather_few(p, rows, z, b, yn, y0);
            } else {
                band_run(p, rows, xb, wb, bias, c->oc / 16, yn + (size_t)y0 * (size_t)p->ow * 16,
                         (size_t)p->oh * (size_t)p->ow * 16, (size_t)p->ow * 16);
            }
        }
        _tile_release();
    }
}
