/* gate.h - who computes: derain requests first, then a comparison, the training in what they leave.
 *
 * A worker holds a ticket while its network runs. The training asks the gate between any two of its ops
 * (core/trainer.h, dr_trainer_set_yield): with a ticket waiting or held it stands still, with all its state in place,
 * so that a request waits for the op at hand and for no more. On a GPU an op only queues its work: the engine keeps
 * that queue at a few milliseconds (dr_be_pace), and whoever is to stand still drains it first (`drain` below), so that
 * a ticket waits for those and then has the device alone. It cannot starve either: after SRV_GATE_PARKED_MS of
 * standing still it takes a turn of SRV_GATE_TURN_MS beside the tickets, which costs them at most that share. Tickets
 * pass in a turn as well.
 *
 * A comparison (server/comparer.h) stands between the two. To the training it is a ticket; to the tickets it is like
 * the training: it asks between any two of its layers and stands aside while one waits or is held, with the same turns
 * against starving. */
#ifndef SRV_GATE_H
#define SRV_GATE_H

#include "core/base/status.h"
#include "server/telemetry.h"
#include <stdatomic.h>
#include <stdbool.h>

typedef struct srv_gate srv_gate;

enum { SRV_GATE_PARKED_MS = 1000, SRV_GATE_TURN_MS = 100 };

/* Before standing still: returns when the device has done what the caller has queued. */
typedef void srv_gate_drain(void *arg);

/* waits receives what each ticket waited for the training, preemptions how often that had to stop; both are borrowed.
 */
DR_MUSTUSE dr_status srv_gate_open(srv_hist *waits, _Atomic uint64_t *preemptions, srv_gate **ret, dr_error *err);
void srv_gate_close(srv_gate *g); /* nobody may use it any more; NULL is fine */

/* Tickets, from any thread. NULL is a gate that is always open. */
void srv_gate_enter(srv_gate *g);
void srv_gate_leave(srv_gate *g);

/* The comparison, one thread. Between begin and end it counts as computing. False: *stop was set meanwhile, and it does
 * not compute (end is still called); whoever sets it calls srv_gate_wake(). */
bool srv_gate_side_begin(srv_gate *g, const atomic_bool *stop);
/* Between two layers; drain NULL = nothing is queued. */
bool srv_gate_side_pass(srv_gate *g, const atomic_bool *stop, srv_gate_drain *drain, void *arg);
void srv_gate_side_end(srv_gate *g);
void srv_gate_wake(srv_gate *g);

/* The training, one thread. Between begin and end it counts as computing. */
void srv_gate_begin(srv_gate *g); /* waits like pass */
void srv_gate_end(srv_gate *g);
/* The same two as call-backs; arg is the gate. */
void srv_gate_begin_arg(void *arg);
void srv_gate_end_arg(void *arg);
/* Between two ops: returns when the training may go on. drain NULL = nothing is queued. */
void srv_gate_pass(srv_gate *g, srv_gate_drain *drain, void *arg);
void srv_gate_hurry(srv_gate *g, bool on); /* on: it no longer waits for tickets that are held, to end soon */

/* What became of the time since the gate was opened, what goes on now included. Tickets count each for itself, so that
 * two held for a second are two seconds; a training or comparison between begin and end is busy where it does not wait.
 */
enum { SRV_GATE_DERAIN, SRV_GATE_COMPARISON, SRV_GATE_TRAINING, SRV_GATE_USERS };
typedef struct srv_gate_times {
    double busy[SRV_GATE_USERS], waited[SRV_GATE_USERS]; /* seconds */
} srv_gate_times;
void srv_gate_read(srv_gate *g, srv_gate_times *ret);

#endif
