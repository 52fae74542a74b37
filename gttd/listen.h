/* SPDX-License-Identifier: MIT */
/* Where gttd listens: a socket from systemd, or one of its own that no other gttd is using. */
#ifndef GTTD_LISTEN_H
#define GTTD_LISTEN_H

#include <stdbool.h>
#include <sys/un.h>

#include "reason.h"

struct listen_socket {
    int fd;
    int lock_fd; /* PATH.lock, locked for as long as the socket is ours; -1 when activated */
    char path[sizeof((struct sockaddr_un *)0)->sun_path];
};

/*
 * In this order: the socket systemd passed (passed_fd, and how many there are of them; consumed);
 * option_path; $GTTD_SOCKET; as root
 * /run/gttd/gttd.sock; $XDG_RUNTIME_DIR/gttd.sock. A socket file that nobody listens on is
 * replaced. *why on failure. Errors: -EADDRINUSE another gttd is there, -EINVAL systemd's socket is
 * no AF_UNIX SOCK_SEQPACKET listener, -ENOENT no path to be had, those of bind().
 */
int listen_open(struct listen_socket *listener, int passed_fd, int n_passed,
                const char *option_path, struct reason *why);
/* Close, and remove the file if it is ours. */
void listen_close(struct listen_socket *listener);

#endif
