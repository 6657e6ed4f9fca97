/* loss.c - PatchNCE, adversarial losses and the mean absolute difference, with their gradients.
 *
 * Sums are in double, a row or a chunk at a time, and added in order. */
#include "core/cpu/conv.h"
#include "core/cpu/entries.h"
#include <math.h>

enum { ROWS = 30 }; /* rows of the similarity matrix that a thread takes at once */

static const float placeholder = -10; /* the reference leaves e^(-10/T) on the diagonal */

/* p[j] = e^(c_j/T) / sum over j and the placeholder; returns the log of that sum. */
static double softmax(const dr_kern *kern, int s, float temperature, float *c) {
    float top = placeholder;
    for (int j = 0; j < s; j++) top = c[j] > top ? c[j] : top;
    const float scale = 1 / temperature, shift = top * scale;
    double sum = kern->exp_sum((size_t)s, scale, shift, c, c) + exp((double)(placeholder * scale - shift));
    kern->scale((size_t)s, (float)(1 / sum), c, c);
    return (double)shift + log(sum);
}

/* Both passes: per group the similarities, their softmax, and then the row losses or the gradient of q. */
static dr_status nce(dr_cpu *c, int groups, float temperature, dr_tensor q, dr_tensor k, float g, double *ret_loss,
                     float *dq, dr_error *err) {
    const dr_kern *kern = c->kern;
    int total = q.shape.n, s = total / groups, d = q.shape.c, panel = kern->panel;
    size_t keys = (size_t)((s + panel - 1) / panel * panel) * (size_t)d;
    size_t values = (size_t)((d + panel - 1) / panel * panel) * (size_t)s;
    size_t sim = (size_t)s * (size_t)s;
    void *scratch;
    dr_status st = dr_cpu_scratch(c, (size_t)s * sizeof(double) + (keys + values + sim) * sizeof(float), &scratch, err);
    if (st) return st;
    double *row_loss = scratch;
    float *pk = (float *)(void *)(row_loss + s), *pv = pk + keys, *p = pv + values;
    int blocks = (s + ROWS - 1) / ROWS, nt = dr_cpu_threads(c, sim);
    const float coef = (float)((double)g / ((double)total * (double)temperature));
    double loss = 0;

    for (int i = 0; i < groups; i++) {
        size_t first = (size_t)i * (size_t)s * (size_t)d;
        const float *gq = (const float *)q.data + first, *gk = (const float *)k.data + first;
        kern->pack(d, s, gk, 1, d, pk);
        if (dq) kern->pack(s, d, gk, d, 1, pv);
#pragma omp parallel for schedule(dynamic) num_threads(nt) if (nt > 1)
        for (int b = 0; b < blocks; b++) {
            int from = b * ROWS, rows = s - from < ROWS ? s - from : ROWS;
            float *pb = p + (size_t)from * (size_t)s;
            kern->gemm(rows, s, d, gq + (ptrdiff_t)from * d, d, 1, pk, NULL, false, pb, s);
            for (int r = 0; r < rows; r++) {
                float *row = pb + (size_t)r * (size_t)s;
                double own = (double)row[from + r] / (double)temperature;
                row_loss[from + r] = softmax(kern, s, temperature, row) - own;
                row[from + r] -= 1;
                if (dq) kern->scale((size_t)s, coef, row, row);
            }
            if (dq) kern->gemm(rows, d, s, pb, s, 1, pv, NULL, false, dq + first + (size_t)from * (size_t)d, d);
        }
        for (int r = 0; r < s; r++) loss += row_loss[r];
    }
    if (ret_loss) *ret_loss = loss / total;
    return DR_OK;
}

dr_status dr_cpu_nce(dr_backend *be, int groups, float temperature, dr_tensor q, dr_tensor k, dr_tensor loss,
                     dr_error *err) {
    double v;
    dr_status s = nce(dr_cpu_of(be), groups, temperature, q, k, 0, &v, NULL, err);
    if (!s) *(float *)loss.data = (float)v;
    return s;
}

dr_status dr_cpu_nce_bwd(dr_backend *be, int groups, float temperature, dr_tensor q, dr_tensor k, float g, dr_tensor dq,
                         dr_error *err) {
    return nce(dr_cpu_of(be), groups, temperature, q, k, g, NULL, dq.data, err);
}

static double gan1(dr_gan_loss mode, double s) {
    switch (mode) {
    case DR_GAN_HINGE_REAL:
        return s > 1 ? 0 : 1 - s; /* NaN stays NaN */
    case DR_GAN_HINGE_FAKE:
        return s < -1 ? 0 : 1 + s;
    case DR_GAN_LSGAN_REAL:
        return (s - 1) * (s - 1);
    case DR_GAN_LSGAN_FAKE:
        return s * s;
    case DR_GAN_NEG_MEAN:
        break;
    }
    return -s;
}

static double gan1_bwd(dr_gan_loss mode, double s) {
    switch (mode) {
    case DR_GAN_HINGE_REAL:
        return s < 1 ? -1 : 0;
    case DR_GAN_HINGE_FAKE:
        return s > -1 ? 1 : 0;
    case DR_GAN_LSGAN_REAL:
        return 2 * (s - 1);
    case DR_GAN_LSGAN_FAKE:
        return 2 * s;
    case DR_GAN_NEG_MEAN:
        break;
    }
    return -1;
}

/* Scores are few (30x30 for a crop of 256): no threads. */
dr_status dr_cpu_gan(dr_backend *be, dr_gan_loss mode, dr_tensor s, dr_tensor loss, dr_error *err) {
    (void)be, (void)err;
    size_t n = dr_shape_count(s.shape);
    const float *ps = s.data;
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += gan1(mode, (double)ps[i]);
    *(float *)loss.data = (float)(sum / (double)n);
    return DR_OK;
}

dr_status dr_cpu_gan_bwd(dr_backend *be, dr_gan_loss mode, dr_tensor s, float g, dr_tensor ds, dr_error *err) {
    (void)be, (void)err;
    size_t n = dr_shape_count(s.shape);
    const float *ps = s.data;
    float *pd = ds.data;
    double coef = (double)g / (double)n;
    for (size_t i = 0; i < n; i++) pd[i] = (float)(coef * gan1_bwd(mode, (double)ps[i]));
    return DR_OK;
}

dr_status dr_cpu_l1(dr_backend *be, dr_tensor a, dr_tensor b, dr_tensor loss, dr_error *err) {
    dr_cpu *c = dr_cpu_of(be);
    size_t n = dr_shape_count(a.shape);
    int chunks = dr_cpu_chunks(n), nt = dr_cpu_threads(c, n);
    const float *pa = a.data, *pb = b.data;
    void *scratch;
    dr_status s = dr_cpu_scratch(c, (size_t)chunks * sizeof(double), &scratch, err);
    if (s) return s;
    double *part = scratch, sum = 0;
#pragma omp parallel for schedule(dynamic) num_threads(nt) if (nt > 1)
    for (int i = 0; i < chunks; i++) {
        size_t at = (size_t)i * DR_CPU_CHUNK;
        part[i] = c->kern->sum_abs_diff(dr_cpu_chunk_len(n, i), pa + at, pb + at);
    }
    for (int i = 0; i < chunks; i++) sum += part[i];
    *(float *)loss.data = (float)(sum / (double)n);
    return DR_OK;
}

dr_status dr_cpu_l1_bwd(dr_backend *be, dr_tensor a, dr_tensor b, float g, dr_tensor da, dr_error *err) {
    (void)err;
    dr_cpu *c = dr_cpu_of(be);
    size_t n = dr_shape_count(a.shape);
    int chunks = dr_cpu_chunks(n), nt = dr_cpu_threads(c, n);
    const float *pa = a.data, *pb = b.data, each = (float)((double)g / (double)n);
    float *pd = da.data;
#pragma omp parallel for schedule(dynamic) num_threads(nt) if (nt > 1)
    for (int i = 0; i < chunks; i++) {
        size_t at = (size_t)i * DR_CPU_CHUNK;
        c->kern->sign_diff(dr_cpu_chunk_len(n, i), each, pa + at, pb + at, pd + at);
    }
    return DR_OK;
}
