/* SPDX-License-Identifier: MIT */
/* One connection: see client.h. */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "gttd_util.h"
#include "log.h"
#include "ops.h"
#include "server.h"

/* While anything is queued nothing is read, so that replies cannot pile up; late answers and events
 * can, up to here. */
#define OUT_MAX_BYTES   (256u << 10)
#define EVENT_MAX_BYTES (64u << 10) /* events stop earlier, and are counted */
#define HELLO_MS        5000        /* to say it; libgtt does so at once */
#define TURN_MESSAGES   16          /* per wake-up, so that a flood does not starve the others */

struct packet {
    struct list link;      /* client::out */
    int fd;                /* a duplicate, or -1 */
    struct gttd_hdr msg[]; /* msg->size bytes */
};

static void packet_destroy(struct client *client, struct packet *packet)
{
    list_remove(&packet->link);
    client->n_out_bytes -= packet->msg->size;
    close_fdp(&packet->fd);
    free(packet);
}

static void want_events(struct client *client)
{
    if (!client->dead) {
        bool queued = !list_empty(&client->out);
        loop_modify(client->server->loop, &client->source,
                    queued            ? EPOLLOUT
                    : client->closing ? 0
                                      : EPOLLIN);
    }
}

void client_kill(struct client *client, const char *why)
{
    if (client->dead) {
        return;
    }
    if (why) {
        log_line(LOG_WARNING, "client %s (uid %d, pid %d): disconnected: %s", client->owner.label,
                 (int)client->owner.uid, (int)client->owner.pid, why);
    }
    client->dead = true;
    loop_disarm(&client->hello);
    loop_remove(client->server->loop, &client->source);
    list_remove(&client->link);
    list_append(&client->server->dead, &client->link);
}

void client_finish(struct client *client)
{
    client->closing = true;
    if (list_empty(&client->out)) {
        client_kill(client, NULL);
    } else {
        want_events(client);
    }
}

static void enqueue(struct client *client, const struct gttd_hdr *msg, int fd)
{
    if (client->n_out_bytes + msg->size > OUT_MAX_BYTES) {
        client_kill(client, "it does not read its replies");
        return;
    }
    struct packet *packet = malloc(sizeof *packet + msg->size);
    if (!packet) {
        client_kill(client, "gttd itself is out of memory");
        return;
    }
    memcpy(packet->msg, msg, msg->size);
    packet->fd = -1;
    list_append(&client->out, &packet->link);
    client->n_out_bytes += msg->size;
    if (fd >= 0 && (packet->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)) < 0) {
        client_kill(client, "gttd itself is out of file descriptors");
    }
    want_events(client);
}

void client_send(struct client *client, const struct gttd_hdr *msg, int fd)
{
    if (client->dead) {
        return;
    }
    int r = list_empty(&client->out) ? gttd_send(client->source.fd, msg, fd) : -EAGAIN;
    if (r == -EAGAIN) {
        enqueue(client, msg, fd);
    } else if (r == -ETOOMANYREFS) {
        client_refuse(client, msg->op, msg->serial, r, "too many fds are waiting to be received");
    } else if (r < 0) {
        client_kill(client, r == -EPIPE || r == -ECONNRESET ? NULL : strerror(-r));
    }
}

void client_refuse(struct client *client, uint16_t op, uint32_t serial, int status,
                   const char *text)
{
    struct gttd_error msg = gttd_error_reply(op, serial, status, text);
    client_send(client, &msg.hdr, -1);
}

void client_send_event(struct client *client, const struct gttd_event *event)
{
    if (client->n_out_bytes + sizeof *event > EVENT_MAX_BYTES) {
        client->n_lost++;
        return;
    }
    if (client->n_lost) {
        struct gttd_event lost = {.hdr = gttd_header(sizeof lost, GTTD_OP_EVENT, 0),
                                  .kind = GTTD_EVENT_LOST,
                                  .uid = client->owner.uid,
                                  .n_lost = client->n_lost};
        client->n_lost = 0;
        client_send(client, &lost.hdr, -1);
    }
    client_send(client, &event->hdr, -1);
}

static void flush(struct client *client)
{
    list_for_each(pos, &client->out)
    {
        struct packet *packet = list_entry(pos, struct packet, link);
        int r = gttd_send(client->source.fd, packet->msg, packet->fd);
        if (r == -EAGAIN) {
            return;
        }
        if (r < 0) {
            client_kill(client, r == -EPIPE || r == -ECONNRESET ? NULL : strerror(-r));
            return;
        }
        packet_destroy(client, packet);
    }
    if (client->closing) {
        client_kill(client, NULL);
    } else {
        want_events(client);
    }
}

/* Have what one message asks for done; its fd is in client->received_fd. */
static void handle(struct client *client, const union gttd_msg *msg, size_t size)
{
    const char *why = NULL;
    bool with_fd = client->received_fd >= 0;
    int r = gttd_decode(GTTD_FROM_CLIENT, msg, size, &why);
    if (r == -EPROTONOSUPPORT && !with_fd && !client->greeted) {
        struct reason reason;
        reason_set(&reason, r, "this gttd speaks version %d of the protocol", GTTD_PROTO_VERSION);
        client_refuse(client, GTTD_OP_HELLO, 1, r, reason.text);
        client_finish(client);
    } else if (r < 0) {
        client_kill(client, why);
    } else if (gttd_wants_fd(GTTD_FROM_CLIENT, &msg->hdr) != with_fd) {
        client_kill(client, with_fd ? "an fd with a message that has none" : "GIVE without an fd");
    } else {
        ops_handle(client, msg);
    }
}

/* Take one message off the socket and have it done. False: there is none, or no more turn. Fds are
 * received only where one is due: see unwanted.h. */
static bool receive(struct client *client)
{
    union gttd_msg msg;
    size_t size;
    struct unwanted *unwanted = &client->server->unwanted;
    bool fd_due = pool_expects_fd(&client->owner) && unwanted_has_room(unwanted);
    client->received_fd = -1;
    int r = gttd_recv(client->source.fd, MSG_DONTWAIT, &msg, &size,
                      fd_due ? &client->received_fd : NULL);
    if (r == -EAGAIN) {
        return false;
    }
    if (r < 0) {
        client_kill(client, r == -ECONNRESET ? NULL : "a message too long, or an fd too many");
    } else {
        handle(client, &msg, size);
    }
    unwanted_close(unwanted, take_fd(&client->received_fd));
    return !client->dead && !client->closing && list_empty(&client->out);
}

static void on_ready(struct source *source, uint32_t events)
{
    struct client *client = list_entry(source, struct client, source);
    if (client->dead) {
        return;
    }
    if (!list_empty(&client->out)) {
        flush(client);
        if (!client->dead && !list_empty(&client->out) && (events & (EPOLLHUP | EPOLLERR))) {
            client_kill(client, NULL);
        }
        return;
    }
    for (int i = 0; i < TURN_MESSAGES && receive(client); i++) {
    }
}

static void on_silence(struct timer *timer)
{
    client_kill(list_entry(timer, struct client, hello), "it has not said HELLO in time");
}

int client_create(struct server *server, int fd_consume, const struct owner *owner,
                  struct client **ret)
{
    AUTO_FD fd = fd_consume;
    struct client *client = calloc(1, sizeof *client);
    if (!client) {
        return -ENOMEM;
    }
    client->source = (struct source){.fd = fd, .ready = on_ready};
    client->hello.expired = on_silence;
    list_init(&client->hello.link);
    client->server = server;
    client->received_fd = -1;
    client->owner = *owner;
    list_init(&client->owner.leases);
    list_init(&client->owner.pendings);
    list_init(&client->out);
    int r = loop_add(server->loop, &client->source, EPOLLIN);
    if (r < 0) {
        free(client);
        return r;
    }
    take_fd(&fd);
    client->owner.account->n_clients++;
    list_append(&server->clients, &client->link);
    loop_arm(server->loop, &client->hello, loop_now_ms() + HELLO_MS);
    *ret = client;
    return 0;
}

void client_destroy(struct client *client)
{
    list_for_each(pos, &client->out)
    {
        packet_destroy(client, list_entry(pos, struct packet, link));
    }
    list_remove(&client->link);
    close_fdp(&client->source.fd);
    client->owner.account->n_clients--;
    quota_put(client->owner.account);
    free(client);
}
