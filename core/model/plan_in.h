/* plan_in.h - what plan.c and bands.c share of a plan. Nobody else sees it. */
#ifndef DR_MODEL_PLAN_IN_H
#define DR_MODEL_PLAN_IN_H

#include "core/model/fuse.h"
#include "core/model/plan.h"

typedef enum dr_pass {
    DR_PASS_WHOLE, /* one call on whole values */
    DR_PASS_BANDS, /* band by band: from kept values through those that are not, into one that is or its statistics */
    DR_PASS_NONE   /* its value is not kept: whoever needs it makes its rows */
} dr_pass;

struct dr_plan {
    dr_backend *be;
    dr_node *nodes; /* copied from the graph */
    int n;
    bool *kept;   /* each node: its value, if it is made at all, lies in the block as a whole */
    int *made_by; /* each node: the step that makes it, -1 = none */
    size_t
        *offset; /* in the block: of the n values, of the statistics of n norms, of the working memory of each step */
    dr_step *steps;
    struct dr_plan_step {
        dr_pass pass;
        dr_slot *slot; /* of its convolution; NULL = none */
        size_t area;   /* BANDS: its working memory, bytes */
        double cost;   /* its share of the progress */
    } * extra;         /* of each step */
    double total_cost;
    int n_steps;
    dr_var input, output;
    size_t bytes, conv_bytes;
    int band_rows;   /* of the input; 0 = no bands */
    float *pairs;    /* statistics of a band, on the host; NULL without bands */
    double *moments; /* mean and sum of squares about it, of all bands so far */
    dr_pool pool;    /* for what op rows keep during a run */
    struct {
        dr_slot slot;   /* a run, for replaying; filled or not */
        void *block;    /* the block it works on, or that of the last plain run */
        int n_failures; /* in a row; at FAILURES_MAX no more tries */
    } recording;
};

/* A run on its way. */
typedef struct dr_plan_run_state {
    void *block;
    const dr_plan_watch *watch; /* may be NULL */
    double done;                /* cost of what has been called so far */
} dr_plan_run_state;

enum { DR_READS_MAX = 3 };
/* The values that a step reads. */
int dr_plan_reads(const dr_plan *p, const dr_step *s, int ret[DR_READS_MAX]);
/* May it write its result over an input of the same shape? */
bool dr_plan_in_place(const dr_plan *p, const dr_step *s);
/* What step i costs when it makes a tensor of this shape (a pass over memory against a multiply-add). */
double dr_plan_cost(const dr_plan *p, int i, dr_shape y);

/* Is the run wanted still? Asked before each call; CANCELLED. Then dr_plan_did() with its cost. */
DR_MUSTUSE dr_status dr_plan_ask(const dr_plan *p, const dr_plan_watch *watch, dr_error *err);
void dr_plan_did(const dr_plan *p, dr_plan_run_state *r, double cost);
/* Step i on these tensors: in[0] its x or first input, in[1] its skip or second input (data NULL where it has none);
 * whole values or rows of them. */
DR_MUSTUSE dr_status dr_plan_call(dr_plan *p, int i, void *block, const dr_tensor in[2], dr_tensor y, dr_error *err);
float *dr_plan_stats(const dr_plan *p, dr_var norm, void *block); /* NULL for norm -1 */
dr_tensor dr_plan_tensor(const dr_plan *p, dr_var v, void *block);

#endif
