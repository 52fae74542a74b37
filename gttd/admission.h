/* SPDX-License-Identifier: MIT */
/*
 * Whether memory may be taken: the pool's capacity, the user's quota, what the device has,
 * the machine's free-RAM floor, the daemon's fds. It only answers; charging and evicting are the
 * pool's business.
 */
#ifndef GTTD_ADMISSION_H
#define GTTD_ADMISSION_H

#include "memory.h"
#include "quota.h"
#include "reason.h"

struct limits {
    uint64_t capacity_bytes; /* 0: none */
    uint64_t quota_bytes;    /* per uid; 0: none */
    uint64_t floor_bytes;
    uint32_t chunks_max; /* of all users together: each is an fd of the daemon's */
    uint32_t chunks_per_user;
    uint32_t segments_per_user;
    uint32_t clients_max;
    uint32_t clients_per_user;
};

/* The floor unless told otherwise: the larger of 2 GiB and 5 % of RAM. */
uint64_t admission_default_floor(void);

/* MemAvailable, less what is promised, plus what is about to come back; never below 0. */
uint64_t admission_free_ram(const struct memory_debt *debt);

/* By how much a request is over each limit that evicting could help with; 0: fits. */
struct shortage {
    uint64_t quota_bytes;    /* only this user's segments help */
    uint64_t capacity_bytes; /* any segment helps with these */
    uint64_t gtt_bytes;
    uint64_t floor_bytes;
    uint64_t gtt_total_bytes; /* of the device; 0: it has no limit */
};

void admission_shortage(const struct limits *limits, const struct quota *quota,
                        const struct account *account, const struct memory_debt *debt,
                        struct heap *heap, uint64_t size_bytes, struct shortage *ret);

/* The refusal for a shortage, of which evicting could provide evictable_bytes (user_evictable_bytes
 * of them of this user): -EDQUOT, -ENOSPC or -ENOMEM with which limit it is and by how much; 0 if
 * evicting will do. */
int admission_refuse(const struct limits *limits, const struct shortage *shortage,
                     uint64_t size_bytes, uint64_t evictable_bytes, uint64_t user_evictable_bytes,
                     struct reason *why);

/* The limits on numbers of things; no eviction helps here. -EDQUOT. */
int admission_count(const struct limits *limits, const struct quota *quota,
                    const struct account *account, uint32_t n_chunks, struct reason *why);

#endif
