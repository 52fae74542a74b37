/* SPDX-License-Identifier: MIT */
/* The rules of the pool: see pool.h. */
#include "pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "adopted.h"
#include "evict.h"
#include "gttd_wire.h"
#include "log.h"
#include "restore.h"

#define LEASES_PER_OWNER   1024
#define PENDINGS_PER_OWNER 64

bool pool_shows(const struct pool *pool, const struct owner *owner, uid_t uid)
{
    return owner->uid == uid || owner->uid == 0 || pool->limits.share_group;
}

static void answer(struct pool *pool, struct pending *pending, int status, enum gttd_role role,
                   const struct reason *why)
{
    pool->answer(pool->data, pending, status, role, why);
    pending_destroy(pending);
}

/* The CREATE or SEAL of this segment, if whoever sent it is still there. */
static void answer_request(struct pool *pool, struct segment *segment, int status,
                           const struct reason *why)
{
    if (segment->request) {
        answer(pool, segment->request, status, 0, why);
    }
}

static void notify(struct pool *pool, enum gttd_event_kind kind, const struct segment *segment,
                   const struct owner *owner)
{
    pool->notify(pool->data, kind, segment, owner);
}

static void touch(struct pool *pool, struct segment *segment)
{
    segment->last_use = ++pool->use_clock;
    segment->last_use_ms = loop_now_ms();
    if (segment->memory) {
        keep_note_use(&segment->memory->keep, segment->last_use, segment->last_use_ms);
    }
}

static struct segment *find_name(struct pool *pool, uid_t uid, const char *name)
{
    list_for_each(pos, &pool->segments)
    {
        struct segment *segment = list_entry(pos, struct segment, link);
        if (segment->account->uid == uid && !strcmp(segment->name, name)) {
            return segment;
        }
    }
    return NULL;
}

/* Another user's segment of this name that this one may have, or wait for: of several the oldest,
 * and a sealed one rather than one that is being made. */
static struct segment *find_shared(struct pool *pool, const struct owner *owner, const char *name)
{
    struct segment *best = NULL;
    list_for_each(pos, &pool->segments)
    {
        struct segment *segment = list_entry(pos, struct segment, link);
        bool better = !best || (segment->state == GTTD_SEALED && best->state != GTTD_SEALED);
        if (better && pool->limits.share_group && segment->account->uid != owner->uid &&
            !segment_is_adopted(segment) && !strcmp(segment->name, name)) {
            best = segment;
        }
    }
    return best;
}

struct segment *pool_next(struct pool *pool, const struct owner *owner, uint64_t cursor)
{
    list_for_each(pos, &pool->segments)
    {
        struct segment *segment = list_entry(pos, struct segment, link);
        if (segment->id > cursor && pool_shows(pool, owner, segment->account->uid)) {
            return segment;
        }
    }
    return NULL;
}

/* owner becomes who makes this segment, which has no memory yet. */
static int set_writer(struct pool *pool, struct segment *segment, struct owner *owner)
{
    struct lease *lease;
    int r = lease_create(owner, segment, &lease);
    if (r < 0) {
        return r;
    }
    if (segment->account != owner->account) {
        segment_give(segment, owner->account);
    }
    segment->writer = lease;
    segment->writer_pid = owner->pid;
    memcpy(segment->writer_label, owner->label, sizeof segment->writer_label);
    segment->state = GTTD_CLAIMED;
    /* a new id, at the end of the list: ids ascend, and one of a former filler means nothing now */
    segment->id = ++pool->next_id;
    list_remove(&segment->link);
    list_append(&pool->segments, &segment->link);
    touch(pool, segment);
    return 0;
}

static int new_segment(struct pool *pool, struct owner *owner, const char *name,
                       struct segment **ret, struct reason *why)
{
    int r = pool_make_room_for_name(pool, owner->account, why);
    if (r < 0) {
        return r;
    }
    struct segment *segment = segment_create(owner->account, name);
    if (!segment || set_writer(pool, segment, owner) < 0) {
        if (segment) {
            segment_destroy(segment);
        }
        return reason_set(why, -ENOMEM, "gttd itself is out of memory");
    }
    segment->pool = pool;
    *ret = segment;
    return 0;
}

static void free_memory(struct segment *segment)
{
    if (segment->memory) {
        memory_discard(segment->memory);
        segment->memory = NULL;
        segment->device = (struct gttd_device_memory){0};
    }
}

/* A sealed segment that nobody can reach any more goes. */
static void collect(struct segment *segment)
{
    if (segment->state == GTTD_SEALED && !segment->name[0] && !segment->n_leases) {
        free_memory(segment);
        segment_destroy(segment);
    }
}

static void refuse_waiters(struct pool *pool, struct segment *segment, int status,
                           const struct reason *why)
{
    list_for_each(pos, &segment->waiters)
    {
        answer(pool, list_entry(pos, struct pending, segment_link), status, 0, why);
    }
}

static int open_sealed(struct pool *pool, struct owner *owner, struct segment *segment,
                       const struct gttd_device_id *device, struct reason *why)
{
    struct lease *lease;
    int r = pool_check_device(segment, owner, device, why);
    if (r < 0) {
        return r;
    }
    if (owner->n_leases >= LEASES_PER_OWNER) {
        return reason_set(why, -EDQUOT, "this client has %d leases, the most there may be",
                          LEASES_PER_OWNER);
    }
    r = lease_create(owner, segment, &lease);
    if (r < 0) {
        return reason_set(why, r, "gttd itself is out of memory");
    }
    touch(pool, segment);
    notify(pool, GTTD_EVENT_OPENED, segment, owner);
    return 0;
}

/* What an OPEN has waited for. */
static void open_waiting(struct pool *pool, struct pending *pending, struct segment *segment)
{
    struct reason why;
    int r = open_sealed(pool, pending->owner, segment,
                        pending->names_device ? &pending->device : NULL, &why);
    answer(pool, pending, r, GTTD_ROLE_LEASE, &why);
}

/* A waiter of another user finds that its own user has made such a segment meanwhile: that one it
 * gets, or waits for. */
static void rejoin(struct pool *pool, struct pending *pending, struct segment *own)
{
    pending_move(pending, own);
    if (own->state == GTTD_SEALED) {
        open_waiting(pool, pending, own);
    }
}

/* The segment has become another user's: who wanted its own user's only waits for nothing. */
static void refuse_strangers(struct pool *pool, struct segment *segment)
{
    struct reason why;
    reason_set(&why, -ENOENT, "who was to fill it has given up, and now uid %d does",
               (int)segment->account->uid);
    list_for_each(pos, &segment->waiters)
    {
        struct pending *pending = list_entry(pos, struct pending, segment_link);
        if (pending->own && pending->owner->account != segment->account) {
            answer(pool, pending, -ENOENT, 0, &why);
        }
    }
}

/* Make this waiter the filler, for its own user. False: it has been answered, or waits elsewhere.
 */
static bool promote(struct pool *pool, struct segment *segment, struct pending *pending)
{
    struct owner *owner = pending->owner;
    struct reason why;
    int r = 0;
    if (owner->account != segment->account) {
        struct segment *own = find_name(pool, owner->uid, segment->name);
        if (own) {
            rejoin(pool, pending, own);
            return false;
        }
        r = pool_make_room_for_name(pool, owner->account, &why);
    }
    if (r == 0 && set_writer(pool, segment, owner) < 0) {
        r = reason_set(&why, -ENOMEM, "gttd itself is out of memory");
    }
    if (r < 0) {
        answer(pool, pending, r, 0, &why);
        return false;
    }
    segment->was_claimed = true;
    answer(pool, pending, 0, GTTD_ROLE_FILLER, NULL);
    refuse_strangers(pool, segment);
    return true;
}

/* The first waiter that wants to fill, of the segment's user or of another. */
static struct pending *find_heir(struct segment *segment, bool of_user)
{
    list_for_each(pos, &segment->waiters)
    {
        struct pending *pending = list_entry(pos, struct pending, segment_link);
        if (pending->fill && (pending->owner->account == segment->account) == of_user) {
            return pending;
        }
    }
    return NULL;
}

/*
 * The filler is gone and the segment is empty again. The first waiter that wants to fill takes
 * over, if there is one of the same user one of those; the rest keep waiting. Without such a one
 * the segment and all waits end.
 */
static void hand_over(struct pool *pool, struct segment *segment)
{
    struct pending *heir;
    struct reason why;
    while (segment->name[0] &&
           ((heir = find_heir(segment, true)) || (heir = find_heir(segment, false)))) {
        if (promote(pool, segment, heir)) {
            return;
        }
    }
    reason_set(&why, -ENOENT, "pid %d, which was to fill it, has given up",
               (int)segment->writer_pid);
    refuse_waiters(pool, segment, -ENOENT, &why);
    segment_destroy(segment);
}

/* The writer's hold on an unsealed segment ends: so does what it wrote. */
static void abandon(struct pool *pool, struct segment *segment, const struct owner *owner)
{
    struct reason why;
    reason_set(&why, -ECANCELED, "closed before it was made");
    answer_request(pool, segment, -ECANCELED, &why);
    if (segment->memory) {
        notify(pool, GTTD_EVENT_DROPPED, segment, owner);
        free_memory(segment);
    }
    hand_over(pool, segment);
}

void pool_release(struct pool *pool, struct lease *lease)
{
    struct segment *segment = lease->segment;
    const struct owner *owner = lease->owner;
    bool was_writer = segment->writer == lease;
    lease_destroy(lease);
    if (segment->state == GTTD_SEALING) {
        return; /* all of it was there when the seal was asked for: let it be sealed */
    }
    if (was_writer) {
        abandon(pool, segment, owner);
        return;
    }
    touch(pool, segment);
    notify(pool, GTTD_EVENT_CLOSED, segment, owner);
    collect(segment);
}

static int wait_for(struct owner *owner, struct segment *segment, const struct gttd_open_req *req,
                    struct reason *why)
{
    struct pending *pending;
    if (owner->n_pendings >= PENDINGS_PER_OWNER) {
        return reason_set(why, -EDQUOT, "this client waits for %d answers already",
                          PENDINGS_PER_OWNER);
    }
    int r = pending_create(owner, segment, GTTD_OP_OPEN, req->hdr.serial, true, &pending);
    if (r < 0) {
        return reason_set(why, r, "gttd itself is out of memory");
    }
    pending->fill = req->flags & GTTD_OPEN_FILL;
    pending->own = req->flags & GTTD_OPEN_OWN;
    pending->names_device = req->flags & GTTD_OPEN_DEVICE;
    pending->device = req->device;
    return POOL_LATER;
}

int pool_open(struct pool *pool, struct owner *owner, const struct gttd_open_req *req,
              struct segment **ret, enum gttd_role *ret_role, struct reason *why)
{
    bool names_device = req->flags & GTTD_OPEN_DEVICE;
    struct segment *segment = find_name(pool, owner->uid, req->name);
    int r;
    if (!segment && !(req->flags & (GTTD_OPEN_OWN | GTTD_OPEN_DEVICE))) {
        segment = find_shared(pool, owner, req->name);
    }
    if (!segment && !(req->flags & GTTD_OPEN_FILL)) {
        return reason_set(why, -ENOENT, "there is no such segment");
    }
    if (!segment) {
        r = owner->n_leases < LEASES_PER_OWNER
                ? new_segment(pool, owner, req->name, &segment, why)
                : reason_set(why, -EDQUOT, "this client has too many leases");
        if (r == 0) {
            segment->was_claimed = true;
            *ret_role = GTTD_ROLE_FILLER;
            *ret = segment;
        }
        return r;
    }
    if (segment->state == GTTD_SEALED) {
        r = open_sealed(pool, owner, segment, names_device ? &req->device : NULL, why);
        if (r == 0) {
            *ret_role = GTTD_ROLE_LEASE;
            *ret = segment;
        }
        return r;
    }
    if (segment->writer && segment->writer->owner == owner && segment->state != GTTD_SEALING) {
        return reason_set(why, -EDEADLK, "this client itself is filling it");
    }
    if (!(req->flags & GTTD_OPEN_WAIT)) {
        return reason_set(why, -EAGAIN, "pid %d is filling it", (int)segment->writer_pid);
    }
    return wait_for(owner, segment, req, why);
}

/* Main thread, from the worker: the memory of a CREATE is there, or it failed. */
static void on_populated(struct memory *memory)
{
    struct segment *segment = memory->segment;
    struct pool *pool = segment->pool;
    struct owner *owner = segment->writer->owner;
    if (memory->result == 0) {
        segment->state = GTTD_FILLING;
        touch(pool, segment);
        answer_request(pool, segment, 0, NULL);
        notify(pool, GTTD_EVENT_CREATED, segment, owner);
        return;
    }
    log_line(LOG_WARNING, "segment %s (uid %d, pid %d): %s",
             segment->name[0] ? segment->name : "without a name", (int)owner->uid, (int)owner->pid,
             memory->why.text);
    answer_request(pool, segment, memory->result, &memory->why);
    free_memory(segment);
    segment->state = GTTD_CLAIMED;
    if (!segment->was_claimed) {
        pool_release(pool, segment->writer);
    }
}

static int check_create(struct pool *pool, const struct gttd_create_req *req, uint64_t chunk_bytes,
                        struct reason *why)
{
    if (req->memory_class == GTTD_MEMORY_WC && !pool->heap->has_wc) {
        return reason_set(why, -EOPNOTSUPP, "the %s heap has no write-combined memory",
                          pool->heap->ops->name);
    }
    if (!req->size_bytes || req->size_bytes % GTTD_ALIGN_BYTES || chunk_bytes % GTTD_ALIGN_BYTES) {
        return reason_set(why, -EINVAL, "sizes of segments and chunks are multiples of 2 MiB");
    }
    if (chunk_bytes > pool->heap->chunk_max_bytes) {
        char limit[SIZE_TEXT_MAX];
        return reason_set(why, -EINVAL, "chunks of the %s heap have at most %s",
                          pool->heap->ops->name, size_text(pool->heap->chunk_max_bytes, limit));
    }
    if (!gttd_chunk_count(req->size_bytes, chunk_bytes)) {
        return reason_set(why, -EINVAL, "a segment has at most %u chunks", GTTD_CHUNKS_MAX);
    }
    return 0;
}

/* The segment a CREATE is about: the one this owner has claimed, or a new one. */
int pool_create_target(struct pool *pool, struct owner *owner, const char *name,
                       struct segment **ret, struct reason *why)
{
    struct segment *segment = name[0] ? find_name(pool, owner->uid, name) : NULL;
    if (!segment) {
        if (owner->n_leases >= LEASES_PER_OWNER) {
            return reason_set(why, -EDQUOT, "this client has too many leases");
        }
        return new_segment(pool, owner, name, ret, why);
    }
    if (segment->state == GTTD_SEALED) {
        return reason_set(why, -EEXIST, "it exists and is sealed");
    }
    if (segment->state != GTTD_CLAIMED || segment->writer->owner != owner) {
        return reason_set(why, -EEXIST, "pid %d is filling it", (int)segment->writer_pid);
    }
    *ret = segment;
    return 0;
}

int pool_create(struct pool *pool, struct owner *owner, uint32_t serial,
                const struct gttd_create_req *req, struct reason *why)
{
    uint64_t max = pool->heap->chunk_max_bytes;
    uint64_t chunk_bytes = req->chunk_bytes        ? req->chunk_bytes
                           : req->size_bytes < max ? req->size_bytes
                                                   : max;
    struct segment *segment;
    struct pending *pending;
    int r = check_create(pool, req, chunk_bytes, why);
    if (r == 0 && owner->n_pendings >= PENDINGS_PER_OWNER) {
        r = reason_set(why, -EDQUOT, "this client waits for too many answers already");
    }
    if (r < 0) {
        return r;
    }
    r = pool_create_target(pool, owner, req->name, &segment, why);
    if (r < 0) {
        return r;
    }
    struct amount want = {req->size_bytes, gttd_chunk_count(req->size_bytes, chunk_bytes)};
    r = pool_make_room(pool, owner->account, want, why);
    if (r < 0) {
        goto fail;
    }
    r = pending_create(owner, segment, GTTD_OP_CREATE, serial, false, &pending);
    if (r == 0) {
        const struct memory_shape shape = {segment->id, req->size_bytes, chunk_bytes,
                                           (enum gttd_memory_class)req->memory_class};
        r = memory_create(&pool->ballast, &pool->quota, owner->account, &shape, &segment->memory);
        if (r < 0) {
            pending_destroy(pending);
        }
    }
    if (r < 0) {
        reason_set(why, r, "gttd itself is out of memory");
        goto fail;
    }
    segment->memory->segment = segment;
    list_append(&pool->memories, &segment->memory->link);
    segment->state = GTTD_POPULATING;
    memory_promise(segment->memory);
    pool_trim(pool); /* so that it finds its part of the ballast */
    memory_populate(segment->memory, on_populated);
    return POOL_LATER;
fail:
    if (!segment->was_claimed) {
        pool_release(pool, segment->writer);
    }
    return r;
}

/* Main thread, from the worker. */
static void on_sealed(struct memory *memory)
{
    struct segment *segment = memory->segment;
    struct pool *pool = segment->pool;
    const struct owner *owner = segment->writer ? segment->writer->owner : NULL;
    segment->state = GTTD_SEALED;
    segment->writer = NULL; /* its lease stays */
    restore_check_kept(segment);
    touch(pool, segment);
    answer_request(pool, segment, 0, NULL);
    notify(pool, GTTD_EVENT_SEALED, segment, owner);
    list_for_each(pos, &segment->waiters)
    {
        open_waiting(pool, list_entry(pos, struct pending, segment_link), segment);
    }
    collect(segment);
}

int pool_seal(struct owner *owner, const struct gttd_seal_req *req, struct reason *why)
{
    struct lease *lease = owner_find_lease(owner, req->id);
    struct pending *pending;
    if (!lease) {
        return reason_set(why, -ENOENT, "this client holds no such segment");
    }
    struct segment *segment = lease->segment;
    if (segment->writer != lease || segment->state != GTTD_FILLING) {
        return reason_set(why, -EINVAL, "not being filled by this client");
    }
    if (!segment->was_named) {
        return reason_set(why, -EINVAL, "an anonymous segment cannot be sealed");
    }
    if (!segment->name[0]) {
        return reason_set(why, -ESTALE, "its name was dropped while it was being filled");
    }
    int r = pool_check_given(segment, why);
    if (r < 0) {
        return r;
    }
    r = pending_create(owner, segment, GTTD_OP_SEAL, req->hdr.serial, false, &pending);
    if (r < 0) {
        return reason_set(why, r, "gttd itself is out of memory");
    }
    memcpy(segment->digest, req->digest, sizeof segment->digest);
    memcpy(segment->metadata, req->metadata, sizeof segment->metadata);
    segment->metadata_size = req->metadata_size;
    segment->state = GTTD_SEALING;
    restore_plan(segment->pool, segment);
    memory_seal(segment->memory, on_sealed);
    return POOL_LATER;
}

int pool_chunk(struct owner *owner, uint64_t id, uint32_t index, int *ret_fd, uint64_t *ret_bytes,
               struct reason *why)
{
    struct lease *lease = owner_find_lease(owner, id);
    if (!lease) {
        return reason_set(why, -ENOENT, "this client holds no such segment");
    }
    const struct segment *segment = lease->segment;
    if (segment->state != GTTD_FILLING && segment->state != GTTD_SEALED) {
        return reason_set(why, -EBUSY, "the segment has no memory yet or is being sealed");
    }
    if (index >= segment->memory->n_chunks) {
        return reason_set(why, -EINVAL, "chunk %u of %u", index, segment->memory->n_chunks);
    }
    if (segment->memory->chunks[index].fd < 0) {
        return reason_set(why, -EBUSY, "chunk %u has not been given yet", index);
    }
    segment->memory->chunks[index].handed_out = true;
    *ret_fd = segment->memory->chunks[index].fd;
    *ret_bytes = segment->memory->chunks[index].size_bytes;
    return 0;
}

int pool_close(struct pool *pool, struct owner *owner, uint64_t id, struct reason *why)
{
    struct lease *lease = owner_find_lease(owner, id);
    if (!lease) {
        return reason_set(why, -ENOENT, "this client holds no such segment");
    }
    pool_release(pool, lease);
    return 0;
}

int pool_cancel(struct pool *pool, struct owner *owner, uint32_t serial, struct reason *why)
{
    struct pending *pending = owner_find_pending(owner, serial);
    if (!pending || pending->op != GTTD_OP_OPEN) {
        return reason_set(why, -ENOENT, "no OPEN with this serial is waiting");
    }
    reason_set(why, -ECANCELED, "the wait was cancelled");
    answer(pool, pending, -ECANCELED, 0, why);
    return 0;
}

static struct segment *drop_target(struct pool *pool, const struct owner *owner, uint64_t id,
                                   const char *name)
{
    if (!id) {
        return find_name(pool, owner->uid, name);
    }
    struct segment *segment = pool_next(pool, owner, id - 1);
    return segment && segment->id == id && segment->name[0] ? segment : NULL;
}

int pool_drop(struct pool *pool, struct owner *owner, uint64_t id, const char *name, uint32_t flags,
              struct reason *why)
{
    struct segment *segment = drop_target(pool, owner, id, name);
    if (!segment) {
        return id ? reason_set(why, -ENOENT, "there is no named segment %llu",
                               (unsigned long long)id)
                  : reason_set(why, -ENOENT, "this user has no segment of that name");
    }
    if (segment->account->uid != owner->uid && owner->uid != 0) {
        return reason_set(why, -EPERM, "it belongs to uid %d", (int)segment->account->uid);
    }
    bool force = flags & GTTD_DROP_FORCE;
    if (segment->state != GTTD_SEALED && !force) {
        return reason_set(why, -EBUSY, "pid %d is filling it", (int)segment->writer_pid);
    }
    if (segment->n_leases && !force) {
        return reason_set(why, -EBUSY, "it is leased %u times", segment->n_leases);
    }
    log_line(LOG_INFO, "segment %s (uid %d): dropped by uid %d, pid %d", segment->name,
             (int)segment->account->uid, (int)owner->uid, (int)owner->pid);
    notify(pool, GTTD_EVENT_DROPPED, segment, owner);
    memset(segment->name, 0, sizeof segment->name);
    if (segment->state == GTTD_SEALED) {
        keep_remove(&segment->memory->keep);
    }
    struct reason dropped;
    reason_set(&dropped, -ENOENT, "it was dropped by pid %d", (int)owner->pid);
    refuse_waiters(pool, segment, -ENOENT, &dropped);
    collect(segment);
    return 0;
}

void pool_owner_gone(struct pool *pool, struct owner *owner)
{
    list_for_each(pos, &owner->pendings)
    {
        pending_destroy(list_entry(pos, struct pending, owner_link));
    }
    while (!list_empty(&owner->leases)) { /* releasing one may, for all we know, touch others */
        pool_release(pool, list_entry(owner->leases.next, struct lease, owner_link));
    }
}

void pool_set_limits(struct pool *pool, const struct limits *limits)
{
    struct reason why;
    bool unshared = pool->limits.share_group && !limits->share_group;
    pool->limits = *limits;
    reason_set(&why, -ENOENT, "it is another user's, and users do not share any more");
    list_for_each(pos, &pool->segments)
    {
        struct segment *segment = list_entry(pos, struct segment, link);
        list_for_each(waiter_pos, &segment->waiters)
        {
            struct pending *pending = list_entry(waiter_pos, struct pending, segment_link);
            if (unshared && pending->owner->uid != segment->account->uid) {
                answer(pool, pending, -ENOENT, 0, &why);
            }
        }
    }
}

void pool_shut_down(struct pool *pool)
{
    struct reason why;
    reason_set(&why, -ESHUTDOWN, "gttd is ending");
    list_for_each(pos, &pool->segments)
    {
        struct segment *segment = list_entry(pos, struct segment, link);
        refuse_waiters(pool, segment, -ESHUTDOWN, &why);
        answer_request(pool, segment, -ESHUTDOWN, &why);
    }
}

void pool_trim(struct pool *pool)
{
    const struct limits *limits = &pool->limits;
    uint64_t capacity = limits->capacity_bytes, not_ours = pool->quota.bytes + pool->yielded_bytes;
    ballast_aim(&pool->ballast, capacity, capacity > not_ours ? capacity - not_ours : 0,
                limits->floor_bytes);
}

void pool_init(struct pool *pool, struct heap *heap, struct worker *worker,
               const struct limits *limits)
{
    *pool = (struct pool){.heap = heap,
                          .worker = worker,
                          .limits = *limits,
                          .adopted_heap = {.ops = &heap_adopted, .device_fd = -1}};
    list_init(&pool->segments);
    list_init(&pool->memories);
    quota_init(&pool->quota);
    quota_init(&pool->adopted);
    ballast_init(&pool->ballast, heap, worker, &pool->debt);
}

void pool_finish(struct pool *pool)
{
    list_for_each(pos, &pool->segments)
    {
        struct segment *segment = list_entry(pos, struct segment, link);
        segment->memory = NULL; /* freed below */
        segment_destroy(segment);
    }
    list_for_each(memory_pos, &pool->memories)
    {
        memory_destroy(list_entry(memory_pos, struct memory, link));
    }
    ballast_finish(&pool->ballast);
    quota_finish(&pool->quota);
    quota_finish(&pool->adopted);
}
