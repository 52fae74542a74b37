/* SPDX-License-Identifier: MIT */
/* Writing safetensors shards: see shards.h. */
#include "shards.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gttd_util.h"
#include "write_file.h"

#define DATA_ALIGN 4096
#define SHARDS_MAX 99999

struct out_tensor {
    char *name;
    enum safetensors_dtype dtype;
    uint32_t n_dims;
    uint64_t shape[SAFETENSORS_MAX_DIMS];
    uint64_t size_bytes;
    size_t shard;
    uint64_t off; /* in the shard's data area */
};

struct shard {
    char name[64];
    int fd;
    uint64_t data_off;
    uint64_t data_bytes;
};

struct shards {
    struct out_tensor *tensors;
    size_t n_tensors;
    struct shard *files;
    size_t n_files;
};

int shards_create(struct shards **ret)
{
    struct shards *shards = calloc(1, sizeof *shards);
    if (!shards) {
        return -ENOMEM;
    }
    *ret = shards;
    return 0;
}

void shards_destroy(struct shards *shards)
{
    if (!shards) {
        return;
    }
    for (size_t i = 0; i < shards->n_files; i++) {
        close_fdp(&shards->files[i].fd);
    }
    for (size_t i = 0; i < shards->n_tensors; i++) {
        free(shards->tensors[i].name);
    }
    free(shards->files);
    free(shards->tensors);
    free(shards);
}

int shards_add(struct shards *shards, const char *name, enum safetensors_dtype dtype,
               uint32_t n_dims, const uint64_t *shape, size_t *ret_index)
{
    struct out_tensor *grown =
        realloc(shards->tensors, (shards->n_tensors + 1) * sizeof *shards->tensors);
    if (!grown) {
        return -ENOMEM;
    }
    shards->tensors = grown;
    struct out_tensor t = {.name = strdup(name), .dtype = dtype, .n_dims = n_dims};
    if (!t.name) {
        return -ENOMEM;
    }
    t.size_bytes = safetensors_dtype_bytes(dtype);
    for (uint32_t i = 0; i < n_dims; i++) {
        t.shape[i] = shape[i];
        t.size_bytes *= shape[i];
    }
    *ret_index = shards->n_tensors;
    shards->tensors[shards->n_tensors++] = t;
    return 0;
}

/* Tensors to shards, in the order in which they were added. */
static int lay_out(struct shards *shards, uint64_t shard_max_bytes, struct err *err)
{
    uint64_t end = 0;
    size_t shard = 0;
    for (size_t i = 0; i < shards->n_tensors; i++) {
        struct out_tensor *t = &shards->tensors[i];
        if (end > 0 && end + t->size_bytes > shard_max_bytes) {
            shard++;
            end = 0;
        }
        t->shard = shard;
        t->off = end;
        end += t->size_bytes;
    }
    if (shard >= SHARDS_MAX) {
        return err_set(err, -EINVAL, "%zu shards are too many", shard + 1);
    }
    shards->files = calloc(shard + 1, sizeof *shards->files);
    if (!shards->files) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    shards->n_files = shard + 1;
    for (size_t i = 0; i < shards->n_files; i++) {
        shards->files[i].fd = -1;
        snprintf(shards->files[i].name, sizeof shards->files[i].name,
                 "model-%05zu-of-%05zu.safetensors", i + 1, shards->n_files);
    }
    for (size_t i = 0; i < shards->n_tensors; i++) {
        shards->files[shards->tensors[i].shard].data_bytes += shards->tensors[i].size_bytes;
    }
    return 0;
}

/* The JSON of one shard's header; NULL out of memory. */
static char *header_text(const struct shards *shards, size_t shard)
{
    json_auto_t *root = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    for (size_t i = 0; root && i < shards->n_tensors; i++) {
        const struct out_tensor *t = &shards->tensors[i];
        if (t->shard != shard) {
            continue;
        }
        json_t *shape = json_array();
        for (uint32_t k = 0; k < t->n_dims; k++) {
            json_array_append_new(shape, json_integer((json_int_t)t->shape[k]));
        }
        json_t *entry = json_pack("{s:s,s:o,s:[I,I]}", "dtype", safetensors_dtype_name(t->dtype),
                                  "shape", shape, "data_offsets", (json_int_t)t->off,
                                  (json_int_t)(t->off + t->size_bytes));
        if (json_object_set_new(root, t->name, entry) < 0) {
            return NULL;
        }
    }
    return root ? json_dumps(root, JSON_COMPACT) : NULL;
}

static int write_header(struct shards *shards, size_t i, int dir_fd, struct err *err)
{
    struct shard *shard = &shards->files[i];
    AUTO_FREE char *json = header_text(shards, i);
    size_t json_bytes = json ? strlen(json) : 0;
    uint64_t data_off = (8 + json_bytes + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
    AUTO_FREE uint8_t *header = malloc(data_off);
    if (!json || !header) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    uint64_t length = data_off - 8;
    memset(header, ' ', data_off);
    memcpy(header, &length, sizeof length);
    memcpy(header + 8, json, json_bytes);
    shard->data_off = data_off;
    shard->fd = openat(dir_fd, shard->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (shard->fd < 0) {
        int r = -errno;
        return err_set(err, r, "%s: cannot create: %s", shard->name, strerror(-r));
    }
    int r = write_all_at(shard->fd, shard->name, 0, header, data_off, err);
    if (r == 0 && ftruncate(shard->fd, (off_t)(data_off + shard->data_bytes)) < 0) {
        r = -errno;
        err_set(err, r, "%s: cannot grow: %s", shard->name, strerror(-r));
    }
    return r;
}

static int write_index(const struct shards *shards, int dir_fd, struct err *err)
{
    json_t *map = json_object();
    uint64_t total = 0;
    for (size_t i = 0; i < shards->n_tensors; i++) {
        const struct out_tensor *t = &shards->tensors[i];
        total += t->size_bytes;
        json_object_set_new(map, t->name, json_string(shards->files[t->shard].name));
    }
    json_auto_t *root =
        json_pack("{s:{s:I},s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    if (!root || json_object_size(map) != shards->n_tensors) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    return write_json_file(dir_fd, "model.safetensors.index.json", root, err);
}

int shards_open(struct shards *shards, int dir_fd, uint64_t shard_max_bytes, struct err *err)
{
    int r = lay_out(shards, shard_max_bytes, err);
    for (size_t i = 0; r == 0 && i < shards->n_files; i++) {
        r = write_header(shards, i, dir_fd, err);
    }
    return r < 0 ? r : write_index(shards, dir_fd, err);
}

int shards_write(struct shards *shards, size_t index, uint64_t off, const void *data, uint64_t size,
                 struct err *err)
{
    const struct out_tensor *t = &shards->tensors[index];
    const struct shard *shard = &shards->files[t->shard];
    return write_all_at(shard->fd, shard->name, shard->data_off + t->off + off, data, size, err);
}

int shards_sync(struct shards *shards, struct err *err)
{
    for (size_t i = 0; i < shards->n_files; i++) {
        if (fsync(shards->files[i].fd) < 0) {
            int r = -errno;
            return err_set(err, r, "%s: cannot sync: %s", shards->files[i].name, strerror(-r));
        }
    }
    return 0;
}
