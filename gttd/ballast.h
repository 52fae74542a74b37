/* SPDX-License-Identifier: MIT */
/*
 * Ballast: memory that the pool has reserved and no segment has yet. It is really allocated (and
 * pinned, where the heap pins), so that nobody else can take it; it is never handed out itself, but
 * given back to the kernel as a segment's chunks are made, so that what a user gets is new and
 * zeroed. It knows nothing of segments and users.
 *
 * Where there is room, a chunk is made first and the ballast for it freed after that, so that there
 * is no moment in which others could take what was reserved. Otherwise the ballast goes first.
 *
 * Threads: claims on the workers; the rest on the main thread.
 */
#ifndef GTTD_BALLAST_H
#define GTTD_BALLAST_H

#include <pthread.h>

#include "debt.h"
#include "heap.h"
#include "list.h"
#include "worker.h"

/* Where chunks are pinned (and may be 2 GiB large) there are never as many. */
#define BALLAST_PIECES_MAX 1024

/* One thread's share of the growing and shrinking. */
struct ballast_lane {
    struct job job;
    struct ballast *ballast;
};

struct ballast {
    struct heap *heap;
    struct worker *worker;
    struct memory_debt *debt;
    struct ballast_lane lanes[WORKER_THREADS_MAX];
    uint32_t n_running; /* lanes that are the worker's */
    enum { BALLAST_SILENT, BALLAST_COMPLETE, BALLAST_STALLED } said; /* what the log says last */
    int64_t stall_ms;     /* loop_now_ms() when it could not grow; 0: it can */
    struct timer retry;   /* wakes up the loop, after which ballast_aim() is called */
    int n_stalls;         /* in a row, for no reason of ours */
    pthread_mutex_t lock; /* of the fields below */
    struct list pieces;   /* struct ballast_piece, smallest first */
    uint64_t aim_bytes;   /* what there should be */
    uint64_t ahead_bytes; /* of chunks being made */
    uint64_t piece_bytes; /* of the largest pieces */
    uint64_t floor_bytes; /* free RAM not to be taken */
    bool stalled;         /* it cannot grow, because of */
    bool stalled_by_us;   /* what is still under way */
    int64_t early_ms;     /* when ballast was last freed before what replaces it was there */
    struct reason why;
};

/* Ballast taken off for one chunk. All zero: none. */
struct ballast_claim {
    struct ballast_piece *pieces;
    uint64_t ahead_bytes;
};

void ballast_init(struct ballast *ballast, struct heap *heap, struct worker *worker,
                  struct memory_debt *debt);
void ballast_finish(struct ballast *ballast); /* after worker_stop(), with no claim left */

/* What there should be, of a pool of capacity_bytes in all; it grows and shrinks to that by itself.
 * Call it whenever that changes or something was freed; it costs nothing. */
void ballast_aim(struct ballast *ballast, uint64_t capacity_bytes, uint64_t aim_bytes,
                 uint64_t floor_bytes);

/*
 * A chunk of size_bytes, of debt->unclaimed_bytes, is about to be made. If there is room for it,
 * what there is too much of is taken off, to be freed by ballast_settle(). If there is none, as
 * much as there is, up to its size, is freed at once, and the log says so. label: the chunk's.
 */
void ballast_claim(struct ballast *ballast, uint64_t size_bytes, const char *label,
                   struct ballast_claim *ret);
/* The chunk has been made: free what was taken off for it. */
void ballast_settle(struct ballast *ballast, struct ballast_claim *claim);
/* The chunk could not be made: free what was taken off for it, or failing that up to size_bytes
 * more. False: there is nothing, so that trying again will not help. */
bool ballast_yield(struct ballast *ballast, uint64_t size_bytes, const char *label,
                   struct ballast_claim *claim);

/* How large pieces are: so that there are not many, but freeing one does not free too much. */
uint64_t ballast_piece_bytes(uint64_t capacity_bytes, uint64_t chunk_max_bytes);

#endif
