/* pickle.h - the values of a Python pickle as PyTorch writes it around tensors, read by a machine that can do nothing
 * else.
 *
 * A pickle is a program for a stack machine whose opcodes can name any function of the reader's Python and call it.
 * This machine has no functions. It knows the few names that stand in a state dict (OrderedDict, the rebuilding of a
 * tensor, the storage types) and makes plain values of them; every other name, and every opcode that would make an
 * object, ends the reading with CORRUPT pickle_refused and a text that says the name. Values, stack and memory are
 * bounded; nothing is recursive. */
#ifndef DR_MODEL_PICKLE_H
#define DR_MODEL_PICKLE_H

#include "core/base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum dr_pk_kind {
    DR_PK_NONE,
    DR_PK_BOOL,    /* i */
    DR_PK_INT,     /* i; whole numbers of more than 64 bits keep `s`, `n` (their bytes) */
    DR_PK_FLOAT,   /* not looked at */
    DR_PK_STR,     /* s, n; not NUL-terminated */
    DR_PK_TUPLE,   /* first, n: dr_pickle_item */
    DR_PK_LIST,    /* first: links, key = the item */
    DR_PK_DICT,    /* first: links */
    DR_PK_GLOBAL,  /* i: one of DR_PK_G_* */
    DR_PK_STORAGE, /* i: number of elements; type; s, n: key */
    DR_PK_TENSOR   /* first: a tuple's items (storage, offset, size, stride ...) */
} dr_pk_kind;

enum {
    DR_PK_G_ODICT,
    DR_PK_G_TENSOR,    /* torch._utils._rebuild_tensor, _rebuild_tensor_v2 */
    DR_PK_G_PARAMETER, /* torch._utils._rebuild_parameter */
    DR_PK_G_F32,
    DR_PK_G_F16,
    DR_PK_G_BF16,
    DR_PK_G_F64,
    DR_PK_G_I64,
    DR_PK_G_I32,
    DR_PK_G_U8
};
int dr_pk_type_size(int global); /* bytes of an element of a storage type */

#define DR_PK_NIL UINT32_MAX

typedef struct dr_pk_value {
    dr_pk_kind kind;
    uint32_t first, last; /* index of an item or a link, DR_PK_NIL = none */
    int type;
    int64_t i;
    const uint8_t *s;
    size_t n;
} dr_pk_value;

typedef struct dr_pk_link {
    uint32_t key, value, next;
} dr_pk_link;

typedef struct dr_pickle dr_pickle;

/* Run one pickle at the start of data, which is borrowed until dr_pickle_close. *ret_used: its length. CORRUPT
 * bad_pickle, pickle_refused; NOMEM. */
DR_MUSTUSE dr_status dr_pickle_read(const void *data, size_t len, dr_pickle **ret, size_t *ret_used, dr_error *err);
void dr_pickle_close(dr_pickle *p);

const dr_pk_value *dr_pickle_root(const dr_pickle *p);
const dr_pk_value *dr_pickle_at(const dr_pickle *p, uint32_t value);
const dr_pk_value *dr_pickle_item(const dr_pickle *p, const dr_pk_value *tuple, size_t i); /* NULL beyond the end */
const dr_pk_link *dr_pickle_link(const dr_pickle *p, uint32_t link);                       /* NULL for DR_PK_NIL */
bool dr_pk_is_text(const dr_pk_value *v, const char *text);

#endif
