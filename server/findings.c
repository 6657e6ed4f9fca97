/* findings.c - see findings.h. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/pictures.h"
#include "server/findings_rain.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPORTED_MAX = 5000, SIZES_MAX = 30 };

static bool good(const db_entry *e) {
    return !*e->facts.code;
}
static bool trains(const db_entry *e) {
    return e->part == DB_RAINY || e->part == DB_CLEAN;
}

dr_status srv_findings_add(srv_findings *f, srv_finding one, dr_error *err) {
    if (f->n == f->cap) {
        size_t cap = f->cap ? 2 * f->cap : 64;
        srv_finding *grown = dr_realloc(f->f, cap * sizeof *grown);
        if (!grown) return dr_fail(err, DR_NOMEM, "no memory for the findings");
        f->f = grown;
        f->cap = cap;
    }
    f->f[f->n++] = one;
    return DR_OK;
}

static dr_status tell(srv_findings *f, const char *code, srv_grade grade, size_t entry, size_t other, dr_error *err) {
    return srv_findings_add(
        f, (srv_finding){.code = code, .grade = grade, .entry = entry, .other = other, .distance = -1}, err);
}

static void set_aside(srv_findings *f, size_t i, const char *why) {
    if (!f->aside[i]) f->aside[i] = why;
}

/* --- one picture --- */

static dr_status look_at_each(srv_findings *f, const db_entry_list *l, dr_error *err) {
    dr_status s = DR_OK;
    for (size_t i = 0; i < l->n && !s; i++) {
        const db_facts *x = &l->e[i].facts;
        if (*x->code) {
            s = srv_findings_add(f,
                                 (srv_finding){.code = x->code,
                                               .grade = SRV_ERROR,
                                               .entry = i,
                                               .other = SRV_NO_OTHER,
                                               .distance = -1,
                                               .detail = x->detail},
                                 err);
            set_aside(f, i, x->code);
            continue;
        }
        if (x->bit_depth == 16) s = tell(f, "sixteen_bit", SRV_NOTE, i, SRV_NO_OTHER, err);
        if (!s && x->grey) s = tell(f, "grey", SRV_WARNING, i, SRV_NO_OTHER, err);
        if (!s && (x->channels == 2 || x->channels == 4)) s = tell(f, "alpha", SRV_NOTE, i, SRV_NO_OTHER, err);
    }
    return s;
}

/* --- pairs: two runs of the list, both sorted by name --- */

static void bounds(const db_entry_list *l, db_part part, size_t *from, size_t *to) {
    for (*from = 0; *from < l->n && l->e[*from].part < part;) ++*from;
    for (*to = *from; *to < l->n && l->e[*to].part == part;) ++*to;
}

static dr_status look_at_pair(srv_findings *f, const db_entry_list *l, size_t a, size_t b, dr_error *err) {
    const db_facts *x = &l->e[a].facts, *y = &l->e[b].facts;
    if (!good(&l->e[a]) || !good(&l->e[b])) {
        set_aside(f, a, "partner_bad");
        set_aside(f, b, "partner_bad");
        return DR_OK;
    }
    if (x->width != y->width || x->height != y->height) {
        set_aside(f, a, "size_differs");
        set_aside(f, b, "size_differs");
        return tell(f, "size_differs", SRV_ERROR, a, b, err);
    }
    return strcmp(x->pixels, y->pixels) ? DR_OK : tell(f, "pair_identical", SRV_WARNING, a, b, err);
}

static dr_status look_at_pairs(srv_findings *f, const db_entry_list *l, dr_error *err) {
    size_t a, a_end, b, b_end;
    dr_status s = DR_OK;
    bounds(l, DB_PAIRED_RAINY, &a, &a_end);
    bounds(l, DB_PAIRED_CLEAN, &b, &b_end);
    while ((a < a_end || b < b_end) && !s) {
        int order = a == a_end ? 1 : b == b_end ? -1 : strcmp(l->e[a].name, l->e[b].name);
        if (order) {
            size_t alone = order < 0 ? a++ : b++;
            set_aside(f, alone, "no_partner");
            s = tell(f, "no_partner", SRV_ERROR, alone, SRV_NO_OTHER, err);
        } else {
            s = look_at_pair(f, l, a++, b++, err);
        }
    }
    return s;
}

/* --- the same pixels --- */

typedef struct key {
    const db_entry *e;
    size_t i;
} key;

static int by_pixels(const void *a, const void *b) {
    const key *x = a, *y = b;
    int c = strcmp(x->e->facts.pixels, y->e->facts.pixels);
    return c ? c : (x->i > y->i) - (x->i < y->i); /* within a group as in the list: by part, then name */
}

/* A group of pictures with the same pixels. */
static dr_status look_at_same(srv_findings *f, const key *g, size_t n, dr_error *err) {
    size_t first[DB_N_PARTS];
    dr_status s = DR_OK;
    for (int p = 0; p < DB_N_PARTS; p++) first[p] = SRV_NO_OTHER;
    for (size_t k = n; k-- > 0;) first[g[k].e->part] = g[k].i;
    const size_t held = first[DB_PAIRED_RAINY] != SRV_NO_OTHER ? first[DB_PAIRED_RAINY] : first[DB_PAIRED_CLEAN];
    for (size_t k = 0; k < n && !s; k++) {
        const db_part part = g[k].e->part;
        const size_t i = g[k].i;
        if (trains(g[k].e) && held != SRV_NO_OTHER) {
            set_aside(f, i, "holdout_leak");
            s = tell(f, "holdout_leak", SRV_ERROR, i, held, err);
        }
        if (!s && trains(g[k].e) && first[DB_RAINY] != SRV_NO_OTHER && first[DB_CLEAN] != SRV_NO_OTHER) {
            set_aside(f, i, "in_both_sets");
            if (part == DB_CLEAN) s = tell(f, "in_both_sets", SRV_ERROR, i, first[DB_RAINY], err);
        }
        if (!s && i != first[part]) {
            if (trains(g[k].e)) set_aside(f, i, "duplicate");
            s = tell(f, "duplicate", SRV_WARNING, i, first[part], err);
        }
    }
    return s;
}

static dr_status look_for_same(srv_findings *f, const db_entry_list *l, dr_error *err) {
    key *k = dr_calloc(l->n + 1, sizeof *k);
    size_t n = 0;
    dr_status s = DR_OK;
    if (!k) return dr_fail(err, DR_NOMEM, "no memory for the findings");
    for (size_t i = 0; i < l->n; i++)
        if (good(&l->e[i])) k[n++] = (key){&l->e[i], i};
    qsort(k, n, sizeof *k, by_pixels);
    for (size_t i = 0, end; i < n && !s; i = end) {
        for (end = i + 1; end < n && !strcmp(k[i].e->facts.pixels, k[end].e->facts.pixels);) end++;
        if (end > i + 1) s = look_at_same(f, k + i, end - i, err);
    }
    dr_free(k);
    return s;
}

/* --- nearly the same --- */

typedef struct looked {
    dr_look look;
    size_t i;
    db_part part;
} looked;

typedef struct nearest {
    size_t other;
    int distance;
} nearest;

static void offer(nearest *n, size_t other, int distance) {
    if (n->other != SRV_NO_OTHER && n->distance <= distance) return;
    *n = (nearest){other, distance};
}

static dr_status tell_near(srv_findings *f, const char *code, size_t i, nearest n, dr_error *err) {
    if (n.other == SRV_NO_OTHER) return DR_OK;
    const srv_finding one = {.code = code, .grade = SRV_WARNING, .entry = i, .other = n.other, .distance = n.distance};
    return srv_findings_add(f, one, err);
}

/* Picture a against all before it of its own part, those of the other training part, and the hold-out. */
static dr_status look_near(srv_findings *f, const db_entry_list *l, const looked *all, size_t n, size_t a,
                           dr_error *err) {
    nearest own = {SRV_NO_OTHER, 0}, across = own, held = own;
    const looked *x = &all[a];
    const bool in_training = x->part == DB_RAINY || x->part == DB_CLEAN;
    for (size_t b = 0; b < n; b++) {
        const looked *y = &all[b];
        nearest *where = y->part == x->part                           ? (b < a ? &own : NULL)
                         : x->part == DB_CLEAN && y->part == DB_RAINY ? &across
                         : in_training && y->part >= DB_PAIRED_RAINY  ? &held
                                                                      : NULL;
        if (!where) continue;
        const int d = dr_look_distance(&x->look, &y->look);
        if (d <= DR_LOOK_SAME && strcmp(l->e[x->i].facts.pixels, l->e[y->i].facts.pixels) != 0) offer(where, y->i, d);
    }
    dr_status s = tell_near(f, "near_duplicate", x->i, own, err);
    if (!s) s = tell_near(f, "near_in_both_sets", x->i, across, err);
    return s ? s : tell_near(f, "near_holdout_leak", x->i, held, err);
}

static dr_status look_for_near(srv_findings *f, const db_entry_list *l, bool (*stop)(void *), void *arg,
                               dr_error *err) {
    looked *all = dr_calloc(l->n + 1, sizeof *all);
    size_t n = 0;
    dr_status s = DR_OK;
    if (!all) return dr_fail(err, DR_NOMEM, "no memory for the findings");
    for (size_t i = 0; i < l->n; i++)
        if (good(&l->e[i]) && dr_look_parse(l->e[i].facts.look, &all[n].look)) {
            all[n].i = i;
            all[n++].part = l->e[i].part;
        }
    for (size_t a = 0; a < n && !s; a++) {
        if (a % 64 == 0 && stop(arg)) s = dr_fail(err, DR_CANCELLED, "stopped");
        if (!s) s = look_near(f, l, all, n, a, err);
    }
    dr_free(all);
    return s;
}

/* --- all of it --- */

dr_status srv_findings_make(const db_entry_list *entries, bool (*stop)(void *arg), void *arg, srv_findings *ret,
                            dr_error *err) {
    srv_findings f = {.n_entries = entries->n, .aside = dr_calloc(entries->n + 1, sizeof *f.aside)};
    dr_status s = f.aside ? DR_OK : dr_fail(err, DR_NOMEM, "no memory for the findings");
    if (!s) s = look_at_each(&f, entries, err);
    if (!s) s = look_at_pairs(&f, entries, err);
    if (!s) s = look_for_same(&f, entries, err);
    if (!s) s = look_for_near(&f, entries, stop, arg, err);
    if (!s) s = srv_findings_rain(&f, entries, err);
    if (s)
        srv_findings_clear(&f);
    else
        *ret = f;
    return s;
}

void srv_findings_clear(srv_findings *f) {
    dr_free(f->f);
    dr_free(f->aside);
    *f = (srv_findings){0};
}

/* --- in words --- */

static json_t *where(const db_entry *e) {
    return json_sprintf("%s/%s", db_part_name(e->part), e->name);
}

static const char *explain(const char *code) {
    static const char *const words[][2] = {
        {"image_corrupt", "damaged pictures"},
        {"unsupported_format", "files that are no PNG and no JPEG"},
        {"unsupported_color", "pictures in unsupported colours"},
        {"image_too_large", "pictures that pass a limit"},
        {"image_too_small", "pictures with a side below 16 pixels"},
        {"memory", "pictures that need too much memory"},
        {"blob_damaged", "pictures whose stored bytes have changed"},
        {"no_partner", "paired pictures without a partner of the same name"},
        {"size_differs", "pairs of different size"},
        {"in_both_sets", "pictures that stand in rainy and in clean"},
        {"holdout_leak", "pictures of the paired hold-out that are in a training set too"},
        {"duplicate", "pictures that are there twice"},
        {"pair_identical", "pairs without any difference"},
        {"near_duplicate", "pictures that look like another one of their set"},
        {"near_in_both_sets", "pictures of clean that look like one of rainy"},
        {"near_holdout_leak", "pictures of a training set that look like one of the paired hold-out"},
        {"sixteen_bit", "pictures with 16 bits a sample"},
        {"grey", "pictures without colour"},
        {"alpha", "pictures with transparency, which training ignores"},
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(words[i][0], code)) return words[i][1];
    return "pictures that cannot be used";
}

static int64_t count_used(const srv_findings *f, const db_entry_list *l, db_part part) {
    int64_t n = 0;
    for (size_t i = 0; i < l->n; i++) n += l->e[i].part == part && !f->aside[i];
    return n;
}

/* Codes in the order in which they first occur, with how often; counts is an object. */
static json_t *count_codes(const srv_findings *f, int grade) {
    json_t *counts = json_object();
    for (size_t i = 0; i < f->n; i++) {
        if (grade >= 0 && (int)f->f[i].grade != grade) continue;
        json_int_t n = json_integer_value(json_object_get(counts, f->f[i].code));
        json_object_set_new(counts, f->f[i].code, json_integer(n + 1));
    }
    return counts;
}

json_t *srv_findings_reasons(const srv_findings *f, const db_entry_list *l, bool leave_out) {
    json_t *reasons = json_array(), *counts = count_codes(f, SRV_ERROR), *n;
    const char *code;
    if (!leave_out) json_object_foreach(counts, code, n) {
            const srv_finding *first = f->f;
            while (first->grade != SRV_ERROR || strcmp(first->code, code)) first++;
            const db_entry *e = &l->e[first->entry];
            json_array_append_new(reasons,
                                  json_sprintf("%s: %lld %s (first: %s/%s%s%s)", code, (long long)json_integer_value(n),
                                               explain(code), db_part_name(e->part), e->name, first->detail ? ": " : "",
                                               first->detail ? first->detail : ""));
        }
    json_decref(counts);
    for (int p = DB_RAINY; p <= DB_CLEAN; p++)
        if (!count_used(f, l, (db_part)p))
            json_array_append_new(reasons,
                                  json_sprintf("too_few_pictures: no usable picture in %s", db_part_name((db_part)p)));
    return reasons;
}

/* --- the report --- */

static const char *const grades[] = {"note", "warning", "error"};

static json_t *finding_json(const srv_findings *f, const db_entry_list *l, const srv_finding *x) {
    json_t *detail = x->detail ? json_string(x->detail) : json_null();
    json_t *score = x->has_score ? json_real(x->score) : json_null();
    json_t *threshold = x->has_score ? json_real(x->threshold) : json_null();
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:b}", "code", x->code, "grade", grades[x->grade],
                     "file", x->entry == SRV_NO_OTHER ? json_null() : where(&l->e[x->entry]), "other",
                     x->other == SRV_NO_OTHER ? json_null() : where(&l->e[x->other]), "distance",
                     x->distance < 0 ? json_null() : json_integer(x->distance), "score", score, "threshold", threshold,
                     "detail", detail ? detail : json_null(), "set_aside",
                     (int)(x->entry != SRV_NO_OTHER && f->aside[x->entry] != NULL));
}

/* Errors first, then warnings, then notes. */
static json_t *findings_json(const srv_findings *f, const db_entry_list *l) {
    json_t *list = json_array();
    for (int grade = SRV_ERROR; grade >= SRV_NOTE; grade--)
        for (size_t i = 0; i < f->n && json_array_size(list) < REPORTED_MAX; i++)
            if ((int)f->f[i].grade == grade) json_array_append_new(list, finding_json(f, l, &f->f[i]));
    return list;
}

typedef struct size_count {
    int64_t w, h, n;
} size_count;

static int by_size(const void *a, const void *b) {
    const size_count *x = a, *y = b;
    return x->w != y->w ? (x->w > y->w) - (x->w < y->w) : (x->h > y->h) - (x->h < y->h);
}
static int by_count(const void *a, const void *b) {
    const size_count *x = a, *y = b;
    return x->n != y->n ? (x->n < y->n) - (x->n > y->n) : by_size(a, b);
}

/* The most frequent sizes of a part; what is beyond SIZES_MAX is left out. */
static json_t *sizes_json(const db_entry_list *l, db_part part) {
    size_count *all = dr_calloc(l->n + 1, sizeof *all);
    size_t n = 0, kept = 0;
    json_t *list = json_array();
    for (size_t i = 0; all && i < l->n; i++)
        if (l->e[i].part == part && good(&l->e[i]))
            all[n++] = (size_count){l->e[i].facts.width, l->e[i].facts.height, 1};
    if (n) qsort(all, n, sizeof *all, by_size);
    for (size_t i = 0; i < n; i++)
        if (kept && !by_size(&all[kept - 1], &all[i]))
            all[kept - 1].n++;
        else
            all[kept++] = all[i];
    if (kept) qsort(all, kept, sizeof *all, by_count);
    for (size_t i = 0; i < kept && i < SIZES_MAX; i++)
        json_array_append_new(list, json_pack("{s:I, s:I, s:I}", "width", (json_int_t)all[i].w, "height",
                                              (json_int_t)all[i].h, "count", (json_int_t)all[i].n));
    dr_free(all);
    return list;
}

/* Pictures by their shorter side. */
static json_t *histogram_json(const db_entry_list *l, db_part part) {
    static const int64_t edge[] = {0, 64, 128, 256, 512, 1024, 2048, 4096};
    enum { N = sizeof edge / sizeof *edge };
    int64_t n[N] = {0};
    json_t *list = json_array();
    for (size_t i = 0; i < l->n; i++) {
        if (l->e[i].part != part || !good(&l->e[i])) continue;
        const db_facts *x = &l->e[i].facts;
        const int64_t side = x->width < x->height ? x->width : x->height;
        size_t k = N - 1;
        while (side < edge[k]) k--;
        n[k]++;
    }
    for (size_t k = 0; k < N; k++)
        json_array_append_new(list, json_pack("{s:I, s:o, s:I}", "side_from", (json_int_t)edge[k], "side_below",
                                              k + 1 < N ? json_integer(edge[k + 1]) : json_null(), "count",
                                              (json_int_t)n[k]));
    return list;
}

/* null without memory too: a summary is no reason to have no report. */
static json_t *rain_json(const db_entry_list *l, db_part part) {
    srv_rain_mean m = {0};
    if (srv_rain_mean_of(l, part, 0, &m, NULL) || !m.n) return json_null();
    return json_pack("{s:I, s:f, s:f}", "count", (json_int_t)m.n, "mean", m.mean, "median", m.median);
}

static json_t *part_json(const srv_findings *f, const db_entry_list *l, db_part part) {
    int64_t files = 0, bytes = 0, png = 0, jpeg = 0, deep = 0, grey = 0, bad = 0, pixels = 0;
    for (size_t i = 0; i < l->n; i++) {
        const db_entry *e = &l->e[i];
        if (e->part != part) continue;
        files++;
        bytes += e->bytes;
        bad += !good(e);
        if (!good(e)) continue;
        png += !strcmp(e->facts.format, "png");
        jpeg += !strcmp(e->facts.format, "jpeg");
        deep += e->facts.bit_depth == 16;
        grey += e->facts.grey;
        pixels += e->facts.width * e->facts.height;
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:f, s:{s:I, s:I}, s:I, s:I, s:o, s:o, s:o}", "files", (json_int_t)files,
                     "usable", (json_int_t)count_used(f, l, part), "bad", (json_int_t)bad, "bytes", (json_int_t)bytes,
                     "megapixels", (double)pixels / 1e6, "formats", "png", (json_int_t)png, "jpeg", (json_int_t)jpeg,
                     "sixteen_bit", (json_int_t)deep, "grey", (json_int_t)grey, "sizes", sizes_json(l, part),
                     "shorter_sides", histogram_json(l, part), "rain_score", rain_json(l, part));
}

json_t *srv_findings_report(const srv_findings *f, const db_entry_list *l, const db_dataset *set,
                            const json_t *reasons) {
    json_t *parts = json_object(), *findings = findings_json(f, l);
    const size_t shown = json_array_size(findings);
    for (int p = 0; p < DB_N_PARTS; p++)
        json_object_set_new(parts, db_part_name((db_part)p), part_json(f, l, (db_part)p));
    return json_pack("{s:s, s:s, s:b, s:O, s:o, s:o, s:{s:o, s:o, s:o}, s:I, s:b, s:i, s:f, s:f}", "dataset", set->id,
                     "state", json_array_size(reasons) ? "rejected" : "ready", "set_aside", (int)set->set_aside,
                     "reasons", reasons, "parts", parts, "findings", findings, "counts", "error",
                     count_codes(f, SRV_ERROR), "warning", count_codes(f, SRV_WARNING), "note",
                     count_codes(f, SRV_NOTE), "findings_total", (json_int_t)f->n, "findings_cut", (int)(shown < f->n),
                     "near_distance_max", DR_LOOK_SAME, "looks_rainy_from", SRV_RAIN_LIKE, "looks_dry_below",
                     SRV_RAIN_DRY);
}
