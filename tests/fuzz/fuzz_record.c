/* SPDX-License-Identifier: MIT */
/*
 * The check of a stored segment's record, on anything: it must read nothing but what it was given,
 * and what it lets through must be safe to rebuild a segment from. An odd first byte has size and
 * checksum put right, which no fuzzer would guess.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gttd_wire.h"
#include "record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int x)
{
    if (!x) {
        abort();
    }
}

static void use(const struct record *record, size_t size)
{
    uint64_t bytes = 0;
    require(record->size == size);
    for (uint32_t i = 0; i < record->n_chunks; i++) {
        const struct record_chunk *chunk = &record->chunks[i];
        require((const uint8_t *)(chunk + 1) <= (const uint8_t *)record + size);
        bytes += gttd_chunk_size(record->size_bytes, record->chunk_bytes, i);
    }
    require(bytes == record->size_bytes && record->n_chunks);
    require(gttd_name_valid(record->name) && strlen(record->heap) < sizeof record->heap);
    require(strlen(record->label) < sizeof record->label);
    require(!record->device.handle || record->device.last_alloc_bytes);
    require(strlen(record->device.device_name) < sizeof record->device.device_name);
    require(record->metadata_size <= sizeof record->metadata);
    require(record->id + 1 > record->id && record->last_use + 1 > record->last_use);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reason why = {{0}};
    if (!size) {
        return 0;
    }
    bool repair = data[0] & 1;
    struct record *record = malloc(size - 1); /* aligned, and exactly as long as what came */
    if (!record) {
        return 0;
    }
    size--;
    memcpy(record, data + 1, size);
    if (repair && size >= sizeof *record && size <= RECORD_MAX) {
        record->size = (uint32_t)size;
        record->checksum = record_checksum(record);
    }
    int r = record_check(record, size, &why);
    require(r == 0 ? !why.text[0] : why.text[0] != 0);
    if (r == 0) {
        use(record, size);
    }
    free(record);
    return 0;
}
