/* SPDX-License-Identifier: MIT */
/* The listening socket: see listen.h. */
#include "listen.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "gttd_util.h"

#define SYSTEM_DIR  "/run/gttd"
#define SYSTEM_PATH SYSTEM_DIR "/gttd.sock"
#define GROUP       "render"

static int take_activated(struct listen_socket *listener, int fd, int n, struct reason *why)
{
    if (n > 1) {
        return reason_set(why, -EINVAL, "systemd passed %d sockets instead of one", n);
    }
    if (sd_is_socket_unix(fd, SOCK_SEQPACKET, 1, NULL, 0) <= 0) {
        return reason_set(why, -EINVAL,
                          "systemd's socket is no listening AF_UNIX SOCK_SEQPACKET socket");
    }
    /* accept() must not block when a connection is gone again before we are at it */
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        return reason_set(why, -errno, "systemd's socket: %s", strerror(errno));
    }
    struct sockaddr_un addr = {0};
    socklen_t size = sizeof addr - 1;
    if (getsockname(fd, (struct sockaddr *)&addr, &size) == 0) {
        snprintf(listener->path, sizeof listener->path, "%s", addr.sun_path);
    }
    listener->fd = fd;
    return 0;
}

static int choose_path(struct listen_socket *listener, const char *option_path, struct reason *why)
{
    const char *env = secure_getenv("GTTD_SOCKET");
    const char *runtime_dir = secure_getenv("XDG_RUNTIME_DIR");
    int n;
    if (option_path) {
        n = snprintf(listener->path, sizeof listener->path, "%s", option_path);
    } else if (env && *env) {
        n = snprintf(listener->path, sizeof listener->path, "%s", env);
    } else if (geteuid() == 0) {
        n = snprintf(listener->path, sizeof listener->path, "%s", SYSTEM_PATH);
        if (mkdir(SYSTEM_DIR, 0755) < 0 && errno != EEXIST) {
            return reason_set(why, -errno, "%s: %s", SYSTEM_DIR, strerror(errno));
        }
    } else if (runtime_dir && *runtime_dir) {
        n = snprintf(listener->path, sizeof listener->path, "%s/gttd.sock", runtime_dir);
    } else {
        return reason_set(why, -ENOENT, "no place for the socket: set XDG_RUNTIME_DIR or --socket");
    }
    if (n <= 0 || (size_t)n >= sizeof listener->path) {
        return reason_set(why, -ENAMETOOLONG, "a socket's path has at most %zu bytes",
                          sizeof listener->path - 1);
    }
    return 0;
}

/* Whoever holds the lock may replace the socket file. The lock file stays: to remove it would let
 * two processes lock two files of that name. */
static int lock_path(struct listen_socket *listener, struct reason *why)
{
    char path[sizeof listener->path + 8];
    snprintf(path, sizeof path, "%s.lock", listener->path);
    listener->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (listener->lock_fd < 0) {
        return reason_set(why, -errno, "%s: %s", path, strerror(errno));
    }
    if (flock(listener->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        return reason_set(why, errno == EWOULDBLOCK ? -EADDRINUSE : -errno,
                          "another gttd is using %s", listener->path);
    }
    return 0;
}

/* A socket file may also be systemd's, which takes no lock. */
static int remove_stale(const struct sockaddr_un *addr, struct reason *why)
{
    struct stat st;
    if (lstat(addr->sun_path, &st) < 0) {
        return 0;
    }
    if (!S_ISSOCK(st.st_mode)) {
        return reason_set(why, -EEXIST, "%s exists and is no socket", addr->sun_path);
    }
    AUTO_FD fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return reason_set(why, -errno, "socket: %s", strerror(errno));
    }
    if (connect(fd, (const struct sockaddr *)addr, sizeof *addr) == 0 || errno != ECONNREFUSED) {
        return reason_set(why, -EADDRINUSE, "somebody is listening on %s", addr->sun_path);
    }
    if (unlink(addr->sun_path) < 0 && errno != ENOENT) {
        return reason_set(why, -errno, "removing the stale %s: %s", addr->sun_path,
                          strerror(errno));
    }
    return 0;
}

/*
 * Make the socket file with the mode and group it is to have. Not by chmod() and chown()
 * afterwards: those go by the path, behind which may by then be something else, where others may
 * write to the directory. As root, the group of the GPU's users may connect, everyone else may not.
 */
static int bind_private(int fd, const struct sockaddr_un *addr)
{
    const struct group *group = geteuid() == 0 ? getgrnam(GROUP) : NULL;
    gid_t own_gid = getegid();
    bool to_group = group && setegid(group->gr_gid) == 0;
    mode_t own_mask = umask(to_group ? 0117 : 0177);
    int r = bind(fd, (const struct sockaddr *)addr, sizeof *addr) < 0 ? -errno : 0;
    umask(own_mask);
    if (to_group && setegid(own_gid) < 0) {
        return -errno;
    }
    return r;
}

static int bind_path(struct listen_socket *listener, struct reason *why)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, listener->path, sizeof addr.sun_path);
    int r = remove_stale(&addr, why);
    if (r < 0) {
        return r;
    }
    AUTO_FD fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return reason_set(why, -errno, "socket: %s", strerror(errno));
    }
    r = bind_private(fd, &addr);
    if (r < 0) {
        return reason_set(why, r, "%s: %s", listener->path, strerror(-r));
    }
    if (listen(fd, SOMAXCONN) < 0) {
        r = reason_set(why, -errno, "%s: %s", listener->path, strerror(errno));
        unlink(listener->path);
        return r;
    }
    listener->fd = take_fd(&fd);
    return 0;
}

int listen_open(struct listen_socket *listener, int passed_fd, int n_passed,
                const char *option_path, struct reason *why)
{
    *listener = (struct listen_socket){.fd = -1, .lock_fd = -1};
    if (n_passed) {
        return take_activated(listener, passed_fd, n_passed, why);
    }
    int r = choose_path(listener, option_path, why);
    if (r == 0) {
        r = lock_path(listener, why);
    }
    if (r == 0) {
        r = bind_path(listener, why);
    }
    if (r < 0) {
        close_fdp(&listener->lock_fd);
    }
    return r;
}

void listen_close(struct listen_socket *listener)
{
    if (listener->fd >= 0 && listener->lock_fd >= 0) {
        unlink(listener->path);
    }
    close_fdp(&listener->fd);
    close_fdp(&listener->lock_fd);
}
