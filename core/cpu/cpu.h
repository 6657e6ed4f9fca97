/* cpu.h - the CPU backend's instance, shared by the files of core/cpu and seen by nobody else. */
#ifndef DR_CPU_CPU_H
#define DR_CPU_CPU_H

#include "core/cpu/kern.h"
#include "core/tensor/backend.h"

typedef struct dr_cpu {
    dr_backend base; /* first: a dr_backend * of this table is a dr_cpu * */
    int threads;     /* of every parallel loop; set with omp_set_num_threads() at each entry (it is per thread) */
    dr_precision precision;
    dr_host_api host;
    int isa;                  /* enum dr_cpu_isa: which objects of the kernels run */
    const dr_kern *kern;      /* the inner loops for it */
    struct dr_cpu_conv *conv; /* convolution state: engine, primitive cache, weights (conv.h) */
    void *scratch;            /* grows on demand with dr_cpu_scratch(), 64-byte aligned; nobody keeps it over a call */
    size_t scratch_bytes;
    char text[128]; /* of describe() */
} dr_cpu;

enum dr_cpu_isa { DR_CPU_BASE, DR_CPU_AVX2, DR_CPU_AVX512 };

/* Tests only: the best instruction set that later opens may use. */
void dr_cpu_limit_isa(enum dr_cpu_isa best);

static inline dr_cpu *dr_cpu_of(dr_backend *be) {
    return (dr_cpu *)be;
}

/* A tensor as the loops see it: n_planes planes of h x w pixels of `lanes` floats (16 channels of an image, or one). */
typedef struct dr_planes {
    const dr_rows *rows;
    int lanes, n_planes, h, w;
    size_t row, plane; /* floats in one */
} dr_planes;

static inline dr_planes dr_cpu_planes(const dr_cpu *c, dr_shape s) {
    bool blocked = s.c % DR_LANES == 0;
    dr_planes g = {
        .rows = blocked ? c->kern->blocked : c->kern->planar, .lanes = blocked ? DR_LANES : 1, .h = s.h, .w = s.w};
    g.n_planes = s.n * (s.c / g.lanes);
    g.row = (size_t)s.w * (size_t)g.lanes;
    g.plane = g.row * (size_t)s.h;
    return g;
}

/* Rows that one thread takes at once: about 16 KiB. */
static inline int dr_cpu_band(dr_planes g) {
    return g.row < 4096 ? (int)(4096 / g.row) : 1;
}

/* Threads for a loop that touches this many floats: a parallel region costs more than a small tensor. */
enum { DR_CPU_SMALL = 32768, DR_CPU_CHUNK = 16384 };
static inline int dr_cpu_threads(const dr_cpu *c, size_t floats) {
    return floats < DR_CPU_SMALL ? 1 : c->threads;
}

/* Flat work is cut into chunks that depend on its size only, so that sums do not depend on the threads. */
static inline int dr_cpu_chunks(size_t n) {
    return (int)((n + DR_CPU_CHUNK - 1) / DR_CPU_CHUNK);
}
static inline size_t dr_cpu_chunk_len(size_t n, int i) {
    size_t at = (size_t)i * DR_CPU_CHUNK;
    return n - at < DR_CPU_CHUNK ? n - at : DR_CPU_CHUNK;
}

#endif
