/* fuzz_compare.c - any bytes as the body of POST /v1/jobs for a comparison, and as the parameters in a job's row: what
 * is taken must be within its limits, what is refused must say why. */
#include "core/base/status.h"
#include "server/compare_params.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 5 };

static void read_body(const json_t *o) {
    srv_compare_params p;
    srv_problem why = {0};
    if (!srv_compare_params_read(o, MOST, &p, &why)) {
        if (!why.row || !*why.pointer || !*why.detail) abort();
        return;
    }
    if (p.n_wishes && (p.n_wishes < SRV_COMPARE_MIN || p.n_wishes > DR_COMPARE_MAX)) abort();
    for (int i = 0; i < p.n_wishes; i++)
        if (!*p.wish[i].name || p.wish[i].version < 0) abort();
    if (!*p.dataset != (p.n_pictures > 0) || p.n_pictures > MOST) abort();
    for (size_t i = 0; i < p.n_pictures; i++) {
        const db_picture *q = &p.pictures[i];
        if (!*q->name || strchr(q->name, '/') || !db_sha_valid(q->sha256) || (*q->clean && !db_sha_valid(q->clean)))
            abort();
    }
    srv_compare_params_done(&p);
}

static void read_row(const uint8_t *data, size_t size) {
    srv_model_id v[DR_COMPARE_MAX];
    char *text = malloc(size + 1);
    if (!text) return;
    memcpy(text, data, size);
    text[size] = 0;
    int n = srv_compare_row_read(text, v);
    for (int i = 0; i < n; i++)
        if (!*v[i].name || v[i].version < 1 || !memchr(v[i].sha256, 0, sizeof v[i].sha256)) abort();
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *o = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(o)) read_body(o);
    json_decref(o);
    read_row(data, size);
    return 0;
}
