/* SPDX-License-Identifier: MIT */
/* Options, messages and the connection of every command: see gttctl.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "gttctl.h"
#include "version.h"

static const struct argp_option common_table[] = {
    {"socket", 's', "PATH", 0,
     "gttd's socket; default: $GTTD_SOCKET, $XDG_RUNTIME_DIR/gttd.sock, /run/gttd/gttd.sock", 0},
    {"json", 'j', NULL, 0, "Print JSON", 0},
    {0},
};

static error_t parse_common_option(int key, char *arg, struct argp_state *state)
{
    struct common_options *options = state->input;
    switch (key) {
    case 's':
        options->socket = arg;
        return 0;
    case 'j':
        options->json = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp common_argp = {.options = common_table, .parser = parse_common_option};

void parse_args(const struct argp *argp, int argc, char **argv, void *input)
{
    char name[64];
    snprintf(name, sizeof name, "gttctl %s", argv[0]);
    argv[0] = name;
    argp_err_exit_status = EXIT_USAGE;
    argp_program_version = "gttctl " GTTD_VERSION_TEXT;
    argp_parse(argp, argc, argv, 0, NULL, input);
}

static error_t parse_no_option(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    if (key != ARGP_KEY_INIT) {
        return ARGP_ERR_UNKNOWN;
    }
    state->child_inputs[0] = state->input;
    return 0;
}

void parse_common(const char *doc, int argc, char **argv, struct common_options *ret)
{
    static const struct argp_child children[] = {{&common_argp, 0, NULL, 0}, {0}};
    const struct argp argp = {.parser = parse_no_option, .doc = doc, .children = children};
    *ret = (struct common_options){0};
    parse_args(&argp, argc, argv, ret);
}

int complain(const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "gttctl: %s\n", text);
    return EXIT_FAILED;
}

struct gtt *connect_gttd(const struct common_options *options)
{
    struct gtt *gtt;
    if (gtt_connect(options->socket, "gttctl", &gtt) < 0) {
        complain("%s", gtt_last_error(NULL));
        return NULL;
    }
    return gtt;
}

int print_json(json_t *json)
{
    if (!json) {
        return complain("%s", strerror(ENOMEM));
    }
    int r = json_dumpf(json, stdout, JSON_COMPACT);
    json_decref(json);
    if (r < 0 || putchar('\n') == EOF || fflush(stdout) != 0) {
        return complain("stdout: cannot be written");
    }
    return EXIT_OK;
}
