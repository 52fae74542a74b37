/* SPDX-License-Identifier: MIT */
/* Asks a server for chat completions and takes the replies apart, checking their form. */
#ifndef TESTS_CHAT_CLIENT_H
#define TESTS_CHAT_CLIENT_H

#include "http_client.h"

struct chat {
    int status;
    char *text; /* what was answered, put together */
    char finish[16];
    char error_code[64];  /* of a refusal, or of an error event in a stream */
    char error_param[64]; /* "": null */
    size_t prompt_tokens, cached_tokens, completion_tokens;
    size_t n_text_chunks; /* of a stream */
    bool done;            /* whole reply, or data: [DONE] seen */
};

/* A JSON body that asks `question` as the user, with more fields (", \"seed\": 1") or "".
 * malloc'ed. */
char *chat_body(const char *question, const char *fields);
/* Ask and wait. With stream, usage is asked for as well. */
struct chat chat_ask(int port, bool stream, const char *question, const char *fields);
struct chat chat_parse(const struct reply *reply);
void chat_finish(struct chat *chat);

/*
 * Fields for a request that goes on for at least 400 tokens: nobody can forbid a model to end, so a
 * seed is searched with which this one does not. In a buffer of ours, until the next call.
 */
const char *chat_find_long(int port, const char *question);

/* /health: whether a request runs, and how many wait. */
void chat_load(int port, bool *ret_running, int *ret_waiting);
/* Wait for that to be so; fails the test after a minute. */
void chat_wait_load(int port, bool running, int waiting);

#endif
