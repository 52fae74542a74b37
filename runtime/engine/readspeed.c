/* SPDX-License-Identifier: MIT */
/* The read test: see readspeed.h. */
#include "readspeed.h"

#include "parallel.h"

#include <stdatomic.h>
#include <time.h>

#define BLOCK_BYTES (1u << 20)

struct pass {
    const uint64_t *words;
    _Atomic uint64_t sum; /* keeps the compiler from dropping the reads */
};

static void read_block(void *data, size_t i)
{
    struct pass *pass = data;
    const uint64_t *p = pass->words + i * (BLOCK_BYTES / sizeof *p);
    uint64_t s[8] = {0};
    for (size_t k = 0; k < BLOCK_BYTES / sizeof *p; k += 8) {
        for (int j = 0; j < 8; j++) {
            s[j] ^= p[k + j];
        }
    }
    atomic_fetch_xor_explicit(&pass->sum, s[0] ^ s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7],
                              memory_order_relaxed);
}

static double seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

double read_speed(const uint8_t *base, uint64_t size_bytes, uint32_t n_threads)
{
    struct pass pass = {.words = (const uint64_t *)(const void *)base};
    double best = 0, begin = seconds();
    do {
        double start = seconds();
        parallel_for(n_threads, size_bytes / BLOCK_BYTES, read_block, &pass);
        double speed = (double)size_bytes / (seconds() - start);
        if (speed > best) {
            best = speed;
        }
    } while (seconds() - begin < 0.3);
    return best;
}
