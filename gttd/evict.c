/* SPDX-License-Identifier: MIT */
/* Least recently used first: see evict.h. */
#include "evict.h"

#include <string.h>

#include "log.h"

static bool evictable(const struct segment *segment, const struct account *account)
{
    return segment->state == GTTD_SEALED && !segment->n_leases &&
           (!account || segment->account == account);
}

/* Of everyone, or of one account. */
static uint64_t evictable_bytes(const struct pool *pool, const struct account *account)
{
    uint64_t bytes = 0;
    list_for_each(pos, &pool->segments)
    {
        const struct segment *segment = list_entry(pos, struct segment, link);
        bytes += evictable(segment, account) ? segment->memory->size_bytes : 0;
    }
    return bytes;
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

static void evict(struct pool *pool, struct segment *segment)
{
    char size[SIZE_TEXT_MAX];
    log_line(LOG_NOTICE, "segment %s (uid %d, %s): evicted to make room", segment->name,
             (int)segment->account->uid, size_text(segment->memory->size_bytes, size));
    pool->notify(pool->data, GTTD_EVENT_EVICTED, segment, NULL);
    keep_remove(&segment->memory->keep);
    memory_discard(segment->memory);
    segment->memory = NULL;
    segment_destroy(segment);
    pool->n_evictions++;
}

/* Evict until this many bytes have gone; what exists has been checked. */
static void evict_bytes(struct pool *pool, const struct account *account, uint64_t want_bytes)
{
    uint64_t gone_bytes = 0;
    struct segment *segment;
    while (gone_bytes < want_bytes && (segment = victim(pool, account))) {
        gone_bytes += segment->memory->size_bytes;
        evict(pool, segment);
    }
}

int pool_make_room(struct pool *pool, const struct account *account, uint64_t size_bytes,
                   uint32_t n_chunks, struct reason *why)
{
    int r = admission_count(&pool->limits, &pool->quota, account, n_chunks, why);
    if (r < 0) {
        return r;
    }
    struct shortage lack;
    admission_shortage(&pool->limits, &pool->quota, account, &pool->debt, pool->heap, size_bytes,
                       &lack);
    r = admission_refuse(&pool->limits, &lack, size_bytes, evictable_bytes(pool, NULL),
                         evictable_bytes(pool, account), why);
    if (r < 0) {
        return r;
    }
    /* this user's own first: what they give back may already be enough for the other limits */
    evict_bytes(pool, account, lack.quota_bytes);
    admission_shortage(&pool->limits, &pool->quota, account, &pool->debt, pool->heap, size_bytes,
                       &lack);
    uint64_t want = lack.capacity_bytes;
    want = lack.gtt_bytes > want ? lack.gtt_bytes : want;
    want = lack.floor_bytes > want ? lack.floor_bytes : want;
    evict_bytes(pool, NULL, want);
    return 0;
}
