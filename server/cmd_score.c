/* cmd_score.c - deraind score: the rain score of pictures, which needs neither a model nor a clean picture. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/derain.h"
#include "server/commands.h"
#include "server/opts.h"
#include <jansson.h>
#include <stdio.h>

enum { FILES_MAX = 4096 };

static dr_status score(const char *path, double *ret, dr_error *err) {
    char *data;
    size_t len;
    dr_limits lim = {0};
    dr_limits_fill(&lim);
    dr_status s = dr_fs_read(path, (size_t)lim.body_max_bytes, &data, &len, err);
    if (s) return s;
    s = dr_rain_score(data, len, &lim, ret, err);
    dr_free(data);
    return s ? dr_wrap(err, s, "%s", path) : DR_OK;
}

int srv_cmd_score(int argc, char **argv) {
    static const char *files[FILES_MAX + 1];
    bool json = false;
    int n = 0;
    const srv_opt opts[] = {
        {.name = "json", .kind = SRV_OPT_FLAG, .to = &json, .help = "one JSON object"},
        {0},
    };
    const srv_opts_spec spec = {
        .command = "score",
        .args = "PICTURE...",
        .what = "Say how much rain pictures seem to hold: 0 to 100, about 50 where nothing points to rain.",
        .more = "It weighs thin, bright, near-vertical lines against near-horizontal ones; docs/rain-score.md has the\n"
                "formula. The numbers of one scene, before and after, say more than those of two scenes.\n",
        .opts = opts,
        .args_min = 1,
        .args_max = FILES_MAX};
    int rc = srv_opts_parse(&spec, argc, argv, files, &n);
    if (rc != SRV_OPTS_GO) return rc;
    dr_error err = {0};
    json_t *rows = json_array();
    for (int i = 0; i < n; i++) {
        double v;
        if (score(files[i], &v, &err)) {
            json_decref(rows);
            return srv_cmd_fail("score", &err);
        }
        if (json)
            json_array_append_new(rows, json_pack("{s:s, s:f}", "picture", files[i], "rain", v));
        else
            printf("%6.2f  %s\n", v, files[i]);
    }
    json_t *o = json ? json_pack("{s:O}", "pictures", rows) : NULL;
    bool ok = !json || (json_array_size(rows) == (size_t)n && o && !json_dumpf(o, stdout, JSON_REAL_PRECISION(6)));
    if (json && ok) putchar('\n');
    json_decref(o);
    json_decref(rows);
    if (ok) return SRV_EXIT_OK;
    dr_fail(&err, DR_NOMEM, "no memory for the result");
    return srv_cmd_fail("score", &err);
}
