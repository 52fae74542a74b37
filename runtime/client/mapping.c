/* SPDX-License-Identifier: MIT */
/* Chunks in one piece of address space: see mapping.h. */
#include "mapping.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gttd_util.h"
#include "gttd_wire.h"

static int *no_fds(uint32_t n_chunks)
{
    int *fds = malloc(n_chunks * sizeof fds[0]);
    for (uint32_t i = 0; fds && i < n_chunks; i++) {
        fds[i] = -1;
    }
    return fds;
}

int mapping_init(struct mapping *mapping, uint64_t size_bytes, uint64_t chunk_bytes,
                 uint32_t n_chunks)
{
    *mapping = (struct mapping){.size_bytes = size_bytes,
                                .chunk_bytes = chunk_bytes,
                                .n_chunks = n_chunks,
                                .fds = no_fds(n_chunks)};
    return mapping->fds ? 0 : -ENOMEM;
}

int *mapping_swap_fds(struct mapping *mapping, int *fds)
{
    int *old = mapping->fds;
    fds = fds ? fds : no_fds(mapping->n_chunks);
    if (!fds) {
        return NULL;
    }
    mapping->fds = fds;
    return old;
}

void mapping_free_fds(const struct mapping *mapping, int *fds)
{
    for (uint32_t i = 0; fds && i < mapping->n_chunks; i++) {
        close_fdp(&fds[i]);
    }
    free(fds);
}

void mapping_finish(struct mapping *mapping)
{
    mapping_free_fds(mapping, mapping->fds);
    if (mapping->base) {
        munmap(mapping->base, mapping->size_bytes);
    }
    *mapping = (struct mapping){0};
}

bool mapping_fits(const struct mapping *mapping, uint32_t index, int fd)
{
    /* dma-bufs know seeking to the end, and nothing else about their size */
    off_t size = lseek(fd, 0, SEEK_END);
    uint64_t want = gttd_chunk_size(mapping->size_bytes, mapping->chunk_bytes, index);
    return size >= 0 && (uint64_t)size >= want;
}

/* Address space without memory, from a multiple of the huge page size on, so that chunks can be
 * mapped in huge pages. */
static int reserve(struct mapping *mapping)
{
    uint64_t room_bytes = mapping->size_bytes + GTTD_ALIGN_BYTES;
    uint8_t *room =
        mmap(NULL, room_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) {
        return -errno;
    }
    uint64_t before = -(uintptr_t)room % GTTD_ALIGN_BYTES;
    uint64_t behind = GTTD_ALIGN_BYTES - before;
    if (before) {
        munmap(room, before);
    }
    mapping->base = room + before;
    munmap(mapping->base + mapping->size_bytes, behind);
    return 0;
}

/* Linux before 6.7 maps a write-sealed memfd only through an fd that is read-only itself. */
static int map_chunk(void *at, uint64_t size, int prot, int fd)
{
    if (mmap(at, size, prot, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED) {
        return 0;
    }
    if (errno != EPERM || (prot & PROT_WRITE)) {
        return -errno;
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    AUTO_FD read_only = open(path, O_RDONLY | O_CLOEXEC);
    if (read_only < 0) {
        return -errno;
    }
    return mmap(at, size, prot, MAP_SHARED | MAP_FIXED, read_only, 0) == MAP_FAILED ? -errno : 0;
}

int mapping_map(struct mapping *mapping, bool writable)
{
    int r = mapping->base ? 0 : reserve(mapping);
    if (r < 0) {
        return r;
    }
    int prot = PROT_READ | (writable ? PROT_WRITE : 0);
    for (uint32_t i = 0; i < mapping->n_chunks; i++) {
        uint64_t size = gttd_chunk_size(mapping->size_bytes, mapping->chunk_bytes, i);
        uint8_t *at = mapping->base + (uint64_t)i * mapping->chunk_bytes;
        r = map_chunk(at, size, prot, mapping->fds[i]);
        if (r < 0) {
            mapping_unmap(mapping);
            return r;
        }
        madvise(at, size, MADV_HUGEPAGE); /* a wish; dma-bufs refuse it */
    }
    mapping->mapped = true;
    mapping->writable = writable;
    return 0;
}

/* F_SEAL_WRITE is refused while somebody else, a child perhaps, maps it writably:
 * F_SEAL_FUTURE_WRITE then stops the others at least. dma-bufs know no seals. */
void mapping_seal(const struct mapping *mapping)
{
    for (uint32_t i = 0; i < mapping->n_chunks; i++) {
        if (mapping->fds[i] >= 0 && fcntl(mapping->fds[i], F_ADD_SEALS, F_SEAL_WRITE) < 0) {
            fcntl(mapping->fds[i], F_ADD_SEALS, F_SEAL_FUTURE_WRITE);
        }
        if (mapping->fds[i] >= 0) {
            fcntl(mapping->fds[i], F_ADD_SEALS, F_SEAL_SEAL);
        }
    }
}

int mapping_unmap(struct mapping *mapping)
{
    mapping->mapped = mapping->writable = false;
    void *at = mmap(mapping->base, mapping->size_bytes, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return at == MAP_FAILED ? -errno : 0;
}
