/* SPDX-License-Identifier: MIT */
/* Populated shmem behind an fd: see memfd.h. */
#include "memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "gttd_util.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* Address space for size bytes that starts at a multiple of the huge page size: without that the
 * kernel populates in small pages. */
static int map_aligned(int fd, uint64_t size, void **ret)
{
    uint8_t *room = mmap(NULL, size + GTTD_ALIGN_BYTES, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) {
        return -errno;
    }
    uint64_t skip = -(uintptr_t)room % GTTD_ALIGN_BYTES;
    void *map = mmap(room + skip, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    int r = map == MAP_FAILED ? -errno : 0;
    if (r < 0) {
        munmap(room, size + GTTD_ALIGN_BYTES);
        return r;
    }
    if (skip) {
        munmap(room, skip);
    }
    if (skip < GTTD_ALIGN_BYTES) {
        munmap(room + skip + size, GTTD_ALIGN_BYTES - skip);
    }
    *ret = map;
    return 0;
}

int memfd_begin(struct heap_chunk *chunk, struct reason *why)
{
    chunk->backing_fd = memfd_create("gttd", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (chunk->backing_fd < 0) {
        return reason_set(why, -errno, "memfd_create: %s", strerror(errno));
    }
    if (ftruncate(chunk->backing_fd, (off_t)chunk->size_bytes) < 0) {
        return reason_set(why, -errno, "sizing a memfd: %s", strerror(errno));
    }
    int r = map_aligned(chunk->backing_fd, chunk->size_bytes, &chunk->map);
    if (r < 0) {
        return reason_set(why, r, "mapping a memfd: %s", strerror(-r));
    }
    /* refused when the kernel has no huge pages at all: then they are small, and that is all */
    madvise(chunk->map, chunk->size_bytes, MADV_HUGEPAGE);
    return 0;
}

int memfd_populate(struct heap_chunk *chunk, uint64_t offset, uint64_t size_bytes,
                   struct reason *why)
{
    int r;
    do {
        r = madvise((uint8_t *)chunk->map + offset, size_bytes, MADV_POPULATE_WRITE) < 0 ? -errno
                                                                                         : 0;
    } while (r == -EINTR || r == -EAGAIN);
    if (r == -EINVAL) { /* Linux before 5.14 */
        r = fallocate(chunk->backing_fd, 0, (off_t)offset, (off_t)size_bytes) < 0 ? -errno : 0;
    }
    if (r == -EFAULT || r == -ENOSPC) { /* how shmem says that it cannot get a page */
        r = -ENOMEM;
    }
    return r < 0 ? reason_set(why, r, "the kernel has no memory for it: %s", strerror(-r)) : 0;
}

int memfd_end(struct heap_chunk *chunk, struct reason *why)
{
    munmap(chunk->map, chunk->size_bytes);
    chunk->map = NULL;
    if (fcntl(chunk->backing_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
        return reason_set(why, -errno, "fixing the size of a memfd: %s", strerror(errno));
    }
    return 0;
}

void memfd_free(struct heap_chunk *chunk)
{
    if (chunk->map) {
        munmap(chunk->map, chunk->size_bytes);
        chunk->map = NULL;
    }
    close_fdp(&chunk->backing_fd);
}
