/* test_findings_rain.c - what rain scores say of a data set: the most suspicious few on either side, the sets as a
 * whole, and nothing where there is nothing to say. */
#include "server/findings_rain.h"
#include "tests/t.h"

enum { MAX = 64 };
static db_entry entries[MAX];
static db_entry_list list;

static void begin(void) {
    memset(entries, 0, sizeof entries);
    list = (db_entry_list){.e = entries};
}

/* n pictures of a part with scores from `from` on, `step` apart; pixels differ, no fingerprints. */
static void put(db_part part, int n, double from, double step) {
    for (int i = 0; i < n; i++, list.n++) {
        db_entry *e = &entries[list.n];
        e->part = part;
        e->name = (char *)(uintptr_t) "x.png";
        e->has_facts = true;
        e->facts.bit_depth = 8, e->facts.channels = 3, e->facts.width = 320, e->facts.height = 240;
        e->facts.rain = from + step * i;
        snprintf(e->facts.pixels, sizeof e->facts.pixels, "%064zu", list.n);
    }
}

static bool never(void *arg) {
    (void)arg;
    return false;
}

static size_t count(const srv_findings *f, const char *code) {
    size_t n = 0;
    for (size_t i = 0; i < f->n; i++) n += !strcmp(f->f[i].code, code);
    return n;
}

TEST(sets_as_they_should_be_say_nothing) {
    srv_findings f;
    begin();
    put(DB_RAINY, 20, 52, 1);
    put(DB_CLEAN, 20, 40, 1);
    CHECK(!srv_findings_make(&list, never, NULL, &f, NULL));
    CHECK(f.n == 0);
    srv_findings_clear(&f);
}

TEST(the_most_suspicious_few_are_told_worst_first) {
    srv_findings f;
    begin();
    put(DB_RAINY, 10, 60, 0);
    put(DB_RAINY, 8, 30, 1); /* 30 .. 37: dry */
    put(DB_CLEAN, 10, 45, 0);
    put(DB_CLEAN, 8, 68, 2); /* 68 .. 82: rainy */
    put(DB_PAIRED_CLEAN, 1, 90, 0);
    put(DB_PAIRED_RAINY, 0, 0, 0);
    CHECK(!srv_findings_make(&list, never, NULL, &f, NULL));
    CHECK(count(&f, "looks_rainy") == SRV_RAIN_TOLD && count(&f, "looks_dry") == SRV_RAIN_TOLD);
    double rainy = 100, dry = 0;
    for (size_t i = 0; i < f.n; i++) {
        const srv_finding *x = &f.f[i];
        if (!strcmp(x->code, "looks_rainy")) {
            CHECK(x->grade == SRV_NOTE && x->score < rainy && x->score >= 74 && x->threshold == SRV_RAIN_LIKE);
            CHECK(entries[x->entry].part == DB_CLEAN && x->score == entries[x->entry].facts.rain);
            rainy = x->score;
        } else if (!strcmp(x->code, "looks_dry")) {
            CHECK(x->grade == SRV_NOTE && x->score > dry && x->score <= 34 && entries[x->entry].part == DB_RAINY);
            dry = x->score;
        }
        CHECK(x->entry == SRV_NO_OTHER || !f.aside[x->entry] || !x->has_score);
    }
    srv_findings_clear(&f);
}

TEST(thresholds_are_where_they_are_said_to_be) {
    srv_findings f;
    begin();
    put(DB_RAINY, 1, SRV_RAIN_DRY, 0); /* not below it */
    put(DB_CLEAN, 1, SRV_RAIN_LIKE - 0.01, 0);
    CHECK(!srv_findings_make(&list, never, NULL, &f, NULL) && f.n == 0);
    srv_findings_clear(&f);
    entries[0].facts.rain = SRV_RAIN_DRY - 0.01;
    entries[1].facts.rain = SRV_RAIN_LIKE;
    CHECK(!srv_findings_make(&list, never, NULL, &f, NULL) && f.n == 2);
    srv_findings_clear(&f);
    entries[0].facts.rain = entries[1].facts.rain = -1; /* no score */
    CHECK(!srv_findings_make(&list, never, NULL, &f, NULL) && f.n == 0);
    srv_findings_clear(&f);
}

TEST(sets_the_wrong_way_round_are_told_where_there_are_enough) {
    srv_findings f;
    for (int n = SRV_RAIN_SET - 1; n <= SRV_RAIN_SET; n++) {
        begin();
        put(DB_RAINY, n, 47, 0);
        put(DB_CLEAN, 20, 60, 0);
        CHECK(!srv_findings_make(&list, never, NULL, &f, NULL));
        CHECK(f.n == (n < SRV_RAIN_SET ? 0u : 1u));
        if (f.n) {
            CHECK(!strcmp(f.f[0].code, "sets_look_swapped") && f.f[0].grade == SRV_WARNING);
            CHECK(f.f[0].entry == SRV_NO_OTHER && f.f[0].score == 47 && f.f[0].threshold == 60);
        }
        db_dataset set = {.id = "ds_x"};
        json_t *reasons = srv_findings_reasons(&f, &list, false);
        json_t *report = srv_findings_report(&f, &list, &set, reasons);
        CHECK(json_array_size(reasons) == 0 && report != NULL); /* a warning rejects nothing */
        json_t *r = json_object_get(json_object_get(json_object_get(report, "parts"), "clean"), "rain_score");
        CHECK(json_integer_value(json_object_get(r, "count")) == 20 &&
              json_number_value(json_object_get(r, "mean")) == 60);
        CHECK(json_is_null(
            json_object_get(json_object_get(json_object_get(report, "parts"), "paired/clean"), "rain_score")));
        if (f.n) CHECK(json_is_null(json_object_get(json_array_get(json_object_get(report, "findings"), 0), "file")));
        json_decref(report);
        json_decref(reasons);
        srv_findings_clear(&f);
    }
}

TEST(of_small_pictures_nothing_is_said) {
    srv_findings f;
    srv_rain_mean m;
    begin();
    put(DB_RAINY, 20, 10, 0);
    put(DB_CLEAN, 20, 90, 0);
    for (size_t i = 0; i < list.n; i++) entries[i].facts.height = SRV_RAIN_SIDE - 1;
    CHECK(!srv_findings_make(&list, never, NULL, &f, NULL) && f.n == 0);
    srv_findings_clear(&f);
    CHECK(!srv_rain_mean_of(&list, DB_CLEAN, 0, &m, NULL) && m.n == 20); /* but they are in the means of the report */
    for (size_t i = 0; i < list.n; i++) entries[i].facts.height = SRV_RAIN_SIDE;
    CHECK(!srv_findings_make(&list, never, NULL, &f, NULL) && f.n == 1 + 2 * SRV_RAIN_TOLD);
    srv_findings_clear(&f);
}

TEST(means_and_medians) {
    srv_rain_mean m;
    begin();
    CHECK(!srv_rain_mean_of(&list, DB_CLEAN, 0, &m, NULL) && m.n == 0);
    put(DB_CLEAN, 1, 10, 0);
    put(DB_CLEAN, 1, 40, 0);
    put(DB_CLEAN, 1, 100, 0);
    put(DB_CLEAN, 1, -1, 0);
    CHECK(!srv_rain_mean_of(&list, DB_CLEAN, 0, &m, NULL) && m.n == 3 && fabs(m.mean - 50) < 1e-12 && m.median == 40);
    put(DB_CLEAN, 1, 50, 0);
    CHECK(!srv_rain_mean_of(&list, DB_CLEAN, 0, &m, NULL) && m.n == 4 && m.median == 45);
}
