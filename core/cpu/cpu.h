/* cpu.h - the CPU backend's instance, shared by the files of core/cpu and seen by nobody else. */
#ifndef DR_CPU_CPU_H
#define DR_CPU_CPU_H

#include "core/tensor/backend.h"

typedef struct dr_cpu {
    dr_backend base; /* first: a dr_backend * of this table is a dr_cpu * */
    int threads;     /* of every parallel loop; set with omp_set_num_threads() at each entry (it is per thread) */
    dr_precision precision;
    dr_host_api host;
    int isa;                  /* enum dr_cpu_isa: which objects of the kernels run */
    struct dr_cpu_conv *conv; /* convolution state: engine, primitive cache, weights (conv.h) */
    void *scratch;            /* grows on demand with dr_cpu_scratch(), 64-byte aligned; nobody keeps it over a call */
    size_t scratch_bytes;
    char text[128]; /* of describe() */
} dr_cpu;

enum dr_cpu_isa { DR_CPU_BASE, DR_CPU_AVX2, DR_CPU_AVX512 };

static inline dr_cpu *dr_cpu_of(dr_backend *be) {
    return (dr_cpu *)be;
}

#endif
