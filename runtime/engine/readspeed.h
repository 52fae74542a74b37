/* SPDX-License-Identifier: MIT */
/* How fast this CPU reads a block of memory: the wall that a decode on it cannot pass. */
#ifndef ENGINE_READSPEED_H
#define ENGINE_READSPEED_H

#include <stdint.h>

/*
 * Bytes per second that n_threads (0: all cores) read size_bytes at base, which is 64-byte aligned
 * and a multiple of 2 MiB: the best of several passes. Takes about a third of a second.
 */
double read_speed(const uint8_t *base, uint64_t size_bytes, uint32_t n_threads);

#endif
