/* test_multipart.c - forms in one piece, byte by byte and cut everywhere; broken ones; the sink's error comes through.
 */
#include "tests/t.h"
#include "core/base/buf.h"
#include "server/multipart.h"

static dr_status sink(void *arg, const void *data, size_t len, dr_error *err) {
    dr_buf *b = arg;
    (void)err;
    dr_buf_add(b, data, len);
    return b->status;
}

/* Feed in pieces of `step` bytes. The field's bytes end up in out. */
static dr_status read_form(const char *boundary, const char *form, size_t len, size_t step, dr_buf *out,
                           dr_error *err) {
    srv_multipart m;
    *err = (dr_error){0};
    dr_buf_clear(out);
    dr_status s = srv_multipart_init(&m, boundary, sink, out, err);
    for (size_t i = 0; i < len && !s; i += step)
        s = srv_multipart_feed(&m, form + i, len - i < step ? len - i : step, err);
    return s ? s : srv_multipart_end(&m, err);
}

#define HEAD "Content-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n"

TEST(bytes_come_through_however_they_are_cut) {
    /* bodies that hold beginnings of the delimiter, and the delimiter's own letters */
    static const char *const bodies[] = {
        "abc", "", "\r\n", "\r\n--", "\r\n--B", "\r\n--Bx\r\n--", "\r\r\n-\r\n--\r\n--Boun", "--BOUND", "\r\n--BOUN\r"};
    dr_buf out;
    dr_error err;
    dr_buf_init(&out, 1 << 16);
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        char form[1024];
        int n = snprintf(form, sizeof form, "--BOUND\r\n" HEAD "%s\r\n--BOUND--\r\n", bodies[i]);
        for (size_t step = 1; step <= (size_t)n; step++) {
            dr_status s = read_form("BOUND", form, (size_t)n, step, &out, &err);
            CHECK_MSG(!s, "body %zu step %zu: %s", i, step, err.text);
            CHECK(out.len == strlen(bodies[i]) && !memcmp(out.data ? out.data : "", bodies[i], out.len));
        }
    }
    dr_buf_done(&out);
}

TEST(preamble_epilogue_and_binary_bytes) {
    char form[600] = "preamble\r\n--B\r\n" HEAD, body[256];
    size_t n = strlen(form);
    dr_buf out;
    dr_error err;
    for (int i = 0; i < 256; i++) body[i] = (char)i;
    memcpy(form + n, body, 256);
    n += 256;
    memcpy(form + n, "\r\n--B--\r\nepilogue --B", 22);
    n += 22;
    dr_buf_init(&out, 1 << 16);
    for (size_t step = 1; step < 40; step++) {
        CHECK(!read_form("B", form, n, step, &out, &err));
        CHECK(out.len == 256 && !memcmp(out.data, body, 256));
    }
    dr_buf_done(&out);
}

TEST(broken_forms_are_refused) {
    static const struct {
        const char *form, *code;
    } c[] = {
        {"", "bad_multipart"},
        {"nothing here", "bad_multipart"},
        {"--B--\r\n", "bad_multipart"},
        {"--B\r\n" HEAD "x", "bad_multipart"},
        {"--B\r\n" HEAD "x\r\n--B\r\n", "bad_multipart"},
        {"--Bx\r\n" HEAD "x\r\n--B--", "bad_multipart"},
        {"--B\r\nContent-Type: image/png\r\n\r\nx\r\n--B--", "bad_multipart"},
        {"--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--", "bad_multipart"},
        {"--B\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nx\r\n--B--", "unknown_field"},
        {"--B\r\n" HEAD "x\r\n--B\r\n" HEAD "y\r\n--B--", "bad_multipart"},
        {"--B\r\nContent-Disposition: form-data; name=image\r\nContent-Disposition: form-data; "
         "name=image\r\n\r\nx\r\n--B--",
         "bad_multipart"},
        {"--B\r\nContent-Transfer-Encoding: base64\r\n" HEAD "x\r\n--B--", "bad_multipart"},
    };
    dr_buf out;
    dr_error err;
    dr_buf_init(&out, 1 << 16);
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        for (size_t step = 1; step < 90; step += 11) {
            CHECK_MSG(read_form("B", c[i].form, strlen(c[i].form), step, &out, &err) == DR_INVALID, "case %zu", i);
            CHECK_MSG(!strcmp(err.what, c[i].code), "case %zu: %s", i, err.what);
        }
    CHECK(read_form("", "x", 1, 1, &out, &err) == DR_INVALID);
    CHECK(read_form("a\nb", "x", 1, 1, &out, &err) == DR_INVALID);
    dr_buf_done(&out);
}

TEST(quoted_names_with_semicolons_and_escapes) {
    static const char form[] =
        "--B\r\ncontent-disposition: form-data; filename=\"a;name=\\\"x.png\"; name=\"image\"\r\n\r\nx\r\n--B--";
    dr_buf out;
    dr_error err;
    dr_buf_init(&out, 1 << 16);
    dr_status s = read_form("B", form, strlen(form), 7, &out, &err);
    CHECK_MSG(!s, "%s", err.text);
    CHECK(out.len == 1);
    dr_buf_done(&out);
}

TEST(a_header_without_end_is_limited) {
    dr_buf out;
    dr_error err;
    static char form[40000];
    memset(form, 'a', sizeof form);
    memcpy(form, "--B\r\n", 5);
    dr_buf_init(&out, 1 << 16);
    CHECK(read_form("B", form, sizeof form, 100, &out, &err) == DR_INVALID && !strcmp(err.what, "bad_multipart"));
    for (size_t i = 5; i < sizeof form; i += 2) form[i] = '\n', form[i - 1] = 'x';
    CHECK(read_form("B", form, sizeof form, 100, &out, &err) == DR_INVALID);
    dr_buf_done(&out);
}

TEST(an_error_of_the_sink_ends_it) {
    static const char form[] = "--B\r\n" HEAD "0123456789\r\n--B--";
    dr_buf out;
    dr_error err;
    dr_buf_init(&out, 4);
    CHECK(read_form("B", form, strlen(form), 3, &out, &err) == DR_TOO_LARGE);
    dr_buf_done(&out);
}
