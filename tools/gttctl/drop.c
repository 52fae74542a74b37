/* SPDX-License-Identifier: MIT */
/* gttctl drop: have gttd forget a segment. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "gttctl.h"

struct drop_options {
    struct common_options common;
    const char *name;
    uint64_t id; /* 0: by name */
    bool force;
};

static const struct argp_option table[] = {
    {"id", 'i', "N", 0, "The segment with this id (see gttctl list), with or without a name", 0},
    {"force", 'f', NULL, 0,
     "Also one that is open or being filled: its name is free at once, its memory when nobody has "
     "it open any more",
     0},
    {0},
};

static uint64_t id_arg(struct argp_state *state, const char *arg)
{
    char *end;
    errno = 0;
    unsigned long long id = strtoull(arg, &end, 10);
    if (*arg < '0' || *arg > '9' || *end || errno || id == 0) {
        argp_error(state, "--id: %s: not an id", arg);
    }
    return id;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct drop_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &options->common;
        return 0;
    case 'i':
        options->id = id_arg(state, arg);
        return 0;
    case 'f':
        options->force = true;
        return 0;
    case ARGP_KEY_ARG:
        if (options->name) {
            argp_error(state, "one segment at a time, please");
        }
        options->name = arg;
        return 0;
    case ARGP_KEY_END:
        if (!options->name == !options->id) {
            argp_error(state, "a NAME or --id N is needed");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int cmd_drop(int argc, char **argv)
{
    static const struct argp_child children[] = {{&common_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {.options = table,
                                     .parser = parse_option,
                                     .args_doc = "NAME\n--id N",
                                     .doc = "Forget a segment.",
                                     .children = children};
    struct drop_options options = {0};
    parse_args(&argp, argc, argv, &options);
    struct gtt *gtt = connect_gttd(&options.common);
    if (!gtt) {
        return EXIT_FAILED;
    }
    char what[GTT_NAME_MAX + 32];
    uint32_t flags = options.force ? GTT_DROP_FORCE : 0;
    int r = options.id ? gtt_drop_id(gtt, options.id, flags) : gtt_drop(gtt, options.name, flags);
    if (options.id) {
        snprintf(what, sizeof what, "id %" PRIu64, options.id);
    } else {
        snprintf(what, sizeof what, "%s", options.name);
    }
    int code = EXIT_OK;
    if (r < 0) {
        code = complain("drop: %s%s", gtt_last_error(gtt),
                        r == -EBUSY ? "; --force drops it all the same" : "");
    } else if (options.common.json) {
        code = print_json(json_pack("{s:s}", "dropped", what));
    } else {
        printf("dropped %s\n", what);
    }
    gtt_disconnect(gtt);
    return code;
}
