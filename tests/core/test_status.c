/* test_status.c - the first error wins, context goes in front, numbers of a limit stay. */
#include "core/base/status.h"
#include "tests/t.h"
#include <errno.h>

TEST(first_error_wins) {
    dr_error e = {0};
    CHECK(dr_fail_as(&e, DR_CORRUPT, "image_corrupt", "bad %d", 7) == DR_CORRUPT);
    CHECK(dr_fail(&e, DR_IO, "later") == DR_IO);
    CHECK(e.code == DR_CORRUPT && !strcmp(e.text, "bad 7") && !strcmp(e.what, "image_corrupt"));
    CHECK(dr_fail(NULL, DR_NOMEM, "nobody listens") == DR_NOMEM);
}

TEST(limits_keep_their_numbers) {
    dr_error e = {0};
    CHECK(dr_fail_limit(&e, "image_too_large", "side_max", 100, 200, "too wide") == DR_TOO_LARGE);
    CHECK(e.limit == 100 && e.actual == 200 && !strcmp(e.setting, "side_max"));
    CHECK(dr_wrap(&e, DR_TOO_LARGE, "job %s", "x") == DR_TOO_LARGE);
    CHECK(!strcmp(e.text, "job x: too wide") && e.limit == 100);
}

TEST(wrapping_keeps_the_cause_readable) {
    dr_error e = {0};
    char longer[400];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    dr_fail(&e, DR_IO, "cause");
    dr_wrap(&e, DR_IO, "%s", longer);
    CHECK(strstr(e.text, ": cause") && strlen(e.text) < sizeof e.text);
    dr_error silent = {0}; /* a callee without words */
    dr_wrap(&silent, DR_NOMEM, "plan");
    CHECK(silent.code == DR_NOMEM && !strcmp(silent.text, "plan: out of memory"));
}

TEST(errno_becomes_a_cause) {
    static const struct {
        int num;
        dr_status want;
    } rows[] = {
        {ENOSPC, DR_NOSPACE}, {EDQUOT, DR_NOSPACE}, {ENOENT, DR_NOT_FOUND}, {ENOMEM, DR_NOMEM}, {EACCES, DR_IO}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        dr_error e = {0};
        CHECK(dr_fail_errno(&e, rows[i].num, "open", "x.png") == rows[i].want);
        CHECK(strstr(e.text, "open 'x.png'"));
    }
    CHECK(!strcmp(dr_status_text(DR_OK), "ok") && !strcmp(dr_status_text((dr_status)99), "unknown status"));
}
