/* SPDX-License-Identifier: MIT */
/* gttrun logits: what the model says after given ids, as numbers. */
#include "gttrun.h"
#include "npy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct logits_options {
    struct model_options model;
    int32_t *ids;
    size_t n_ids;
    bool all;
    const char *out;
};

enum { OPT_IDS = 512, OPT_ALL, OPT_OUT };

static const struct argp_option logits_arg_options[] = {
    {"ids", OPT_IDS, "ID,ID,...", 0, "token ids, begin-of-text included", 0},
    {"all", OPT_ALL, NULL, 0, "a row for every position, not only the last", 0},
    {"out", OPT_OUT, "FILE.npy", 0, "where to write float32 [vocab] or [n, vocab]", 0},
    {0},
};

static void parse_ids(struct logits_options *o, char *arg, struct argp_state *state)
{
    size_t cap = 1;
    for (const char *p = arg; *p; p++) {
        cap += *p == ',';
    }
    free(o->ids);
    o->ids = malloc(cap * sizeof *o->ids);
    o->n_ids = 0;
    if (!o->ids) {
        argp_failure(state, EXIT_FAILED, ENOMEM, "--ids");
        return;
    }
    char *save = NULL;
    for (char *id = strtok_r(arg, ",", &save); id; id = strtok_r(NULL, ",", &save)) {
        o->ids[o->n_ids++] = (int32_t)number_arg(state, "--ids", id, 0, INT32_MAX);
    }
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct logits_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->model;
        break;
    case OPT_IDS:
        parse_ids(o, arg, state);
        break;
    case OPT_ALL:
        o->all = true;
        break;
    case OPT_OUT:
        o->out = arg;
        break;
    case ARGP_KEY_END:
        if (!o->n_ids || !o->out) {
            argp_error(state, "--ids and --out are needed");
        }
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_child children[] = {{&model_argp, 0, "Model and device:", 1}, {0}};
static const struct argp logits_argp = {
    .options = logits_arg_options,
    .parser = parse_option,
    .children = children,
    .doc = "Write the float32 logits that follow the given token ids.",
};

static int run(struct llm_engine *engine, const struct logits_options *o, struct err *err)
{
    struct llm_engine_info info;
    struct llm_session *session = NULL;
    llm_engine_info(engine, &info);
    size_t rows = o->all ? o->n_ids : 1;
    float *logits = malloc(rows * info.vocab * sizeof *logits);
    if (!logits) {
        return err_set(err, -ENOMEM, "out of memory for %zu rows of logits", rows);
    }
    uint32_t context = o->model.context ? o->model.context : (uint32_t)o->n_ids;
    int r = llm_session_create(engine, context, err, &session);
    if (r == 0 && o->all) {
        r = llm_session_logits_all(session, o->ids, o->n_ids, logits, err);
    } else if (r == 0) {
        r = llm_session_sync(session, o->ids, o->n_ids, logits, NULL, NULL, err, NULL);
    }
    if (r == 0) {
        r = npy_write(o->out, logits, o->all ? rows : 0, info.vocab, err);
    }
    llm_session_destroy(session);
    free(logits);
    return r;
}

int cmd_logits(int argc, char **argv)
{
    struct logits_options o = {0};
    struct err err = {{0}};
    int status = EXIT_FAILED;
    parse_args(&logits_argp, argc, argv, &o);
    struct llm_engine *engine = open_engine(&o.model);
    if (engine) {
        if (run(engine, &o, &err) == 0) {
            status = EXIT_OK;
        } else {
            complain("%s", err.text);
        }
        llm_engine_close(engine);
    }
    free(o.ids);
    return status;
}
