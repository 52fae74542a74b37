/* SPDX-License-Identifier: MIT */
/* Eviction: making room by giving up what is cached and unused, least recently used first. */
#ifndef GTTD_EVICT_H
#define GTTD_EVICT_H

#include "pool.h"

/*
 * See to it that this much may be charged to account: evict unleased sealed segments if that is
 * what it takes, or refuse, and then evict nothing. -EDQUOT, -ENOSPC, -ENOMEM.
 */
int pool_make_room(struct pool *pool, const struct account *account, struct amount want,
                   struct reason *why);

/* See to it that this user may have one segment more. -EDQUOT. */
int pool_make_room_for_name(struct pool *pool, const struct account *account, struct reason *why);

bool pool_below_floor(const struct pool *pool);

/* Give back some of what is reserved, at most max_bytes and so much that free RAM is above the
 * floor; pool->yielded_bytes says that it is not wanted again. Returns how much. */
uint64_t pool_yield(struct pool *pool, uint64_t max_bytes);

/* Evict until free RAM is above the floor, or max_bytes have gone (the segment with which that is
 * so, entirely), or there is no more to evict. Returns how much. */
uint64_t pool_relieve(struct pool *pool, uint64_t max_bytes);

#endif
