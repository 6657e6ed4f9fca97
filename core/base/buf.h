/* buf.h - growing byte buffer with a maximum that is set when it is made, and a sticky error.
 *
 * After the first failure (no memory, over the maximum) every call does nothing; look at `status` once at the end. */
#ifndef DR_BASE_BUF_H
#define DR_BASE_BUF_H

#include "core/base/status.h"
#include <stdbool.h>
#include <stddef.h>

typedef struct dr_buf {
    char *data; /* always NUL-terminated behind len once something was added */
    size_t len, cap, max;
    dr_status status; /* OK, TOO_LARGE or NOMEM */
} dr_buf;

void dr_buf_init(dr_buf *b, size_t max);
void dr_buf_add(dr_buf *b, const void *data, size_t len);
void dr_buf_puts(dr_buf *b, const char *s);
void dr_buf_printf(dr_buf *b, const char *fmt, ...) DR_PRINTF(2, 3);
void dr_buf_clear(dr_buf *b);                    /* empty, memory and maximum kept, error forgotten */
char *dr_buf_detach(dr_buf *b, size_t *ret_len); /* the caller frees with dr_free; NULL after an error */
void dr_buf_done(dr_buf *b);

#endif
