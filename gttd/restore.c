/* SPDX-License-Identifier: MIT */
/* Segments into the fd store and out of it: see restore.h. */
#include "restore.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "anchor.h"
#include "gttd_util.h"
#include "gttd_wire.h"
#include "log.h"
#include "loop.h"

#define ANCHOR "anchor" /* its name among the stored fds of the heap */

/* ---- into the store ---- */

static void log_not_kept(const struct segment *segment, const char *why)
{
    log_line(LOG_WARNING, "segment %s (uid %d): a restart of gttd will lose it: %s", segment->name,
             (int)segment->account->uid, why);
}

void restore_plan(const struct pool *pool, struct segment *segment)
{
    struct keep *keep = &segment->memory->keep;
    struct reason why;
    if (!pool->store || !pool->store->there) {
        return; /* said at the start */
    }
    if (keep_plan(keep, pool->store, segment->id, segment->memory->n_chunks, &why) < 0) {
        log_not_kept(segment, why.text);
        return;
    }
    struct record *record = keep->record;
    record->size_bytes = segment->memory->size_bytes;
    record->chunk_bytes = segment->memory->chunk_bytes;
    record->memory_class = segment->memory->memory_class;
    record->uid = segment->account->uid;
    record->pid = segment->writer_pid;
    record->metadata_size = segment->metadata_size;
    record->device = segment->device;
    gttd_set_text(record->heap, sizeof record->heap, segment->memory->heap->ops->name);
    memcpy(record->name, segment->name, sizeof record->name);
    memcpy(record->label, segment->writer_label, sizeof record->label);
    memcpy(record->digest, segment->digest, sizeof record->digest);
    memcpy(record->metadata, segment->metadata, sizeof record->metadata);
}

void restore_check_kept(struct segment *segment)
{
    struct keep *keep = &segment->memory->keep;
    if (keep->result < 0) {
        log_not_kept(segment, strerror(-keep->result));
    }
    if (keep->result < 0 || !segment->name[0]) {
        keep_remove(keep);
    }
}

/* ---- out of it ---- */

/* The stored fds of one segment. */
struct group {
    uint64_t id;
    struct stored_fd *fds; /* [n_fds], chunks before records */
    size_t n_fds;
};

/* The fd of a chunk, the caller's; -1: it is not there. index: the one of an adopted segment, or
 * -1. */
static int take_chunk(const struct group *group, const struct record_chunk *chunk, int64_t index)
{
    for (size_t i = 0; i < group->n_fds; i++) {
        struct stored_fd *stored = &group->fds[i];
        bool is_it = index < 0 ? stored->kind == 'c'
                               : stored->kind == 'a' && stored->index == (uint32_t)index;
        if (is_it && stored->fd >= 0 && stored->ino == chunk->ino && stored->dev == chunk->dev) {
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
    const struct heap *heap = record->device.handle ? &pool->adopted_heap : pool->heap;
    if (strcmp(record->heap, heap->ops->name) != 0) {
        return reason_set(why, -EBADMSG, "it is of the %s heap, and this gttd uses %s",
                          record->heap, heap->ops->name);
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

/* Memory without its chunks, charged. */
static int make_memory(struct pool *pool, const struct record *record, struct account *account,
                       struct memory **ret)
{
    const struct memory_shape shape = {record->id, record->size_bytes, record->chunk_bytes,
                                       (enum gttd_memory_class)record->memory_class};
    if (!record->device.handle) {
        return memory_create(&pool->ballast, &pool->quota, account, &shape, ret);
    }
    struct account *adopted = quota_get(&pool->adopted, record->uid);
    int r = adopted ? memory_create_adopted(&pool->adopted_heap, pool->worker, &pool->adopted_debt,
                                            &pool->adopted, adopted, &shape, ret)
                    : -ENOMEM;
    quota_put(adopted);
    return r;
}

/* The segment's memory, charged to account, with all its chunks. */
static int take_memory(struct pool *pool, const struct group *group, const struct record *record,
                       struct account *account, struct memory **ret, struct reason *why)
{
    AUTO_FREE int *fds = malloc(record->n_chunks * sizeof fds[0]);
    struct memory *memory;
    if (!fds || make_memory(pool, record, account, &memory) < 0) {
        return reason_set(why, -ENOMEM, "gttd itself is out of memory");
    }
    bool complete = true;
    for (uint32_t i = 0; i < record->n_chunks; i++) {
        memory->chunks[i].hold = (enum heap_hold)record->chunks[i].hold;
        fds[i] = take_chunk(group, &record->chunks[i], record->device.handle ? (int64_t)i : -1);
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
    segment->device = record->device;
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
                                 .n_adopted = record->device.handle ? record->n_chunks : 0,
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
    fdstore_remove_returned(pool->store, group->fds, group->n_fds);
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
    uint32_t n = 0, n_adopted = 0;
    list_for_each(pos, &pool->segments)
    {
        const struct segment *segment = list_entry(pos, struct segment, link);
        *(segment_is_adopted(segment) ? &n_adopted : &n) += 1;
    }
    char size[SIZE_TEXT_MAX];
    if (n) {
        log_line(LOG_INFO, "took over %u sealed segments (%s) from the gttd before", n,
                 size_text(pool->quota.bytes, size));
    }
    if (n_adopted) {
        log_line(LOG_INFO, "took over %u segments of device memory (%s) from the gttd before",
                 n_adopted, size_text(pool->adopted.bytes, size));
    }
}
