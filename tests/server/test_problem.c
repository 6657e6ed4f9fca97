/* test_problem.c - the error table and the RFC 9457 object. */
#include "core/base/alloc.h"
#include "server/problem.h"
#include "tests/t.h"

TEST(the_table_holds_only_the_documented_status_codes) {
    static const int allowed[] = {400, 401, 403, 404, 405, 406, 408, 409, 410, 411, 412,
                                  413, 415, 416, 422, 428, 429, 500, 503, 504, 507};
    for (size_t i = 0; i < srv_n_problem_rows; i++) {
        const srv_problem_row *r = &srv_problem_rows[i];
        bool known = false;
        for (size_t j = 0; j < sizeof allowed / sizeof *allowed; j++) known = known || allowed[j] == r->status;
        CHECK_MSG(known, "%s %d", r->code, r->status);
        for (size_t j = i + 1; j < srv_n_problem_rows; j++) CHECK(strcmp(r->code, srv_problem_rows[j].code) != 0);
    }
}

TEST(codes_are_found_in_both_spellings) {
    CHECK(srv_problem_find("image_too_large") &&
          srv_problem_find("image-too-large") == srv_problem_find("image_too_large"));
    CHECK(!srv_problem_find("image") && !srv_problem_find("") && !srv_problem_find(NULL) &&
          !srv_problem_find("image_too_largest"));
}

TEST(every_member_is_there_and_absent_ones_are_null) {
    static const char *const members[] = {"type",      "title", "status", "detail",  "instance", "code", "request_id",
                                          "retryable", "limit", "actual", "setting", "errors",   "job"};
    srv_problem p;
    srv_problem_make(&p, "queue_full", "%d jobs", 5);
    json_t *o = srv_problem_json(&p, "r1");
    CHECK(o);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        CHECK_MSG(json_object_get(o, members[i]), "%s", members[i]);
    CHECK(!strcmp(json_string_value(json_object_get(o, "type")), "/errors/queue-full"));
    CHECK(!strcmp(json_string_value(json_object_get(o, "instance")), "/requests/r1"));
    CHECK(json_integer_value(json_object_get(o, "status")) == 429 && json_is_true(json_object_get(o, "retryable")));
    CHECK(json_is_null(json_object_get(o, "limit")) && json_is_null(json_object_get(o, "job")));
    json_decref(o);
}

TEST(a_limit_comes_with_its_numbers_and_its_setting) {
    srv_problem p;
    dr_error err = {0};
    dr_status s = dr_fail_limit(&err, "image_too_large", "side_max", 10, 20, "too wide");
    srv_problem_from(&p, s, &err);
    CHECK(p.row->status == 413 && p.has_limit && p.limit == 10 && p.actual == 20 && !strcmp(p.setting, "side_max"));
    CHECK(!strcmp(p.detail, "too wide"));
}

TEST(inner_errors_show_no_inner_text) {
    srv_problem p;
    dr_error err = {0};
    dr_status s = dr_fail(&err, DR_IO, "/secret/path: SELECT failed");
    srv_problem_from(&p, s, &err);
    CHECK(p.row->status == 500 && !strstr(p.detail, "secret"));
    json_t *o = srv_problem_json(&p, "r2");
    CHECK(!strcmp(json_string_value(json_object_get(o, "incident")), "r2"));
    json_decref(o);
    err = (dr_error){0};
    srv_problem_from(&p, dr_fail_errno(&err, 28, "write", "/secret/spool"), &err);
    CHECK(p.row->status == 507 && !strstr(p.detail, "secret"));
}

TEST(every_status_has_an_answer) {
    for (int s = DR_INVALID; s <= DR_INTERNAL; s++) {
        srv_problem p;
        srv_problem_from(&p, (dr_status)s, NULL);
        CHECK(p.row && p.row->status >= 400 && *p.detail);
    }
}

TEST(text_that_is_no_utf8_does_not_break_the_object) {
    srv_problem p;
    srv_problem_make(&p, "unknown_parameter", "unknown parameter '\xff\xfe'");
    srv_problem_point(&p, "/query/x");
    char *text = srv_problem_text(&p, NULL);
    CHECK(text && strstr(text, "unknown_parameter"));
    dr_free(text);
}

TEST(stored_problems_are_made_complete) {
    json_t *o =
        srv_problem_stored("{\"status\":500,\"code\":\"crashed_repeatedly\",\"detail\":\"again and again\"}", "job_1");
    CHECK(o && json_object_get(o, "limit") && json_object_get(o, "errors") && json_object_get(o, "title"));
    CHECK(!strcmp(json_string_value(json_object_get(o, "detail")), "again and again"));
    CHECK(!strcmp(json_string_value(json_object_get(o, "job")), "job_1"));
    json_decref(o);
    static const char *const bad[] = {NULL, "", "[1]", "{}", "{\"status\":200}", "{\"status\":\"x\",\"code\":5}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        o = srv_problem_stored(bad[i], "job_1");
        CHECK(o && json_integer_value(json_object_get(o, "status")) == 500);
        json_decref(o);
    }
}
