#include "core/nn/discriminator.h"

#include "core/nn/generator.h" /* DR_EPS_NORM */

dr_status dr_discriminator_init(dr_discriminator *m, dr_discriminator_config cfg, dr_backend *be, bool with_grad,
                                dr_error *err) {
    *m = (dr_discriminator){.cfg = cfg};
    if (cfg.ndf < 16 || cfg.ndf > 256 || cfg.ndf % 16)
        return dr_fail(err, DR_INVALID, "ndf %d: it must be a multiple of 16 from 16 to 256", cfg.ndf);
    if (cfg.layers < 1 || cfg.layers > DR_D_LAYERS_MAX)
        return dr_fail(err, DR_INVALID, "discriminator layers %d: from 1 to %d", cfg.layers, DR_D_LAYERS_MAX);
    /* State-dict positions: 0 conv, 1 LeakyReLU, 2 blur, then conv, norm, LeakyReLU, blur in turns; the last norm and
     * LeakyReLU have no blur behind them. METHOD.md section 4: 0, 3, 7, 11, 14. */
    int n = cfg.layers, at = 0, in = 3, out = cfg.ndf;
    for (int i = 0; i <= n + 1; i++) {
        if (i == n + 1) out = 1;
        m->conv[i] = dr_params_declare(&m->params, (dr_shape){out, in, 4, 4}, "model.%d.weight", at);
        dr_params_declare(&m->params, (dr_shape){out, 1, 1, 1}, "model.%d.bias", at);
        at += i == 0 ? 3 : i == n ? 3 : 4;
        in = out;
        if (i < 3) out *= 2; /* at most 8 ndf */
    }
    dr_status s = dr_params_make(&m->params, be, with_grad, err);
    if (s) dr_discriminator_done(m);
    return s;
}

void dr_discriminator_done(dr_discriminator *m) {
    dr_params_done(&m->params);
}

dr_var dr_discriminator_forward(dr_graph *g, dr_discriminator *m, dr_var x) {
    const dr_conv2d_desc d = {.k = 4, .pad = 1};
    int n = m->cfg.layers;
    dr_param *p = &m->params.p[m->conv[0]];
    dr_var h = dr_blur_down(g, dr_activation(g, dr_conv2d(g, x, p, p + 1, d), DR_ACT_LRELU));
    for (int i = 1; i <= n; i++) { /* the norm takes these biases away: left out */
        h = dr_conv2d(g, h, &m->params.p[m->conv[i]], NULL, d);
        h = dr_instance_norm(g, h, DR_EPS_NORM, DR_ACT_LRELU);
        if (i < n) h = dr_blur_down(g, h);
    }
    p = &m->params.p[m->conv[n + 1]];
    return dr_conv2d(g, h, p, p + 1, d);
}
