/* SPDX-License-Identifier: MIT */
/*
 * Fds that a client has sent and that gttd does not keep. Closing one can take for ever: the client
 * may be the file system behind it, and a close waits for what is flushed there. So they are closed
 * on a thread that nothing else waits for, and there are few of them at a time.
 */
#ifndef GTTD_UNWANTED_H
#define GTTD_UNWANTED_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define UNWANTED_MAX 64

struct unwanted {
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* of the fields below */
    pthread_cond_t wake;
    int fds[UNWANTED_MAX]; /* a ring */
    uint32_t first, n;     /* n with the one that is being closed */
    bool stop;
};

/* -EAGAIN: no thread can be had. */
int unwanted_start(struct unwanted *unwanted);
/* Waits a second for the thread, and then goes without it. Accepts one that is all zero. */
void unwanted_stop(struct unwanted *unwanted);

/* Whether an fd may be accepted from a client: there is a place for it if it has to be closed. */
bool unwanted_has_room(struct unwanted *unwanted);
/* Close fd, some time. There is room. Accepts -1. */
void unwanted_close(struct unwanted *unwanted, int fd_consume);

#endif
