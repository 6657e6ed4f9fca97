/* cmd_run.c - deraind run: one encoded picture in, one out. "-" is stdin or stdout; the format follows OUT's name. */
#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/fs.h"
#include "core/derain.h"
#include "server/commands.h"
#include "server/opts.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

static dr_status read_stdin(uint64_t max, char **ret, size_t *ret_len, dr_error *err) {
    dr_buf b;
    char piece[65536];
    ssize_t n;
    dr_buf_init(&b, (size_t)max);
    while ((n = read(STDIN_FILENO, piece, sizeof piece)) > 0 || (n < 0 && errno == EINTR))
        if (n > 0) dr_buf_add(&b, piece, (size_t)n);
    dr_status s = n < 0 ? dr_fail_errno(err, errno, "read", "stdin") : DR_OK;
    if (!s && b.status == DR_TOO_LARGE)
        s = dr_fail_limit(err, "image_too_large", "body_max_bytes", (int64_t)max, (int64_t)max + 1,
                          "stdin is too long");
    else if (!s && b.status)
        s = dr_fail(err, b.status, "stdin");
    size_t len = b.len;
    char *data = s || !len ? NULL : dr_buf_detach(&b, &len);
    dr_buf_done(&b);
    if (s) return s;
    *ret = data;
    *ret_len = len;
    return DR_OK;
}

/* A file is replaced as a whole; a device or pipe is written to. */
static dr_status write_out(const char *path, const void *data, size_t len, dr_error *err) {
    if (!strcmp(path, "-")) return dr_fs_write_all(STDOUT_FILENO, data, len, err);
    struct stat st;
    if (stat(path, &st) || S_ISREG(st.st_mode)) return dr_fs_write_atomic(path, data, len, err);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return dr_fail_errno(err, errno, "open", path);
    dr_status s = dr_fs_write_all(fd, data, len, err);
    if (close(fd) && !s) s = dr_fail_errno(err, errno, "write", path);
    return s;
}

/* Of the file's name; false: the name says nothing that we can write. */
static bool format_of(const char *path, dr_format *ret) {
    const char *slash = strrchr(path, '/'), *dot = strrchr(slash ? slash : path, '.');
    bool png = !strcmp(path, "-") || (dot && !strcasecmp(dot, ".png"));
    bool jpeg = dot && (!strcasecmp(dot, ".jpg") || !strcasecmp(dot, ".jpeg"));
    if (png || jpeg) *ret = png ? DR_FORMAT_PNG : DR_FORMAT_JPEG;
    return png || jpeg;
}

int srv_cmd_run(int argc, char **argv) {
    const char *model = NULL, *backend = NULL, *precision = NULL, *depth = NULL, *format = NULL, *args[2],
               *plans = NULL;
    int threads = 0;
    bool strip = false, quiet = false;
    uint64_t budget = 0;
    const srv_opt opts[] = {
        {.name = "model",
         .kind = SRV_OPT_TEXT,
         .to = &model,
         .arg = "FILE",
         .help = "generator (safetensors)",
         .required = true},
        SRV_OPT_PRECISION(&precision),
        SRV_OPTS_ENGINE(&backend, &threads),
        SRV_OPTS_PLAN_CACHE(&plans),
        {.name = "format",
         .kind = SRV_OPT_TEXT,
         .to = &format,
         .arg = "NAME",
         .choices = "png|jpeg",
         .help = "output format [from OUT's name; png for '-']"},
        {.name = "depth",
         .kind = SRV_OPT_TEXT,
         .to = &depth,
         .arg = "N",
         .choices = "8|16",
         .help = "bits a sample: 8 or 16 [as IN]"},
        {.name = "strip", .kind = SRV_OPT_FLAG, .to = &strip, .help = "leave out ICC, EXIF and density"},
        {.name = "mem-budget",
         .kind = SRV_OPT_BYTES,
         .to = &budget,
         .arg = "BYTES",
         .help = "most memory for the run, such as 4G; what wants more goes in bands [half of the memory]"},
        {.name = "quiet", .kind = SRV_OPT_FLAG, .to = &quiet, .letter = 'q', .help = "no line about what was done"},
        {0},
    };
    const srv_opts_spec spec = {
        .command = "run",
        .args = "IN OUT",
        .what = "Derain the picture IN (PNG or JPEG, at least 16x16 pixels) and write OUT.",
        .more = "OUT ends in .png, .jpg or .jpeg. '-' is stdin or stdout.\n",
        .opts = opts,
        .args_min = 2,
        .args_max = 2,
    };
    int rc = srv_opts_parse(&spec, argc, argv, args, NULL);
    if (rc != SRV_OPTS_GO) return rc;
    dr_format out_format;
    if (format)
        out_format = !strcmp(format, "png") ? DR_FORMAT_PNG : DR_FORMAT_JPEG;
    else if (!format_of(args[1], &out_format))
        return srv_opts_usage("run", "'%s': the name must end in .png, .jpg or .jpeg (or give --format)", args[1]);

    dr_limits lim = {.mem_budget = budget};
    dr_limits_fill(&lim);
    dr_error err = {0};
    dr_engine *engine = NULL;
    dr_model *m = NULL;
    char *in = NULL;
    void *out = NULL;
    size_t in_len = 0, out_len = 0;
    dr_run_stats stats;
    dr_status s = !strcmp(args[0], "-") ? read_stdin(lim.body_max_bytes, &in, &in_len, &err)
                                        : dr_fs_read(args[0], (size_t)lim.body_max_bytes, &in, &in_len, &err);
    if (s) goto out;
    const bool may_change = !backend || !strcmp(backend, "auto");
    const dr_engine_opts eo = {
        .backend = backend, .threads = threads, .precision = precision, .fallback = may_change, .plan_cache = plans};
    if ((s = dr_engine_open(&eo, &engine, &err))) goto out;
    if ((s = dr_model_open(engine, model, &m, &err))) goto out;
    if (!quiet && *dr_model_note(m)) fprintf(stderr, "%s: %s\n", model, dr_model_note(m));
    const dr_run_opts ro = {.format = out_format,
                            .depth = !depth                 ? 0
                                     : !strcmp(depth, "16") ? 16
                                                            : 8,
                            .strip_metadata = strip,
                            .limits = &lim};
    if ((s = dr_derain(m, in ? in : "", in_len, &ro, &out, &out_len, &stats, &err))) {
        dr_wrap(&err, s, "%s", args[0]);
        goto out;
    }
    s = write_out(args[1], out, out_len, &err);
    if (!s && !quiet)
        fprintf(stderr, "%s: %d x %d pixels in %.0f ms (%s; decoded in %.0f, encoded in %.0f ms)%s\n", args[1],
                stats.input.width, stats.input.height, stats.infer_ms, dr_engine_backend(engine), stats.decode_ms,
                stats.encode_ms, stats.reran ? "; computed again in bf16, since f16 could not hold its values" : "");
out:
    dr_free(out);
    dr_free(in);
    dr_model_close(m);
    dr_engine_close(engine);
    return s ? srv_cmd_fail("run", &err) : SRV_EXIT_OK;
}
