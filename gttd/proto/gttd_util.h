/* SPDX-License-Identifier: MIT */
/*
 * The few ownership helpers that every directory uses: scoped fds and buffers, visible hand-over,
 * standard streams that stay what they are. Nothing here knows about the protocol.
 */
#ifndef GTTD_UTIL_H
#define GTTD_UTIL_H

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static inline void close_fdp(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static inline void free_p(void *pp)
{
    free(*(void **)pp);
}

/* An fd closed at the end of its scope unless handed over with take_fd(). */
#define AUTO_FD __attribute__((cleanup(close_fdp))) int
/* A malloc'ed pointer freed at the end of its scope unless handed over with take_ptr(). */
#define AUTO_FREE __attribute__((cleanup(free_p)))

static inline int take_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

static inline void *take_ptr_(void *pp)
{
    void *taken = *(void **)pp;
    *(void **)pp = NULL;
    return taken;
}
#define take_ptr(pp) ((__typeof__(*(pp)))take_ptr_(pp))

/*
 * For the start of a program: without this, one started with stdout or stderr closed gets that
 * number for the next thing it opens, and prints into it. What was closed is opened the wrong way
 * round, so that using it still fails.
 */
static inline int hold_standard_fds(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_RDONLY : O_WRONLY) < 0) {
            return -errno;
        }
    }
    return 0;
}

#endif
