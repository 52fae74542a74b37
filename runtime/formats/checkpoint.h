/* SPDX-License-Identifier: MIT */
/*
 * A model directory's weight files as one table of tensors, opened and checked but not read: one
 * model.safetensors, or shards with or without an index. Finds a model's matrices and vectors under
 * whatever prefix the file uses, and in whatever form they are stored.
 *
 * Our quantized form (written by quantize.h) is standard safetensors. In place of NAME.weight:
 *   NAME.weight.q4     U8 [rows, cols / 2]: nibbles in the order of model.h; or
 *   NAME.weight.q8     I8 [rows, cols], in -127..127;
 *   NAME.weight.scale  F16 [rows, cols / group];
 *   NAME.weight.bias   F16 [rows, cols / group], optional (affine).
 * Type and group are read from names and shapes. Vectors keep their names and types.
 */
#ifndef FORMATS_CHECKPOINT_H
#define FORMATS_CHECKPOINT_H

#include <stdbool.h>

#include "model.h"
#include "safetensors.h"

struct checkpoint_file {
    char *name; /* file name inside the directory */
    int fd;
    uint64_t size_bytes;
    struct safetensors st;
};

/* A tensor and the file it is in. */
struct checkpoint_tensor {
    const struct safetensors_tensor *tensor;
    const struct checkpoint_file *file;
};

struct checkpoint {
    char *dir;
    struct checkpoint_file *files; /* [n_files] */
    size_t n_files;
    struct checkpoint_tensor *tensors; /* [n_tensors], by name */
    size_t n_tensors;
    const char *prefix; /* of "layers.0...": "model." and so on */
    const char *head;   /* name of an untied head: "lm_head" and so on */
};

/* Where and how one matrix is stored. */
struct checkpoint_matrix {
    uint32_t type; /* enum weight_type */
    uint32_t group;
    uint32_t rows, cols;
    struct checkpoint_tensor data;
    struct checkpoint_tensor scale; /* .tensor is NULL for float types */
    struct checkpoint_tensor bias;  /* .tensor is NULL unless affine */
};

/*
 * Open every weight file of dir and check its header; find the prefix. Errors: -ENOENT (with the
 * name of a missing shard), -EACCES, -EINVAL. *ret is the caller's.
 */
int checkpoint_open(const char *dir, struct err *err, struct checkpoint **ret);
void checkpoint_close(struct checkpoint *ckpt);

/* PREFIX + name, or the head's own name for "head". */
#define CHECKPOINT_NAME_MAX 160
void checkpoint_name(const struct checkpoint *ckpt, const char *name,
                     char ret[static CHECKPOINT_NAME_MAX]);

/* The matrix of that name ("layers.0.mlp.down_proj", "embed_tokens", "head"), checked to be [rows,
 * cols]. */
int checkpoint_matrix(const struct checkpoint *ckpt, const char *name, uint32_t rows, uint32_t cols,
                      struct checkpoint_matrix *ret, struct err *err);

/* The vector of that name, checked to be [size] of a float type. */
int checkpoint_vector(const struct checkpoint *ckpt, const char *name, uint32_t size,
                      struct checkpoint_tensor *ret, struct err *err);

/*
 * Read size bytes at offset off of a tensor into buf, and give the page cache back what it took. An
 * early end of the file is -EIO. Thread-safe.
 */
int checkpoint_read(const struct checkpoint_tensor *t, uint64_t off, uint64_t size, void *buf,
                    struct err *err);

/* n elements of a float type to float32. */
void checkpoint_to_f32(enum safetensors_dtype dtype, const void *data, uint64_t n, float *ret);

#endif
