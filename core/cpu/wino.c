/* wino.c - blocks, threads and statistics around the kernels of wino_kern.inc, see wino.h. */
#include "core/cpu/wino.h"
#include "core/cpu/conv_stats.h"
#include <omp.h>
#include <unistd.h>

enum { PANEL = 6, MOST_TILES = 60, GROUP_MAX = 64 };

/* Tiles in a block: as many as the second-level cache holds (the weights are read once a block), in equal blocks. */
typedef struct cut {
    int tiles_x, tiles, block, blocks;
} cut;

static cut cut_of(const dr_wino_conv *c) {
    int oh = c->ih + 2 * c->pad - 2, ow = c->iw + 2 * c->pad - 2;
    cut k = {.tiles_x = (ow + 3) / 4};
    k.tiles = k.tiles_x * ((oh + 3) / 4);
    long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (l2 < 256 << 10 || l2 > 4 << 20) l2 = 1 << 20;
    long most = l2 * 5 / 8 / (36L * (c->ic + 16) * (long)sizeof(float)) / PANEL * PANEL;
    if (most > MOST_TILES) most = MOST_TILES;
    if (most < PANEL) most = PANEL;
    k.blocks = (k.tiles + (int)most - 1) / (int)most;
    int n = c->out_stats ? 1 : c->n; /* sums are made by blocks: a picture's must not depend on its company */
    if (n * k.blocks < 8) k.blocks = (8 + n - 1) / n; /* so that every thread has some */
    k.block = ((k.tiles + k.blocks - 1) / k.blocks + PANEL - 1) / PANEL * PANEL;
    k.blocks = (k.tiles + k.block - 1) / k.block;
    return k;
}

static size_t round64(size_t n) {
    return (n + 63) & ~(size_t)63;
}

static size_t block_bytes(const dr_wino_conv *c, const cut *k) {
    size_t v = (size_t)k->block * (size_t)(c->ic + 16) + 16, m = (size_t)k->block * GROUP_MAX + 16;
    return round64(36 * (v + m) * sizeof(float)) + 64;
}

static size_t part_bytes(const dr_wino_conv *c, const cut *k) {
    return c->out_stats ? (size_t)c->n * (size_t)k->blocks * (size_t)c->oc * 3 * sizeof(float) : 0;
}

static size_t norm_bytes(const dr_wino_conv *c) {
    return c->in_stats ? (size_t)c->n * (size_t)c->ic * 2 * sizeof(float) : 0;
}

size_t dr_wino_weights_bytes(const dr_wino_conv *c) {
    return (size_t)36 * (size_t)c->ic * (size_t)c->oc * sizeof(float);
}

void dr_wino_prepare(const dr_conv_kern *kern, const dr_wino_conv *c, const float *w, float *u) {
#pragma omp parallel for schedule(dynamic, 1)
    for (int ob = 0; ob < c->oc / 16; ob++) kern->wino_weights(w, c->ic, c->oc, c->flip, ob, u);
}

size_t dr_wino_scratch(const dr_wino_conv *c, int threads) {
    cut k = cut_of(c);
    return part_bytes(c, &k) + norm_bytes(c) + (size_t)threads * block_bytes(c, &k) +
           (c->out_stats ? (size_t)k.blocks * sizeof(int) : 0);
}

/* Outputs in block `b` of a picture. */
static int block_count(const cut *k, int b, int oh, int ow) {
    int n = 0;
    for (int t = b * k->block; t < (b + 1) * k->block && t < k->tiles; t++) {
        int y = t / k->tiles_x * 4, x = t % k->tiles_x * 4;
        n += (oh - y < 4 ? oh - y : 4) * (ow - x < 4 ? ow - x : 4);
    }
    return n;
}

void dr_wino_run(const dr_conv_kern *kern, const dr_wino_conv *c, const float *x, const float *u, const float *b,
                 float *y, void *scratch) {
    cut k = cut_of(c);
    int oh = c->ih + 2 * c->pad - 2, ow = c->iw + 2 * c->pad - 2;
    float *part = scratch, *norm = part + part_bytes(c, &k) / sizeof *part;
    char *own = (char *)norm + norm_bytes(c);
    size_t in = (size_t)c->ic * (size_t)c->ih * (size_t)c->iw, out = (size_t)c->oc * (size_t)oh * (size_t)ow;
    for (int i = 0; c->in_stats && i < c->n * c->ic; i++) {
        int n = i / c->ic, ch = i % c->ic;
        norm[2 * n * c->ic + ch] = c->in_stats[2 * i + 1];
        norm[(2 * n + 1) * c->ic + ch] = -c->in_stats[2 * i] * c->in_stats[2 * i + 1];
    }
#pragma omp parallel for schedule(dynamic, 1)
    for (int i = 0; i < c->n * k.blocks; i++) {
        int n = i / k.blocks, t = i % k.blocks * k.block;
        dr_wino a = {.x = x + (size_t)n * in,
                     .u = u,
                     .b = b,
                     .scale = c->in_stats ? norm + (size_t)(2 * n * c->ic) : NULL,
                     .shift = c->in_stats ? norm + (size_t)((2 * n + 1) * c->ic) : NULL,
                     .y = y + (size_t)n * out,
                     .ic = c->ic,
                     .h = c->ih,
                     .w = c->iw,
                     .oc = c->oc,
                     .oh = oh,
                     .ow = ow,
                     .pad = c->pad,
                     .tiles_x = k.tiles_x,
                     .relu = c->relu,
                     .reflect = c->reflect};
        float *mine = (float *)(void *)(own + (size_t)omp_get_thread_num() * block_bytes(c, &k));
        kern->wino_block(&a, t, k.tiles - t < k.block ? k.tiles - t : k.block, mine,
                         c->out_stats ? part + (size_t)i * (size_t)c->oc * 3 : NULL);
    }
    if (!c->out_stats) return;
    int *counts = (int *)(void *)own; /* the blocks are done */
    for (int i = 0; i < k.blocks; i++) counts[i] = block_count(&k, i, oh, ow);
    dr_conv_stats(c->n, c->oc, k.blocks, counts, part, c->eps, c->out_stats);
}
