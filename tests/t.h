/* t.h - the whole test harness: tests register themselves, one process a file. */
#ifndef T_H
#define T_H
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef struct t_case {
    const char *name;
    void (*fn)(void);
    struct t_case *next;
} t_case;
static t_case *t_list, **t_tail = &t_list;
static int t_bad, t_skipped;
#define TEST(name)                                                                                 \
    static void name(void);                                                                        \
    __attribute__((constructor)) static void t_reg_##name(void) {                                  \
        static t_case c = {#name, name, NULL};                                                     \
        *t_tail = &c;                                                                              \
        t_tail = &c.next;                                                                          \
    }                                                                                              \
    static void name(void)
/* Leaves the case at the first failure. */
#define CHECK(e)                                                                                   \
    do {                                                                                           \
        if (!(e)) {                                                                                \
            t_bad = 1;                                                                             \
            printf("# %s:%d: %s\n", __FILE__, __LINE__, #e);                                       \
            return;                                                                                \
        }                                                                                          \
    } while (0)
/* The same, with a printf-style explanation. */
#define CHECK_MSG(e, ...)                                                                          \
    do {                                                                                           \
        if (!(e)) {                                                                                \
            t_bad = 1;                                                                             \
            printf("# %s:%d: %s: ", __FILE__, __LINE__, #e);                                       \
            printf(__VA_ARGS__);                                                                   \
            printf("\n");                                                                          \
            return;                                                                                \
        }                                                                                          \
    } while (0)
#define SKIP(why)                                                                                  \
    do {                                                                                           \
        t_skipped = 1;                                                                             \
        printf("# skip: %s\n", why);                                                               \
        return;                                                                                    \
    } while (0)
int main(int argc, char **argv) {
    int failed = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (t_case *c = t_list; c; c = c->next) {
        if (argc > 1 && *argv[1] != '-' && !strstr(c->name, argv[1])) continue;
        t_bad = t_skipped = 0;
        c->fn();
        printf("%s %s%s\n", t_bad ? "not ok" : "ok", c->name, t_skipped ? " # SKIP" : "");
        failed += t_bad;
    }
    return failed != 0;
}
#endif
