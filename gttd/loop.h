/* SPDX-License-Identifier: MIT */
/*
 * The event loop: epoll, callbacks, one deadline. It knows fds and nothing about what is on them.
 * One thread.
 */
#ifndef GTTD_LOOP_H
#define GTTD_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

/* Embed it in what the fd belongs to; the loop only borrows it. */
struct source {
    int fd;
    void (*ready)(struct source *source, uint32_t events); /* EPOLLIN ... */
};

struct loop {
    int epoll_fd;
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

/* Run until loop::stop or the deadline. A negative errno if epoll itself failed. */
int loop_run(struct loop *loop);

/* CLOCK_MONOTONIC in ms. */
int64_t loop_now_ms(void);

#endif
