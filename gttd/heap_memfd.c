/* SPDX-License-Identifier: MIT */
/*
 * The heap that works everywhere: each chunk is a memfd, no device involved. The only heap whose
 * sealed memory the kernel itself keeps from being written.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "gttd_util.h"
#include "gttd_wire.h"
#include "memfd.h"

static int open_heap(struct heap *heap, const struct heap_choice *choice, struct reason *why)
{
    (void)choice;
    (void)why;
    heap->chunk_max_bytes = GTTD_CHUNK_MAX;
    memfd_init(heap);
    return 0;
}

static void close_heap(struct heap *heap)
{
    (void)heap;
}

static int begin(struct heap *heap, struct heap_chunk *chunk, struct reason *why)
{
    return memfd_begin(heap, chunk, why);
}

static int populate(struct heap *heap, struct heap_chunk *chunk, uint64_t offset,
                    uint64_t size_bytes, struct reason *why)
{
    (void)heap;
    return memfd_populate(chunk, offset, size_bytes, why);
}

static int export_fd(struct heap *heap, struct heap_chunk *chunk, struct reason *why)
{
    (void)heap;
    int r = memfd_end(chunk, why);
    if (r == 0) {
        chunk->fd = take_fd(&chunk->backing_fd);
    }
    return r;
}

/*
 * Of a memfd that somebody has had, the filler itself must have sealed writing (libgtt does, before
 * it asks for the seal): F_ADD_SEALS waits for the inode's lock, and that is held during a write(),
 * which for its part can be made to wait for ever, by writing from a mapping of a file system in
 * user space. To look at the seals takes no lock. Openers get a read-only file: kernels before 6.7
 * let nobody map a write-sealed memfd shared through a writable one.
 */
static bool seal(struct heap *heap, struct heap_chunk *chunk)
{
    (void)heap;
    if (!chunk->handed_out) {
        fcntl(chunk->fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL);
    }
    int seals = fcntl(chunk->fd, F_GET_SEALS);
    bool immutable = seals >= 0 && (seals & F_SEAL_WRITE);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", chunk->fd);
    int read_only = open(path, O_RDONLY | O_CLOEXEC);
    if (read_only >= 0) {
        close(chunk->fd);
        chunk->fd = read_only;
    }
    return immutable;
}

static int adopt(struct heap *heap, struct heap_chunk *chunk, int fd_consume, struct reason *why)
{
    (void)heap;
    int r = memfd_check(fd_consume, chunk->size_bytes, why);
    if (r < 0) {
        close_fdp(&fd_consume);
        return r;
    }
    chunk->hold = HEAP_SWAPPABLE;
    chunk->handed_out = true;
    chunk->fd = fd_consume;
    return 0;
}

static void pin_text(struct heap *heap, char ret[static GTTD_TEXT_SIZE])
{
    (void)heap;
    gttd_set_text(ret, GTTD_TEXT_SIZE, "not pinned: memfd memory may be swapped out");
}

static void free_chunk(struct heap *heap, struct heap_chunk *chunk)
{
    (void)heap;
    memfd_free(chunk);
    close_fdp(&chunk->fd);
}

const struct heap_ops heap_memfd = {
    .name = "memfd",
    .open = open_heap,
    .close = close_heap,
    .chunk_begin = begin,
    .chunk_populate = populate,
    .chunk_export = export_fd,
    .chunk_seal = seal,
    .chunk_adopt = adopt,
    .pin_text = pin_text,
    .chunk_free = free_chunk,
};
