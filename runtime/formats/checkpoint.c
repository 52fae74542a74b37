/* SPDX-License-Identifier: MIT */
/* A model directory's weight files as one table of tensors: see checkpoint.h. */
#include "checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "gttd_util.h"
#include "half.h"
#include "json_file.h"
#include "weight_files.h"

/* What Hugging Face's Gemma 3 checkpoints have been saved with, and their untied heads. */
static const struct {
    const char *prefix, *head;
} prefixes[] = {
    {"model.", "lm_head"},
    {"language_model.model.", "language_model.lm_head"},
    {"model.language_model.", "lm_head"},
};

static int read_at(int fd, const char *what, uint64_t off, uint64_t size, uint8_t *buf,
                   struct err *err)
{
    while (size > 0) {
        ssize_t n = pread(fd, buf, size, (off_t)off);
        if (n < 0 && errno != EINTR) {
            int r = -errno;
            return err_set(err, r, "%s: cannot read: %s", what, strerror(-r));
        }
        if (n == 0) {
            return err_set(err, -EIO, "%s: ends at byte %" PRIu64 ": it was cut while being read",
                           what, off);
        }
        if (n > 0) {
            off += (uint64_t)n;
            buf += n;
            size -= (uint64_t)n;
        }
    }
    return 0;
}

static int open_file(int dir_fd, const char *dir, const char *name, struct checkpoint_file *ret,
                     struct err *err)
{
    struct stat st;
    uint8_t length[8];
    size_t header_bytes;

    ret->name = strdup(name);
    /* O_NONBLOCK: a FIFO of that name must not hang us */
    ret->fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (!ret->name || ret->fd < 0 || fstat(ret->fd, &st) < 0) {
        int r = ret->name ? -errno : -ENOMEM;
        return err_set(err, r, "%s/%s: cannot open: %s", dir, name, strerror(-r));
    }
    if (!S_ISREG(st.st_mode)) {
        return err_set(err, -EINVAL, "%s/%s: is not a regular file", dir, name);
    }
    ret->size_bytes = (uint64_t)st.st_size;
    if (ret->size_bytes < sizeof length) {
        return err_set(err, -EINVAL, "%s: truncated: the file has only %" PRIu64 " bytes", name,
                       ret->size_bytes);
    }
    int r = read_at(ret->fd, name, 0, sizeof length, length, err);
    if (r == 0) {
        r = safetensors_header_size(name, length, ret->size_bytes, &header_bytes, err);
    }
    if (r < 0) {
        return r;
    }
    AUTO_FREE char *json = malloc(header_bytes + 1);
    if (!json) {
        return err_set(err, -ENOMEM, "%s: out of memory", name);
    }
    r = read_at(ret->fd, name, sizeof length, header_bytes, (uint8_t *)json, err);
    if (r == 0) {
        r = safetensors_parse(name, json, header_bytes, ret->size_bytes, &ret->st, err);
    }
    return r;
}

static int by_name(const void *pa, const void *pb)
{
    const struct checkpoint_tensor *a = pa, *b = pb;
    return strcmp(a->tensor->name, b->tensor->name);
}

static struct checkpoint_tensor find(const struct checkpoint *ckpt, const char *name)
{
    struct safetensors_tensor t = {.name = (char *)name};
    struct checkpoint_tensor key = {.tensor = &t};
    const struct checkpoint_tensor *found =
        bsearch(&key, ckpt->tensors, ckpt->n_tensors, sizeof key, by_name);
    return found ? *found : (struct checkpoint_tensor){0};
}

/* One table over all files, by name; a tensor may be in one file only. */
static int merge(struct checkpoint *ckpt, struct err *err)
{
    size_t n = 0;
    for (size_t i = 0; i < ckpt->n_files; i++) {
        n += ckpt->files[i].st.n;
    }
    ckpt->tensors = calloc(n + 1, sizeof *ckpt->tensors);
    if (!ckpt->tensors) {
        return err_set(err, -ENOMEM, "%s: out of memory", ckpt->dir);
    }
    for (size_t i = 0; i < ckpt->n_files; i++) {
        for (size_t k = 0; k < ckpt->files[i].st.n; k++) {
            ckpt->tensors[ckpt->n_tensors++] =
                (struct checkpoint_tensor){.tensor = &ckpt->files[i].st.tensors[k],
                                           .file = &ckpt->files[i]};
        }
    }
    qsort(ckpt->tensors, n, sizeof *ckpt->tensors, by_name);
    for (size_t i = 1; i < n; i++) {
        const struct checkpoint_tensor *a = &ckpt->tensors[i - 1], *b = &ckpt->tensors[i];
        if (strcmp(a->tensor->name, b->tensor->name) == 0) {
            return err_set(err, -EINVAL, "%s: tensor %.150s: is also in %s", a->file->name,
                           a->tensor->name, b->file->name);
        }
    }
    return 0;
}

/* What the index promises must be where it says. */
static int check_index(const struct checkpoint *ckpt, json_t *index, struct err *err)
{
    const char *name;
    json_t *value;
    json_object_foreach(index, name, value)
    {
        struct checkpoint_tensor t = find(ckpt, name);
        if (!t.tensor || strcmp(t.file->name, json_string_value(value)) != 0) {
            return err_set(err, -EINVAL, "%s: tensor %.150s: is not there, but the index says so",
                           json_string_value(value), name);
        }
    }
    return 0;
}

static int find_prefix(struct checkpoint *ckpt, struct err *err)
{
    static const char *const suffixes[] = {"", ".q4", ".q8"};
    for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
        for (size_t k = 0; k < ARRAY_SIZE(suffixes); k++) {
            char name[CHECKPOINT_NAME_MAX];
            snprintf(name, sizeof name, "%sembed_tokens.weight%s", prefixes[i].prefix, suffixes[k]);
            if (!find(ckpt, name).tensor) {
                continue;
            }
            if (ckpt->prefix && ckpt->prefix != prefixes[i].prefix) {
                return err_set(err, -EINVAL, "%s: holds two models, %s* and %s*", ckpt->dir,
                               ckpt->prefix, prefixes[i].prefix);
            }
            ckpt->prefix = prefixes[i].prefix;
            ckpt->head = prefixes[i].head;
        }
    }
    if (!ckpt->prefix) {
        return err_set(err, -EINVAL, "%s: tensor model.embed_tokens.weight: is in no weight file",
                       ckpt->dir);
    }
    return 0;
}

static int open_files(struct checkpoint *ckpt, int dir_fd, const struct weight_files *files,
                      struct err *err)
{
    ckpt->files = calloc(files->n, sizeof *ckpt->files);
    if (!ckpt->files) {
        return err_set(err, -ENOMEM, "%s: out of memory", ckpt->dir);
    }
    for (size_t i = 0; i < files->n; i++) {
        ckpt->files[i].fd = -1;
        ckpt->n_files++;
        int r = open_file(dir_fd, ckpt->dir, files->names[i], &ckpt->files[i], err);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

int checkpoint_open(const char *dir, struct err *err, struct checkpoint **ret)
{
    struct weight_files files = {0};
    int r;

    AUTO_FD dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0) {
        r = -errno;
        return err_set(err, r, "%s: cannot open: %s", dir, strerror(-r));
    }
    struct checkpoint *ckpt = calloc(1, sizeof *ckpt);
    if (!ckpt || !(ckpt->dir = strdup(dir))) {
        r = err_set(err, -ENOMEM, "%s: out of memory", dir);
        goto fail;
    }
    if ((r = weight_files_find(dir_fd, dir, &files, err)) < 0 ||
        (r = open_files(ckpt, dir_fd, &files, err)) < 0 || (r = merge(ckpt, err)) < 0 ||
        (r = check_index(ckpt, files.index, err)) < 0 || (r = find_prefix(ckpt, err)) < 0) {
        goto fail;
    }
    weight_files_finish(&files);
    *ret = ckpt;
    return 0;
fail:
    weight_files_finish(&files);
    checkpoint_close(ckpt);
    return r;
}

void checkpoint_close(struct checkpoint *ckpt)
{
    if (!ckpt) {
        return;
    }
    for (size_t i = 0; i < ckpt->n_files; i++) {
        close_fdp(&ckpt->files[i].fd);
        safetensors_finish(&ckpt->files[i].st);
        free(ckpt->files[i].name);
    }
    free(ckpt->files);
    free(ckpt->tensors);
    free(ckpt->dir);
    free(ckpt);
}

void checkpoint_name(const struct checkpoint *ckpt, const char *name,
                     char ret[static CHECKPOINT_NAME_MAX])
{
    bool head = strcmp(name, "head") == 0;
    snprintf(ret, CHECKPOINT_NAME_MAX, "%s%s.weight", head ? "" : ckpt->prefix,
             head ? ckpt->head : name);
}

/* In messages about a tensor that is nowhere: the file, if there is only one. */
static const char *where(const struct checkpoint *ckpt)
{
    return ckpt->n_files == 1 ? ckpt->files[0].name : ckpt->dir;
}

/* Check that t is [rows, cols] of dtype. */
static int check_matrix(const struct checkpoint_tensor *t, enum safetensors_dtype dtype,
                        uint64_t rows, uint64_t cols, struct err *err)
{
    const struct safetensors_tensor *st = t->tensor;
    if (st->dtype != dtype) {
        return err_set(err, -EINVAL, "%s: tensor %s: is %s, not %s", t->file->name, st->name,
                       safetensors_dtype_name(st->dtype), safetensors_dtype_name(dtype));
    }
    if (st->n_dims != 2) {
        return err_set(err, -EINVAL, "%s: tensor %s: has %" PRIu32 " dimensions, not 2",
                       t->file->name, st->name, st->n_dims);
    }
    if (strstr(st->name, "embed_tokens.weight") && st->shape[0] != rows) {
        return err_set(err, -EINVAL,
                       "%s: tensor %s: has %" PRIu64 " rows, vocab_size in config.json is %" PRIu64,
                       t->file->name, st->name, st->shape[0], rows);
    }
    if (st->shape[0] != rows || st->shape[1] != cols) {
        return err_set(err, -EINVAL,
                       "%s: tensor %s: shape is [%" PRIu64 ", %" PRIu64 "], config.json wants "
                       "[%" PRIu64 ", %" PRIu64 "]",
                       t->file->name, st->name, st->shape[0], st->shape[1], rows, cols);
    }
    return 0;
}

/* Scale (and bias) of a quantized matrix: its width gives the group. */
static int find_scale(const struct checkpoint *ckpt, const char *name, struct checkpoint_matrix *m,
                      struct err *err)
{
    char scale[CHECKPOINT_NAME_MAX + 8], bias[CHECKPOINT_NAME_MAX + 8];
    snprintf(scale, sizeof scale, "%s.scale", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    m->scale = find(ckpt, scale);
    m->bias = find(ckpt, bias);
    if (!m->scale.tensor) {
        return err_set(err, -EINVAL, "%s: tensor %s: is in no weight file", where(ckpt), scale);
    }
    const struct safetensors_tensor *t = m->scale.tensor;
    uint64_t n_groups = t->n_dims == 2 ? t->shape[1] : 0;
    m->group = n_groups && m->cols % n_groups == 0 ? (uint32_t)(m->cols / n_groups) : 0;
    if (m->group != 32 && m->group != 64 && m->group != 128) {
        return err_set(err, -EINVAL,
                       "%s: tensor %s: %" PRIu64 " scales for rows of %" PRIu32
                       " are no groups of 32, 64 or 128",
                       m->scale.file->name, scale, n_groups, m->cols);
    }
    int r = check_matrix(&m->scale, DTYPE_F16, m->rows, n_groups, err);
    if (r == 0 && m->bias.tensor) {
        r = check_matrix(&m->bias, DTYPE_F16, m->rows, n_groups, err);
    }
    return r;
}

static int float_type(const struct checkpoint_tensor *t, uint32_t *ret, struct err *err)
{
    switch (t->tensor->dtype) {
    case DTYPE_F32:
        *ret = WEIGHT_F32;
        return 0;
    case DTYPE_F16:
        *ret = WEIGHT_F16;
        return 0;
    case DTYPE_BF16:
        *ret = WEIGHT_BF16;
        return 0;
    default:
        return err_set(err, -EINVAL, "%s: tensor %s: is %s, not BF16, F16 or F32", t->file->name,
                       t->tensor->name, safetensors_dtype_name(t->tensor->dtype));
    }
}

int checkpoint_matrix(const struct checkpoint *ckpt, const char *name, uint32_t rows, uint32_t cols,
                      struct checkpoint_matrix *ret, struct err *err)
{
    static const struct {
        const char *suffix;
        uint32_t type;
    } forms[] = {{"", 0}, {".q4", WEIGHT_Q4}, {".q8", WEIGHT_Q8}};
    struct checkpoint_matrix m = {.rows = rows, .cols = cols};
    char full[CHECKPOINT_NAME_MAX], form[CHECKPOINT_NAME_MAX + 4];

    checkpoint_name(ckpt, name, full);
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        snprintf(form, sizeof form, "%s%s", full, forms[i].suffix);
        struct checkpoint_tensor t = find(ckpt, form);
        if (!t.tensor) {
            continue;
        }
        if (m.data.tensor) {
            return err_set(err, -EINVAL, "%s: tensor %s: is there a second time as %s",
                           t.file->name, m.data.tensor->name, form);
        }
        m.data = t;
        m.type = forms[i].type;
    }
    if (!m.data.tensor) {
        return err_set(err, -EINVAL, "%s: tensor %s: is in no weight file", where(ckpt), full);
    }
    int r;
    if (m.type == 0) {
        r = float_type(&m.data, &m.type, err);
        r = r < 0 ? r : check_matrix(&m.data, m.data.tensor->dtype, rows, cols, err);
    } else if (m.type == WEIGHT_Q4) {
        r = check_matrix(&m.data, DTYPE_U8, rows, cols / 2, err);
    } else {
        r = check_matrix(&m.data, DTYPE_I8, rows, cols, err);
    }
    if (r == 0 && (m.type == WEIGHT_Q4 || m.type == WEIGHT_Q8)) {
        r = find_scale(ckpt, full, &m, err);
    }
    if (r == 0) {
        *ret = m;
    }
    return r;
}

int checkpoint_vector(const struct checkpoint *ckpt, const char *name, uint32_t size,
                      struct checkpoint_tensor *ret, struct err *err)
{
    char full[CHECKPOINT_NAME_MAX];
    uint32_t type;
    checkpoint_name(ckpt, name, full);
    struct checkpoint_tensor t = find(ckpt, full);
    if (!t.tensor) {
        return err_set(err, -EINVAL, "%s: tensor %s: is in no weight file", where(ckpt), full);
    }
    int r = float_type(&t, &type, err);
    if (r < 0) {
        return r;
    }
    if (t.tensor->n_dims != 1 || t.tensor->shape[0] != size) {
        return err_set(err, -EINVAL,
                       "%s: tensor %s: is not a vector of %" PRIu32 ", as config.json wants",
                       t.file->name, full, size);
    }
    *ret = t;
    return 0;
}

int checkpoint_read(const struct checkpoint_tensor *t, uint64_t off, uint64_t size, void *buf,
                    struct err *err)
{
    char what[512];
    snprintf(what, sizeof what, "%s: tensor %s", t->file->name, t->tensor->name);
    int r = read_at(t->file->fd, what, t->tensor->off + off, size, buf, err);
    /* only advice: when it is not taken, the kernel reclaims the pages later */
    (void)posix_fadvise(t->file->fd, (off_t)(t->tensor->off + off), (off_t)size,
                        POSIX_FADV_DONTNEED);
    return r;
}

void checkpoint_to_f32(enum safetensors_dtype dtype, const void *data, uint64_t n, float *ret)
{
    const uint16_t *half = data;
    if (dtype == DTYPE_F32) {
        memcpy(ret, data, n * sizeof *ret);
        return;
    }
    for (uint64_t i = 0; i < n; i++) {
        ret[i] = dtype == DTYPE_F16 ? f16_to_f32(half[i]) : bf16_to_f32(half[i]);
    }
}
