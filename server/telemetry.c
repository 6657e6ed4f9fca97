/* telemetry.c - see telemetry.h. */
#include "server/telemetry.h"
#include "core/base/clock.h"
#include <stdio.h>

static const double bound[SRV_HIST_BUCKETS] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15,
                                               0.25,  0.4,    0.5,   1,    2.5,   5,    15,  60};

static const struct {
    const char *name, *help;
} counters[SRV_N_COUNTERS] = {
    [SRV_JOBS_ACCEPTED] = {"derain_jobs_accepted_total", "jobs that became a row"},
    [SRV_JOBS_SUCCEEDED] = {"derain_jobs_succeeded_total", "jobs that ended with a result"},
    [SRV_JOBS_FAILED] = {"derain_jobs_failed_total", "jobs that ended with a problem"},
    [SRV_JOBS_CANCELLED] = {"derain_jobs_cancelled_total", "jobs cancelled while they ran"},
    [SRV_JOBS_REQUEUED] = {"derain_jobs_requeued_total", "running jobs put back by an orderly stop"},
    [SRV_JOBS_REPLAYED] = {"derain_jobs_replayed_total",
                           "requests answered from an earlier one with the same Idempotency-Key"},
    [SRV_JOBS_REFUSED_FULL] = {"derain_jobs_refused_full_total", "requests refused because the queue was full"},
    [SRV_JOBS_REFUSED_DISK] = {"derain_jobs_refused_disk_total", "requests refused because the disk was full"},
    [SRV_JOBS_PRUNED] = {"derain_jobs_pruned_total", "finished jobs removed by retention"},
    [SRV_CLIENTS_LEFT] = {"derain_clients_left_total", "clients that left while their request waited"},
    [SRV_FRAMING_REFUSED] = {"derain_framing_refused_total", "requests refused by the framing guard"},
    [SRV_BODIES_SLOW] = {"derain_bodies_slow_total", "uploads cut off because they were too slow"},
    [SRV_BYTES_IN] = {"derain_http_bytes_in_total", "body bytes received"},
    [SRV_BYTES_OUT] = {"derain_http_bytes_out_total", "body bytes answered"},
    [SRV_CPU_TAKEOVERS] = {"derain_cpu_takeovers_total", "pictures that the CPU took over from the GPU"},
    [SRV_RANGE_RERUNS] = {"derain_range_reruns_total",
                          "pictures computed again in bf16, since f16 could not hold their values"},
    [SRV_BATCHES] = {"derain_batches_total", "runs of the network on the GPU"},
    [SRV_BATCH_PICTURES] = {"derain_batch_pictures_total", "pictures in them"},
    [SRV_TRAIN_PREEMPTIONS] = {"derain_training_preemptions_total", "times that a training stood still for a picture"},
    [SRV_TRAIN_STEPS] = {"derain_training_steps_total", "optimisation steps made"},
    [SRV_TRAIN_SKIPPED] = {"derain_training_steps_skipped_total",
                           "of these left out since a loss or a gradient was not finite"},
};

void srv_hist_add(srv_hist *h, double seconds) {
    int i = 0;
    if (!(seconds >= 0)) return; /* unknown */
    while (i < SRV_HIST_BUCKETS && seconds > bound[i]) i++;
    atomic_fetch_add_explicit(&h->bucket[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum_us, (uint64_t)(seconds * 1e6), memory_order_relaxed);
}

void srv_tele_init(srv_tele *t) {
    *t = (srv_tele){0};
    t->started_ns = dr_clock_ns();
    t->started_wall_ms = dr_clock_wall_ms();
}

void srv_count(srv_tele *t, int counter, uint64_t n) {
    atomic_fetch_add_explicit(&t->counter[counter], n, memory_order_relaxed);
}

void srv_count_status(srv_tele *t, int status) {
    if (status >= 100 && status < 600 && status % 100 < 64)
        atomic_fetch_add_explicit(&t->status[status / 100][status % 100], 1, memory_order_relaxed);
}

static void head(dr_buf *out, const char *name, const char *help, const char *type) {
    dr_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void srv_tele_gauge(dr_buf *out, const char *name, const char *help, double value) {
    head(out, name, help, "gauge");
    dr_buf_printf(out, "%s %.17g\n", name, value);
}

void srv_tele_counter(dr_buf *out, const char *name, const char *help, uint64_t value) {
    head(out, name, help, "counter");
    dr_buf_printf(out, "%s %llu\n", name, (unsigned long long)value);
}

static void write_hist(dr_buf *out, const char *name, const char *help, srv_hist *h) {
    uint64_t sum = 0;
    head(out, name, help, "histogram");
    for (int i = 0; i < SRV_HIST_BUCKETS; i++) {
        sum += atomic_load(&h->bucket[i]);
        dr_buf_printf(out, "%s_bucket{le=\"%g\"} %llu\n", name, bound[i], (unsigned long long)sum);
    }
    sum += atomic_load(&h->bucket[SRV_HIST_BUCKETS]);
    dr_buf_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.6f\n%s_count %llu\n", name, (unsigned long long)sum, name,
                  (double)atomic_load(&h->sum_us) / 1e6, name, (unsigned long long)sum);
}

void srv_tele_write(srv_tele *t, dr_buf *out) {
    head(out, "derain_http_responses_total", "answers by status", "counter");
    for (int i = 1; i < 6; i++)
        for (int j = 0; j < 64; j++) {
            uint64_t n = atomic_load(&t->status[i][j]);
            if (n)
                dr_buf_printf(out, "derain_http_responses_total{code=\"%d\"} %llu\n", i * 100 + j,
                              (unsigned long long)n);
        }
    for (int i = 0; i < SRV_N_COUNTERS; i++) {
        srv_tele_counter(out, counters[i].name, counters[i].help, atomic_load(&t->counter[i]));
    }
    write_hist(out, "derain_http_request_seconds", "time from request line to the end of the answer", &t->request);
    write_hist(out, "derain_job_queue_seconds", "time that jobs waited", &t->queue);
    write_hist(out, "derain_job_decode_seconds", "time of decoding", &t->decode);
    write_hist(out, "derain_job_infer_seconds", "time of the network; of a batch, for each of its pictures", &t->infer);
    write_hist(out, "derain_batch_wait_seconds", "what decoded pictures waited for their run on the GPU",
               &t->batch_wait);
    write_hist(out, "derain_job_encode_seconds", "time of encoding", &t->encode);
    write_hist(out, "derain_training_yield_seconds",
               "what a derain job waited for the op at hand of a training or comparison, where it found one",
               &t->yield);
    srv_tele_gauge(out, "derain_http_requests_active", "requests being worked on",
                   (double)atomic_load(&t->requests_active));
    srv_tele_gauge(out, "derain_http_connections", "open connections", (double)atomic_load(&t->connections));
    srv_tele_gauge(out, "derain_start_time_seconds", "when the daemon started", (double)t->started_wall_ms / 1000);
    srv_tele_gauge(out, "derain_uptime_seconds", "how long it has been up",
                   (double)(dr_clock_ns() - t->started_ns) / 1e9);
}
