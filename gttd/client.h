/* SPDX-License-Identifier: MIT */
/*
 * One connection: its peer, its bounded output queue, its end. What the messages mean is ops.h's.
 *
 * A client that is killed stays in memory, silent and removed from the loop, until server_reap().
 */
#ifndef GTTD_CLIENT_H
#define GTTD_CLIENT_H

#include <stdbool.h>

#include "gttd_wire.h"
#include "loop.h"
#include "segment.h"

struct server;

struct client {
    struct source source; /* the socket; loop */
    struct list link;     /* server::clients or server::dead */
    struct timer hello;   /* armed until it has said HELLO */
    struct server *server;
    struct owner owner;
    bool greeted; /* HELLO was answered */
    bool dead;
    bool closing; /* no more reading; dead when the output queue is empty */
    bool watching;
    int received_fd; /* that came with the request being handled; -1: none, or it was taken */
    uint32_t n_lost; /* events dropped since the last that was sent */
    struct list out; /* struct packet */
    size_t n_out_bytes;
};

/* Consumes fd also on failure. owner.account is taken over on success. -ENOMEM or of epoll. */
int client_create(struct server *server, int fd_consume, const struct owner *owner,
                  struct client **ret);
/* Closes the connection and frees it; its holds in the pool have been given back. */
void client_destroy(struct client *client);

/* Send now or queue it; fd (or -1) is borrowed. A client that has too much queued is killed. */
void client_send(struct client *client, const struct gttd_hdr *msg, int fd);
/* Send a failure. */
void client_refuse(struct client *client, uint16_t op, uint32_t serial, int status,
                   const char *text);
/* Send an event, or count it as lost if the client reads too slowly. */
void client_send_event(struct client *client, const struct gttd_event *event);

/* End it, and log why unless NULL (it just left). */
void client_kill(struct client *client, const char *why);
/* End it once everything queued has been sent. */
void client_finish(struct client *client);

#endif
