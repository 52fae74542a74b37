/* SPDX-License-Identifier: MIT */
/* gttrun tokenize: all of stdin is one text; ids on one line. */
#include "gttrun.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tokenize_options {
    const char *model;
    bool bos;
    bool decode;
};

static const struct argp_option tokenize_arg_options[] = {
    {"model", 'm', "DIR|FILE", 0, "model directory, or a tokenizer.json", 0},
    {"bos", 'b', NULL, 0, "put the begin-of-text token in front", 0},
    {"decode", 'd', NULL, 0, "stdin holds ids; write their text", 0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct tokenize_options *o = state->input;
    switch (key) {
    case 'm':
        o->model = arg;
        break;
    case 'b':
        o->bos = true;
        break;
    case 'd':
        o->decode = true;
        break;
    case ARGP_KEY_END:
        if (!o->model) {
            argp_error(state, "no model: -m DIR is needed");
        }
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp tokenize_argp = {
    .options = tokenize_arg_options,
    .parser = parse_option,
    .doc = "Turn all of stdin, byte for byte, into token ids on one line (or back with --decode). "
           "Needs only the tokenizer's file.",
};

/* "2 105\n..." -> ids; NULL after complaining. text has a NUL behind its size bytes. */
static int32_t *parse_ids(const char *text, size_t size, size_t *ret_n)
{
    size_t n = 0, cap = 64;
    int32_t *ids = malloc(cap * sizeof *ids);
    const char *p = text;
    while (ids) {
        while (isspace((unsigned char)*p) || *p == ',') {
            p++;
        }
        if (p == text + size) {
            *ret_n = n;
            return ids;
        }
        char *end;
        errno = 0;
        long id = strtol(p, &end, 10);
        if (end == p || errno || id < 0 || id > INT32_MAX) {
            complain("stdin: %.20s: not a token id", p);
            free(ids);
            return NULL;
        }
        p = end;
        if (n == cap) {
            int32_t *more = realloc(ids, 2 * cap * sizeof *ids);
            if (!more) {
                break;
            }
            ids = more;
            cap *= 2;
        }
        ids[n++] = (int32_t)id;
    }
    complain("%s", strerror(ENOMEM));
    free(ids);
    return NULL;
}

static int decode(const struct tokenizer *tok, const char *text, size_t text_size)
{
    size_t n, size;
    char *out = NULL;
    int32_t *ids = parse_ids(text, text_size, &n);
    if (!ids) {
        return EXIT_FAILED;
    }
    int r = tokenizer_decode(tok, ids, n, false, &out, &size);
    free(ids);
    if (r < 0) {
        complain("stdin: %s", r == -EINVAL ? "an id is not in the vocabulary" : strerror(-r));
        return EXIT_FAILED;
    }
    fwrite(out, 1, size, stdout);
    free(out);
    return EXIT_OK;
}

static int encode(const struct tokenizer *tok, const char *text, size_t size, bool bos)
{
    int32_t *ids;
    size_t n;
    int r = tokenizer_encode(tok, text, size, true, &ids, &n);
    if (r < 0) {
        complain("stdin: %s", strerror(-r));
        return EXIT_FAILED;
    }
    const char *sep = "";
    if (bos) {
        int32_t id = tokenizer_find(tok, "<bos>");
        if (id < 0) {
            complain("--bos: the tokenizer has no <bos>");
            free(ids);
            return EXIT_FAILED;
        }
        printf("%d", id);
        sep = " ";
    }
    for (size_t i = 0; i < n; i++) {
        printf("%s%d", sep, ids[i]);
        sep = " ";
    }
    putchar('\n');
    free(ids);
    return EXIT_OK;
}

int cmd_tokenize(int argc, char **argv)
{
    struct tokenize_options o = {0};
    parse_args(&tokenize_argp, argc, argv, &o);
    struct err err = {{0}};
    struct tokenizer *tok;
    if (tokenizer_load(o.model, &err, &tok) < 0) {
        complain("%s", err.text);
        return EXIT_FAILED;
    }
    size_t size;
    char *text = read_stdin(&size);
    int status = EXIT_FAILED;
    if (text) {
        status = o.decode ? decode(tok, text, size) : encode(tok, text, size, o.bos);
    }
    free(text);
    tokenizer_destroy(tok);
    return status;
}
