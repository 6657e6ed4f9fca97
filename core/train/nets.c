#include "core/train/nets.h"

const char *dr_net_name(dr_net n) {
    static const char *const name[DR_NETS] = {"G_A", "G_B", "D_A", "D_B", "F1", "F2"};
    return name[n];
}

dr_params *dr_nets_params(dr_nets *m, dr_net n) {
    switch (n) {
    case DR_NET_G_A:
    case DR_NET_G_B:
        return &m->g[n - DR_NET_G_A].params;
    case DR_NET_D_A:
    case DR_NET_D_B:
        return &m->d[n - DR_NET_D_A].params;
    default:
        return &m->f[n - DR_NET_F1].params;
    }
}

static dr_tensor flat(float *p, size_t n) {
    return (dr_tensor){{1, 1, 1, (int)n}, p};
}

static dr_status zeros(dr_backend *be, size_t n, float **ret, dr_error *err) {
    void *p;
    dr_status s = dr_be_alloc(be, n * sizeof(float), &p, err);
    if (s) return s;
    *ret = p;
    return dr_be_fill(be, 0.0f, flat(p, n), err);
}

dr_status dr_nets_init(dr_nets *m, const dr_nets_config *cfg, dr_backend *be, dr_error *err) {
    *m = (dr_nets){.be = be};
    dr_status s = DR_OK;
    for (int i = 0; i < 2 && !s; i++) {
        s = dr_generator_init(&m->g[i], cfg->g, be, true, err);
        if (!s) s = dr_discriminator_init(&m->d[i], cfg->d, be, true, err);
        if (!s) s = dr_heads_init(&m->f[i], cfg->g.ngf, be, true, err);
    }
    for (dr_net n = 0; n < DR_NETS && !s; n++) {
        size_t count = dr_nets_params(m, n)->floats;
        s = zeros(be, count, &m->adam_m[n], err);
        if (!s) s = zeros(be, count, &m->adam_v[n], err);
    }
    if (!s && cfg->ema) s = zeros(be, m->g[0].params.floats, &m->ema, err);
    if (s) dr_nets_done(m);
    return s;
}

void dr_nets_done(dr_nets *m) {
    for (dr_net n = 0; n < DR_NETS && m->be; n++) {
        if (m->adam_m[n]) dr_be_free(m->be, m->adam_m[n]);
        if (m->adam_v[n]) dr_be_free(m->be, m->adam_v[n]);
    }
    if (m->ema) dr_be_free(m->be, m->ema);
    for (int i = 0; i < 2; i++) {
        dr_generator_done(&m->g[i]);
        dr_discriminator_done(&m->d[i]);
        dr_heads_done(&m->f[i]);
    }
    *m = (dr_nets){0};
}

dr_status dr_nets_random(dr_nets *m, uint64_t seed, double gain, dr_error *err) {
    dr_status s = DR_OK;
    for (int i = 0; i < 2 && !s; i++) {
        s = dr_generator_random(&m->g[i], seed, dr_net_name(DR_NET_G_A + i), err);
        if (!s) s = dr_params_init_xavier(&m->d[i].params, seed, dr_net_name(DR_NET_D_A + i), gain, err);
        if (!s) s = dr_params_init_xavier(&m->f[i].params, seed, dr_net_name(DR_NET_F1 + i), gain, err);
    }
    return s ? s : dr_nets_reset_ema(m, err);
}

dr_status dr_nets_reset_ema(dr_nets *m, dr_error *err) {
    if (!m->ema) return DR_OK;
    dr_params *ps = &m->g[0].params;
    return dr_be_copy(m->be, flat(ps->value, ps->floats), flat(m->ema, ps->floats), err);
}

void dr_nets_use_ema(dr_nets *m, bool on) {
    dr_params *ps = &m->g[0].params;
    for (int i = 0; i < ps->n && m->ema; i++) ps->p[i].value = (on ? m->ema : ps->value) + dr_params_offset(ps, i);
}

dr_status dr_nets_zero_grad(dr_nets *m, dr_net n, dr_error *err) {
    return dr_params_zero_grad(dr_nets_params(m, n), err);
}

/* Mean |g - g|: the entry is there anyway, and the sum of zeros keeps what infinity - infinity gives. */
dr_status dr_nets_check_grad(dr_nets *m, dr_net n, dr_tensor ret, dr_error *err) {
    const dr_params *ps = dr_nets_params(m, n);
    const dr_tensor g = flat(ps->grad, ps->floats);
    return dr_be_l1(m->be, g, g, ret, err);
}

dr_status dr_nets_adam(dr_nets *m, dr_net n, const dr_adam_desc *d, dr_error *err) {
    dr_params *ps = dr_nets_params(m, n);
    return dr_be_adam(m->be, d, ps->floats, ps->value, ps->grad, m->adam_m[n], m->adam_v[n], err);
}
