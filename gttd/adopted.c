/* SPDX-License-Identifier: MIT */
/* What fds of device memory look like: see adopted.h. */
#include "adopted.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dmabuf.h"
#include "gttd_util.h"

/* Fixed numbers of devices.txt: what a driver of either exports is a file of its device. */
#define MAJOR_DRM    226
#define MAJOR_NVIDIA 195

/* A driver that runs on the CPU keeps notes of its own behind the memory. */
#define MEMFD_NOTES_BYTES (64u << 10)

static int refuse(struct reason *why, const char *what)
{
    return reason_set(why, -EBADF, "device memory is not behind %s", what);
}

static int check_device(const struct statx *st, struct reason *why)
{
    if (st->stx_rdev_major == MAJOR_DRM || st->stx_rdev_major == MAJOR_NVIDIA) {
        return 0;
    }
    return reason_set(why, -EBADF,
                      "character device %u:%u is of no graphics driver that gttd knows",
                      st->stx_rdev_major, st->stx_rdev_minor);
}

static int check_memfd(const struct statx *st, int seals, uint64_t alloc_bytes, struct reason *why)
{
    if (!(seals & F_SEAL_GROW)) {
        return refuse(why, "a memfd that can still grow");
    }
    if (st->stx_size > alloc_bytes + MEMFD_NOTES_BYTES) {
        return reason_set(why, -EBADF, "a memfd of %" PRIu64 " bytes for memory of %" PRIu64,
                          (uint64_t)st->stx_size, alloc_bytes);
    }
    return 0;
}

/* What the kernel calls the file, without asking who serves it. */
static void file_name(int fd, char ret[static 64])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, ret, 63);
    ret[n < 0 ? 0 : n] = '\0';
    for (char *c = ret; *c; c++) {
        *c = *c >= ' ' && *c <= '~' ? *c : '?';
    }
}

/* dma-bufs have names like no file has; only of what is called like that is the file system asked,
 * which otherwise may be one that a client runs. */
static int check_other(int fd, struct reason *why)
{
    static const char dmabuf[] = "/dmabuf:";
    char name[64];
    file_name(fd, name);
    return !strncmp(name, dmabuf, sizeof dmabuf - 1) && dmabuf_is(fd)
               ? 0
               : reason_set(why, -EBADF,
                            "device memory is not behind a file that is neither a dma-buf nor a "
                            "memfd (%s)",
                            name);
}

int adopted_check(int fd, uint64_t alloc_bytes, bool *ret_is_ram, struct reason *why)
{
    struct statx st;
    int flags = fcntl(fd, F_GETFL);
    *ret_is_ram = false;
    if (flags < 0 || (flags & O_PATH)) {
        return refuse(why, "an fd that is not open for anything");
    }
    /* what is known of it, without asking who serves it */
    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_SIZE, &st) < 0) {
        return reason_set(why, -EBADF, "statx: %s", strerror(errno));
    }
    switch (st.stx_mode & S_IFMT) {
    case S_IFCHR:
        return check_device(&st, why);
    case S_IFDIR:
        return refuse(why, "a directory");
    case S_IFSOCK:
        return refuse(why, "a socket");
    case S_IFIFO:
        return refuse(why, "a pipe");
    case S_IFBLK:
        return refuse(why, "a block device");
    case S_IFLNK:
        return refuse(why, "a symbolic link");
    default: { /* regular, or of no type as anonymous files are */
        int seals = fcntl(fd, F_GET_SEALS);
        if (seals >= 0) {
            *ret_is_ram = true;
            return check_memfd(&st, seals, alloc_bytes, why);
        }
        return check_other(fd, why);
    }
    }
}

/* Nobody can keep a device from writing to its memory. */
static bool chunk_seal(struct heap *heap, struct heap_chunk *chunk)
{
    (void)heap;
    (void)chunk;
    return false;
}

static int chunk_adopt(struct heap *heap, struct heap_chunk *chunk, int fd_consume,
                       struct reason *why)
{
    AUTO_FD fd = fd_consume;
    bool is_ram;
    (void)heap;
    int r = adopted_check(fd, 2 * GTTD_CHUNK_MAX, &is_ram, why);
    if (r == 0) {
        chunk->hold = HEAP_SWAPPABLE;
        chunk->fd = take_fd(&fd);
    }
    return r;
}

static void chunk_free(struct heap *heap, struct heap_chunk *chunk)
{
    (void)heap;
    close_fdp(&chunk->fd);
}

const struct heap_ops heap_adopted = {
    .name = "adopted",
    .chunk_seal = chunk_seal,
    .chunk_adopt = chunk_adopt,
    .chunk_free = chunk_free,
};
