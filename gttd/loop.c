/* SPDX-License-Identifier: MIT */
/* epoll, timers and callbacks: see loop.h. */
#include "loop.h"

#include <errno.h>
#include <limits.h>
#include <time.h>

#include "gttd_util.h"

/* Sources served per epoll_wait: the kernel rotates through the ready ones when there are more. */
#define ROUND_EVENTS 64

int loop_init(struct loop *loop)
{
    *loop = (struct loop){.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
    list_init(&loop->timers);
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

void loop_arm(struct loop *loop, struct timer *timer, int64_t due_ms)
{
    list_remove(&timer->link);
    timer->due_ms = due_ms;
    struct list *before = loop->timers.prev; /* mostly the last is right */
    while (before != &loop->timers && list_entry(before, struct timer, link)->due_ms > due_ms) {
        before = before->prev;
    }
    list_append(before->next, &timer->link); /* that is, in front of the one behind it */
}

void loop_disarm(struct timer *timer)
{
    list_remove(&timer->link);
}

static struct timer *next_timer(struct loop *loop)
{
    return list_empty(&loop->timers) ? NULL : list_entry(loop->timers.next, struct timer, link);
}

/* For epoll_wait: ms until the deadline or the next timer, -1 if there is neither. */
static int time_left_ms(struct loop *loop)
{
    const struct timer *timer = next_timer(loop);
    int64_t due_ms = loop->deadline_ms;
    if (timer && (!due_ms || timer->due_ms < due_ms)) {
        due_ms = timer->due_ms;
    }
    if (!due_ms) {
        return -1;
    }
    int64_t left = due_ms - loop_now_ms();
    return left <= 0 ? 0 : left < INT_MAX ? (int)left : INT_MAX;
}

static void expire_timers(struct loop *loop)
{
    struct timer *timer;
    int64_t now_ms = loop_now_ms();
    while ((timer = next_timer(loop)) && timer->due_ms <= now_ms) {
        loop_disarm(timer);
        timer->expired(timer);
    }
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
        expire_timers(loop);
        if (loop->after) {
            loop->after(loop->after_data);
        }
        if (loop->deadline_ms && loop->deadline_ms <= loop_now_ms()) {
            break;
        }
    }
    return 0;
}
