/* SPDX-License-Identifier: MIT */
/*
 * The memory of one segment: its chunks, its charge, and the slow things done to it on the worker
 * (populate, seal, free). It does not know names, states or clients.
 *
 * Threads: all functions on the main thread. Between memory_populate() or memory_seal() and the
 * callback the chunks are the worker's.
 */
#ifndef GTTD_MEMORY_H
#define GTTD_MEMORY_H

#include <stdatomic.h>

#include "heap.h"
#include "quota.h"
#include "worker.h"

struct segment;

/* What MemAvailable does not show yet; shared by all memory of a pool. */
struct memory_debt {
    atomic_uint_fast64_t unpopulated_bytes; /* admitted, and not taken from the kernel yet */
    atomic_uint_fast64_t freeing_bytes;     /* discarded, and not given back to the kernel yet */
};

enum memory_task { MEMORY_IDLE, MEMORY_POPULATE, MEMORY_SEAL, MEMORY_FREE };

struct memory {
    struct job job;
    struct list link; /* pool::memories */
    struct heap *heap;
    struct worker *worker;
    struct memory_debt *debt;
    struct charge charge;
    struct segment *segment; /* whose it is; NULL once discarded */
    void (*done)(struct memory *memory);
    enum memory_task task;
    atomic_bool discarded;
    bool returned;  /* the worker has seen that it is discarded and has freed all */
    bool immutable; /* after seal: the kernel refuses writes */
    int result;     /* of the populate */
    struct reason why;
    uint64_t size_bytes;
    uint64_t chunk_bytes;
    enum gttd_memory_class memory_class;
    uint64_t left_bytes; /* to populate */
    uint32_t n_chunks;
    uint32_t next_chunk; /* where populating is */
    uint64_t next_offset;
    uint32_t n_sealed; /* chunks that need no more sealing, freeing */
    uint32_t n_freed;
    struct heap_chunk chunks[]; /* [n_chunks] */
};

/* What memory is to be made. */
struct memory_shape {
    uint64_t segment_id; /* for the names of its chunks */
    uint64_t size_bytes; /* gttd_chunk_count() of these is not 0 */
    uint64_t chunk_bytes;
    enum gttd_memory_class memory_class;
};

/* Describe memory of this shape and charge it; nothing is allocated yet. -ENOMEM. */
int memory_create(struct heap *heap, struct worker *worker, struct memory_debt *debt,
                  struct quota *quota, struct account *account, const struct memory_shape *shape,
                  struct memory **ret);

/* Of all its chunks. Not while they are the worker's. */
uint64_t memory_pinned_bytes(const struct memory *memory);

/* Start allocating; done(memory) follows with memory->result and ->why, unless it is discarded. */
void memory_populate(struct memory *memory, void (*done)(struct memory *memory));

/* Start sealing; done(memory) follows with memory->immutable, unless it is discarded. */
void memory_seal(struct memory *memory, void (*done)(struct memory *memory));

/* Give it up, whatever is being done to it: the charge is released now, the memory goes back and
 * the struct is freed as soon as the worker is at it. */
void memory_discard(struct memory *memory);

/* Free everything here and now. Only when no worker runs any more. */
void memory_destroy(struct memory *memory);

#endif
