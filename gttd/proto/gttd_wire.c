/* SPDX-License-Identifier: MIT */
/* One message in, one message out: see gttd_wire.h. The checks are in gttd_decode.c. */
#include "gttd_wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "gttd_util.h"

/* Room for one fd. What does not fit the kernel drops without installing it, which unlike close()
 * never waits for a file system, and sets MSG_CTRUNC. Other ancillary data (credentials, pidfds) is
 * never asked for with a socket option, so it takes no room. */
union control {
    struct cmsghdr align;
    char buf[CMSG_SPACE(sizeof(int))];
};

int gttd_send(int sock, const struct gttd_hdr *msg, int fd)
{
    union control control = {0};
    struct iovec iov = {.iov_base = (void *)msg, .iov_len = msg->size};
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        mh.msg_control = control.buf;
        mh.msg_controllen = CMSG_SPACE(sizeof fd);
        struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    ssize_t n;
    do {
        n = sendmsg(sock, &mh, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return -errno;
    }
    return (size_t)n == msg->size ? 0 : -EMSGSIZE;
}

static int received_fd(struct msghdr *mh)
{
    int fd = -1;
    struct cmsghdr *c = CMSG_FIRSTHDR(mh);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof fd)) {
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
    }
    return fd;
}

int gttd_recv(int sock, int flags, union gttd_msg *msg, size_t *ret_size, int *ret_fd)
{
    union control control;
    struct iovec iov = {.iov_base = msg, .iov_len = sizeof *msg};
    struct msghdr mh = {.msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = ret_fd ? control.buf : NULL,
                        .msg_controllen = ret_fd ? CMSG_LEN(sizeof(int)) : 0};
    ssize_t n;
    if (ret_fd) {
        *ret_fd = -1;
    }
    do {
        n = recvmsg(sock, &mh, flags | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return -errno;
    }
    int fd = received_fd(&mh);
    if (ret_fd) {
        *ret_fd = fd;
    }
    if (mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
        return -EPROTO;
    }
    if (n == 0 && fd < 0) { /* an empty packet looks like this too: as good as a hang-up */
        return -ECONNRESET;
    }
    *ret_size = (size_t)n;
    return 0;
}

struct gttd_hdr gttd_header(size_t size, enum gttd_op op, uint32_t serial)
{
    return (struct gttd_hdr){.size = (uint32_t)size,
                             .op = (uint16_t)op,
                             .version = GTTD_PROTO_VERSION,
                             .serial = serial};
}

void gttd_set_text(char *field, size_t size, const char *text)
{
    size_t len = strnlen(text, size - 1);
    memcpy(field, text, len);
    memset(field + len, 0, size - len);
}

struct gttd_error gttd_error_reply(unsigned op, uint32_t serial, int status, const char *text)
{
    struct gttd_error msg = {gttd_header(sizeof msg, (enum gttd_op)op, serial), ""};
    msg.hdr.status = status;
    gttd_set_text(msg.reason, sizeof msg.reason, text);
    return msg;
}
