/* SPDX-License-Identifier: MIT */
/* libgtt: the digest of a segment, in blocks so that several cores can share the work. */
#include <errno.h>
#include <nettle/sha2.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "gtt.h"
#include "gttd_proto.h"
#include "gttd_util.h"

#define THREADS_MAX 16 /* beyond that memory is the limit */

static_assert(SHA256_DIGEST_SIZE == GTT_DIGEST_SIZE, "");

struct work {
    const uint8_t *data;
    uint64_t size_bytes;
    uint64_t n_blocks;
    uint8_t (*digests)[SHA256_DIGEST_SIZE]; /* [n_blocks] */
    atomic_uint_fast64_t next_block;
};

static void *hash_blocks(void *arg)
{
    struct work *work = arg;
    uint64_t block;
    while ((block = work->next_block++) < work->n_blocks) {
        uint64_t start = block * GTTD_DIGEST_BLOCK;
        uint64_t left = work->size_bytes - start;
        struct sha256_ctx ctx;
        sha256_init(&ctx);
        sha256_update(&ctx, left < GTTD_DIGEST_BLOCK ? left : GTTD_DIGEST_BLOCK,
                      work->data + start);
        sha256_digest(&ctx, SHA256_DIGEST_SIZE, work->digests[block]);
    }
    return NULL;
}

static uint64_t n_cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (uint64_t)CPU_COUNT(&set) : 1;
}

int gtt_digest(const void *data, uint64_t size_bytes, uint8_t ret_digest[GTT_DIGEST_SIZE])
{
    uint64_t n_blocks = size_bytes / GTTD_DIGEST_BLOCK + (size_bytes % GTTD_DIGEST_BLOCK != 0);
    AUTO_FREE uint8_t *digests = malloc(n_blocks ? n_blocks * SHA256_DIGEST_SIZE : 1);
    if (!digests) {
        return -ENOMEM;
    }
    struct work work = {.data = data,
                        .size_bytes = size_bytes,
                        .n_blocks = n_blocks,
                        .digests = (void *)digests};
    uint64_t n = n_cores();
    n = n < n_blocks ? n : n_blocks;
    pthread_t threads[THREADS_MAX];
    uint64_t n_threads = 0; /* this one works, too: if no thread can be had, it does it all */
    while (n_threads + 1 < n && n_threads < THREADS_MAX &&
           pthread_create(&threads[n_threads], NULL, hash_blocks, &work) == 0) {
        n_threads++;
    }
    hash_blocks(&work);
    while (n_threads) {
        pthread_join(threads[--n_threads], NULL);
    }
    struct sha256_ctx ctx;
    sha256_init(&ctx);
    sha256_update(&ctx, n_blocks * SHA256_DIGEST_SIZE, digests);
    sha256_digest(&ctx, SHA256_DIGEST_SIZE, ret_digest);
    return 0;
}
