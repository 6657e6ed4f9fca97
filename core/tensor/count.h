/* count.h - a backend that computes nothing and counts what it would hold: whoever records a network on it learns, by
 * the very calls that the real run makes, how much memory that run takes.
 *
 * Device memory is addresses without memory behind them; nothing is ever freed. Tensors have the CPU's sizes, or a
 * GPU's (cuda/kern.h: features take `wide` bytes a value). Downloads of one value give 0, of more they give nothing. */
#ifndef DR_TENSOR_COUNT_H
#define DR_TENSOR_COUNT_H

#include "core/tensor/backend.h"

typedef struct dr_count {
    dr_backend base;
    int threads;    /* of the run that is planned: its convolutions add up in as many places */
    size_t held;    /* bytes allocated so far */
    size_t scratch; /* the most that one convolution needs beside its operands */
    int wide;       /* a GPU: bytes of a feature's value; 0 = the CPU */
} dr_count;

void dr_count_init(dr_count *c, int threads);
void dr_count_init_gpu(dr_count *c, bool bf16);

#endif
