/* SPDX-License-Identifier: MIT */
/*
 * A thread pool for the token loop: thousands of jobs of a few microseconds each per second. A job
 * is a function and a number of items; threads take items one at a time from an atomic counter, and
 * the job is over when all items are done, whether or not every thread came. So a thread the kernel
 * put aside between items holds nobody up, and on a busy machine speed falls in proportion to the
 * CPU time we get. Whoever waits spins for a few microseconds, then sleeps on a futex: an idle pool
 * costs nothing.
 */
#ifndef CPU_POOL_H
#define CPU_POOL_H

#include <stdint.h>

#include "err.h"

struct pool;

/* Work on item `item`; thread is in 0 .. n_threads - 1 and no two running items share one. */
typedef void (*pool_fn)(void *arg, uint32_t item, uint32_t thread);

/* Largest n_items of pool_run(). */
#define POOL_MAX_ITEMS (1u << 20)

/*
 * n_threads counts the caller of pool_run(), so n_threads - 1 are started (0: as many threads as
 * cores this process may run on). They block all signals. Errors: -EAGAIN, -ENOMEM.
 */
int pool_create(uint32_t n_threads, struct err *err, struct pool **ret);

/* No job may be running. Accepts NULL. */
void pool_destroy(struct pool *pool);

uint32_t pool_n_threads(const struct pool *pool);

/* Run fn for every item in 0 .. n_items - 1 and return when all are done. One caller at a time. */
void pool_run(struct pool *pool, pool_fn fn, void *arg, uint32_t n_items);

#endif
