/* SPDX-License-Identifier: MIT */
/*
 * Whether memory may be taken: the pool's capacity, the user's quota, what the device has,
 * the machine's free-RAM floor, the daemon's fds. It only answers; charging and evicting are the
 * pool's business.
 */
#ifndef GTTD_ADMISSION_H
#define GTTD_ADMISSION_H

#include <stdbool.h>

#include "memory.h"
#include "quota.h"
#include "reason.h"

#define USER_QUOTAS_MAX 64

struct user_quota {
    uid_t uid;
    uint64_t bytes; /* 0: none */
};

struct limits {
    uint64_t capacity_bytes; /* 0: none */
    uint64_t quota_bytes;    /* of a uid that has none of its own; 0: none */
    struct user_quota user_quotas[USER_QUOTAS_MAX];
    uint32_t n_user_quotas;
    uint64_t floor_bytes;
    bool adopts;                  /* device memory may be handed over, to be kept */
    uint64_t adopted_quota_bytes; /* of it, for one uid; 0: no limit */
    bool share_group;    /* sealed segments may be opened by other users than whose they are */
    uint32_t chunks_max; /* of all users together: each is an fd of the daemon's */
    uint32_t chunks_per_user;
    uint32_t segments_per_user;
    uint32_t clients_max;
    uint32_t clients_per_user;
};

/* What this uid may hold at most; 0: no limit. */
uint64_t limits_quota(const struct limits *limits, uid_t uid);

/* The floor unless told otherwise: the larger of 2 GiB and 5 % of RAM. */
uint64_t admission_default_floor(void);

/* MemAvailable, as it is. */
uint64_t admission_available_ram(void);

/* MemAvailable, less what is promised, plus what is about to come back; never below 0. */
uint64_t admission_free_ram(const struct memory_debt *debt);

/* What a request wants, or what evicting would give. */
struct amount {
    uint64_t bytes;
    uint32_t n_chunks;
};

/* By how much a request is over each limit; 0: it fits. */
struct shortage {
    uint64_t quota_bytes; /* only this user's segments help */
    uint32_t user_chunks;
    uint64_t capacity_bytes; /* any segment helps with these */
    uint64_t gtt_bytes;
    uint64_t floor_bytes;
    uint32_t chunks;
    uint64_t gtt_total_bytes; /* of the device; 0: it has no limit */
};

struct shortage admission_shortage(const struct limits *limits, const struct quota *quota,
                                   const struct account *account, const struct memory_debt *debt,
                                   struct heap *heap, struct amount want);

/* The refusal for a shortage that is more than evicting could provide (all, and own of this user's
 * segments): -EDQUOT, -ENOSPC or -ENOMEM, with which limit it is and by how much. 0 if evicting
 * will do. */
int admission_refuse(const struct limits *limits, const struct account *account,
                     const struct shortage *lack, struct amount want, struct amount all,
                     struct amount own, struct reason *why);

#endif
