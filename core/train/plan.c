/* plan.c - implements dr_train_plan(): the nets are made and one step is run on a backend that only counts
 * (core/tensor/count.h), so that the sum follows the step whatever its objective is; the rest is added up by formula.
 */
#include "core/train/plan.h"
#include "core/tensor/count.h"
#include "core/train/loader.h"
#include "core/train/state.h"
#include "core/train/step.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SHEET_ROWS = 6, /* as in trainer.c */
    HUGE_PAGE = 2 << 20,
    FIXED = 32 << 20,         /* compiled kernels, threads, tables, the lists of pictures */
    FAKES_POOLED = 3,         /* fakes that may pass through the image pools in a step */
    SCRATCH_GROW = 32 << 20,  /* cuda/memory.c */
    WORKSPACE_MAX = 256 << 20 /* cuda/conv_select.h */
};

/* A file of which only the header is read: the rest is mapped and not looked at. */
typedef struct header {
    dr_st *f;
    void *data;
    size_t len;
} header;

static void header_close(header *h) {
    dr_st_close(h->f);
    if (h->data) munmap(h->data, h->len);
}

static dr_status header_open(const char *path, header *h, dr_error *err) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        dr_status s = dr_fail_errno(err, errno, "open", path);
        if (fd >= 0) close(fd);
        return s;
    }
    h->len = (size_t)st.st_size;
    void *p = h->len ? mmap(NULL, h->len, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    close(fd);
    if (p == MAP_FAILED) return dr_fail_as(err, DR_CORRUPT, "bad_model", "'%s' cannot be read", path);
    h->data = p;
    dr_status s = dr_st_parse(h->data, h->len, &h->f, err);
    if (s) header_close(h);
    return s;
}

/* Options with nothing left open, as dr_trainer_open() would make them; the size of the file it would read. */
static dr_status settle(const dr_train_opts *in, dr_train_opts *o, char preset[32], dr_objective *obj,
                        uint64_t *ret_file, dr_error *err) {
    const char *path = in->resume ? in->resume : in->init;
    dr_state_info unused;
    header h = {0};
    *o = *in;
    dr_status s = path ? header_open(path, &h, err) : DR_OK;
    if (s) return s;
    if (in->resume) s = dr_state_options(h.f, o, preset, &unused, err);
    if (path && !in->resume) dr_state_sizes(h.f, o);
    *ret_file = h.len;
    header_close(&h);
    return s ? s : dr_preset_fill(o, obj, err);
}

/* What a run has used of the pool, in whole huge pages: each chunk ends in one that is not full. */
static uint64_t touched(const dr_pool *p) {
    return p->high_water + (uint64_t)p->n_chunks * HUGE_PAGE;
}

/* As many positions as would be drawn; which ones does not matter. */
static dr_status any_patches(void *arg, int call, const dr_shape taps[DR_TAPS], dr_patches *ret, dr_error *err) {
    (void)arg, (void)call, (void)err;
    *ret = (dr_patches){0};
    for (int i = 0; i < DR_TAPS; i++) {
        int n = taps[i].h * taps[i].w;
        ret->count[i] = n < DR_PATCHES ? n : DR_PATCHES;
    }
    return DR_OK;
}

static dr_status count_step(dr_nets *nets, const dr_train_opts *o, const dr_objective *obj, uint64_t *ret,
                            dr_error *err) {
    static const float nothing[1]; /* never read: uploads are not made */
    dr_train_metrics m = {0};
    dr_step step;
    dr_step_init(&step, nets, obj);
    step.ema_decay = o->ema_decay;
    step.micro = o->micro_batch;
    step.patches = any_patches;
    dr_status s = dr_step_run(&step, 0, 1, o->batch, o->crop, nothing, nothing, &m, err);
    *ret = touched(&step.pool);
    dr_step_done(&step);
    return s;
}

/* The sheet's run of the generator: it keeps what it may use again, and nothing of a step goes meanwhile. */
static dr_status count_sheet(dr_count *c, dr_nets *nets, const dr_train_opts *o, uint64_t *ret, dr_error *err) {
    dr_graph g;
    dr_pool pool;
    dr_tensor in;
    dr_pool_init(&pool, &c->base, (size_t)16 << 20);
    dr_graph_init(&g, &c->base, &pool, DR_MODE_EVAL);
    dr_status s = dr_pool_tensor(&pool, (dr_shape){SHEET_ROWS, 3, o->crop, o->crop}, &in, err);
    if (!s) s = dr_graph_run(&g, dr_generator_forward(&g, &nets->g[0], dr_input(&g, in, false), NULL), err);
    *ret = touched(&pool);
    dr_graph_done(&g);
    dr_pool_done(&pool);
    return s;
}

static uint64_t host_bytes(const dr_train_opts *o, const dr_nets *nets) {
    dr_loader_opts l;
    uint64_t image = 3 * (uint64_t)o->crop * (uint64_t)o->crop * sizeof(float), batch = 2 * image * (uint64_t)o->batch;
    size_t largest = 0;
    dr_loader_opts_init(&l);
    for (int i = 0; i < nets->g[0].params.n; i++)
        if (dr_param_count(&nets->g[0].params.p[i]) > largest) largest = dr_param_count(&nets->g[0].params.p[i]);
    uint64_t pool = o->pool ? 2 * (uint64_t)o->pool * image + (FAKES_POOLED + 2) * image * (uint64_t)o->batch : 0;
    return (uint64_t)(l.ring + 1) * batch + 4 * SHEET_ROWS * image + pool + 4 * largest * sizeof(float);
}

dr_status dr_plan_device(const dr_train_opts *in, const dr_objective *obj, int at_once, dr_device_need *ret,
                         dr_error *err) {
    const dr_nets_config cfg = {
        .g = {in->ngf, in->blocks, in->residual}, .d = {in->ndf, in->d_layers}, .ema = in->ema_decay > 0};
    dr_train_opts o = *in;
    dr_nets nets = {0};
    dr_count c;
    uint64_t touched_unused;
    o.micro_batch = at_once;
    dr_count_init_gpu(&c, dr_trains_in_bf16(&o, true));
    dr_status s = dr_nets_init(&nets, &cfg, &c.base, err);
    if (!s) s = count_step(&nets, &o, obj, &touched_unused, err);
    dr_nets_done(&nets);
    if (s) return s;
    ret->least = c.held + (c.scratch + SCRATCH_GROW - 1) / SCRATCH_GROW * SCRATCH_GROW; /* its chunks are held whole */
    ret->most = ret->least + WORKSPACE_MAX;
    return DR_OK;
}

static dr_status plan_device(const dr_train_opts *o, const dr_objective *obj, dr_train_size *ret, dr_error *err) {
    dr_device_need all, one;
    const int at_once = o->micro_batch > 0 && o->micro_batch < o->batch ? o->micro_batch : o->batch;
    dr_status s = dr_plan_device(o, obj, at_once, &all, err);
    if (!s) s = dr_plan_device(o, obj, 1, &one, err);
    if (s) return s;
    ret->device = all.least;
    ret->device_least = one.least;
    return DR_OK;
}

dr_status dr_train_plan(const dr_train_opts *in, dr_train_size *ret, dr_error *err) {
    dr_train_opts o;
    dr_objective obj;
    dr_nets nets = {0};
    dr_count c;
    char preset[32];
    dr_train_size t = {0};
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    dr_status s = settle(in, &o, preset, &obj, &t.file, err);
    if (s) return s;
    dr_count_init(&c, o.threads > 0 ? o.threads : (int)cores);
    const dr_nets_config cfg = {.g = {o.ngf, o.blocks, o.residual}, .d = {o.ndf, o.d_layers}, .ema = o.ema_decay > 0};
    if ((s = dr_nets_init(&nets, &cfg, &c.base, err))) return s;
    t.nets = c.held;
    s = count_step(&nets, &o, &obj, &t.step, err);
    if (!s) s = count_sheet(&c, &nets, &o, &t.sheet, err);
    t.step += c.scratch;
    t.host = host_bytes(&o, &nets);
    dr_nets_done(&nets);
    if (!s) s = plan_device(&o, &obj, &t, err);
    if (s) return s;
    uint64_t running = t.step + t.sheet + t.host;
    running += running / 16; /* what lies between the blocks */
    t.total = FIXED + t.nets + (running > t.file ? running : t.file);
    *ret = t;
    return DR_OK;
}
