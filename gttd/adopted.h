/* SPDX-License-Identifier: MIT */
/*
 * Memory that gttd has not made and cannot look into: a device's own, behind fds that its driver
 * has exported and a client has handed over. Nothing is ever done with such an fd but to keep it,
 * to hand out copies, to put it into the fd store, and to close it.
 */
#ifndef GTTD_ADOPTED_H
#define GTTD_ADOPTED_H

#include "heap.h"

/* The heap of such chunks, as far as memory.h needs one: seal, adopt and free. */
extern const struct heap_ops heap_adopted;

/*
 * Whether device memory of alloc_bytes can be behind fd: a file of a GPU's driver, a dma-buf, or a
 * memfd that cannot grow, which is what drivers that run on the CPU export (*ret_is_ram). Asks
 * nothing of a file system that a client may be behind. -EBADF with *why.
 */
int adopted_check(int fd, uint64_t alloc_bytes, bool *ret_is_ram, struct reason *why);

#endif
