/* SPDX-License-Identifier: MIT */
/* A whole model of random weights in private memory, for tests of backends. */
#ifndef TESTS_RANDOM_MODEL_H
#define TESTS_RANDOM_MODEL_H

#include <stdint.h>

#include "image.h"

/* The same format for every matrix. */
void random_formats(const struct model_config *config, struct weight_format format,
                    struct image_formats *ret);

/*
 * Plan an image of at most chunk_max_bytes per chunk, fill it with random weights and bind it: the
 * model's memory.base is 2 MiB aligned and page-backed, *ret_base is for random_model_destroy().
 * Any failure ends the test.
 */
void random_model_create_chunked(const struct model_config *config,
                                 const struct image_formats *formats, uint64_t chunk_max_bytes,
                                 uint64_t seed, struct model *ret, void **ret_base);

/* The same in chunks as large as they may be. */
void random_model_create(const struct model_config *config, const struct image_formats *formats,
                         uint64_t seed, struct model *ret, void **ret_base);
void random_model_destroy(struct model *model, void *base);

#endif
