/* SPDX-License-Identifier: MIT */
/*
 * The memory of one segment: its chunks, its charge, and the slow things done to it on the worker
 * (populate, seal, free). It does not know names, states or clients.
 *
 * Populating goes on in several lanes, each of which makes one chunk after the other, since a GPU
 * driver makes a chunk in a single call.
 *
 * Threads: all functions on the main thread. Between memory_populate() or memory_seal() and the
 * callback the chunks are the worker's.
 */
#ifndef GTTD_MEMORY_H
#define GTTD_MEMORY_H

#include <stdatomic.h>

#include "ballast.h"
#include "heap.h"
#include "keep.h"
#include "quota.h"
#include "worker.h"

struct segment;

enum memory_task { MEMORY_IDLE, MEMORY_POPULATE, MEMORY_SEAL, MEMORY_FREE };

/* One thread's share of the work. */
struct lane {
    struct job job;
    struct memory *memory;
    bool has_chunk;
    uint32_t chunk;             /* the one it populates */
    uint64_t offset;            /* in it */
    struct ballast_claim claim; /* for it */
    int64_t patience_ms;        /* until then it waits for memory to come back; 0: it does not */
};

struct memory {
    struct list link; /* pool::memories */
    struct lane lanes[WORKER_THREADS_MAX];
    uint32_t n_lanes;   /* that populate; the rest is done by the first alone */
    uint32_t n_running; /* lanes that are the worker's */
    struct heap *heap;
    struct worker *worker;
    struct memory_debt *debt;
    struct ballast *ballast; /* NULL: it is adopted */
    struct charge charge;
    struct segment *segment; /* whose it is; NULL once discarded */
    void (*done)(struct memory *memory);
    enum memory_task task;
    atomic_bool discarded;
    bool immutable;    /* after seal: the kernel refuses writes */
    atomic_int result; /* of the populate: the first failure */
    struct reason why; /* of whoever set result */
    uint64_t size_bytes;
    uint64_t chunk_bytes;
    enum gttd_memory_class memory_class;
    atomic_uint_fast64_t left_bytes;      /* to populate */
    atomic_uint_fast64_t unclaimed_bytes; /* our part of debt->unclaimed_bytes */
    uint64_t owed_bytes;                  /* our part of debt->freeing_bytes */
    uint32_t n_chunks;
    atomic_uint next_chunk; /* the first that no lane has taken */
    uint32_t n_sealed;      /* chunks that need no more sealing, freeing */
    uint32_t n_freed;
    struct keep keep;           /* in the fd store, once sealed */
    struct heap_chunk chunks[]; /* [n_chunks] */
};

/* What memory is to be made. */
struct memory_shape {
    uint64_t segment_id; /* for the names of its chunks */
    uint64_t size_bytes; /* gttd_chunk_count() of these is not 0 */
    uint64_t chunk_bytes;
    enum gttd_memory_class memory_class;
};

/* Describe memory of this shape and charge it; nothing is allocated yet. Heap and worker are those
 * of the ballast that it is traded for. -ENOMEM. */
int memory_create(struct ballast *ballast, struct quota *quota, struct account *account,
                  const struct memory_shape *shape, struct memory **ret);

/* The same for memory that clients hand over chunk by chunk: heap is that of adopted.h, and debt
 * one that nobody asks, since it is not RAM. */
int memory_create_adopted(struct heap *heap, struct worker *worker, struct memory_debt *debt,
                          struct quota *quota, struct account *account,
                          const struct memory_shape *shape, struct memory **ret);

/* Of all its chunks. Not while they are the worker's. */
uint64_t memory_pinned_bytes(const struct memory *memory);

/* It is going to be allocated: whoever asks what is free (debt.h) is to know. */
void memory_promise(struct memory *memory);

/* Start allocating what was promised; done(memory) follows with memory->result and ->why, unless it
 * is discarded. */
void memory_populate(struct memory *memory, void (*done)(struct memory *memory));

/* Start sealing, and storing if that was planned in memory->keep; done(memory) follows with
 * memory->immutable and the keep's result, unless it is discarded. */
void memory_seal(struct memory *memory, void (*done)(struct memory *memory));

/* Of memory that was just created: take over the chunks that a gttd before us has made and sealed.
 * fds [n_chunks] in the order of the chunks, consumed also on failure; destroy it then. */
int memory_adopt(struct memory *memory, int *fds, struct reason *why);

/* Give it up, whatever is being done to it: the charge is released now, the memory goes back and
 * the struct is freed as soon as the worker is at it. */
void memory_discard(struct memory *memory);

/* Free everything here and now. Only when no worker runs any more. */
void memory_destroy(struct memory *memory);

#endif
