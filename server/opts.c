/* opts.c - walks argv once against the table; help text is made from the same rows. */
#include "server/opts.h"

#include "core/base/parse.h"
#include "server/commands.h"
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int srv_cmd_fail(const char *command, const dr_error *err) {
    fprintf(stderr, "deraind %s: %s", command, err->text[0] ? err->text : dr_status_text(err->code));
    if (err->setting[0])
        fprintf(stderr, " (limit %lld, actual %lld, setting %s)", (long long)err->limit, (long long)err->actual,
                err->setting);
    fprintf(stderr, "\n");
    return SRV_EXIT_FAILED;
}

int srv_opts_usage(const char *command, const char *fmt, ...) {
    fprintf(stderr, "deraind %s: ", command);
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, " ('deraind %s --help' lists the options)\n", command);
    return SRV_EXIT_USAGE;
}

void srv_opts_help(const srv_opts_spec *spec) {
    printf("usage: deraind %s [options]%s%s\n\n%s\n\n", spec->command, spec->args[0] ? " " : "", spec->args,
           spec->what);
    if (spec->more) printf("%s\n", spec->more);
    for (const srv_opt *o = spec->opts; o->name; o++) {
        char left[64];
        int n = o->letter ? snprintf(left, sizeof left, "-%c, --%s", o->letter, o->name)
                          : snprintf(left, sizeof left, "    --%s", o->name);
        if (o->arg && n > 0 && (size_t)n < sizeof left) snprintf(left + n, sizeof left - (size_t)n, " %s", o->arg);
        printf("  %-30s %s%s\n", left, o->help, o->required ? " (required)" : "");
    }
    printf("  %-30s %s\n", "-h, --help", "this text");
}

static bool is_choice(const char *choices, const char *value) {
    size_t n = strlen(value);
    for (const char *c = choices; *c;) {
        const char *end = strchr(c, '|');
        size_t len = end ? (size_t)(end - c) : strlen(c);
        if (len == n && !memcmp(c, value, n)) return true;
        c += len + (end != NULL);
    }
    return false;
}

/* Store a value; on failure say what would be right. */
static int store(const char *command, const srv_opt *o, const char *value) {
    bool any = o->lo == 0 && o->hi == 0, ok = false;
    switch (o->kind) {
    case SRV_OPT_FLAG:
        *(bool *)o->to = ok = true;
        break;
    case SRV_OPT_INT:
        ok = dr_parse_int(value, any ? INT_MIN : (int)o->lo, any ? INT_MAX : (int)o->hi, o->to);
        break;
    case SRV_OPT_I64:
        ok = dr_parse_i64(value, any ? INT64_MIN : (int64_t)o->lo, any ? INT64_MAX : (int64_t)o->hi, o->to);
        break;
    case SRV_OPT_U64:
        ok = dr_parse_u64(value, 0, o->hi > 0 ? (uint64_t)o->hi : UINT64_MAX, o->to);
        break;
    case SRV_OPT_DOUBLE:
        ok = dr_parse_double(value, any ? -1e300 : o->lo, any ? 1e300 : o->hi, o->to);
        break;
    case SRV_OPT_BYTES:
        ok = dr_parse_bytes(value, o->hi > 0 ? (uint64_t)o->hi : UINT64_MAX, o->to);
        break;
    case SRV_OPT_TEXT:
        if (o->choices && !is_choice(o->choices, value))
            return srv_opts_usage(command, "--%s: '%s' is not one of %s", o->name, value, o->choices);
        *(const char **)o->to = value;
        ok = true;
        break;
    case SRV_OPT_LIST: {
        srv_opt_list *l = o->to;
        if (l->n == SRV_OPT_LIST_MAX)
            return srv_opts_usage(command, "--%s: given more than %d times", o->name, SRV_OPT_LIST_MAX);
        l->v[l->n++] = value;
        ok = true;
        break;
    }
    case SRV_OPT_SIZE: {
        int *wh = o->to;
        ok = dr_parse_size(value, any ? 1 : (int)o->lo, any ? INT_MAX : (int)o->hi, &wh[0], &wh[1]);
        break;
    }
    }
    if (ok) return SRV_OPTS_GO;
    if (o->kind == SRV_OPT_SIZE)
        return srv_opts_usage(command, "--%s: '%s' is no size like 1920x1080%s", o->name, value,
                              any ? "" : " within the bounds");
    if (any || o->kind == SRV_OPT_U64 || o->kind == SRV_OPT_BYTES)
        return srv_opts_usage(command, "--%s: '%s' is not a valid number", o->name, value);
    return srv_opts_usage(command, "--%s: '%s' is not a number from %.15g to %.15g", o->name, value, o->lo, o->hi);
}

static const srv_opt *find_long(const srv_opt *opts, const char *name, size_t len) {
    for (const srv_opt *o = opts; o->name; o++)
        if (strlen(o->name) == len && !memcmp(o->name, name, len)) return o;
    return NULL;
}

static const srv_opt *find_letter(const srv_opt *opts, char letter) {
    for (const srv_opt *o = opts; o->name; o++)
        if (o->letter && o->letter == letter) return o;
    return NULL;
}

int srv_opts_parse(const srv_opts_spec *spec, int argc, char **argv, const char **ret_args, int *ret_n) {
    unsigned long long seen = 0; /* by row of the table */
    int n = 0;
    bool only_args = false;
    for (int i = 1; i < argc; i++) {
        char *a = argv[i];
        if (only_args || a[0] != '-' || !a[1]) {
            if (n == spec->args_max) return srv_opts_usage(spec->command, "unexpected argument '%s'", a);
            ret_args[n++] = a;
            continue;
        }
        if (!strcmp(a, "--")) {
            only_args = true;
            continue;
        }
        if (!strcmp(a, "--help") || !strcmp(a, "-h")) {
            srv_opts_help(spec);
            return SRV_EXIT_OK;
        }
        const srv_opt *o;
        const char *value = NULL;
        if (a[1] == '-') {
            char *eq = strchr(a, '=');
            o = find_long(spec->opts, a + 2, eq ? (size_t)(eq - a) - 2 : strlen(a + 2));
            if (eq) value = eq + 1;
        } else {
            o = a[2] ? NULL : find_letter(spec->opts, a[1]);
        }
        if (!o) return srv_opts_usage(spec->command, "unknown option '%s'", a);
        if (o->kind == SRV_OPT_FLAG) {
            if (value) return srv_opts_usage(spec->command, "--%s takes no value", o->name);
        } else if (!value) {
            if (i + 1 >= argc) return srv_opts_usage(spec->command, "--%s needs a value", o->name);
            value = argv[++i];
        }
        int rc = store(spec->command, o, value);
        if (rc != SRV_OPTS_GO) return rc;
        seen |= 1ull << ((size_t)(o - spec->opts) & 63);
    }
    for (const srv_opt *o = spec->opts; o->name; o++)
        if (o->required && !(seen & 1ull << ((size_t)(o - spec->opts) & 63)))
            return srv_opts_usage(spec->command, "--%s is missing", o->name);
    if (n < spec->args_min) return srv_opts_usage(spec->command, "missing arguments: %s", spec->args);
    if (ret_n) *ret_n = n;
    return SRV_OPTS_GO;
}
