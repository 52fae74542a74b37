/* SPDX-License-Identifier: MIT */
/*
 * Small Hugging Face model directories for tests: a list of random tensors, which a test may spoil
 * before it writes them. Any failure ends the test.
 */
#ifndef TESTS_MODEL_DIR_H
#define TESTS_MODEL_DIR_H

#include <stdint.h>
#include <stdio.h>

#include "config.h"

struct dir_tensor {
    char name[160];
    const char *dtype;
    uint32_t n_dims;
    uint64_t shape[3];
    uint64_t size;
    uint8_t *data;
};

struct tensor_list {
    struct dir_tensor *v;
    size_t n;
};

/* The config that model_dir_config_json() describes: 3 layers, the last one global. */
void model_dir_config(struct model_config *ret);
extern const char model_dir_config_json[];

/* All tensors of config in one float dtype ("BF16", "F16", "F32"), random, the same for a seed. */
void tensors_random(const struct model_config *config, const char *prefix, const char *dtype,
                    uint64_t seed, struct tensor_list *ret);
void tensors_free(struct tensor_list *list);
struct dir_tensor *tensors_find(struct tensor_list *list, const char *name);
void tensors_add(struct tensor_list *list, const char *name, const char *dtype, uint64_t rows,
                 uint64_t cols, uint64_t seed);
void tensors_remove(struct tensor_list *list, const char *name);

/* A new empty directory under $TMPDIR or /tmp; path is at least 64 bytes. */
void dir_make(char *path, size_t size);
void dir_remove(const char *path);

void write_text(const char *dir, const char *file, const char *text);
void write_bytes(const char *dir, const char *file, const void *data, size_t size);

/* tensors list[first, first + n) as one safetensors file. */
void write_tensors(const char *dir, const char *file, const struct tensor_list *list, size_t first,
                   size_t n);

/*
 * Bytes that malloc has given out, in all threads. 0 unless GLIBC_TUNABLES (set by formats.cmake)
 * takes its caches and arenas away, which would count as used.
 */
size_t memory_used(void);

/* dir with config.json and all of list in model.safetensors. */
void write_model(const char *dir, const struct tensor_list *list);

#endif
