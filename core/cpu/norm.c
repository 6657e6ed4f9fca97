/* norm.c - instance norm with its activation, forward and backward, and the fused forms of inference.
 *
 * A plane is cut into chunks of CHUNK pixels whatever the number of threads; each chunk has its own sums in double, and
 * they are added in order, so every thread count gives the same bits. Planes that fit in the second-level cache are
 * summed and normalised by the same thread in one go; larger ones chunk by chunk, all sums before all outputs. */
#include "core/cpu/conv.h"
#include "core/cpu/entries.h"
#include <math.h>

enum { CHUNK = 4096, IN_CACHE = 8192 };

typedef struct sums {
    double a[DR_LANES], b[DR_LANES];
} sums;

typedef struct chunks {
    int per_plane, total;
    size_t pixels;
} chunks;

static chunks cut(dr_planes g) {
    chunks k = {.pixels = (size_t)g.h * (size_t)g.w};
    k.per_plane = (int)((k.pixels + CHUNK - 1) / CHUNK);
    k.total = k.per_plane * g.n_planes;
    return k;
}

static size_t chunk_len(chunks k, int i) {
    size_t at = (size_t)(i % k.per_plane) * CHUNK;
    return k.pixels - at < CHUNK ? k.pixels - at : CHUNK;
}

/* Offset in floats of chunk i, counted over all planes. */
static size_t chunk_at(dr_planes g, chunks k, int i) {
    return (size_t)(i / k.per_plane) * g.plane + (size_t)(i % k.per_plane) * CHUNK * (size_t)g.lanes;
}

static void load_stats(const float *stats, dr_planes g, int plane, dr_lanes *s) {
    const float *p = stats + 2 * (size_t)plane * (size_t)g.lanes;
    for (int l = 0; l < g.lanes; l++) {
        s->mean[l] = p[2 * l];
        s->rstd[l] = p[2 * l + 1];
    }
}

/* Mean and 1/sqrt(variance + eps) of a plane from its chunks' sums, to stats. */
static void finish_stats(const sums *part, chunks k, dr_planes g, int plane, float eps, float *stats) {
    float *p = stats + 2 * (size_t)plane * (size_t)g.lanes;
    for (int l = 0; l < g.lanes; l++) {
        double a = 0, b = 0;
        for (int i = 0; i < k.per_plane; i++) {
            a += part[i].a[l];
            b += part[i].b[l];
        }
        double mean = a / (double)k.pixels, var = b / (double)k.pixels - mean * mean;
        p[2 * l] = (float)mean;
        p[2 * l + 1] = (float)(1.0 / sqrt((var < 0 ? 0 : var) + (double)eps));
    }
}

static void finish_means(const sums *part, chunks k, dr_planes g, dr_lanes *s) {
    for (int l = 0; l < g.lanes; l++) {
        double a = 0, b = 0;
        for (int i = 0; i < k.per_plane; i++) {
            a += part[i].a[l];
            b += part[i].b[l];
        }
        s->mean_g[l] = (float)(a / (double)k.pixels);
        s->mean_gx[l] = (float)(b / (double)k.pixels);
    }
}

static bool by_plane(chunks k, dr_planes g, int nt) {
    return k.pixels <= IN_CACHE && g.n_planes >= 2 * nt;
}

/* The forward pass; y NULL: statistics only. */
static dr_status forward(dr_cpu *c, float eps, dr_act act, dr_tensor x, float *stats, float *y, dr_error *err) {
    dr_planes g = dr_cpu_planes(c, x.shape);
    chunks k = cut(g);
    int nt = dr_cpu_threads(c, dr_shape_count(x.shape));
    const float *px = x.data;
    void *scratch;
    dr_status st = dr_cpu_scratch(c, (size_t)k.total * sizeof(sums), &scratch, err);
    if (st) return st;
    sums *part = scratch;

    if (by_plane(k, g, nt)) {
#pragma omp parallel for schedule(dynamic) num_threads(nt) if (nt > 1)
        for (int p = 0; p < g.n_planes; p++) {
            sums *mine = part + p * k.per_plane;
            dr_lanes s;
            for (int i = 0; i < k.per_plane; i++) {
                mine[i] = (sums){0};
                g.rows->norm_sums(chunk_len(k, i), px + chunk_at(g, k, p * k.per_plane + i), mine[i].a, mine[i].b);
            }
            finish_stats(mine, k, g, p, eps, stats);
            if (!y) continue;
            load_stats(stats, g, p, &s);
            g.rows->norm_apply(k.pixels, px + (size_t)p * g.plane, &s, act, y + (size_t)p * g.plane);
        }
        return DR_OK;
    }
#pragma omp parallel for schedule(dynamic) num_threads(nt) if (nt > 1)
    for (int i = 0; i < k.total; i++) {
        part[i] = (sums){0};
        g.rows->norm_sums(chunk_len(k, i), px + chunk_at(g, k, i), part[i].a, part[i].b);
    }
    for (int p = 0; p < g.n_planes; p++) finish_stats(part + p * k.per_plane, k, g, p, eps, stats);
    if (!y) return DR_OK;
#pragma omp parallel for schedule(dynamic) num_threads(nt) if (nt > 1)
    for (int i = 0; i < k.total; i++) {
        dr_lanes s;
        load_stats(stats, g, i / k.per_plane, &s);
        size_t at = chunk_at(g, k, i);
        g.rows->norm_apply(chunk_len(k, i), px + at, &s, act, y + at);
    }
    return DR_OK;
}

dr_status dr_cpu_norm_act(dr_backend *be, float eps, dr_act act, dr_tensor x, float *stats, dr_tensor y,
                          dr_error *err) {
    return forward(dr_cpu_of(be), eps, act, x, stats, y.data, err);
}

dr_status dr_cpu_norm_stats(dr_backend *be, float eps, dr_tensor x, float *stats, dr_error *err) {
    return forward(dr_cpu_of(be), eps, DR_ACT_NONE, x, stats, NULL, err);
}

dr_status dr_cpu_norm_act_bwd(dr_backend *be, dr_act act, dr_tensor x, const float *stats, dr_tensor dy, dr_tensor dx,
                              dr_error *err) {
    dr_cpu *c = dr_cpu_of(be);
    dr_planes g = dr_cpu_planes(c, x.shape);
    chunks k = cut(g);
    int nt = dr_cpu_threads(c, dr_shape_count(x.shape));
    const float *px = x.data, *pd = dy.data;
    float *po = dx.data;
    size_t sums_bytes = (size_t)k.total * sizeof(sums);
    void *scratch;
    dr_status st = dr_cpu_scratch(c, sums_bytes + (size_t)g.n_planes * sizeof(dr_lanes), &scratch, err);
    if (st) return st;
    sums *part = scratch;
    dr_lanes *lanes = (dr_lanes *)(void *)((char *)scratch + sums_bytes);

    if (by_plane(k, g, nt)) {
#pragma omp parallel for schedule(dynamic) num_threads(nt) if (nt > 1)
        for (int p = 0; p < g.n_planes; p++) {
            sums *mine = part + p * k.per_plane;
            dr_lanes *s = &lanes[p];
            load_stats(stats, g, p, s);
            for (int i = 0; i < k.per_plane; i++) {
                size_t at = chunk_at(g, k, p * k.per_plane + i);
                mine[i] = (sums){0};
                g.rows->norm_bwd_sums(chunk_len(k, i), px + at, pd + at, s, act, mine[i].a, mine[i].b);
            }
            finish_means(mine, k, g, s);
            size_t at = (size_t)p * g.plane;
            g.rows->norm_bwd(k.pixels, px + at, pd + at, s, act, po + at);
        }
        return DR_OK;
    }
    for (int p = 0; p < g.n_planes; p++) load_stats(stats, g, p, &lanes[p]);
#pragma omp parallel for schedule(dynamic) num_threads(nt) if (nt > 1)
    for (int i = 0; i < k.total; i++) {
        size_t at = chunk_at(g, k, i);
        part[i] = (sums){0};
        g.rows->norm_bwd_sums(chunk_len(k, i), px + at, pd + at, &lanes[i / k.per_plane], act, part[i].a, part[i].b);
    }
    for (int p = 0; p < g.n_planes; p++) finish_means(part + p * k.per_plane, k, g, &lanes[p]);
#pragma omp parallel for schedule(dynamic) num_threads(nt) if (nt > 1)
    for (int i = 0; i < k.total; i++) {
        size_t at = chunk_at(g, k, i);
        g.rows->norm_bwd(chunk_len(k, i), px + at, pd + at, &lanes[i / k.per_plane], act, po + at);
    }
    return DR_OK;
}

/* One output row of norm_apply. x and y are planes; resid points at the pixel that is added to x's first one. */
static void apply_row(dr_planes g, int oy, const float *x, const dr_lanes *s, dr_act act, dr_norm_then then, int p,
                      const float *resid, size_t resid_row, int ow, float *y) {
    size_t n = (size_t)g.w;
    y += (size_t)oy * (size_t)ow * (size_t)g.lanes;
    switch (then) {
    case DR_THEN_NONE:
        g.rows->norm_apply(n, x + (size_t)oy * g.row, s, act, y);
        break;
    case DR_THEN_REFLECT:
    case DR_THEN_ADD: {
        size_t iy = (size_t)dr_reflect(oy - p, g.h);
        float *mid = y + (size_t)(p * g.lanes);
        if (then == DR_THEN_ADD)
            g.rows->norm_add(n, x + iy * g.row, s, act, resid + iy * resid_row, mid);
        else
            g.rows->norm_apply(n, x + iy * g.row, s, act, mid);
        dr_cpu_reflect_ends(y, g.w, p, g.lanes);
        break;
    }
    case DR_THEN_BLUR_DOWN: {
        const float *a = x + (size_t)dr_reflect(2 * oy - 1, g.h) * g.row;
        const float *b = x + (size_t)(2 * oy) * g.row, *e = x + (size_t)dr_reflect(2 * oy + 1, g.h) * g.row;
        g.rows->blur_down(g.w, ow, a, b, e, s, act, y);
        break;
    }
    case DR_THEN_BLUR_UP: {
        int k = oy / 2, other = oy % 2 ? k + 1 : k - 1;
        other = other < 0 ? 0 : other >= g.h ? g.h - 1 : other;
        g.rows->blur_up(g.w, x + (size_t)other * g.row, x + (size_t)k * g.row, s, act, y);
        break;
    }
    }
}

dr_status dr_cpu_norm_apply(dr_backend *be, dr_tensor x, const float *stats, dr_act act, dr_norm_then then, int p,
                            dr_tensor resid, dr_tensor y, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    dr_planes g = dr_cpu_planes(c, x.shape), gy = dr_cpu_planes(c, y.shape), gr = {0};
    const float *px = x.data, *pr = NULL;
    if (then == DR_THEN_ADD) {
        gr = dr_cpu_planes(c, resid.shape);
        size_t q = (size_t)(gr.h - g.h) / 2;
        pr = (const float *)resid.data + q * gr.row + q * (size_t)g.lanes;
    }
    float *py = y.data;
    int rows = gy.n_planes * gy.h, nt = dr_cpu_threads(c, dr_shape_count(y.shape));
#pragma omp parallel for schedule(dynamic, dr_cpu_band(gy)) num_threads(nt) if (nt > 1)
    for (int i = 0; i < rows; i++) {
        size_t plane = (size_t)(i / gy.h);
        dr_lanes s;
        load_stats(stats, g, (int)plane, &s);
        apply_row(g, i % gy.h, px + plane * g.plane, &s, act, then, p, pr ? pr + plane * gr.plane : NULL, gr.row, gy.w,
                  py + plane * gy.plane);
    }
    return DR_OK;
}
