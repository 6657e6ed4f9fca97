/* telemetry.h - counters and histograms of the running service, and their Prometheus text. Atomics only: any thread may
 * count at any time. Gauges that others own (queue, store) are read when /metrics is asked. */
#ifndef SRV_TELEMETRY_H
#define SRV_TELEMETRY_H

#include "core/base/buf.h"
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define SRV_HIST_BUCKETS 16

typedef struct srv_hist { /* seconds */
    _Atomic uint64_t bucket[SRV_HIST_BUCKETS + 1], count, sum_us;
} srv_hist;
void srv_hist_add(srv_hist *h, double seconds);

enum {
    SRV_JOBS_ACCEPTED,
    SRV_JOBS_SUCCEEDED,
    SRV_JOBS_FAILED,
    SRV_JOBS_CANCELLED,
    SRV_JOBS_REQUEUED,
    SRV_JOBS_REPLAYED,
    SRV_JOBS_REFUSED_FULL,
    SRV_JOBS_REFUSED_DISK,
    SRV_JOBS_PRUNED,
    SRV_CLIENTS_LEFT,
    SRV_FRAMING_REFUSED,
    SRV_BODIES_SLOW,
    SRV_BYTES_IN,
    SRV_BYTES_OUT,
    SRV_CPU_TAKEOVERS,
    SRV_RANGE_RERUNS,
    SRV_BATCHES,
    SRV_BATCH_PICTURES,
    SRV_TRAIN_PREEMPTIONS,
    SRV_TRAIN_STEPS,
    SRV_TRAIN_SKIPPED,
    SRV_N_COUNTERS
};

typedef struct srv_tele {
    int64_t started_ns, started_wall_ms;
    _Atomic uint64_t counter[SRV_N_COUNTERS];
    _Atomic uint64_t status[6][64]; /* answers: [hundreds][rest], 64 = all that we send */
    srv_hist request, queue, decode, infer, encode;
    srv_hist batch_wait; /* what decoded pictures waited for a run on the GPU */
    srv_hist yield;      /* what derain jobs waited for the training or a comparison to stand still */
    _Atomic int64_t requests_active, connections;
    atomic_bool device_lost; /* a GPU failed for good; the CPU goes on */
} srv_tele;

void srv_tele_init(srv_tele *t);
void srv_count(srv_tele *t, int counter, uint64_t n);
void srv_count_status(srv_tele *t, int status);
/* Our own counters as Prometheus text 0.0.4. */
void srv_tele_write(srv_tele *t, dr_buf *out);
/* One line with its HELP and TYPE. */
void srv_tele_gauge(dr_buf *out, const char *name, const char *help, double value);
void srv_tele_counter(dr_buf *out, const char *name, const char *help, uint64_t value);

#endif
