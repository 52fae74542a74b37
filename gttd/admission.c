/* SPDX-License-Identifier: MIT */
/* What may be taken: see admission.h. */
#include "admission.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A line of /proc/meminfo in bytes. 0 if it cannot be read: then nothing is free, and gttd refuses
 * rather than guesses. */
static uint64_t meminfo(const char *key)
{
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    uint64_t bytes = 0;
    size_t len = strlen(key);
    while (f && fgets(line, sizeof line, f)) {
        uint64_t kib;
        if (!strncmp(line, key, len) && sscanf(line + len, ": %" SCNu64, &kib) == 1) {
            bytes = kib << 10;
            break;
        }
    }
    if (f) {
        fclose(f);
    }
    return bytes;
}

uint64_t admission_default_floor(void)
{
    uint64_t share = meminfo("MemTotal") / 20;
    return share > 2ull << 30 ? share : 2ull << 30;
}

uint64_t limits_quota(const struct limits *limits, uid_t uid)
{
    for (uint32_t i = 0; i < limits->n_user_quotas; i++) {
        if (limits->user_quotas[i].uid == uid) {
            return limits->user_quotas[i].bytes;
        }
    }
    return limits->quota_bytes;
}

static uint64_t over(uint64_t want, uint64_t limit)
{
    return want > limit ? want - limit : 0;
}

uint64_t admission_available_ram(void)
{
    return meminfo("MemAvailable");
}

/* What will have come back when all that was admitted and size_bytes more have been made. */
static uint64_t coming_bytes(const struct memory_debt *debt, uint64_t size_bytes)
{
    uint64_t ballast = debt->ballast_bytes, claims = debt->unclaimed_bytes + size_bytes;
    return debt->freeing_bytes + debt->traded_bytes + (ballast < claims ? ballast : claims);
}

/* In this order, so that memory that moves meanwhile is counted as used twice, not never. */
static uint64_t free_ram(const struct memory_debt *debt, uint64_t size_bytes)
{
    uint64_t promised = debt->unpopulated_bytes + debt->making_bytes;
    uint64_t available = admission_available_ram();
    return over(available + coming_bytes(debt, size_bytes), promised);
}

uint64_t admission_free_ram(const struct memory_debt *debt)
{
    return free_ram(debt, 0);
}

/* In the same order as in free_ram(). */
static uint64_t gtt_shortage(struct heap *heap, const struct memory_debt *debt, uint64_t size_bytes,
                             uint64_t *ret_total)
{
    uint64_t promised = debt->unpopulated_bytes + debt->making_bytes;
    const struct heap_room room = heap_room(heap);
    uint64_t used = over(room.used_bytes + promised, coming_bytes(debt, size_bytes));
    *ret_total = room.total_bytes;
    return room.total_bytes ? over(used + size_bytes, room.total_bytes) : 0;
}

struct shortage admission_shortage(const struct limits *limits, const struct quota *quota,
                                   const struct account *account, const struct memory_debt *debt,
                                   struct heap *heap, struct amount want)
{
    struct shortage lack = {0};
    uint64_t user_quota = limits_quota(limits, account->uid);
    if (user_quota) {
        lack.quota_bytes = over(account->bytes + want.bytes, user_quota);
    }
    if (limits->capacity_bytes) {
        lack.capacity_bytes = over(quota->bytes + want.bytes, limits->capacity_bytes);
    }
    lack.gtt_bytes = gtt_shortage(heap, debt, want.bytes, &lack.gtt_total_bytes);
    lack.floor_bytes = over(want.bytes + limits->floor_bytes, free_ram(debt, want.bytes));
    lack.user_chunks =
        (uint32_t)over((uint64_t)account->n_chunks + want.n_chunks, limits->chunks_per_user);
    lack.chunks = (uint32_t)over((uint64_t)quota->n_chunks + want.n_chunks, limits->chunks_max);
    return lack;
}

/* Sizes of memory. */
static int refuse_bytes(const struct limits *limits, const struct account *account,
                        const struct shortage *lack, uint64_t want_bytes, uint64_t all_bytes,
                        uint64_t own_bytes, struct reason *why)
{
    char want[SIZE_TEXT_MAX], limit[SIZE_TEXT_MAX], by[SIZE_TEXT_MAX];
    size_text(want_bytes, want);
    if (lack->quota_bytes > own_bytes) {
        return reason_set(why, -EDQUOT, "%s is over this user's quota of %s by %s", want,
                          size_text(limits_quota(limits, account->uid), limit),
                          size_text(lack->quota_bytes - own_bytes, by));
    }
    if (lack->capacity_bytes > all_bytes) {
        return reason_set(why, -ENOSPC, "%s is over the pool's capacity of %s by %s", want,
                          size_text(limits->capacity_bytes, limit),
                          size_text(lack->capacity_bytes - all_bytes, by));
    }
    if (lack->gtt_bytes > all_bytes) {
        return reason_set(why, -ENOSPC, "%s is over the GTT total of %s by %s", want,
                          size_text(lack->gtt_total_bytes, limit),
                          size_text(lack->gtt_bytes - all_bytes, by));
    }
    if (lack->floor_bytes > all_bytes) {
        return reason_set(why, -ENOMEM,
                          "%s would leave less than the floor of %s of free RAM, by %s", want,
                          size_text(limits->floor_bytes, limit),
                          size_text(lack->floor_bytes - all_bytes, by));
    }
    return 0;
}

int admission_refuse(const struct limits *limits, const struct account *account,
                     const struct shortage *lack, struct amount want, struct amount all,
                     struct amount own, struct reason *why)
{
    if (lack->user_chunks > own.n_chunks) {
        return reason_set(why, -EDQUOT, "%u chunks are over this user's limit of %u by %u",
                          want.n_chunks, limits->chunks_per_user, lack->user_chunks - own.n_chunks);
    }
    if (lack->chunks > all.n_chunks) {
        return reason_set(why, -EDQUOT, "%u chunks are over gttd's limit of %u by %u",
                          want.n_chunks, limits->chunks_max, lack->chunks - all.n_chunks);
    }
    return refuse_bytes(limits, account, lack, want.bytes, all.bytes, own.bytes, why);
}
