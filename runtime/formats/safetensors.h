/* SPDX-License-Identifier: MIT */
/*
 * The header of one safetensors file: what tensors it holds and where. A table, no data: reading
 * the bytes is checkpoint.h's business.
 *
 * A file is an 8-byte little-endian length, that many bytes of JSON, and the data area. The JSON
 * maps names to {dtype, shape, data_offsets}; the tensors fill the data area without holes or
 * overlaps, and the file ends where the last one does. All of that is checked.
 */
#ifndef FORMATS_SAFETENSORS_H
#define FORMATS_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

/* The format allows 100 MB; parsed, that could take 3 GB of memory. This is 100 000 tensors. */
#define SAFETENSORS_HEADER_MAX (16u << 20)
#define SAFETENSORS_MAX_DIMS   8

enum safetensors_dtype {
    DTYPE_BOOL,
    DTYPE_U8,
    DTYPE_I8,
    DTYPE_F8_E4M3,
    DTYPE_F8_E5M2,
    DTYPE_U16,
    DTYPE_I16,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_U32,
    DTYPE_I32,
    DTYPE_F32,
    DTYPE_U64,
    DTYPE_I64,
    DTYPE_F64,
    DTYPE_COUNT,
};

struct safetensors_tensor {
    char *name; /* owned by the table */
    enum safetensors_dtype dtype;
    uint32_t n_dims;
    uint64_t shape[SAFETENSORS_MAX_DIMS];
    uint64_t off; /* from the start of the file */
    uint64_t size_bytes;
};

struct safetensors {
    struct safetensors_tensor *tensors; /* [n], in the order of their data */
    size_t n;
};

/*
 * Check the file's first 8 bytes against its size; *ret_header_bytes is the length of the JSON that
 * follows. file is for messages here and below.
 */
int safetensors_header_size(const char *file, const uint8_t length[static 8], uint64_t file_bytes,
                            size_t *ret_header_bytes, struct err *err);

/* Parse and check the JSON of a file of file_bytes. On success *ret is finished by the caller. */
int safetensors_parse(const char *file, const char *json, size_t json_bytes, uint64_t file_bytes,
                      struct safetensors *ret, struct err *err);
void safetensors_finish(struct safetensors *st);

const char *safetensors_dtype_name(enum safetensors_dtype dtype);
uint32_t safetensors_dtype_bytes(enum safetensors_dtype dtype);

#endif
