/* SPDX-License-Identifier: MIT */
/*
 * Memory of the kernel's shmem behind an fd, in huge pages where it gives them: what the memfd heap
 * hands out and the udmabuf heap wraps.
 */
#ifndef GTTD_MEMFD_H
#define GTTD_MEMFD_H

#include "heap.h"

/* Find out whether this kernel's shmem has huge pages, and log it if not. */
void memfd_init(struct heap *heap);

/* A memfd of chunk->size_bytes in chunk->backing_fd, not yet populated. */
int memfd_begin(const struct heap *heap, struct heap_chunk *chunk, struct reason *why);
/* Allocate and zero a piece of it. */
int memfd_populate(struct heap_chunk *chunk, uint64_t offset, uint64_t size_bytes,
                   struct reason *why);
/* Unmap it if it was mapped, and fix its size for ever, so that no mapper can be hurt by a
 * truncation. */
int memfd_end(struct heap_chunk *chunk, struct reason *why);
/* -EBADMSG unless fd is such a memfd, of exactly this size that can not change any more. */
int memfd_check(int fd, uint64_t size_bytes, struct reason *why);
/* Unmap and close whatever there is. */
void memfd_free(struct heap_chunk *chunk);

#endif
