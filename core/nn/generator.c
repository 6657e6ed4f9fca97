#include "core/nn/generator.h"
#include "core/base/alloc.h"

#include <stdio.h>

dr_status dr_generator_config_check(dr_generator_config c, dr_error *err) {
    if (c.ngf < 16 || c.ngf > DR_NGF_MAX || c.ngf % 16)
        return dr_fail(err, DR_INVALID, "ngf %d: it must be a multiple of 16 from 16 to %d", c.ngf, DR_NGF_MAX);
    if (c.blocks < 1 || c.blocks > DR_BLOCKS_MAX)
        return dr_fail(err, DR_INVALID, "blocks %d: it must be from 1 to %d", c.blocks, DR_BLOCKS_MAX);
    if (c.residual != 0 && c.residual != 1 && c.residual != 3)
        return dr_fail(err, DR_INVALID, "residual %d: it must be 0 (tanh output), 1 or 3 channels", c.residual);
    return DR_OK;
}

static int declare_conv(dr_params *ps, int out, int in, int k, const char *name) {
    int i = dr_params_declare(ps, (dr_shape){out, in, k, k}, "%s.weight", name);
    dr_params_declare(ps, (dr_shape){out, 1, 1, 1}, "%s.bias", name);
    return i;
}

dr_status dr_generator_init(dr_generator *m, dr_generator_config cfg, dr_backend *be, bool with_grad, dr_error *err) {
    *m = (dr_generator){.cfg = cfg};
    dr_status s = dr_generator_config_check(cfg, err);
    if (s) return s;
    dr_params *ps = &m->params;
    int f = cfg.ngf, b = cfg.blocks;
    char name[48];
    m->conv_in = declare_conv(ps, f, 3, 7, "model.1");
    m->down[0] = declare_conv(ps, 2 * f, f, 3, "model.4");
    m->down[1] = declare_conv(ps, 4 * f, 2 * f, 3, "model.8");
    for (int i = 0; i < b; i++)
        for (int k = 0; k < 2; k++) {
            snprintf(name, sizeof name, "model.%d.conv_block.%d", 12 + i, k ? 5 : 1);
            m->block[i][k] = declare_conv(ps, 4 * f, 4 * f, 3, name);
        }
    for (int k = 0; k < 2; k++) {
        snprintf(name, sizeof name, "model.%d", 13 + b + 4 * k);
        m->up[k] = declare_conv(ps, k ? f : 2 * f, k ? 2 * f : 4 * f, 3, name);
    }
    snprintf(name, sizeof name, "model.%d", 21 + b);
    m->conv_out = declare_conv(ps, cfg.residual == 1 ? 1 : 3, f, 7, name);
    if ((s = dr_params_make(ps, be, with_grad, err))) dr_generator_done(m);
    return s;
}

void dr_generator_done(dr_generator *m) {
    dr_params_done(&m->params);
}

dr_status dr_generator_random(dr_generator *m, uint64_t seed, const char *net, dr_error *err) {
    dr_status s = dr_params_init_xavier(&m->params, seed, net, m->cfg.residual ? 1.0 : 0.02, err);
    if (s || !m->cfg.residual) return s;
    float *zero = dr_calloc(dr_param_count(&m->params.p[m->conv_out]), sizeof *zero);
    if (!zero) return dr_fail(err, DR_NOMEM, "no memory for the last layer");
    s = dr_params_upload(&m->params, m->conv_out, zero, err);
    dr_free(zero);
    return s;
}

/* A convolution whose bias instance norm would take away again: it is left out, so its gradient is exactly 0. */
static dr_var conv_norm(dr_graph *g, dr_generator *m, int w, dr_var x, int pad, dr_act act) {
    dr_param *p = &m->params.p[w];
    dr_var h = dr_conv2d(g, x, p, NULL, (dr_conv2d_desc){.k = p->shape.h, .pad = pad});
    return dr_instance_norm(g, h, DR_EPS_NORM, act);
}

/* conv, zero pad 1; the bias only where a tap shows it */
static dr_var conv_tap(dr_graph *g, dr_generator *m, int w, dr_var x, bool tapped) {
    return dr_conv2d(g, x, &m->params.p[w], tapped ? &m->params.p[w + 1] : NULL, (dr_conv2d_desc){.k = 3, .pad = 1});
}

/* y = x + IN(conv(pad(ReLU(IN(conv(pad(x))))))); no ReLU after the sum */
static dr_var block(dr_graph *g, dr_generator *m, int i, dr_var x) {
    dr_var h = conv_norm(g, m, m->block[i][0], dr_pad_reflect(g, x, 1), 0, DR_ACT_RELU);
    h = conv_norm(g, m, m->block[i][1], dr_pad_reflect(g, h, 1), 0, DR_ACT_NONE);
    return dr_add(g, x, h);
}

/* Layers 0..11 and the first `blocks` blocks. */
static dr_var encode(dr_graph *g, dr_generator *m, dr_var x, int blocks, dr_var taps[DR_TAPS]) {
    dr_var h = conv_norm(g, m, m->conv_in, dr_pad_reflect(g, x, 3), 0, DR_ACT_RELU);
    for (int k = 0; k < 2; k++) {
        h = conv_tap(g, m, m->down[k], h, taps);
        if (taps) taps[k] = h;
        h = dr_blur_down(g, dr_instance_norm(g, h, DR_EPS_NORM, DR_ACT_RELU));
    }
    for (int i = 0; i < blocks; i++) {
        h = block(g, m, i, h);
        if (taps && i == 0) taps[2] = h;
        if (taps && i == 4) taps[3] = h;
    }
    return h;
}

static void check_taps(dr_graph *g, const dr_generator *m) {
    if (m->cfg.blocks < DR_BLOCKS_TRAIN)
        dr_graph_fail(g, DR_INVALID, "the taps need at least %d blocks, this generator has %d", DR_BLOCKS_TRAIN,
                      m->cfg.blocks);
}

dr_var dr_generator_forward(dr_graph *g, dr_generator *m, dr_var x, dr_var taps[DR_TAPS]) {
    if (taps) check_taps(g, m);
    dr_var h = encode(g, m, x, m->cfg.blocks, taps);
    for (int k = 0; k < 2; k++) h = conv_norm(g, m, m->up[k], dr_blur_up(g, h), 1, DR_ACT_RELU);
    dr_param *p = &m->params.p[m->conv_out];
    h = dr_conv2d(g, dr_pad_reflect(g, h, 3), p, p + 1, (dr_conv2d_desc){.k = 7, .pad = 0});
    h = dr_activation(g, h, DR_ACT_TANH);
    return m->cfg.residual ? dr_add_bcast(g, x, -1.0f, h) : h;
}

void dr_generator_encode(dr_graph *g, dr_generator *m, dr_var x, dr_var taps[DR_TAPS]) {
    check_taps(g, m);
    encode(g, m, x, DR_BLOCKS_TRAIN, taps);
}
