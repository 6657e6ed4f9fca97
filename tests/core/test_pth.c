/* test_pth.c - PyTorch's state dicts: files that PyTorch wrote, a generator in both forms against its safetensors, and
 * what must be refused. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/base/hash.h"
#include "core/derain.h"
#include "core/model/pickle.h"
#include "core/model/pth.h"
#include "core/model/safetensors.h"
#include "tests/golden/pth.inc"
#include "tests/t.h"
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/derain-pth-XXXXXX";
static const char *in_dir(const char *name) {
    static char path[4][200];
    static int i;
    if (dir[strlen(dir) - 1] == 'X' && !mkdtemp(dir)) abort();
    snprintf(path[i = (i + 1) % 4], 200, "%s/%s", dir, name);
    return path[i];
}

__attribute__((destructor)) static void clean_up(void) {
    DIR *d = opendir(dir);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) (void)unlinkat(dirfd(d), e->d_name, 0);
    if (d) closedir(d);
    (void)rmdir(dir);
}

/* --- files of PyTorch --- */

static const dr_pth_tensor *find(const dr_pth *f, const char *name) {
    for (size_t i = 0; i < dr_pth_count(f); i++)
        if (!strcmp(dr_pth_at(f, i)->name, name)) return dr_pth_at(f, i);
    return NULL;
}

static float f32_at(const dr_pth_tensor *t, size_t i) {
    float v;
    memcpy(&v, t->data + 4 * i, 4);
    return v;
}

static bool is_the_dict(const void *data, size_t len) {
    dr_pth *f;
    dr_error err = {0};
    if (dr_pth_parse(data, len, &f, &err)) {
        printf("# %s\n", err.text);
        return false;
    }
    const dr_pth_tensor *w = find(f, "a.weight"), *b = find(f, "a.bias"), *n = find(f, "n"), *e = find(f, "e"),
                        *v = find(f, "view");
    bool ok = dr_pth_count(f) == 5 && w && b && n && e && v;
    ok = ok && w->type == DR_PTH_F32 && w->rank == 2 && w->dims[0] == 2 && w->dims[1] == 3 && w->count == 6;
    for (size_t i = 0; ok && i < 6; i++) ok = f32_at(w, i) == (float)i / 4;
    ok = ok && b->type == DR_PTH_F16 && b->rank == 1 && b->bytes == 4 && b->data[0] == 0 && b->data[1] == 0x3e;
    ok = ok && n->type == DR_PTH_I64 && n->rank == 0 && n->count == 1 && n->data[0] == 7;
    ok = ok && e->count == 0 && e->rank == 2 && v->count == 4 && f32_at(v, 0) == 2 && f32_at(v, 3) == 5;
    dr_pth_close(f);
    return ok;
}

TEST(files_that_pytorch_wrote_are_read) {
    CHECK(dr_pth_looks(pth_zip, sizeof pth_zip) && dr_pth_looks(pth_old, sizeof pth_old));
    CHECK(!dr_pth_looks("\x10\0\0\0\0\0\0\0{}", 10));
    CHECK(is_the_dict(pth_zip, sizeof pth_zip));
    CHECK(is_the_dict(pth_old, sizeof pth_old));
    CHECK(is_the_dict(pth_wrapped, sizeof pth_wrapped));
}

static bool refused(const void *data, size_t len, const char *what, const char *text) {
    dr_pth *f;
    dr_error err = {0};
    dr_status s = dr_pth_parse(data, len, &f, &err);
    if (!s) dr_pth_close(f);
    if (s && !strcmp(err.what, what) && strstr(err.text, text)) return true;
    printf("# %d %s: %s\n", (int)s, err.what, err.text);
    return false;
}

TEST(a_pickle_that_calls_a_function_is_refused_by_name) {
    CHECK(refused(pth_evil, sizeof pth_evil, "pickle_refused", "posix.system"));
    CHECK(refused(pth_evil_old, sizeof pth_evil_old, "pickle_refused", "posix.system"));
#define PICKLE(text) (text), sizeof(text) - 1
    CHECK(refused(PICKLE("\x80\x04\x8c\x05posix\x8c\x06system\x93."), "pickle_refused", "posix.system"));
    CHECK(refused(PICKLE("\x80\x02(S'x'\nios\nsystem\n."), "pickle_refused", "0x53"));
    CHECK(refused(PICKLE("\x80\x02(ios\nsystem\n."), "pickle_refused", "os.system"));
    CHECK(refused(PICKLE("\x80\x02"
                         "cbuiltins\neval\nX\1\0\0\0001\x85R."),
                  "pickle_refused", "builtins.eval"));
    CHECK(refused(PICKLE("\x80\x02"
                         "ctorch\nFloatStorage\n)R."),
                  "pickle_refused", "storage type"));
    CHECK(refused(PICKLE("\x80\x02"
                         "ctorch\nFloatStorage\n)\x81."),
                  "pickle_refused", "0x81"));
    CHECK(refused(PICKLE("\x80\x02"
                         "ctorch\nFloatStorage\n}b."),
                  "pickle_refused", "state"));
}

TEST(broken_pickles_are_refused) {
    CHECK(refused(PICKLE("\x80\x02."), "bad_pickle", "stack"));
    CHECK(refused(PICKLE("\x80\x02}"), "bad_pickle", "cut off"));
    CHECK(refused(PICKLE("\x80\x02X\xff\xff\xff\x7f."), "bad_pickle", "cut off"));
    CHECK(refused(PICKLE("\x80\x02h\x05."), "bad_pickle", "remembered"));
    CHECK(refused(PICKLE("\x80\x02}r\xff\xff\xff\xff."), "bad_pickle", "too large"));
    CHECK(refused(PICKLE("\x80\x02t."), "bad_pickle", "opened"));
    CHECK(refused(PICKLE("\x80\x02K\1(K\2R."), "bad_pickle", "stack"));
    CHECK(refused(PICKLE("\x80\x02K\1K\2K\3s."), "bad_pickle", "dict"));
    CHECK(refused(PICKLE("\x80\x02}Q."), "bad_pickle", "storage"));
    CHECK(refused(PICKLE("\x80\x05}."), "bad_pickle", "protocol"));
    CHECK(refused(PICKLE("\x80\x02}."), "bad_model", "torch.save"));
    char *deep = calloc(1, 3 << 20); /* a million and more marks */
    memcpy(deep, "\x80\x02", 2);
    memset(deep + 2, '(', (3 << 20) - 2);
    CHECK(refused(deep, 3 << 20, "bad_pickle", "too large"));
    free(deep);
}

TEST(files_that_are_cut_or_damaged_are_refused) {
    for (size_t n = 0; n < sizeof pth_zip; n++) {
        dr_pth *f;
        dr_error err = {0};
        CHECK(dr_pth_parse(pth_zip, n, &f, &err) && err.code && *err.text);
    }
    for (size_t n = 0; n < sizeof pth_old; n++) {
        dr_pth *f;
        CHECK(dr_pth_parse(pth_old, n, &f, NULL) != DR_OK);
    }
    unsigned char copy[sizeof pth_zip];
    memcpy(copy, pth_zip, sizeof copy);
    const unsigned char w1[] = {0, 0, 0x80, 0x3e, 0, 0, 0, 0x3f}; /* 0.25, 0.5 of a.weight */
    unsigned char *at = memmem(copy, sizeof copy, w1, sizeof w1);
    CHECK(at != NULL);
    at[2] ^= 1;
    CHECK(refused(copy, sizeof copy, "bad_zip", "checksum"));
    memcpy(copy, pth_zip, sizeof copy);
    unsigned char *entry = memmem(copy, sizeof copy, "PK\1\2", 4);
    CHECK(entry != NULL);
    entry[10] = 8; /* deflated */
    CHECK(refused(copy, sizeof copy, "bad_zip", "compressed"));
}

TEST(without_memory_nothing_is_lost) {
    dr_status s = DR_NOMEM;
    for (long n = 1; s && n < 200; n++) {
        dr_pth *f;
        dr_alloc_fail_after(n, false);
        s = dr_pth_parse(pth_old, sizeof pth_old, &f, NULL);
        dr_alloc_fail_after(0, false);
        if (!s) dr_pth_close(f);
    }
    CHECK(!s);
}

/* --- a generator, as PyTorch would have written it --- */

typedef struct bytes {
    unsigned char *p;
    size_t n, cap;
} bytes;

static void add(bytes *b, const void *data, size_t n) {
    if (b->n + n > b->cap) {
        b->cap = 2 * (b->n + n);
        b->p = realloc(b->p, b->cap);
    }
    memcpy(b->p + b->n, data, n);
    b->n += n;
}
static void add_le(bytes *b, uint64_t v, int n) {
    for (int i = 0; i < n; i++) add(b, &(unsigned char){(unsigned char)(v >> (8 * i))}, 1);
}
static void add_text(bytes *b, const char *s) {
    add(b, "X", 1);
    add_le(b, strlen(s), 4);
    add(b, s, strlen(s));
}
static void add_int(bytes *b, int64_t v) {
    add(b, "J", 1);
    add_le(b, (uint64_t)v, 4);
}

/* The state dict of a safetensors file; storages are named by number. `old`: with the field for views. */
static bytes state_dict(const dr_st *f, const char *prefix, bool old) {
    bytes b = {0};
    add(&b,
        "\x80\x02"
        "ccollections\nOrderedDict\nq\0)Rq\1(",
        34);
    for (size_t i = 0; i < dr_st_count(f); i++) {
        const dr_st_tensor *t = dr_st_at(f, i);
        char name[400], key[24];
        int64_t stride[8];
        snprintf(name, sizeof name, "%.40s%.255s", prefix, t->name);
        snprintf(key, sizeof key, "%zu", i);
        add_text(&b, name);
        add(&b, "ctorch._utils\n_rebuild_tensor_v2\n((", 35);
        add_text(&b, "storage");
        add(&b, "ctorch\nFloatStorage\n", 20);
        add_text(&b, key);
        add_text(&b, "cpu");
        add_int(&b, (int64_t)t->count);
        if (old) add(&b, "N", 1);
        add(&b, "tQK\0(", 5);
        for (int d = 0; d < t->rank; d++) add_int(&b, t->dims[d]);
        add(&b, "t(", 2);
        for (int d = t->rank - 1; d >= 0; d--) stride[d] = d == t->rank - 1 ? 1 : stride[d + 1] * t->dims[d + 1];
        for (int d = 0; d < t->rank; d++) add_int(&b, stride[d]);
        add(&b, "t\x89h\0)RtR", 8);
    }
    add(&b, "u}", 2);
    add_text(&b, "_metadata");
    add(&b, "h\0)Rsb.", 7);
    return b;
}

static void zip_entry(bytes *z, bytes *directory, const char *name, const void *data, size_t n) {
    size_t at = z->n;
    uint32_t crc = dr_crc32(0, data, n);
    add(z, "PK\3\4\0\0\0\0\0\0\0\0\0\0", 14);
    add_le(z, crc, 4), add_le(z, n, 4), add_le(z, n, 4);
    add_le(z, strlen(name), 2), add_le(z, 4, 2);
    add(z, name, strlen(name));
    add(z, "FB\0\0", 4);
    add(z, data, n);
    add(directory, "PK\1\2\0\0\0\0\0\0\0\0\0\0\0\0", 16);
    add_le(directory, crc, 4), add_le(directory, n, 4), add_le(directory, n, 4);
    add_le(directory, strlen(name), 2), add_le(directory, 0, 6), add_le(directory, 0, 6);
    add_le(directory, at, 4);
    add(directory, name, strlen(name));
}

static bytes as_zip(const dr_st *f, const char *prefix) {
    bytes z = {0}, directory = {0}, pkl = state_dict(f, prefix, false);
    zip_entry(&z, &directory, "g/data.pkl", pkl.p, pkl.n);
    for (size_t i = 0; i < dr_st_count(f); i++) {
        char name[40];
        snprintf(name, sizeof name, "g/data/%zu", i);
        zip_entry(&z, &directory, name, dr_st_at(f, i)->data, dr_st_at(f, i)->bytes);
    }
    size_t at = z.n, n = dr_st_count(f) + 1;
    add(&z, directory.p, directory.n);
    add(&z, "PK\5\6\0\0\0\0", 8);
    add_le(&z, n, 2), add_le(&z, n, 2), add_le(&z, directory.n, 4), add_le(&z, at, 4), add_le(&z, 0, 2);
    free(directory.p);
    free(pkl.p);
    return z;
}

static bytes as_old(const dr_st *f) {
    bytes b = {0}, pkl = state_dict(f, "", true);
    add(&b, "\x80\2\x8a\n\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\2M\xe9\3.\x80\2}", 24);
    add_text(&b, "little_endian");
    add(&b, "\x88s.", 3);
    add(&b, pkl.p, pkl.n);
    add(&b, "\x80\2](", 4);
    for (size_t i = 0; i < dr_st_count(f); i++) {
        char key[24];
        snprintf(key, sizeof key, "%zu", i);
        add_text(&b, key);
    }
    add(&b, "e.", 2);
    for (size_t i = 0; i < dr_st_count(f); i++) {
        add_le(&b, dr_st_at(f, i)->count, 8);
        add(&b, dr_st_at(f, i)->data, dr_st_at(f, i)->bytes);
    }
    free(pkl.p);
    return b;
}

static bool write_bytes(const char *path, bytes *b) {
    bool ok = !dr_fs_write_atomic(path, b->p, b->n, NULL);
    free(b->p);
    return ok;
}

enum { SIDE = 48 };
static bool picture_of(dr_engine *e, const char *path, float *ret) {
    float in[3 * SIDE * SIDE];
    dr_model *m;
    dr_error err = {0};
    for (int i = 0; i < 3 * SIDE * SIDE; i++) in[i] = (float)(i * 37 % 255) / 127.5f - 1;
    dr_status s = dr_model_open(e, path, &m, &err);
    if (s) {
        printf("# %s\n", err.text);
        return false;
    }
    s = dr_model_forward(m, in, SIDE, SIDE, ret, &err);
    dr_model_close(m);
    return !s;
}

TEST(a_state_dict_gives_the_picture_of_the_safetensors) {
    static float want[3 * SIDE * SIDE], got[3 * SIDE * SIDE];
    static const char *const forms[] = {"zip", "module", "old"};
    const dr_model_spec spec = {.ngf = 16, .blocks = 2, .seed = 3};
    dr_engine *e;
    dr_st *f;
    char st[200];
    snprintf(st, sizeof st, "%s", in_dir("g.safetensors"));
    CHECK(dr_model_init_file(&spec, st, NULL) == DR_OK);
    CHECK(dr_engine_open(&(dr_engine_opts){.backend = "cpu", .threads = 1}, &e, NULL) == DR_OK);
    CHECK(picture_of(e, st, want));
    CHECK(dr_st_open(st, &f, NULL) == DR_OK);
    for (int i = 0; i < 3; i++) {
        char pth[200], out[200];
        dr_error err = {0};
        bool training = true;
        snprintf(pth, sizeof pth, "%s", in_dir("g.pth"));
        snprintf(out, sizeof out, "%s", in_dir("out.safetensors"));
        bytes b = i == 2 ? as_old(f) : as_zip(f, i == 1 ? "module." : "");
        CHECK(write_bytes(pth, &b));
        dr_status s = dr_model_import_file(pth, out, &training, &err);
        CHECK_MSG(!s && !training, "%s: %s", forms[i], err.text);
        memset(got, 0, sizeof got);
        CHECK(picture_of(e, out, got) && !memcmp(want, got, sizeof want));
        unlink(out);
    }
    dr_st_close(f);
    dr_engine_close(e);
}

TEST(a_generator_passes_as_it_is_and_a_training_gives_its_g_a) {
    const dr_model_spec spec = {.ngf = 16, .blocks = 1, .seed = 4, .residual = 1, .dtype = "F16", .name = "n"};
    char st[200], out[200], train[200], *a, *b;
    size_t na, nb;
    bool training = true;
    dr_st *f;
    snprintf(st, sizeof st, "%s", in_dir("one.safetensors"));
    snprintf(out, sizeof out, "%s", in_dir("two.safetensors"));
    snprintf(train, sizeof train, "%s", in_dir("train.safetensors"));
    CHECK(dr_model_init_file(&spec, st, NULL) == DR_OK);
    CHECK(dr_model_import_file(st, out, &training, NULL) == DR_OK && !training);
    CHECK(!dr_fs_read(st, 1 << 24, &a, &na, NULL) && !dr_fs_read(out, 1 << 24, &b, &nb, NULL));
    CHECK(na == nb && !memcmp(a, b, na));
    dr_free(a);
    dr_free(b);
    CHECK(dr_st_open(st, &f, NULL) == DR_OK);
    dr_st_writer *w = dr_st_writer_create();
    dr_st_writer_meta(w, "derain.kind", "training");
    dr_st_writer_meta(w, "derain.name", "n");
    dr_st_writer_meta(w, "derain.residual", "1");
    for (size_t i = 0; i < dr_st_count(f); i++) {
        const dr_st_tensor *t = dr_st_at(f, i);
        char *name = dr_st_writer_alloc(w, 100);
        snprintf(name, 100, "G_A.%s", t->name);
        dr_st_writer_raw(w, name, t->dtype, t->rank, t->dims, t->data);
        snprintf(name = dr_st_writer_alloc(w, 100), 100, "G_B.%s", t->name);
        dr_st_writer_raw(w, name, t->dtype, t->rank, t->dims, t->data);
    }
    CHECK(dr_st_writer_save(w, train, NULL) == DR_OK);
    dr_st_writer_destroy(w);
    dr_st_close(f);
    CHECK(dr_model_import_file(train, out, &training, NULL) == DR_OK && training);
    dr_model_info i;
    CHECK(dr_model_describe(out, &i, NULL) == DR_OK && i.residual == 1 && i.ngf == 16 && !strcmp(i.name, "n"));
    dr_model_info_done(&i);
}

TEST(what_is_no_generator_leaves_nothing_behind) {
    char pth[200], out[200];
    dr_error err = {0};
    snprintf(pth, sizeof pth, "%s", in_dir("small.pth"));
    snprintf(out, sizeof out, "%s", in_dir("none.safetensors"));
    CHECK(!dr_fs_write_atomic(pth, pth_zip, sizeof pth_zip, NULL));
    CHECK(dr_model_import_file(pth, out, NULL, &err) == DR_CORRUPT && strstr(err.text, "model.1.weight"));
    CHECK(!dr_fs_exists(out) && !dr_fs_exists(in_dir("none.safetensors.part")));
    err = (dr_error){0};
    CHECK(!dr_fs_write_atomic(pth, "not weights at all", 18, NULL));
    CHECK(dr_model_import_file(pth, out, NULL, &err) == DR_CORRUPT && !dr_fs_exists(out));
}
