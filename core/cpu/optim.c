/* optim.c - Adam with bias correction, and the moving average of weights, over flat arrays. */
#include "core/cpu/entries.h"
#include <math.h>

/* p -= lr/(1-b1^t) * m / (sqrt(v)/sqrt(1-b2^t) + eps): PyTorch's order of operations. */
dr_status dr_cpu_adam(dr_backend *be, const dr_adam_desc *d, size_t n, float *p, const float *g, float *m, float *v,
                      dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    const double b1 = (double)d->beta1, b2 = (double)d->beta2, t = (double)d->t;
    const float step = (float)((double)d->lr / (1 - pow(b1, t))), root = (float)sqrt(1 - pow(b2, t));
    int chunks = dr_cpu_chunks(n), nt = dr_cpu_threads(c, n);
#pragma omp parallel for schedule(dynamic) num_threads(nt) if (nt > 1)
    for (int i = 0; i < chunks; i++) {
        size_t at = (size_t)i * DR_CPU_CHUNK;
        c->kern->adam(dr_cpu_chunk_len(n, i), d->beta1, d->beta2, step, root, d->eps, p + at, g + at, m + at, v + at);
    }
    return DR_OK;
}

dr_status dr_cpu_ema(dr_backend *be, float decay, size_t n, const float *p, float *ema, dr_error *err) {
    (void)err;
    const dr_cpu *c = dr_cpu_of(be);
    int chunks = dr_cpu_chunks(n), nt = dr_cpu_threads(c, n);
#pragma omp parallel for schedule(dynamic) num_threads(nt) if (nt > 1)
    for (int i = 0; i < chunks; i++) {
        size_t at = (size_t)i * DR_CPU_CHUNK;
        c->kern->ema(dr_cpu_chunk_len(n, i), decay, p + at, ema + at);
    }
    return DR_OK;
}
