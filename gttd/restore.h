/* SPDX-License-Identifier: MIT */
/*
 * Rebuilding the pool at start from what the fd store has handed back: segments, accounts, order of
 * use. What does not fit together is logged and removed from the store, never guessed at.
 */
#ifndef GTTD_RESTORE_H
#define GTTD_RESTORE_H

#include "pool.h"

/* A segment is about to be sealed: what the next gttd needs goes into the fd store with that, as
 * far as there is room. */
void restore_plan(const struct pool *pool, struct segment *segment);
/* It is sealed: the store has it, or not, which is logged; one that was dropped meanwhile does not
 * belong there. */
void restore_check_kept(struct segment *segment);

/* Have what pins the heap's memory go on doing so while no gttd runs: use the one that is in the
 * store, or put this one there. Before restore_pool(). */
void restore_anchor(struct heap *heap, struct fdstore *store);

/*
 * Fill the pool, which is empty and whose clients have not come yet, from pool->store; log what was
 * taken over and what was not.
 */
void restore_pool(struct pool *pool);

#endif
