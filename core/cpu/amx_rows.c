/* amx_rows.c - the input of a block on its way into bf16: norm, ReLU, resampling, padding, see amx_kern.h.
 *
 * A row of 16 channels is made in f32 first, unless nothing happens to it, then two such rows become one of 32 channels
 * in bf16. Blur up and down are separable and done as METHOD has them: rows are mixed while they are normalised, then
 * columns. The arithmetic of one value does not depend on the block that it is made for. */
#include "core/cpu/amx_kern.h"
#include <float.h>

typedef struct norm {
    bool on;
    __m512 scale, shift, least;
} norm;

static norm norm_of(const dr_amx_conv *c, int n, int block) {
    norm m = {.on = c->in_stats != NULL};
    if (!m.on) return m;
    float scale[16], shift[16];
    const float *s = c->in_stats + ((size_t)n * (size_t)c->ic + (size_t)(block * 16)) * 2;
    for (int l = 0; l < 16; l++) {
        scale[l] = s[2 * l + 1];
        shift[l] = -s[2 * l] * s[2 * l + 1];
    }
    m.scale = _mm512_loadu_ps(scale);
    m.shift = _mm512_loadu_ps(shift);
    m.least = _mm512_set1_ps(c->relu ? 0 : -FLT_MAX);
    return m;
}

/* max() gives its second operand when one is no number: NaN passes. */
static inline __m512 get(const norm *m, const float *p) {
    __m512 v = _mm512_loadu_ps(p);
    return m->on ? _mm512_max_ps(m->least, _mm512_fmadd_ps(v, m->scale, m->shift)) : v;
}

/* Columns [from, to) of row y of what the convolution sees, 16 channels; the result lies at the returned address, which
 * may be in x itself. tmp has room for two rows. */
static const float *fetch(const amx_plan *p, const float *plane, const norm *m, int y, int from, int to, float *tmp) {
    const dr_amx_conv *c = p->c;
    size_t row = (size_t)c->rw * 16;
    if (c->then == DR_THEN_NONE) {
        const float *x = plane + (size_t)y * row + (size_t)from * 16;
        if (!m->on) return x;
        for (int i = 0; i < to - from; i++) _mm512_storeu_ps(tmp + i * 16, get(m, x + i * 16));
        return tmp;
    }
    bool is_up = c->then == DR_THEN_BLUR_UP;
    /* raw columns [a, b) that the wanted ones are mixed from */
    int a = is_up ? from / 2 - 1 : 2 * from - 1, b = is_up ? (to - 1) / 2 + 2 : 2 * to;
    if (a < 0) a = 0;
    if (b > c->rw) b = c->rw;
    float *mixed = tmp + amx_rows_bytes(p) / sizeof(float) / 4;
    const __m512 near = _mm512_set1_ps(is_up ? 0.75f : 0.5f), far = _mm512_set1_ps(0.25f);
    if (is_up) {
        int k = y / 2, o = y % 2 ? (k + 1 < c->rh ? k + 1 : k) : (k > 0 ? k - 1 : 0);
        const float *r = plane + (size_t)k * row, *s = plane + (size_t)o * row;
        for (int i = a; i < b; i++)
            _mm512_storeu_ps(mixed + (i - a) * 16,
                             _mm512_fmadd_ps(near, get(m, r + i * 16), _mm512_mul_ps(far, get(m, s + i * 16))));
        for (int i = from; i < to; i++) {
            int kx = i / 2, ox = i % 2 ? (kx + 1 < c->rw ? kx + 1 : kx) : (kx > 0 ? kx - 1 : 0);
            __m512 v = _mm512_mul_ps(far, _mm512_loadu_ps(mixed + (ox - a) * 16));
            _mm512_storeu_ps(tmp + (i - from) * 16, _mm512_fmadd_ps(near, _mm512_loadu_ps(mixed + (kx - a) * 16), v));
        }
        return tmp;
    }
    const float *r = plane + (size_t)(2 * y) * row, *s = plane + (size_t)mirror(2 * y - 1, c->rh, true) * row;
    const float *t = plane + (size_t)mirror(2 * y + 1, c->rh, true) * row;
    for (int i = a; i < b; i++) {
        __m512 v = _mm512_add_ps(get(m, s + i * 16), get(m, t + i * 16));
        _mm512_storeu_ps(mixed + (i - a) * 16, _mm512_fmadd_ps(near, get(m, r + i * 16), _mm512_mul_ps(far, v)));
    }
    for (int i = from; i < to; i++) {
        int l = mirror(2 * i - 1, c->rw, true) - a, h = mirror(2 * i + 1, c->rw, true) - a;
        __m512 v = _mm512_add_ps(_mm512_loadu_ps(mixed + l * 16), _mm512_loadu_ps(mixed + h * 16));
        _mm512_storeu_ps(tmp + (i - from) * 16,
                         _mm512_fmadd_ps(near, _mm512_loadu_ps(mixed + (2 * i - a) * 16), _mm512_mul_ps(far, v)));
    }
    return tmp;
}

/* Two halves of 16 channels, and two rows for each: made, and mixed on the way. */
size_t amx_rows_bytes(const amx_plan *p) {
    return (size_t)(2 * (p->in_cols + 16)) * 64 * 4;
}

static inline void put(const amx_plan *p, bf16 *to, __m512 a, __m512 b) {
    __m512i v = to_bf16(a, b);
    _mm512_storeu_si512(to, v);
    if (p->parts > 1) _mm512_storeu_si512(to + p->part, rest(a, b, v));
}

static void row_blocked(const amx_plan *p, const float *x, int n, int cb, int y, int x0, bf16 *to, float *tmp) {
    const dr_amx_conv *c = p->c;
    const __m512 zero = _mm512_setzero_ps();
    int from = x0 - c->pad > 0 ? x0 - c->pad : 0, until = x0 - c->pad + p->in_cols;
    if (until > c->iw) until = c->iw;
    bool both = cb * 32 + 16 < c->ic;
    const float *half[2] = {0};
    for (int h = 0; h < (both ? 2 : 1); h++) {
        norm m = norm_of(c, n, cb * 2 + h);
        const float *plane = x + (size_t)(cb * 2 + h) * (size_t)c->rh * (size_t)c->rw * 16;
        half[h] = fetch(p, plane, &m, y, from, until, tmp + (size_t)h * amx_rows_bytes(p) / sizeof(float) / 2);
    }
    for (int i = 0; i < p->in_cols; i++, to += 32) {
        int at = x0 - c->pad + i;
        if (at < from || at >= until) at = mirror(at, c->iw, c->reflect);
        if (at < from || at >= until)
            put(p, to, zero, zero);
        else
            put(p, to, _mm512_loadu_ps(half[0] + (at - from) * 16),
                both ? _mm512_loadu_ps(half[1] + (at - from) * 16) : zero);
    }
}

void amx_rows(const amx_plan *p, const float *x, int n, int y0, int x0, bf16 *to, float *tmp) {
    const dr_amx_conv *c = p->c;
    for (int cb = 0; cb < p->n_cb; cb++)
        for (int r = 0; r < p->in_rows; r++) {
            int y = mirror(y0 + r - c->pad, c->ih, c->reflect);
            bf16 *t = to + (size_t)cb * p->block + (size_t)r * p->row;
            if (few(c->ic)) {
                interleave(c, y < 0 ? NULL : x + (size_t)y * (size_t)c->iw, x0 - c->pad, (int)p->row, t,
                           p->parts > 1 ? p->part : 0);
            } else if (y < 0) {
                for (int i = 0; i < p->parts; i++) memset(t + (size_t)i * p->part, 0, p->row * sizeof(bf16));
            } else {
                row_blocked(p, x, n, cb, y, x0, t, tmp);
            }
        }
}
