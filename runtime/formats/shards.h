/* SPDX-License-Identifier: MIT */
/*
 * Writing safetensors: a list of tensors laid out into shards, their headers and index, and the
 * tensors' bytes put at their places in any order. Knows nothing of models.
 *
 * Headers are padded with spaces so that the data of each file starts at a multiple of 4096.
 */
#ifndef FORMATS_SHARDS_H
#define FORMATS_SHARDS_H

#include "safetensors.h"

struct shards;

int shards_create(struct shards **ret);
void shards_destroy(struct shards *shards); /* closes files; removes none */

/* Add a tensor before shards_open(). *ret_index names it later. */
int shards_add(struct shards *shards, const char *name, enum safetensors_dtype dtype,
               uint32_t n_dims, const uint64_t *shape, size_t *ret_index);

/* Lay out, create the files in dir_fd at their full size and write their headers and the index. */
int shards_open(struct shards *shards, int dir_fd, uint64_t shard_max_bytes, struct err *err);

/* Write size bytes at offset off of tensor index. Thread-safe. */
int shards_write(struct shards *shards, size_t index, uint64_t off, const void *data, uint64_t size,
                 struct err *err);

/* Flush all files to disk. */
int shards_sync(struct shards *shards, struct err *err);

#endif
