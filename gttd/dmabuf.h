/* SPDX-License-Identifier: MIT */
/* What can be done with a dma-buf whoever made it: name it, tell one from other files. */
#ifndef GTTD_DMABUF_H
#define GTTD_DMABUF_H

#include <stdbool.h>
#include <stdint.h>

#include "reason.h"

/* The name that /proc/PID/fdinfo, debugfs and BPF show; cut to 31 bytes. Nothing depends on it, so
 * a kernel that refuses is none of our trouble. */
void dmabuf_set_name(int fd, const char *name);

/* Asks the file system that fd is of. */
bool dmabuf_is(int fd);

/* -EBADMSG unless it is a dma-buf of exactly this size. */
int dmabuf_check(int fd, uint64_t size_bytes, struct reason *why);

#endif
