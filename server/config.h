/* config.h - the daemon's settings: one table, from which come the file parser, the environment names, the flags,
 * --help,
 * --dump-config and the option list of deraind.conf(5).
 *
 * Later sources win: defaults < file < environment DERAIND_<KEY> < flags. The result is one struct that is const from
 * the moment it is complete and is passed down; there is no global. */
#ifndef SRV_CONFIG_H
#define SRV_CONFIG_H

#include "core/base/buf.h"
#include "core/base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct srv_config {
    char *listen, *allowed_hosts, *token_file; /* owned, never NULL */
    bool insecure;
    char *data, *model, *backend, *precision, *plan_cache;
    int64_t workers, threads, batch, batch_window_ms, queue_max, job_attempts_max;
    int64_t mem_budget, body_max_bytes, pixels_max, side_max; /* mem_budget 0 = half of the memory */
    int64_t sync_wait_max_s, drain_s;
    int64_t result_ttl, spool_max_bytes, free_min_bytes, free_min_percent;
    int64_t dataset_files_max, dataset_bytes_max, archive_ratio_max, blob_ttl, compare_pictures_max;
    int64_t http_threads, connections_max, connections_per_ip;
    int64_t header_timeout_s, body_rate_min, body_grace_s, body_time_max_s;
    char *gate_promote; /* "auto" or "manual" */
    char *log_level;
    bool log_json;
} srv_config;

typedef enum srv_config_type {
    SRV_CONF_TEXT,
    SRV_CONF_INT,
    SRV_CONF_BYTES,
    SRV_CONF_SECONDS,
    SRV_CONF_BOOL
} srv_config_type;

typedef struct srv_config_row {
    const char *key; /* as in the file; flags use '-' for '_', the environment DERAIND_ and capitals */
    srv_config_type type;
    const char *init;    /* default, in the words of the file */
    int64_t min, max;    /* of numbers; BYTES and SECONDS in bytes and seconds */
    const char *choices; /* TEXT: "a|b|c", or NULL */
    size_t offset;       /* in srv_config */
    const char *arg, *help;
} srv_config_row;

extern const srv_config_row srv_config_rows[];
extern const size_t srv_config_n_rows;

/* What the command line asked for besides settings. */
typedef enum srv_config_ask { SRV_ASK_RUN, SRV_ASK_HELP, SRV_ASK_DUMP } srv_config_ask;

void srv_config_init(srv_config *c); /* zeroed; srv_config_done is safe on it */
void srv_config_done(srv_config *c);

/* All defaults. NOMEM. */
DR_MUSTUSE dr_status srv_config_defaults(srv_config *c, dr_error *err);
/* One setting from text. INVALID says key, value and what is allowed. */
DR_MUSTUSE dr_status srv_config_set(srv_config *c, const char *key, const char *value, dr_error *err);
/* The text of a file: `key = value` lines, '#' starts a comment. Errors name `name` and the line. */
DR_MUSTUSE dr_status srv_config_parse(srv_config *c, const char *name, const char *text, size_t len, dr_error *err);
/* Everything in its order. env is an environ-like list; default_file is read when it exists and no --config is given.
 */
DR_MUSTUSE dr_status srv_config_load(srv_config *c, int argc, char **argv, char **env, const char *default_file,
                                     srv_config_ask *ret_ask, dr_error *err);

void srv_config_help(dr_buf *out);
void srv_config_dump(const srv_config *c, dr_buf *out); /* a file that srv_config_parse reads back */

#endif
