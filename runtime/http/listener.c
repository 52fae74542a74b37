/* SPDX-License-Identifier: MIT */
/* Opens the listening socket: see listener.h. */
#include "listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "gttd_util.h"

/* Split "[::1]:8006" or "localhost:8006" at the port. */
static int split(const char *address, char *host, size_t capacity, const char **ret_port,
                 struct err *err)
{
    const char *colon = strrchr(address, ':');
    const char *start = address, *end = colon;
    if (!colon || colon == address || strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
        strlen(colon + 1) < 1 || strlen(colon + 1) > 5) {
        return err_set(err, -EINVAL, "%s: must be HOST:PORT or [IPv6]:PORT", address);
    }
    if (*start == '[' && end[-1] == ']') {
        start++;
        end--;
    } else if (memchr(start, ':', (size_t)(end - start))) {
        return err_set(err, -EINVAL, "%s: write an IPv6 address in brackets", address);
    }
    if (start >= end || *start == '[' || (size_t)(end - start) >= capacity) {
        return err_set(err, -EINVAL, "%s: must be HOST:PORT or [IPv6]:PORT", address);
    }
    memcpy(host, start, (size_t)(end - start));
    host[end - start] = '\0';
    *ret_port = colon + 1;
    return 0;
}

static bool is_loopback(const struct sockaddr_storage *sa)
{
    if (sa->ss_family == AF_INET6) {
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)sa)->sin6_addr);
    }
    return ntohl(((const struct sockaddr_in *)sa)->sin_addr.s_addr) >> 24 == 127;
}

static int describe(struct listener *listener)
{
    struct sockaddr_storage sa;
    socklen_t size = sizeof sa;
    char host[64], port[8];
    if (getsockname(listener->fd, (struct sockaddr *)&sa, &size) < 0) {
        return -errno;
    }
    if (getnameinfo((struct sockaddr *)&sa, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return -EINVAL;
    }
    bool v6 = sa.ss_family == AF_INET6;
    snprintf(listener->url, sizeof listener->url, v6 ? "http://[%s]:%s" : "http://%s:%s", host,
             port);
    listener->loopback = is_loopback(&sa);
    return 0;
}

static int bind_one(const struct addrinfo *ai, int *ret_fd)
{
    int on = 1;
    AUTO_FD fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, SOMAXCONN) < 0) {
        return -errno;
    }
    *ret_fd = take_fd(&fd);
    return 0;
}

int listener_open(const char *address, struct err *err, struct listener *ret)
{
    char host[256];
    const char *port = NULL;
    int r = split(address, host, sizeof host, &port, err);
    if (r < 0) {
        return r;
    }
    if (strtoul(port, NULL, 10) > 65535) {
        return err_set(err, -EINVAL, "%s: no such port", address);
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_PASSIVE};
    struct addrinfo *found = NULL;
    int gai = getaddrinfo(host, port, &hints, &found);
    if (gai != 0) {
        return err_set(err, -ENOENT, "%s: %s", address, gai_strerror(gai));
    }
    struct listener listener = {.fd = -1};
    r = -EADDRNOTAVAIL;
    for (const struct addrinfo *ai = found; ai && listener.fd < 0; ai = ai->ai_next) {
        r = bind_one(ai, &listener.fd);
    }
    freeaddrinfo(found);
    if (r == 0) {
        r = describe(&listener);
    }
    if (r < 0) {
        close_fdp(&listener.fd);
        return err_set(err, r, "cannot listen on %s: %s", address, strerror(-r));
    }
    *ret = listener;
    return 0;
}
