/* SPDX-License-Identifier: MIT */
/* Segments out of the fd store: see restore.h. */
#include "restore.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "anchor.h"
#include "gttd_util.h"
#include "log.h"
#include "loop.h"

#define ANCHOR "anchor" /* its name among the stored fds of the heap */

/* The stored fds of one segment. */
struct group {
    uint64_t id;
    struct stored_fd *fds; /* [n_fds], chunks before records */
    size_t n_fds;
};

/* The fd of a chunk, the caller's; -1: it is not there. */
static int take_chunk(const struct group *group, const struct record_chunk *chunk)
{
    for (size_t i = 0; i < group->n_fds; i++) {
        struct stored_fd *stored = &group->fds[i];
        if (stored->kind == 'c' && stored->fd >= 0 && stored->ino == chunk->ino &&
            stored->dev == chunk->dev) {
            return take_fd(&stored->fd);
        }
    }
    return -1;
}

static int take_record(const struct group *group, struct record **ret, int *ret_fd,
                       struct reason *why)
{
    struct stored_fd *found = NULL;
    for (size_t i = 0; i < group->n_fds; i++) {
        struct stored_fd *stored = &group->fds[i];
        if (stored->kind == 's' && found) {
            return reason_set(why, -EBADMSG, "it has several records");
        }
        found = stored->kind == 's' ? stored : found;
    }
    if (!found) {
        return reason_set(why, -ENODATA, "it was not completely stored");
    }
    int r = record_read(found->fd, ret, why);
    if (r == 0) {
        *ret_fd = take_fd(&found->fd);
    }
    return r;
}

static bool name_taken(const struct pool *pool, const struct record *record)
{
    list_for_each(pos, &pool->segments)
    {
        const struct segment *segment = list_entry(pos, struct segment, link);
        if (segment->account->uid == record->uid && !strcmp(segment->name, record->name)) {
            return true;
        }
    }
    return false;
}

static int check_against_pool(const struct pool *pool, const struct group *group,
                              const struct record *record, struct reason *why)
{
    if (record->id != group->id) {
        return reason_set(why, -EBADMSG, "its record is that of segment %" PRIu64, record->id);
    }
    if (strcmp(record->heap, pool->heap->ops->name) != 0) {
        return reason_set(why, -EBADMSG, "it is of the %s heap, and this gttd uses %s",
                          record->heap, pool->heap->ops->name);
    }
    if (name_taken(pool, record)) {
        return reason_set(why, -EEXIST, "there are two of that name");
    }
    if (group->n_fds != record->n_chunks + 1) {
        return reason_set(why, -EBADMSG, "%zu fds were stored of it, not %u", group->n_fds,
                          record->n_chunks + 1);
    }
    return 0;
}

/* The segment's memory, charged to account, with all its chunks. */
static int take_memory(struct pool *pool, const struct group *group, const struct record *record,
                       struct account *account, struct memory **ret, struct reason *why)
{
    const struct memory_shape shape = {record->id, record->size_bytes, record->chunk_bytes,
                                       (enum gttd_memory_class)record->memory_class};
    AUTO_FREE int *fds = malloc(record->n_chunks * sizeof fds[0]);
    struct memory *memory;
    if (!fds || memory_create(&pool->ballast, &pool->quota, account, &shape, &memory) < 0) {
        return reason_set(why, -ENOMEM, "gttd itself is out of memory");
    }
    bool complete = true;
    for (uint32_t i = 0; i < record->n_chunks; i++) {
        memory->chunks[i].hold = (enum heap_hold)record->chunks[i].hold;
        fds[i] = take_chunk(group, &record->chunks[i]);
        complete = complete && fds[i] >= 0;
    }
    int r = 0;
    if (complete) {
        r = memory_adopt(memory, fds, why);
    } else {
        r = reason_set(why, -EBADMSG, "its chunks are not those that its record names");
        for (uint32_t i = 0; i < record->n_chunks; i++) {
            close_fdp(&fds[i]);
        }
    }
    if (r < 0) {
        memory_destroy(memory);
        return r;
    }
    *ret = memory;
    return 0;
}

static struct segment *make_segment(struct pool *pool, struct account *account,
                                    const struct record *record)
{
    struct segment *segment = segment_create(account, record->name);
    if (!segment) {
        return NULL;
    }
    int64_t now_ms = loop_now_ms();
    segment->pool = pool;
    segment->id = record->id;
    segment->state = GTTD_SEALED;
    segment->writer_pid = record->pid;
    memcpy(segment->writer_label, record->label, sizeof segment->writer_label);
    memcpy(segment->digest, record->digest, sizeof segment->digest);
    memcpy(segment->metadata, record->metadata, sizeof segment->metadata);
    segment->metadata_size = record->metadata_size;
    segment->last_use = record->last_use;
    segment->last_use_ms = record->last_use_ms < now_ms ? record->last_use_ms : now_ms;
    return segment;
}

/* Both or none: its memory and the segment, in the pool. */
static int take_segment(struct pool *pool, const struct group *group, const struct record *record,
                        int *record_fd, struct reason *why)
{
    struct memory *memory = NULL;
    struct segment *segment = NULL;
    struct account *account = quota_get(&pool->quota, record->uid);
    int r = account ? take_memory(pool, group, record, account, &memory, why)
                    : reason_set(why, -ENOMEM, "gttd itself is out of memory");
    if (r == 0) {
        segment = make_segment(pool, account, record);
        r = segment ? 0 : reason_set(why, -ENOMEM, "gttd itself is out of memory");
    }
    quota_put(account);
    if (r < 0) {
        memory_destroy(memory);
        return r;
    }
    memory->keep = (struct keep){.store = pool->store,
                                 .id = record->id,
                                 .record_fd = take_fd(record_fd),
                                 .n_fds = record->n_chunks + 1,
                                 .was_stored = true};
    memory->segment = segment;
    segment->memory = memory;
    list_append(&pool->memories, &memory->link);
    list_append(&pool->segments, &segment->link);
    pool->next_id = record->id; /* groups come in ascending order */
    pool->use_clock = record->last_use > pool->use_clock ? record->last_use : pool->use_clock;
    return 0;
}

static int restore_group(struct pool *pool, const struct group *group, char what[static 160],
                         struct reason *why)
{
    AUTO_FREE struct record *record = NULL;
    AUTO_FD record_fd = -1;
    int r = take_record(group, &record, &record_fd, why);
    if (r == 0) {
        snprintf(what, 160, "segment %s (uid %u)", record->name, record->uid);
        r = check_against_pool(pool, group, record, why);
    }
    return r < 0 ? r : take_segment(pool, group, record, &record_fd, why);
}

static void restore_or_remove(struct pool *pool, const struct group *group)
{
    struct reason why;
    char what[160];
    snprintf(what, sizeof what, "segment %" PRIu64, group->id);
    if (restore_group(pool, group, what, &why) == 0) {
        return;
    }
    log_line(LOG_WARNING, "%s: not taken over from the gttd before: %s", what, why.text);
    for (size_t i = 0; i < group->n_fds; i++) {
        close_fdp(&group->fds[i].fd);
    }
    fdstore_remove(pool->store, group->id, (uint32_t)group->n_fds);
}

void restore_anchor(struct heap *heap, struct fdstore *store)
{
    struct reason why;
    int fd = fdstore_take_heap(store, ANCHOR);
    if (fd >= 0) {
        if (heap->anchor && anchor_adopt(heap->anchor, fd, &why) == 0) {
            return;
        }
        log_line(LOG_NOTICE, "memory has to be pinned anew: the anchor of the gttd before: %s",
                 heap->anchor ? why.text : "this heap has none");
        if (!heap->anchor) {
            close_fdp(&fd);
        }
        fdstore_remove_heap(store, ANCHOR);
    }
    if (heap->anchor && heap->anchor->fd >= 0 && store->there &&
        fdstore_put_heap(store, ANCHOR, heap->anchor->fd, &why) < 0) {
        log_line(LOG_WARNING, "memory is not pinned while gttd restarts: %s", why.text);
    }
}

/* The imports of memory that did not come back. */
static void tidy_anchor(const struct pool *pool)
{
    struct anchor *anchor = pool->heap->anchor;
    if (!anchor || !anchor->kept) {
        return;
    }
    uint32_t *handles = malloc((pool->quota.n_chunks + 1) * sizeof handles[0]);
    size_t n = 0;
    list_for_each(pos, &pool->memories)
    {
        const struct memory *memory = list_entry(pos, struct memory, link);
        for (uint32_t i = 0; handles && i < memory->n_chunks; i++) {
            if (memory->chunks[i].hold == HEAP_PINNED) {
                handles[n++] = memory->chunks[i].anchor_handle;
            }
        }
    }
    if (handles) {
        anchor_release_others(anchor, handles, n, pool->limits.chunks_max + BALLAST_PIECES_MAX);
    }
    free(handles);
}

void restore_pool(struct pool *pool)
{
    struct fdstore *store = pool->store;
    for (size_t at = 0; at < store->n_returned;) {
        struct group group = {.id = store->returned[at].id, .fds = &store->returned[at]};
        while (at < store->n_returned && store->returned[at].id == group.id) {
            group.n_fds++;
            at++;
        }
        if (group.id) { /* 0: fds of the heap's, and such as nobody knows */
            restore_or_remove(pool, &group);
        }
    }
    tidy_anchor(pool);
    uint32_t n = 0;
    list_for_each(pos, &pool->segments)
    {
        n++;
    }
    if (n) {
        char size[SIZE_TEXT_MAX];
        log_line(LOG_INFO, "took over %u sealed segments (%s) from the gttd before", n,
                 size_text(pool->quota.bytes, size));
    }
}
