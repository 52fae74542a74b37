/* SPDX-License-Identifier: MIT */
/* gttrun serve: options and signals around http_serve(). */
#include "gttrun.h"
#include "server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct serve_options {
    struct model_options model;
    const char *listen;
    const char *api_key_file;
    uint32_t max_queue;
    struct llm_engine *engine;
    int held; /* what holding the weights came to last */
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

/* gttd may restart: it is to know that its memory is in use. Said once each time that it changes.
 */
static void hold_weights(void *data)
{
    struct serve_options *o = data;
    struct err err = {{0}};
    int r = llm_engine_hold(o->engine, &err);
    if (r < 0 && r != o->held) {
        complain("%s; serving goes on", err.text);
    } else if (r == 0 && o->held < 0 && !o->model.quiet) {
        complain("gttd is back and holds the weights");
    }
    o->held = r;
}

static int stop_fd; /* an eventfd */

static void on_stop(int signal)
{
    int saved_errno = errno;
    uint64_t one = 1;
    ssize_t n = write(stop_fd, &one, sizeof one);
    (void)signal;
    (void)n; /* fails only when the counter is full, and then it is readable */
    errno = saved_errno;
}

/* Whichever thread gets them. Before this, while the model is loaded or waited for, they just end
 * the process. */
static int catch_signals(void)
{
    struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop_fd < 0) {
        return -errno;
    }
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    return 0;
}

int cmd_serve(int argc, char **argv)
{
    struct serve_options o = {.listen = "127.0.0.1:8006", .max_queue = 32};
    struct err err = {{0}};
    parse_args(&serve_argp, argc, argv, &o);
    struct llm_engine *engine = open_engine(&o.model);
    if (!engine) {
        return EXIT_FAILED;
    }
    o.engine = engine;
    int r = catch_signals();
    if (r < 0) {
        err_set(&err, r, "eventfd: %s", strerror(-r));
    } else {
        struct http_params params = {
            .engine = engine,
            .context = o.model.context,
            .listen = o.listen,
            .api_key_file = o.api_key_file,
            .max_queue = o.max_queue,
            .stop_fd = stop_fd,
            .log = log_line,
            .ready = say_ready,
            .tick = hold_weights,
            .data = &o,
        };
        r = http_serve(&params, &err);
    }
    if (r < 0) {
        complain("%s", err.text);
    }
    llm_engine_close(engine);
    return r < 0 ? EXIT_FAILED : EXIT_OK;
}
