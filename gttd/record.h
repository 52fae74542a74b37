/* SPDX-License-Identifier: MIT */
/*
 * What the next gttd must know of a sealed segment besides the chunks' fds, in a memfd of its own
 * that is kept beside them. It is read back as bytes from outside: the decoder believes nothing.
 * Who keeps it and what becomes of it is fdstore.h's and restore.h's business.
 */
#ifndef GTTD_RECORD_H
#define GTTD_RECORD_H

#include <stddef.h>
#include <sys/types.h>

#include "gttd_proto.h"
#include "reason.h"

#define RECORD_VERSION 2

/* The file by which a chunk's fd is known again: the manager keeps fds in no particular order.
 * Those of device memory may all be of one file, and are known by the names they are stored under.
 */
struct record_chunk {
    uint64_t dev; /* of fstat() */
    uint64_t ino;
    uint32_t hold; /* enum heap_hold: what had been proven of it */
    uint32_t pad;
};

/*
 * On the memfd: little-endian, strings zero behind the NUL, exactly as long as n_chunks says. The
 * checksum is over everything but itself and the two words in front of it, which change whenever
 * the segment is used.
 */
struct record {
    char magic[8]; /* "gttdseg" */
    uint32_t version;
    uint32_t size; /* of the whole */
    uint64_t last_use;
    int64_t last_use_ms; /* CLOCK_MONOTONIC, which a restart does not reset */
    uint64_t checksum;
    uint64_t id;
    uint64_t size_bytes;
    uint64_t chunk_bytes;
    uint32_t n_chunks;
    uint32_t uid;
    int32_t pid;           /* of who filled it */
    uint32_t memory_class; /* enum gttd_memory_class */
    uint32_t metadata_size;
    uint32_t pad;
    char heap[GTTD_LABEL_SIZE];
    char name[GTTD_NAME_SIZE];
    char label[GTTD_LABEL_SIZE];
    uint8_t digest[GTTD_DIGEST_SIZE];
    uint8_t metadata[GTTD_METADATA_MAX];
    struct gttd_device_memory device; /* of an adopted one; else zero */
    struct record_chunk chunks[];     /* [n_chunks] */
};
static_assert(offsetof(struct record, chunks) == 1464, "stored by one gttd and read by another");

#define RECORD_MAX (offsetof(struct record, chunks) + GTTD_CHUNKS_MAX * sizeof(struct record_chunk))

/* Ids and use counts stay below this, so that counting on from them cannot wrap. */
#define RECORD_COUNT_MAX (UINT64_MAX >> 2)

/* A record with room for n_chunks, magic, version and size filled in, the rest zero. NULL: no
 * memory. free() it. */
struct record *record_create(uint32_t n_chunks);

/* Compute the checksum and write it all into a new memfd that cannot change its size. */
int record_write(struct record *record, int *ret_fd);

/* Note in the memfd when the segment was used last; failing does no harm but to the order. */
void record_write_use(int fd, uint64_t last_use, int64_t last_use_ms);

/*
 * Check every byte of a record: data[0..size), aligned for struct record. Pure. 0, -EPROTO with
 * *why, -EPROTONOSUPPORT a record of another version.
 */
int record_check(const void *data, size_t size, struct reason *why);

/* Read and check a memfd that record_write() may have written. The record is the caller's to
 * free(). Errors of record_check(), -EBADF no memfd of such a size, of read(), -ENOMEM. */
int record_read(int fd, struct record **ret, struct reason *why);

uint64_t record_checksum(const struct record *record);

#endif
