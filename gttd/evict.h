/* SPDX-License-Identifier: MIT */
/* Eviction: making room by giving up what is cached and unused, least recently used first. */
#ifndef GTTD_EVICT_H
#define GTTD_EVICT_H

#include "pool.h"

/*
 * See to it that size_bytes in n_chunks chunks may be charged to account: evict unleased sealed
 * segments if that is what it takes, or refuse, and then evict nothing. -EDQUOT, -ENOSPC, -ENOMEM.
 */
int pool_make_room(struct pool *pool, const struct account *account, uint64_t size_bytes,
                   uint32_t n_chunks, struct reason *why);

#endif
