/* cudnn_graph.c - descriptors, operation graph, heuristics, plans, execution.
 *
 * Descriptors are made through a builder that remembers the first error and every descriptor it made; a function checks
 * once at the end and gives back all but what it hands on. A finalised descriptor keeps its own reference to what was
 * put into it, so parts may go before the whole. */
#include "cuda/cudnn_graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef cudnnBackendDescriptor_t desc;

enum { MAX_DESCS = 16, MAX_CONFIGS = 128 };

typedef struct builder {
    const dr_host_api *host;
    dr_error *err;
    dr_status status;
    desc made[MAX_DESCS];
    int n;
} builder;

struct cg_graph {
    desc graph;
};

static dr_status fail(const dr_host_api *host, dr_error *err, cudnnStatus_t s, const char *doing) {
    char said[256] = "";
    cudnnGetLastErrorString(said, sizeof said);
    said[strcspn(said, "\n")] = 0;
    bool memory = s == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
                  s == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
    dr_status code = memory ? DR_NOMEM : (int)s / 1000 == 3 ? DR_UNSUPPORTED : DR_BACKEND;
    host->fail(err, code, "cuDNN, %s: %s%s%s", doing, cudnnGetErrorString(s), *said ? ": " : "", said);
    return code; /* also when err already held an older error */
}

static void check(builder *b, cudnnStatus_t s, const char *doing) {
    if (s && !b->status) b->status = fail(b->host, b->err, s, doing);
}

static desc make(builder *b, cudnnBackendDescriptorType_t type) {
    if (b->status) return NULL;
    desc d = NULL;
    if (b->n == MAX_DESCS) {
        b->status = b->host->fail(b->err, DR_INTERNAL, "cuDNN: more than %d descriptors in one build", MAX_DESCS);
        return NULL;
    }
    check(b, cudnnBackendCreateDescriptor(type, &d), "create descriptor");
    if (!b->status) b->made[b->n++] = d;
    return b->status ? NULL : d;
}

static void set(builder *b, desc d, cudnnBackendAttributeName_t a, cudnnBackendAttributeType_t t, int64_t n,
                const void *v) {
    if (!b->status) check(b, cudnnBackendSetAttribute(d, a, t, n, v), "set attribute");
}

static void set_desc(builder *b, desc d, cudnnBackendAttributeName_t a, desc v) {
    set(b, d, a, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &v);
}

static desc finish(builder *b, desc d, const char *doing) {
    if (!b->status) check(b, cudnnBackendFinalize(d), doing);
    return b->status ? NULL : d;
}

static void destroy(desc d) {
    if (d) cudnnBackendDestroyDescriptor(d);
}

/* Destroys everything made but `keep`. */
static dr_status end(builder *b, desc keep) {
    while (b->n > 0) {
        desc d = b->made[--b->n];
        if (d != keep || b->status) destroy(d);
    }
    return b->status;
}

const char *cg_version(void) {
    static char text[32];
    if (!text[0]) {
        int v = (int)cudnnGetVersion();
        snprintf(text, sizeof text, "cuDNN %d.%d.%d", v / 10000, v / 100 % 100, v % 100);
    }
    return text;
}

dr_status cg_device_from_json(const dr_host_api *host, const char *json, size_t len, desc *ret, dr_error *err) {
    builder b = {.host = host, .err = err};
    desc d = make(&b, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    set(&b, d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)len, json);
    finish(&b, d, "device description");
    dr_status s = end(&b, d);
    if (!s) *ret = d;
    return s;
}

dr_status cg_device_open(const dr_host_api *host, int device, desc *ret, dr_error *err) {
    builder b = {.host = host, .err = err};
    desc d = make(&b, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    int32_t id = device;
    set(&b, d, CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_TYPE_INT32, 1, &id);
    finish(&b, d, "device description");
    dr_status s = end(&b, d);
    if (!s) *ret = d;
    return s;
}

dr_status cg_device_to_json(const dr_host_api *host, desc device, char **ret, dr_error *err) {
    int64_t len = 0;
    const cudnnBackendAttributeName_t json = CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION;
    cudnnStatus_t s = cudnnBackendGetAttribute(device, json, CUDNN_TYPE_CHAR, 0, &len, NULL);
    if (s) return fail(host, err, s, "device description");
    if (len <= 0 || len > 1 << 20)
        return host->fail(err, DR_BACKEND, "cuDNN: device description of %lld bytes", (long long)len);
    char *text = calloc((size_t)len + 1, 1);
    if (!text) return host->fail(err, DR_NOMEM, "out of memory for a device description");
    s = cudnnBackendGetAttribute(device, json, CUDNN_TYPE_CHAR, len, &len, text);
    if (s) {
        free(text);
        return fail(host, err, s, "device description");
    }
    *ret = text;
    return DR_OK;
}

void cg_device_close(desc device) {
    destroy(device);
}

/* A tensor of four dimensions with the channels innermost. */
static desc tensor(builder *b, int64_t uid, int64_t n, int64_t c, int64_t h, int64_t w, cudnnDataType_t type) {
    const int64_t dim[4] = {n, c, h, w}, stride[4] = {h * w * c, 1, w * c, c}, align = 16;
    desc d = make(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set(b, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(b, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dim);
    set(b, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride);
    set(b, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    set(b, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align);
    return finish(b, d, "tensor");
}

static desc convolution(builder *b, int64_t pad) {
    const int64_t dims = 2, pads[2] = {pad, pad}, ones[2] = {1, 1};
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    desc d = make(b, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    set(b, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims);
    set(b, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32);
    set(b, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set(b, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pads);
    set(b, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pads);
    set(b, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, ones);
    set(b, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, ones);
    return finish(b, d, "convolution");
}

/* The three operations differ only in the names of their attributes. */
static const struct op_names {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t x, w, y, conv, alpha, beta;
} ops[] = {
    [CG_FORWARD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    [CG_BACKWARD_DATA] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    [CG_BACKWARD_WEIGHTS] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

dr_status cg_graph_create(const cg_target *t, cg_op op, const cg_conv *c, cg_graph **ret, dr_error *err) {
    cg_graph *g = calloc(1, sizeof *g);
    if (!g) return t->host->fail(err, DR_NOMEM, "out of memory for a convolution's graph");
    builder b = {.host = t->host, .err = err};
    const int64_t less = c->k - 1 - 2 * c->pad, less_w = c->kw - 1 - 2 * c->pad;
    desc x = tensor(&b, CG_X + 1, c->n, c->i, c->h, c->w, c->type);
    desc w = tensor(&b, CG_W + 1, c->o, c->i, c->k, c->kw, c->type);
    desc y = tensor(&b, CG_Y + 1, c->n, c->o, c->h - less, c->w - less_w, c->type);
    desc conv = convolution(&b, c->pad);
    const struct op_names *a = &ops[op];
    const float one = 1, zero = 0;
    desc d = make(&b, a->type);
    set_desc(&b, d, a->x, x);
    set_desc(&b, d, a->w, w);
    set_desc(&b, d, a->y, y);
    set_desc(&b, d, a->conv, conv);
    set(&b, d, a->alpha, CUDNN_TYPE_FLOAT, 1, &one);
    set(&b, d, a->beta, CUDNN_TYPE_FLOAT, 1, &zero);
    finish(&b, d, "convolution");
    g->graph = make(&b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set_desc(&b, g->graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, d);
    if (t->handle) set(&b, g->graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &t->handle);
    finish(&b, g->graph, "operation graph");
    dr_status s = end(&b, g->graph);
    if (s) {
        free(g);
        return s;
    }
    *ret = g;
    return DR_OK;
}

void cg_graph_destroy(cg_graph *g) {
    if (!g) return;
    destroy(g->graph);
    free(g);
}

dr_status cg_heuristics(const cg_target *t, const cg_graph *g, cudnnBackendHeurMode_t mode, cg_configs *ret,
                        dr_error *err) {
    builder b = {.host = t->host, .err = err};
    const cudnnBackendAttributeName_t results = CUDNN_ATTR_ENGINEHEUR_RESULTS;
    int64_t n = 0, got = 0;
    cg_configs c = {0};
    desc h = make(&b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set_desc(&b, h, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, g->graph);
    set(&b, h, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (t->device) set_desc(&b, h, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, t->device);
    finish(&b, h, "heuristics");
    if (b.status == DR_UNSUPPORTED) goto none; /* the message stays in err, which the caller gave for tries */
    if (!b.status)
        check(&b, cudnnBackendGetAttribute(h, results, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &n, NULL), "heuristics");
    if (b.status || n <= 0) goto none;
    if (n > MAX_CONFIGS) n = MAX_CONFIGS;
    c.d = calloc((size_t)n, sizeof *c.d);
    if (!c.d) {
        b.status = t->host->fail(err, DR_NOMEM, "out of memory for cuDNN configurations");
        goto none;
    }
    for (; !b.status && c.n < n; c.n++)
        check(&b, cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &c.d[c.n]), "create descriptor");
    if (!b.status)
        check(&b, cudnnBackendGetAttribute(h, results, CUDNN_TYPE_BACKEND_DESCRIPTOR, n, &got, c.d), "heuristics");
    while (c.n > got) destroy(c.d[--c.n]);
none:;
    bool unsupported = b.status == DR_UNSUPPORTED;
    dr_status s = end(&b, NULL);
    if (s) cg_configs_done(&c);
    if (s && !unsupported) return s;
    *ret = c;
    return DR_OK;
}

void cg_configs_done(cg_configs *c) {
    for (int i = 0; i < c->n; i++) destroy(c->d[i]);
    free(c->d);
    *c = (cg_configs){0};
}

/* The engine inside a configuration, as a descriptor of its own. */
static desc engine_of(builder *b, desc config) {
    int64_t n = 0;
    desc e = make(b, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    if (!b->status)
        check(b,
              cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &e),
              "engine of a configuration");
    return e;
}

dr_status cg_traits_of(const cg_target *t, desc config, cg_traits *ret, dr_error *err) {
    builder b = {.host = t->host, .err = err};
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    cudnnBackendBehaviorNote_t ways[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    int64_t n_notes = 0, n_ways = 0;
    desc e = engine_of(&b, config);
    if (!b.status)
        check(&b,
              cudnnBackendGetAttribute(e, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                       CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &n_notes, notes),
              "notes of an engine");
    if (!b.status)
        check(&b,
              cudnnBackendGetAttribute(e, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                                       CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, &n_ways, ways),
              "notes of an engine");
    cg_traits r = {0};
    for (int64_t i = 0; !b.status && i < n_notes; i++) switch (notes[i]) {
        case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
            r.tensor_core = true;
            break;
        case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
            r.nondeterministic = true;
            break;
        case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
        case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
            r.reduced = true;
            break;
        case CUDNN_NUMERICAL_NOTE_FFT:
        case CUDNN_NUMERICAL_NOTE_WINOGRAD:
        case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4:
        case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6:
        case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13:
            r.transform = true;
            break;
        default:
            break;
        }
    for (int64_t i = 0; !b.status && i < n_ways; i++) {
        r.compiles |= ways[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
        r.cublaslt |= ways[i] == CUDNN_BEHAVIOR_NOTE_CUBLASLT_DEPENDENCY;
    }
    dr_status s = end(&b, NULL);
    if (!s) *ret = r;
    return s;
}

/* Engine index and knobs of a configuration. */
static void read_id(builder *b, desc config, cv_plan_id *ret) {
    const cudnnBackendAttributeName_t choices = CUDNN_ATTR_ENGINECFG_KNOB_CHOICES;
    desc knob[CV_MAX_KNOBS] = {0};
    int64_t index = 0, got = 0, one = 0;
    desc e = engine_of(b, config);
    if (!b->status)
        check(b, cudnnBackendGetAttribute(e, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &one, &index),
              "index of an engine");
    /* asked for none, cuDNN says that there are none: so for as many as there can be */
    for (int i = 0; !b->status && i < CV_MAX_KNOBS; i++)
        check(b, cudnnBackendCreateDescriptor(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knob[i]), "create descriptor");
    if (!b->status)
        check(b, cudnnBackendGetAttribute(config, choices, CUDNN_TYPE_BACKEND_DESCRIPTOR, CV_MAX_KNOBS, &got, knob),
              "knobs");
    if (!b->status && got > CV_MAX_KNOBS)
        b->status = b->host->fail(b->err, DR_UNSUPPORTED, "cuDNN: an engine with %lld knobs", (long long)got);
    if (b->status || got < 0) got = 0;
    ret->engine = (int)index;
    ret->n_knobs = (int)got;
    for (int64_t i = 0; !b->status && i < got; i++) {
        cudnnBackendKnobType_t type = 0;
        int64_t value = 0;
        check(b,
              cudnnBackendGetAttribute(knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &one, &type),
              "type of a knob");
        if (!b->status)
            check(
                b,
                cudnnBackendGetAttribute(knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &one, &value),
                "value of a knob");
        ret->knob[i].type = (int)type;
        ret->knob[i].value = value;
    }
    for (int i = 0; i < CV_MAX_KNOBS; i++) destroy(knob[i]);
}

dr_status cg_plan_from_config(const cg_target *t, desc config, cg_plan *ret, dr_error *err) {
    builder b = {.host = t->host, .err = err};
    cg_plan r = {.config = config};
    int64_t workspace = 0, one = 0;
    b.status = cg_traits_of(t, config, &r.traits, err);
    read_id(&b, config, &r.id);
    r.plan = make(&b, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    if (t->handle) set(&b, r.plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &t->handle);
    if (t->device) set_desc(&b, r.plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, t->device);
    set_desc(&b, r.plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    finish(&b, r.plan, "plan");
    if (!b.status)
        check(&b,
              cudnnBackendGetAttribute(r.plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &one,
                                       &workspace),
              "workspace of a plan");
    dr_status s = end(&b, r.plan);
    if (s) {
        destroy(config);
        return s;
    }
    r.workspace = workspace > 0 ? (size_t)workspace : 0;
    *ret = r;
    return DR_OK;
}

dr_status cg_plan_from_id(const cg_target *t, const cg_graph *g, const cv_plan_id *id, cg_plan *ret, dr_error *err) {
    builder b = {.host = t->host, .err = err};
    desc knob[CV_MAX_KNOBS] = {0};
    const int64_t index = id->engine;
    desc e = make(&b, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    set_desc(&b, e, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, g->graph);
    set(&b, e, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &index);
    if (t->device) set_desc(&b, e, CUDNN_ATTR_ENGINE_DEVICEPROP, t->device);
    finish(&b, e, "engine");
    for (int i = 0; !b.status && i < id->n_knobs; i++) {
        const cudnnBackendKnobType_t type = (cudnnBackendKnobType_t)id->knob[i].type;
        check(&b, cudnnBackendCreateDescriptor(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knob[i]), "create descriptor");
        set(&b, knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type);
        set(&b, knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &id->knob[i].value);
        finish(&b, knob[i], "knob");
    }
    desc config = make(&b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    set_desc(&b, config, CUDNN_ATTR_ENGINECFG_ENGINE, e);
    if (id->n_knobs > 0)
        set(&b, config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, id->n_knobs, knob);
    finish(&b, config, "engine configuration");
    dr_status s = end(&b, config);
    for (int i = 0; i < CV_MAX_KNOBS; i++) destroy(knob[i]);
    return s ? s : cg_plan_from_config(t, config, ret, err);
}

void cg_plan_done(cg_plan *p) {
    destroy(p->plan);
    destroy(p->config);
    *p = (cg_plan){0};
}

dr_status cg_execute(const cg_target *t, const cg_plan *p, void *const at[CG_N_TENSORS], void *workspace,
                     dr_error *err) {
    static const int64_t uids[CG_N_TENSORS] = {CG_X + 1, CG_W + 1, CG_Y + 1};
    builder b = {.host = t->host, .err = err};
    desc v = make(&b, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    set(&b, v, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, CG_N_TENSORS, uids);
    set(&b, v, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, CG_N_TENSORS, at);
    set(&b, v, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    finish(&b, v, "variant pack");
    if (!b.status) check(&b, cudnnBackendExecute(t->handle, p->plan, v), "execute");
    return end(&b, NULL);
}
