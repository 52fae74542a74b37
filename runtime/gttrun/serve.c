/* SPDX-License-Identifier: MIT */
/* gttrun serve: options and signals around http_serve(). */
#include "gttrun.h"
#include "server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct serve_options {
    struct model_options model;
    const char *listen;
    const char *api_key_file;
    uint32_t max_queue;
};

enum { OPT_LISTEN = 512, OPT_KEY, OPT_QUEUE };

static const struct argp_option serve_arg_options[] = {
    {"listen", OPT_LISTEN, "ADDRESS:PORT", 0, "where to listen (default 127.0.0.1:8006)", 0},
    {"api-key-file", OPT_KEY, "FILE", 0, "clients must send the key in FILE's first line", 0},
    {"queue", OPT_QUEUE, "N", 0, "most requests that wait (default 32)", 0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct serve_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->model;
        break;
    case OPT_LISTEN:
        o->listen = arg;
        break;
    case OPT_KEY:
        o->api_key_file = arg;
        break;
    case OPT_QUEUE:
        o->max_queue = (uint32_t)number_arg(state, "--queue", arg, 1, 10000);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_child children[] = {{&model_argp, 0, "Model and device:", 1}, {0}};
static const struct argp serve_argp = {
    .options = serve_arg_options,
    .parser = parse_option,
    .children = children,
    .doc = "Serve the OpenAI chat API over HTTP until SIGTERM or Ctrl-C.",
};

static void log_line(void *data, const char *text)
{
    const struct serve_options *o = data;
    if (!o->model.quiet) {
        complain("%s", text);
    }
}

static void say_ready(void *data, const char *url)
{
    const struct serve_options *o = data;
    if (!o->model.quiet) {
        complain("listening on %s", url);
    }
}

int cmd_serve(int argc, char **argv)
{
    struct serve_options o = {.listen = "127.0.0.1:8006", .max_queue = 32};
    struct err err = {{0}};
    sigset_t stop;
    parse_args(&serve_argp, argc, argv, &o);
    /* blocked before any thread starts, so that only the signalfd sees them */
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    sigprocmask(SIG_BLOCK, &stop, NULL);
    int stop_fd = signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK);
    if (stop_fd < 0) {
        complain("signalfd: %s", strerror(errno));
        return EXIT_FAILED;
    }
    int status = EXIT_FAILED;
    struct llm_engine *engine = open_engine(&o.model);
    if (engine) {
        struct http_params params = {
            .engine = engine,
            .context = o.model.context,
            .listen = o.listen,
            .api_key_file = o.api_key_file,
            .max_queue = o.max_queue,
            .stop_fd = stop_fd,
            .log = log_line,
            .ready = say_ready,
            .data = &o,
        };
        if (http_serve(&params, &err) == 0) {
            status = EXIT_OK;
        } else {
            complain("%s", err.text);
        }
        llm_engine_close(engine);
    }
    close(stop_fd);
    return status;
}
