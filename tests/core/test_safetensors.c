/* test_safetensors.c - the weight file: round trips, equal bytes, every kind of bad file, no memory. */
#include "core/model/safetensors.h"

#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/base/rng.h"
#include "core/model/half.h"
#include "tests/t.h"
#include <jansson.h>
#include <unistd.h>

static const char *tmp_path(void) {
    static char path[64];
    snprintf(path, sizeof path, "/tmp/test_st_%ld.safetensors", (long)getpid());
    return path;
}

/* ---- 16-bit floats -------------------------------------------------------------------------------------------- */

TEST(f16_every_pattern_survives) {
    for (uint32_t h = 0; h < 65536; h++) {
        float f = dr_f16_to_f32((uint16_t)h);
        uint16_t back = dr_f16_from_f32(f);
        if (isnan(f))
            CHECK(isnan(dr_f16_to_f32(back)));
        else
            CHECK_MSG(back == h, "%04x -> %g -> %04x", h, (double)f, back);
    }
}

/* The nearest by search among the finite patterns; a tie goes to the even one. */
TEST(f16_rounds_to_nearest_even) {
    dr_rng r;
    dr_rng_seed(&r, 7, 0);
    for (int i = 0; i < 20000; i++) {
        float f = (float)ldexp(dr_rng_range(&r, -2, 2), (int)dr_rng_below(&r, 44) - 28);
        if (fabsf(f) >= 65504) continue;
        uint16_t h = dr_f16_from_f32(f);
        double d = fabs((double)dr_f16_to_f32(h) - (double)f);
        for (int k = -1; k <= 1; k += 2) {
            uint16_t other = (uint16_t)(h + k);
            if ((h & 0x7fff) == 0 && k < 0) continue;
            double o = fabs((double)dr_f16_to_f32(other) - (double)f);
            CHECK_MSG(o > d || (o == d && !(h & 1)), "%a -> %04x, %04x is nearer", (double)f, h, other);
        }
    }
    CHECK(dr_f16_from_f32(1.0f + 0x1p-11f) == 0x3c00 && dr_f16_from_f32(1.0f + 3 * 0x1p-11f) == 0x3c02);
    CHECK(dr_f16_from_f32(0x1p-25f) == 0 && dr_f16_from_f32(0x1.8p-24f) == 2 && dr_f16_from_f32(0x1.000002p-25f) == 1);
    CHECK(dr_f16_from_f32(65519.99f) == 0x7bff && dr_f16_from_f32(65520.0f) == 0x7c00 &&
          dr_f16_from_f32(-INFINITY) == 0xfc00 && dr_f16_from_f32(-0.0f) == 0x8000);
}

TEST(bf16_rounds_to_nearest_even) {
    for (uint32_t h = 0; h < 65536; h++) {
        float f = dr_bf16_to_f32((uint16_t)h);
        if (!isnan(f))
            CHECK(dr_bf16_from_f32(f) == h);
        else
            CHECK(isnan(dr_bf16_to_f32(dr_bf16_from_f32(f))));
    }
    CHECK(dr_bf16_from_f32(1.0f + 0x1p-8f) == 0x3f80 && dr_bf16_from_f32(1.0f + 3 * 0x1p-8f) == 0x3f82);
    CHECK(dr_bf16_from_f32(1.0f + 0x1.01p-8f) == 0x3f81);
}

/* ---- writer and reader ---------------------------------------------------------------------------------------- */

static const int64_t dims23[] = {2, 3}, dims3[] = {3}, dims0[] = {0, 4};
static const float six[] = {1, -2, 0.5f, 0.1f, 1e-6f, 3};
static const int64_t longs[] = {1, -5, INT64_MAX};
static const uint8_t bytes3[] = {7, 8, 9};

static dr_status fetch_six(void *arg, float *dst, size_t count, dr_error *err) {
    (void)err;
    ++*(int *)arg;
    memcpy(dst, six, count * sizeof *dst);
    return DR_OK;
}

static dr_st_writer *sample(int *calls) {
    dr_st_writer *w = dr_st_writer_create();
    dr_st_writer_meta(w, "derain.name", "r\xc3\xa4in \"1\"");
    dr_st_writer_metaf(w, "derain.ngf", "%d", 32);
    dr_st_writer_raw(w, "bytes", DR_ST_U8, 1, dims3, bytes3);
    dr_st_writer_f32(w, "half", DR_ST_F16, 2, dims23, six);
    dr_st_writer_f32(w, "brain", DR_ST_BF16, 2, dims23, six);
    dr_st_writer_f32(w, "full", DR_ST_F32, 2, dims23, six);
    dr_st_writer_fetch(w, "fetched", DR_ST_F32, 2, dims23, fetch_six, calls);
    dr_st_writer_raw(w, "longs", DR_ST_I64, 1, dims3, longs);
    dr_st_writer_f32(w, "scalar", DR_ST_F32, 0, NULL, six + 1);
    dr_st_writer_f32(w, "empty", DR_ST_F32, 2, dims0, six);
    return w;
}

TEST(round_trip) {
    dr_error err = {0};
    int calls = 0;
    dr_st_writer *w = sample(&calls);
    dr_st_writer_checksum(w);
    CHECK_MSG(!dr_st_writer_save(w, tmp_path(), &err), "%s", err.text);
    dr_st_writer_destroy(w);
    CHECK(calls == 2);
    dr_st *f;
    CHECK_MSG(!dr_st_open(tmp_path(), &f, &err), "%s", err.text);
    CHECK_MSG(!dr_st_verify(f, &err), "%s", err.text);
    CHECK(dr_st_count(f) == 8 && !strcmp(dr_st_meta(f, "derain.name"), "r\xc3\xa4in \"1\"") &&
          !strcmp(dr_st_meta(f, "derain.ngf"), "32") && !dr_st_meta(f, "none"));
    CHECK(dr_st_meta_count(f) == 3);
    const char *key, *value;
    dr_st_meta_at(f, 1, &key, &value);
    CHECK(!strcmp(key, "derain.ngf") && !strcmp(value, "32"));
    char *json = dr_st_meta_json(f);
    CHECK(json && strstr(json, "\"derain.ngf\":\"32\""));
    dr_free(json);
    CHECK(!strcmp(dr_st_at(f, 0)->name, "longs") && !strcmp(dr_st_at(f, 7)->name, "bytes"));
    size_t len;
    const char *base = dr_st_bytes(f, &len);
    for (size_t i = 0; i < dr_st_count(f); i++) {
        const dr_st_tensor *t = dr_st_at(f, i);
        CHECK(((size_t)((const char *)t->data - base)) % dr_st_dtype_size(t->dtype) == 0);
    }
    float v[6];
    int64_t l[3];
    const dr_st_tensor *t = dr_st_find(f, "full");
    CHECK(t && dr_st_has_shape(t, 2, dims23) && !dr_st_has_shape(t, 1, dims3));
    CHECK(!dr_st_read_f32(t, v, &err) && !memcmp(v, six, sizeof six));
    CHECK(!dr_st_read_f32(dr_st_find(f, "fetched"), v, &err) && !memcmp(v, six, sizeof six));
    CHECK(!dr_st_read_f32(dr_st_find(f, "half"), v, &err));
    for (int i = 0; i < 6; i++) CHECK(v[i] == dr_f16_to_f32(dr_f16_from_f32(six[i])) && fabsf(v[i] - six[i]) < 1e-3f);
    CHECK(!dr_st_read_f32(dr_st_find(f, "brain"), v, &err));
    for (int i = 0; i < 6; i++) CHECK(v[i] == dr_bf16_to_f32(dr_bf16_from_f32(six[i])));
    CHECK(!dr_st_read_f32(dr_st_find(f, "scalar"), v, &err) && v[0] == -2 && dr_st_find(f, "scalar")->rank == 0);
    CHECK(!dr_st_read_i64(dr_st_find(f, "longs"), l, &err) && !memcmp(l, longs, sizeof l));
    CHECK(dr_st_read_i64(dr_st_find(f, "full"), l, NULL) && dr_st_read_f32(dr_st_find(f, "longs"), v, NULL));
    CHECK(!dr_st_find(f, "nothing") && dr_st_find(f, "empty")->count == 0);
    dr_st_close(f);
    unlink(tmp_path());
}

TEST(equal_input_gives_equal_bytes) {
    char *data[2];
    size_t len[2];
    int calls = 0;
    for (int i = 0; i < 2; i++) {
        dr_st_writer *w = sample(&calls);
        CHECK(!dr_st_writer_save(w, tmp_path(), NULL));
        dr_st_writer_destroy(w);
        CHECK(!dr_fs_read(tmp_path(), 1 << 20, &data[i], &len[i], NULL));
    }
    CHECK(len[0] == len[1] && !memcmp(data[0], data[1], len[0]));
    uint64_t header = 0;
    for (int i = 7; i >= 0; i--) header = header << 8 | (unsigned char)data[0][i];
    CHECK(header % 8 == 0);
    dr_free(data[0]);
    dr_free(data[1]);
    unlink(tmp_path());
}

static dr_status refuse(void *arg, float *dst, size_t count, dr_error *err) {
    (void)arg, (void)dst, (void)count;
    return dr_fail(err, DR_BACKEND, "device lost");
}

TEST(writer_refuses_and_keeps_the_old_file) {
    CHECK(!dr_fs_write_atomic(tmp_path(), "old", 3, NULL));
    const float nan1[] = {1, NAN, 2}, big[] = {1, 2, 70000};
    for (int i = 0; i < 7; i++) {
        dr_error err = {0};
        dr_st_writer *w = dr_st_writer_create();
        if (i == 0) dr_st_writer_f32(w, "bad.tensor", DR_ST_F32, 1, dims3, nan1);
        if (i == 1) dr_st_writer_f32(w, "bad.tensor", DR_ST_F16, 1, dims3, big);
        if (i == 2) dr_st_writer_fetch(w, "bad.tensor", DR_ST_F32, 1, dims3, refuse, NULL);
        if (i == 3) dr_st_writer_f32(w, "bad.tensor", DR_ST_F32, 1, (const int64_t[]){-1}, six);
        if (i == 4) dr_st_writer_f32(w, "bad.tensor", DR_ST_F32, 2, (const int64_t[]){INT64_MAX, 8}, six);
        if (i == 5) {
            dr_st_writer_f32(w, "bad.tensor", DR_ST_F32, 1, dims3, six);
            dr_st_writer_f32(w, "bad.tensor", DR_ST_F32, 1, dims3, six);
        }
        if (i == 6) dr_st_writer_f32(w, "bad.tensor\xff", DR_ST_F32, 1, dims3, six);
        dr_status s = dr_st_writer_save(w, tmp_path(), &err);
        CHECK_MSG(s == (i == 2 ? DR_BACKEND : DR_INVALID) && err.code == s && strstr(err.text, "bad.tensor"), "%d: %s",
                  i, err.text);
        dr_st_writer_destroy(w);
        char *data;
        size_t len;
        CHECK(!dr_fs_read(tmp_path(), 100, &data, &len, NULL) && len == 3);
        dr_free(data);
    }
    unlink(tmp_path());
    dr_error err = {0};
    dr_st_writer *w = dr_st_writer_create();
    dr_st_writer_meta(w, "key", "\xff\xfe");
    dr_st_writer_f32(w, "x", DR_ST_F32, 1, dims3, six);
    CHECK(dr_st_writer_save(w, tmp_path(), &err) == DR_INVALID && !dr_fs_exists(tmp_path()));
    dr_st_writer_destroy(w);
    CHECK(dr_st_writer_save(NULL, tmp_path(), NULL) == DR_NOMEM);
}

/* ---- bad files ------------------------------------------------------------------------------------------------ */

/* Header text and n bytes of data to a file in memory. */
static char *build(const char *header, size_t n, size_t *ret_len) {
    size_t h = strlen(header);
    char *p = malloc(8 + h + n + 1);
    for (int i = 0; i < 8; i++) p[i] = (char)((uint64_t)h >> (8 * i));
    memcpy(p + 8, header, h);
    memset(p + 8 + h, 0, n);
    *ret_len = 8 + h + n;
    return p;
}

TEST(bad_headers_are_refused_by_name) {
    static const struct {
        const char *header;
        size_t n;
        const char *says;
    } cases[] = {
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}", 8, "JSON"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}} x", 8, "JSON"},
        {" {\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "'{'"},
        {"[1]", 0, "'{'"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
         8, "duplicate"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "duplicate"},
        {"{\"\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "name"},
        {"{\"a.b\":[]}", 8, "'a.b'"},
        {"{\"a.b\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "'a.b'"},
        {"{\"a.b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8, "'a.b'"},
        {"{\"a.b\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, "'a.b': dtype 'F64'"},
        {"{\"a.b\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,8]}}", 8, "'a.b': dtype"},
        {"{\"a.b\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8, "'a.b': shape"},
        {"{\"a.b\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "'a.b': dimension 0"},
        {"{\"a.b\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, "'a.b': dimension 0"},
        {"{\"a.b\":{\"dtype\":\"F32\",\"shape\":[\"2\"],\"data_offsets\":[0,8]}}", 8, "'a.b': dimension 0"},
        {"{\"a.b\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8, "'a.b': 9 dim"},
        {"{\"a.b\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
         "'a.b': its shape"},
        {"{\"a.b\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0, "'a.b': its shape"},
        {"{\"a.b\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,0]}}", 0, "JSON"},
        {"{\"a.b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "'a.b': data_offsets"},
        {"{\"a.b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, "'a.b': data_offsets"},
        {"{\"a.b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "'a.b': data ends"},
        {"{\"a.b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "'a.b': shape and dtype make 8"},
        {"{\"a.b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, "'a.b': data ends at byte 8"},
        {"{\"a.b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 9, "1 bytes at the end"},
        {"{\"a.b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, "before tensor 'a.b'"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         12, "'b' overlaps tensor 'a'"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
         8, "overlaps"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}",
         16, "4 bytes before tensor 'b'"},
        {"{\"__metadata__\":[]}", 0, "__metadata__"},
        {"{\"__metadata__\":{\"steps\":5}}", 0, "'steps'"},
        {"{\"__metadata__\":{\"a\":\"\\u0000\"}}", 0, "JSON"},
        {"{\"a\xff\":1}", 0, "JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dr_error err = {0};
        size_t len;
        char *data = build(cases[i].header, cases[i].n, &len);
        dr_st *f = NULL;
        dr_status s = dr_st_parse(data, len, &f, &err);
        CHECK_MSG((s == DR_CORRUPT || s == DR_UNSUPPORTED) && !f, "%s: accepted", cases[i].header);
        CHECK_MSG(strstr(err.text, cases[i].says) && !strcmp(err.what, "bad_model"), "%s: %s", cases[i].header,
                  err.text);
        free(data);
    }
}

TEST(order_of_entries_does_not_matter) {
    size_t len;
    char *data = build("{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]},"
                       "\"e\":{\"data_offsets\":[8,8],\"shape\":[0],\"dtype\":\"F32\"},"
                       "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}   ",
                       12, &len);
    dr_st *f;
    dr_error err = {0};
    CHECK_MSG(!dr_st_parse(data, len, &f, &err), "%s", err.text);
    CHECK(!strcmp(dr_st_at(f, 0)->name, "a") && !strcmp(dr_st_at(f, 2)->name, "b"));
    char *json = dr_st_meta_json(f);
    CHECK(json && !strcmp(json, "{}") && dr_st_meta_count(f) == 0);
    dr_free(json);
    dr_st_close(f);
    free(data);
}

TEST(bad_lengths_are_refused) {
    dr_st *f = NULL;
    dr_error err = {0};
    CHECK(dr_st_parse("", 0, &f, &err) == DR_CORRUPT);
    unsigned char p[64] = {0};
    CHECK(dr_st_parse(p, 9, &f, NULL) == DR_CORRUPT && dr_st_parse(p, 64, &f, NULL) == DR_CORRUPT);
    p[0] = 57; /* one more than there is */
    p[8] = '{';
    CHECK(dr_st_parse(p, 64, &f, NULL) == DR_CORRUPT);
    memset(p, 0xff, 8);
    err = (dr_error){0};
    CHECK(dr_st_parse(p, 64, &f, &err) == DR_CORRUPT && strstr(err.text, "header claims"));
    CHECK(!f);
}

TEST(every_cut_is_refused) {
    int calls = 0;
    dr_st_writer *w = sample(&calls);
    CHECK(!dr_st_writer_save(w, tmp_path(), NULL));
    dr_st_writer_destroy(w);
    char *data;
    size_t len;
    CHECK(!dr_fs_read(tmp_path(), 1 << 20, &data, &len, NULL));
    for (size_t n = 0; n < len; n++) {
        char *cut = malloc(n + 1); /* its own block, so that ASan sees a read behind it */
        memcpy(cut, data, n);
        dr_st *f = NULL;
        CHECK(dr_st_parse(cut, n, &f, NULL) == DR_CORRUPT && !f);
        free(cut);
    }
    dr_free(data);
    unlink(tmp_path());
}

TEST(values_that_are_not_finite_are_named) {
    static const struct {
        const char *dtype;
        size_t n, at;
        unsigned char v[4];
    } cases[] = {{"F32", 8, 4, {0, 0, 0xc0, 0x7f}}, {"F32", 8, 4, {0, 0, 0x80, 0xff}}, {"F16", 4, 2, {0, 0x7e}},
                 {"F16", 4, 2, {0, 0xfc}},          {"BF16", 4, 2, {0x80, 0x7f}},      {"BF16", 4, 2, {0xc0, 0x7f}}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char header[200];
        snprintf(header, sizeof header, "{\"m.1.weight\":{\"dtype\":\"%s\",\"shape\":[2],\"data_offsets\":[0,%zu]}}",
                 cases[i].dtype, cases[i].n);
        size_t len;
        char *data = build(header, cases[i].n, &len);
        memcpy(data + len - cases[i].n + cases[i].at, cases[i].v, cases[i].n / 2);
        dr_st *f;
        dr_error err = {0}, err2 = {0};
        float v[2];
        CHECK(!dr_st_parse(data, len, &f, &err));
        CHECK(dr_st_verify(f, &err) == DR_CORRUPT && strstr(err.text, "m.1.weight") && strstr(err.text, "element 1"));
        CHECK(dr_st_read_f32(dr_st_at(f, 0), v, &err2) == DR_CORRUPT && !strcmp(err2.what, "not_finite"));
        dr_st_close(f);
        free(data);
    }
}

TEST(one_changed_bit_is_found_by_the_checksum) {
    int calls = 0;
    dr_st_writer *w = sample(&calls);
    dr_st_writer_checksum(w);
    CHECK(!dr_st_writer_save(w, tmp_path(), NULL));
    dr_st_writer_destroy(w);
    char *data;
    size_t len;
    CHECK(!dr_fs_read(tmp_path(), 1 << 20, &data, &len, NULL));
    data[len - 1] ^= 1;
    dr_st *f;
    dr_error err = {0};
    CHECK(!dr_st_parse(data, len, &f, NULL) && dr_st_verify(f, &err) == DR_CORRUPT && strstr(err.text, "checksum"));
    dr_st_close(f);
    dr_free(data);
    unlink(tmp_path());
}

TEST(missing_file_is_named) {
    dr_st *f = NULL;
    dr_error err = {0};
    CHECK(dr_st_open("/tmp/no/such/file.safetensors", &f, &err) == DR_NOT_FOUND && !f && strstr(err.text, "such/file"));
}

TEST(no_memory_anywhere) {
    json_set_alloc_funcs(dr_malloc, dr_free);
    for (long n = 1;; n++) {
        int calls = 0;
        dr_alloc_fail_after(n, true);
        dr_st_writer *w = sample(&calls);
        dr_status s = dr_st_writer_save(w, tmp_path(), NULL);
        dr_st_writer_destroy(w);
        dr_alloc_fail_after(0, false);
        CHECK(n < 5000);
        if (!s) break;
    }
    for (long n = 1;; n++) {
        dr_alloc_fail_after(n, true);
        dr_st *f = NULL;
        dr_error err = {0};
        dr_status s = dr_st_open(tmp_path(), &f, &err);
        dr_alloc_fail_after(0, false);
        CHECK_MSG(!s == !!f && n < 5000, "%s", err.text);
        if (!s) {
            dr_st_close(f);
            break;
        }
        /* jansson reports some of its own failures as a syntax error */
        CHECK_MSG(s == DR_NOMEM || strstr(err.text, "no valid JSON"), "%s", err.text);
    }
    json_set_alloc_funcs(malloc, free);
    unlink(tmp_path());
}
