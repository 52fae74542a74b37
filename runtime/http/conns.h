/* SPDX-License-Identifier: MIT */
/*
 * The open connections, as far as deadlines go: a client has a bounded time to send a whole
 * request, however it trickles, and a server that stops waits a bounded time for answers under way.
 * Knows sockets; knows nothing of HTTP.
 */
#ifndef HTTP_CONNS_H
#define HTTP_CONNS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conn; /* one connection */

struct conns {
    uint32_t receive_timeout_ms;
    pthread_mutex_t lock;
    pthread_cond_t idle; /* n_busy became 0 */
    struct conn *first;
    size_t n_busy; /* connections whose request is complete and not yet answered */
};

void conns_init(struct conns *conns, uint32_t receive_timeout_ms);
void conns_finish(struct conns *conns); /* after the last conns_remove() */

/* fd is borrowed until conns_remove(). NULL: no memory. */
struct conn *conns_add(struct conns *conns, int fd);
void conns_remove(struct conns *conns, struct conn *conn); /* accepts NULL */

/* A whole request has arrived; or its answer is sent or given up, and the next may come. */
void conns_set_busy(struct conns *conns, struct conn *conn, bool busy);

/* Shut down the sockets of those who are late. */
void conns_reap(struct conns *conns);

/* Wait until no connection is busy. -ETIMEDOUT. */
int conns_wait_idle(struct conns *conns, uint32_t timeout_ms);

#endif
