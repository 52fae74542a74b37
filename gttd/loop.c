/* SPDX-License-Identifier: MIT */
/* epoll and callbacks: see loop.h. */
#include "loop.h"

#include <errno.h>
#include <time.h>

#include "gttd_util.h"

/* Sources served per epoll_wait: the kernel rotates through the ready ones when there are more. */
#define ROUND_EVENTS 64

int loop_init(struct loop *loop)
{
    *loop = (struct loop){.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
    return loop->epoll_fd < 0 ? -errno : 0;
}

void loop_finish(struct loop *loop)
{
    close_fdp(&loop->epoll_fd);
}

int loop_add(struct loop *loop, struct source *source, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = source};
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &ev) < 0 ? -errno : 0;
}

void loop_modify(struct loop *loop, struct source *source, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = source};
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &ev);
}

void loop_remove(struct loop *loop, struct source *source)
{
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
}

int64_t loop_now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* For epoll_wait: ms until the deadline, -1 if there is none. */
static int time_left_ms(const struct loop *loop)
{
    if (!loop->deadline_ms) {
        return -1;
    }
    int64_t left = loop->deadline_ms - loop_now_ms();
    return left > 0 ? (int)left : 0;
}

int loop_run(struct loop *loop)
{
    while (!loop->stop) {
        struct epoll_event events[ROUND_EVENTS];
        int timeout_ms = time_left_ms(loop);
        int n = epoll_wait(loop->epoll_fd, events, ROUND_EVENTS, timeout_ms);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        for (int i = 0; i < n; i++) {
            struct source *source = events[i].data.ptr;
            source->ready(source, events[i].events);
        }
        if (loop->after) {
            loop->after(loop->after_data);
        }
        if (loop->deadline_ms && time_left_ms(loop) == 0) {
            break;
        }
    }
    return 0;
}
