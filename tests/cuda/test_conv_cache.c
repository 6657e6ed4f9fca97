/* test_conv_cache.c - the file of tuned plans: a line that is written is read back and everything else is refused; and
 * the file as a whole, whatever lies under its name. */
#include "tests/t.h"

#include "core/base/status.h"
#include "cuda/conv_file.h"

#include <sys/stat.h>
#include <unistd.h>

#define LINE "v2\t91900\tNVIDIA H100 80GB HBM3\t90\t132\tdata\tbf16\t8\t256\t66\t66\t256\t3\t3\t0\t62\t2:0,13:1,27:-1"

TEST(a_line_goes_there_and_back) {
    cv_cache_line l;
    char text[CV_CACHE_MAX_LINE];
    CHECK(cv_cache_parse_line(LINE, strlen(LINE), &l));
    CHECK(l.cudnn == 91900 && l.cc == 90 && l.sms == 132 && l.kind == 1 && l.type == 1 && l.n == 8 && l.i == 256);
    CHECK(l.h == 66 && l.w == 66 && l.o == 256 && l.k == 3 && l.kw == 3 && l.pad == 0 && l.plan.engine == 62);
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
    l.n = l.i = l.h = l.w = l.o = l.k = l.kw = l.pad = INT32_MAX;
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
        "v2",
        "v1\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t0\t1\t-", /* other versions */
        "v1\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t1\t0\t1\t-",
        "v3\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t1\t0\t1\t-",
        "v2\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t1\t0\t1",      /* a field short */
        "v2\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t1\t0\t1\t-\t", /* one too many */
        "v2\t1\t\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t1\t0\t1\t-",    /* no name */
        "v2\t1\tx\t90\t1\tdate\tf32\t1\t8\t1\t1\t8\t1\t1\t0\t1\t-",   /* unknown words */
        "v2\t1\tx\t90\t1\tdata\tf64\t1\t8\t1\t1\t8\t1\t1\t0\t1\t-",
        "v2\t1\tx\t90\t1\tdata\tf32\t0\t8\t1\t1\t8\t1\t1\t0\t1\t-",  /* no pictures */
        "v2\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t0\t0\t1\t-",  /* no width */
        "v2\t1\tx\t90\t1\tdata\tf32\t+1\t8\t1\t1\t8\t1\t1\t0\t1\t-", /* other spellings */
        "v2\t1\tx\t90\t1\tdata\tf32\t01\t8\t1\t1\t8\t1\t1\t0\t1\t-",
        "v2\t1\tx\t90\t1\tdata\tf32\t 1\t8\t1\t1\t8\t1\t1\t0\t1\t-",
        "v2\t1\tx\t90\t1\tdata\tf32\t99999999999999999999\t8\t1\t1\t8\t1\t1\t0\t1\t-",
        "v2\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t1\t-0\t1\t-",
        "v2\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t1\t0\t1\t1:",
        "v2\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t1\t0\t1\t1:2,",
        "v2\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t1\t0\t1\t:2",
        "v2\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t1\t0\t1\t",
        "v2\t1\tx\t90\t1\tcolumns\tf32\t1\t8\t1\t1\t8\t1\t1\t0\t2\t-", /* neither yes nor no */
        "v2\t1\tx\t90\t1\tcolumns\tf32\t1\t8\t1\t1\t8\t1\t1\t0\t1\t1:2",
    };
    cv_cache_line l;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_MSG(!cv_cache_parse_line(bad[i], strlen(bad[i]), &l), "'%s'", bad[i]);
    char many[CV_CACHE_MAX_LINE] = "v2\t1\tx\t90\t1\tdata\tf32\t1\t8\t1\t1\t8\t1\t1\t0\t1\t1:1";
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

/* ---- the file -----------------------------------------------------------------------------------------------------
 */

static char path[64], said[2000];
static dr_error err;

static void debug(const char *text) {
    snprintf(said, sizeof said, "%s", text);
}
static const dr_host_api host = {.log_debug = debug, .fail = dr_fail};

static dr_status open_as(cv_file *f, const char *device) {
    *f = (cv_file){.host = &host, .cc = 90, .sms = 132, .cudnn = 91900};
    snprintf(f->device, sizeof f->device, "%s", device);
    snprintf(path, sizeof path, "/tmp/test_conv_cache_%ld", (long)getpid());
    err = (dr_error){0};
    *said = 0;
    return cv_file_open(f, path, &err);
}

static void put_bytes(const char *text, size_t len) {
    FILE *f = fopen(path, "wb");
    if (f) {
        fwrite(text, 1, len, f);
        fclose(f);
    }
}

static size_t get_bytes(char *ret, size_t cap) {
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(ret, 1, cap - 1, f) : 0;
    if (f) fclose(f);
    ret[n] = 0;
    return n;
}

static const cv_shape square = {8, 256, 66, 66, 256, 3, 0, DK_BF16, 0}, flat = {1, 64, 70, 70, 24, 1, 0, DK_BF16, 7},
                      high = {1, 24, 70, 64, 64, 7, 0, DK_BF16, 1};

TEST(plans_survive_a_restart) {
    cv_file f;
    unlink(path);
    CHECK(!open_as(&f, "one") && !f.n && !*said);
    unlink(path);
    const cv_plan_id a = {.engine = 62, .n_knobs = 1, .knob = {{2, -1}}}, b = {.engine = 45}, yes = {.engine = 1};
    CHECK(!cv_file_save(&f, &err) && access(path, F_OK)); /* no news: no file */
    CHECK(!cv_file_put(&f, CV_FORWARD, square, &b, &err) && !cv_file_put(&f, CV_FORWARD, square, &a, &err));
    CHECK(!cv_file_put(&f, CV_FORWARD, flat, &b, &err) && !cv_file_put(&f, CV_CACHE_COLUMNS, square, &yes, &err));
    CHECK_MSG(!cv_file_save(&f, &err), "%s", err.text);
    cv_file_done(&f);
    struct stat st;
    CHECK(!stat(path, &st) && (st.st_mode & 0777) == 0644);
    CHECK(!open_as(&f, "one") && f.n == 3);
    const cv_plan_id *l = cv_file_find(&f, CV_FORWARD, square);
    CHECK(l && l->engine == 62 && l->n_knobs == 1 && l->knob[0].type == 2 && l->knob[0].value == -1);
    l = cv_file_find(&f, CV_FORWARD, flat);
    CHECK(l && l->engine == 45 && !l->n_knobs);
    l = cv_file_find(&f, CV_CACHE_COLUMNS, square);
    CHECK(l && l->engine == 1);
    /* the width counts, and every other number, and the device, and the library */
    CHECK(!cv_file_find(&f, CV_FORWARD, high) && !cv_file_find(&f, CV_BACKWARD_DATA, square));
    cv_shape other = flat;
    other.kw = 5;
    CHECK(!cv_file_find(&f, CV_FORWARD, other));
    other = square;
    other.type = DK_F32;
    CHECK(!cv_file_find(&f, CV_FORWARD, other));
    /* a plan that was read and is found anew is written in place of the old one */
    CHECK(!cv_file_put(&f, CV_FORWARD, square, &b, &err) && cv_file_find(&f, CV_FORWARD, square)->engine == 45);
    CHECK(!cv_file_save(&f, &err));
    cv_file_done(&f);
    CHECK(!open_as(&f, "one") && f.n == 3 && cv_file_find(&f, CV_FORWARD, square)->engine == 45);
    cv_file_done(&f);
    CHECK(!open_as(&f, "two") && !f.n);
    cv_file_done(&f);
    unlink(path);
}

/* Two programs that tuned at the same time, and machines that share a file. */
TEST(saving_keeps_what_others_wrote) {
    cv_file a, b;
    unlink(path);
    const cv_plan_id x = {.engine = 1}, y = {.engine = 2};
    CHECK(!open_as(&a, "one") && !open_as(&b, "two"));
    unlink(path);
    CHECK(!cv_file_put(&a, CV_FORWARD, square, &x, &err) && !cv_file_put(&a, CV_FORWARD, flat, &x, &err));
    CHECK(!cv_file_put(&b, CV_FORWARD, square, &y, &err));
    CHECK(!cv_file_save(&a, &err) && !cv_file_save(&b, &err));
    cv_file_done(&a), cv_file_done(&b);
    CHECK(!open_as(&a, "one") && a.n == 2 && cv_file_find(&a, CV_FORWARD, square)->engine == 1);
    CHECK(!open_as(&b, "two") && b.n == 1 && cv_file_find(&b, CV_FORWARD, square)->engine == 2);
    cv_file_done(&a), cv_file_done(&b);
    unlink(path);
}

TEST(damaged_files_are_as_none) {
    cv_file f;
    CHECK(!open_as(&f, "NVIDIA H100 80GB HBM3"));
    cv_file_done(&f);
    static const char mixed[] = "\n\0\n" LINE "\nnonsense\n" LINE "\t\n" LINE; /* the last one is cut off */
    put_bytes(mixed, sizeof mixed - 1);
    CHECK(!open_as(&f, "NVIDIA H100 80GB HBM3") && f.n == 1 && strstr(said, "5 lines ignored"));
    /* what was not understood goes with the next save; what was stays */
    CHECK(!cv_file_put(&f, CV_FORWARD, flat, &(cv_plan_id){.engine = 3}, &err) && !cv_file_save(&f, &err));
    cv_file_done(&f);
    char text[4000];
    CHECK(get_bytes(text, sizeof text) > 0 && strstr(text, LINE "\n") && !strstr(text, "nonsense"));
    /* too large: not a byte of it is used */
    char *big = malloc(CV_CACHE_MAX_BYTES + 2);
    size_t n = 0;
    while (n + sizeof LINE < CV_CACHE_MAX_BYTES + 2) {
        memcpy(big + n, LINE "\n", sizeof LINE);
        n += sizeof LINE;
    }
    memset(big + n, '\n', CV_CACHE_MAX_BYTES + 2 - n);
    put_bytes(big, CV_CACHE_MAX_BYTES + 1);
    CHECK(!open_as(&f, "NVIDIA H100 80GB HBM3") && !f.n && strstr(said, "not read"));
    cv_file_done(&f);
    put_bytes(big, CV_CACHE_MAX_BYTES);
    free(big);
    CHECK(!open_as(&f, "NVIDIA H100 80GB HBM3") && f.n > 8000);
    /* a full one still takes new lines, and can be read again */
    CHECK(!cv_file_put(&f, CV_FORWARD, flat, &(cv_plan_id){.engine = 3}, &err) && !cv_file_save(&f, &err));
    cv_file_done(&f);
    CHECK(!open_as(&f, "NVIDIA H100 80GB HBM3") && cv_file_find(&f, CV_FORWARD, flat));
    cv_file_done(&f);
    unlink(path);
    /* no file at all */
    CHECK(!mkdir(path, 0700) && !open_as(&f, "x") && !f.n && strstr(said, "not a plain file"));
    CHECK(!cv_file_put(&f, CV_FORWARD, flat, &(cv_plan_id){.engine = 3}, &err));
    CHECK(cv_file_save(&f, &err) == DR_IO && strstr(err.text, path));
    cv_file_done(&f);
    rmdir(path);
    CHECK(!mkfifo(path, 0600) && !open_as(&f, "x") && !f.n && strstr(said, "not a plain file")); /* nor does it hang */
    cv_file_done(&f);
    unlink(path);
}

TEST(a_folder_that_is_not_there_is_an_error_of_saving) {
    cv_file f = {.host = &host, .cc = 90, .sms = 1, .cudnn = 1, .device = "x"};
    err = (dr_error){0};
    CHECK(!cv_file_open(&f, "/tmp/no/such/folder/plans", &err));
    CHECK(!cv_file_put(&f, CV_FORWARD, flat, &(cv_plan_id){.engine = 3}, &err));
    CHECK(cv_file_save(&f, &err) == DR_IO && strstr(err.text, "/tmp/no/such/folder/plans"));
    cv_file_done(&f);
}
