/* SPDX-License-Identifier: MIT */
/* Least recently used first: see evict.h. */
#include "evict.h"

#include <errno.h>
#include <stdio.h>

#include "log.h"

static bool evictable(const struct segment *segment, const struct account *account)
{
    /* giving up a device's memory gains neither RAM nor room in the pool */
    return segment->state == GTTD_SEALED && !segment->n_leases && !segment_is_adopted(segment) &&
           (!account || segment->account == account);
}

/* Of everyone, or of one account. */
static struct amount evictable_amount(const struct pool *pool, const struct account *account)
{
    struct amount sum = {0};
    list_for_each(pos, &pool->segments)
    {
        const struct segment *segment = list_entry(pos, struct segment, link);
        if (evictable(segment, account)) {
            sum.bytes += segment->memory->size_bytes;
            sum.n_chunks += segment->memory->n_chunks;
        }
    }
    return sum;
}

/* The one that has gone unused for longest; NULL if there is none. */
static struct segment *victim(const struct pool *pool, const struct account *account)
{
    struct segment *oldest = NULL;
    list_for_each(pos, &pool->segments)
    {
        struct segment *segment = list_entry(pos, struct segment, link);
        if (evictable(segment, account) && (!oldest || segment->last_use < oldest->last_use)) {
            oldest = segment;
        }
    }
    return oldest;
}

static void evict(struct pool *pool, struct segment *segment, const char *why)
{
    char size[SIZE_TEXT_MAX];
    log_line(LOG_NOTICE, "segment %s (uid %d, %s): evicted: %s", segment->name,
             (int)segment->account->uid, size_text(segment->memory->size_bytes, size), why);
    pool->notify(pool->data, GTTD_EVENT_EVICTED, segment, NULL);
    keep_remove(&segment->memory->keep);
    memory_discard(segment->memory);
    segment->memory = NULL;
    segment_destroy(segment);
    pool->n_evictions++;
}

/* Evict until this much has gone; that there is so much has been checked. */
static void evict_amount(struct pool *pool, const struct account *account, struct amount want,
                         const char *why)
{
    struct amount gone = {0};
    struct segment *segment;
    while ((gone.bytes < want.bytes || gone.n_chunks < want.n_chunks) &&
           (segment = victim(pool, account))) {
        gone.bytes += segment->memory->size_bytes;
        gone.n_chunks += segment->memory->n_chunks;
        evict(pool, segment, why);
    }
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

int pool_make_room(struct pool *pool, const struct account *account, struct amount want,
                   struct reason *why)
{
    struct shortage lack =
        admission_shortage(&pool->limits, &pool->quota, account, &pool->debt, pool->heap, want);
    int r = admission_refuse(&pool->limits, account, &lack, want, evictable_amount(pool, NULL),
                             evictable_amount(pool, account), why);
    if (r < 0) {
        return r;
    }
    /* this user's own first: what they give back may already be enough for the other limits */
    evict_amount(pool, account, (struct amount){lack.quota_bytes, lack.user_chunks},
                 "room under its user's quota");
    lack = admission_shortage(&pool->limits, &pool->quota, account, &pool->debt, pool->heap, want);
    uint64_t bytes = larger(lack.gtt_bytes, larger(lack.capacity_bytes, lack.floor_bytes));
    evict_amount(pool, NULL, (struct amount){bytes, lack.chunks},
                 bytes && bytes == lack.floor_bytes ? "free RAM for another"
                                                    : "room for another in the pool");
    return 0;
}

int pool_make_room_for_name(struct pool *pool, const struct account *account, struct reason *why)
{
    while (account->n_segments >= pool->limits.segments_per_user) {
        struct segment *segment = victim(pool, account);
        if (!segment) {
            return reason_set(why, -EDQUOT,
                              "one segment more is over this user's limit of %u by %u",
                              pool->limits.segments_per_user,
                              account->n_segments + 1 - pool->limits.segments_per_user);
        }
        evict(pool, segment, "its user has too many segments");
    }
    return 0;
}

bool pool_below_floor(const struct pool *pool)
{
    return admission_free_ram(&pool->debt) < pool->limits.floor_bytes;
}

uint64_t pool_yield(struct pool *pool, uint64_t max_bytes)
{
    char give[SIZE_TEXT_MAX], free_ram[SIZE_TEXT_MAX], floor[SIZE_TEXT_MAX];
    uint64_t ballast = pool->debt.ballast_bytes, unused = pool->limits.capacity_bytes;
    uint64_t available = admission_free_ram(&pool->debt), wanted = pool->limits.floor_bytes;
    uint64_t bytes = wanted > available ? wanted - available : 0;
    bytes = bytes < max_bytes ? bytes : max_bytes;
    bytes = bytes < ballast ? bytes : ballast;
    if (bytes) {
        log_line(LOG_NOTICE,
                 "memory pressure, free RAM of %s is below the floor of %s: giving back %s of what "
                 "was reserved, for a while",
                 size_text(available, free_ram), size_text(wanted, floor), size_text(bytes, give));
        unused -= pool->quota.bytes < unused ? pool->quota.bytes : unused;
        pool->yielded_bytes = unused - (ballast - bytes < unused ? ballast - bytes : unused);
        pool_trim(pool);
    }
    return bytes;
}

uint64_t pool_relieve(struct pool *pool, uint64_t max_bytes)
{
    uint64_t gone_bytes = 0;
    struct segment *segment;
    while (gone_bytes < max_bytes && pool_below_floor(pool) && (segment = victim(pool, NULL))) {
        char text[128], free_ram[SIZE_TEXT_MAX], floor[SIZE_TEXT_MAX];
        snprintf(text, sizeof text, "memory pressure, free RAM of %s is below the floor of %s",
                 size_text(admission_free_ram(&pool->debt), free_ram),
                 size_text(pool->limits.floor_bytes, floor));
        gone_bytes += segment->memory->size_bytes;
        evict(pool, segment, text);
    }
    return gone_bytes;
}
