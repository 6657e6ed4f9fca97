/* names.c - see names.h. */
#include "client/names.h"
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>

static size_t stem_len(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot && dot != name ? (size_t)(dot - name) : strlen(name);
}

bool cli_is_picture_name(const char *name) {
    const char *e = name + stem_len(name);
    return strcasecmp(e, ".png") == 0 || strcasecmp(e, ".jpg") == 0 || strcasecmp(e, ".jpeg") == 0;
}

bool cli_is_result_name(const char *name) {
    size_t n = stem_len(name);
    return n > 9 && cli_is_picture_name(name) && memcmp(name + n - 9, ".derained", 9) == 0;
}

bool cli_looks_like_picture(const void *data, size_t len) {
    return (len >= 8 && memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0) ||
           (len >= 3 && memcmp(data, "\xff\xd8\xff", 3) == 0);
}

const char *cli_base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

const char *cli_result_format(const char *format, const char *out) {
    if (format) return format;
    const char *name = out ? cli_base_name(out) : "";
    const char *e = name + stem_len(name);
    return strcasecmp(e, ".jpg") == 0 || strcasecmp(e, ".jpeg") == 0 ? "jpeg" : "png";
}

char *cli_result_name(const char *name, const char *format, bool whole) {
    size_t n = whole ? strlen(name) : stem_len(name), cap = n + 20;
    char *out = dr_malloc(cap);
    if (out) snprintf(out, cap, "%.*s.derained.%s", (int)n, name, strcmp(format, "jpeg") == 0 ? "jpg" : "png");
    return out;
}

void cli_items_free(cli_item *items, size_t n) {
    for (size_t i = 0; items && i < n; i++) {
        dr_free(items[i].in);
        dr_free(items[i].out);
    }
    dr_free(items);
}

/* Byte order puts equal stems near each other but not always side by side ("a.b.png" < "a.png"), so look at all. */
static bool shares_stem(char *const *names, size_t n, size_t i) {
    size_t len = stem_len(names[i]);
    for (size_t k = 0; k < n; k++)
        if (k != i && stem_len(names[k]) == len && memcmp(names[k], names[i], len) == 0 &&
            cli_is_picture_name(names[k]))
            return true;
    return false;
}

dr_status cli_folder_items(const char *dir, const char *out_dir, const char *format, cli_item **ret, size_t *ret_n,
                           dr_error *err) {
    char **names = NULL;
    size_t n = 0, n_items = 0;
    dr_status s = dr_fs_list(dir, &names, &n, err);
    if (s) return s;
    cli_item *items = dr_calloc(n ? n : 1, sizeof *items);
    if (!items) {
        dr_fs_list_free(names, n);
        return dr_fail(err, DR_NOMEM, "out of memory");
    }
    for (size_t i = 0; !s && i < n; i++) {
        if (!cli_is_picture_name(names[i]) || cli_is_result_name(names[i])) continue;
        cli_item *it = &items[n_items++];
        char *name = cli_result_name(names[i], format, shares_stem(names, n, i));
        it->in = dr_fs_join(dir, names[i]);
        if (name) it->out = dr_fs_join(out_dir ? out_dir : dir, name);
        dr_free(name);
        if (!it->in || !it->out)
            s = dr_fail(err, DR_NOMEM, "out of memory");
        else
            it->exists = dr_fs_exists(it->out);
    }
    dr_fs_list_free(names, n);
    if (s) {
        cli_items_free(items, n_items);
        return s;
    }
    *ret = items;
    *ret_n = n_items;
    return DR_OK;
}
