/* amx_pack.c - weights for the AMX convolutions, see amx_kern.h. */
#include "core/cpu/amx_kern.h"

/* A row of pairs of inputs, and what bf16 left of them into the tile of the second part. */
static void store(const amx_plan *p, bf16 *to, __m512 a, __m512 b) {
    __m512i v = to_bf16(a, b);
    _mm512_storeu_si512(to, pairs(v));
    if (p->parts > 1) _mm512_storeu_si512(to + TILE, pairs(rest(a, b, v)));
}

/* Block `ob` of 16 outputs; all channels in multiples of 16. */
static void pack_blocked(const amx_plan *p, const float *w, int ob, bf16 *to) {
    const dr_amx_conv *c = p->c;
    int kk = c->k * c->k;
    size_t lane = (size_t)(c->flip ? kk : c->ic * kk), step = (size_t)(c->flip ? c->oc * kk : kk);
    if (ob * 16 >= c->oc) ob = c->oc / 16 - 1; /* the odd block's partner: computed, not stored elsewhere */
    const __m512i at = _mm512_mullo_epi32(_mm512_set1_epi32((int)lane),
                                          _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
    const float *base = w + (size_t)(ob * 16) * lane;
    for (int cb = 0; cb < p->n_cb; cb++)
        for (int t = 0; t < kk; t++, to += p->parts * TILE)
            for (int q = 0; q < 16; q++) {
                int ch = cb * 32 + 2 * q;
                __m512 a = _mm512_setzero_ps(), b = a;
                if (ch < c->ic) {
                    const float *s = base + (size_t)ch * step + (c->flip ? kk - 1 - t : t);
                    a = _mm512_i32gather_ps(at, s, 4);
                    b = _mm512_i32gather_ps(at, s + step, 4);
                }
                store(p, to + q * 32, a, b);
            }
}

/* Weight of the layer, by output, input and tap. */
static float weight(const dr_amx_conv *c, const float *w, int o, int i, int ky, int kx) {
    int k = c->k;
    if (c->flip)
        return w[((size_t)(i * c->oc + o) * (size_t)k + (size_t)(k - 1 - ky)) * (size_t)k + (size_t)(k - 1 - kx)];
    return w[((size_t)(o * c->ic + i) * (size_t)k + (size_t)ky) * (size_t)k + (size_t)kx];
}

static void pack_few(const amx_plan *p, const float *w, int ob, bf16 *to) {
    const dr_amx_conv *c = p->c;
    bool in = few(c->ic);
    int n_k = in ? c->ic * c->k : c->ic, n_n = in ? c->oc : c->oc * c->k;
    for (int cb = 0; cb < p->n_cb; cb++)
        for (int ky = 0; ky < c->k; ky++, to += p->parts * TILE)
            for (int q = 0; q < 16; q++) {
                float v[2][16] = {0};
                for (int h = 0; h < 2; h++)
                    for (int l = 0; l < 16; l++) {
                        int kk = cb * 32 + 2 * q + h, nn = ob * 16 + l;
                        if (kk >= n_k || nn >= n_n) continue;
                        v[h][l] = in ? weight(c, w, nn, kk % c->ic, ky, kk / c->ic)
                                     : weight(c, w, nn % c->oc, kk, ky, nn / c->oc);
                    }
                store(p, to + q * 32, _mm512_loadu_ps(v[0]), _mm512_loadu_ps(v[1]));
            }
}

void amx_pack(const amx_plan *p, const float *w, int ob, bf16 *to) {
    if (few(p->c->ic) || few(p->c->oc))
        pack_few(p, w, ob, to);
    else
        pack_blocked(p, w, ob, to);
}
