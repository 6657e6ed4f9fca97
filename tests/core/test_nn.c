/* test_nn.c - the networks: parameter counts and shapes of METHOD.md, initial losses, taps, modes that agree. */
#include "core/base/rng.h"
#include "core/nn/contrastive.h"
#include "core/nn/discriminator.h"
#include "tests/t.h"

typedef struct fixture {
    dr_backend *be;
    dr_pool pool;
    dr_graph g;
    dr_error err;
} fixture;

static int start(fixture *f, dr_mode mode) {
    *f = (fixture){0};
    dr_backend_opts o = {.threads = 2};
    if (dr_backend_open("cpu", &o, &f->be, NULL, &f->err)) return 0;
    dr_pool_init(&f->pool, f->be, 4 << 20);
    dr_graph_init(&f->g, f->be, &f->pool, mode);
    return 1;
}

static void stop(fixture *f) {
    dr_graph_done(&f->g);
    dr_pool_done(&f->pool);
    dr_backend_close(f->be);
}

static dr_var random_input(fixture *f, dr_shape s, uint64_t seed) {
    size_t n = dr_shape_count(s);
    float *x = malloc(n * sizeof *x);
    dr_rng r;
    dr_rng_seed(&r, seed, 0);
    for (size_t i = 0; i < n; i++) x[i] = (float)dr_rng_range(&r, -1, 1);
    dr_tensor t = {0};
    dr_var v = -1;
    if (!dr_pool_tensor(&f->pool, s, &t, &f->err) && !dr_be_upload(f->be, x, t, &f->err)) v = dr_input(&f->g, t, false);
    free(x);
    return v;
}

TEST(parameter_counts) {
    dr_error err = {0};
    dr_generator g;
    dr_discriminator d;
    dr_heads h;
    CHECK(!dr_generator_init(&g, (dr_generator_config){64, 9, 0}, NULL, false, &err));
    CHECK(!dr_discriminator_init(&d, (dr_discriminator_config){64, 3}, NULL, false, &err));
    CHECK(!dr_heads_init(&h, 64, NULL, false, &err));
    CHECK(dr_params_total(&g.params) == 11378179);
    CHECK(dr_params_total(&d.params) == 2764737);
    CHECK(dr_params_total(&h.params) == 493568);
    CHECK(dr_params_find(&g.params, "model.30.bias") >= 0 &&
          dr_params_find(&g.params, "model.20.conv_block.5.weight") >= 0);
    CHECK(dr_params_find(&d.params, "model.14.weight") >= 0 && dr_params_find(&h.params, "mlp_3.2.bias") >= 0);
    dr_generator_done(&g);
    dr_discriminator_done(&d);
    dr_heads_done(&h);
}

TEST(bad_sizes_are_refused) {
    dr_error err = {0};
    static const dr_generator_config bad[] = {{8, 9, 0}, {40, 9, 0}, {512, 9, 0}, {64, 0, 0}, {64, 33, 0}, {64, 9, 2}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dr_generator g;
        err = (dr_error){0};
        CHECK(dr_generator_init(&g, bad[i], NULL, false, &err) == DR_INVALID && err.text[0]);
    }
    dr_discriminator d;
    CHECK(dr_discriminator_init(&d, (dr_discriminator_config){64, 0}, NULL, false, NULL) == DR_INVALID);
    CHECK(dr_discriminator_init(&d, (dr_discriminator_config){24, 3}, NULL, false, NULL) == DR_INVALID);
}

TEST(shapes_of_a_256_crop) {
    dr_error err = {0};
    dr_generator gen;
    dr_discriminator d;
    CHECK(!dr_generator_init(&gen, (dr_generator_config){64, 9, 0}, NULL, false, &err));
    CHECK(!dr_discriminator_init(&d, (dr_discriminator_config){64, 3}, NULL, false, &err));
    dr_graph g;
    dr_graph_init(&g, NULL, NULL, DR_MODE_PLAN);
    dr_var x = dr_input(&g, (dr_tensor){{1, 3, 256, 256}, NULL}, false), taps[DR_TAPS];
    dr_var y = dr_generator_forward(&g, &gen, x, taps), s = dr_discriminator_forward(&g, &d, x);
    CHECK(!dr_graph_status(&g, &err));
    CHECK(dr_shape_eq(dr_var_shape(&g, y), (dr_shape){1, 3, 256, 256}));
    CHECK(dr_shape_eq(dr_var_shape(&g, s), (dr_shape){1, 1, 30, 30}));
    static const dr_shape want[] = {{1, 128, 256, 256}, {1, 256, 128, 128}, {1, 256, 64, 64}, {1, 256, 64, 64}};
    for (int t = 0; t < DR_TAPS; t++) CHECK(dr_shape_eq(dr_var_shape(&g, taps[t]), want[t]));
    dr_graph_done(&g);
    dr_generator_done(&gen);
    dr_discriminator_done(&d);
}

/* METHOD.md section 5: grey pictures, scores near 0, raw NCE near ln 256. */
TEST(initial_losses) {
    fixture f = {0};
    CHECK(start(&f, DR_MODE_TRAIN));
    dr_generator gen;
    dr_discriminator d;
    dr_heads h[2];
    CHECK(!dr_generator_init(&gen, (dr_generator_config){16, 5, 0}, f.be, true, &f.err));
    CHECK(!dr_discriminator_init(&d, (dr_discriminator_config){16, 3}, f.be, true, &f.err));
    CHECK(!dr_heads_init(&h[0], 16, f.be, true, &f.err) && !dr_heads_init(&h[1], 16, f.be, true, &f.err));
    CHECK(!dr_generator_random(&gen, 1, "G_A", &f.err));
    CHECK(!dr_params_init_xavier(&d.params, 1, "D_A", 0.02, &f.err));
    CHECK(!dr_params_init_xavier(&h[0].params, 1, "F1", 0.02, &f.err));
    CHECK(!dr_params_init_xavier(&h[1].params, 1, "F2", 0.02, &f.err));
    dr_var x = random_input(&f, (dr_shape){1, 3, 64, 64}, 5), taps[DR_TAPS], other[DR_TAPS], q[DR_TAPS], k[DR_TAPS];
    dr_var y = dr_generator_forward(&f.g, &gen, x, taps);
    dr_generator_encode(&f.g, &gen, random_input(&f, (dr_shape){1, 3, 64, 64}, 6), other);
    dr_shape shapes[DR_TAPS];
    for (int t = 0; t < DR_TAPS; t++) shapes[t] = dr_var_shape(&f.g, taps[t]);
    dr_patches p;
    dr_rng r;
    dr_rng_seed(&r, 1, 2);
    CHECK(!dr_patches_draw(&p, shapes, &r, &f.err) && !dr_patches_upload(&p, &f.pool, &f.err));
    dr_heads_forward(&f.g, &h[0], taps, &p, q);
    dr_heads_forward(&f.g, &h[1], other, &p, k);
    dr_var hinge = dr_loss_gan(&f.g, dr_discriminator_forward(&f.g, &d, y), DR_GAN_HINGE_REAL);
    float v, nce = 0;
    CHECK(!dr_graph_status(&f.g, &f.err));
    CHECK(!dr_be_download(f.be, dr_var_tensor(&f.g, hinge), &v, &f.err));
    CHECK_MSG(fabsf(v - 1) < 0.02f, "hinge %g", (double)v);
    for (int t = 0; t < DR_TAPS; t++) {
        CHECK(!dr_be_download(f.be, dr_var_tensor(&f.g, dr_loss_nce(&f.g, q[t], k[t], 1, DR_NCE_TEMP)), &v, &f.err));
        nce += v / DR_TAPS;
    }
    CHECK_MSG(fabsf(nce - 5.545f) < 0.6f, "nce %g", (double)nce);
    for (int i = 0; i < 2; i++) dr_heads_done(&h[i]);
    dr_generator_done(&gen);
    dr_discriminator_done(&d);
    stop(&f);
}

/* A fresh residual generator changes nothing. */
TEST(residual_starts_from_the_picture) {
    for (int residual = 1; residual <= 3; residual += 2) {
        fixture f = {0};
        CHECK(start(&f, DR_MODE_TRAIN));
        dr_generator gen;
        CHECK(!dr_generator_init(&gen, (dr_generator_config){16, 1, residual}, f.be, false, &f.err));
        CHECK(!dr_generator_random(&gen, 1, "G_A", &f.err));
        dr_var x = random_input(&f, (dr_shape){1, 3, 16, 20}, 5), y = dr_generator_forward(&f.g, &gen, x, NULL);
        float a[3 * 16 * 20], b[3 * 16 * 20];
        CHECK(!dr_be_download(f.be, dr_var_tensor(&f.g, x), a, &f.err));
        CHECK(!dr_be_download(f.be, dr_var_tensor(&f.g, y), b, &f.err));
        CHECK(!memcmp(a, b, sizeof a));
        dr_generator_done(&gen);
        stop(&f);
    }
}

/* EVAL frees and reuses memory on the way: the same bits as TRAIN, from less memory. */
TEST(eval_equals_train) {
    enum { H = 24, W = 32 };
    static float out[2][3 * H * W];
    size_t used[2];
    for (int mode = 0; mode < 2; mode++) {
        fixture f = {0};
        CHECK(start(&f, mode ? DR_MODE_EVAL : DR_MODE_TRAIN));
        dr_generator gen;
        CHECK(!dr_generator_init(&gen, (dr_generator_config){16, 6, 0}, f.be, false, &f.err));
        CHECK(!dr_params_init_xavier(&gen.params, 4, "G_A", 1.0, &f.err));
        dr_var x = random_input(&f, (dr_shape){1, 3, H, W}, 5), y = dr_generator_forward(&f.g, &gen, x, NULL);
        if (mode) CHECK(!dr_graph_run(&f.g, y, &f.err));
        CHECK(!dr_graph_status(&f.g, &f.err));
        CHECK(!dr_be_download(f.be, dr_var_tensor(&f.g, y), out[mode], &f.err));
        used[mode] = f.pool.high_water;
        dr_generator_done(&gen);
        stop(&f);
    }
    CHECK(!memcmp(out[0], out[1], sizeof out[0]));
    CHECK_MSG(used[1] * 2 < used[0], "%zu and %zu bytes", used[1], used[0]);
}

TEST(patches_are_distinct) {
    const dr_shape shapes[DR_TAPS] = {{1, 32, 64, 64}, {1, 64, 32, 32}, {1, 64, 16, 16}, {1, 64, 5, 5}};
    dr_patches p;
    dr_rng r;
    dr_rng_seed(&r, 9, 9);
    CHECK(!dr_patches_draw(&p, shapes, &r, NULL));
    CHECK(p.count[0] == 256 && p.count[2] == 256 && p.count[3] == 25);
    for (int t = 0; t < DR_TAPS; t++) {
        char seen[64 * 64] = {0};
        for (int i = 0; i < p.count[t]; i++) {
            int v = p.idx[t][i];
            CHECK(v >= 0 && v < shapes[t].h * shapes[t].w && !seen[v]);
            seen[v] = 1;
        }
    }
}
