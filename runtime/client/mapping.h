/* SPDX-License-Identifier: MIT */
/*
 * Inside libgtt: the chunks of a segment in the address space of this process, in one piece that
 * keeps its address from the first map to the end. It knows fds and addresses, not gttd.
 */
#ifndef GTT_MAPPING_H
#define GTT_MAPPING_H

#include <stdbool.h>
#include <stdint.h>

struct mapping {
    uint64_t size_bytes;
    uint64_t chunk_bytes;
    uint32_t n_chunks;
    int *fds;      /* [n_chunks], -1: not fetched */
    uint8_t *base; /* reserved address space, 2 MiB-aligned; NULL: not yet */
    bool mapped;   /* the chunks are there, not just the reservation */
    bool writable;
};

int mapping_init(struct mapping *mapping, uint64_t size_bytes, uint64_t chunk_bytes,
                 uint32_t n_chunks); /* -ENOMEM */
void mapping_finish(struct mapping *mapping);

/* True if fd is at least as long as chunk index must be, so that touching it cannot raise SIGBUS.
 */
bool mapping_fits(const struct mapping *mapping, uint32_t index, int fd);

/* Map all chunks, whose fds are all there; over what is mapped already, if anything. */
int mapping_map(struct mapping *mapping, bool writable);
/* Take the chunks out again and keep the address space. */
int mapping_unmap(struct mapping *mapping);

/* Have the kernel refuse every write from now on, by anybody, where it can: with memfds, of which
 * nothing is mapped writably. */
void mapping_seal(const struct mapping *mapping);

/* Put other fds in the place of its fds, which are returned: the caller's, to swap back or to free.
 * NULL means none yet, and is returned if there is no memory for that. */
int *mapping_swap_fds(struct mapping *mapping, int *fds);
void mapping_free_fds(const struct mapping *mapping, int *fds); /* and close them; accepts NULL */

#endif
