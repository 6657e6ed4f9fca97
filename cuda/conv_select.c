/* conv_select.c - candidates in order: for every tier, the heuristic's list (mode A), then the fallback list, which is
 * only asked for when the first list has run out. Refusals are skipped; the last one's reason is kept for the error. */
#include "cuda/conv_select.h"

#include <stdio.h>
#include <stdlib.h>

enum { N_LISTS = 2 };

struct cv_select {
    const cg_target *target;
    cv_kind kind;
    cv_shape shape;
    cg_graph *graph;
    cg_configs list[N_LISTS]; /* configurations given away are NULL */
    bool asked[N_LISTS];
    int tier, i_list, i;
    dr_error why;
};

int cv_tier(cg_traits t, dk_type type) {
    if (t.nondeterministic) return -1;
    bool jit = t.compiles || t.cublaslt;
    if (type != DK_F32) return jit ? 2 : t.tensor_core && !t.reduced && !t.transform ? 0 : 1;
    if (t.tensor_core || t.reduced) return 2;
    return jit || t.transform ? 1 : 0;
}

bool cv_same_id(const cv_plan_id *a, const cv_plan_id *b) {
    if (a->engine != b->engine || a->n_knobs != b->n_knobs) return false;
    for (int i = 0; i < a->n_knobs; i++)
        if (a->knob[i].type != b->knob[i].type || a->knob[i].value != b->knob[i].value) return false;
    return true;
}

void cv_shape_text(cv_kind kind, cv_shape s, char *ret, size_t cap) {
    static const char *const kinds[] = {"forward", "data gradient", "weight gradient"};
    snprintf(ret, cap, "%s %s %dx%dx%dx%d to %d, %dx%d pad %d", kinds[kind], dk_type_name(s.type), s.n, s.i, s.h, s.w,
             s.o, s.k, cv_kw(s), s.pad);
}

dr_status cv_select_open(const cg_target *t, cv_kind kind, cv_shape s, cv_select **ret, dr_error *err) {
    static const cg_op ops[] = {
        [CV_FORWARD] = CG_FORWARD, [CV_BACKWARD_DATA] = CG_BACKWARD_DATA, [CV_BACKWARD_WEIGHTS] = CG_BACKWARD_WEIGHTS};
    static const cudnnDataType_t types[] = {
        [DK_F32] = CUDNN_DATA_FLOAT, [DK_BF16] = CUDNN_DATA_BFLOAT16, [DK_F16] = CUDNN_DATA_HALF};
    const cg_conv c = {.n = s.n,
                       .i = s.i,
                       .h = s.h,
                       .w = s.w,
                       .o = s.o,
                       .k = s.k,
                       .kw = cv_kw(s),
                       .pad = s.pad,
                       .type = types[s.type]};
    cv_select *r = calloc(1, sizeof *r);
    if (!r) return t->host->fail(err, DR_NOMEM, "out of memory for a convolution's candidates");
    *r = (cv_select){.target = t, .kind = kind, .shape = s};
    dr_status status = cg_graph_create(t, ops[kind], &c, &r->graph, err);
    if (status) {
        free(r);
        return status;
    }
    *ret = r;
    return DR_OK;
}

void cv_select_close(cv_select *c) {
    if (!c) return;
    for (int l = 0; l < N_LISTS; l++) cg_configs_done(&c->list[l]);
    cg_graph_destroy(c->graph);
    free(c);
}

/* A plan that passes the rules about workspace, or the reason in c->why. */
static bool is_within(cv_select *c, cg_plan *p) {
    if (p->workspace <= CV_MAX_WORKSPACE) return true;
    c->why = (dr_error){0};
    c->target->host->fail(&c->why, DR_BACKEND, "engine %d wants %zu MB of workspace", p->id.engine, p->workspace >> 20);
    cg_plan_done(p);
    return false;
}

/* The next configuration of the wanted tier, taken out of its list; NULL at the end. */
static cudnnBackendDescriptor_t take(cv_select *c) {
    for (; c->tier < CV_N_TIERS; c->tier++, c->i_list = 0) {
        for (; c->i_list < N_LISTS; c->i_list++, c->i = 0) {
            cg_configs *list = &c->list[c->i_list];
            if (!c->asked[c->i_list]) {
                c->asked[c->i_list] = true;
                dr_error why = {0};
                dr_status s = cg_heuristics(c->target, c->graph,
                                            c->i_list ? CUDNN_HEUR_MODE_FALLBACK : CUDNN_HEUR_MODE_A, list, &why);
                if (s || (!list->n && why.code && !c->why.code)) c->why = why;
            }
            while (c->i < list->n) {
                cudnnBackendDescriptor_t d = list->d[c->i++];
                cg_traits t;
                dr_error why = {0};
                if (!d) continue;
                if (cg_traits_of(c->target, d, &t, &why)) {
                    c->why = why;
                    continue;
                }
                if (cv_tier(t, c->shape.type) != c->tier) continue;
                list->d[c->i - 1] = NULL;
                return d;
            }
        }
    }
    return NULL;
}

dr_status cv_select_next(cv_select *c, cg_plan *ret, dr_error *err) {
    for (cudnnBackendDescriptor_t d; (d = take(c));) {
        dr_error why = {0};
        cg_plan p;
        if (cg_plan_from_config(c->target, d, &p, &why)) {
            c->why = why;
        } else if (is_within(c, &p)) {
            *ret = p;
            return DR_OK;
        }
    }
    char what[128];
    cv_shape_text(c->kind, c->shape, what, sizeof what);
    c->target->host->fail(err, DR_BACKEND,
                          "convolution, %s: no deterministic cuDNN plan within %zu MB of workspace%s%s", what,
                          CV_MAX_WORKSPACE >> 20, c->why.text[0] ? "; last: " : "", c->why.text);
    return DR_BACKEND;
}

dr_status cv_select_named(cv_select *c, const cv_plan_id *id, cg_plan *ret, dr_error *err) {
    cg_plan p;
    dr_status s = cg_plan_from_id(c->target, c->graph, id, &p, err);
    if (s) return s;
    int tier = cv_tier(p.traits, c->shape.type);
    if (tier == 0 && p.workspace <= CV_MAX_WORKSPACE) {
        *ret = p;
        return DR_OK;
    }
    c->target->host->fail(err, DR_UNSUPPORTED, "engine %d breaks the rules: tier %d, %zu MB of workspace", id->engine,
                          tier, p.workspace >> 20);
    cg_plan_done(&p);
    return DR_UNSUPPORTED;
}
