/* SPDX-License-Identifier: MIT */
/*
 * The event loop: epoll, callbacks, timers. It knows fds and nothing about what is on them.
 * One thread.
 */
#ifndef GTTD_LOOP_H
#define GTTD_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "list.h"

/* Embed it in what the fd belongs to; the loop only borrows it. */
struct source {
    int fd;
    void (*ready)(struct source *source, uint32_t events); /* EPOLLIN ... */
};

/* Embed it where it is about; list_init() the link before the first use. */
struct timer {
    struct list link;                     /* loop::timers; in none while it is not armed */
    int64_t due_ms;                       /* of loop_now_ms() */
    void (*expired)(struct timer *timer); /* once; may arm it again */
};

struct loop {
    int epoll_fd;
    struct list timers;  /* struct timer, the next first */
    bool stop;           /* set to leave loop_run() after this round */
    int64_t deadline_ms; /* of loop_now_ms(), to leave at the latest; 0: none */
    /* Called after each round of events, when no callback is on the stack and no event of a removed
     * source is left: the place to free sources. May be NULL. */
    void (*after)(void *data);
    void *after_data;
};

int loop_init(struct loop *loop);
void loop_finish(struct loop *loop);

/*
 * A source that was removed may still get an event that was fetched before, in the same round: its
 * memory must stay until loop::after.
 */
int loop_add(struct loop *loop, struct source *source, uint32_t events);
void loop_modify(struct loop *loop, struct source *source, uint32_t events);
void loop_remove(struct loop *loop, struct source *source);

/* Call timer->expired() at due_ms or soon after, unless it is disarmed before. Arming one that is
 * armed changes its time. */
void loop_arm(struct loop *loop, struct timer *timer, int64_t due_ms);
void loop_disarm(struct timer *timer); /* one that is not armed: nothing happens */

/* Run until loop::stop or the deadline. A negative errno if epoll itself failed. */
int loop_run(struct loop *loop);

/* CLOCK_MONOTONIC in ms. */
int64_t loop_now_ms(void);

#endif
