/* SPDX-License-Identifier: MIT */
/*
 * The server: the listening socket, the set of clients, news for the watchers among them, and the
 * orderly end. The rules about memory are the pool's.
 */
#ifndef GTTD_SERVER_H
#define GTTD_SERVER_H

#include "loop.h"
#include "pool.h"
#include "unwanted.h"

struct server {
    struct loop *loop;
    struct source listener; /* fd -1 when draining */
    struct pool pool;
    struct list clients; /* struct client */
    struct list dead;    /* struct client, until server_reap() */
    uint32_t n_clients;  /* of both lists */
    uint32_t n_watchers;
    struct unwanted unwanted; /* fds that clients have sent */
    int spare_fd; /* given up for a moment to refuse a connection when fds have run out */
    bool draining;
};

/* Starts to accept. listen_fd stays the caller's. */
int server_init(struct server *server, struct loop *loop, int listen_fd, struct heap *heap,
                struct worker *worker, const struct limits *limits);
/* Every client away and all its holds given back; the worker may still be at it. */
void server_disconnect_all(struct server *server);
/* After server_disconnect_all() and worker_stop(). */
void server_finish(struct server *server);

/* No more connections and requests: answer what waits, flush, and stop the loop when that is done
 * or after timeout_ms. */
void server_drain(struct server *server, int timeout_ms);

#endif
