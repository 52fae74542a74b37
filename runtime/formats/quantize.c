/* SPDX-License-Identifier: MIT */
/*
 * A directory of float weights to a directory of quantized ones: which matrix gets which form, and
 * the walk over their rows. How a row is quantized is quantize_row.c's business, how files are laid
 * out shards.c's.
 */
#include "quantize.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoint.h"
#include "gttd_util.h"
#include "json_file.h"
#include "load.h"
#include "parallel.h"
#include "parts.h"
#include "quantize_row.h"
#include "shards.h"
#include "write_file.h"

/* Source bytes that are read, quantized and written at once. */
#define BLOCK_BYTES (32u << 20)
#define ROWS_ITEM   16

/* One tensor's way from source to shards. */
struct job {
    struct checkpoint_tensor src;
    uint32_t type; /* WEIGHT_Q4, WEIGHT_Q8, or 0: copied as it is */
    uint32_t group;
    uint64_t rows, cols;
    size_t data_index, scale_index; /* in shards */
};

struct quantize {
    const struct quantize_params *params;
    struct model_config config;
    struct checkpoint *ckpt;
    struct shards *shards;
    struct job *jobs; /* [n_jobs] */
    size_t n_jobs;
    uint64_t done_bytes, total_bytes;
    int (*progress)(void *data, uint64_t done, uint64_t total);
    void *progress_data;
};

void quantize_params_init(struct quantize_params *params, uint32_t type)
{
    *params = (struct quantize_params){.type = type,
                                       .group = 32,
                                       .embed_type = WEIGHT_Q8,
                                       .embed_group = 32,
                                       .shard_max_bytes = 2ull << 30};
}

static int check_form(const char *what, uint32_t type, uint32_t group, struct err *err)
{
    if (type != WEIGHT_Q4 && type != WEIGHT_Q8) {
        return err_set(err, -EINVAL, "%s: weights are quantized to q4 or q8 only", what);
    }
    if (group != 32 && group != 64 && group != 128) {
        return err_set(err, -EINVAL, "%s: group of %" PRIu32 " is not 32, 64 or 128", what, group);
    }
    return 0;
}

static int check_params(const struct quantize_params *params, struct err *err)
{
    int r = check_form("layers", params->type, params->group, err);
    if (r == 0) {
        r = check_form("embedding", params->embed_type, params->embed_group, err);
    }
    for (size_t i = 0; r == 0 && i < params->n_overrides; i++) {
        const struct quantize_override *o = &params->overrides[i];
        r = o->type ? check_form(o->name, o->type, o->group, err) : 0;
    }
    return r;
}

/* The form that parameters and overrides give the matrix of that name. */
static void choose_form(const struct quantize_params *params, enum image_kind kind,
                        const char *name, struct job *job)
{
    bool embed = kind == IMAGE_EMBED || kind == IMAGE_HEAD;
    job->type = embed ? params->embed_type : params->type;
    job->group = embed ? params->embed_group : params->group;
    for (size_t i = 0; i < params->n_overrides; i++) {
        if (strcmp(params->overrides[i].name, name) == 0) {
            job->type = params->overrides[i].type;
            job->group = params->overrides[i].group;
        }
    }
}

/* Declare a job's output tensors. */
static int add_job(struct quantize *q, struct job job, struct err *err)
{
    const struct safetensors_tensor *t = job.src.tensor;
    char name[CHECKPOINT_NAME_MAX + 8];
    int r;
    if (job.type == 0) {
        r = shards_add(q->shards, t->name, t->dtype, t->n_dims, t->shape, &job.data_index);
    } else {
        uint64_t shape[2] = {job.rows, job.type == WEIGHT_Q4 ? job.cols / 2 : job.cols};
        snprintf(name, sizeof name, "%s.%s", t->name, job.type == WEIGHT_Q4 ? "q4" : "q8");
        r = shards_add(q->shards, name, job.type == WEIGHT_Q4 ? DTYPE_U8 : DTYPE_I8, 2, shape,
                       &job.data_index);
        shape[1] = job.cols / job.group;
        snprintf(name, sizeof name, "%s.scale", t->name);
        if (r == 0) {
            r = shards_add(q->shards, name, DTYPE_F16, 2, shape, &job.scale_index);
        }
    }
    if (r < 0) {
        return err_set(err, r, "out of memory");
    }
    q->jobs[q->n_jobs++] = job;
    q->total_bytes += t->size_bytes;
    return 0;
}

static int add_matrix(struct quantize *q, const struct image_slot *slot, const struct part *part,
                      struct err *err)
{
    struct checkpoint_matrix m;
    struct job job = {.rows = part->rows, .cols = slot->cols};
    int r = checkpoint_matrix(q->ckpt, part->name, part->rows, slot->cols, &m, err);
    if (r < 0) {
        return r;
    }
    job.src = m.data;
    if (m.group) {
        return err_set(err, -EINVAL, "%s: tensor %s: is quantized already", m.data.file->name,
                       m.data.tensor->name);
    }
    choose_form(q->params, slot->kind, part->name, &job);
    if (job.type && job.cols % job.group != 0) {
        return err_set(err, -EINVAL,
                       "%s: tensor %s: rows of %" PRIu64 " do not divide into groups of %" PRIu32,
                       m.data.file->name, m.data.tensor->name, job.cols, job.group);
    }
    return add_job(q, job, err);
}

static int add_vector(struct quantize *q, const struct image_slot *slot, const struct part *part,
                      struct err *err)
{
    struct job job = {.rows = 1, .cols = slot->cols};
    int r = checkpoint_vector(q->ckpt, part->name, slot->cols, &job.src, err);
    return r < 0 ? r : add_job(q, job, err);
}

/* An override that names no matrix is a mistake, not a wish. */
static int check_overrides(const struct quantize *q, struct err *err)
{
    for (size_t i = 0; i < q->params->n_overrides; i++) {
        char name[CHECKPOINT_NAME_MAX];
        bool found = false;
        checkpoint_name(q->ckpt, q->params->overrides[i].name, name);
        for (size_t k = 0; k < q->n_jobs && !found; k++) {
            found = q->jobs[k].rows > 1 && strcmp(q->jobs[k].src.tensor->name, name) == 0;
        }
        if (!found) {
            return err_set(err, -EINVAL, "%s: the model has no such matrix",
                           q->params->overrides[i].name);
        }
    }
    return 0;
}

static int add_jobs(struct quantize *q, struct err *err)
{
    AUTO_FREE struct model *model = calloc(1, sizeof *model);
    uint32_t n_slots = image_n_slots(&q->config);
    int r = 0;
    q->jobs = calloc((size_t)n_slots * 3, sizeof *q->jobs);
    if (!model || !q->jobs) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    model->config = q->config;
    for (uint32_t i = 0; r == 0 && i < n_slots; i++) {
        struct image_slot slot;
        struct part parts[3];
        image_slot(model, i, &slot);
        uint32_t n_parts = slot_parts(&q->config, &slot, parts);
        for (uint32_t k = 0; r == 0 && k < n_parts; k++) {
            r = slot.matrix ? add_matrix(q, &slot, &parts[k], err)
                            : add_vector(q, &slot, &parts[k], err);
        }
    }
    return r < 0 ? r : check_overrides(q, err);
}

/* Rows [row, row + n) of a job, in memory. */
struct block {
    const struct job *job;
    uint64_t row, n;
    const uint8_t *raw; /* as in the file */
    float *w;           /* [n, cols] */
    uint8_t *q;         /* [n, bytes of a row] */
    uint16_t *scale;    /* [n, cols / group] */
    pthread_mutex_t lock;
    bool failed; /* and the first row that did */
    uint64_t failed_row;
};

static uint64_t row_bytes(const struct job *job)
{
    return job->type == WEIGHT_Q4 ? job->cols / 2 : job->cols;
}

static void quantize_item(void *data, size_t item)
{
    struct block *b = data;
    const struct job *job = b->job;
    enum safetensors_dtype dtype = job->src.tensor->dtype;
    uint64_t end = (item + 1) * ROWS_ITEM < b->n ? (item + 1) * ROWS_ITEM : b->n;
    for (uint64_t i = item * ROWS_ITEM; i < end; i++) {
        float *w = b->w + i * job->cols;
        checkpoint_to_f32(dtype, b->raw + i * job->cols * safetensors_dtype_bytes(dtype), job->cols,
                          w);
        if (quantize_row(job->type, job->group, w, (uint32_t)job->cols, b->q + i * row_bytes(job),
                         b->scale + i * (job->cols / job->group)) < 0) {
            pthread_mutex_lock(&b->lock);
            b->failed_row = b->failed && b->failed_row < b->row + i ? b->failed_row : b->row + i;
            b->failed = true;
            pthread_mutex_unlock(&b->lock);
        }
    }
}

static int advance(struct quantize *q, uint64_t bytes, struct err *err)
{
    q->done_bytes += bytes;
    if (q->progress && q->progress(q->progress_data, q->done_bytes, q->total_bytes) != 0) {
        return err_set(err, -ECANCELED, "cancelled");
    }
    return 0;
}

static int quantize_block(struct quantize *q, struct block *b, struct err *err)
{
    const struct job *job = b->job;
    uint64_t scales = job->cols / job->group;
    parallel_for(q->params->n_threads, (b->n + ROWS_ITEM - 1) / ROWS_ITEM, quantize_item, b);
    if (b->failed) {
        return err_set(err, -EINVAL,
                       "%s: tensor %s: row %" PRIu64 " holds a weight that is not finite or "
                       "beyond 65504",
                       job->src.file->name, job->src.tensor->name, b->failed_row);
    }
    int r = shards_write(q->shards, job->data_index, b->row * row_bytes(job), b->q,
                         b->n * row_bytes(job), err);
    if (r == 0) {
        r = shards_write(q->shards, job->scale_index, b->row * scales * 2, b->scale,
                         b->n * scales * 2, err);
    }
    return r;
}

static int run_quantized(struct quantize *q, const struct job *job, struct err *err)
{
    uint64_t src_row = job->cols * safetensors_dtype_bytes(job->src.tensor->dtype);
    uint64_t max = src_row < BLOCK_BYTES ? BLOCK_BYTES / src_row : 1;
    max = max < job->rows ? max : job->rows;
    AUTO_FREE uint8_t *raw = malloc(max * src_row);
    AUTO_FREE float *w = calloc(max * job->cols, sizeof *w);
    AUTO_FREE uint8_t *data = malloc(max * row_bytes(job));
    AUTO_FREE uint16_t *scale = calloc(max * (job->cols / job->group), sizeof *scale);
    if (!raw || !w || !data || !scale) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    for (uint64_t row = 0; row < job->rows; row += max) {
        struct block b = {.job = job,
                          .row = row,
                          .n = job->rows - row < max ? job->rows - row : max,
                          .raw = raw,
                          .w = w,
                          .q = data,
                          .scale = scale,
                          .lock = PTHREAD_MUTEX_INITIALIZER};
        int r = checkpoint_read(&job->src, row * src_row, b.n * src_row, raw, err);
        if (r == 0) {
            r = quantize_block(q, &b, err);
        }
        if (r == 0) {
            r = advance(q, b.n * src_row, err);
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int run_copied(struct quantize *q, const struct job *job, struct err *err)
{
    uint64_t size = job->src.tensor->size_bytes;
    AUTO_FREE uint8_t *raw = malloc(size < BLOCK_BYTES ? size : BLOCK_BYTES);
    if (!raw) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    for (uint64_t off = 0; off < size; off += BLOCK_BYTES) {
        uint64_t n = size - off < BLOCK_BYTES ? size - off : BLOCK_BYTES;
        int r = checkpoint_read(&job->src, off, n, raw, err);
        if (r == 0) {
            r = shards_write(q->shards, job->data_index, off, raw, n, err);
        }
        if (r == 0) {
            r = advance(q, n, err);
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* config.json with a quantization_config; the forms themselves are seen in the tensors. */
static int write_config(int in_fd, const char *in, int out_fd, const struct quantize_params *params,
                        struct err *err)
{
    char path[4096];
    AUTO_FREE char *text = NULL;
    json_auto_t *root = NULL;
    size_t size;

    snprintf(path, sizeof path, "%s/config.json", in);
    int r = json_read_file(in_fd, "config.json", path, &text, &size, err);
    if (r == 0) {
        r = json_parse_object(path, text, size, &root, err);
    }
    if (r < 0) {
        return r;
    }
    json_t *entry =
        json_pack("{s:s,s:s,s:i}", "quant_method", "gttd", "type",
                  params->type == WEIGHT_Q4 ? "q4" : "q8", "group_size", (int)params->group);
    if (json_object_set_new(root, "quantization_config", entry) < 0) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    return write_json_file(out_fd, "config.json", root, err);
}

static int write_side_files(const char *in, int out_fd, const struct quantize_params *params,
                            struct err *err)
{
    static const char *const copied[] = {"tokenizer.json", "tokenizer_config.json",
                                         "generation_config.json", "special_tokens_map.json",
                                         "chat_template.jinja"};
    AUTO_FD in_fd = open(in, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (in_fd < 0) {
        int r = -errno;
        return err_set(err, r, "%s: cannot open: %s", in, strerror(-r));
    }
    int r = write_config(in_fd, in, out_fd, params, err);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(copied); i++) {
        r = copy_file(in_fd, out_fd, copied[i], err);
    }
    return r;
}

/* Write everything into dir, an empty directory of ours, and see that it loads. */
static int write_directory(struct quantize *q, const char *in, const char *dir, struct err *err)
{
    struct load_plan *plan = NULL;
    AUTO_FD dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0) {
        int r = -errno;
        return err_set(err, r, "%s: cannot open: %s", dir, strerror(-r));
    }
    int r = shards_open(q->shards, dir_fd, q->params->shard_max_bytes, err);
    if (r == 0) {
        r = load_plan_create(dir, &q->config, IMAGE_CHUNK_MAX, err, &plan);
    }
    load_plan_destroy(plan);
    for (size_t i = 0; r == 0 && i < q->n_jobs; i++) {
        const struct job *job = &q->jobs[i];
        r = job->type ? run_quantized(q, job, err) : run_copied(q, job, err);
    }
    if (r == 0) {
        r = shards_sync(q->shards, err);
    }
    if (r == 0) {
        r = write_side_files(in, dir_fd, q->params, err);
    }
    if (r == 0 && fsync(dir_fd) < 0) {
        r = -errno;
        err_set(err, r, "%s: cannot sync: %s", dir, strerror(-r));
    }
    return r;
}

/* A directory of ours beside out, for what is not complete yet. */
static int make_temporary(const char *out, char *ret, size_t size, struct err *err)
{
    for (int i = 0; i < 100; i++) {
        if (snprintf(ret, size, "%s.partial-%d.%d", out, (int)getpid(), i) >= (int)size) {
            return err_set(err, -ENAMETOOLONG, "%s: the name is too long", out);
        }
        if (mkdir(ret, 0777) == 0) {
            return 0;
        }
        if (errno != EEXIST) {
            break;
        }
    }
    int r = -errno;
    return err_set(err, r, "%s: cannot create: %s", ret, strerror(-r));
}

/* Remove a flat directory; what cannot be removed stays, and the first error has been reported. */
static void remove_directory(const char *path)
{
    DIR *stream = opendir(path);
    struct dirent *entry;
    while (stream && (entry = readdir(stream))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            (void)unlinkat(dirfd(stream), entry->d_name, 0);
        }
    }
    if (stream) {
        closedir(stream);
    }
    (void)rmdir(path);
}

/* Give the finished directory its name, if nobody else has taken it meanwhile. */
static int publish(const char *temporary, const char *out, struct err *err)
{
    int r = renameat2(AT_FDCWD, temporary, AT_FDCWD, out, RENAME_NOREPLACE) < 0 ? -errno : 0;
    if (r == -EINVAL) { /* a file system without RENAME_NOREPLACE: an empty directory may go */
        r = rename(temporary, out) < 0 ? -errno : 0;
    }
    if (r < 0) {
        return err_set(err, r, "%s: cannot rename into place: %s", out, strerror(-r));
    }
    AUTO_FREE char *parent = strdup(out);
    char *slash = parent ? strrchr(parent, '/') : NULL;
    if (slash) {
        slash[slash == parent] = '\0';
    }
    AUTO_FD fd = open(slash ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0) {
        r = -errno;
        return err_set(err, r, "%s: cannot sync its directory: %s", out, strerror(-r));
    }
    return 0;
}

int quantize_directory(const char *in, const char *out, const struct quantize_params *params,
                       int (*progress)(void *data, uint64_t done, uint64_t total),
                       void *progress_data, struct err *err)
{
    struct quantize q = {.params = params, .progress = progress, .progress_data = progress_data};
    char temporary[4096] = "", target[4000];
    struct stat st;

    size_t length = strlen(out);
    while (length > 1 && out[length - 1] == '/') {
        length--;
    }
    if (length == 0 || length >= sizeof target) {
        return err_set(err, -EINVAL, "'%.100s' is no name for a directory", out);
    }
    snprintf(target, sizeof target, "%.*s", (int)length, out);
    if (lstat(target, &st) == 0) {
        return err_set(err, -EEXIST, "%s: exists already", target);
    }
    int r;
    if ((r = check_params(params, err)) < 0 || (r = config_load(in, &q.config, err)) < 0 ||
        (r = checkpoint_open(in, err, &q.ckpt)) < 0) {
        goto out;
    }
    r = shards_create(&q.shards);
    if (r < 0) {
        err_set(err, r, "out of memory");
        goto out;
    }
    if ((r = add_jobs(&q, err)) < 0 ||
        (r = make_temporary(target, temporary, sizeof temporary, err)) < 0) {
        temporary[0] = '\0';
        goto out;
    }
    r = write_directory(&q, in, temporary, err);
    if (r == 0) {
        r = publish(temporary, target, err);
    }
out:
    if (r < 0 && temporary[0]) {
        remove_directory(temporary);
    }
    shards_destroy(q.shards);
    checkpoint_close(q.ckpt);
    free(q.jobs);
    return r;
}
