#include "core/nn/contrastive.h"
#include "core/base/alloc.h"

dr_status dr_heads_init(dr_heads *m, int ngf, dr_backend *be, bool with_grad, dr_error *err) {
    *m = (dr_heads){0};
    for (int t = 0; t < DR_TAPS; t++)
        for (int k = 0; k < 2; k++) {
            int in = k ? DR_NCE_WIDTH : t ? 4 * ngf : 2 * ngf;
            m->mlp[t][k] =
                dr_params_declare(&m->params, (dr_shape){DR_NCE_WIDTH, in, 1, 1}, "mlp_%d.%d.weight", t, 2 * k);
            dr_params_declare(&m->params, (dr_shape){DR_NCE_WIDTH, 1, 1, 1}, "mlp_%d.%d.bias", t, 2 * k);
        }
    dr_status s = dr_params_make(&m->params, be, with_grad, err);
    if (s) dr_heads_done(m);
    return s;
}

void dr_heads_done(dr_heads *m) {
    dr_params_done(&m->params);
}

dr_status dr_patches_draw(dr_patches *p, const dr_shape taps[DR_TAPS], dr_rng *rng, dr_error *err) {
    for (int t = 0; t < DR_TAPS; t++) {
        int n = taps[t].h * taps[t].w, s = n < DR_PATCHES ? n : DR_PATCHES;
        int32_t *all = dr_malloc((size_t)n * sizeof *all);
        if (!all) return dr_fail(err, DR_NOMEM, "no memory to draw patches");
        for (int i = 0; i < n; i++) all[i] = i;
        for (int i = 0; i < s; i++) { /* the first s steps of a shuffle */
            int j = i + (int)dr_rng_below(rng, (uint32_t)(n - i));
            p->idx[t][i] = all[j];
            all[j] = all[i];
        }
        p->count[t] = s;
        dr_free(all);
    }
    return DR_OK;
}

dr_status dr_patches_upload(dr_patches *p, dr_pool *pool, dr_error *err) {
    for (int t = 0; t < DR_TAPS; t++) {
        void *d;
        size_t bytes = (size_t)p->count[t] * sizeof(int32_t);
        dr_status s = dr_pool_raw(pool, bytes, &d, err);
        if (!s) s = dr_be_upload_raw(pool->be, p->idx[t], d, bytes, err);
        if (s) return s;
        p->device[t] = d;
    }
    return DR_OK;
}

void dr_heads_forward(dr_graph *g, dr_heads *m, const dr_var taps[DR_TAPS], const dr_patches *p, dr_var rows[DR_TAPS]) {
    for (int t = 0; t < DR_TAPS; t++) {
        dr_param *a = &m->params.p[m->mlp[t][0]], *b = &m->params.p[m->mlp[t][1]];
        dr_var h = dr_gather_patches(g, taps[t], p->device[t], p->count[t]);
        h = dr_activation(g, dr_linear(g, h, a, a + 1), DR_ACT_RELU);
        rows[t] = dr_l2_normalize(g, dr_linear(g, h, b, b + 1));
    }
}
