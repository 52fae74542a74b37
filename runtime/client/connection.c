/* SPDX-License-Identifier: MIT */
/* Connecting, requests and replies: see connection.h and gtt.h. */
#include "connection.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#include "gttd_util.h"

#define CONNECT_TIMEOUT_MS 5000  /* a listener whose backlog is full */
#define HELLO_TIMEOUT_MS   60000 /* one that has yet to be started, and reserves its pool then */

static _Thread_local char connect_error[512];

int gtt_fail(struct gtt *gtt, int r, const char *fmt, ...)
{
    char text[sizeof gtt->error]; /* the old sentence may be part of the new one */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    memcpy(gtt->error, text, sizeof text);
    return r;
}

const char *gtt_last_error(const struct gtt *gtt)
{
    return gtt ? gtt->error : connect_error;
}

int gtt_fd(const struct gtt *gtt)
{
    return gtt->fd;
}

int gtt_lost(struct gtt *gtt, int r, const char *why)
{
    close_fdp(&gtt->fd);
    gtt->link = LINK_ENDED;
    gtt->lost_errno = r;
    return gtt_fail(gtt, r, "gttd at %s: %s", gtt->path, why);
}

int gtt_copy_name(struct gtt *gtt, const char *name, char ret[static GTTD_NAME_SIZE])
{
    if (!name || !gttd_name_valid(name)) {
        return gtt_fail(gtt, -EINVAL,
                        "a segment's name is 1 to %d printable ASCII characters without space",
                        GTT_NAME_MAX);
    }
    strcpy(ret, name);
    return 0;
}

int64_t gtt_now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int say_lost(struct gtt *gtt)
{
    return gtt_fail(gtt, gtt->link == LINK_BROKEN ? -ECONNRESET : gtt->lost_errno,
                    "gttd at %s: the connection was lost", gtt->path);
}

/* gttd has ended the connection: another gttd may go on with it. */
static int say_broken(struct gtt *gtt)
{
    gtt->link = LINK_BROKEN;
    return gtt_fail(gtt, -ECONNRESET, "gttd at %s: it has ended the connection", gtt->path);
}

int gtt_request(struct gtt *gtt, struct gttd_hdr *req, size_t size, enum gttd_op op, int fd,
                uint32_t *ret_serial)
{
    if (gtt->link != LINK_UP) {
        return say_lost(gtt);
    }
    gtt->last_serial = gtt->last_serial == UINT32_MAX ? 1 : gtt->last_serial + 1;
    *req = gttd_header(size, op, gtt->last_serial);
    const char *why = NULL;
    if (gttd_decode(GTTD_FROM_CLIENT, req, size, &why) < 0) { /* gttd would hang up on us */
        return gtt_fail(gtt, -EINVAL, "%s", why);
    }
    int r = gttd_send(gtt->fd, req, fd);
    /* when gttd has hung up, its last words may still be there to be received */
    if (r < 0 && r != -EPIPE && r != -ECONNRESET) {
        return gtt_lost(gtt, r, strerror(-r));
    }
    *ret_serial = gtt->last_serial;
    return 0;
}

void gtt_keep_event(struct gtt *gtt, const struct gttd_event *event)
{
    if (!gtt->events || gtt->n_events == GTT_EVENTS_MAX) {
        gtt->n_events_lost += event->kind == GTTD_EVENT_LOST && event->n_lost ? event->n_lost : 1;
        return;
    }
    gtt->events[(gtt->events_first + gtt->n_events++) % GTT_EVENTS_MAX] = *event;
}

/* Take one packet; poll first if there is a timeout. */
static int receive(struct gtt *gtt, int timeout_ms, union gttd_msg *msg, size_t *ret_size,
                   int *ret_fd)
{
    if (timeout_ms >= 0) {
        struct pollfd pfd = {.fd = gtt->fd, .events = POLLIN};
        int n;
        do {
            n = poll(&pfd, 1, timeout_ms);
        } while (n < 0 && errno == EINTR);
        if (n <= 0) {
            return n < 0 ? -errno : -ETIMEDOUT;
        }
    }
    int r = gttd_recv(gtt->fd, 0, msg, ret_size, ret_fd);
    if (r == -ECONNRESET) { /* reported before what gttd had sent until then */
        r = gttd_recv(gtt->fd, MSG_DONTWAIT, msg, ret_size, ret_fd);
        r = r == -EAGAIN ? -ECONNRESET : r;
    }
    return r;
}

/* Take one packet and check it. 0: *msg is a reply; 1: it was an event, which is kept. */
static int receive_message(struct gtt *gtt, int timeout_ms, union gttd_msg *msg, int *ret_fd)
{
    size_t size;
    AUTO_FD fd = -1;
    if (gtt->link != LINK_UP) {
        return say_lost(gtt);
    }
    int r = receive(gtt, timeout_ms, msg, &size, &fd);
    if (r == -ETIMEDOUT) {
        return gtt_fail(gtt, r, "gttd at %s: no answer in time", gtt->path);
    }
    if (r == -ECONNRESET) {
        return say_broken(gtt);
    }
    if (r < 0) {
        return gtt_lost(gtt, r, strerror(-r));
    }
    const char *why = NULL;
    if (gttd_decode(GTTD_FROM_DAEMON, msg, size, &why) < 0) {
        return gtt_lost(gtt, -EPROTO, why);
    }
    if (gttd_wants_fd(GTTD_FROM_DAEMON, &msg->hdr) != (fd >= 0)) {
        return gtt_lost(gtt, -EPROTO, "an fd too many or none where one belongs");
    }
    if (msg->hdr.op == GTTD_OP_EVENT) {
        gtt_keep_event(gtt, &msg->event);
        return 1;
    }
    *ret_fd = take_fd(&fd);
    return 0;
}

int gtt_reply(struct gtt *gtt, enum gttd_op op, uint32_t serial, int timeout_ms, const char *what,
              union gttd_msg *ret, int *ret_fd)
{
    int64_t deadline_ms = gtt_now_ms() + timeout_ms;
    AUTO_FD fd = -1;
    int r;
    do {
        int64_t left_ms = timeout_ms < 0 ? -1 : deadline_ms - gtt_now_ms();
        left_ms = timeout_ms >= 0 && left_ms < 0 ? 0 : left_ms;
        r = receive_message(gtt, (int)left_ms, ret, &fd);
    } while (r == 1);
    if (r < 0) {
        return r == -ETIMEDOUT ? r : gtt_fail(gtt, r, "%s: %s", what, gtt->error);
    }
    if (ret->hdr.op != op || ret->hdr.serial != serial) {
        return gtt_lost(gtt, -EPROTO, "an answer to another request");
    }
    if (ret->hdr.status < 0) {
        return gtt_fail(gtt, ret->hdr.status, "%s: %s", what, ret->error.reason);
    }
    if (ret_fd) {
        *ret_fd = take_fd(&fd);
    }
    return 0;
}

int gtt_call_once(struct gtt *gtt, struct gttd_hdr *req, size_t size, enum gttd_op op,
                  const char *what, union gttd_msg *ret, int *ret_fd)
{
    uint32_t serial;
    int r = gtt_request(gtt, req, size, op, -1, &serial);
    return r < 0 ? r : gtt_reply(gtt, op, serial, -1, what, ret, ret_fd);
}

int gtt_after(struct gtt *gtt, int r)
{
    char said[sizeof gtt->error];
    if (r != -ECONNRESET && r != -ESHUTDOWN) {
        return r;
    }
    if (gtt->link == LINK_UP) { /* -ESHUTDOWN: it is about to end the connection */
        gtt->link = LINK_BROKEN;
    }
    if (gtt->link == LINK_ENDED) {
        return r;
    }
    memcpy(said, gtt->error, sizeof said);
    int r_restore = gtt_restore(gtt, -1);
    if (r_restore == -ECONNRESET && r == -ESHUTDOWN) {
        memcpy(gtt->error, said, sizeof said);
        return r;
    }
    return r_restore < 0 ? r_restore : -ERESTART;
}

int gtt_call(struct gtt *gtt, struct gttd_hdr *req, size_t size, enum gttd_op op, const char *what,
             union gttd_msg *ret, int *ret_fd)
{
    return gtt_after(gtt, gtt_call_once(gtt, req, size, op, what, ret, ret_fd));
}

int gtt_receive_event(struct gtt *gtt, int timeout_ms)
{
    union gttd_msg msg;
    int fd = -1;
    int r = receive_message(gtt, timeout_ms, &msg, &fd);
    close_fdp(&fd);
    return r == 0 ? gtt_lost(gtt, -EPROTO, "an answer to no request") : r < 0 ? r : 0;
}

static int say_hello(struct gtt *gtt, int timeout_ms)
{
    struct gttd_hello_req req = {0};
    union gttd_msg rsp;
    uint32_t serial;
    memcpy(req.label, gtt->label, sizeof req.label);
    int r = gtt_request(gtt, &req.hdr, sizeof req, GTTD_OP_HELLO, -1, &serial);
    if (r == 0) {
        r = gtt_reply(gtt, GTTD_OP_HELLO, serial, timeout_ms, gtt->path, &rsp, NULL);
    }
    if (r == 0) {
        gtt->hello = rsp.hello_rsp;
    }
    return r;
}

int gtt_dial(struct gtt *gtt, int hello_timeout_ms)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, gtt->path, sizeof addr.sun_path);
    close_fdp(&gtt->fd);
    gtt->last_serial = 0;
    gtt->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (gtt->fd < 0) {
        return gtt_fail(gtt, -errno, "socket: %s", strerror(errno));
    }
    /* for connect(), which waits while a gttd that hangs has a full backlog; and not for sending */
    struct timeval limit = {.tv_sec = CONNECT_TIMEOUT_MS / 1000}, no_limit = {0};
    setsockopt(gtt->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    int r;
    do {
        r = connect(gtt->fd, (struct sockaddr *)&addr, sizeof addr) < 0 ? -errno : 0;
    } while (r == -EINTR);
    r = r == -EAGAIN ? -ETIMEDOUT : r;
    if (r < 0) {
        return gtt_fail(gtt, r, "no gttd at %s: %s", gtt->path, strerror(-r));
    }
    setsockopt(gtt->fd, SOL_SOCKET, SO_SNDTIMEO, &no_limit, sizeof no_limit);
    gtt->link = LINK_UP;
    return say_hello(gtt, hello_timeout_ms);
}

static int set_path(struct gtt *gtt, const char *dir, const char *file)
{
    int n = snprintf(gtt->path, sizeof gtt->path, "%s%s", dir, file);
    if (n <= 0 || (size_t)n >= sizeof gtt->path) {
        return gtt_fail(gtt, -ENAMETOOLONG, "%s%s: not the path of a socket", dir, file);
    }
    return 0;
}

static int try_paths(struct gtt *gtt, const char *socket_path)
{
    const char *env = secure_getenv("GTTD_SOCKET");
    const char *runtime_dir = secure_getenv("XDG_RUNTIME_DIR");
    const char *only = socket_path ? socket_path : env && *env ? env : NULL;
    int r;
    if (only) {
        r = set_path(gtt, only, "");
        return r < 0 ? r : gtt_dial(gtt, HELLO_TIMEOUT_MS);
    }
    char user_error[sizeof gtt->error] = "";
    if (runtime_dir && *runtime_dir) {
        r = set_path(gtt, runtime_dir, "/gttd.sock");
        if (r == 0) {
            r = gtt_dial(gtt, HELLO_TIMEOUT_MS);
        }
        if (r == 0) {
            return 0;
        }
        snprintf(user_error, sizeof user_error, "%.250s; ", gtt->error);
    }
    r = set_path(gtt, "/run/gttd", "/gttd.sock");
    if (r == 0) {
        r = gtt_dial(gtt, HELLO_TIMEOUT_MS);
    }
    return r < 0 ? gtt_fail(gtt, r, "%.250s%.250s", user_error, gtt->error) : 0;
}

static int set_label(struct gtt *gtt, const char *label)
{
    size_t size = strnlen(label, sizeof gtt->label);
    if (size == sizeof gtt->label) {
        return gtt_fail(gtt, -EINVAL, "a label has at most %zu bytes", sizeof gtt->label - 1);
    }
    memcpy(gtt->label, label, size);
    return 0;
}

int gtt_connect(const char *socket_path, const char *label, struct gtt **ret)
{
    struct gtt *gtt = calloc(1, sizeof *gtt);
    if (!gtt) {
        snprintf(connect_error, sizeof connect_error, "out of memory");
        return -ENOMEM;
    }
    gtt->fd = -1;
    gtt->link = LINK_ENDED;
    int r = set_label(gtt, label ? label : "");
    if (r == 0) {
        r = try_paths(gtt, socket_path);
    }
    if (r < 0) {
        memcpy(connect_error, gtt->error, sizeof connect_error);
        gtt_disconnect(gtt);
        return r;
    }
    *ret = gtt;
    return 0;
}

void gtt_disconnect(struct gtt *gtt)
{
    if (!gtt) {
        return;
    }
    while (gtt->claims) {
        struct claim *claim = gtt->claims;
        gtt->claims = claim->next;
        free(claim);
    }
    close_fdp(&gtt->fd);
    free(gtt->events);
    free(gtt);
}

void gtt_get_info(const struct gtt *gtt, struct gtt_info *ret)
{
    *ret = (struct gtt_info){
        .is_dmabuf = gtt->hello.flags & GTTD_HEAP_DMABUF,
        .restart_loses_pool = gtt->hello.flags & GTTD_RESTART_LOSES_POOL,
        .chunk_max_bytes = gtt->hello.chunk_max_bytes,
        .socket_path = gtt->path,
    };
    memcpy(ret->daemon_version, gtt->hello.version, sizeof ret->daemon_version);
    memcpy(ret->heap, gtt->hello.heap, sizeof ret->heap);
}
