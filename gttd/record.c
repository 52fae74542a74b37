/* SPDX-License-Identifier: MIT */
/* A segment's record, written and checked: see record.h. */
#include "record.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "gttd_util.h"
#include "gttd_wire.h"
#include "heap.h"

static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "records are written as they are in memory");

static const char magic[8] = "gttdseg";

#define FIXED_SIZE offsetof(struct record, chunks)

/* FNV-1a. It is against accidents: who can write to the memfd can compute it, too. */
static uint64_t hash(uint64_t sum, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        sum = (sum ^ data[i]) * 0x100000001b3;
    }
    return sum;
}

uint64_t record_checksum(const struct record *record)
{
    const uint8_t *data = (const void *)record;
    uint64_t sum = hash(0xcbf29ce484222325, data, offsetof(struct record, last_use));
    return hash(sum, (const uint8_t *)&record->id, record->size - offsetof(struct record, id));
}

struct record *record_create(uint32_t n_chunks)
{
    size_t size = FIXED_SIZE + n_chunks * sizeof(struct record_chunk);
    struct record *record = calloc(1, size);
    if (record) {
        memcpy(record->magic, magic, sizeof magic);
        record->version = RECORD_VERSION;
        record->size = (uint32_t)size;
        record->n_chunks = n_chunks;
    }
    return record;
}

int record_write(struct record *record, int *ret_fd)
{
    record->checksum = record_checksum(record);
    AUTO_FD fd = memfd_create("gttd-record", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return -errno;
    }
    ssize_t n = pwrite(fd, record, record->size, 0);
    if (n != (ssize_t)record->size) {
        return n < 0 ? -errno : -EIO;
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        return -errno;
    }
    *ret_fd = take_fd(&fd);
    return 0;
}

void record_write_use(int fd, uint64_t last_use, int64_t last_use_ms)
{
    struct {
        uint64_t last_use;
        int64_t last_use_ms;
    } use = {last_use, last_use_ms};
    static_assert(sizeof use ==
                      offsetof(struct record, checksum) - offsetof(struct record, last_use),
                  "the words between");
    ssize_t n = pwrite(fd, &use, sizeof use, offsetof(struct record, last_use));
    (void)n;
}

/* Printable ASCII, ended by a NUL and zero behind it. */
static bool text_valid(const char *text, size_t size)
{
    size_t len = strnlen(text, size);
    for (size_t i = 0; i < len; i++) {
        if (text[i] < ' ' || text[i] > '~') {
            return false;
        }
    }
    for (size_t i = len; i < size; i++) {
        if (text[i]) {
            return false;
        }
    }
    return len < size;
}

static bool zero_from(const uint8_t *data, size_t from, size_t size)
{
    for (size_t i = from; i < size; i++) {
        if (data[i]) {
            return false;
        }
    }
    return true;
}

/* Chunks that gttd made are different files, so that none is ever used twice. */
static const char *check_chunks(const struct record *record)
{
    for (uint32_t i = 0; i < record->n_chunks; i++) {
        const struct record_chunk *chunk = &record->chunks[i];
        if (chunk->hold > HEAP_PINNED || chunk->pad) {
            return "a chunk's padding or hold";
        }
        for (uint32_t j = 0; j < i && !record->device.handle; j++) {
            if (chunk->ino == record->chunks[j].ino && chunk->dev == record->chunks[j].dev) {
                return "two of its chunks are the same";
            }
        }
    }
    return NULL;
}

/* All zero, or complete. */
static bool device_valid(const struct record *record)
{
    const struct gttd_device_memory *device = &record->device;
    return device->handle
               ? gttd_device_memory_valid(device, record->size_bytes, record->chunk_bytes)
               : zero_from((const uint8_t *)device, 0, sizeof *device);
}

static const char *what_is_wrong(const struct record *record, size_t size)
{
    if (gttd_chunk_count(record->size_bytes, record->chunk_bytes) != record->n_chunks ||
        !record->n_chunks || size != FIXED_SIZE + record->n_chunks * sizeof(struct record_chunk)) {
        return "its sizes do not fit together";
    }
    if (!record->id || record->id > RECORD_COUNT_MAX || record->last_use > RECORD_COUNT_MAX) {
        return "its id or use count is out of range";
    }
    if (record->uid == (uint32_t)-1 || record->pid < 0 || record->last_use_ms < 0) {
        return "its uid, pid or time is out of range";
    }
    if (record->memory_class > GTTD_MEMORY_WC || record->pad) {
        return "its memory class or padding";
    }
    if (!text_valid(record->name, sizeof record->name) || !gttd_name_valid(record->name)) {
        return "its name is no segment's";
    }
    if (!text_valid(record->heap, sizeof record->heap) || !record->heap[0] ||
        !text_valid(record->label, sizeof record->label)) {
        return "its heap or label is no text";
    }
    if (!device_valid(record)) {
        return "its device memory is no device's";
    }
    if (record->metadata_size > GTTD_METADATA_MAX ||
        !zero_from(record->metadata, record->metadata_size, GTTD_METADATA_MAX)) {
        return "its metadata is longer than it says";
    }
    return check_chunks(record);
}

int record_check(const void *data, size_t size, struct reason *why)
{
    const struct record *record = data;
    if (size < FIXED_SIZE || memcmp(record->magic, magic, sizeof magic)) {
        return reason_set(why, -EPROTO, "not a record");
    }
    if (record->version != RECORD_VERSION) {
        return reason_set(why, -EPROTONOSUPPORT, "a record of version %u, this gttd knows %u",
                          record->version, RECORD_VERSION);
    }
    if (record->size != size || record_checksum(record) != record->checksum) {
        return reason_set(why, -EPROTO, "a damaged record");
    }
    const char *wrong = what_is_wrong(record, size);
    return wrong ? reason_set(why, -EPROTO, "%s", wrong) : 0;
}

int record_read(int fd, struct record **ret, struct reason *why)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || seals < 0 || !(seals & F_SEAL_SHRINK) ||
        st.st_size < (off_t)FIXED_SIZE || st.st_size > (off_t)RECORD_MAX) {
        return reason_set(why, -EBADF, "not the memfd of a record");
    }
    size_t size = (size_t)st.st_size;
    AUTO_FREE struct record *record = malloc(size);
    if (!record) {
        return reason_set(why, -ENOMEM, "gttd itself is out of memory");
    }
    ssize_t n = pread(fd, record, size, 0);
    if (n != (ssize_t)size) {
        return reason_set(why, n < 0 ? -errno : -EIO, "reading a record: %s",
                          n < 0 ? strerror(errno) : "cut short");
    }
    int r = record_check(record, size, why);
    if (r == 0) {
        *ret = take_ptr(&record);
    }
    return r;
}
