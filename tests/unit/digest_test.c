/* SPDX-License-Identifier: MIT */
/* The digest of memory against its definition: SHA-256 over the SHA-256 of each 64 MiB. */
#include <nettle/sha2.h>
#include <sys/mman.h>

#include "check.h"
#include "gtt.h"
#include "gttd_proto.h"

static void expect(const uint8_t *data, uint64_t size)
{
    struct sha256_ctx outer, inner;
    uint8_t want[32], block[32], got[32];
    sha256_init(&outer);
    for (uint64_t at = 0; at < size; at += GTTD_DIGEST_BLOCK) {
        uint64_t n = size - at < GTTD_DIGEST_BLOCK ? size - at : GTTD_DIGEST_BLOCK;
        sha256_init(&inner);
        sha256_update(&inner, n, data + at);
        sha256_digest(&inner, sizeof block, block);
        sha256_update(&outer, sizeof block, block);
    }
    sha256_digest(&outer, sizeof want, want);
    CHECK_EQ(gtt_digest(data, size, got), 0);
    CHECK(!memcmp(got, want, sizeof want));
}

int main(void)
{
    uint64_t size = 2 * GTTD_DIGEST_BLOCK + (2 << 20);
    uint8_t *data = mmap(NULL, size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(data != MAP_FAILED);
    for (uint64_t i = 0; i < size; i += 65536) {
        data[i] = (uint8_t)(i >> 16);
    }
    expect(data, 0);
    expect(data, 1);
    expect(data, 2 << 20);
    expect(data, GTTD_DIGEST_BLOCK);
    expect(data, size);
    munmap(data, size);
    return 0;
}
