/* SPDX-License-Identifier: MIT */
/*
 * Which files of a directory hold its weights: model.safetensors; else what
 * model.safetensors.index.json names; else the complete set model-0000N-of-000MM*.safetensors,
 * where
 * * is nothing, _shared or _layer_K. Names only: opens no weight file.
 */
#ifndef FORMATS_WEIGHT_FILES_H
#define FORMATS_WEIGHT_FILES_H

#include <jansson.h>
#include <stddef.h>

#include "err.h"

struct weight_files {
    char **names; /* [n], sorted, no duplicates */
    size_t n;
    char *index_text;   /* text of the index, or NULL */
    size_t index_bytes; /* its length */
    json_t *index;      /* its weight_map, tensor name to file name, or NULL */
};

/* dir is for messages. Errors: -ENOENT none, or a missing shard, by name; -EINVAL a bad index. */
int weight_files_find(int dir_fd, const char *dir, struct weight_files *ret, struct err *err);
void weight_files_finish(struct weight_files *files);

#endif
