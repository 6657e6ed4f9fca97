/* cmd_system.c - `derain doctor`: each link of the chain tested once, a line each, with what to do when it is broken.
 * Also the completion script. */
#include "client/opts.h"
#include "client/out.h"
#include "core/base/alloc.h"
#include "core/base/hash.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>

int cli_completion(cli_env *env) {
    (void)env;
    char *text = cli_bash_completion();
    if (!text) return CLI_FAILED;
    fputs(text, stdout);
    dr_free(text);
    return cli_out_flush();
}

typedef struct doctor {
    cli_env *env;
    cli_http *h;
    json_t *checks; /* for --json */
    int failed, code;
} doctor;

static void report(doctor *d, const char *name, bool good, const char *words, const char *todo) {
    if (!good) d->failed++;
    if (d->env->opt->json) {
        json_array_append_new(d->checks, json_pack("{s:s, s:b, s:s, s:s?}", "check", name, "ok", good, "detail", words,
                                                   "todo", good ? NULL : todo));
        return;
    }
    printf("%-6s %-10s %s\n", good ? "ok" : "FAILED", name, words);
    if (!good && todo) printf("%-17s what to do: %s\n", "", todo);
    fflush(stdout);
}

/* GET a JSON object; NULL after reporting the failure. */
static json_t *ask(doctor *d, const char *name, const char *path, const char *todo, double *ret_ms) {
    cli_answer a = {.retry_after_s = -1};
    dr_error err = {0};
    json_t *o = NULL;
    dr_status s = cli_http_do(
        d->h,
        &(cli_call){.path = path, .accept = "application/json", .deadline_ns = d->env->deadline_ns, .tries_max = 2}, &a,
        &err);
    if (!s) s = cli_answer_json(&a, &o, &err);
    if (s) {
        int code = cli_exit_code(s, &err, a.status);
        if (!d->code) d->code = code == CLI_REFUSED && a.status != 401 && a.status != 403 ? CLI_FAILED : code;
        report(d, name, false, err.text,
               a.status == 401 || a.status == 403
                   ? "give the key: --key-file, DERAIN_KEY, or `key = ...` in derain.conf"
                   : todo);
    } else if (ret_ms) {
        *ret_ms = a.seconds * 1000;
    }
    cli_answer_clear(&a);
    return s ? NULL : o;
}

static void words_of(const json_t *list, char *ret, size_t cap) {
    size_t i, n = 0;
    json_t *v;
    ret[0] = 0;
    json_array_foreach(list, i, v) {
        const char *s = json_string_value(v);
        if (s && n < cap) n += (size_t)snprintf(ret + n, cap - n, "%s%s", n ? ", " : "", s);
    }
}

static void check_version(doctor *d) {
    char words[256];
    json_t *v = ask(d, "version", "/v1/version", "is something else than a deraind listening there?", NULL);
    if (!v) return;
    const char *version = cli_member(v, "version");
    snprintf(words, sizeof words, "deraind %.20s (%.12s), %.10s%s%.60s, kernels %.30s; this client %s", version,
             cli_member(v, "commit"), cli_member(v, "backend"), *cli_member(v, "device") ? " " : "",
             cli_member(v, "device"), cli_member(v, "cpu_kernels"), cli_version());
    report(d, "version", *version != 0, words, "is something else than a deraind listening there?");
    json_decref(v);
}

static void check_health(doctor *d) {
    json_t *v = ask(d, "health", "/health/ready?verbose=1",
                    "the daemon is starting, draining or out of disk: look at its log", NULL);
    if (!v) return;
    report(d, "health", true, "ready", NULL);
    json_decref(v);
}

static void check_limits(doctor *d) {
    char words[320], bytes[32], in[64], out[64];
    json_t *v = ask(d, "limits", "/v1/limits", "is something else than a deraind listening there?", NULL);
    if (!v) return;
    cli_text_bytes(json_number_value(json_object_get(v, "body_max_bytes")), bytes);
    words_of(json_object_get(v, "formats_in"), in, sizeof in);
    words_of(json_object_get(v, "formats_out"), out, sizeof out);
    snprintf(words, sizeof words, "pictures to %s, %.1f megapixels, sides %.0f to %.0f; in: %s; out: %s; queue of %.0f",
             bytes, json_number_value(json_object_get(v, "pixels_max")) / 1e6,
             json_number_value(json_object_get(v, "side_min")), json_number_value(json_object_get(v, "side_max")), in,
             out, json_number_value(json_object_get(v, "queue_max")));
    report(d, "limits", true, words, NULL);
    json_decref(v);
}

static void check_model(doctor *d) {
    char words[256];
    size_t i;
    json_t *m, *v = ask(d, "model", "/v1/models", "start the daemon with --model FILE", NULL), *best = NULL;
    if (!v) return;
    json_array_foreach(json_object_get(v, "items"), i, m) if (!best || json_is_true(json_object_get(m, "default")))
        best = m;
    const json_t *arch = json_object_get(best, "arch");
    if (best)
        snprintf(words, sizeof words, "%.40s version %.0f, %.16s (ngf %.0f, %.0f blocks)", cli_member(best, "name"),
                 json_number_value(json_object_get(best, "version")), cli_member(best, "state"),
                 json_number_value(json_object_get(arch, "ngf")), json_number_value(json_object_get(arch, "blocks")));
    else
        snprintf(words, sizeof words, "the service has no model");
    report(d, "model", best && strcmp(cli_member(best, "state"), "ready") == 0, words,
           "start the daemon with --model FILE");
    json_decref(v);
}

/* --- a small picture, made without an image library: PNG with stored (not compressed) data
 * -------------------------------------- */

enum { TINY_W = 64, TINY_H = 48, TINY_RAW = TINY_H * (1 + 3 * TINY_W) };

static void put32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static size_t chunk(uint8_t *p, const char *type, const uint8_t *data, size_t n) {
    put32(p, (uint32_t)n);
    memcpy(p + 4, type, 4);
    if (n) memcpy(p + 8, data, n);
    put32(p + 8 + n, dr_crc32(0, p + 4, n + 4));
    return n + 12;
}

/* A soft gradient with slanted bright streaks. Room for TINY_RAW + 200 bytes. */
static size_t tiny_png(uint8_t *out) {
    static const uint8_t sig[8] = {0x89, 'P', 'N', 'G', 13, 10, 26, 10};
    uint8_t head[13] = {0}, *z = dr_malloc(TINY_RAW + 11), *p = z;
    if (!z) return 0;
    put32(head, TINY_W);
    put32(head + 4, TINY_H);
    head[8] = 8;
    head[9] = 2;
    *p++ = 0x78;
    *p++ = 0x01;
    *p++ = 1; /* the last block, stored */
    *p++ = TINY_RAW & 0xff;
    *p++ = TINY_RAW >> 8;
    *p++ = (TINY_RAW & 0xff) ^ 0xff;
    *p++ = (TINY_RAW >> 8) ^ 0xff;
    uint32_t a = 1, b = 0;
    for (int y = 0; y < TINY_H; y++)
        for (int i = -1; i < 3 * TINY_W; i++) {
            int x = i / 3, streak = i >= 0 && (x * 5 + y * 2) % 37 < 2 ? 60 : 0;
            uint8_t v = i < 0 ? 0 : (uint8_t)(60 + x + y * 2 + (i % 3) * 10 + streak);
            *p++ = v;
            a = (a + v) % 65521;
            b = (b + a) % 65521;
        }
    put32(p, b << 16 | a);
    p += 4;
    size_t n = 0;
    memcpy(out, sig, 8);
    n += 8;
    n += chunk(out + n, "IHDR", head, sizeof head);
    n += chunk(out + n, "IDAT", z, (size_t)(p - z));
    n += chunk(out + n, "IEND", NULL, 0);
    dr_free(z);
    return n;
}

static void check_round_trip(doctor *d) {
    const char *todo = "look at the daemon's log; `derain jobs` shows what it is busy with";
    cli_answer a = {.retry_after_s = -1};
    dr_error err = {0};
    char words[256], key[40], t[32];
    uint8_t *png = dr_malloc(TINY_RAW + 200);
    size_t n = png ? tiny_png(png) : 0;
    cli_idem_key(key);
    dr_status s = n ? cli_http_do(d->h,
                                  &(cli_call){.method = "POST",
                                              .path = "/v1/derain?format=png",
                                              .accept = "image/png",
                                              .content_type = "image/png",
                                              .prefer = "wait=60",
                                              .idem_key = key,
                                              .body = png,
                                              .body_len = n,
                                              .wait_ms = 60000,
                                              .deadline_ns = d->env->deadline_ns},
                                  &a, &err)
                    : dr_fail(&err, DR_NOMEM, "out of memory");
    cli_text_seconds(a.seconds, t);
    if (s) {
        if (!d->code) d->code = cli_exit_code(s, &err, a.status);
        report(d, "round trip", false, err.text, todo);
    } else if (a.status == 202) {
        report(d, "round trip", false, "a picture of 64x48 was not done within 60 s: the queue is long", todo);
    } else if (a.len < 33 || memcmp(a.body, "\x89PNG", 4) != 0 || memcmp(a.body + 16, "\0\0\0\x40\0\0\0\x30", 8) != 0) {
        report(d, "round trip", false, "what came back is no PNG of 64x48", todo);
    } else {
        snprintf(words, sizeof words, "a picture of 64x48 derained in %s%s%.150s", t, *a.timing ? "; " : "", a.timing);
        report(d, "round trip", true, words, NULL);
    }
    dr_free(png);
    cli_answer_clear(&a);
}

int cli_doctor(cli_env *env) {
    doctor d = {.env = env, .checks = json_array()};
    dr_error err = {0};
    char words[400];
    double ms = 0;
    dr_status s = cli_connect(env, &d.h, &err);
    if (s) {
        json_decref(d.checks);
        return cli_out_error(env, s, &err, NULL);
    }
    json_t *live =
        ask(&d, "reach", "/health/live", "start one with `deraind serve`, or name it with --url or DERAIN_URL", &ms);
    if (live) {
        snprintf(words, sizeof words, "%.300s answers in %.1f ms", cli_http_url(d.h), ms);
        report(&d, "reach", true, words, NULL);
        json_decref(live);
        check_version(&d);
        check_health(&d);
        check_limits(&d);
        check_model(&d);
        if (!d.failed) check_round_trip(&d);
    }
    if (d.failed && !d.code) d.code = CLI_FAILED;
    if (env->opt->json) {
        json_t *o = json_pack("{s:b, s:s, s:O}", "ok", !d.failed, "url", cli_http_url(d.h), "checks", d.checks);
        int rc = o ? cli_out_json(o) : CLI_FAILED;
        json_decref(o);
        if (!d.code) d.code = rc;
    } else {
        if (!d.failed) printf("all is well\n");
        int rc = cli_out_flush();
        if (!d.code) d.code = rc;
    }
    json_decref(d.checks);
    cli_http_close(d.h);
    return d.code;
}
