/* SPDX-License-Identifier: MIT */
/* Listener and clients: see server.h. */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <string.h>
#include <sys/socket.h>

#include "client.h"
#include "gttd_util.h"
#include "log.h"
#include "ops.h"

#define ACCEPTS_PER_TURN 16
/* Bounds what a client that does not read can keep in flight: messages, and fds with them. */
#define SEND_BUFFER_BYTES (64 << 10)

static int open_spare(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* For a connection that gets no client: say why, as far as the socket takes it at once. */
static void turn_away(int fd, int status, const char *text)
{
    struct gttd_error msg = gttd_error_reply(GTTD_OP_HELLO, 1, status, text);
    gttd_send(fd, &msg.hdr, -1);
}

/* Out of fds: the connection would stay in the backlog and wake us for ever. */
static void refuse_for_want_of_fds(struct server *server)
{
    close_fdp(&server->spare_fd);
    AUTO_FD fd = accept4(server->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        turn_away(fd, -EUSERS, "gttd is out of file descriptors");
        log_line(LOG_WARNING, "out of file descriptors: a connection was refused");
    }
    close_fdp(&fd);
    server->spare_fd = open_spare();
}

static int admit(struct server *server, int fd, struct owner *owner, struct reason *why)
{
    const struct limits *limits = &server->pool.limits;
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) {
        return reason_set(why, -errno, "SO_PEERCRED: %s", strerror(errno));
    }
    if (server->n_clients >= limits->clients_max) {
        return reason_set(why, -EUSERS, "gttd has %u connections, the most it takes",
                          server->n_clients);
    }
    struct account *account = quota_get(&server->pool.quota, peer.uid);
    if (!account) {
        return reason_set(why, -ENOMEM, "gttd itself is out of memory");
    }
    if (account->n_clients >= limits->clients_per_user) {
        quota_put(account);
        return reason_set(why, -EUSERS, "this user has %u connections, the most there may be",
                          limits->clients_per_user);
    }
    *owner = (struct owner){.uid = peer.uid, .pid = peer.pid, .account = account};
    return 0;
}

static void welcome(struct server *server, int fd_consume)
{
    AUTO_FD fd = fd_consume;
    int bytes = SEND_BUFFER_BYTES;
    struct owner owner;
    struct client *client;
    struct reason why;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    int r = admit(server, fd, &owner, &why);
    if (r < 0) {
        turn_away(fd, r, why.text);
        return;
    }
    r = client_create(server, take_fd(&fd), &owner, &client);
    if (r < 0) {
        log_line(LOG_WARNING, "uid %d, pid %d: cannot be served: %s", (int)owner.uid,
                 (int)owner.pid, strerror(-r));
        quota_put(owner.account);
        return;
    }
    server->n_clients++;
}

static void on_connection(struct source *source, uint32_t events)
{
    struct server *server = list_entry(source, struct server, listener);
    (void)events;
    for (int i = 0; i < ACCEPTS_PER_TURN && server->listener.fd >= 0; i++) {
        int fd = accept4(server->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            welcome(server, fd);
        } else if (errno == EMFILE || errno == ENFILE) {
            refuse_for_want_of_fds(server);
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return; /* EAGAIN: no more */
        }
    }
}

/* pool::notify, and for clients that leave (segment NULL) */
static void tell_watchers(void *data, enum gttd_event_kind kind, const struct segment *segment,
                          const struct owner *owner)
{
    struct server *server = data;
    if (!server->n_watchers) {
        return;
    }
    uid_t uid = segment ? segment->account->uid : owner->uid;
    struct gttd_event event = {.hdr = gttd_header(sizeof event, GTTD_OP_EVENT, 0),
                               .kind = kind,
                               .uid = uid};
    if (owner) {
        event.pid = owner->pid;
        memcpy(event.label, owner->label, sizeof event.label);
    }
    if (segment) {
        event.id = segment->id;
        event.size_bytes = segment->memory ? segment->memory->size_bytes : 0;
        memcpy(event.name, segment->name, sizeof event.name);
    }
    list_for_each(pos, &server->clients)
    {
        struct client *client = list_entry(pos, struct client, link);
        if (client->watching && pool_shows(&server->pool, &client->owner, uid)) {
            client_send_event(client, &event);
        }
    }
}

/* loop::after. What the dead held may make others' requests succeed, and sending that may kill
 * more: so until none is left. */
static void server_reap(void *data)
{
    struct server *server = data;
    bool some = !list_empty(&server->dead);
    while (!list_empty(&server->dead)) {
        struct client *client = list_entry(server->dead.next, struct client, link);
        pool_owner_gone(&server->pool, &client->owner);
        server->n_watchers -= client->watching;
        tell_watchers(server, GTTD_EVENT_CLIENT_GONE, NULL, &client->owner);
        client_destroy(client);
        server->n_clients--;
    }
    if (some && list_empty(&server->clients)) {
        malloc_trim(0); /* megabytes of events may have waited for watchers that did not read */
    }
    if (!server->draining) {
        pool_trim(&server->pool);
    } else if (list_empty(&server->clients)) {
        server->loop->stop = true;
    }
}

int server_init(struct server *server, struct loop *loop, int listen_fd, struct heap *heap,
                struct worker *worker, const struct limits *limits)
{
    *server = (struct server){.loop = loop,
                              .listener = {.fd = listen_fd, .ready = on_connection},
                              .spare_fd = open_spare()};
    list_init(&server->clients);
    list_init(&server->dead);
    pool_init(&server->pool, heap, worker, limits);
    server->pool.answer = ops_answer;
    server->pool.notify = tell_watchers;
    server->pool.data = server;
    loop->after = server_reap;
    loop->after_data = server;
    int r = unwanted_start(&server->unwanted);
    return r < 0 ? r : loop_add(loop, &server->listener, EPOLLIN);
}

void server_drain(struct server *server, int timeout_ms)
{
    if (server->draining) {
        return;
    }
    server->draining = true;
    loop_remove(server->loop, &server->listener);
    server->listener.fd = -1;
    server->loop->deadline_ms = loop_now_ms() + timeout_ms;
    pool_shut_down(&server->pool);
    list_for_each(pos, &server->clients)
    {
        client_finish(list_entry(pos, struct client, link));
    }
}

void server_disconnect_all(struct server *server)
{
    list_for_each(pos, &server->clients)
    {
        client_kill(list_entry(pos, struct client, link), NULL);
    }
    server_reap(server);
}

void server_finish(struct server *server)
{
    pool_finish(&server->pool);
    unwanted_stop(&server->unwanted);
    close_fdp(&server->spare_fd);
}
