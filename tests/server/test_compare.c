/* test_compare.c - the parts of a comparison that need no daemon: the sign test against known values, parameters,
 * choosing pictures from a data set, the report and its conclusion. */
#include "core/base/alloc.h"
#include "server/compare_params.h"
#include "server/compare_report.h"
#include "server/sign_test.h"
#include "tests/t.h"

/* --- sign test --- */

static bool near(double a, double b) {
    return fabs(a - b) <= 1e-12 * fmax(1e-6, fabs(b)) || fabs(a - b) < 1e-15;
}

TEST(the_sign_test_gives_known_values) {
    /* exact binomial: 2 * sum C(n,k) / 2^n, by hand and as R's binom.test() prints it */
    CHECK(srv_sign_test(0, 0) == 1);
    CHECK(srv_sign_test(1, 0) == 1 && srv_sign_test(0, 1) == 1);
    CHECK(near(srv_sign_test(5, 0), 2.0 / 32) && near(srv_sign_test(6, 0), 2.0 / 64));
    CHECK(near(srv_sign_test(0, 6), 2.0 / 64));
    CHECK(near(srv_sign_test(8, 2), 2.0 * (1 + 10 + 45) / 1024));
    CHECK(near(srv_sign_test(2, 8), 0.109375));
    CHECK(near(srv_sign_test(17, 3), 2.0 * (1 + 20 + 190 + 1140) / 1048576));
    CHECK(srv_sign_test(5, 5) == 1 && srv_sign_test(4, 5) == 1 && srv_sign_test(100, 100) == 1);
    CHECK_MSG(fabs(srv_sign_test(60, 40) - 0.05688793364098) < 1e-12, "%.15g", srv_sign_test(60, 40));
    CHECK(srv_sign_test(1000, 0) > 0 && srv_sign_test(1000, 0) < 1e-299 && srv_sign_test(500, 500) == 1);
}

/* --- parameters --- */

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static bool read_text(const char *text, int64_t most, srv_compare_params *p, srv_problem *why) {
    json_t *o = json_loads(text, 0, NULL);
    bool ok = o && srv_compare_params_read(o, most, p, why);
    json_decref(o);
    return ok;
}

TEST(parameters_are_read) {
    srv_compare_params p;
    srv_problem why;
    CHECK(read_text("{\"type\":\"compare\",\"labels\":{},\"versions\":[\"derain/1\",\"other\"],\"pictures\":["
                    "{\"name\":\"a b.jpg\",\"blob\":\"" A "\",\"clean\":\"" B "\"},{\"blob\":\"" B
                    "\",\"name\":\"c\",\"clean\":null}]}",
                    2, &p, &why));
    CHECK(p.n_wishes == 2 && !strcmp(p.wish[0].name, "derain") && p.wish[0].version == 1);
    CHECK(!strcmp(p.wish[1].name, "other") && p.wish[1].version == 0);
    CHECK(p.n_pictures == 2 && !strcmp(p.pictures[0].name, "a b.jpg") && !strcmp(p.pictures[0].sha256, A));
    CHECK(!strcmp(p.pictures[0].clean, B) && !*p.pictures[1].clean && !*p.dataset);
    srv_compare_params_done(&p);
    CHECK(read_text("{\"dataset\":\"ds_1\",\"versions\":null}", 2, &p, &why));
    CHECK(!p.n_wishes && !p.pictures && !strcmp(p.dataset, "ds_1"));
    srv_compare_params_done(&p);
}

TEST(each_wrong_member_is_named) {
    static const struct {
        const char *text, *pointer, *code;
    } bad[] = {
        {"{}", "/pictures", "invalid_member"},
        {"{\"pictures\":[],\"dataset\":\"ds_1\"}", "/pictures", "invalid_member"},
        {"{\"pictures\":[]}", "/pictures", "invalid_member"},
        {"{\"pictures\":{}}", "/pictures", "invalid_member"},
        {"{\"pictures\":[7]}", "/pictures/0", "invalid_member"},
        {"{\"pictures\":[{\"name\":\"a\"}]}", "/pictures/0", "invalid_member"},
        {"{\"pictures\":[{\"name\":\"a\",\"blob\":\"x\"}]}", "/pictures/0/blob", "invalid_member"},
        {"{\"pictures\":[{\"name\":\"a/b\",\"blob\":\"" A "\"}]}", "/pictures/0/name", "invalid_member"},
        {"{\"pictures\":[{\"name\":\"\",\"blob\":\"" A "\"}]}", "/pictures/0/name", "invalid_member"},
        {"{\"pictures\":[{\"name\":\"a\",\"blob\":\"" A "\"},{\"name\":\"b\",\"blob\":\"" A "\",\"clean\":1}]}",
         "/pictures/1/clean", "invalid_member"},
        {"{\"pictures\":[{\"name\":\"a\",\"blob\":\"" A "\",\"blop\":1}]}", "/pictures/0/blop", "unknown_member"},
        {"{\"picture\":[]}", "/picture", "unknown_member"},
        {"{\"dataset\":7}", "/dataset", "invalid_member"},
        {"{\"dataset\":\"ds_1\",\"versions\":\"derain/1\"}", "/versions", "invalid_member"},
        {"{\"dataset\":\"ds_1\",\"versions\":[\"derain/1\"]}", "/versions", "invalid_member"},
        {"{\"dataset\":\"ds_1\",\"versions\":[\"derain/1\",\"derain/0\"]}", "/versions/1", "invalid_member"},
        {"{\"dataset\":\"ds_1\",\"versions\":[\"derain/1\",\"/2\"]}", "/versions/1", "invalid_member"},
        {"{\"dataset\":\"ds_1\",\"versions\":[1,\"derain\"]}", "/versions/0", "invalid_member"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        srv_compare_params p;
        srv_problem why = {0};
        CHECK_MSG(!read_text(bad[i].text, 9, &p, &why), "%s", bad[i].text);
        CHECK_MSG(!strcmp(why.pointer, bad[i].pointer) && !strcmp(why.row->code, bad[i].code), "%s: %s %s", bad[i].text,
                  why.pointer, why.row->code);
    }
}

TEST(limits_name_themselves) {
    srv_compare_params p;
    srv_problem why;
    CHECK(!read_text("{\"pictures\":[{\"name\":\"a\",\"blob\":\"" A "\"},{\"name\":\"b\",\"blob\":\"" A "\"}]}", 1, &p,
                     &why));
    CHECK(!strcmp(why.row->code, "compare_too_large") && why.row->status == 413 && why.has_limit && why.limit == 1 &&
          why.actual == 2 && !strcmp(why.setting, "compare_pictures_max"));
    CHECK(!read_text("{\"dataset\":\"d\",\"versions\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\"]}", 1, &p, &why));
    CHECK(!strcmp(why.row->code, "compare_too_large") && why.limit == 6 && why.actual == 7);
}

TEST(the_row_reads_back) {
    srv_model_id v[2] = {{.name = "derain", .version = 3}, {.name = "x", .version = 1}}, got[DR_COMPARE_MAX];
    memset(v[0].sha256, 'a', 64);
    memset(v[1].sha256, 'b', 64);
    json_t *o = srv_compare_row_json(v, 2, 17, "");
    char *text = o ? json_dumps(o, 0) : NULL;
    CHECK(text && srv_compare_row_read(text, got) == 2);
    CHECK(!memcmp(&got[0], &v[0], sizeof v[0]) && !memcmp(&got[1], &v[1], sizeof v[1]));
    CHECK(json_integer_value(json_object_get(o, "pictures")) == 17 && json_is_null(json_object_get(o, "dataset")));
    json_decref(o);
    free(text);
    static const char zero[] = "{\"versions\":[{\"name\":\"x\",\"version\":0,\"sha256\":\"" A "\"}]}";
    static const char *const bad[] = {"", "{}", "[]", "{\"versions\":7}", "{\"versions\":[]}", zero};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK_MSG(!srv_compare_row_read(bad[i], got), "%s", bad[i]);
}

TEST(a_data_set_gives_pairs_first_evenly_spread) {
    db_entry e[10];
    static char name[10][8];
    for (int i = 0; i < 10; i++) {
        e[i] = (db_entry){.part = i < 4 ? DB_RAINY : i < 5 ? DB_CLEAN : i < 8 ? DB_PAIRED_RAINY : DB_PAIRED_CLEAN};
        snprintf(name[i], sizeof name[i], "p%d", i < 5 ? i : i < 8 ? i - 5 : i - 8);
        e[i].name = name[i];
        memset(e[i].sha256, '0' + i, 64);
    }
    const db_entry_list set = {e, 10};
    db_picture *list;
    size_t n;
    CHECK(!srv_compare_from_set(&set, 60, &list, &n, NULL) && n == 7);
    CHECK(list[0].sha256[0] == '5' && list[0].clean[0] == '8' && list[1].clean[0] == '9');
    CHECK(!*list[2].clean && list[3].sha256[0] == '0' && !*list[3].clean && list[6].sha256[0] == '3'); /* no partner */
    dr_free(list);
    CHECK(!srv_compare_from_set(&set, 3, &list, &n, NULL) && n == 3);
    CHECK(list[0].sha256[0] == '5' && list[1].sha256[0] == '7' && list[2].sha256[0] == '1');
    dr_free(list);
    const db_entry_list clean = {e + 4, 1};
    CHECK(!srv_compare_from_set(&clean, 3, &list, &n, NULL) && n == 0);
    dr_free(list);
}

/* --- report --- */

static const srv_model_id two[] = {{"derain", 1, A}, {"derain", 2, B}};
static db_picture pic[20];

/* gain: PSNR of version 2 over version 1, rain goes the other way. */
static srv_compare_row row_of(int i, bool truth, double gain) {
    snprintf(pic[i].name, sizeof pic[i].name, "p%d.png", i);
    srv_compare_row r = {.picture = &pic[i], .row = {.width = 64, .height = 48, .n = 2, .has_truth = truth}};
    r.row.col[0] = (dr_compare_column){.rain = 60, .truth.psnr_y = truth ? 25 : 0};
    r.row.col[1] = (dr_compare_column){.rain = 55, .finite = true, .truth.psnr_y = truth ? 28 : 0};
    r.row.col[2] = (dr_compare_column){.rain = 55 - gain, .finite = true, .truth.psnr_y = truth ? 28 + gain : 0};
    r.row.spread = gain ? 1 : 0;
    return r;
}

static bool says(const srv_compare_rows *all, const char *what) {
    char *text = srv_compare_conclusion(all);
    bool ok = text && strstr(text, what);
    if (!ok) printf("# '%s' lacks '%s'\n", text ? text : "", what);
    dr_free(text);
    return ok;
}

static bool mute_says(const srv_compare_rows *all, const char *what) {
    char *text = srv_compare_conclusion(all);
    bool ok = text && strstr(text, what);
    dr_free(text);
    return ok;
}

TEST(equal_versions_are_all_ties) {
    srv_compare_row rows[8];
    for (int i = 0; i < 8; i++) rows[i] = row_of(i, true, 0);
    const srv_compare_rows all = {two, 2, rows, 8};
    const srv_compare_pair p = srv_compare_pair_of(&all, 2, 1);
    CHECK(p.wins == 0 && p.losses == 0 && p.ties == 8 && p.p == 1 && p.gain_psnr == 0 && p.gain_rain == 0);
    CHECK(says(&all, "derain/1 and derain/2 give the same pictures.") &&
          says(&all, "Both are better than doing nothing."));
}

TEST(a_better_version_wins_and_the_report_says_so) {
    srv_compare_row rows[12];
    for (int i = 0; i < 12; i++) rows[i] = row_of(i, true, i < 10 ? 0.5 : i == 10 ? -0.2 : 0.004);
    const srv_compare_rows all = {two, 2, rows, 12};
    const srv_compare_pair p = srv_compare_pair_of(&all, 2, 1), q = srv_compare_pair_of(&all, 1, 2);
    CHECK(p.wins == 10 && p.losses == 1 && p.ties == 1 && near(p.p, 2.0 * 12 / 2048)); /* 0.004 dB is a tie */
    CHECK(q.wins == 1 && q.losses == 10 && q.p == p.p && near(q.gain_psnr, -p.gain_psnr));
    CHECK(says(&all, "derain/2 is better than derain/1: on 10 of 12 pictures, worse on 1, equal on 1 (p = 0.012)"));
    json_t *o = srv_compare_report(&all, "job_x", "words");
    CHECK(o && json_array_size(json_object_get(o, "pairs")) == 3 && json_array_size(json_object_get(o, "means")) == 3);
    const json_t *pair = json_array_get(json_object_get(o, "pairs"), 2),
                 *mean = json_array_get(json_object_get(o, "means"), 1),
                 *picture = json_array_get(json_object_get(o, "pictures"), 0);
    CHECK(!strcmp(json_string_value(json_object_get(pair, "a")), "derain/2") &&
          !strcmp(json_string_value(json_object_get(pair, "b")), "derain/1") &&
          json_integer_value(json_object_get(pair, "wins")) == 10);
    CHECK(fabs(json_real_value(json_object_get(json_object_get(mean, "truth"), "psnr_y")) - 28) < 1e-9);
    CHECK(!strcmp(json_string_value(json_object_get(o, "measure")), "psnr_y"));
    CHECK(json_array_size(json_object_get(picture, "outputs")) == 2 &&
          json_is_null(json_object_get(picture, "problem")) && json_is_null(json_object_get(picture, "clean")));
    json_decref(o);
}

TEST(a_harmed_version_is_worse_than_nothing) {
    srv_compare_row rows[7];
    for (int i = 0; i < 7; i++) rows[i] = row_of(i, true, -9);
    const srv_compare_rows all = {two, 2, rows, 7};
    CHECK(says(&all, "derain/1 is better than derain/2: on 7 of 7") &&
          says(&all, "derain/2 is worse than doing nothing (on 7 of 7"));
}

TEST(without_clean_pictures_rain_decides_and_numbers_that_are_none_lose) {
    srv_compare_row rows[6];
    for (int i = 0; i < 6; i++) rows[i] = row_of(i, false, 3);
    const srv_compare_rows all = {two, 2, rows, 6};
    CHECK(srv_compare_pair_of(&all, 2, 1).wins == 6 && says(&all, "rests on the rain score"));
    for (int i = 0; i < 6; i++) rows[i].row.col[1].change.psnr_rgb = 30, rows[i].row.col[2].change.psnr_rgb = 15;
    CHECK(says(&all, "derain/2 changes the pictures very much (15.0 dB") && !mute_says(&all, "derain/1 changes"));
    for (int i = 0; i < 6; i++) rows[i].row.col[2].finite = false;
    CHECK(srv_compare_pair_of(&all, 2, 1).losses == 6 && srv_compare_pair_of(&all, 2, 0).losses == 6);
    rows[0].row.col[1].finite = false;
    CHECK(srv_compare_pair_of(&all, 2, 1).ties == 1);
    rows[5] = row_of(5, true, 1);
    CHECK(says(&all, "5 of the 6 pictures have no clean one"));
}

TEST(a_version_that_changes_nothing_is_told) {
    srv_compare_row rows[2] = {row_of(0, true, 1), row_of(1, true, 1)};
    const srv_compare_rows all = {two, 2, rows, 2};
    CHECK(says(&all, "derain/1 cannot be told from doing nothing"));
    for (int i = 0; i < 2; i++) rows[i].row.col[1].change.psnr_rgb = 100;
    CHECK(says(&all, "derain/1 leaves all pictures as they are."));
}

TEST(bad_pictures_are_rows_with_their_problem) {
    srv_compare_row rows[3];
    for (int i = 0; i < 3; i++) rows[i] = row_of(i, true, 1);
    rows[1].row = (dr_compare_row){0};
    rows[1].problem = json_pack("{s:s}", "code", "image_corrupt");
    srv_compare_rows all = {two, 2, rows, 3};
    size_t clean;
    CHECK(srv_compare_good(&all, &clean) == 2 && clean == 2 && srv_compare_pair_of(&all, 2, 1).wins == 2);
    CHECK(says(&all, "1 picture could not be compared") && says(&all, "fewer than six"));
    json_t *o = srv_compare_report(&all, "job_x", "words");
    const json_t *bad = json_array_get(json_object_get(o, "pictures"), 1);
    CHECK(o && json_integer_value(json_object_get(o, "failed")) == 1 && json_is_null(json_object_get(bad, "input")) &&
          !strcmp(json_string_value(json_object_get(json_object_get(bad, "problem"), "code")), "image_corrupt") &&
          json_array_size(json_object_get(bad, "outputs")) == 0);
    json_decref(o);
    all.rows = &rows[1];
    all.n = 1; /* none is left */
    o = srv_compare_report(&all, "job_x", "words");
    CHECK(o && json_is_null(json_object_get(json_array_get(json_object_get(o, "means"), 0), "rain")));
    CHECK(says(&all, "No picture could be compared"));
    json_decref(o);
    json_decref(rows[1].problem);
}
