/* SPDX-License-Identifier: MIT */
/* The header of one safetensors file, parsed and checked: see safetensors.h. Reads no file. */
#include "safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "gttd_util.h"
#include "json_file.h"

static const struct {
    const char *name;
    uint32_t bytes;
} dtypes[DTYPE_COUNT] = {
    [DTYPE_BOOL] = {"BOOL", 1},       [DTYPE_U8] = {"U8", 1},           [DTYPE_I8] = {"I8", 1},
    [DTYPE_F8_E4M3] = {"F8_E4M3", 1}, [DTYPE_F8_E5M2] = {"F8_E5M2", 1}, [DTYPE_U16] = {"U16", 2},
    [DTYPE_I16] = {"I16", 2},         [DTYPE_F16] = {"F16", 2},         [DTYPE_BF16] = {"BF16", 2},
    [DTYPE_U32] = {"U32", 4},         [DTYPE_I32] = {"I32", 4},         [DTYPE_F32] = {"F32", 4},
    [DTYPE_U64] = {"U64", 8},         [DTYPE_I64] = {"I64", 8},         [DTYPE_F64] = {"F64", 8},
};

const char *safetensors_dtype_name(enum safetensors_dtype dtype)
{
    return dtypes[dtype].name;
}

uint32_t safetensors_dtype_bytes(enum safetensors_dtype dtype)
{
    return dtypes[dtype].bytes;
}

int safetensors_header_size(const char *file, const uint8_t length[static 8], uint64_t file_bytes,
                            size_t *ret_header_bytes, struct err *err)
{
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) {
        n = n << 8 | length[i];
    }
    if (n > SAFETENSORS_HEADER_MAX) {
        return err_set(err, -EINVAL,
                       "%s: a header of %" PRIu64 " bytes is more than the allowed %u", file, n,
                       SAFETENSORS_HEADER_MAX);
    }
    if (file_bytes < 8 || n > file_bytes - 8) {
        return err_set(err, -EINVAL,
                       "%s: truncated: its header needs %" PRIu64 " bytes, the file has %" PRIu64,
                       file, n + 8, file_bytes);
    }
    *ret_header_bytes = (size_t)n;
    return 0;
}

static int parse_dtype(const json_t *value, enum safetensors_dtype *ret)
{
    for (int i = 0; json_is_string(value) && i < DTYPE_COUNT; i++) {
        if (strcmp(json_string_value(value), dtypes[i].name) == 0) {
            *ret = (enum safetensors_dtype)i;
            return 0;
        }
    }
    return -EINVAL;
}

/* A list of n_min to n_max non-negative integers. */
static int parse_list(const json_t *list, size_t n_min, size_t n_max, uint64_t *ret)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n < n_min || n > n_max) {
        return -EINVAL;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_integer(value) || json_integer_value(value) < 0) {
            return -EINVAL;
        }
        ret[i] = (uint64_t)json_integer_value(value);
    }
    return 0;
}

static int parse_tensor(const char *file, const char *name, const json_t *value, uint64_t data_off,
                        struct safetensors_tensor *ret, struct err *err)
{
    struct safetensors_tensor t = {0};
    uint64_t offsets[2];

    if (!json_is_printable(name)) {
        return err_set(err, -EINVAL, "%s: a tensor's name has control characters", file);
    }
    if (!json_is_object(value)) {
        return err_set(err, -EINVAL, "%s: tensor %.200s: is not described by an object", file,
                       name);
    }
    if (parse_dtype(json_object_get(value, "dtype"), &t.dtype) < 0) {
        const char *dtype = json_string_value(json_object_get(value, "dtype"));
        return err_set(err, -EINVAL, "%s: tensor %.200s: unknown dtype %.20s", file, name,
                       dtype && json_is_printable(dtype) ? dtype : "(no name)");
    }
    const json_t *shape = json_object_get(value, "shape");
    if (parse_list(shape, 0, SAFETENSORS_MAX_DIMS, t.shape) < 0) {
        return err_set(err, -EINVAL, "%s: tensor %.200s: shape is not a list of up to %d sizes",
                       file, name, SAFETENSORS_MAX_DIMS);
    }
    t.n_dims = (uint32_t)json_array_size(shape);
    if (parse_list(json_object_get(value, "data_offsets"), 2, 2, offsets) < 0 ||
        offsets[0] > offsets[1]) {
        return err_set(err, -EINVAL, "%s: tensor %.200s: data_offsets is not a range", file, name);
    }
    t.size_bytes = dtypes[t.dtype].bytes;
    for (uint32_t i = 0; i < t.n_dims; i++) {
        if (__builtin_mul_overflow(t.size_bytes, t.shape[i], &t.size_bytes)) {
            return err_set(err, -EINVAL, "%s: tensor %.200s: shape overflows", file, name);
        }
    }
    if (t.size_bytes != offsets[1] - offsets[0]) {
        return err_set(err, -EINVAL,
                       "%s: tensor %.200s: its shape needs %" PRIu64
                       " bytes, data_offsets gives %" PRIu64,
                       file, name, t.size_bytes, offsets[1] - offsets[0]);
    }
    t.off = data_off + offsets[0]; /* both below 2^63 */
    t.name = strdup(name);
    if (!t.name) {
        return err_set(err, -ENOMEM, "%s: out of memory", file);
    }
    *ret = t;
    return 0;
}

static int by_offset(const void *pa, const void *pb)
{
    const struct safetensors_tensor *a = pa, *b = pb;
    if (a->off != b->off) {
        return a->off < b->off ? -1 : 1;
    }
    return a->size_bytes < b->size_bytes ? -1 : a->size_bytes > b->size_bytes;
}

/* The tensors, in the order of their data, fill [data_off, file_bytes) exactly. */
static int check_layout(const char *file, const struct safetensors *st, uint64_t data_off,
                        uint64_t file_bytes, struct err *err)
{
    uint64_t end = data_off;
    for (size_t i = 0; i < st->n; i++) {
        const struct safetensors_tensor *t = &st->tensors[i];
        if (t->off < end) {
            return err_set(err, -EINVAL, "%s: tensor %.150s: overlaps tensor %.150s", file, t->name,
                           st->tensors[i - 1].name);
        }
        if (t->off > end) {
            return err_set(err, -EINVAL,
                           "%s: tensor %.200s: %" PRIu64 " bytes before it belong to no tensor",
                           file, t->name, t->off - end);
        }
        end = t->off + t->size_bytes;
        if (end > file_bytes) {
            return err_set(err, -EINVAL,
                           "%s: tensor %.200s: ends at byte %" PRIu64 ", the file has %" PRIu64,
                           file, t->name, end, file_bytes);
        }
    }
    if (end != file_bytes) {
        return err_set(err, -EINVAL, "%s: %" PRIu64 " bytes after the last tensor", file,
                       file_bytes - end);
    }
    return 0;
}

int safetensors_parse(const char *file, const char *json, size_t json_bytes, uint64_t file_bytes,
                      struct safetensors *ret, struct err *err)
{
    json_auto_t *root = NULL;
    struct safetensors st = {0};
    const char *name;
    json_t *value;
    int r = json_parse_object(file, json, json_bytes, &root, err);
    if (r < 0) {
        return r;
    }
    st.tensors = calloc(json_object_size(root) + 1, sizeof *st.tensors);
    if (!st.tensors) {
        return err_set(err, -ENOMEM, "%s: out of memory", file);
    }
    json_object_foreach(root, name, value)
    {
        if (strcmp(name, "__metadata__") == 0) {
            continue;
        }
        r = parse_tensor(file, name, value, 8 + json_bytes, &st.tensors[st.n], err);
        if (r < 0) {
            goto fail;
        }
        st.n++;
    }
    qsort(st.tensors, st.n, sizeof *st.tensors, by_offset);
    r = check_layout(file, &st, 8 + json_bytes, file_bytes, err);
    if (r < 0) {
        goto fail;
    }
    *ret = st;
    return 0;
fail:
    safetensors_finish(&st);
    return r;
}

void safetensors_finish(struct safetensors *st)
{
    for (size_t i = 0; i < st->n; i++) {
        free(st->tensors[i].name);
    }
    free(st->tensors);
    *st = (struct safetensors){0};
}
