/* cmd_model.c - deraind model info|init|convert: generator files, without an engine. */
#include "core/derain.h"
#include "server/commands.h"
#include "server/opts.h"
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static int info(int argc, char **argv) {
    bool json = false;
    const char *args[2];
    const srv_opt opts[] = {
        {.name = "json", .kind = SRV_OPT_FLAG, .to = &json, .help = "one JSON object"},
        {0},
    };
    const srv_opts_spec spec = {.command = "model info",
                                .args = "FILE",
                                .what =
                                    "Check a model file whole (offsets, shapes, finite values) and say what it holds.",
                                .opts = opts,
                                .args_min = 1,
                                .args_max = 1};
    int rc = srv_opts_parse(&spec, argc, argv, args, NULL);
    if (rc != SRV_OPTS_GO) return rc;
    dr_model_info i;
    dr_error err = {0};
    if (dr_model_describe(args[0], &i, &err)) return srv_cmd_fail("model info", &err);
    json_t *meta = json_loads(i.metadata_json, 0, NULL);
    bool ok = meta != NULL;
    if (json) {
        json_t *root = json_pack("{s:s, s:i, s:s, s:i, s:i, s:i, s:I, s:s, s:I, s:s, s:O?}", "name", i.name, "version",
                                 i.version, "arch", i.arch, "ngf", i.ngf, "blocks", i.blocks, "residual", i.residual,
                                 "params", (json_int_t)i.params, "dtype", i.dtype, "bytes", (json_int_t)i.bytes,
                                 "sha256", i.sha256, "metadata", meta);
        ok = ok && root && !json_dumpf(root, stdout, JSON_INDENT(2));
        if (ok) putchar('\n');
        json_decref(root);
    } else {
        static const char *const outputs[] = {"tanh", "residual, 1 channel", "", "residual, 3 channels"};
        printf("name        %s, version %d\narchitecture %s, ngf %d, %d blocks, output: %s\nparameters  %llu, %s\n"
               "file        %llu bytes, sha256 %s\n",
               i.name, i.version, i.arch, i.ngf, i.blocks, outputs[i.residual & 3], (unsigned long long)i.params,
               i.dtype, (unsigned long long)i.bytes, i.sha256);
        for (void *it = json_object_iter(meta); it; it = json_object_iter_next(meta, it))
            printf("  %s = %s\n", json_object_iter_key(it), json_string_value(json_object_iter_value(it)));
    }
    json_decref(meta);
    dr_model_info_done(&i);
    if (ok) return SRV_EXIT_OK;
    dr_fail(&err, DR_NOMEM, "no memory for the description");
    return srv_cmd_fail("model info", &err);
}

static int init(int argc, char **argv) {
    dr_model_spec m = {.ngf = 64, .blocks = 9};
    const char *args[2];
    const srv_opt opts[] = {
        {.name = "ngf",
         .kind = SRV_OPT_INT,
         .to = &m.ngf,
         .arg = "N",
         .lo = 16,
         .hi = 256,
         .help = "filters of the first layer, a multiple of 16 [64]"},
        {.name = "blocks",
         .kind = SRV_OPT_INT,
         .to = &m.blocks,
         .arg = "N",
         .lo = 1,
         .hi = 32,
         .help = "residual blocks [9]"},
        {.name = "residual",
         .kind = SRV_OPT_INT,
         .to = &m.residual,
         .arg = "N",
         .lo = 0,
         .hi = 3,
         .help = "0: the net makes the picture; 3 or 1: channels that it subtracts [0]"},
        {.name = "seed",
         .kind = SRV_OPT_U64,
         .to = &m.seed,
         .arg = "N",
         .help = "the same seed gives the same file [0]"},
        {.name = "dtype",
         .kind = SRV_OPT_TEXT,
         .to = &m.dtype,
         .arg = "NAME",
         .choices = "F32|F16|BF16",
         .help = "numbers in the file [F32]"},
        {.name = "name", .kind = SRV_OPT_TEXT, .to = &m.name, .arg = "NAME", .help = "of the model [derain]"},
        {0},
    };
    const srv_opts_spec spec = {.command = "model init",
                                .args = "OUT",
                                .what = "Make a generator with random weights. A residual one changes nothing yet.",
                                .opts = opts,
                                .args_min = 1,
                                .args_max = 1};
    int rc = srv_opts_parse(&spec, argc, argv, args, NULL);
    if (rc != SRV_OPTS_GO) return rc;
    dr_error err = {0};
    return dr_model_init_file(&m, args[0], &err) ? srv_cmd_fail("model init", &err) : SRV_EXIT_OK;
}

static int convert(int argc, char **argv) {
    const char *dtype = NULL, *args[2];
    const srv_opt opts[] = {
        {.name = "dtype",
         .kind = SRV_OPT_TEXT,
         .to = &dtype,
         .arg = "NAME",
         .choices = "F32|F16|BF16",
         .help = "numbers in the new file [as they are]"},
        {0},
    };
    const srv_opts_spec spec = {.command = "model convert",
                                .args = "IN OUT",
                                .what = "Make a generator file from a generator, the nets of a training, or a PyTorch "
                                        "state dict (.pth).",
                                .more = "Of a training the net G_A is taken. A state dict is read, never run; one that "
                                        "names a function is refused.\n",
                                .opts = opts,
                                .args_min = 2,
                                .args_max = 2};
    int rc = srv_opts_parse(&spec, argc, argv, args, NULL);
    if (rc != SRV_OPTS_GO) return rc;
    dr_error err = {0};
    dr_status s = dr_model_import_file(args[0], args[1], NULL, &err);
    if (!s && dtype) s = dr_model_convert_file(args[1], dtype, args[1], &err);
    return s ? srv_cmd_fail("model convert", &err) : SRV_EXIT_OK;
}

static void help(FILE *to) {
    fprintf(to, "usage: deraind model VERB [options]\n\n"
                "  info FILE                   check a model file and say what it holds\n"
                "  init [options] OUT          make one with random weights\n"
                "  convert [--dtype D] IN OUT  make one from another, a training or a .pth\n\n"
                "'deraind model VERB --help' lists the options.\n");
}

int srv_cmd_model(int argc, char **argv) {
    if (argc < 2) {
        help(stderr);
        return SRV_EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        help(stdout);
        return SRV_EXIT_OK;
    }
    if (!strcmp(argv[1], "info")) return info(argc - 1, argv + 1);
    if (!strcmp(argv[1], "init")) return init(argc - 1, argv + 1);
    if (!strcmp(argv[1], "convert")) return convert(argc - 1, argv + 1);
    return srv_opts_usage("model", "'%s' is not one of info, init, convert", argv[1]);
}
