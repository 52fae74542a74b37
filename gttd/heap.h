/* SPDX-License-Identifier: MIT */
/*
 * The seam to where memory comes from. A heap makes chunks: zeroed memory behind one fd that can be
 * handed to clients. It knows nothing of segments, users or limits.
 *
 * Threads: open, close and adopt on the main thread; the other chunk functions on any worker
 * thread, several at a time but never two for one chunk; room and pin text on any thread. A chunk's
 * life: begin, populate until all of it is, export, perhaps seal, free (at any point); or adopt
 * and seal (also on the main thread), free.
 */
#ifndef GTTD_HEAP_H
#define GTTD_HEAP_H

#include <stdbool.h>
#include <stdint.h>

#include "gttd_proto.h"
#include "reason.h"

/* What keeps a chunk in memory. */
enum heap_hold {
    HEAP_SWAPPABLE, /* nothing, or nothing that we could prove */
    HEAP_RESIDENT,  /* a GPU driver's: it moves only if the device's limits overflow */
    HEAP_PINNED,    /* proven: the driver counts it as pinned */
};

/* What a device has to give to everyone who uses it; all 0: the heap has no such limit. */
struct heap_room {
    uint64_t total_bytes;
    uint64_t usable_bytes; /* total less what anyone has pinned */
    uint64_t used_bytes;
};

/* What the administrator asked for. NULL: not said. */
struct heap_choice {
    const char *heap;   /* "auto", or a heap's name */
    const char *device; /* the device to use, of heaps that have several to choose from */
    const char *anchor; /* what is to pin memory, as for anchor_open() */
};

struct heap {
    const struct heap_ops *ops;
    uint64_t chunk_max_bytes;    /* multiple of GTTD_ALIGN_BYTES, at most GTTD_CHUNK_MAX */
    uint64_t slice_bytes;        /* populate this much at a time, so that others get their turn */
    int device_fd;               /* -1: none */
    bool huge_pages;             /* memfd.h: shmem may have them */
    bool has_wc;                 /* GTTD_MEMORY_WC can be had */
    char device[GTTD_TEXT_SIZE]; /* which one, for people; empty: none */
    void *driver;                /* a heap's own */
    struct anchor *anchor;       /* what pins its chunks; NULL: it has nothing like that */
};

/* The caller sets the first group (and hold before adopt), the heap the second. */
struct heap_chunk {
    uint64_t size_bytes;
    enum gttd_memory_class memory_class;
    char label[32]; /* a name that others who look at the system see */

    enum heap_hold hold;
    int fd;                 /* what clients get a copy of; -1 before export */
    int backing_fd;         /* the heap's own; -1: none */
    bool handed_out;        /* somebody else has had its fd: set by the pool, before it is sealed */
    void *map;              /* while it is being populated through a mapping, else NULL */
    void *object;           /* a driver's, before export; else NULL */
    uint32_t anchor_handle; /* while pinned */
};

struct heap_ops {
    const char *name;
    bool is_dmabuf; /* chunk fds are dma-bufs */
    int (*open)(struct heap *heap, const struct heap_choice *choice, struct reason *why);
    void (*close)(struct heap *heap);
    int (*chunk_begin)(struct heap *heap, struct heap_chunk *chunk, struct reason *why);
    int (*chunk_populate)(struct heap *heap, struct heap_chunk *chunk, uint64_t offset,
                          uint64_t size_bytes, struct reason *why);
    int (*chunk_export)(struct heap *heap, struct heap_chunk *chunk, struct reason *why);
    /* From now on nobody writes. True: the kernel makes sure of it. May replace chunk->fd. Must not
     * wait for anything that somebody who has the fd can hold on to. */
    bool (*chunk_seal)(struct heap *heap, struct heap_chunk *chunk);
    /*
     * Take over the fd of a chunk that a gttd before us has exported. hold says what that one had
     * proven, and comes back as what holds now. Consumes fd also on failure. -EBADMSG: it is not
     * what this heap makes, or not of that size.
     */
    int (*chunk_adopt)(struct heap *heap, struct heap_chunk *chunk, int fd_consume,
                       struct reason *why);
    void (*chunk_free)(struct heap *heap, struct heap_chunk *chunk); /* accepts a half-made one */
    int (*room)(struct heap *heap, struct heap_room *ret);           /* NULL: has no such limit */
    /* By what chunks are held, or why they are not pinned, in at most GTTD_TEXT_SIZE - 1 bytes. */
    void (*pin_text)(struct heap *heap, char ret[static GTTD_TEXT_SIZE]);
};

extern const struct heap_ops heap_amdgpu;
extern const struct heap_ops heap_memfd;
extern const struct heap_ops heap_udmabuf;

/* Whether there is such a heap, somewhere; or it is "auto". */
bool heap_choice_exists(const char *heap);

/*
 * Open the heap that was chosen, or with "auto" the best that works here (amdgpu, udmabuf, memfd),
 * and log why no better one does. A device, and an anchor that is named, are only for the amdgpu
 * heap; "auto" with one of them means that heap. *why on failure. Errors: -ENODEV not on this
 * machine, -EINVAL a device or anchor for a heap that has none, those of opening devices.
 */
int heap_open(struct heap *heap, const struct heap_choice *choice, struct reason *why);
void heap_close(struct heap *heap);

/* What the device has left. All 0 if there is no limit, or if the driver does not say. */
struct heap_room heap_room(struct heap *heap);

#endif
