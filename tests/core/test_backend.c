/* test_backend.c - opening backends: names, modules that are absent, broken or of another version, faults. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/cpu/cpu.h"
#include "tests/t.h"
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

static dr_status check(const dr_backend_ops *ops, dr_error *err) {
    *err = (dr_error){0};
    return dr_backend_check(ops, err);
}

TEST(the_cpu_table_is_complete) {
    dr_error err;
    CHECK_MSG(!check(&dr_cpu_ops, &err), "%s", err.text);
    CHECK(dr_cpu_ops.norm_stats && dr_cpu_ops.norm_apply);
}

TEST(names_what_is_missing) {
    dr_error err;
    dr_backend_ops t = dr_cpu_ops;
    t.blur_up_bwd = NULL;
    CHECK(check(&t, &err) == DR_BACKEND && strstr(err.text, "'blur_up_bwd'"));
    t = dr_cpu_ops;
    t.ema = NULL;
    CHECK(check(&t, &err) == DR_BACKEND && strstr(err.text, "'ema'"));
    t = dr_cpu_ops;
    t.abi = DR_BACKEND_ABI + 1;
    CHECK(check(&t, &err) == DR_BACKEND && strstr(err.text, "interface"));
    t = dr_cpu_ops;
    t.size -= sizeof(void *);
    CHECK(check(&t, &err) == DR_BACKEND && strstr(err.text, "bytes"));
    t = dr_cpu_ops;
    t.name = NULL;
    CHECK(check(&t, &err) == DR_BACKEND && strstr(err.text, "name"));
    CHECK(check(NULL, &err) == DR_BACKEND);
    /* the fused pair: none is fine, one is not */
    t = dr_cpu_ops;
    t.norm_stats = NULL;
    CHECK(check(&t, &err) == DR_BACKEND && strstr(err.text, "norm_apply"));
    t.norm_apply = NULL;
    CHECK(!check(&t, &err));
}

static dr_status no_pixels_in(dr_backend *be, const dr_pixel_view *img, dr_tensor x, dr_error *e) {
    (void)be, (void)img, (void)x, (void)e;
    return DR_OK;
}
static dr_status no_pixels_out(dr_backend *be, dr_tensor y, const dr_pixel_view *img, dr_error *e) {
    (void)be, (void)img, (void)y, (void)e;
    return DR_OK;
}

static dr_status no_record_begin(dr_backend *be, dr_error *e) {
    (void)be, (void)e;
    return DR_OK;
}
static dr_status no_record_end(dr_backend *be, dr_slot *ret, dr_error *e) {
    (void)be, (void)ret, (void)e;
    return DR_OK;
}
static dr_status no_replay(dr_backend *be, const dr_slot *recording, bool *ret_done, dr_error *e) {
    (void)be, (void)recording, (void)ret_done, (void)e;
    return DR_OK;
}

/* From info on, each entry may be missing on its own. */
static bool is_free(size_t at) {
    return at == offsetof(dr_backend_ops, info) || at == offsetof(dr_backend_ops, pace) ||
           at == offsetof(dr_backend_ops, trim) || at == offsetof(dr_backend_ops, tune);
}

/* Whichever other pointer is cleared in a table that has everything, the check must see it. */
TEST(sees_every_single_pointer) {
    size_t first = offsetof(dr_backend_ops, open), step = sizeof(void (*)(void));
    for (size_t at = first; at < sizeof(dr_backend_ops); at += step) {
        dr_error err;
        dr_backend_ops t = dr_cpu_ops;
        t.pixels_in = no_pixels_in;
        t.pixels_out = no_pixels_out;
        t.record_begin = no_record_begin;
        t.record_end = no_record_end;
        t.replay = no_replay;
        CHECK_MSG(!check(&t, &err), "%s", err.text);
        memset((char *)&t + at, 0, step);
        CHECK_MSG(check(&t, &err) == (is_free(at) ? DR_OK : DR_BACKEND), "the pointer at offset %zu", at);
    }
}

TEST(opens_the_cpu) {
    dr_backend *be = NULL;
    dr_error err = {0};
    CHECK(!dr_backend_open("cpu", &(dr_backend_opts){.threads = 2}, &be, NULL, &err));
    CHECK(strstr(dr_be_describe(be), "2 threads") && strstr(dr_be_describe(be), "oneDNN"));
    CHECK(!strcmp(be->ops->name, "cpu"));
    dr_backend_close(be);
    be = NULL;
    CHECK(dr_backend_open("cpu", &(dr_backend_opts){.threads = -1}, &be, NULL, &err) == DR_INVALID && !be);
    dr_backend_close(NULL);
}

TEST(chooses_the_instruction_set) {
    static const char *const name[] = {"baseline", "AVX2", "AVX-512"};
    for (int isa = DR_CPU_BASE; isa <= DR_CPU_AVX512; isa++) {
        dr_backend *be = NULL;
        dr_cpu_limit_isa((enum dr_cpu_isa)isa);
        dr_status s = dr_backend_open("cpu", NULL, &be, NULL, NULL);
        dr_cpu_limit_isa(DR_CPU_AVX512);
        CHECK(!s && dr_cpu_of(be)->isa <= isa);
        CHECK(!strncmp(dr_be_describe(be), name[dr_cpu_of(be)->isa], strlen(name[dr_cpu_of(be)->isa])));
        dr_backend_close(be);
    }
}

TEST(unknown_name) {
    dr_backend *be = NULL;
    dr_error err = {0};
    CHECK(dr_backend_open("tpu", NULL, &be, NULL, &err) == DR_INVALID && !be);
    CHECK(strstr(err.text, "'tpu'") && !strcmp(err.what, "unknown_backend"));
}

static char dir[] = "/tmp/derain-module-XXXXXX";

static bool make_dir(void) {
    return strstr(dir, "XXXXXX") ? mkdtemp(dir) && !setenv("DERAIN_MODULE_DIR", dir, 1) : true;
}

static void remove_dir(void) {
    char path[64];
    snprintf(path, sizeof path, "%s/derain-cuda.so", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/module.c", dir);
    unlink(path);
    rmdir(dir);
    memcpy(dir + strlen(dir) - 6, "XXXXXX", 6);
    unsetenv("DERAIN_MODULE_DIR");
}

TEST(absent_module) {
    dr_backend *be = NULL;
    dr_error err = {0};
    const char *note = NULL;
    CHECK(make_dir());
    dr_status s = dr_backend_open("cuda", NULL, &be, NULL, &err);
    CHECK(s == DR_UNAVAILABLE && !be && strstr(err.text, dir) && strstr(err.text, "derain-cuda.so"));
    CHECK(!strchr(err.text, '\n'));
    /* auto falls back and says why */
    s = dr_backend_open("auto", NULL, &be, &note, &err);
    CHECK(!s && !strcmp(be->ops->name, "cpu") && note && strstr(note, "derain-cuda.so"));
    dr_backend_close(be);
    remove_dir();
}

TEST(module_that_is_no_library) {
    char path[64];
    dr_backend *be = NULL;
    dr_error err = {0};
    CHECK(make_dir());
    snprintf(path, sizeof path, "%s/derain-cuda.so", dir);
    CHECK(!dr_fs_write_atomic(path, "not ELF", 7, NULL));
    CHECK(dr_backend_open("cuda", NULL, &be, NULL, &err) == DR_UNAVAILABLE && !be && strstr(err.text, path));
    remove_dir();
}

/* Compile `source` to the module; false without a compiler. */
static bool build_module(const char *source) {
    char c[64], so[64];
    snprintf(c, sizeof c, "%s/module.c", dir);
    snprintf(so, sizeof so, "%s/derain-cuda.so", dir);
    if (dr_fs_write_atomic(c, source, strlen(source), NULL)) return false;
    pid_t pid = fork();
    if (pid == 0) {
        execlp("cc", "cc", "-shared", "-fPIC", "-I.", "-o", so, c, (char *)NULL);
        _exit(127);
    }
    int status;
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* The loader remembers a library by its file, so each of these has a folder of its own. */
static dr_status open_built(const char *source, dr_backend **be, dr_error *err, bool *built) {
    *err = (dr_error){0};
    *built = make_dir() && build_module(source);
    dr_status s = *built ? dr_backend_open("cuda", NULL, be, NULL, err) : DR_OK;
    remove_dir();
    return s;
}

TEST(modules_of_other_versions) {
    dr_backend *be = NULL;
    dr_error err;
    bool built;
    dr_status s = open_built("int other;\n", &be, &err, &built);
    if (!built) SKIP("no compiler 'cc' here");
    CHECK(s == DR_BACKEND && !be && strstr(err.text, "no symbol dr_backend_entry"));

    s = open_built(
        "#include \"core/tensor/backend.h\"\n"
        "const dr_backend_ops *dr_backend_entry(void);\n"
        "const dr_backend_ops *dr_backend_entry(void) {\n"
        "    static const dr_backend_ops t = {.abi = DR_BACKEND_ABI + 7, .size = sizeof t, .name = \"new\"};\n"
        "    return &t;\n}\n",
        &be, &err, &built);
    char want[32];
    snprintf(want, sizeof want, "interface %u,", DR_BACKEND_ABI + 7);
    CHECK(built && s == DR_BACKEND && !be && strstr(err.text, want));

    s = open_built("#include \"core/tensor/backend.h\"\n"
                   "const dr_backend_ops *dr_backend_entry(void);\n"
                   "const dr_backend_ops *dr_backend_entry(void) {\n"
                   "    static const dr_backend_ops t = {.abi = DR_BACKEND_ABI, .size = sizeof t, .name = \"half\"};\n"
                   "    return &t;\n}\n",
                   &be, &err, &built);
    CHECK(built && s == DR_BACKEND && !be && strstr(err.text, "'half' lacks the entry 'open'"));
    CHECK(strstr(err.text, "derain-cuda.so"));
}

TEST(no_memory_to_open) {
    for (long n = 1;; n++) {
        dr_backend *be = NULL;
        dr_error err = {0};
        dr_alloc_fail_after(n, false);
        dr_status s = dr_backend_open("cpu", NULL, &be, NULL, &err);
        bool reached = dr_alloc_count() >= n;
        dr_alloc_fail_after(0, false);
        if (!s) {
            dr_backend_close(be);
            CHECK_MSG(!reached, "allocation %ld failed and nobody noticed", n);
            return;
        }
        CHECK(s == DR_NOMEM && !be && err.text[0]);
    }
}

TEST(injected_fault_hits_the_nth_call_once) {
    dr_backend *be = NULL;
    dr_error err = {0};
    float v[4] = {1, 2, 3, 4};
    dr_tensor t = {dr_shape_make(1, 1, 2, 2), v};
    CHECK(!dr_backend_open("cpu", NULL, &be, NULL, NULL));
    dr_backend_fail_after(3);
    CHECK(!dr_be_fill(be, 1, t, &err));
    CHECK(!dr_be_scale(be, 2, t, t, &err));
    CHECK(dr_be_act(be, DR_ACT_RELU, t, t, &err) == DR_BACKEND);
    CHECK(!strcmp(err.text, "cpu: act: fault injected by a test"));
    CHECK(!dr_be_act(be, DR_ACT_RELU, t, t, &err));
    dr_backend_fail_after(1);
    dr_backend_fail_after(0);
    CHECK(!dr_be_fill(be, 1, t, &err));
    dr_backend_close(be);
}

static int destroyed;
static void count_destroy(void *p) {
    destroyed += p == (void *)&destroyed;
}

TEST(slots_are_cleared_once) {
    dr_slot s = {&destroyed, count_destroy};
    dr_slot_clear(&s);
    dr_slot_clear(&s);
    CHECK(destroyed == 1 && !s.p);
    dr_slot none = {0};
    dr_slot_clear(&none);
}
