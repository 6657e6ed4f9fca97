/* step.c - see step.h.
 *
 * A half of the step, discriminators' or generators', is a sum of losses over the batch and one backward. Losses are
 * means over pictures, and no op looks across them, so a half may be done in parts of the batch: each part's gradients
 * count by its share and add up. Parts cost the fakes a second time in the second half, and memory is that of one part.
 */
#include "core/train/step.h"
#include "core/base/alloc.h"

#include <math.h>
#include <string.h>

enum { TERMS_MAX = 64, FAKES_MAX = 2, CHUNK = 64 << 20 };

/* Terms of one objective: loss nodes, their weights, and the name under which parts are added up for people. */
typedef struct terms {
    int n;
    dr_var var[TERMS_MAX];
    float weight[TERMS_MAX];
    const char *name[TERMS_MAX];
    double share[TERMS_MAX]; /* of the named value */
} terms;

/* k equal parts of one named loss, whose mean has this weight. */
static void add_terms(terms *t, const char *name, const dr_var *v, int k, double weight) {
    for (int i = 0; i < k && t->n < TERMS_MAX; i++, t->n++) {
        t->var[t->n] = v[i];
        t->weight[t->n] = (float)(weight / k);
        t->name[t->n] = name;
        t->share[t->n] = 1.0 / k;
    }
}

static void add_term(terms *t, const char *name, dr_var v, double weight) {
    add_terms(t, name, &v, 1, weight);
}

void dr_step_init(dr_step *s, dr_nets *nets, const dr_objective *obj) {
    *s = (dr_step){.nets = nets, .obj = obj};
    dr_pool_init(&s->pool, nets->be, CHUNK);
    dr_graph_init(&s->graph, nets->be, &s->pool, DR_MODE_TRAIN);
}

void dr_step_done(dr_step *s) {
    dr_graph_done(&s->graph);
    dr_pool_done(&s->pool);
    for (int i = 0; i < 2; i++) dr_free(s->pooled[i].data);
}

/* What the parts of a step share. */
typedef struct work {
    dr_step *s;
    dr_graph *g;
    dr_nets *m;
    int64_t step;
    int batch, crop;
    const float *host_a, *host_b; /* of the whole batch */
    int first, n;                 /* the part whose fakes the graph holds; n 0: none */
    int nce_calls;
    dr_var a, b;                             /* rainy, clean */
    dr_var fake_b, fake_a, mixed;            /* G_A(a), G_B(b), transplanted; -1 where not made */
    dr_tensor check[DR_NETS];                /* see check_gradients() */
    dr_var taps_a[DR_TAPS], taps_b[DR_TAPS]; /* key features: a through G_A, b through G_B */
} work;

static dr_var input(work *w, dr_shape shape, const float *data, dr_error *err) {
    dr_tensor t;
    dr_status s = dr_pool_tensor(&w->s->pool, shape, &t, err);
    if (!s) s = dr_be_upload(w->g->be, data, t, err);
    if (s) {
        dr_graph_fail(w->g, s, "%s", err && err->code ? err->text : "batch");
        return -1;
    }
    return dr_input(w->g, t, false);
}

static bool all_finite(const float *v, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(v[i])) return false;
    return true;
}

/* Room for what pool i gives for the batch at hand. */
static float *pool_answers(work *w, int i, size_t image) {
    dr_pool_answers *a = &w->s->pooled[i];
    size_t want = image * (size_t)w->batch;
    if (a->cap < want) {
        dr_free(a->data);
        a->data = dr_calloc(want, sizeof *a->data);
        a->cap = a->data ? want : 0;
    }
    return a->data;
}

/* The fakes themselves, detached, or what pool i gives in their place: each picture of the batch is shown to it once a
 * step, in order, whatever the parts are and however often a half is begun. */
static dr_var pooled(work *w, dr_var fake, int i, dr_error *err) {
    dr_image_pool *pool = i ? w->s->pool_b : w->s->pool_a;
    if (!pool || !pool->size) return dr_detach(w->g, fake);
    if (w->g->err.code) return -1;
    dr_tensor t = dr_var_tensor(w->g, fake);
    const size_t image = pool->image_floats;
    float *all = pool_answers(w, i, image), *part = all ? all + (size_t)w->first * image : NULL;
    int *shown = &w->s->pooled[i].n, end = w->first + w->n;
    float *host = dr_malloc(dr_shape_count(t.shape) * sizeof *host);
    dr_status s = part && host ? DR_OK : dr_fail(err, DR_NOMEM, "no memory for the image pool");
    if (!s && *shown < end) {
        const int from = *shown > w->first ? *shown - w->first : 0; /* pictures of this part that it has seen already */
        s = dr_be_download(w->g->be, t, host, err);
        if (!s && !all_finite(host + (size_t)from * image, (size_t)(w->n - from) * image)) {
            dr_free(host); /* they would come back in some later step */
            return dr_detach(w->g, fake);
        }
        if (!s) {
            memcpy(part + (size_t)from * image, host + (size_t)from * image,
                   (size_t)(w->n - from) * image * sizeof *host);
            dr_image_pool_query(pool, part + (size_t)from * image, w->n - from);
            *shown = end;
        }
    }
    if (s) dr_graph_fail(w->g, s, "image pool");
    dr_var v = s ? -1 : input(w, t.shape, part, err);
    dr_free(host);
    return v;
}

static void make_fakes(work *w) {
    const dr_objective *o = w->s->obj;
    bool keys = o->dual && o->w_nce > 0;
    w->fake_b = dr_generator_forward(w->g, &w->m->g[0], w->a, keys ? w->taps_a : NULL);
    w->fake_a = o->dual ? dr_generator_forward(w->g, &w->m->g[1], w->b, keys ? w->taps_b : NULL) : -1;
    w->mixed = -1;
    if (o->w_transplant > 0) /* b + (a - G_A(a)) */
        w->mixed = dr_clamp(w->g, dr_add_bcast(w->g, dr_add(w->g, w->b, w->a), -1.0f, w->fake_b), -1.0f, 1.0f);
}

/* The fakes that D_B judges. */
static int fakes_of_b(const work *w, dr_var ret[FAKES_MAX]) {
    int n = 0;
    if (w->s->obj->dual) ret[n++] = w->fake_a;
    if (w->s->obj->w_transplant > 0) ret[n++] = w->mixed;
    return n;
}

static dr_var low_pass(dr_graph *g, dr_var x, int halvings) {
    for (int i = 0; i < halvings; i++) x = dr_blur_down(g, x);
    return x;
}

static dr_var judge(work *w, int which, dr_var x, dr_gan_loss mode) {
    return dr_loss_gan(w->g, dr_discriminator_forward(w->g, &w->m->d[which], x), mode);
}

static void discriminator_terms(work *w, terms *t, dr_error *err) {
    dr_var fakes[FAKES_MAX];
    int n = fakes_of_b(w, fakes);
    for (int i = 0; i < 2; i++) dr_params_set_trainable(&w->m->d[i].params, true);
    add_term(t, "d_A_real", judge(w, 0, w->b, DR_GAN_HINGE_REAL), 0.5);
    add_term(t, "d_A_fake", judge(w, 0, pooled(w, w->fake_b, 0, err), DR_GAN_HINGE_FAKE), 0.5);
    add_term(t, "d_B_real", judge(w, 1, w->a, DR_GAN_HINGE_REAL), 0.5);
    for (int i = 0; i < n; i++) { /* the pool holds translated pictures, not transplanted ones */
        dr_var shown = fakes[i] == w->fake_a ? pooled(w, fakes[i], 1, err) : dr_detach(w->g, fakes[i]);
        fakes[i] = judge(w, 1, shown, DR_GAN_HINGE_FAKE);
    }
    add_terms(t, "d_B_fake", fakes, n, 0.5);
}

/* PatchNCE between key features (detached) and query features of the same positions. */
static void nce_terms(work *w, terms *t, const char *name, const dr_var q_taps[DR_TAPS], int q_head,
                      const dr_var k_taps[DR_TAPS], int k_head, double weight, dr_error *err) {
    dr_step *s = w->s;
    int call = w->nce_calls++;
    if (w->g->err.code) return;
    dr_shape shapes[DR_TAPS];
    for (int i = 0; i < DR_TAPS; i++) shapes[i] = dr_var_shape(w->g, k_taps[i]);
    dr_patches p;
    dr_status st;
    if (s->patches) {
        st = s->patches(s->patches_arg, call, shapes, &p, err);
    } else {
        dr_rng rng;
        dr_rng_seed(&rng, s->seed, 0x70617463u + 4 * (uint64_t)w->step + (uint64_t)call);
        st = dr_patches_draw(&p, shapes, &rng, err);
    }
    if (!st) st = dr_patches_upload(&p, &s->pool, err);
    if (st) {
        dr_graph_fail(w->g, st, "patches: %s", err && err->code ? err->text : dr_status_text(st));
        return;
    }
    dr_var q[DR_TAPS], k[DR_TAPS], loss[DR_TAPS];
    w->g->no_grad = true;
    dr_heads_forward(w->g, &w->m->f[k_head], k_taps, &p, k);
    w->g->no_grad = false;
    dr_heads_forward(w->g, &w->m->f[q_head], q_taps, &p, q);
    int n = dr_var_shape(w->g, w->a).n;
    for (int i = 0; i < DR_TAPS; i++) loss[i] = dr_loss_nce(w->g, q[i], k[i], n, DR_NCE_TEMP);
    add_terms(t, name, loss, DR_TAPS, weight);
}

/* b with the rain that G_A took off a, without gradient, weaker or stronger than it was. What G_A leaves behind of a
 * streak is missing here; only the gain shows it rain as strong as the real one. */
static dr_var rained_on(work *w) {
    double gain = w->s->obj->transplant_gain;
    if (gain <= 1) return dr_detach(w->g, w->mixed);
    dr_rng rng;
    dr_rng_seed(&rng, w->s->seed, 0x6761696e00000000u + (uint64_t)w->step);
    double factor = pow(gain, dr_rng_range(&rng, -0.5, 1));
    dr_var rain = dr_add_bcast(w->g, w->a, -1.0f, dr_detach(w->g, w->fake_b));
    return dr_clamp(w->g, dr_add_bcast(w->g, w->b, (float)factor, rain), -1.0f, 1.0f);
}

/* mean max(0, G_A(a) - a): without it, streaks in smooth places are traced with bright and dark edges. */
static dr_var brighter(work *w) {
    dr_graph *g = w->g;
    dr_var up = dr_activation(g, dr_add_bcast(g, w->fake_b, -1.0f, w->a), DR_ACT_RELU);
    return dr_loss_gan(g, dr_scale(g, up, -1.0f), DR_GAN_NEG_MEAN);
}

/* mean low(a - G_A(a))^2: streaks are thin, so an average over 8 x 8 pixels of what is taken off them is small. Without
 * this, G_A slowly learns to darken whole regions of heavily rainy pictures: such a layer, laid over a clean picture,
 * cannot be told from the picture, and the rain transplant then teaches nonsense. */
static dr_var broad(work *w) {
    dr_var rain = dr_add_bcast(w->g, w->fake_b, -1.0f, w->a);
    return dr_loss_gan(w->g, low_pass(w->g, rain, 3), DR_GAN_LSGAN_FAKE);
}

/* mean |low(y) - low(x)| of a translated y and its source x, a channel at a time, over about 16 x 16 pixels: rain is
 * thin and nearly without colour, so that neither taking it off nor laying it on moves such averages much. The cycle
 * does not see to that: what G_A shifts, G_B can shift back. */
static dr_var broad_colors(work *w, dr_var y, dr_var x) {
    return dr_loss_l1(w->g, low_pass(w->g, y, 4), low_pass(w->g, x, 4));
}

static void generator_terms(work *w, terms *t, dr_error *err) {
    const dr_objective *o = w->s->obj;
    dr_graph *g = w->g;
    dr_nets *m = w->m;
    double half = o->dual ? 0.5 : 1.0; /* mean over the directions */
    w->nce_calls = 0;
    dr_var fakes[FAKES_MAX];
    int n = fakes_of_b(w, fakes);
    for (int i = 0; i < 2; i++) dr_params_set_trainable(&m->d[i].params, false);
    if (o->w_gan > 0) {
        add_term(t, "adv_A", judge(w, 0, w->fake_b, o->g_gan), 0.5 * o->w_gan);
        for (int i = 0; i < n; i++) fakes[i] = judge(w, 1, fakes[i], o->g_gan);
        add_terms(t, "adv_B", fakes, n, 0.5 * o->w_gan);
    }
    /* Back again: whole where the reconstruction is wanted, else only as far as the taps. */
    dr_var back_a[DR_TAPS] = {-1, -1, -1, -1}, back_b[DR_TAPS] = {-1, -1, -1, -1}, rec_a = -1, rec_b = -1;
    bool whole = o->w_cycle > 0 || o->w_nce_extra > 0 || o->w_freq > 0;
    if (o->dual && whole) {
        rec_a = dr_generator_forward(g, &m->g[1], w->fake_b, back_b);
        rec_b = dr_generator_forward(g, &m->g[0], w->fake_a, back_a);
    } else if (o->dual && o->w_nce > 0) {
        dr_generator_encode(g, &m->g[1], w->fake_b, back_b);
        dr_generator_encode(g, &m->g[0], w->fake_a, back_a);
    }
    if (o->w_nce > 0) {
        nce_terms(w, t, "nce_1", back_b, 1, w->taps_a, 0, 0.5 * o->w_nce, err);
        nce_terms(w, t, "nce_2", back_a, 0, w->taps_b, 1, 0.5 * o->w_nce, err);
    }
    if (o->w_nce_extra > 0) { /* (N_R,R*) and (R_N,N*): the reconstruction asks, the fake answers */
        dr_var q_a[DR_TAPS] = {-1, -1, -1, -1}, q_b[DR_TAPS] = {-1, -1, -1, -1};
        dr_generator_encode(g, &m->g[0], rec_a, q_a);
        dr_generator_encode(g, &m->g[1], rec_b, q_b);
        nce_terms(w, t, "nce_3", q_a, 0, back_b, 1, 0.5 * o->w_nce_extra, err);
        nce_terms(w, t, "nce_4", q_b, 1, back_a, 0, 0.5 * o->w_nce_extra, err);
    }
    if (o->w_cycle > 0) {
        add_term(t, "cycle_A", dr_loss_l1(g, rec_a, w->a), 0.5 * o->w_cycle);
        add_term(t, "cycle_B", dr_loss_l1(g, rec_b, w->b), 0.5 * o->w_cycle);
    }
    if (o->w_freq > 0) {
        add_term(t, "freq_A", dr_loss_freq(g, rec_a, w->a), 0.5 * o->w_freq);
        add_term(t, "freq_B", dr_loss_freq(g, rec_b, w->b), 0.5 * o->w_freq);
    }
    if (o->w_color > 0) {
        add_term(t, "color_A", broad_colors(w, w->fake_b, w->a), half * o->w_color);
        if (o->dual) add_term(t, "color_B", broad_colors(w, w->fake_a, w->b), half * o->w_color);
    }
    if (o->w_idt > 0) {
        add_term(t, "idt_A", dr_loss_l1(g, dr_generator_forward(g, &m->g[0], w->b, NULL), w->b), half * o->w_idt);
        if (o->dual)
            add_term(t, "idt_B", dr_loss_l1(g, dr_generator_forward(g, &m->g[1], w->a, NULL), w->a), half * o->w_idt);
    }
    if (o->w_brighter > 0) add_term(t, "brighter", brighter(w), o->w_brighter);
    if (o->w_low > 0) add_term(t, "low", broad(w), o->w_low);
    if (o->w_transplant > 0)
        add_term(t, "transplant", dr_loss_l1(g, dr_generator_forward(g, &m->g[0], rained_on(w), NULL), w->b),
                 o->w_transplant);
}

static double *value_of(dr_train_metrics *m, const char *name) {
    for (int i = 0; i < m->n; i++)
        if (!strcmp(m->name[i], name)) return &m->value[i];
    if (m->n == DR_TRAIN_LOSSES_MAX) return &m->value[m->n - 1];
    m->name[m->n] = name;
    m->value[m->n] = 0;
    return &m->value[m->n++];
}

/* Values of the terms of a part, added up by name into ret. */
static dr_status read_terms(work *w, const terms *t, double part, dr_train_metrics *ret, dr_error *err) {
    for (int i = 0; i < t->n; i++) {
        float v;
        dr_status s = dr_be_download(w->g->be, dr_var_tensor(w->g, t->var[i]), &v, err);
        if (s) return s;
        if (!isfinite(v) && !ret->not_finite) ret->not_finite = t->name[i];
        *value_of(ret, t->name[i]) += part * t->share[i] * (double)v;
    }
    return DR_OK;
}

/* Queues what tells whether the gradients of the nets are finite. */
static dr_status check_gradients(work *w, const dr_net *nets, int n, dr_error *err) {
    dr_status s = DR_OK;
    for (int i = 0; i < n && !s; i++) {
        s = dr_pool_tensor(&w->s->pool, (dr_shape){1, 1, 1, 1}, &w->check[i], err);
        if (!s) s = dr_nets_check_grad(w->m, nets[i], w->check[i], err);
    }
    return s;
}

/* Names the first of the nets that has a gradient that is not finite, unless a loss was not. */
static dr_status read_checks(work *w, const dr_net *nets, int n, dr_train_metrics *ret, dr_error *err) {
    for (int i = 0; i < n; i++) {
        float v;
        dr_status s = dr_be_download(w->g->be, w->check[i], &v, err);
        if (s) return s;
        if (!isfinite(v) && !ret->not_finite) ret->not_finite = dr_net_name(nets[i]);
    }
    return DR_OK;
}

/* Pictures and fakes of a part of the batch; what the graph held before is gone. */
static void load(work *w, int first, int n, dr_error *err) {
    const dr_shape shape = {n, 3, w->crop, w->crop};
    const size_t from = 3 * (size_t)w->crop * (size_t)w->crop * (size_t)first;
    dr_graph_clear(w->g);
    dr_pool_reset(&w->s->pool);
    w->first = first;
    w->n = n;
    w->a = input(w, shape, w->host_a + from, err);
    w->b = input(w, shape, w->host_b + from, err);
    make_fakes(w);
}

typedef void terms_of(work *w, terms *t, dr_error *err);

/* The gradients of a part; with the last one all that decides whether the nets may learn from them. Values are read at
 * the end, so that the device is waited for once. */
static dr_status one_part(work *w, terms_of *add, int first, int n, const dr_net *nets, int n_nets,
                          dr_train_metrics *ret, dr_error *err) {
    const double part = (double)n / w->batch;
    terms t = {0};
    if (w->first != first || w->n != n) load(w, first, n, err);
    add(w, &t, err);
    dr_status s = dr_graph_status(w->g, err);
    for (int i = 0; i < t.n && n < w->batch; i++) t.weight[i] *= (float)part;
    if (!s) s = dr_backward(w->g, t.var, t.weight, t.n, err);
    const bool last = first + n == w->batch;
    if (!s && last) s = check_gradients(w, nets, n_nets, err);
    if (!s) s = read_terms(w, &t, part, ret, err);
    return s || !last ? s : read_checks(w, nets, n_nets, ret, err);
}

/* Less at a time, where a device has no room for so many. What the failed try held goes first. */
static bool shrink(work *w, int at_once) {
    dr_step *s = w->s;
    if (at_once == 1 || !w->g->be->ops->trim) return false;
    s->micro = (at_once + 1) / 2;
    dr_graph_clear(w->g);
    dr_pool_done(&s->pool);
    dr_pool_init(&s->pool, w->g->be, CHUNK);
    dr_be_trim(w->g->be);
    w->n = 0;
    return true;
}

/* One half: the gradients of its terms over the whole batch. */
static dr_status optimise(work *w, terms_of *add, const dr_net *nets, int n_nets, dr_train_metrics *ret,
                          dr_error *err) {
    const dr_train_metrics before = *ret;
    const dr_error clean = *err;
    for (;;) {
        const int at_once = w->s->micro > 0 && w->s->micro < w->batch ? w->s->micro : w->batch;
        dr_status s = DR_OK;
        *ret = before;
        for (int i = 0; i < n_nets && !s; i++) s = dr_nets_zero_grad(w->m, nets[i], err);
        for (int at = 0; at < w->batch && !s; at += at_once)
            s = one_part(w, add, at, w->batch - at < at_once ? w->batch - at : at_once, nets, n_nets, ret, err);
        ret->skipped = ret->not_finite != NULL;
        if (ret->skipped) ret->n = 0;
        if (s != DR_NOMEM || !shrink(w, at_once)) return s;
        *err = clean; /* it goes on */
    }
}

static dr_status adam_one(work *w, dr_net net, const dr_adam_desc *d, dr_error *err) {
    dr_status s = dr_graph_give_way(w->g, err);
    return s ? s : dr_nets_adam(w->m, net, d, err);
}

static dr_status adam(work *w, dr_net first, double lr, double beta1, dr_error *err) {
    dr_adam_desc d = {(float)lr, (float)beta1, 0.999f, 1e-8f, w->step + 1};
    dr_status s = adam_one(w, first, &d, err);
    return s ? s : adam_one(w, first + 1, &d, err);
}

/* The average of young weights forgets faster: decay at most (1+t)/(10+t) after t steps. Weights that come from an
 * earlier training are old: a fast average of the first, noisy steps would throw away what was good about them. */
static float ema_decay(const dr_step *s, int64_t step) {
    double t = s->ema_age + (double)step, young = (1 + t) / (10 + t);
    return (float)(young < s->ema_decay ? young : s->ema_decay);
}

dr_status dr_step_run(dr_step *s, int64_t step, double factor, int n, int crop, const float *a, const float *b,
                      dr_train_metrics *ret, dr_error *err) {
    work w = {.s = s, .g = &s->graph, .m = s->nets, .step = step, .batch = n, .crop = crop, .host_a = a, .host_b = b};
    static const dr_net all[DR_NETS] = {DR_NET_D_A, DR_NET_D_B, DR_NET_G_A, DR_NET_G_B, DR_NET_F1, DR_NET_F2};
    dr_error local = {0}; /* the builders' failures need a text even if the caller wants none */
    if (!err) err = &local;
    ret->n = 0;
    ret->skipped = false;
    ret->not_finite = NULL;
    for (int i = 0; i < 2; i++) s->pooled[i].n = 0;
    dr_status st = optimise(&w, discriminator_terms, all, 2, ret, err);
    if (!st && ret->skipped) return dr_be_sync(w.g->be, err);
    if (!st) st = adam(&w, DR_NET_D_A, s->lr * factor, 0.5, err);
    if (st) return st;

    st = optimise(&w, generator_terms, all + 2, s->obj->dual ? 4 : 1, ret, err);
    if (!st && ret->skipped) return dr_be_sync(w.g->be, err);
    if (st) return st;
    /* A rate of zero, not no update: the moments learn too, so that the first real one is of the usual size. */
    double lr = (double)step < s->warmup ? 0 : s->lr * factor;
    if (s->obj->dual) {
        st = adam(&w, DR_NET_G_A, lr, 0.5, err);
        if (!st && (s->obj->w_nce > 0 || s->obj->w_nce_extra > 0)) st = adam(&w, DR_NET_F1, s->lr_f * factor, 0.9, err);
    } else {
        dr_adam_desc one = {(float)lr, 0.5f, 0.999f, 1e-8f, step + 1};
        st = adam_one(&w, DR_NET_G_A, &one, err);
    }
    if (!st && s->nets->ema)
        st = dr_be_ema(w.g->be, ema_decay(s, step), s->nets->g[0].params.floats, s->nets->g[0].params.value,
                       s->nets->ema, err);
    return st ? st : dr_be_sync(w.g->be, err);
}
