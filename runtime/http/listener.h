/* SPDX-License-Identifier: MIT */
/* From an address as people write it to a listening TCP socket. */
#ifndef HTTP_LISTENER_H
#define HTTP_LISTENER_H

#include <stdbool.h>

#include "err.h"

struct listener {
    int fd;        /* the caller's to close */
    char url[128]; /* "http://127.0.0.1:8006", with the port that was really bound */
    bool loopback; /* only this machine can reach it */
};

/*
 * address: "HOST:PORT" or "[IPv6]:PORT"; port 0 takes a free one. Errors: -EINVAL not of that form,
 * -EADDRINUSE, -EADDRNOTAVAIL, -EACCES, -ENOENT no such host, each with the address in *err.
 */
int listener_open(const char *address, struct err *err, struct listener *ret);

#endif
