/* test_spec.c - generator files: inferred and claimed architectures, every disagreement, random starts, conversion. */
#include "core/model/spec.h"

#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/model/half.h"
#include "core/model/weights.h"
#include "tests/t.h"
#include <unistd.h>

static char *path_of(const char *name) {
    static char path[4][96];
    static int i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "/tmp/test_spec_%ld_%s.safetensors", (long)getpid(), name);
    return path[i];
}

/* A change to an otherwise good file. */
typedef struct twist {
    const char *drop, *add;  /* a tensor to leave out; to add with one element */
    const char *reshape;     /* a tensor whose first two dimensions change places */
    const char *nan;         /* a tensor whose raw data gets a NaN */
    const char *key, *value; /* metadata to set */
    bool no_meta, filt, bad_filt;
    const char *prefix;
} twist;

static const char *build(dr_generator_config cfg, const twist *t, const char *file) {
    const char *path = path_of(file);
    dr_generator g;
    if (dr_generator_init(&g, cfg, NULL, false, NULL)) return NULL;
    dr_st_writer *w = dr_st_writer_create();
    dr_spec spec = {.cfg = cfg, .version = 3, .name = "test"};
    if (!t->no_meta) dr_spec_write(w, &spec);
    if (t->key) dr_st_writer_meta(w, t->key, t->value);
    static float zeros[256 * 256 * 9];
    static float broken[256 * 256 * 9];
    broken[1] = NAN;
    for (int i = 0; i < g.params.n; i++) {
        const dr_param *p = &g.params.p[i];
        size_t len = strlen(p->name);
        int64_t dims[] = {p->shape.n, p->shape.c, p->shape.h, p->shape.w};
        char name[100];
        snprintf(name, sizeof name, "%s%s", t->prefix ? t->prefix : "", p->name);
        if (t->drop && !strcmp(t->drop, p->name)) continue;
        if (t->reshape && !strcmp(t->reshape, p->name)) dims[0] = p->shape.c, dims[1] = p->shape.n;
        bool nan = t->nan && !strcmp(t->nan, p->name);
        dr_st_writer_raw(w, name, DR_ST_F32, !strcmp(p->name + len - 5, ".bias") ? 1 : 4, dims, nan ? broken : zeros);
    }
    if (t->add) dr_st_writer_f32(w, t->add, DR_ST_F32, 1, (const int64_t[]){1}, zeros);
    static float filt[2][64 * 16];
    static const float row[2][4] = {{1, 2, 1}, {1, 3, 3, 1}};
    for (int u = 0; u < 2 && t->filt; u++) {
        int k = u ? 4 : 3, c = 4 * cfg.ngf;
        for (int i = 0; i < c * k * k; i++) filt[u][i] = row[u][i % k] * row[u][i / k % k] / 16;
        if (t->bad_filt) filt[u][7] += 0.01f;
        char name[2][40];
        snprintf(name[0], 40, "model.%d.filt", u ? 12 + cfg.blocks : 11);
        snprintf(name[1], 40, "model.%d.filt", u ? 16 + cfg.blocks : 7);
        dr_st_writer_f32(w, name[0], DR_ST_F32, 4, (const int64_t[]){c, 1, k, k}, filt[u]);
        dr_st_writer_f32(w, name[1], DR_ST_F32, 4, (const int64_t[]){c / 2, 1, k, k}, filt[u]);
    }
    dr_error err = {0};
    if (dr_st_writer_save(w, path, &err)) printf("# %s\n", err.text), path = NULL;
    dr_st_writer_destroy(w);
    dr_generator_done(&g);
    return path;
}

TEST(architecture_from_shapes_and_metadata) {
    static const struct {
        dr_generator_config cfg;
        twist t;
        int residual;
    } cases[] = {
        {{16, 1, 0}, {0}, 0},
        {{16, 6, 3}, {0}, 3},
        {{32, 9, 1}, {0}, 1},
        {{16, 2, 0}, {.no_meta = true}, 0},
        {{16, 2, 1}, {.no_meta = true}, 1},
        {{16, 2, 3}, {.no_meta = true}, 0}, /* nothing says that it is one */
        {{16, 2, 3}, {.no_meta = true, .key = "derain.residual", .value = "1"}, 3},
        {{16, 3, 1}, {.no_meta = true, .key = "derain.residual", .value = "1"}, 1},
        {{16, 3, 0}, {.filt = true}, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dr_model_info info;
        dr_error err = {0};
        const char *path = build(cases[i].cfg, &cases[i].t, "good");
        CHECK(path);
        CHECK_MSG(!dr_model_describe(path, &info, &err), "%zu: %s", i, err.text);
        CHECK_MSG(info.ngf == cases[i].cfg.ngf && info.blocks == cases[i].cfg.blocks &&
                      info.residual == cases[i].residual,
                  "%zu: %d %d %d", i, info.ngf, info.blocks, info.residual);
        CHECK(!strcmp(info.dtype, "F32") && !strcmp(info.arch, "resnet") && strlen(info.sha256) == 64);
        if (!cases[i].t.no_meta)
            CHECK(!strcmp(info.name, "test") && info.version == 3 && strstr(info.metadata_json, "resnet"));
        else
            CHECK(!strncmp(info.name, "test_spec_", 10) && strstr(info.name, "_good") && info.version == 1);
        dr_model_info_done(&info);
        unlink(path);
    }
}

TEST(counts_of_the_paper) {
    dr_model_info info;
    const char *path = build((dr_generator_config){64, 9, 0}, &(twist){0}, "big");
    CHECK(path && !dr_model_describe(path, &info, NULL) && info.params == 11378179);
    dr_model_info_done(&info);
    unlink(path);
}

TEST(what_does_not_fit_is_named) {
    static const struct {
        twist t;
        const char *says;
    } cases[] = {
        {{.drop = "model.1.weight"}, "model.1.weight"},
        {{.drop = "model.1.bias"}, "'model.1.bias' is missing"},
        {{.drop = "model.13.conv_block.5.bias"}, "'model.13.conv_block.5.bias' is missing"},
        {{.drop = "model.12.conv_block.1.weight"}, "model.12.conv_block.1.weight"},
        {{.drop = "model.13.conv_block.1.weight"}, "model.22.weight"}, /* looks like one block: no last layer there */
        {{.drop = "model.23.weight"}, "model.23.weight"},
        {{.reshape = "model.4.weight"}, "'model.4.weight' has shape (16,32,3,3), the network needs (32,16,3,3)"},
        {{.reshape = "model.1.weight"}, "derain.ngf is 16, the tensors say 3"},
        {{.reshape = "model.23.weight"}, "model.23.weight"},
        {{.nan = "model.8.weight"}, "'model.8.weight': element 1 is not a number"},
        {{.add = "model.99.weight"}, "'model.99.weight' does not belong"},
        {{.add = "model.7.filt"}, "'model.7.filt' has not the shape"},
        {{.filt = true, .bad_filt = true}, "filt': element 7"},
        {{.prefix = "G_A."}, "nets of a training"},
        {{.prefix = "other."}, "no generator"},
        {{.key = "derain.arch", .value = "unet"}, "'unet'"},
        {{.key = "derain.ngf", .value = "32"}, "derain.ngf is 32, the tensors say 16"},
        {{.key = "derain.blocks", .value = "9"}, "derain.blocks is 9"},
        {{.key = "derain.blocks", .value = "two"}, "derain.blocks is 'two'"},
        {{.key = "derain.residual", .value = "2"}, "derain.residual is 2"},
        {{.key = "derain.version", .value = "0"}, "derain.version"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dr_model_info info;
        dr_error err = {0};
        const char *path = build((dr_generator_config){16, 2, 0}, &cases[i].t, "bad");
        CHECK_MSG(path, "%zu", i);
        dr_status s = dr_model_describe(path, &info, &err);
        CHECK_MSG(s == DR_CORRUPT && strstr(err.text, cases[i].says) && strstr(err.text, path), "%zu: %d %s", i, s,
                  err.text);
        unlink(path);
    }
    dr_error err = {0};
    dr_model_info info;
    const char *path = build((dr_generator_config){16, 2, 1}, &(twist){.key = "derain.residual", .value = "0"}, "bad");
    CHECK(dr_model_describe(path, &info, &err) == DR_CORRUPT && strstr(err.text, "derain.residual is 0"));
    unlink(path);
}

TEST(odd_names_become_harmless) {
    dr_model_info info;
    const char *path =
        build((dr_generator_config){16, 1, 0}, &(twist){.key = "derain.name", .value = "a b/../\r\nX: 1"}, "n");
    CHECK(path && !dr_model_describe(path, &info, NULL));
    CHECK_MSG(!strcmp(info.name, "a-b-..---X--1"), "%s", info.name);
    dr_model_info_done(&info);
    unlink(path);
}

/* ---- files that we make --------------------------------------------------------------------------------------- */

TEST(init_is_random_by_seed_and_equal_by_seed) {
    dr_model_spec spec = {.ngf = 16, .blocks = 2, .residual = 0, .seed = 5, .name = "n"};
    const char *a = path_of("a"), *b = path_of("b"), *c = path_of("c");
    dr_error err = {0};
    CHECK_MSG(!dr_model_init_file(&spec, a, &err), "%s", err.text);
    CHECK(!dr_model_init_file(&spec, b, NULL));
    spec.seed = 6;
    CHECK(!dr_model_init_file(&spec, c, NULL));
    char *d[3];
    size_t n[3];
    const char *paths[] = {a, b, c};
    for (int i = 0; i < 3; i++) CHECK(!dr_fs_read(paths[i], 1 << 26, &d[i], &n[i], NULL));
    CHECK(n[0] == n[1] && !memcmp(d[0], d[1], n[0]) && n[0] == n[2] && memcmp(d[0], d[2], n[0]));
    dr_st *f;
    CHECK(!dr_st_parse(d[0], n[0], &f, NULL));
    const dr_st_tensor *t = dr_st_find(f, "model.13.conv_block.5.weight");
    static float v[64 * 64 * 9];
    CHECK(t && t->count == 64 * 64 * 9 && !dr_st_read_f32(t, v, NULL));
    double sum = 0, sq = 0;
    for (size_t i = 0; i < t->count; i++) sum += (double)v[i], sq += (double)v[i] * (double)v[i];
    double std = sqrt(sq / (double)t->count), want = 0.02 * sqrt(2.0 / (2 * 64 * 9));
    CHECK_MSG(fabs(std / want - 1) < 0.02 && fabs(sum / (double)t->count) < want / 50, "%g %g", std, want);
    CHECK(!dr_st_read_f32(dr_st_find(f, "model.1.bias"), v, NULL) && v[0] == 0 && v[15] == 0);
    dr_st_close(f);
    for (int i = 0; i < 3; i++) {
        dr_free(d[i]);
        unlink(paths[i]);
    }
}

TEST(init_residual_starts_from_nothing) {
    dr_model_spec spec = {.ngf = 16, .blocks = 1, .residual = 1, .seed = 5, .dtype = "F16"};
    const char *a = path_of("a");
    dr_error err = {0};
    dr_model_info info;
    CHECK_MSG(!dr_model_init_file(&spec, a, &err), "%s", err.text);
    CHECK(!dr_model_describe(a, &info, &err) && info.residual == 1 && !strcmp(info.dtype, "F16") &&
          !strcmp(info.name, "derain"));
    dr_model_info_done(&info);
    dr_st *f;
    CHECK(!dr_st_open(a, &f, NULL));
    float v[16 * 49];
    const dr_st_tensor *t = dr_st_find(f, "model.22.weight");
    CHECK(t && t->count == 16 * 49 && !dr_st_read_f32(t, v, NULL));
    for (size_t i = 0; i < t->count; i++) CHECK(v[i] == 0);
    dr_st_close(f);
    unlink(a);
}

TEST(init_refuses) {
    static const dr_model_spec bad[] = {{.ngf = 20, .blocks = 6},
                                        {.ngf = 0, .blocks = 6},
                                        {.ngf = 1024, .blocks = 6},
                                        {.ngf = 16, .blocks = 0},
                                        {.ngf = 16, .blocks = 99},
                                        {.ngf = 16, .blocks = 2, .residual = 2},
                                        {.ngf = 16, .blocks = 2, .dtype = "I64"},
                                        {.ngf = 16, .blocks = 2, .dtype = "f32"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        dr_error err = {0};
        CHECK(dr_model_init_file(&bad[i], path_of("x"), &err) == DR_INVALID && err.text[0]);
    }
    dr_error err = {0};
    CHECK(dr_model_init_file(&(dr_model_spec){.ngf = 16, .blocks = 1}, "/tmp/no/such/dir/x", &err) != DR_OK &&
          err.text[0]);
}

TEST(convert_keeps_metadata_and_rounds) {
    dr_model_spec spec = {.ngf = 16, .blocks = 1, .residual = 3, .seed = 9, .name = "conv"};
    const char *a = path_of("a"), *h = path_of("h"), *back = path_of("k");
    dr_error err = {0};
    CHECK(!dr_model_init_file(&spec, a, NULL));
    CHECK_MSG(!dr_model_convert_file(a, "F16", h, &err), "%s", err.text);
    CHECK_MSG(!dr_model_convert_file(h, "F32", back, &err), "%s", err.text);
    dr_st *fa, *fb;
    CHECK(!dr_st_open(a, &fa, NULL) && !dr_st_open(back, &fb, NULL));
    CHECK(dr_st_count(fa) == dr_st_count(fb));
    char *ma = dr_st_meta_json(fa), *mb = dr_st_meta_json(fb);
    CHECK(ma && mb && !strcmp(ma, mb));
    dr_free(ma);
    dr_free(mb);
    static float va[64 * 64 * 9], vb[64 * 64 * 9];
    for (size_t i = 0; i < dr_st_count(fa); i++) {
        const dr_st_tensor *ta = dr_st_at(fa, i), *tb = dr_st_find(fb, ta->name);
        CHECK(tb && tb->count == ta->count && tb->dtype == DR_ST_F32);
        CHECK(!dr_st_read_f32(ta, va, NULL) && !dr_st_read_f32(tb, vb, NULL));
        for (size_t k = 0; k < ta->count; k++) CHECK(vb[k] == dr_f16_to_f32(dr_f16_from_f32(va[k])));
    }
    dr_st_close(fa);
    dr_st_close(fb);
    CHECK(dr_model_convert_file(a, "U8", h, NULL) == DR_INVALID);
    CHECK(dr_model_convert_file("/tmp/none.safetensors", "F16", h, NULL) == DR_NOT_FOUND);
    CHECK(!dr_model_convert_file(a, "F16", a, &err)); /* onto itself */
    dr_model_info info;
    CHECK(!dr_model_describe(a, &info, NULL) && !strcmp(info.dtype, "F16"));
    dr_model_info_done(&info);
    unlink(a);
    unlink(h);
    unlink(back);
}

TEST(no_memory_in_describe) {
    const char *path = build((dr_generator_config){16, 1, 0}, &(twist){.filt = true}, "mem");
    CHECK(path);
    for (long n = 1;; n++) {
        dr_model_info info;
        dr_error err = {0};
        dr_alloc_fail_after(n, true);
        dr_status s = dr_model_describe(path, &info, &err);
        dr_alloc_fail_after(0, false);
        if (!s) {
            dr_model_info_done(&info);
            break;
        }
        CHECK_MSG(s == DR_NOMEM && n < 1000, "%s", err.text);
    }
    unlink(path);
}
