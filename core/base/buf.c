#include "core/base/buf.h"
#include "core/base/alloc.h"

#include <stdio.h>
#include <string.h>

void dr_buf_init(dr_buf *b, size_t max) {
    *b = (dr_buf){.max = max};
}

/* Make room for n more bytes and the NUL. */
static bool grow(dr_buf *b, size_t n) {
    if (b->status) return false;
    if (n > b->max || b->len > b->max - n) {
        b->status = DR_TOO_LARGE;
        return false;
    }
    size_t need = b->len + n + 1;
    if (need <= b->cap) return true;
    size_t cap = b->cap ? b->cap : 256;
    while (cap < need) cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    char *p = dr_realloc(b->data, cap);
    if (!p) {
        b->status = DR_NOMEM;
        return false;
    }
    b->data = p;
    b->cap = cap;
    return true;
}

void dr_buf_add(dr_buf *b, const void *data, size_t len) {
    if (!grow(b, len)) return;
    if (len) memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = 0;
}

void dr_buf_puts(dr_buf *b, const char *s) {
    dr_buf_add(b, s, strlen(s));
}

void dr_buf_printf(dr_buf *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !grow(b, (size_t)n)) return;
    va_start(ap, fmt);
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
}

void dr_buf_clear(dr_buf *b) {
    b->len = 0;
    b->status = DR_OK;
    if (b->data) b->data[0] = 0;
}

char *dr_buf_detach(dr_buf *b, size_t *ret_len) {
    if (b->status || !grow(b, 0)) {
        dr_buf_done(b);
        return NULL;
    }
    char *p = b->data;
    p[b->len] = 0;
    if (ret_len) *ret_len = b->len;
    *b = (dr_buf){.max = b->max};
    return p;
}

void dr_buf_done(dr_buf *b) {
    dr_free(b->data);
    *b = (dr_buf){.max = b->max};
}
