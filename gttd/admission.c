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

uint64_t admission_free_ram(const struct memory_debt *debt)
{
    /* in this order, so that memory that moves meanwhile is counted as used twice, not never */
    uint64_t promised = debt->unpopulated_bytes;
    uint64_t available = meminfo("MemAvailable");
    available += debt->freeing_bytes;
    return available > promised ? available - promised : 0;
}

static uint64_t over(uint64_t want, uint64_t limit)
{
    return want > limit ? want - limit : 0;
}

/* In the same order as in admission_free_ram(). */
static uint64_t gtt_shortage(struct heap *heap, const struct memory_debt *debt, uint64_t size_bytes,
                             uint64_t *ret_total)
{
    uint64_t promised = debt->unpopulated_bytes;
    const struct heap_room room = heap_room(heap);
    uint64_t used = over(room.used_bytes + promised, debt->freeing_bytes);
    *ret_total = room.total_bytes;
    return room.total_bytes ? over(used + size_bytes, room.total_bytes) : 0;
}

void admission_shortage(const struct limits *limits, const struct quota *quota,
                        const struct account *account, const struct memory_debt *debt,
                        struct heap *heap, uint64_t size_bytes, struct shortage *ret)
{
    *ret = (struct shortage){0};
    if (limits->quota_bytes) {
        ret->quota_bytes = over(account->bytes + size_bytes, limits->quota_bytes);
    }
    if (limits->capacity_bytes) {
        ret->capacity_bytes = over(quota->bytes + size_bytes, limits->capacity_bytes);
    }
    ret->gtt_bytes = gtt_shortage(heap, debt, size_bytes, &ret->gtt_total_bytes);
    ret->floor_bytes = over(size_bytes + limits->floor_bytes, admission_free_ram(debt));
}

int admission_refuse(const struct limits *limits, const struct shortage *shortage,
                     uint64_t size_bytes, uint64_t evictable_bytes, uint64_t user_evictable_bytes,
                     struct reason *why)
{
    char size[SIZE_TEXT_MAX], limit[SIZE_TEXT_MAX], lack[SIZE_TEXT_MAX];
    size_text(size_bytes, size);
    if (shortage->quota_bytes > user_evictable_bytes) {
        return reason_set(why, -EDQUOT, "%s is over this user's quota of %s by %s", size,
                          size_text(limits->quota_bytes, limit),
                          size_text(shortage->quota_bytes - user_evictable_bytes, lack));
    }
    if (shortage->capacity_bytes > evictable_bytes) {
        return reason_set(why, -ENOSPC, "%s is over the pool's capacity of %s by %s", size,
                          size_text(limits->capacity_bytes, limit),
                          size_text(shortage->capacity_bytes - evictable_bytes, lack));
    }
    if (shortage->gtt_bytes > evictable_bytes) {
        return reason_set(why, -ENOSPC, "%s is over the GTT total of %s by %s", size,
                          size_text(shortage->gtt_total_bytes, limit),
                          size_text(shortage->gtt_bytes - evictable_bytes, lack));
    }
    if (shortage->floor_bytes > evictable_bytes) {
        return reason_set(why, -ENOMEM,
                          "%s would leave less than the floor of %s of free RAM, by %s", size,
                          size_text(limits->floor_bytes, limit),
                          size_text(shortage->floor_bytes - evictable_bytes, lack));
    }
    return 0;
}

int admission_count(const struct limits *limits, const struct quota *quota,
                    const struct account *account, uint32_t n_chunks, struct reason *why)
{
    if (account->n_chunks + n_chunks > limits->chunks_per_user) {
        return reason_set(why, -EDQUOT, "%u chunks are over this user's limit of %u, %u in use",
                          n_chunks, limits->chunks_per_user, account->n_chunks);
    }
    if (quota->n_chunks + n_chunks > limits->chunks_max) {
        return reason_set(why, -EDQUOT, "%u chunks are over gttd's limit of %u, %u in use",
                          n_chunks, limits->chunks_max, quota->n_chunks);
    }
    return 0;
}
