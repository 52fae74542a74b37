/* SPDX-License-Identifier: MIT */
/*
 * The seam to where memory comes from. A heap makes chunks: zeroed memory behind one fd that can be
 * handed to clients. It knows nothing of segments, users or limits.
 *
 * Threads: open and close on the main thread; chunk functions on the worker, one at a time. A
 * chunk's life: begin, populate until all of it is, export, perhaps seal, free (at any point).
 */
#ifndef GTTD_HEAP_H
#define GTTD_HEAP_H

#include <stdbool.h>
#include <stdint.h>

#include "reason.h"

struct heap {
    const struct heap_ops *ops;
    uint64_t chunk_max_bytes; /* multiple of GTTD_ALIGN_BYTES, at most GTTD_CHUNK_MAX */
    int device_fd;            /* -1: none */
    bool huge_pages;          /* memfd.h: shmem may have them */
};

struct heap_chunk {
    uint64_t size_bytes;
    int fd;         /* what clients get a copy of; -1 before export */
    int backing_fd; /* the heap's own; -1: none */
    void *map;      /* while it is being populated through a mapping, else NULL */
};

struct heap_ops {
    const char *name;
    bool is_dmabuf; /* chunk fds are dma-bufs */
    int (*open)(struct heap *heap, struct reason *why);
    void (*close)(struct heap *heap);
    int (*chunk_begin)(struct heap *heap, struct heap_chunk *chunk, struct reason *why);
    int (*chunk_populate)(struct heap *heap, struct heap_chunk *chunk, uint64_t offset,
                          uint64_t size_bytes, struct reason *why);
    int (*chunk_export)(struct heap *heap, struct heap_chunk *chunk, struct reason *why);
    /* From now on nobody writes. True: the kernel makes sure of it. May replace chunk->fd. */
    bool (*chunk_seal)(struct heap *heap, struct heap_chunk *chunk);
    void (*chunk_free)(struct heap *heap, struct heap_chunk *chunk); /* accepts a half-made one */
};

extern const struct heap_ops heap_memfd;
extern const struct heap_ops heap_udmabuf;

/* Whether there is such a heap, or will be, somewhere; or it is "auto". */
bool heap_choice_exists(const char *choice);

/*
 * Open the heap called choice, or with "auto" the best that works here, and log which. *why on
 * failure. Errors: -ENODEV not on this machine, -EOPNOTSUPP not built.
 */
int heap_open(struct heap *heap, const char *choice, struct reason *why);
void heap_close(struct heap *heap);

#endif
