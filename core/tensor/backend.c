/* backend.c - open a backend by name: the built-in CPU table, or a module that is loaded from a folder.
 *
 * A module is opened once and stays loaded: its threads and the driver's do not survive dlclose. Every table is checked
 * before anything in it is called, so a module of another version gives one clear line. */
#include "core/tensor/backend.h"
#include "core/base/log.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const precision_names[] = {
    [DR_PREC_AUTO] = "auto", [DR_PREC_F32] = "f32", [DR_PREC_BF16] = "bf16", [DR_PREC_F16] = "f16"};

bool dr_precision_from_name(const char *name, dr_precision *ret) {
    for (size_t i = 0; i < sizeof precision_names / sizeof *precision_names; i++)
        if (!strcmp(name ? name : "auto", precision_names[i])) {
            *ret = (dr_precision)i;
            return true;
        }
    return false;
}

const char *dr_precision_name(dr_precision p) {
    return precision_names[p];
}

/* Every entry of the table, required or optional; `size` cannot change without a line here (see the assertion). */
/* clang-format off */
#define REQUIRED(X)                                                                                                    \
    X(open) X(close) X(describe) X(tensor_bytes) X(alloc) X(free) X(upload) X(download) X(upload_raw) X(download_raw)  \
    X(sync) X(fill) X(copy) X(copy_rows) X(axpy) X(add) X(scale) X(act) X(act_bwd) X(add_bcast) X(add_bcast_bwd) X(clamp)           \
    X(clamp_bwd) X(conv2d) X(conv2d_dx) X(conv2d_dw) X(norm_act) X(norm_act_bwd) X(pad_reflect) X(pad_reflect_bwd)     \
    X(blur_down) X(blur_down_bwd) X(blur_up) X(blur_up_bwd) X(gather) X(gather_bwd) X(linear) X(linear_dx)             \
    X(linear_dw) X(l2norm) X(l2norm_bwd) X(nce) X(nce_bwd) X(gan) X(gan_bwd) X(l1) X(l1_bwd) X(freq) X(freq_bwd)      \
    X(adam) X(ema)
/* clang-format on */
#define OPTIONAL(X)                                                                                                    \
    X(norm_stats)                                                                                                      \
    X(norm_apply)                                                                                                      \
    X(conv2d_fuses)                                                                                                    \
    X(conv2d_fused) X(pixels_in) X(pixels_out) X(record_begin) X(record_end) X(replay) X(info) X(pace) X(trim) X(tune)

#define ONE_CHAR(entry) char entry;
struct every_entry {
    REQUIRED(ONE_CHAR)
    OPTIONAL(ONE_CHAR)
};
#undef ONE_CHAR
enum { N_ENTRIES = sizeof(struct every_entry) };
_Static_assert(offsetof(dr_backend_ops, open) + N_ENTRIES * sizeof(void (*)(void)) == sizeof(dr_backend_ops),
               "every entry of dr_backend_ops must be listed in backend.c");

dr_status dr_backend_check(const dr_backend_ops *ops, dr_error *err) {
    if (!ops) {
        (void)dr_fail(err, DR_BACKEND, "the backend has no table");
        return DR_BACKEND;
    }
    if (ops->abi != DR_BACKEND_ABI)
        return dr_fail(err, DR_BACKEND, "the backend was built for interface %u, this program needs %u", ops->abi,
                       DR_BACKEND_ABI);
    if (ops->size != sizeof *ops)
        return dr_fail(err, DR_BACKEND, "the backend's table has %zu bytes, this program needs %zu", ops->size,
                       sizeof *ops);
    if (!ops->name || !*ops->name) return dr_fail(err, DR_BACKEND, "the backend has no name");
#define CHECK_ENTRY(entry)                                                                                             \
    if (!ops->entry) return dr_fail(err, DR_BACKEND, "backend '%s' lacks the entry '" #entry "'", ops->name);
    REQUIRED(CHECK_ENTRY)
#undef CHECK_ENTRY
    if (!ops->norm_stats != !ops->norm_apply)
        return dr_fail(err, DR_BACKEND, "backend '%s' has only one of the entries 'norm_stats' and 'norm_apply'",
                       ops->name);
    if (!ops->conv2d_fuses != !ops->conv2d_fused)
        return dr_fail(err, DR_BACKEND, "backend '%s' has only one of the entries 'conv2d_fuses' and 'conv2d_fused'",
                       ops->name);
    if (!ops->pixels_in != !ops->pixels_out)
        return dr_fail(err, DR_BACKEND, "backend '%s' has only one of the entries 'pixels_in' and 'pixels_out'",
                       ops->name);
    if (!ops->record_begin != !ops->record_end || !ops->record_begin != !ops->replay)
        return dr_fail(err, DR_BACKEND,
                       "backend '%s' has not all of the entries 'record_begin', 'record_end', 'replay'", ops->name);
    return DR_OK;
}

static void host_log_debug(const char *text) {
    dr_log(DR_LOG_DEBUG, NULL, "%s", text);
}

static dr_status host_fail(dr_error *err, dr_status code, const char *fmt, ...) {
    char text[sizeof err->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return dr_fail(err, code, "%s", text);
}

static const dr_host_api host_api = {.log_debug = host_log_debug, .fail = host_fail};

static dr_status open_table(const dr_backend_ops *ops, const dr_backend_opts *opts, dr_backend **ret, dr_error *err) {
    const dr_backend_opts defaults = {0};
    dr_status s = dr_backend_check(ops, err);
    if (s) return s;
    dr_backend *be;
    s = ops->open(&host_api, opts ? opts : &defaults, &be, err);
    if (s) return s;
    *ret = be;
    return DR_OK;
}

/* Loading a file twice gives the same handle, so nothing has to be remembered here. */
static dr_status load_module(const char *name, const dr_backend_ops **ret, dr_error *err) {
    const char *dir = secure_getenv("DERAIN_MODULE_DIR");
    if (!dir || !*dir) dir = DR_MODULE_DIR;
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/derain-%s.so", dir, name);
    if (n < 0 || (size_t)n >= sizeof path)
        return dr_fail(err, DR_INVALID, "the module folder's name is longer than %zu bytes", sizeof path);
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) return dr_fail(err, DR_UNAVAILABLE, "no module for backend '%s': %s", name, dlerror());
    dr_backend_entry_fn *entry;
    void *sym = dlsym(lib, DR_BACKEND_ENTRY);
    if (!sym) return dr_fail(err, DR_BACKEND, "%s is not a backend: it has no symbol " DR_BACKEND_ENTRY, path);
    memcpy(&entry, &sym, sizeof entry); /* ISO C has no cast from data to function pointers */
    const dr_backend_ops *ops = entry();
    dr_status s = dr_backend_check(ops, err);
    if (s) return dr_wrap(err, s, "%s", path);
    *ret = ops;
    return DR_OK;
}

static dr_status open_module(const char *name, const dr_backend_opts *opts, dr_backend **ret, dr_error *err) {
    const dr_backend_ops *ops = NULL;
    dr_status s = load_module(name, &ops, err);
    return s || !ops ? s : open_table(ops, opts, ret, err);
}

dr_status dr_backend_open(const char *name, const dr_backend_opts *opts, dr_backend **ret, const char **ret_note,
                          dr_error *err) {
    if (ret_note) *ret_note = NULL;
    if (!strcmp(name, "cpu")) return open_table(&dr_cpu_ops, opts, ret, err);
    if (!strcmp(name, "cuda")) return open_module(name, opts, ret, err);
    if (strcmp(name, "auto"))
        return dr_fail_as(err, DR_INVALID, "unknown_backend", "backend '%s' is none of auto, cpu and cuda", name);

    dr_error why = {0};
    static _Thread_local char note[sizeof why.text];
    if (!open_module("cuda", opts, ret, &why)) return DR_OK;
    snprintf(note, sizeof note, "%s", why.text);
    dr_status s = open_table(&dr_cpu_ops, opts, ret, err);
    if (!s && ret_note) *ret_note = note;
    return s;
}

void dr_backend_close(dr_backend *be) {
    if (be) be->ops->close(be);
}

bool dr_be_state(dr_backend *be, dr_device_state *ret) {
    dr_device_info i;
    bool ok = dr_be_info(be, &i);
    *ret = (dr_device_state){.memory_used = i.memory_used,
                             .memory_free = i.memory_free,
                             .memory_all = i.memory_all,
                             .plans = i.plans,
                             .plans_tuned = i.plans_tuned,
                             .recorded = be->n_recorded,
                             .replayed = be->n_replayed};
    return ok;
}

void dr_slot_clear(dr_slot *s) {
    if (s->p && s->destroy) s->destroy(s->p);
    *s = (dr_slot){0};
}
