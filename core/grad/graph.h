/* graph.h - records what a network computes; runs it at once (TRAIN), later (EVAL) or hands it to the planner (PLAN).
 *
 * A dr_var is the index of a node; the order of recording is a topological order. The first error sticks: builders
 * after it do nothing and return -1, so that network code reads like the formula and looks at dr_graph_status() once.
 *   TRAIN  every node runs when it is recorded; dr_backward() may follow, any number of times.
 *   EVAL   nodes are only recorded; dr_graph_run() computes them with the simple kernels and reuses memory as soon as
 *          the last reader is done.
 *   PLAN   nodes are only recorded; core/model/plan.c reads g->nodes and builds a fused, planned program.
 * Tensors come from the pool that the caller gives; they live until the caller resets it, after dr_graph_clear(). */
#ifndef DR_GRAD_GRAPH_H
#define DR_GRAD_GRAPH_H

#include "core/grad/op.h"
#include "core/tensor/pool.h"

typedef enum dr_mode { DR_MODE_TRAIN, DR_MODE_EVAL, DR_MODE_PLAN } dr_mode;

typedef struct dr_graph {
    dr_backend *be; /* NULL is fine in PLAN */
    dr_pool *pool;
    dr_mode mode;
    bool no_grad; /* nodes recorded while this is set pass no gradient and leave parameters alone */
    dr_node *nodes;
    int n, cap;
    struct dr_spare *spares; /* tensors that can be used again */
    int n_spares, cap_spares;
    /* Asked before each op is computed, forward and backward: false breaks off (CANCELLED). NULL = not asked. Where
     * training lets other work pass; it touches no tensor, so the bits are the same with and without it. Where it is
     * set, the device's queue is kept short too (dr_be_pace). */
    bool (*between)(void *arg);
    void *between_arg;
    dr_error err;
} dr_graph;

void dr_graph_init(dr_graph *g, dr_backend *be, dr_pool *pool, dr_mode mode);
void dr_graph_clear(dr_graph *g); /* forget all nodes and the error; the caller resets the pool */
void dr_graph_done(dr_graph *g);
DR_MUSTUSE dr_status dr_graph_status(const dr_graph *g, dr_error *err); /* copies the first error */
dr_status dr_graph_fail(dr_graph *g, dr_status code, const char *fmt, ...) DR_PRINTF(3, 4);

dr_shape dr_var_shape(const dr_graph *g, dr_var v);
dr_tensor dr_var_tensor(const dr_graph *g, dr_var v); /* TRAIN; EVAL after the run */
dr_tensor dr_var_grad(const dr_graph *g, dr_var v);   /* after dr_backward, of inputs recorded with needs_grad */

/* EVAL: compute everything that `keep` needs; its tensor stays valid until the pool is reset. */
DR_MUSTUSE dr_status dr_graph_run(dr_graph *g, dr_var keep, dr_error *err);

/* d(sum of weights[i]*losses[i]); parameter gradients are accumulated into dr_param.grad. */
DR_MUSTUSE dr_status dr_backward(dr_graph *g, const dr_var *losses, const float *weights, int n, dr_error *err);

/* ---- builders, one per op (core/grad/ops) ---- */
dr_var dr_input(dr_graph *g, dr_tensor x, bool needs_grad); /* PLAN: data stays NULL */
dr_var dr_detach(dr_graph *g, dr_var x);                    /* TRAIN: same value, no gradient */
dr_var dr_conv2d(dr_graph *g, dr_var x, dr_param *w, dr_param *b, dr_conv2d_desc d);
dr_var dr_instance_norm(dr_graph *g, dr_var x, float eps, dr_act act);
dr_var dr_activation(dr_graph *g, dr_var x, dr_act act);
dr_var dr_pad_reflect(dr_graph *g, dr_var x, int p);
dr_var dr_blur_down(dr_graph *g, dr_var x);
dr_var dr_blur_up(dr_graph *g, dr_var x);
dr_var dr_add(dr_graph *g, dr_var a, dr_var b);
dr_var dr_add_bcast(dr_graph *g, dr_var a, float s, dr_var b); /* a + s*b, b may have one channel */
dr_var dr_scale(dr_graph *g, dr_var x, float s);
dr_var dr_clamp(dr_graph *g, dr_var x, float lo, float hi);
dr_var dr_gather_patches(dr_graph *g, dr_var x, const int32_t *idx_device, int count);
dr_var dr_linear(dr_graph *g, dr_var x, dr_param *w, dr_param *b);
dr_var dr_l2_normalize(dr_graph *g, dr_var x);
dr_var dr_loss_nce(dr_graph *g, dr_var q, dr_var k, int groups, float temperature); /* no gradient to keys */
dr_var dr_loss_gan(dr_graph *g, dr_var scores, dr_gan_loss mode);
dr_var dr_loss_l1(dr_graph *g, dr_var a, dr_var target); /* no gradient to target */
/* mean |FFT2(a) - FFT2(target)| over all bins, orthonormal, of pictures; no gradient to target */
dr_var dr_loss_freq(dr_graph *g, dr_var a, dr_var target);

/* Before a piece of work: pace and `between`, as above. */
DR_MUSTUSE dr_status dr_graph_give_way(dr_graph *g, dr_error *err);

/* For the builders: append a node, check its inputs, run it in TRAIN. */
dr_var dr_graph_append(dr_graph *g, dr_node n);

#endif
