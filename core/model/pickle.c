/* pickle.c - the machine: values in one pool, tuple items and dict links in two more, indices everywhere. Each opcode
 * makes at most one value, so the input's length bounds everything; the pools have limits of their own besides. */
#include "core/model/pickle.h"
#include "core/base/alloc.h"
#include <stdio.h>
#include <string.h>

enum { POOL_MAX = 1 << 20, NAME_SHOWN = 60 };

#define BAD(...)    dr_fail_as(p->err, DR_CORRUPT, "bad_pickle", __VA_ARGS__)
#define REFUSE(...) dr_fail_as(p->err, DR_CORRUPT, "pickle_refused", __VA_ARGS__)

typedef struct pool {
    void *p;
    uint32_t n, cap;
} pool;

struct dr_pickle {
    const uint8_t *at, *end;
    pool values, items, links, stack, marks, memo;
    uint32_t root, n_memoized;
    dr_error *err;
};

/* --- pools --- */

static bool pool_room(pool *o, size_t size, uint32_t n) {
    if (n > POOL_MAX) return false;
    if (n <= o->cap) return true;
    uint32_t cap = o->cap ? o->cap : 64;
    while (cap < n) cap *= 2;
    void *grown = dr_realloc(o->p, cap * size);
    if (!grown) return false;
    o->p = grown;
    o->cap = cap;
    return true;
}

static dr_status too_much(dr_pickle *p) {
    return dr_fail_as(p->err, DR_CORRUPT, "bad_pickle", "the pickle is too large for a file of weights");
}

static dr_pk_value *value_at(const dr_pickle *p, uint32_t v) {
    return (dr_pk_value *)p->values.p + v;
}
static uint32_t *u32_at(const pool *o, uint32_t i) {
    return (uint32_t *)o->p + i;
}
static dr_pk_link *link_at(const dr_pickle *p, uint32_t i) {
    return (dr_pk_link *)p->links.p + i;
}

static dr_status u32_add(dr_pickle *p, pool *o, uint32_t v) {
    if (!pool_room(o, sizeof v, o->n + 1)) return too_much(p);
    *u32_at(o, o->n++) = v;
    return DR_OK;
}

static dr_status push(dr_pickle *p, dr_pk_value v) {
    if (!pool_room(&p->values, sizeof v, p->values.n + 1)) return too_much(p);
    *value_at(p, p->values.n) = v;
    return u32_add(p, &p->stack, p->values.n++);
}

/* The stack above the last mark. */
static uint32_t base(const dr_pickle *p) {
    return p->marks.n ? *u32_at(&p->marks, p->marks.n - 1) : 0;
}

static dr_status pop(dr_pickle *p, uint32_t *ret) {
    if (p->stack.n <= base(p)) return BAD("the pickle takes more from its stack than there is");
    *ret = *u32_at(&p->stack, --p->stack.n);
    return DR_OK;
}

static dr_status top(dr_pickle *p, dr_pk_value **ret) {
    if (p->stack.n <= base(p)) return BAD("the pickle takes more from its stack than there is");
    *ret = value_at(p, *u32_at(&p->stack, p->stack.n - 1));
    return DR_OK;
}

/* --- reading --- */

static dr_status take(dr_pickle *p, size_t n, const uint8_t **ret) {
    if ((size_t)(p->end - p->at) < n) return BAD("the pickle is cut off");
    *ret = p->at;
    p->at += n;
    return DR_OK;
}

static dr_status take_le(dr_pickle *p, int n, uint64_t *ret) {
    const uint8_t *b = NULL;
    dr_status s = take(p, (size_t)n, &b);
    if (s) return s;
    *ret = 0;
    for (int i = n - 1; i >= 0; i--) *ret = *ret << 8 | b[i];
    return DR_OK;
}

static dr_status take_line(dr_pickle *p, const uint8_t **ret, size_t *ret_n) {
    const uint8_t *nl = memchr(p->at, '\n', (size_t)(p->end - p->at));
    if (!nl) return BAD("the pickle is cut off");
    *ret = p->at;
    *ret_n = (size_t)(nl - p->at);
    p->at = nl + 1;
    return DR_OK;
}

static dr_status text(dr_pickle *p, int len_bytes) {
    uint64_t n = 0;
    const uint8_t *b = NULL;
    dr_status s = take_le(p, len_bytes, &n);
    if (!s) s = take(p, (size_t)n, &b);
    return s ? s : push(p, (dr_pk_value){.kind = DR_PK_STR, .s = b, .n = (size_t)n});
}

static dr_status whole(dr_pickle *p, int bytes, bool is_signed) {
    uint64_t v = 0;
    dr_status s = take_le(p, bytes, &v);
    if (s) return s;
    if (is_signed && bytes < 8 && v >> (8 * bytes - 1)) v |= ~(uint64_t)0 << (8 * bytes);
    return push(p, (dr_pk_value){.kind = DR_PK_INT, .i = (int64_t)v});
}

static dr_status long1(dr_pickle *p) {
    uint64_t n = 0;
    const uint8_t *b = NULL;
    dr_status s = take_le(p, 1, &n);
    if (!s) s = take(p, (size_t)n, &b);
    if (s) return s;
    uint64_t v = n && n < 8 && b[n - 1] >> 7 ? ~(uint64_t)0 << (8 * n) : 0;
    for (size_t i = 0; i < n && i < 8; i++) v |= (uint64_t)b[i] << (8 * i);
    dr_pk_value x = {.kind = DR_PK_INT, .i = (int64_t)v};
    if (n > 8) x.s = b, x.n = (size_t)n;
    return push(p, x);
}

/* --- names --- */

static const struct {
    const char *module, *name;
    int global, size;
} known[] = {
    {"collections", "OrderedDict", DR_PK_G_ODICT, 0},
    {"torch._utils", "_rebuild_tensor_v2", DR_PK_G_TENSOR, 0},
    {"torch._utils", "_rebuild_tensor", DR_PK_G_TENSOR, 0},
    {"torch._utils", "_rebuild_parameter", DR_PK_G_PARAMETER, 0},
    {"torch", "FloatStorage", DR_PK_G_F32, 4},
    {"torch", "HalfStorage", DR_PK_G_F16, 2},
    {"torch", "BFloat16Storage", DR_PK_G_BF16, 2},
    {"torch", "DoubleStorage", DR_PK_G_F64, 8},
    {"torch", "LongStorage", DR_PK_G_I64, 8},
    {"torch", "IntStorage", DR_PK_G_I32, 4},
    {"torch", "ByteStorage", DR_PK_G_U8, 1},
};
enum { N_KNOWN = sizeof known / sizeof known[0] };

int dr_pk_type_size(int global) {
    for (int i = 0; i < N_KNOWN; i++)
        if (known[i].global == global) return known[i].size;
    return 0;
}

static bool equal(const uint8_t *s, size_t n, const char *t) {
    return strlen(t) == n && !memcmp(s, t, n);
}

static void show(const uint8_t *s, size_t n, char ret[NAME_SHOWN + 1]) {
    if (n > NAME_SHOWN) n = NAME_SHOWN;
    for (size_t i = 0; i < n; i++) ret[i] = s[i] > ' ' && s[i] < 127 ? (char)s[i] : '?';
    ret[n] = 0;
}

static dr_status refuse_name(dr_pickle *p, const uint8_t *module, size_t nm, const uint8_t *name, size_t nn) {
    char m[NAME_SHOWN + 1], f[NAME_SHOWN + 1];
    show(module, nm, m);
    show(name, nn, f);
    return REFUSE("the pickle names %s.%s, which no file of weights needs: refused, nothing was run", m, f);
}

static dr_status name(dr_pickle *p, const uint8_t *module, size_t nm, const uint8_t *nam, size_t nn) {
    for (int i = 0; i < N_KNOWN; i++)
        if (equal(module, nm, known[i].module) && equal(nam, nn, known[i].name))
            return push(p, (dr_pk_value){.kind = DR_PK_GLOBAL, .i = known[i].global});
    return refuse_name(p, module, nm, nam, nn);
}

static dr_status global(dr_pickle *p, bool call) {
    const uint8_t *m = NULL, *n = NULL;
    size_t nm = 0, nn = 0;
    dr_status s = take_line(p, &m, &nm);
    if (!s) s = take_line(p, &n, &nn);
    if (s) return s;
    return call ? refuse_name(p, m, nm, n, nn) : name(p, m, nm, n, nn);
}

static dr_status stack_global(dr_pickle *p) {
    uint32_t n = 0, m = 0;
    dr_status s = pop(p, &n);
    if (!s) s = pop(p, &m);
    if (s) return s;
    const dr_pk_value *vn = value_at(p, n), *vm = value_at(p, m);
    if (vn->kind != DR_PK_STR || vm->kind != DR_PK_STR) return BAD("a name in the pickle is no text");
    return name(p, vm->s, vm->n, vn->s, vn->n);
}

/* --- containers --- */

static dr_status tuple_of(dr_pickle *p, uint32_t n) {
    if (p->stack.n - base(p) < n) return BAD("the pickle takes more from its stack than there is");
    dr_pk_value v = {.kind = DR_PK_TUPLE, .first = p->items.n, .n = n};
    for (uint32_t i = 0; i < n; i++) {
        dr_status s = u32_add(p, &p->items, *u32_at(&p->stack, p->stack.n - n + i));
        if (s) return s;
    }
    p->stack.n -= n;
    return push(p, v);
}

static dr_status drop_mark(dr_pickle *p, uint32_t *ret_n) {
    if (!p->marks.n) return BAD("the pickle closes what it never opened");
    *ret_n = p->stack.n - base(p);
    p->marks.n--;
    return DR_OK;
}

static dr_status tuple(dr_pickle *p) {
    uint32_t n = 0;
    dr_status s = drop_mark(p, &n);
    return s ? s : tuple_of(p, n);
}

static dr_status append_link(dr_pickle *p, dr_pk_value *to, uint32_t key, uint32_t value) {
    if (!pool_room(&p->links, sizeof(dr_pk_link), p->links.n + 1)) return too_much(p);
    uint32_t l = p->links.n++;
    *link_at(p, l) = (dr_pk_link){key, value, DR_PK_NIL};
    if (to->first == DR_PK_NIL)
        to->first = l;
    else
        link_at(p, to->last)->next = l;
    to->last = l;
    return DR_OK;
}

/* The n topmost go into the container under them: as pairs into a dict, singly into a list. */
static dr_status put_in(dr_pickle *p, uint32_t n, bool pairs) {
    if (p->stack.n - base(p) < n + 1) return BAD("the pickle takes more from its stack than there is");
    dr_pk_value *to = value_at(p, *u32_at(&p->stack, p->stack.n - n - 1));
    if (to->kind != (pairs ? DR_PK_DICT : DR_PK_LIST) || (pairs && n % 2))
        return BAD("the pickle fills something that is no %s", pairs ? "dict" : "list");
    for (uint32_t i = 0; i < n; i += pairs ? 2 : 1) {
        uint32_t *at = u32_at(&p->stack, p->stack.n - n + i);
        dr_status s = append_link(p, to, at[0], pairs ? at[1] : at[0]);
        if (s) return s;
    }
    p->stack.n -= n;
    return DR_OK;
}

static dr_status put_marked(dr_pickle *p, bool pairs) {
    uint32_t n = 0;
    dr_status s = drop_mark(p, &n);
    return s ? s : put_in(p, n, pairs);
}

static dr_status container(dr_pickle *p, dr_pk_kind kind) {
    return push(p, (dr_pk_value){.kind = kind, .first = DR_PK_NIL, .last = DR_PK_NIL});
}

/* --- memory --- */

static dr_status memo_put(dr_pickle *p, uint64_t i) {
    dr_pk_value *v = NULL;
    dr_status s = top(p, &v);
    if (s) return s;
    if (i >= POOL_MAX || !pool_room(&p->memo, sizeof(uint32_t), (uint32_t)i + 1)) return too_much(p);
    while (p->memo.n <= i) *u32_at(&p->memo, p->memo.n++) = DR_PK_NIL;
    *u32_at(&p->memo, (uint32_t)i) = (uint32_t)(v - (dr_pk_value *)p->values.p);
    p->n_memoized++;
    return DR_OK;
}

static dr_status memo_get(dr_pickle *p, uint64_t i) {
    if (i >= p->memo.n || *u32_at(&p->memo, (uint32_t)i) == DR_PK_NIL)
        return BAD("the pickle asks for what it never remembered");
    return u32_add(p, &p->stack, *u32_at(&p->memo, (uint32_t)i));
}

static dr_status memo_arg(dr_pickle *p, int bytes, dr_status (*f)(dr_pickle *, uint64_t)) {
    uint64_t i = 0;
    dr_status s = take_le(p, bytes, &i);
    return s ? s : f(p, i);
}

/* --- what would be a call --- */

/* OrderedDict([[key, value], ...]), as Python 2 wrote it. */
static dr_status dict_of_pairs(dr_pickle *p, const dr_pk_value *args) {
    dr_status s = container(p, DR_PK_DICT);
    uint32_t d = p->values.n - 1;
    const dr_pk_value *list = args->n ? dr_pickle_item(p, args, 0) : NULL;
    if (s || !list) return s;
    if (args->n != 1 || list->kind != DR_PK_LIST) return BAD("an OrderedDict of something that is no list");
    for (uint32_t l = list->first; l != DR_PK_NIL && !s; l = link_at(p, l)->next) {
        const dr_pk_value *pair = value_at(p, link_at(p, l)->key);
        uint32_t kv[2] = {DR_PK_NIL, DR_PK_NIL};
        if (pair->kind == DR_PK_TUPLE && pair->n == 2) {
            kv[0] = *u32_at(&p->items, pair->first);
            kv[1] = *u32_at(&p->items, pair->first + 1);
        } else if (pair->kind == DR_PK_LIST && pair->first != DR_PK_NIL) {
            const dr_pk_link *a = link_at(p, pair->first);
            kv[0] = a->key;
            if (a->next != DR_PK_NIL) kv[1] = link_at(p, a->next)->key;
        }
        if (kv[1] == DR_PK_NIL) return BAD("an OrderedDict of something that is no pair");
        s = append_link(p, value_at(p, d), kv[0], kv[1]);
    }
    return s;
}

static dr_status reduce(dr_pickle *p) {
    uint32_t ia = 0, ifn = 0;
    dr_status s = pop(p, &ia);
    if (!s) s = pop(p, &ifn);
    if (s) return s;
    dr_pk_value args = *value_at(p, ia), fn = *value_at(p, ifn);
    if (fn.kind != DR_PK_GLOBAL || args.kind != DR_PK_TUPLE)
        return REFUSE("the pickle calls something that is no name: refused, nothing was run");
    switch (fn.i) {
    case DR_PK_G_ODICT:
        return dict_of_pairs(p, &args);
    case DR_PK_G_TENSOR:
        if (args.n < 4 || dr_pickle_item(p, &args, 0)->kind != DR_PK_STORAGE)
            return BAD("a tensor in the pickle has no storage");
        args.kind = DR_PK_TENSOR;
        return push(p, args);
    case DR_PK_G_PARAMETER:
        if (!args.n || dr_pickle_item(p, &args, 0)->kind != DR_PK_TENSOR)
            return BAD("a parameter in the pickle is no tensor");
        return u32_add(p, &p->stack, *u32_at(&p->items, args.first));
    default:
        return REFUSE("the pickle calls a storage type: refused, nothing was run");
    }
}

/* The only thing that PyTorch gives a state to is the dict itself (its versions), which we have no use for. */
static dr_status build(dr_pickle *p) {
    uint32_t state = 0;
    dr_pk_value *to = NULL;
    dr_status s = pop(p, &state);
    if (!s) s = top(p, &to);
    if (!s && to->kind != DR_PK_DICT) return REFUSE("the pickle gives a state to an object: refused, nothing was run");
    return s;
}

/* ('storage', type, key, device, elements[, view]) */
static dr_status storage(dr_pickle *p) {
    uint32_t id = 0;
    dr_status s = pop(p, &id);
    if (s) return s;
    const dr_pk_value *t = value_at(p, id), *v[6];
    if (t->kind != DR_PK_TUPLE || t->n < 5 || t->n > 6) return BAD("the pickle points to something that is no storage");
    for (size_t i = 0; i < 6; i++) v[i] = dr_pickle_item(p, t, i);
    if (!dr_pk_is_text(v[0], "storage") || v[1]->kind != DR_PK_GLOBAL || !dr_pk_type_size((int)v[1]->i) ||
        v[2]->kind != DR_PK_STR || v[4]->kind != DR_PK_INT || v[4]->n || v[4]->i < 0)
        return BAD("the pickle points to something that is no storage");
    if (v[5] && v[5]->kind != DR_PK_NONE)
        return dr_fail_as(p->err, DR_UNSUPPORTED, "bad_pickle",
                          "a storage is a view of another one: save a state dict of copies");
    return push(p,
                (dr_pk_value){.kind = DR_PK_STORAGE, .type = (int)v[1]->i, .i = v[4]->i, .s = v[2]->s, .n = v[2]->n});
}

/* --- the machine --- */

static dr_status protocol(dr_pickle *p) {
    uint64_t v = 0;
    dr_status s = take_le(p, 1, &v);
    return !s && (v < 2 || v > 4) ? BAD("pickle protocol %d is not known", (int)v) : s;
}

static dr_status step(dr_pickle *p, uint8_t op) {
    const uint8_t *skipped;
    switch (op) {
    case 0x80:
        return protocol(p);
    case 0x95: /* FRAME */
        return take(p, 8, &skipped);
    case '(':
        return u32_add(p, &p->marks, p->stack.n);
    case ')':
        return push(p, (dr_pk_value){.kind = DR_PK_TUPLE});
    case ']':
        return container(p, DR_PK_LIST);
    case '}':
        return container(p, DR_PK_DICT);
    case 'N':
        return push(p, (dr_pk_value){.kind = DR_PK_NONE});
    case 0x88:
    case 0x89:
        return push(p, (dr_pk_value){.kind = DR_PK_BOOL, .i = op == 0x88});
    case 'J':
        return whole(p, 4, true);
    case 'K':
        return whole(p, 1, false);
    case 'M':
        return whole(p, 2, false);
    case 0x8a:
        return long1(p);
    case 'G': {
        dr_status s = take(p, 8, &skipped);
        return s ? s : push(p, (dr_pk_value){.kind = DR_PK_FLOAT});
    }
    case 'X':
    case 'T':
        return text(p, 4);
    case 0x8c:
    case 'U':
        return text(p, 1);
    case 'q':
        return memo_arg(p, 1, memo_put);
    case 'r':
        return memo_arg(p, 4, memo_put);
    case 0x94:
        return memo_put(p, p->n_memoized);
    case 'h':
        return memo_arg(p, 1, memo_get);
    case 'j':
        return memo_arg(p, 4, memo_get);
    case 't':
        return tuple(p);
    case 0x85:
    case 0x86:
    case 0x87:
        return tuple_of(p, op - 0x84u);
    case 'a':
        return put_in(p, 1, false);
    case 'e':
        return put_marked(p, false);
    case 's':
        return put_in(p, 2, true);
    case 'u':
        return put_marked(p, true);
    case 'c':
        return global(p, false);
    case 0x93:
        return stack_global(p);
    case 'R':
        return reduce(p);
    case 'b':
        return build(p);
    case 'Q':
        return storage(p);
    case 'i':
        return global(p, true);
    default:
        return REFUSE("the pickle has opcode 0x%02x, which no file of weights needs: refused, nothing was run", op);
    }
}

static dr_status machine(dr_pickle *p) {
    const uint8_t *op = NULL;
    for (;;) {
        dr_status s = take(p, 1, &op);
        if (!s && *op == '.') return pop(p, &p->root);
        if (!s) s = step(p, *op);
        if (s) return s;
    }
}

dr_status dr_pickle_read(const void *data, size_t len, dr_pickle **ret, size_t *ret_used, dr_error *err) {
    dr_pickle *p = dr_calloc(1, sizeof *p);
    dr_error own = {0};
    if (!p) return dr_fail(err, DR_NOMEM, "no memory for a pickle");
    p->at = data;
    p->end = p->at + len;
    p->err = err ? err : &own;
    dr_status s = machine(p);
    p->err = NULL;
    if (s) {
        dr_pickle_close(p);
        return s;
    }
    *ret_used = (size_t)(p->at - (const uint8_t *)data);
    *ret = p;
    return DR_OK;
}

void dr_pickle_close(dr_pickle *p) {
    if (!p) return;
    dr_free(p->values.p);
    dr_free(p->items.p);
    dr_free(p->links.p);
    dr_free(p->stack.p);
    dr_free(p->marks.p);
    dr_free(p->memo.p);
    dr_free(p);
}

const dr_pk_value *dr_pickle_root(const dr_pickle *p) {
    return value_at(p, p->root);
}
const dr_pk_value *dr_pickle_at(const dr_pickle *p, uint32_t value) {
    return value_at(p, value);
}
const dr_pk_value *dr_pickle_item(const dr_pickle *p, const dr_pk_value *t, size_t i) {
    return i < t->n ? value_at(p, *u32_at(&p->items, t->first + (uint32_t)i)) : NULL;
}
const dr_pk_link *dr_pickle_link(const dr_pickle *p, uint32_t link) {
    return link == DR_PK_NIL ? NULL : link_at(p, link);
}
bool dr_pk_is_text(const dr_pk_value *v, const char *t) {
    return v->kind == DR_PK_STR && equal(v->s, v->n, t);
}
