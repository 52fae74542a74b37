/* SPDX-License-Identifier: MIT */
/*
 * Text on its way from the inference thread to the thread of one connection. Bounded, and the
 * writer never waits: a client that reads more slowly than the bound allows fails its own request
 * and holds up nobody else's. The reader can poll() the pipe together with its socket.
 */
#ifndef HTTP_PIPE_H
#define HTTP_PIPE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct pipe {
    int fd; /* readable: there is text, or the pipe is closed; the pipe's own */
    size_t max_bytes;
    pthread_mutex_t lock; /* over all below */
    char *text;
    size_t size, capacity;
    bool closed;
};

/* Errors: -EMFILE and its like. */
int pipe_init(struct pipe *pipe, size_t max_bytes);
void pipe_finish(struct pipe *pipe);

/* Errors: -ENOBUFS the reader is max_bytes behind, -ENOMEM. */
int pipe_write(struct pipe *pipe, const char *text, size_t size);
/* No more will be written. What was written before the call, to the pipe or elsewhere, is visible
 * to the reader who sees *ret_closed. */
void pipe_close(struct pipe *pipe);

/* Take all text there is: *ret_text is malloc'ed, the caller's, NULL if there is none. Never
 * waits. */
void pipe_take(struct pipe *pipe, char **ret_text, size_t *ret_size, bool *ret_closed);

#endif
