/* SPDX-License-Identifier: MIT */
/*
 * An HTTP client that hides nothing: raw bytes over a TCP socket to 127.0.0.1. What fails, or takes
 * a minute, ends the test.
 */
#ifndef TESTS_HTTP_CLIENT_H
#define TESTS_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

struct reply {
    int status; /* 0: the server closed without a word */
    char *head; /* status line and headers */
    char *body; /* de-chunked, NUL-terminated */
    size_t size;
    bool whole; /* as long as its headers said */
};

int dial(int port);
void send_bytes(int fd, const void *bytes, size_t size);
void send_text(int fd, const char *text);

/* Everything until the server closes; malloc'ed, NUL-terminated. */
char *read_to_end(int fd, size_t *ret_size);
/* Read until text has been seen (true) or the server closed (false); adds to *got, which is
 * malloc'ed or NULL. */
bool read_until(int fd, const char *text, char **got);

/* Read one reply to a request that said Connection: close, and close fd. */
void receive(int fd, struct reply *ret);
void reply_finish(struct reply *reply);

/* Send head (with its blank line) and body as they are; Content-Length is the caller's. */
void exchange(int port, const char *head, const char *body, struct reply *ret);
void get(int port, const char *path, struct reply *ret);
/* POST json to /v1/chat/completions, with more header lines ("A: b\r\n") or "". */
void post(int port, const char *headers, const char *json, struct reply *ret);
/* The same, without waiting for the reply. */
int post_start(int port, const char *headers, const char *json);

bool has_header(const struct reply *reply, const char *line_start);

#endif
