/* SPDX-License-Identifier: MIT */
/* What is under way and does not show in the kernel's numbers yet; one for all of a pool. */
#ifndef GTTD_DEBT_H
#define GTTD_DEBT_H

#include <stdatomic.h>

struct memory_debt {
    atomic_uint_fast64_t unpopulated_bytes; /* admitted, and not taken from the kernel yet */
    atomic_uint_fast64_t unclaimed_bytes;   /* of those: may still take ballast's place */
    atomic_uint_fast64_t freeing_bytes;     /* discarded, and not given back to the kernel yet */
    atomic_uint_fast64_t ballast_bytes;     /* reserved, and in no segment */
    atomic_uint_fast64_t traded_bytes;      /* ballast given up, and not given back yet */
    atomic_uint_fast64_t making_bytes;      /* ballast about to be taken from the kernel */
};

#endif
