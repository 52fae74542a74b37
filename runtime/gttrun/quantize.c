/* SPDX-License-Identifier: MIT */
/* gttrun quantize: a model directory to int4 or int8. */
#include "quantize.h"
#include "gttrun.h"

#include <stdio.h>
#include <string.h>

struct quantize_options {
    const char *in;
    const char *out;
    struct quantize_params params;
    uint32_t group;
    bool quiet;
};

enum { OPT_TYPE = 512, OPT_GROUP, OPT_THREADS };

static const struct argp_option quantize_arg_options[] = {
    {"model", 'm', "DIR", 0, "model directory with float weights", 0},
    {"output", 'o', "DIR", 0, "directory to make; must not exist", 0},
    {"type", OPT_TYPE, "q4|q8", 0,
     "4-bit layers with an 8-bit embedding and head (default), or 8 bits throughout", 0},
    {"group", OPT_GROUP, "N", 0, "weights that share a scale: 32 (default), 64 or 128", 0},
    {"threads", OPT_THREADS, "N", 0, "CPU threads (default: the cores this process may use)", 0},
    {"quiet", 'q', NULL, 0, "no messages but errors", 0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct quantize_options *o = state->input;
    switch (key) {
    case 'm':
        o->in = arg;
        break;
    case 'o':
        o->out = arg;
        break;
    case 'q':
        o->quiet = true;
        break;
    case OPT_TYPE:
        if (strcmp(arg, "q4") != 0 && strcmp(arg, "q8") != 0) {
            argp_error(state, "--type: %s: there are q4 and q8", arg);
        }
        quantize_params_init(&o->params, strcmp(arg, "q4") == 0 ? WEIGHT_Q4 : WEIGHT_Q8);
        break;
    case OPT_GROUP:
        o->group = (uint32_t)number_arg(state, "--group", arg, 32, 128);
        if (o->group != 32 && o->group != 64 && o->group != 128) {
            argp_error(state, "--group: %s: there are 32, 64 and 128", arg);
        }
        break;
    case OPT_THREADS:
        o->params.n_threads = (uint32_t)number_arg(state, "--threads", arg, 1, 1024);
        break;
    case ARGP_KEY_END:
        if (!o->in || !o->out) {
            argp_error(state, "-m DIR and -o DIR are needed");
        }
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp quantize_argp = {
    .options = quantize_arg_options,
    .parser = parse_option,
    .doc = "Write a model's weights as int4 or int8 groups, in the layout the engine reads.",
};

static int on_progress(void *data, uint64_t done, uint64_t total)
{
    const struct quantize_options *o = data;
    struct model_options quiet = {.quiet = o->quiet};
    return show_progress(&quiet, "quantizing", done, total);
}

int cmd_quantize(int argc, char **argv)
{
    struct quantize_options o = {0};
    struct err err = {{0}};
    quantize_params_init(&o.params, WEIGHT_Q4);
    parse_args(&quantize_argp, argc, argv, &o);
    if (o.group) {
        o.params.group = o.params.embed_group = o.group;
    }
    if (quantize_directory(o.in, o.out, &o.params, on_progress, &o, &err) < 0) {
        complain("%s", err.text);
        return EXIT_FAILED;
    }
    return EXIT_OK;
}
