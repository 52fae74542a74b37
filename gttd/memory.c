/* SPDX-License-Identifier: MIT */
/* Chunks, their charge and the work on them: see memory.h. */
#include "memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "gttd_wire.h"

/* How much a populate takes at a time: small enough that a client's death is noticed and that
 * others get their turn, large enough to cost nothing. */
#define SLICE_BYTES (64ull << 20)

/* Worker: give the next chunk back. False: none is left. */
static bool free_chunk(struct memory *memory)
{
    memory->debt->unpopulated_bytes -= memory->left_bytes;
    memory->left_bytes = 0;
    if (memory->n_freed == memory->n_chunks) {
        return false;
    }
    memory->heap->ops->chunk_free(memory->heap, &memory->chunks[memory->n_freed++]);
    return true;
}

/* Worker: the next slice of the next chunk; moves on to the one after when it is whole. */
static int populate_slice(struct memory *memory)
{
    const struct heap_ops *ops = memory->heap->ops;
    struct heap_chunk *chunk = &memory->chunks[memory->next_chunk];
    if (memory->next_offset == 0) {
        int r = ops->chunk_begin(memory->heap, chunk, &memory->why);
        if (r < 0) {
            return r;
        }
    }
    uint64_t n = chunk->size_bytes - memory->next_offset;
    n = n < SLICE_BYTES ? n : SLICE_BYTES;
    int r = ops->chunk_populate(memory->heap, chunk, memory->next_offset, n, &memory->why);
    if (r < 0) {
        return r;
    }
    memory->next_offset += n;
    memory->left_bytes -= n;
    memory->debt->unpopulated_bytes -= n;
    if (memory->next_offset < chunk->size_bytes) {
        return 0;
    }
    memory->next_chunk++;
    memory->next_offset = 0;
    return ops->chunk_export(memory->heap, chunk, &memory->why);
}

/* Worker: seal the next chunk. The kernel waits for pinned pages here, some 100 ms for each chunk
 * that a client has pinned. */
static void seal_chunk(struct memory *memory)
{
    bool immutable = memory->heap->ops->chunk_seal(memory->heap, &memory->chunks[memory->n_sealed]);
    memory->immutable = immutable && (memory->immutable || memory->n_sealed == 0);
    memory->n_sealed++;
}

static bool memory_step(struct job *job)
{
    struct memory *memory = list_entry(job, struct memory, job);
    if (memory->discarded || memory->result < 0) {
        if (free_chunk(memory)) {
            return true;
        }
        if (memory->discarded) {
            memory->debt->freeing_bytes -= memory->size_bytes;
            memory->returned = true;
        }
        return false;
    }
    if (memory->task == MEMORY_SEAL) {
        seal_chunk(memory);
        return memory->n_sealed < memory->n_chunks;
    }
    memory->result = populate_slice(memory);
    return memory->result < 0 || memory->next_chunk < memory->n_chunks;
}

static void memory_job_done(struct job *job)
{
    struct memory *memory = list_entry(job, struct memory, job);
    memory->task = MEMORY_IDLE;
    if (!memory->discarded) {
        memory->done(memory);
    } else if (memory->returned) {
        memory_destroy(memory);
    } else { /* discarded between the job's last step and now */
        memory->task = MEMORY_FREE;
        worker_submit(memory->worker, job);
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

int memory_create(struct heap *heap, struct worker *worker, struct memory_debt *debt,
                  struct quota *quota, struct account *account, const struct memory_shape *shape,
                  struct memory **ret)
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
    memory->job = (struct job){.step = memory_step, .done = memory_job_done};
    list_init(&memory->job.link);
    list_init(&memory->link);
    for (uint32_t i = 0; i < n_chunks; i++) {
        describe_chunk(shape, i, &memory->chunks[i]);
    }
    quota_charge(quota, account, shape->size_bytes, n_chunks, &memory->charge);
    *ret = memory;
    return 0;
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
    memory->task = MEMORY_POPULATE;
    memory->left_bytes = memory->size_bytes;
    memory->debt->unpopulated_bytes += memory->size_bytes;
    worker_submit(memory->worker, &memory->job);
}

void memory_seal(struct memory *memory, void (*done)(struct memory *memory))
{
    memory->done = done;
    memory->task = MEMORY_SEAL;
    worker_submit(memory->worker, &memory->job);
}

void memory_discard(struct memory *memory)
{
    memory->segment = NULL;
    charge_release(&memory->charge);
    if (memory->task == MEMORY_IDLE && memory->n_freed == memory->n_chunks) {
        memory_destroy(memory);
        return;
    }
    memory->debt->freeing_bytes += memory->size_bytes;
    memory->discarded = true;
    if (memory->task == MEMORY_IDLE) {
        memory->task = MEMORY_FREE;
        worker_submit(memory->worker, &memory->job);
    }
}

void memory_destroy(struct memory *memory)
{
    if (!memory) {
        return;
    }
    list_remove(&memory->link);
    while (free_chunk(memory)) {
    }
    charge_release(&memory->charge);
    free(memory);
}
