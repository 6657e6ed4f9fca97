/* test_conv_cache.c - the file of tuned plans: what is written is read back, everything else is refused. */
#include "tests/t.h"

#include "cuda/conv_cache.h"

#define LINE "v1\t91900\tNVIDIA H100 80GB HBM3\t90\t132\tdata\tbf16\t8\t256\t66\t66\t256\t3\t0\t62\t2:0,13:1,27:-1"

TEST(a_line_goes_there_and_back) {
    cv_cache_line l;
    char text[CV_CACHE_MAX_LINE];
    CHECK(cv_cache_parse_line(LINE, strlen(LINE), &l));
    CHECK(l.cudnn == 91900 && l.cc == 90 && l.sms == 132 && l.kind == 1 && l.type == 1 && l.n == 8 && l.i == 256);
    CHECK(l.h == 66 && l.w == 66 && l.o == 256 && l.k == 3 && l.pad == 0 && l.plan.engine == 62);
    CHECK(l.plan.n_knobs == 3 && l.plan.knob[2].type == 27 && l.plan.knob[2].value == -1);
    CHECK(!strcmp(l.device, "NVIDIA H100 80GB HBM3"));
    CHECK(cv_cache_format_line(&l, text, sizeof text) == sizeof LINE && !strcmp(text, LINE "\n"));
    l.type = 2;
    CHECK(cv_cache_format_line(&l, text, sizeof text) == sizeof LINE - 1 && strstr(text, "\tdata\tf16\t8\t"));
    CHECK(cv_cache_parse_line(text, strlen(text) - 1, &l) && l.type == 2);
    l.plan.n_knobs = 0;
    size_t n = cv_cache_format_line(&l, text, sizeof text);
    CHECK(n && text[n - 2] == '-' && cv_cache_parse_line(text, n - 1, &l) && l.plan.n_knobs == 0);
}

/* All knobs at their longest fit into a line. */
TEST(the_longest_line_fits) {
    cv_cache_line l;
    char text[CV_CACHE_MAX_LINE];
    CHECK(cv_cache_parse_line(LINE, strlen(LINE), &l));
    memset(l.device, 'x', sizeof l.device - 1);
    l.n = l.i = l.h = l.w = l.o = l.k = l.pad = INT32_MAX;
    l.plan.n_knobs = CV_MAX_KNOBS;
    for (int i = 0; i < CV_MAX_KNOBS; i++) l.plan.knob[i].type = 1000, l.plan.knob[i].value = INT32_MIN;
    CHECK(cv_cache_format_line(&l, text, sizeof text) > 0);
}

/* Every cut and every single changed byte gives the same line again or none. */
TEST(cuts_and_changes) {
    const size_t len = strlen(LINE);
    char text[sizeof LINE], back[CV_CACHE_MAX_LINE];
    cv_cache_line l;
    int n_taken = 0;
    for (size_t at = 0; at <= len; at++)
        if (cv_cache_parse_line(LINE, at, &l))
            CHECK_MSG(cv_cache_format_line(&l, back, sizeof back) == at + 1 && !memcmp(back, LINE, at), "cut at %zu",
                      at);
    for (size_t at = 0; at < len; at++)
        for (int v = 0; v < 256; v++) {
            memcpy(text, LINE, sizeof text);
            text[at] = (char)v;
            if (!cv_cache_parse_line(text, len, &l)) continue;
            n_taken++;
            CHECK_MSG(cv_cache_format_line(&l, back, sizeof back) == len + 1 && !memcmp(back, text, len),
                      "byte %zu as %d", at, v);
        }
    CHECK(n_taken > (int)len);
}

TEST(refused) {
    static const char *const bad[] = {
        "",
        "v1",
        "v2\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t0\t1\t-",   /* another version */
        "v1\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t0\t1",      /* a field short */
        "v1\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t0\t1\t-\t", /* one too many */
        "v1\t1\t\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t0\t1\t-",    /* no name */
        "v1\t1\tx\t90\t1\tdate\tf32\t1\t8\t1\t1\t8\t1\t0\t1\t-",   /* unknown words */
        "v1\t1\tx\t90\t1\tdata\tf64\t1\t8\t1\t1\t8\t1\t0\t1\t-",
        "v1\t1\tx\t90\t1\tdata\tf32\t0\t8\t1\t1\t8\t1\t0\t1\t-",  /* no pictures */
        "v1\t1\tx\t90\t1\tdata\tf32\t+1\t8\t1\t1\t8\t1\t0\t1\t-", /* other spellings */
        "v1\t1\tx\t90\t1\tdata\tf32\t01\t8\t1\t1\t8\t1\t0\t1\t-",
        "v1\t1\tx\t90\t1\tdata\tf32\t 1\t8\t1\t1\t8\t1\t0\t1\t-",
        "v1\t1\tx\t90\t1\tdata\tf32\t99999999999999999999\t8\t1\t1\t8\t1\t0\t1\t-",
        "v1\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t-0\t1\t-",
        "v1\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t0\t1\t1:",
        "v1\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t0\t1\t1:2,",
        "v1\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t0\t1\t:2",
        "v1\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t0\t1\t",
    };
    cv_cache_line l;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_MSG(!cv_cache_parse_line(bad[i], strlen(bad[i]), &l), "'%s'", bad[i]);
    char many[CV_CACHE_MAX_LINE] = "v1\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t0\t1\t1:1";
    size_t end = strlen(many);
    for (int i = 1; i < CV_MAX_KNOBS; i++) end += (size_t)snprintf(many + end, sizeof many - end, ",1:1");
    CHECK(cv_cache_parse_line(many, strlen(many), &l) && l.plan.n_knobs == CV_MAX_KNOBS);
    snprintf(many + end, sizeof many - end, ",1:1");
    CHECK(!cv_cache_parse_line(many, strlen(many), &l));
    char out[CV_CACHE_MAX_LINE];
    CHECK(cv_cache_parse_line(LINE, strlen(LINE), &l));
    l.device[3] = '\t'; /* would part the line at the wrong place */
    CHECK(!cv_cache_format_line(&l, out, sizeof out));
    l.device[3] = 'x';
    CHECK(!cv_cache_format_line(&l, out, 40));
}
