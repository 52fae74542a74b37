/* SPDX-License-Identifier: MIT */
/*
 * The HTTP server: one loaded model behind OpenAI's chat API, on one address. serve.md says what a
 * client sees.
 */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include <stdint.h>

#include "err.h"
#include "llm.h"

struct http_params {
    struct llm_engine *engine; /* borrowed; with a tokenizer; nobody else may generate meanwhile */
    const char *listen;        /* "127.0.0.1:8006", "[::1]:8006"; port 0: any free one */
    const char *api_key_file;  /* NULL: no key is asked for */
    uint32_t context;          /* in tokens; 0: llm_session_create()'s choice */
    uint32_t max_queue;        /* requests that may wait; 0: 32 */
    uint32_t receive_timeout_ms; /* for a whole request to arrive; 0: 60 000 */
    uint32_t send_timeout_s;     /* a client that takes nothing for so long is left; 0: 30 */
    uint32_t drain_timeout_ms;   /* for answers under way when asked to stop; 0: 30 000 */
    uint32_t
        ping_ms; /* a stream's comment after so long a silence, before proxies give up; 0: 5 000 */
    int stop_fd; /* borrowed: readable means finish what was begun and return */
    /* One line, no newline, from any thread. May be NULL. */
    void (*log)(void *data, const char *text);
    /* Called once, when connections are accepted: the address as a client writes it. May be NULL.
     */
    void (*ready)(void *data, const char *url);
    /* Called about every second, by the thread that called http_serve(). May be NULL. */
    void (*tick)(void *data);
    void *data; /* for log, ready and tick */
};

/*
 * Serve until stop_fd is readable; then refuse what is new, finish what was begun and return 0. The
 * calling thread is used up meanwhile; SIGPIPE is ignored in the process while this runs. On return
 * every thread, socket and byte is given back. Errors: of the address, the key file, the session's
 * memory; -EINVAL an engine without a tokenizer.
 */
int http_serve(const struct http_params *params, struct err *err);

#endif
