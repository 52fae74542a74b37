/* SPDX-License-Identifier: MIT */
/* The command line: see options.h. */
#include "options.h"

#include <argp.h>

#define SOCKET_KEY 's'
#define CONFIG_KEY 'c'

/* But for --socket and --config, long names are keys of gttd.conf. */
static const struct argp_option table[] = {
    {"config", CONFIG_KEY, "FILE", 0,
     "Read this instead of " CONFIG_PATH ", which may be missing; options here win over it", 0},
    {"heap", 'H', "HEAP", 0, "Where memory comes from: auto (default), amdgpu, udmabuf or memfd",
     0},
    {"device", 'd', "PATH", 0,
     "Take memory from this render node, such as /dev/dri/renderD128 (default: the best there is)",
     0},
    {"anchor", 'a', "PATH", 0,
     "Pin GTT memory by importing it into this device; off: do not pin (default: an NPU's, if "
     "there is one)",
     0},
    {"socket", SOCKET_KEY, "PATH", 0,
     "Listen here; default: the socket systemd passes, $GTTD_SOCKET, /run/gttd/gttd.sock as root, "
     "$XDG_RUNTIME_DIR/gttd.sock",
     0},
    {"pool", 'p', "SIZE", 0,
     "Hold at most this much memory, and reserve it (default: reserve nothing, no limit but the floor)",
     0},
    {"floor", 'f', "SIZE", 0,
     "Never take the machine below this much free RAM (default: 5 %, at least 2G)", 0},
    {"quota", 'q', "SIZE", 0, "Hold at most this much for one user (default: no limit)", 0},
    {"share", 'S', "WHOM", 0,
     "Who may open sealed segments: user (default; whose they are) or group (who may connect)", 0},
    {0},
};

static const char *long_name(int key)
{
    const struct argp_option *option = table;
    while (option->name && option->key != key) {
        option++;
    }
    return option->name;
}

/* Checked here, where it is known to be the command line that is wrong; used by
 * options_configure(). */
static void add_setting(struct options *options, int key, const char *value,
                        struct argp_state *state)
{
    struct setting setting = {long_name(key), value};
    struct config scratch;
    struct reason why;
    config_default(&scratch);
    if (config_set(&scratch, setting.key, value, &why) < 0) {
        argp_error(state, "--%s", why.text);
    }
    for (size_t i = 0; i < options->n_settings; i++) {
        if (options->settings[i].key == setting.key) {
            options->settings[i] = setting; /* given twice: the last wins */
            return;
        }
    }
    if (options->n_settings < OPTIONS_MAX) { /* there are fewer keys than that */
        options->settings[options->n_settings++] = setting;
    }
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case SOCKET_KEY:
        options->socket_path = arg;
        return 0;
    case CONFIG_KEY:
        options->config_path = arg;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument: %s", arg);
        return 0;
    default:
        if (!long_name(key)) {
            return ARGP_ERR_UNKNOWN;
        }
        add_setting(options, key, arg, state);
        return 0;
    }
}

void options_parse(int argc, char **argv, struct options *ret)
{
    static const struct argp argp = {
        .options = table,
        .parser = parse_option,
        .doc = "gttd keeps memory for other programs: filled once, sealed, and then mapped by any "
               "process of the same user, also after the one that filled it has died.\v"
               "Sizes are bytes or end in K, M, G or T; none is no limit. See gttd(8), "
               "gttd.conf(5).",
    };
    argp_program_version = "gttd " GTTD_VERSION;
    argp_err_exit_status = 2;
    *ret = (struct options){0};
    argp_parse(&argp, argc, argv, 0, NULL, ret);
}

int options_configure(const struct options *options, struct config *ret, struct reason *why)
{
    struct config config;
    config_default(&config);
    int r = config_read(&config, options->config_path ? options->config_path : CONFIG_PATH,
                        !options->config_path, why);
    for (size_t i = 0; r == 0 && i < options->n_settings; i++) {
        r = config_set(&config, options->settings[i].key, options->settings[i].value, why);
    }
    if (r == 0) {
        *ret = config;
    }
    return r;
}
