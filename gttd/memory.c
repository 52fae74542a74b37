/* SPDX-License-Identifier: MIT */
/* Chunks, their charge and the work on them: see memory.h. */
#include "memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "gttd_util.h"
#include "gttd_wire.h"

#define PATIENCE_MS 1000
#define PAUSE_NS    2000000

/* Worker: give the next chunk back. False: none is left. */
static bool free_chunk(struct memory *memory)
{
    if (memory->n_freed == memory->n_chunks) {
        return false;
    }
    struct heap_chunk *chunk = &memory->chunks[memory->n_freed++];
    uint64_t owed = memory->owed_bytes < chunk->size_bytes ? memory->owed_bytes : chunk->size_bytes;
    memory->heap->ops->chunk_free(memory->heap, chunk);
    memory->owed_bytes -= owed;
    memory->debt->freeing_bytes -= owed;
    return true;
}

static bool step_free(struct job *job)
{
    struct memory *memory = list_entry(job, struct lane, job)->memory;
    if (memory->n_freed == 0 && memory->keep.was_stored) {
        fdstore_barrier(); /* or what is counted as free would still be in the store */
    }
    return free_chunk(memory) && memory->n_freed < memory->n_chunks;
}

/* Worker: the next slice of the lane's chunk. */
static int populate_slice(struct lane *lane, struct reason *why)
{
    struct memory *memory = lane->memory;
    const struct heap_ops *ops = memory->heap->ops;
    struct heap_chunk *chunk = &memory->chunks[lane->chunk];
    if (lane->offset == 0) {
        int r = ops->chunk_begin(memory->heap, chunk, why);
        if (r < 0) {
            return r;
        }
    }
    uint64_t n = chunk->size_bytes - lane->offset;
    n = n < memory->heap->slice_bytes ? n : memory->heap->slice_bytes;
    int r = ops->chunk_populate(memory->heap, chunk, lane->offset, n, why);
    if (r < 0) {
        return r;
    }
    lane->offset += n;
    memory->left_bytes -= n;
    memory->debt->unpopulated_bytes -= n;
    return lane->offset < chunk->size_bytes ? 0 : ops->chunk_export(memory->heap, chunk, why);
}

/* Worker: take the next chunk, and what was reserved for it. False: none is left. */
static bool next_chunk(struct lane *lane)
{
    struct memory *memory = lane->memory;
    lane->chunk = atomic_fetch_add(&memory->next_chunk, 1);
    if (lane->chunk >= memory->n_chunks) {
        return false;
    }
    const struct heap_chunk *chunk = &memory->chunks[lane->chunk];
    memory->unclaimed_bytes -= chunk->size_bytes;
    ballast_claim(memory->ballast, chunk->size_bytes, chunk->label, &lane->claim);
    lane->offset = 0;
    lane->patience_ms = 0;
    lane->has_chunk = true;
    return true;
}

/* Worker: from the start again. */
static void restart_chunk(struct lane *lane)
{
    struct memory *memory = lane->memory;
    memory->debt->unpopulated_bytes += lane->offset;
    memory->left_bytes += lane->offset;
    memory->heap->ops->chunk_free(memory->heap, &memory->chunks[lane->chunk]);
    lane->offset = 0;
}

/* Worker: whether a chunk that could not be had may be had in a moment: something of ours is still
 * being freed, or the driver has not come to free what we have given back. */
static bool worth_waiting(struct lane *lane, bool was_freeing)
{
    struct memory *memory = lane->memory;
    const struct heap_room room = heap_room(memory->heap);
    uint64_t size_bytes = memory->chunks[lane->chunk].size_bytes;
    int64_t now_ms = loop_now_ms();
    if (was_freeing) {
        return true;
    }
    if (room.used_bytes + size_bytes <= room.total_bytes || !room.total_bytes) {
        return false;
    }
    lane->patience_ms = lane->patience_ms ? lane->patience_ms : now_ms + PATIENCE_MS;
    return now_ms < lane->patience_ms;
}

/* Worker: one slice, of a chunk that no other lane has. False: none is left, or all is off. */
static bool step_populate(struct job *job)
{
    struct lane *lane = list_entry(job, struct lane, job);
    struct memory *memory = lane->memory;
    struct reason why;
    if (memory->discarded || memory->result < 0) {
        ballast_settle(memory->ballast, &lane->claim);
        return false;
    }
    if (!lane->has_chunk && !next_chunk(lane)) {
        return false;
    }
    const struct heap_chunk *chunk = &memory->chunks[lane->chunk];
    bool freeing = memory->debt->freeing_bytes || memory->debt->traded_bytes;
    int none = 0, r = populate_slice(lane, &why);
    if (r == 0 && lane->offset == chunk->size_bytes) {
        ballast_settle(memory->ballast, &lane->claim);
        lane->has_chunk = false;
    } else if (r < 0 &&
               ballast_yield(memory->ballast, chunk->size_bytes, chunk->label, &lane->claim)) {
        restart_chunk(lane); /* there was no room after all; now there is some more */
    } else if (r == -ENOMEM && worth_waiting(lane, freeing)) {
        restart_chunk(lane);
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
    } else if (r < 0 && atomic_compare_exchange_strong(&memory->result, &none, r)) {
        memory->why = why;
    }
    return true;
}

/* Worker: seal the next chunk. */
static void seal_chunk(struct memory *memory)
{
    bool immutable = memory->heap->ops->chunk_seal(memory->heap, &memory->chunks[memory->n_sealed]);
    memory->immutable = immutable && (memory->immutable || memory->n_sealed == 0);
    memory->n_sealed++;
}

/* Worker: and when all are sealed, store them if that was planned. */
static bool step_seal(struct job *job)
{
    struct memory *memory = list_entry(job, struct lane, job)->memory;
    if (memory->discarded) {
        return false;
    }
    if (memory->n_sealed < memory->n_chunks) {
        seal_chunk(memory);
        return true;
    }
    keep_store(&memory->keep, memory->chunks);
    return false;
}

static void submit(struct memory *memory, enum memory_task task, bool (*step)(struct job *job),
                   uint32_t n_lanes)
{
    memory->task = task;
    memory->n_running = n_lanes;
    for (uint32_t i = 0; i < n_lanes; i++) {
        memory->lanes[i].job.step = step;
        worker_submit(memory->worker, &memory->lanes[i].job);
    }
}

/* What was promised and will not be taken any more. */
static void forgo_rest(struct memory *memory)
{
    uint64_t left = memory->left_bytes;
    memory->left_bytes = 0;
    memory->debt->unclaimed_bytes -= memory->unclaimed_bytes;
    memory->unclaimed_bytes = 0;
    memory->debt->unpopulated_bytes -= left;
    if (memory->owed_bytes) {
        memory->owed_bytes -= left;
        memory->debt->freeing_bytes -= left;
    }
}

/* Main thread: a lane has come to its end. */
static void lane_done(struct job *job)
{
    struct memory *memory = list_entry(job, struct lane, job)->memory;
    if (--memory->n_running > 0) {
        return;
    }
    memory->task = MEMORY_IDLE;
    forgo_rest(memory);
    bool unwanted = memory->discarded || memory->result < 0;
    if (unwanted && memory->n_freed < memory->n_chunks) {
        submit(memory, MEMORY_FREE, step_free, 1);
    } else if (memory->discarded) {
        memory_destroy(memory);
    } else {
        memory->done(memory);
    }
}

static void describe_chunk(const struct memory_shape *shape, uint32_t index, struct heap_chunk *ret)
{
    *ret = (struct heap_chunk){.size_bytes =
                                   gttd_chunk_size(shape->size_bytes, shape->chunk_bytes, index),
                               .memory_class = shape->memory_class,
                               .fd = -1,
                               .backing_fd = -1};
    snprintf(ret->label, sizeof ret->label, "gttd:%" PRIu64 ":%u", shape->segment_id, index);
}

int memory_create_adopted(struct heap *heap, struct worker *worker, struct memory_debt *debt,
                          struct quota *quota, struct account *account,
                          const struct memory_shape *shape, struct memory **ret)
{
    uint32_t n_chunks = gttd_chunk_count(shape->size_bytes, shape->chunk_bytes);
    struct memory *memory = calloc(1, sizeof *memory + n_chunks * sizeof memory->chunks[0]);
    if (!memory) {
        return -ENOMEM;
    }
    memory->heap = heap;
    memory->worker = worker;
    memory->debt = debt;
    memory->size_bytes = shape->size_bytes;
    memory->chunk_bytes = shape->chunk_bytes;
    memory->memory_class = shape->memory_class;
    memory->n_chunks = n_chunks;
    for (uint32_t i = 0; i < WORKER_THREADS_MAX; i++) {
        memory->lanes[i] = (struct lane){.job.done = lane_done, .memory = memory};
        list_init(&memory->lanes[i].job.link);
    }
    memory->keep.record_fd = -1;
    list_init(&memory->link);
    for (uint32_t i = 0; i < n_chunks; i++) {
        describe_chunk(shape, i, &memory->chunks[i]);
    }
    quota_charge(quota, account, shape->size_bytes, n_chunks, &memory->charge);
    *ret = memory;
    return 0;
}

int memory_create(struct ballast *ballast, struct quota *quota, struct account *account,
                  const struct memory_shape *shape, struct memory **ret)
{
    struct memory *memory;
    struct worker *worker = ballast->worker;
    int r =
        memory_create_adopted(ballast->heap, worker, ballast->debt, quota, account, shape, &memory);
    if (r == 0) {
        memory->ballast = ballast;
        memory->n_lanes =
            memory->n_chunks < worker->n_threads ? memory->n_chunks : worker->n_threads;
        *ret = memory;
    }
    return r;
}

void memory_promise(struct memory *memory)
{
    memory->left_bytes = memory->unclaimed_bytes = memory->size_bytes;
    memory->debt->unpopulated_bytes += memory->size_bytes;
    memory->debt->unclaimed_bytes += memory->size_bytes;
}

uint64_t memory_pinned_bytes(const struct memory *memory)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < memory->n_chunks; i++) {
        bytes += memory->chunks[i].hold == HEAP_PINNED ? memory->chunks[i].size_bytes : 0;
    }
    return bytes;
}

void memory_populate(struct memory *memory, void (*done)(struct memory *memory))
{
    memory->done = done;
    submit(memory, MEMORY_POPULATE, step_populate, memory->n_lanes);
}

void memory_seal(struct memory *memory, void (*done)(struct memory *memory))
{
    memory->done = done;
    submit(memory, MEMORY_SEAL, step_seal, 1);
}

int memory_adopt(struct memory *memory, int *fds, struct reason *why)
{
    int r = 0;
    for (uint32_t i = 0; i < memory->n_chunks && r == 0; i++) {
        r = memory->heap->ops->chunk_adopt(memory->heap, &memory->chunks[i], take_fd(&fds[i]), why);
        if (r == 0) {
            seal_chunk(memory);
        }
    }
    for (uint32_t i = 0; i < memory->n_chunks; i++) {
        close_fdp(&fds[i]);
    }
    return r;
}

void memory_discard(struct memory *memory)
{
    memory->segment = NULL;
    charge_release(&memory->charge);
    if (memory->task == MEMORY_IDLE && memory->n_freed == memory->n_chunks) {
        memory_destroy(memory);
        return;
    }
    if (memory->task != MEMORY_FREE) { /* of a populate that has failed: the worker is at it */
        memory->owed_bytes = memory->size_bytes;
        memory->debt->freeing_bytes += memory->size_bytes;
    }
    memory->discarded = true;
    if (memory->task == MEMORY_IDLE) {
        submit(memory, MEMORY_FREE, step_free, 1);
    }
}

/* It stays in the fd store, and so does the anchor: freeing a chunk is not to release the import
 * there. */
static void leave_pinned(struct memory *memory)
{
    for (uint32_t i = 0; i < memory->n_chunks; i++) {
        memory->chunks[i].hold = HEAP_RESIDENT;
    }
}

void memory_destroy(struct memory *memory)
{
    if (!memory) {
        return;
    }
    list_remove(&memory->link);
    for (uint32_t i = 0; i < memory->n_lanes; i++) {
        ballast_settle(memory->ballast, &memory->lanes[i].claim);
    }
    if (memory->keep.record_fd >= 0) {
        leave_pinned(memory);
    }
    while (free_chunk(memory)) {
    }
    charge_release(&memory->charge);
    keep_finish(&memory->keep);
    free(memory);
}
