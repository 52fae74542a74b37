/* SPDX-License-Identifier: MIT */
/*
 * The heap for any Linux GPU: each chunk is a memfd wrapped into a dma-buf by /dev/udmabuf. The
 * driver refuses memfds that are sealed against writing, so immutability is by contract here.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/udmabuf.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "dmabuf.h"
#include "gttd_util.h"
#include "gttd_wire.h"
#include "memfd.h"

#define DEVICE     "/dev/udmabuf"
#define LIMIT_FILE "/sys/module/udmabuf/parameters/size_limit_mb"

/* Largest dma-buf the driver makes, rounded down to whole chunks; 64 MiB is its own default before
 * Linux 6.13, should the parameter not be readable. */
static uint64_t size_limit_bytes(void)
{
    uint64_t limit_mb = 64;
    FILE *f = fopen(LIMIT_FILE, "re");
    if (f) {
        int64_t value;
        if (fscanf(f, "%" SCNd64, &value) == 1 && value >= 0) {
            limit_mb = (uint64_t)value;
        }
        fclose(f);
    }
    if (limit_mb >= GTTD_CHUNK_MAX >> 20) {
        return GTTD_CHUNK_MAX;
    }
    return (limit_mb << 20) / GTTD_ALIGN_BYTES * GTTD_ALIGN_BYTES;
}

static int open_heap(struct heap *heap, const struct heap_choice *choice, struct reason *why)
{
    (void)choice;
    heap->chunk_max_bytes = size_limit_bytes();
    if (!heap->chunk_max_bytes) {
        return reason_set(why, -ENODEV, "%s is less than the 2 MiB of a chunk", LIMIT_FILE);
    }
    heap->device_fd = open(DEVICE, O_RDWR | O_CLOEXEC);
    if (heap->device_fd >= 0) {
        memfd_init(heap);
        return 0;
    }
    if (errno == ENOENT) {
        return reason_set(why, -ENODEV, "there is no %s (kernel option CONFIG_UDMABUF)", DEVICE);
    }
    return reason_set(why, -errno, "%s: %s", DEVICE, strerror(errno));
}

static void close_heap(struct heap *heap)
{
    close_fdp(&heap->device_fd);
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
    int r = memfd_end(chunk, why);
    if (r < 0) {
        return r;
    }
    struct udmabuf_create create = {.memfd = (uint32_t)chunk->backing_fd,
                                    .flags = UDMABUF_FLAGS_CLOEXEC,
                                    .size = chunk->size_bytes};
    chunk->fd = ioctl(heap->device_fd, UDMABUF_CREATE, &create);
    if (chunk->fd < 0) {
        return reason_set(why, -errno, "UDMABUF_CREATE of %" PRIu64 " MiB: %s",
                          chunk->size_bytes >> 20, strerror(errno));
    }
    dmabuf_set_name(chunk->fd, chunk->label);
    close_fdp(&chunk->backing_fd); /* the dma-buf holds the pages */
    return 0;
}

static bool seal(struct heap *heap, struct heap_chunk *chunk)
{
    (void)heap;
    (void)chunk;
    return false;
}

static int adopt(struct heap *heap, struct heap_chunk *chunk, int fd_consume, struct reason *why)
{
    (void)heap;
    int r = dmabuf_check(fd_consume, chunk->size_bytes, why);
    if (r < 0) {
        close_fdp(&fd_consume);
        return r;
    }
    chunk->hold = HEAP_SWAPPABLE;
    chunk->fd = fd_consume;
    return 0;
}

static void pin_text(struct heap *heap, char ret[static GTTD_TEXT_SIZE])
{
    (void)heap;
    gttd_set_text(ret, GTTD_TEXT_SIZE,
                  "udmabuf keeps the pages in RAM; no driver counts them as pinned");
}

static void free_chunk(struct heap *heap, struct heap_chunk *chunk)
{
    (void)heap;
    close_fdp(&chunk->fd);
    memfd_free(chunk);
}

const struct heap_ops heap_udmabuf = {
    .name = "udmabuf",
    .is_dmabuf = true,
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
