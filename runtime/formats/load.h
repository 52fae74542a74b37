/* SPDX-License-Identifier: MIT */
/*
 * From a model directory on disk to an image in memory. A plan is made from the headers of the
 * safetensors files (and config.json) alone; filling it reads each weight byte once, converts where
 * the file's form is not the image's, and writes into memory the caller provides.
 */
#ifndef FORMATS_LOAD_H
#define FORMATS_LOAD_H

#include "image.h"

struct load_plan;

#define LOAD_NAME_MAX 96

/*
 * The name under which an image of this directory lives in a pool: "gemma3-" and the hex SHA-256
 * over the texts of config.json and index.json, each weight file's name, device, inode, size and
 * mtime, IMAGE_VERSION and IMAGE_CHUNK_MAX. Opens and reads no weight file. Errors: -ENOENT,
 * -EACCES, -EINVAL.
 */
int load_identity(const char *dir, char ret_name[static LOAD_NAME_MAX], struct err *err);

/*
 * Check the directory (all tensors present, of the right shape and type, in bounds, not
 * overlapping; no file truncated) and lay out its image. chunk_max_bytes as in image_plan(). Every
 * error names file, tensor and reason.
 */
int load_plan_create(const char *dir, const struct model_config *config, uint64_t chunk_max_bytes,
                     struct err *err, struct load_plan **ret);
void load_plan_destroy(struct load_plan *plan);

/* The laid-out model: offsets and memory.size_bytes/chunk_bytes/n_chunks; memory.base is NULL. */
const struct model *load_plan_model(const struct load_plan *plan);

/*
 * Fill base (memory.size_bytes of zeroed, writable memory) with the image. progress may be NULL; it
 * is called with done and total bytes of weight files read, and a non-zero return stops with
 * -ECANCELED. n_threads: for conversion. The files' page cache is given back as it goes, so that
 * weights are not held twice.
 */
int load_fill(struct load_plan *plan, uint8_t *base, uint32_t n_threads,
              int (*progress)(void *data, uint64_t done, uint64_t total), void *progress_data,
              struct err *err);

#endif
