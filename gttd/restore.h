/* SPDX-License-Identifier: MIT */
/*
 * Rebuilding the pool at start from what the fd store has handed back: segments, accounts, order of
 * use. What does not fit together is logged and removed from the store, never guessed at.
 */
#ifndef GTTD_RESTORE_H
#define GTTD_RESTORE_H

#include "pool.h"

/*
 * Fill the pool, which is empty and whose clients have not come yet, from pool->store; log what was
 * taken over and what was not.
 */
void restore_pool(struct pool *pool);

#endif
