/* test_docs.c - the documents against the tables they describe: openapi.yaml against the routes and the error codes,
 * the man pages against the settings. Runs in the repository's root. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "server/config.h"
#include "server/router.h"
#include "tests/t.h"
#include <ctype.h>

static char *doc(const char *path) {
    char *text = NULL;
    size_t n = 0;
    return dr_fs_read(path, 1 << 20, &text, &n, NULL) ? NULL : text;
}

static size_t indent(const char *line) {
    return strspn(line, " ");
}

/* Calls `see` with each "METHOD path" of the paths section. */
static int each_operation(char *yaml, bool (*see)(const char *method, const char *path)) {
    char path[200] = "", method[16];
    bool in_paths = false;
    int bad = 0;
    for (char *line = yaml, *end; line && *line; line = end ? end + 1 : NULL) {
        end = strchr(line, '\n');
        size_t n = end ? (size_t)(end - line) : strlen(line), in = indent(line);
        if (in == 0 && n) in_paths = !strncmp(line, "paths:", 6);
        if (!in_paths || n < in + 2 || line[n - 1] != ':') continue;
        if (in == 2 && line[2] == '/') snprintf(path, sizeof path, "%.*s", (int)(n - 3), line + 2);
        if (in != 4 || n - 5 >= sizeof method) continue;
        for (size_t i = 0; i < n - 5; i++) method[i] = (char)toupper((unsigned char)line[4 + i]);
        method[n - 5] = 0;
        if (strcmp(method, "PARAMETERS") && !see(method, path)) {
            printf("# openapi.yaml: %s %s is no route\n", method, path);
            bad++;
        }
    }
    return bad;
}

static bool seen[128];
static bool see(const char *method, const char *path) {
    for (size_t i = 0; i < srv_n_routes; i++)
        if (!strcmp(srv_routes[i].method, method) && !strcmp(srv_routes[i].path, path)) return seen[i] = true;
    return false;
}

TEST(openapi_and_routes_are_the_same) {
    char *yaml = doc("docs/api/openapi.yaml");
    CHECK(yaml && srv_n_routes < 128);
    int bad = each_operation(yaml, see);
    dr_free(yaml);
    CHECK(!bad);
    for (size_t i = 0; i < srv_n_routes; i++)
        CHECK_MSG(seen[i], "%s %s is not in openapi.yaml", srv_routes[i].method, srv_routes[i].path);
}

TEST(openapi_lists_every_error_code_and_no_other) {
    char *yaml = doc("docs/api/openapi.yaml"), *at, *end, key[80];
    CHECK(yaml && (at = strstr(yaml, "        code:\n")) && (end = strstr(at, "        request_id:")));
    *end = 0;
    for (size_t i = 0; i < srv_n_problem_rows; i++) {
        snprintf(key, sizeof key, "\n            - %s # %d ", srv_problem_rows[i].code, srv_problem_rows[i].status);
        CHECK_MSG(strstr(at, key), "%s", key);
    }
    size_t n = 0;
    for (char *p = at; (p = strstr(p, "\n            - ")); p++) n++;
    dr_free(yaml);
    CHECK_MSG(n == srv_n_problem_rows, "%zu in the document, %zu in the table", n, srv_n_problem_rows);
}

TEST(deraind_conf_5_lists_every_setting_with_its_default) {
    char *man = doc("docs/man/deraind.conf.5"), key[200];
    CHECK(man);
    size_t n = 0;
    for (char *p = man; (p = strstr(p, "\n.TP\n.BR ")); p++) n++;
    CHECK_MSG(n == srv_config_n_rows, "%zu in the page, %zu in the table", n, srv_config_n_rows);
    for (size_t i = 0; i < srv_config_n_rows; i++) {
        const srv_config_row *row = &srv_config_rows[i];
        snprintf(key, sizeof key, "\n.TP\n.BR %s \" (", row->key);
        char *at = strstr(man, key);
        CHECK_MSG(at, "%s", row->key);
        char *line = strchr(at + 5, '\n');
        *line = 0;
        snprintf(key, sizeof key, "default %s)\"", row->init);
        bool ok = *row->init ? strstr(at, key) != NULL || strchr(row->init, '-') : !strstr(at, "default");
        CHECK_MSG(ok, "%s: %s", row->key, at);
        *line = '\n';
    }
    dr_free(man);
}

TEST(deraind_8_lists_every_flag_and_no_other) {
    char *man = doc("docs/man/deraind.8"), key[200];
    CHECK(man);
    size_t n = 0;
    for (char *p = man; (p = strstr(p, "\n.BR \\-\\-")); p++) n++;
    CHECK_MSG(n == srv_config_n_rows, "%zu in the page, %zu in the table", n, srv_config_n_rows);
    for (size_t i = 0; i < srv_config_n_rows; i++) {
        int len = snprintf(key, sizeof key, "\n.BR \\-\\-");
        for (const char *p = srv_config_rows[i].key; *p; p++)
            len += snprintf(key + len, sizeof key - (size_t)len, "%s%c", *p == '_' ? "\\" : "", *p == '_' ? '-' : *p);
        snprintf(key + len, sizeof key - (size_t)len, " ");
        CHECK_MSG(strstr(man, key), "%s", srv_config_rows[i].key);
    }
    dr_free(man);
}
