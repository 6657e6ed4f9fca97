/* test_golden_generator.c - the generator against PyTorch: tests/golden/make_generator.py made the expected numbers.
 *
 * For ngf 16, 32, 64, 6 and 9 blocks, tanh output and both residuals, the same weights come from the hash (hashgen.h),
 * go into a model file and through the public door; pictures of 256x256, 250x333 and 16x16. The float output must agree
 * with PyTorch's samples, mean, deviation and random projections (which cover every pixel); the 8-bit output, from a
 * PNG and into a PNG, with the rounded samples and with the rounded float output as a whole. */
#include "core/base/alloc.h"
#include "core/derain.h"
#include "core/image/codec.h"
#include "core/model/safetensors.h"
#include "core/nn/generator.h"
#include "tests/golden/generator.inc"
#include "tests/golden/hashgen.h"
#include "tests/t.h"
#include <unistd.h>

enum { N_CASES = sizeof golden_cases / sizeof *golden_cases };

static char model_path[256];
static dr_error err;

static void make_path(void) {
    const char *dir = getenv("TMPDIR");
    snprintf(model_path, sizeof model_path, "%s/golden_%ld.safetensors", dir ? dir : P_tmpdir, (long)getpid());
}

/* A generator file with the weights of the hash: names and shapes from the network, values by "G_A.<name>". The tensor
 * `without`, if not NULL, is all zeros. */
static dr_status write_model(const golden_case *c, const char *without) {
    dr_generator_config cfg = {c->ngf, c->blocks, c->residual};
    dr_generator gen;
    float *data = NULL;
    dr_status s = dr_generator_init(&gen, cfg, NULL, false, &err);
    if (s) return s;
    dr_st_writer *w = dr_st_writer_create();
    size_t total = dr_params_total(&gen.params), at = 0;
    if (!(data = malloc(total * sizeof *data))) {
        s = dr_fail(&err, DR_NOMEM, "no memory for the weights");
        goto out;
    }
    dr_st_writer_meta(w, "derain.arch", "resnet");
    dr_st_writer_metaf(w, "derain.ngf", "%d", c->ngf);
    dr_st_writer_metaf(w, "derain.blocks", "%d", c->blocks);
    dr_st_writer_metaf(w, "derain.residual", "%d", c->residual);
    for (int i = 0; i < gen.params.n; i++) {
        const dr_param *p = &gen.params.p[i];
        char name[DR_ST_NAME_MAX];
        snprintf(name, sizeof name, "G_A.%s", p->name);
        int64_t dims[4] = {p->shape.n, p->shape.c, p->shape.h, p->shape.w};
        bool bias = strstr(p->name, "bias") != NULL;
        hg_fill(name, bias ? 0.1f : hg_scale(1.0, p->shape.c * p->shape.h * p->shape.w), dr_param_count(p), data + at);
        if (without && !strcmp(without, p->name)) memset(data + at, 0, dr_param_count(p) * sizeof *data);
        dr_st_writer_f32(w, p->name, DR_ST_F32, bias ? 1 : 4, dims, data + at);
        at += dr_param_count(p);
    }
    s = dr_st_writer_save(w, model_path, &err);
out:
    dr_st_writer_destroy(w);
    dr_generator_done(&gen);
    free(data);
    return s;
}

static size_t sample_index(const golden_case *c, int k) {
    size_t plane = (size_t)c->h * (size_t)c->w;
    if (k >= 12) return (size_t)(k - 12) * (size_t)c->stride % (3 * plane);
    return (size_t)(k / 4) * plane + (k & 2 ? plane - (size_t)c->w : 0) + (k & 1 ? (size_t)c->w - 1 : 0);
}

static int level(double v) {
    double c = v < -1 ? -1 : v > 1 ? 1 : v;
    return (int)floor((c + 1) / 2 * 255 + 0.5);
}

/* The 8-bit door: PNG in, PNG out, as (3,h,w) levels. */
static dr_status derain_8bit(dr_model *m, const golden_case *c, uint8_t *ret) {
    size_t plane = (size_t)c->h * (size_t)c->w, len = 0, out_len = 0;
    void *png = NULL, *out = NULL;
    dr_image img = {0}, res = {0};
    dr_status s = dr_image_init(&img, c->w, c->h, 3, 8, &err);
    for (size_t i = 0; !s && i < 3 * plane; i++)
        ((uint8_t *)img.pixels)[i % plane * 3 + i / plane] = hg_pixel(hg_name("input"), i);
    if (!s) s = dr_image_encode(&img, DR_FORMAT_PNG, 0, true, &png, &len, &err);
    if (!s) s = dr_derain(m, png, len, &(dr_run_opts){0}, &out, &out_len, NULL, &err);
    if (!s) s = dr_image_decode(out, out_len, NULL, &res, &err);
    if (!s && (res.width != c->w || res.height != c->h || res.channels != 3 || res.depth != 8))
        s = dr_fail(&err, DR_INTERNAL, "the output has another size or kind than the input");
    for (size_t i = 0; !s && i < 3 * plane; i++) ret[i] = ((uint8_t *)res.pixels)[i % plane * 3 + i / plane];
    dr_image_done(&img);
    dr_image_done(&res);
    dr_free(png);
    dr_free(out);
    return s;
}

typedef struct deviation {
    double sample, mean, std, rms; /* largest of all cases */
    long samples, off, far;        /* 8-bit samples, those one level off, those further off */
    long pixels, pixel_off;        /* 8-bit against the rounded float output, every pixel */
} deviation;

static double larger(double a, double b) {
    return a > b || isnan(b) ? a : b;
}

static dr_status run_case(dr_model *m, const golden_case *c, deviation *d) {
    size_t n = 3 * (size_t)c->h * (size_t)c->w;
    float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
    uint8_t *y8 = calloc(1, n);
    double p[64], mean = 0, var = 0, rms = 0, sample = 0;
    dr_status s = x && y && y8 ? DR_OK : dr_fail(&err, DR_NOMEM, "no memory for a picture");
    if (!s) {
        hg_fill_picture("input", n, x);
        s = dr_model_forward(m, x, c->w, c->h, y, &err);
    }
    if (!s) s = derain_8bit(m, c, y8);
    if (s) goto out;
    for (int k = 0; k < GOLDEN_SAMPLES; k++) {
        size_t i = sample_index(c, k);
        double want = c->micro[k] * 1e-6;
        sample = larger(fabs((double)y[i] - want), sample);
        int off = abs((int)y8[i] - level(want));
        d->samples++;
        d->off += off == 1;
        d->far += off > 1;
    }
    for (size_t i = 0; i < n; i++) {
        mean += (double)y[i] / (double)n;
        d->pixel_off += y8[i] != level((double)y[i]);
    }
    for (size_t i = 0; i < n; i++) var += ((double)y[i] - mean) * ((double)y[i] - mean) / (double)n;
    hg_project("projection", y, n, p);
    for (int k = 0; k < GOLDEN_PROJECTIONS; k++) {
        double e = p[k] - c->projection[k];
        rms += e * e / GOLDEN_PROJECTIONS / (double)n;
    }
    d->pixels += (long)n;
    d->sample = larger(sample, d->sample);
    d->mean = larger(fabs(mean - c->mean), d->mean);
    d->std = larger(fabs(sqrt(var) - c->std), d->std);
    d->rms = larger(sqrt(rms), d->rms);
out:
    free(x);
    free(y);
    free(y8);
    return s;
}

static void check_width(int ngf) {
    dr_engine *e = NULL;
    dr_model *m = NULL;
    deviation d = {0};
    int cases = 0;
    err = (dr_error){0};
    make_path();
    dr_status s = dr_engine_open(&(dr_engine_opts){.backend = "cpu", .threads = 1}, &e, &err);
    for (int i = 0; i < N_CASES && !s; i++) {
        const golden_case *c = &golden_cases[i];
        if (c->ngf != ngf) continue;
        if (!m) { /* the three sizes of a network follow each other */
            if (!(s = write_model(c, NULL))) s = dr_model_open(e, model_path, &m, &err);
            unlink(model_path);
        }
        if (!s) s = run_case(m, c, &d);
        cases++;
        if (cases % 3 == 0) {
            dr_model_close(m);
            m = NULL;
        }
    }
    dr_model_close(m);
    dr_engine_close(e);
    CHECK_MSG(!s, "%s", err.text);
    printf("# ngf %d, %d cases: largest difference %.2g, of means %.2g, of deviations %.2g; rms over all pixels %.2g; "
           "8-bit: %ld of %ld samples off by one, %ld pixels unlike the rounded floats\n",
           ngf, cases, d.sample, d.mean, d.std, d.rms, d.off, d.samples, d.pixel_off);
    CHECK(cases == 2 * 3 * 3);
    CHECK(d.sample <= 1e-4);
    CHECK(d.mean <= 1e-5 && d.std <= 1e-5);
    CHECK(d.rms <= 2e-5); /* of every pixel, by random projections */
    CHECK(d.far == 0);
    CHECK(d.off * 1000 <= d.samples); /* at most 0.1 % */
    CHECK(d.pixel_off * 1000 <= d.pixels);
}

TEST(ngf_16_agrees_with_pytorch) {
    check_width(16);
}
TEST(ngf_32_agrees_with_pytorch) {
    check_width(32);
}
TEST(ngf_64_agrees_with_pytorch) {
    check_width(64);
}

/* The comparison itself must notice a network that is almost right: the last layer without its bias. */
TEST(a_missing_bias_is_seen) {
    const golden_case *c = &golden_cases[0];
    dr_engine *e = NULL;
    dr_model *m = NULL;
    deviation d = {0};
    err = (dr_error){0};
    make_path();
    dr_status s = write_model(c, "model.27.bias");
    if (!s) s = dr_engine_open(&(dr_engine_opts){.backend = "cpu", .threads = 1}, &e, &err);
    if (!s) s = dr_model_open(e, model_path, &m, &err);
    if (!s) s = run_case(m, c, &d);
    unlink(model_path);
    dr_model_close(m);
    dr_engine_close(e);
    CHECK_MSG(!s, "%s", err.text);
    CHECK(d.sample > 1e-3 && d.rms > 1e-3 && d.mean > 1e-3 && d.far > 0);
}
