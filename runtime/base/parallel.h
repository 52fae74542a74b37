/* SPDX-License-Identifier: MIT */
/*
 * A parallel loop for long, coarse work (loading, quantizing): threads are started for one loop and
 * joined at its end. Not for the token loop, which has its own pool.
 */
#ifndef BASE_PARALLEL_H
#define BASE_PARALLEL_H

#include <stddef.h>
#include <stdint.h>

/*
 * Call fn(data, i) once for every i in [0, n_items), on up to n_threads threads (0: one per core
 * this process may run on), the calling one among them. Items are handed out in order, one at a
 * time. Returns when all are done; if threads cannot be started, the others do their work. A
 * failure of an item is data's business.
 */
void parallel_for(uint32_t n_threads, size_t n_items, void (*fn)(void *data, size_t i), void *data);

/* Cores this process may run on, at least 1. */
uint32_t parallel_cores(void);

#endif
