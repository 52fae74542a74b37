/* SPDX-License-Identifier: MIT */
/* Any dma-buf: see dmabuf.h. */
#include "dmabuf.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/dma-buf.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef DMA_BUF_MAGIC
#define DMA_BUF_MAGIC 0x444d4142 /* "DMAB" */
#endif

void dmabuf_set_name(int fd, const char *name)
{
    char cut[DMA_BUF_NAME_LEN];
    snprintf(cut, sizeof cut, "%s", name);
    ioctl(fd, DMA_BUF_SET_NAME_B, (uint64_t)(uintptr_t)cut);
}

bool dmabuf_is(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && fs.f_type == DMA_BUF_MAGIC;
}

int dmabuf_check(int fd, uint64_t size_bytes, struct reason *why)
{
    if (!dmabuf_is(fd)) {
        return reason_set(why, -EBADMSG, "not a dma-buf");
    }
    off_t size = lseek(fd, 0, SEEK_END);
    if (size < 0 || (uint64_t)size != size_bytes) {
        return reason_set(why, -EBADMSG, "a dma-buf of %jd bytes, not of %" PRIu64, (intmax_t)size,
                          size_bytes);
    }
    return 0;
}
