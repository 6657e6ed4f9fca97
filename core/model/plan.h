/* plan.h - a recorded network as a program: fused steps, one memory block with offsets, slots for prepared weights.
 *
 * dr_plan_build() reads the nodes of a graph in PLAN mode (one input, one output) and keeps what it needs of them, so
 * the graph may go away. It
 *   - replaces instance norm and what follows it (reflect pad, blur down, blur up, adding a skip) by the backend's
 * fused entries where it has them; a padded tensor then serves as the skip as well, so that the unpadded one never
 * exists;
 *   - finds how long every value lives, lets element-wise steps work in place, and packs the values into one block
 *     of device memory;
 *   - gives every convolution a slot, so that its weights are prepared once.
 * With a dr_plan_bands not all values are made as a whole: those above a size are made by rows, when and where they are
 * read, as often as that is (bands.h). That takes less memory and more work, and gives the same picture but for the
 * last digit of some sums. Which bands to take for how much memory: fit.h.
 *
 * Where the backend records, a plan for up to a megapixel is recorded on its second run with a block and replayed from
 * then on; the recording is made anew when the block or the backend's own memory has moved. Errors of that are no
 * errors of the run: it goes on step by step. The block belongs to the caller, who may share it between plans: nothing
 * in it outlives a run. The parameters and slots are borrowed. One owner at a time. */
#ifndef DR_MODEL_PLAN_H
#define DR_MODEL_PLAN_H

#include "core/grad/graph.h"
#include <stdatomic.h>

typedef struct dr_plan dr_plan;

typedef struct dr_plan_bands {
    size_t kept_max; /* bytes; larger values are not kept, but for input and output; of what is cheap to make, half */
    int rows;        /* of the input that a band has; those of other values in proportion, multiples of 4 */
    double cost_max; /* no plan that takes more work (dr_plan_total_cost) */
} dr_plan_bands;

/* bands: NULL = all values as a whole. TOO_LARGE: above bands->cost_max; UNSUPPORTED: bands of such a graph, or with
 * such a backend, are not possible.
 * params: the network's parameters; slots: one for each of them, zeroed at first, cleared by the caller; NULL: none. */
DR_MUSTUSE dr_status dr_plan_build(const dr_graph *g, dr_var input, dr_var output, dr_backend *be, bool fuse,
                                   const dr_param *params, int n_params, dr_slot *slots, const dr_plan_bands *bands,
                                   dr_plan **ret, dr_error *err);
void dr_plan_destroy(dr_plan *p);

size_t dr_plan_bytes(const dr_plan *p);      /* of the block */
size_t dr_plan_conv_bytes(const dr_plan *p); /* largest input plus output of one convolution: what scratch grows with */
int dr_plan_steps(const dr_plan *p);         /* calls of the backend in a run without bands */
double dr_plan_total_cost(const dr_plan *p); /* multiply-adds, and 20 for each value that is written */
bool dr_plan_is_banded(const dr_plan *p);
size_t dr_plan_largest(const dr_plan *p);                /* bytes of its largest value that is made */
dr_tensor dr_plan_input(const dr_plan *p, void *block);  /* where to upload before the run */
dr_tensor dr_plan_output(const dr_plan *p, void *block); /* where to download from after it */

typedef struct dr_plan_watch {
    atomic_bool *cancel;     /* looked at between steps (before a recorded run); NULL = never */
    _Atomic float *progress; /* receives from..to as the work goes; NULL = not wanted */
    float from, to;
    bool (*between)(void *arg); /* asked between steps (before a recorded run): false = CANCELLED; NULL = not asked */
    void *between_arg;
    bool gives_way; /* between lets others pass: such runs keep the device's queue short and are not recorded */
} dr_plan_watch;
/* block: dr_plan_bytes, 64-byte aligned. CANCELLED, or what the backend says. watch may be NULL. */
DR_MUSTUSE dr_status dr_plan_run(dr_plan *p, void *block, const dr_plan_watch *watch, dr_error *err);

#endif
