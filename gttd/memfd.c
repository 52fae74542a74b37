/* SPDX-License-Identifier: MIT */
/* Populated shmem behind an fd: see memfd.h. */
#include "memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "gttd_util.h"
#include "log.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define THP_DIR  "/sys/kernel/mm/transparent_hugepage/"
#define WORD_MAX 16
/* Small enough that a client's death is noticed, large enough to cost nothing. */
#define SLICE_BYTES (64ull << 20)

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

/* The word in brackets of a file such as "always [madvise] never"; "" if there is no such file. */
static void selected_word(const char *path, char ret[static WORD_MAX])
{
    char line[128] = "";
    FILE *f = fopen(path, "re");
    const char *open_bracket;
    ret[0] = '\0';
    if (f && fgets(line, sizeof line, f) && (open_bracket = strchr(line, '['))) {
        sscanf(open_bracket, "[%15[a-z_]", ret);
    }
    if (f) {
        fclose(f);
    }
}

void memfd_init(struct heap *heap)
{
    heap->slice_bytes = SLICE_BYTES;
    char word[WORD_MAX];
    selected_word(THP_DIR "hugepages-2048kB/shmem_enabled", word); /* Linux 6.10 */
    if (!word[0] || !strcmp(word, "inherit")) {
        selected_word(THP_DIR "shmem_enabled", word);
    }
    heap->huge_pages = word[0] && strcmp(word, "never") != 0 && strcmp(word, "deny") != 0;
    if (!heap->huge_pages) {
        log_line(LOG_NOTICE,
                 "memory comes in small pages: write advise to %sshmem_enabled to have "
                 "huge ones, which are faster",
                 THP_DIR);
    }
}

int memfd_begin(const struct heap *heap, struct heap_chunk *chunk, struct reason *why)
{
    chunk->backing_fd = memfd_create(chunk->label, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (chunk->backing_fd < 0) {
        return reason_set(why, -errno, "memfd_create: %s", strerror(errno));
    }
    if (ftruncate(chunk->backing_fd, (off_t)chunk->size_bytes) < 0) {
        return reason_set(why, -errno, "sizing a memfd: %s", strerror(errno));
    }
    if (!heap->huge_pages) {
        return 0;
    }
    int r = map_aligned(chunk->backing_fd, chunk->size_bytes, &chunk->map);
    if (r < 0) {
        return reason_set(why, r, "mapping a memfd: %s", strerror(-r));
    }
    madvise(chunk->map, chunk->size_bytes, MADV_HUGEPAGE);
    return 0;
}

/*
 * In small pages, writing zeros costs half of faulting them in. Not fallocate(), which is faster
 * still: it leaves the zeroing to the first access, and what pins the pages for a device need not
 * be one (memfd_pin_folios() takes them as they are).
 */
static int write_zeros(int fd, uint64_t offset, uint64_t size_bytes)
{
    static uint8_t zeros[1 << 20];
    while (size_bytes) {
        size_t want = size_bytes < sizeof zeros ? size_bytes : sizeof zeros;
        ssize_t n = pwrite(fd, zeros, want, (off_t)offset);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n > 0) {
            offset += (uint64_t)n;
            size_bytes -= (uint64_t)n;
        }
    }
    return 0;
}

static int fault_in(uint8_t *start, uint64_t size_bytes)
{
    int r;
    do {
        r = madvise(start, size_bytes, MADV_POPULATE_WRITE) < 0 ? -errno : 0;
    } while (r == -EINTR || r == -EAGAIN);
    return r;
}

int memfd_populate(struct heap_chunk *chunk, uint64_t offset, uint64_t size_bytes,
                   struct reason *why)
{
    int r = chunk->map ? fault_in((uint8_t *)chunk->map + offset, size_bytes) : -EINVAL;
    if (r == -EINVAL) { /* not mapped, or Linux before 5.14 */
        r = write_zeros(chunk->backing_fd, offset, size_bytes);
    }
    if (r == -EFAULT || r == -ENOSPC) { /* how shmem says that it cannot get a page */
        r = -ENOMEM;
    }
    return r < 0 ? reason_set(why, r, "the kernel has no memory for it: %s", strerror(-r)) : 0;
}

int memfd_end(struct heap_chunk *chunk, struct reason *why)
{
    if (chunk->map) {
        munmap(chunk->map, chunk->size_bytes);
        chunk->map = NULL;
    }
    if (fcntl(chunk->backing_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
        return reason_set(why, -errno, "fixing the size of a memfd: %s", strerror(errno));
    }
    return 0;
}

int memfd_check(int fd, uint64_t size_bytes, struct reason *why)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || fstat(fd, &st) < 0) {
        return reason_set(why, -EBADMSG, "not a memfd");
    }
    if (!(seals & F_SEAL_SHRINK) || !(seals & F_SEAL_GROW) || (uint64_t)st.st_size != size_bytes) {
        return reason_set(why, -EBADMSG, "a memfd of %jd bytes, not of a fixed %" PRIu64,
                          (intmax_t)st.st_size, size_bytes);
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
