/* SPDX-License-Identifier: MIT */
/* gttrun chat: one answer with -p, else a conversation on the terminal. */
#include "chat.h"
#include "gttrun.h"
#include "report.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct chat_options {
    struct model_options model;
    const char *prompt;
    const char *system;
    struct llm_sampling sampling;
    uint32_t max_tokens;
    bool seed_given;
    bool raw;
    bool json;
};

enum {
    OPT_TEMP = 512,
    OPT_TOP_K,
    OPT_TOP_P,
    OPT_MIN_P,
    OPT_REPEAT,
    OPT_SEED,
    OPT_RAW,
    OPT_JSON,
    OPT_SYSTEM
};

static const struct argp_option chat_arg_options[] = {
    {"prompt", 'p', "TEXT", 0, "answer this and exit", 0},
    {"system", OPT_SYSTEM, "TEXT", 0, "instructions in front of the first message", 0},
    {"max-tokens", 'n', "N", 0, "at most N tokens of answer", 0},
    {"temp", OPT_TEMP, "T", 0, "temperature (default 1, 0 is greedy)", 0},
    {"top-k", OPT_TOP_K, "K", 0, "choose among the K likeliest (default 64, 0 is off)", 0},
    {"top-p", OPT_TOP_P, "P", 0, "choose among the likeliest that sum to P (default 0.95)", 0},
    {"min-p", OPT_MIN_P, "P", 0, "drop tokens less likely than P times the likeliest", 0},
    {"repetition-penalty", OPT_REPEAT, "X", 0, "weaken tokens already seen (default 1, off)", 0},
    {"seed", OPT_SEED, "S", 0, "same seed, same answer (default: the clock)", 0},
    {"raw", OPT_RAW, NULL, 0, "complete the prompt as it is, without the chat template", 0},
    {"json", OPT_JSON, NULL, 0, "print one JSON object instead of the text (needs -p)", 0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct chat_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->model;
        break;
    case 'p':
        o->prompt = arg;
        break;
    case 'n':
        o->max_tokens = (uint32_t)number_arg(state, "-n", arg, 1, UINT32_MAX);
        break;
    case OPT_SYSTEM:
        o->system = arg;
        break;
    case OPT_TEMP:
        o->sampling.temperature = (float)real_arg(state, "--temp", arg, 0, 100);
        break;
    case OPT_TOP_K:
        o->sampling.top_k = (uint32_t)number_arg(state, "--top-k", arg, 0, INT32_MAX);
        break;
    case OPT_TOP_P:
        o->sampling.top_p = (float)real_arg(state, "--top-p", arg, 1e-6, 1);
        break;
    case OPT_MIN_P:
        o->sampling.min_p = (float)real_arg(state, "--min-p", arg, 0, 1);
        break;
    case OPT_REPEAT:
        o->sampling.repetition_penalty =
            (float)real_arg(state, "--repetition-penalty", arg, 0.01, 100);
        break;
    case OPT_SEED:
        o->sampling.seed = number_arg(state, "--seed", arg, 0, UINT64_MAX);
        o->seed_given = true;
        break;
    case OPT_RAW:
        o->raw = true;
        break;
    case OPT_JSON:
        o->json = true;
        break;
    case ARGP_KEY_END:
        if (o->json && !o->prompt) {
            argp_error(state, "--json needs -p TEXT");
        }
        if (o->raw && !o->prompt) {
            argp_error(state, "--raw needs -p TEXT");
        }
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_child children[] = {{&model_argp, 0, "Model and device:", 1}, {0}};
static const struct argp chat_argp = {
    .options = chat_arg_options,
    .parser = parse_option,
    .children = children,
    .doc =
        "Answer one prompt (-p), or hold a conversation. Weights come from gttd's pool if it runs.",
};

static volatile sig_atomic_t interrupted;

static void on_sigint(int signal)
{
    (void)signal;
    interrupted = 1;
}

static bool is_interrupted(void *data)
{
    (void)data;
    return interrupted;
}

static int print_text(void *data, const char *text, size_t size)
{
    (void)data;
    return fwrite(text, 1, size, stdout) != size || fflush(stdout) != 0;
}

/* BOS (unless the text brings its own) and the text's tokens, special ones recognised. */
static int encode_raw(const struct tokenizer *tok, const char *text, struct err *err,
                      int32_t **ret_ids, size_t *ret_n)
{
    int32_t *ids, bos = tokenizer_find(tok, "<bos>");
    size_t n;
    int r = tokenizer_encode(tok, text, strlen(text), true, &ids, &n);
    if (r < 0) {
        return err_set(err, r, "the prompt: %s", strerror(-r));
    }
    if (bos >= 0 && (n == 0 || ids[0] != bos)) {
        int32_t *with_bos = realloc(ids, (n + 1) * sizeof *ids);
        if (!with_bos) {
            free(ids);
            return err_set(err, -ENOMEM, "out of memory");
        }
        memmove(with_bos + 1, with_bos, n * sizeof *ids);
        with_bos[0] = bos;
        ids = with_bos;
        n++;
    }
    *ret_ids = ids;
    *ret_n = n;
    return 0;
}

static int answer_once(struct llm_engine *engine, const struct chat_options *o, struct err *err)
{
    const struct tokenizer *tok = llm_engine_tokenizer(engine);
    struct llm_session *session = NULL;
    struct llm_result result = {0};
    int32_t *ids = NULL;
    size_t n = 0, n_messages = 0;
    struct chat_message messages[2];
    if (o->system) {
        messages[n_messages++] = (struct chat_message){CHAT_SYSTEM, o->system, strlen(o->system)};
    }
    messages[n_messages++] = (struct chat_message){CHAT_USER, o->prompt, strlen(o->prompt)};
    int r = o->raw ? encode_raw(tok, o->prompt, err, &ids, &n)
                   : chat_encode(tok, messages, n_messages, err, &ids, &n);
    if (r < 0) {
        goto out;
    }
    r = llm_session_create(engine, o->model.context, err, &session);
    if (r < 0) {
        goto out;
    }
    struct llm_request request = {
        .prompt = ids,
        .n_prompt = n,
        .max_tokens = o->max_tokens,
        .sampling = o->sampling,
        .on_text = o->json ? NULL : print_text,
        .cancelled = is_interrupted,
    };
    r = llm_generate(session, &request, err, &result);
    if (r < 0) {
        goto out;
    }
    if (o->json) {
        r = report_chat(engine, ids, n, &result, err);
    } else {
        putchar('\n');
        report_speed(n, &result, o->model.quiet);
    }
    if (r == 0 && interrupted) {
        r = err_set(err, -EINTR, "interrupted");
    }
out:
    llm_result_finish(&result);
    llm_session_destroy(session);
    free(ids);
    return r;
}

struct conversation {
    struct chat_message *messages; /* texts are malloc'ed */
    size_t n, cap;
};

static int add_message(struct conversation *c, enum chat_role role, const char *text, size_t size)
{
    if (c->n == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 16;
        struct chat_message *more = realloc(c->messages, cap * sizeof *more);
        if (!more) {
            return -ENOMEM;
        }
        c->messages = more;
        c->cap = cap;
    }
    char *copy = malloc(size + 1);
    if (!copy) {
        return -ENOMEM;
    }
    memcpy(copy, text, size);
    copy[size] = '\0';
    c->messages[c->n++] = (struct chat_message){role, copy, size};
    return 0;
}

static void drop_last_message(struct conversation *c)
{
    free((char *)c->messages[--c->n].text);
}

/* One turn: the user's line is already the last message. */
static int turn(struct llm_session *session, const struct tokenizer *tok, struct conversation *c,
                struct chat_options *o, struct err *err)
{
    int32_t *ids = NULL;
    size_t n;
    struct llm_result result = {0};
    int r = chat_encode(tok, c->messages, c->n, err, &ids, &n);
    if (r < 0) {
        return r;
    }
    struct llm_request request = {
        .prompt = ids,
        .n_prompt = n,
        .max_tokens = o->max_tokens,
        .sampling = o->sampling,
        .on_text = print_text,
        .cancelled = is_interrupted,
    };
    r = llm_generate(session, &request, err, &result);
    if (r == 0) {
        putchar('\n');
        fflush(stdout);
        report_speed(n - result.n_reused, &result, o->model.quiet);
        r = add_message(c, CHAT_ASSISTANT, result.text, result.text_size);
        if (r < 0) {
            err_set(err, r, "out of memory");
        }
        o->sampling.seed++;
    }
    llm_result_finish(&result);
    free(ids);
    return r;
}

static int converse(struct llm_engine *engine, struct chat_options *o, struct err *err)
{
    const struct tokenizer *tok = llm_engine_tokenizer(engine);
    struct conversation c = {0};
    struct llm_session *session = NULL;
    char *line = NULL;
    size_t cap = 0;
    int r = llm_session_create(engine, o->model.context, err, &session);
    if (r == 0 && o->system) {
        r = add_message(&c, CHAT_SYSTEM, o->system, strlen(o->system));
    }
    while (r == 0 && !ferror(stdout)) {
        if (isatty(STDIN_FILENO)) {
            fputs("> ", stdout);
            fflush(stdout);
        }
        interrupted = 0;
        ssize_t size = getline(&line, &cap, stdin);
        if (size < 0) {
            break; /* end of input, or Ctrl-C at the prompt */
        }
        if (line[strspn(line, " \t\r\n")] == '\0') {
            continue;
        }
        r = add_message(&c, CHAT_USER, line, (size_t)size);
        if (r < 0) {
            err_set(err, r, "out of memory");
            break;
        }
        r = turn(session, tok, &c, o, err);
        if (r == -E2BIG) {
            complain("%s; start again, or use a larger --context", err->text);
            drop_last_message(&c);
            r = 0;
        }
    }
    while (c.n) {
        drop_last_message(&c);
    }
    free(c.messages);
    free(line);
    llm_session_destroy(session);
    return r;
}

int cmd_chat(int argc, char **argv)
{
    struct chat_options o = {
        .sampling = {.temperature = 1, .top_k = 64, .top_p = 0.95f, .repetition_penalty = 1}};
    struct err err = {{0}};
    int status = EXIT_FAILED;
    parse_args(&chat_argp, argc, argv, &o);
    if (!o.seed_given) {
        o.sampling.seed = now_ns();
    }
    struct llm_engine *engine = open_engine(&o.model);
    if (!engine) {
        return EXIT_FAILED;
    }
    /* no SA_RESTART: Ctrl-C ends the answer, and a read of the next line */
    sigaction(SIGINT, &(struct sigaction){.sa_handler = on_sigint}, NULL);
    int r = o.prompt ? answer_once(engine, &o, &err) : converse(engine, &o, &err);
    if (r == 0) {
        status = EXIT_OK;
    } else {
        complain("%s", err.text);
    }
    llm_engine_close(engine);
    return status;
}
