/* training_params.c - see training_params.h. One table knows every member by name. */
#include "server/training_params.h"
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef enum kind { TEXT, INT, REAL } kind;
typedef struct row {
    const char *name;
    kind kind;
    size_t offset, cap; /* cap: of a TEXT */
    double min, max;
    const char *choices; /* TEXT: "|a|b|" */
} row;
#define AT(m) offsetof(srv_training_params, m)
#define T(m, choices)                                                                                                  \
    { #m, TEXT, AT(m), sizeof((srv_training_params *)0)->m, 0, 0, choices }
#define I(m, min, max)                                                                                                 \
    { #m, INT, AT(m), 0, min, max, NULL }
#define R(m, min, max)                                                                                                 \
    { #m, REAL, AT(m), 0, min, max, NULL }

static const row rows[] = {
    {"dataset", TEXT, AT(dataset), DB_ID, 0, 0, NULL},
    {"parent", TEXT, AT(parent), 96, 0, 0, NULL},
    {"preset", TEXT, AT(preset), 16, 0, 0, "|released|full|product|"},
    I(steps, 1, 1e8),
    I(time_budget_s, 1, 1e8),
    I(crop, 64, 2048),
    I(batch, 1, 64),
    I(micro_batch, 1, 64),
    I(threads, 1, 1024),
    I(ngf, 16, 256),
    I(blocks, 5, 32),
    I(ndf, 16, 256),
    I(warmup, 0, 1e8),
    I(seed, 1, 9e15),
    I(eval_every, 1, 1e8),
    I(eval_pictures, 1, 1e6),
    I(sample_every, 1, 1e8),
    I(metric_every, 1, 1e8),
    I(save_every, 1, 1e8),
    I(save_every_s, 1, 1e8),
    I(early_stop, 0, 1e6),
    R(lr, 0, 1),
    R(lr_f, 0, 1),
    R(w_gan, 0, 1e4),
    R(w_nce, 0, 1e4),
    R(w_idt, 0, 1e4),
    R(w_cycle, 0, 1e4),
    R(w_nce_extra, 0, 1e4),
    R(w_color, 0, 1e4),
    R(w_freq, 0, 1e4),
    R(w_transplant, 0, 1e4),
    R(w_brighter, 0, 1e4),
};
enum { N_ROWS = sizeof rows / sizeof *rows };

/* Of the gate: what each means stands with the gate. */
static const char *const gate_reals[] = {"transplant_drop_max", "rain_drop_min", "detail_min",     "clean_psnr_min",
                                         "psnr_drop_max",       "ssim_drop_max", "color_shift_max"};

static void *at(const srv_training_params *p, const row *r) {
    return (char *)(uintptr_t)p + r->offset;
}

static const row *find(const char *name) {
    for (size_t i = 0; i < N_ROWS; i++)
        if (!strcmp(rows[i].name, name)) return &rows[i];
    return NULL;
}

static bool bad(srv_problem *p, const char *name, const char *must) {
    char pointer[64];
    srv_problem_make(p, "invalid_member", "%s must be %s", name, must);
    snprintf(pointer, sizeof pointer, "/%.60s", name);
    srv_problem_point(p, pointer);
    return false;
}

static bool unknown(srv_problem *p, const char *name) {
    char pointer[64];
    srv_problem_make(p, "unknown_member", "unknown member '%.60s'", name);
    snprintf(pointer, sizeof pointer, "/%.60s", name);
    srv_problem_point(p, pointer);
    return false;
}

static bool read_row(const row *r, const json_t *v, srv_training_params *ret, srv_problem *p) {
    char must[96], choice[40];
    if (json_is_null(v)) return true; /* as if it were not there */
    if (r->kind == TEXT) {
        const char *s = json_string_value(v);
        if (!s || json_string_length(v) != strlen(s) || strlen(s) >= r->cap) return bad(p, r->name, "a short string");
        snprintf(choice, sizeof choice, "|%.30s|", s);
        if (r->choices && (strchr(s, '|') || !strstr(r->choices, choice)))
            return bad(p, r->name, "released, full or product");
        memcpy(at(ret, r), s, strlen(s) + 1);
        return true;
    }
    bool ok = r->kind == INT ? json_is_integer(v) : json_is_number(v);
    double d = json_number_value(v);
    if (!ok || !(d >= r->min && d <= r->max)) {
        snprintf(must, sizeof must, "%s from %.10g to %.10g", r->kind == INT ? "a whole number" : "a number", r->min,
                 r->max);
        return bad(p, r->name, must);
    }
    if (r->kind == INT)
        *(int64_t *)at(ret, r) = json_integer_value(v);
    else
        *(double *)at(ret, r) = d;
    return true;
}

static bool read_gate(json_t *v, srv_training_params *ret, srv_problem *p) {
    const char *key;
    json_t *m;
    if (json_is_null(v)) return true;
    if (!json_is_object(v)) return bad(p, "gate", "an object");
    json_object_foreach(v, key, m) {
        bool known = false;
        for (size_t i = 0; i < sizeof gate_reals / sizeof *gate_reals; i++) known |= !strcmp(key, gate_reals[i]);
        if (!strcmp(key, "make_default") && json_is_boolean(m)) continue;
        if (!strcmp(key, "make_default")) return bad(p, "gate/make_default", "true or false");
        if (!known) return unknown(p, key);
        if (!json_is_number(m)) return bad(p, "gate", "an object of numbers (and make_default)");
    }
    ret->gate = json_incref(v);
    return true;
}

bool srv_training_params_read(json_t *o, srv_training_params *ret, srv_problem *ret_problem) {
    srv_training_params p = {.warmup = -1,
                             .early_stop = -1,
                             .lr = -1,
                             .lr_f = -1,
                             .w_gan = -1,
                             .w_nce = -1,
                             .w_idt = -1,
                             .w_cycle = -1,
                             .w_nce_extra = -1,
                             .w_color = -1,
                             .w_freq = -1,
                             .w_transplant = -1,
                             .w_brighter = -1};
    const char *key;
    json_t *v;
    bool ok = true;
    json_object_foreach(o, key, v) {
        const row *r = find(key);
        if (!strcmp(key, "type") || !strcmp(key, "labels")) continue;
        ok = !strcmp(key, "gate") ? read_gate(v, &p, ret_problem)
             : r                  ? read_row(r, v, &p, ret_problem)
                                  : unknown(ret_problem, key);
        if (!ok) break;
    }
    if (ok && !*p.dataset) ok = bad(ret_problem, "dataset", "the id of a data set");
    if (ok && p.crop % 4) ok = bad(ret_problem, "crop", "a multiple of 4");
    if (ok && p.ngf % 16) ok = bad(ret_problem, "ngf", "a multiple of 16");
    if (ok && p.ndf % 16) ok = bad(ret_problem, "ndf", "a multiple of 16");
    if (ok && *p.parent && strcmp(p.parent, "none") && (p.ngf || p.blocks))
        ok = bad(ret_problem, p.ngf ? "ngf" : "blocks", "left out: the parent has it");
    if (!ok) {
        srv_training_params_done(&p);
        return false;
    }
    *ret = p;
    return true;
}

void srv_training_params_done(srv_training_params *p) {
    json_decref(p->gate);
    p->gate = NULL;
}

json_t *srv_training_params_json(const srv_training_params *p) {
    json_t *o = json_object();
    int bad_sets = 0;
    for (size_t i = 0; o && i < N_ROWS; i++) {
        const row *r = &rows[i];
        json_t *v = NULL;
        if (r->kind == TEXT && *(char *)at(p, r)) v = json_string(at(p, r));
        if (r->kind == INT && (double)*(int64_t *)at(p, r) >= r->min) v = json_integer(*(int64_t *)at(p, r));
        if (r->kind == REAL && *(double *)at(p, r) >= r->min) v = json_real(*(double *)at(p, r));
        if (v) bad_sets += json_object_set_new(o, r->name, v) != 0;
    }
    if (o && p->gate) bad_sets += json_object_set(o, "gate", p->gate) != 0;
    if (!bad_sets) return o;
    json_decref(o);
    return NULL;
}

/* Of a fine-tune with `product`: half the preset's rate, broad colours tied to the input's so that it does not slowly
 * darken what it derains, and an end when five evaluations in a row were worse than the best, which comes after some
 * hundred steps. Measured on photographs (docs/training.md). */
static const double FINE_TUNE_LR = 1e-4, FINE_TUNE_W_COLOR = 1;
enum { FINE_TUNE_PATIENCE = 5 };

static void put(int64_t *v, int64_t d) {
    if (*v <= 0) *v = d > 0 ? d : 1;
}

void srv_training_params_fill(srv_training_params *p, bool has_parent, int threads) {
    if (!*p->preset) snprintf(p->preset, sizeof p->preset, "product");
    put(&p->steps, has_parent ? 2000 : strcmp(p->preset, "product") ? 200000 : 20000);
    put(&p->threads, threads);
    put(&p->seed, 1);
    put(&p->eval_every, p->steps / 10);
    put(&p->eval_pictures, 20);
    put(&p->sample_every, p->steps / 20);
    put(&p->metric_every, (p->steps + 1999) / 2000);
    if (has_parent && p->lr < 0 && !strcmp(p->preset, "product")) p->lr = FINE_TUNE_LR;
    if (has_parent && p->w_color < 0 && !strcmp(p->preset, "product")) p->w_color = FINE_TUNE_W_COLOR;
    if (has_parent && p->early_stop < 0) p->early_stop = FINE_TUNE_PATIENCE;
    if (p->early_stop < 0) p->early_stop = 0;
    put(&p->save_every, 200);
    put(&p->save_every_s, 600);
}

int64_t srv_training_warmup(const srv_training_params *p) {
    return p->steps / 10 < 500 ? p->steps / 10 : 500;
}

static void set_int(int *v, int64_t n) {
    if (n > 0) *v = (int)n;
}

void srv_training_params_apply(const srv_training_params *p, dr_train_opts *o) {
    o->preset = p->preset;
    o->steps = p->steps;
    set_int(&o->crop, p->crop);
    set_int(&o->batch, p->batch);
    set_int(&o->micro_batch, p->micro_batch);
    set_int(&o->threads, p->threads);
    set_int(&o->ngf, p->ngf);
    set_int(&o->blocks, p->blocks);
    set_int(&o->ndf, p->ndf);
    o->seed = (uint64_t)p->seed;
    o->warmup = (double)p->warmup;
    o->lr = p->lr;
    o->lr_f = p->lr_f;
    o->w_gan = p->w_gan;
    o->w_nce = p->w_nce;
    o->w_idt = p->w_idt;
    o->w_cycle = p->w_cycle;
    o->w_nce_extra = p->w_nce_extra;
    o->w_color = p->w_color;
    o->w_freq = p->w_freq;
    o->w_transplant = p->w_transplant;
    o->w_brighter = p->w_brighter;
}
