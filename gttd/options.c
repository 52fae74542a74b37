/* SPDX-License-Identifier: MIT */
/* The command line: see options.h. */
#include "options.h"

#include <argp.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "admission.h"

int size_parse(const char *text, uint64_t *ret_bytes)
{
    static const char units[] = "KMGT";
    if (*text < '0' || *text > '9') { /* strtod would also take signs, "inf" and blanks */
        return -EINVAL;
    }
    char *end;
    double value = strtod(text, &end);
    const char *unit = *end ? strchr(units, *end) : NULL;
    if (unit) {
        value = ldexp(value, 10 * (int)(unit - units + 1));
        end++;
        end += !strcmp(end, "iB") ? 2 : !strcmp(end, "B") ? 1 : 0;
    }
    if (*end) {
        return -EINVAL;
    }
    if (!(value < 0x1p62)) {
        return -ERANGE;
    }
    *ret_bytes = (uint64_t)value;
    return 0;
}

static const struct argp_option table[] = {
    {"heap", 'H', "HEAP", 0, "Where memory comes from: auto (default), amdgpu, udmabuf or memfd",
     0},
    {"device", 'd', "PATH", 0,
     "Take memory from this render node, such as /dev/dri/renderD128 (default: the best there is)",
     0},
    {"anchor", 'a', "PATH", 0,
     "Pin GTT memory by importing it into this device; off: do not pin (default: an NPU's, if "
     "there is one)",
     0},
    {"socket", 's', "PATH", 0,
     "Listen here; default: the socket systemd passes, $GTTD_SOCKET, /run/gttd/gttd.sock as root, "
     "$XDG_RUNTIME_DIR/gttd.sock",
     0},
    {"pool", 'p', "SIZE", 0, "Hold at most this much memory (default: no limit but the floor)", 0},
    {"floor", 'f', "SIZE", 0,
     "Never take the machine below this much free RAM (default: 5 %, at least 2G)", 0},
    {"quota", 'q', "SIZE", 0, "Hold at most this much for one user (default: no limit)", 0},
    {0},
};

static void parse_size(const char *arg, const char *name, struct argp_state *state, uint64_t *ret)
{
    int r = size_parse(arg, ret);
    if (r < 0) {
        argp_error(state, "--%s: %s: %s", name, arg,
                   r == -ERANGE ? "too large" : "not a size such as 512M or 20G");
    }
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'H':
        if (!heap_choice_exists(arg)) {
            argp_error(state, "--heap: %s: there are auto, amdgpu, udmabuf and memfd", arg);
        }
        options->heap.heap = arg;
        return 0;
    case 'd':
        options->heap.device = arg;
        return 0;
    case 'a':
        options->heap.anchor = arg;
        return 0;
    case 's':
        options->socket_path = arg;
        return 0;
    case 'p':
        parse_size(arg, "pool", state, &options->pool_bytes);
        return 0;
    case 'f':
        parse_size(arg, "floor", state, &options->floor_bytes);
        return 0;
    case 'q':
        parse_size(arg, "quota", state, &options->quota_bytes);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument: %s", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

void options_parse(int argc, char **argv, struct options *ret)
{
    static const struct argp argp = {
        .options = table,
        .parser = parse_option,
        .doc = "gttd keeps memory for other programs: filled once, sealed, and then mapped by any "
               "process of the same user, also after the one that filled it has died.\v"
               "Sizes are bytes or end in K, M, G or T. See gttd(8).",
    };
    argp_program_version = "gttd " GTTD_VERSION;
    argp_err_exit_status = 2;
    *ret = (struct options){.heap.heap = "auto", .floor_bytes = admission_default_floor()};
    argp_parse(&argp, argc, argv, 0, NULL, ret);
}
