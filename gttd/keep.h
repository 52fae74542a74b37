/* SPDX-License-Identifier: MIT */
/*
 * A sealed segment's place in the fd store: what is there of it, and how it gets there and away.
 * Embedded in the memory it is about; all zero but for record_fd -1, it is not kept.
 *
 * Threads: keep_store() on the worker, everything else on the main thread.
 */
#ifndef GTTD_KEEP_H
#define GTTD_KEEP_H

#include "fdstore.h"
#include "heap.h"
#include "record.h"

struct keep {
    struct fdstore *store;
    uint64_t id;           /* of the segment */
    struct record *record; /* what is to be written; owned; NULL: nothing is */
    int record_fd;         /* where the last use is noted; -1: not kept */
    uint32_t n_fds;        /* counted in the store */
    uint32_t n_adopted;    /* of them under names of their own: see fdstore.h */
    bool was_stored;       /* something was sent, and perhaps removed again */
    int result;            /* of keep_store() */
};

/* Plan to keep segment id of n_chunks: room is reserved, and keep->record is for the caller to fill
 * in. -ENOSPC, -ENOMEM with *why; nothing is planned then. */
int keep_plan(struct keep *keep, struct fdstore *store, uint64_t id, uint32_t n_chunks,
              struct reason *why);

/* Put chunks and record into the store and wait until they are there; keep->result says how it
 * went. Does nothing unless it was planned. */
void keep_store(struct keep *keep, const struct heap_chunk *chunks);

/* Note when the segment was used last. Does nothing if it is not kept. */
void keep_note_use(const struct keep *keep, uint64_t last_use, int64_t last_use_ms);

/* Have it forgotten. Does nothing if it is not kept. */
void keep_remove(struct keep *keep);

/* Close and free what is ours; what is in the store stays there. */
void keep_finish(struct keep *keep);

#endif
