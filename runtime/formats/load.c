/* SPDX-License-Identifier: MIT */
/*
 * From a checkpoint to an image: which tensor goes where (the plan), and the copying (the fill).
 * What the files look like is checkpoint.c's business, what the image looks like image.c's.
 */
#include "load.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "gttd_util.h"
#include "parallel.h"
#include "parts.h"

/* Read per pread(); and between two calls of progress, per thread. */
#define BLOCK_BYTES (8u << 20)
#define BATCH_MAX   256

/* What is done with the bytes of a tensor. */
enum piece_kind {
    PIECE_COPY,
    PIECE_Q8,    /* copied; -128 is refused */
    PIECE_SCALE, /* copied; f16, must be finite */
    PIECE_NORM,  /* to f32, "+1" added */
};

struct piece {
    struct checkpoint_tensor src;
    uint64_t dst_off;
    enum piece_kind kind;
};

struct load_plan {
    struct checkpoint *ckpt;
    struct model model;
    struct piece *pieces; /* [n_pieces], in the order of files and offsets */
    size_t n_pieces;
    uint64_t total_bytes;
};

/* Find the parts of a matrix and the format that they must share. */
static int choose_format(const struct checkpoint *ckpt, const struct model_config *config,
                         const struct image_slot *slot, struct weight_format *ret, struct err *err)
{
    struct part parts[3];
    uint32_t n_parts = slot_parts(config, slot, parts);
    for (uint32_t i = 0; i < n_parts; i++) {
        struct checkpoint_matrix m;
        int r = checkpoint_matrix(ckpt, parts[i].name, parts[i].rows, slot->cols, &m, err);
        if (r < 0) {
            return r;
        }
        struct weight_format format = {.type = m.type,
                                       .group = m.group,
                                       .affine = m.bias.tensor != NULL};
        if (i > 0 && (format.type != ret->type || format.group != ret->group ||
                      format.affine != ret->affine)) {
            return err_set(err, -EINVAL,
                           "%s: tensor %s: is stored in another form than %s, "
                           "with which it is fused",
                           m.data.file->name, m.data.tensor->name, parts[0].name);
        }
        *ret = format;
    }
    return 0;
}

static int choose_formats(const struct checkpoint *ckpt, const struct model_config *config,
                          struct image_formats *ret, struct err *err)
{
    AUTO_FREE struct model *model = calloc(1, sizeof *model);
    if (!model) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    model->config = *config;
    for (uint32_t i = 0; i < image_n_slots(config); i++) {
        struct image_slot slot;
        image_slot(model, i, &slot);
        if (slot.matrix) {
            int r = choose_format(ckpt, config, &slot, image_slot_format(ret, &slot), err);
            if (r < 0) {
                return r;
            }
        }
    }
    return 0;
}

static void add_piece(struct load_plan *plan, struct checkpoint_tensor src, uint64_t dst_off,
                      enum piece_kind kind)
{
    plan->pieces[plan->n_pieces++] = (struct piece){.src = src, .dst_off = dst_off, .kind = kind};
    plan->total_bytes += src.tensor->size_bytes;
}

/* The parts of a matrix, rows after rows. */
static int add_matrix(struct load_plan *plan, const struct image_slot *slot, struct err *err)
{
    const struct weight *w = slot->matrix;
    struct part parts[3];
    uint32_t n_parts = slot_parts(&plan->model.config, slot, parts);
    uint64_t data = w->data_off, scale = w->scale_off, bias = w->bias_off;

    for (uint32_t i = 0; i < n_parts; i++) {
        struct checkpoint_matrix m;
        int r = checkpoint_matrix(plan->ckpt, parts[i].name, parts[i].rows, slot->cols, &m, err);
        if (r < 0) {
            return r;
        }
        add_piece(plan, m.data, data, w->type == WEIGHT_Q8 ? PIECE_Q8 : PIECE_COPY);
        data += m.data.tensor->size_bytes;
        if (m.scale.tensor) {
            add_piece(plan, m.scale, scale, PIECE_SCALE);
            scale += m.scale.tensor->size_bytes;
        }
        if (m.bias.tensor) {
            add_piece(plan, m.bias, bias, PIECE_SCALE);
            bias += m.bias.tensor->size_bytes;
        }
    }
    return 0;
}

static int add_vector(struct load_plan *plan, const struct image_slot *slot, struct err *err)
{
    struct part parts[3];
    struct checkpoint_tensor t;
    slot_parts(&plan->model.config, slot, parts);
    int r = checkpoint_vector(plan->ckpt, parts[0].name, slot->cols, &t, err);
    if (r == 0) {
        add_piece(plan, t, *slot->vector_off, PIECE_NORM);
    }
    return r;
}

/* Each file from its start to its end, as disks like it. */
static int by_place(const void *pa, const void *pb)
{
    const struct piece *a = pa, *b = pb;
    if (a->src.file != b->src.file) {
        return a->src.file < b->src.file ? -1 : 1;
    }
    return a->src.tensor->off < b->src.tensor->off ? -1 : a->src.tensor->off > b->src.tensor->off;
}

static int add_pieces(struct load_plan *plan, struct err *err)
{
    uint32_t n_slots = image_n_slots(&plan->model.config);
    int r = 0;
    /* a slot has at most three parts of data, scale and bias */
    plan->pieces = calloc((size_t)n_slots * 9, sizeof *plan->pieces);
    if (!plan->pieces) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < n_slots && r == 0; i++) {
        struct image_slot slot;
        image_slot(&plan->model, i, &slot);
        r = slot.matrix ? add_matrix(plan, &slot, err) : add_vector(plan, &slot, err);
    }
    if (r == 0) {
        qsort(plan->pieces, plan->n_pieces, sizeof *plan->pieces, by_place);
    }
    return r;
}

int load_plan_create(const char *dir, const struct model_config *config, uint64_t chunk_max_bytes,
                     struct err *err, struct load_plan **ret)
{
    struct load_plan *plan = calloc(1, sizeof *plan);
    AUTO_FREE struct image_formats *formats = calloc(1, sizeof *formats);
    int r;
    if (!plan || !formats) {
        r = err_set(err, -ENOMEM, "out of memory");
        goto fail;
    }
    if ((r = checkpoint_open(dir, err, &plan->ckpt)) < 0 ||
        (r = choose_formats(plan->ckpt, config, formats, err)) < 0) {
        goto fail;
    }
    r = image_plan(config, formats, chunk_max_bytes, &plan->model, err);
    if (r < 0) {
        err_prefix(err, r, "%s", dir);
        goto fail;
    }
    r = add_pieces(plan, err);
    if (r < 0) {
        goto fail;
    }
    *ret = plan;
    return 0;
fail:
    load_plan_destroy(plan);
    return r;
}

void load_plan_destroy(struct load_plan *plan)
{
    if (plan) {
        checkpoint_close(plan->ckpt);
        free(plan->pieces);
        free(plan);
    }
}

const struct model *load_plan_model(const struct load_plan *plan)
{
    return &plan->model;
}

/* A part of a piece, read at once. */
struct block {
    const struct piece *piece;
    uint64_t off;
    uint64_t size;
};

/* The blocks that are read before progress is told, and the first thing that went wrong. */
struct batch {
    uint8_t *base;
    struct block blocks[BATCH_MAX];
    size_t n;
    uint64_t bytes;
    pthread_mutex_t lock; /* of the two below */
    int result;
    struct err err;
};

static int invalid(const struct piece *p, const char *why, struct err *err)
{
    return err_set(err, -EINVAL, "%s: tensor %s: %s", p->src.file->name, p->src.tensor->name, why);
}

static bool f16_all_finite(const uint16_t *v, uint64_t n)
{
    uint64_t bad = 0;
    for (uint64_t i = 0; i < n; i++) {
        bad += (v[i] & 0x7c00) == 0x7c00;
    }
    return bad == 0;
}

static int fill_norm(const struct block *b, uint8_t *base, struct err *err)
{
    const struct safetensors_tensor *t = b->piece->src.tensor;
    uint64_t n = b->size / safetensors_dtype_bytes(t->dtype);
    AUTO_FREE uint8_t *raw = malloc(b->size);
    AUTO_FREE float *norm = calloc(n, sizeof *norm);
    if (!raw || !norm) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    int r = checkpoint_read(&b->piece->src, b->off, b->size, raw, err);
    if (r < 0) {
        return r;
    }
    checkpoint_to_f32(t->dtype, raw, n, norm);
    for (uint64_t i = 0; i < n; i++) {
        norm[i] += 1;
    }
    /* blocks are multiples of every element size; an element becomes 4 bytes */
    memcpy(base + b->piece->dst_off + b->off / safetensors_dtype_bytes(t->dtype) * 4, norm,
           n * sizeof *norm);
    return 0;
}

static int fill_block(const struct block *b, uint8_t *base, struct err *err)
{
    const struct piece *p = b->piece;
    uint8_t *dst = base + p->dst_off + b->off;
    if (p->kind == PIECE_NORM) {
        return fill_norm(b, base, err);
    }
    int r = checkpoint_read(&p->src, b->off, b->size, dst, err);
    if (r < 0) {
        return r;
    }
    if (p->kind == PIECE_Q8 && memchr(dst, 0x80, b->size)) {
        return invalid(p, "holds -128, which no quantizer writes", err);
    }
    if (p->kind == PIECE_SCALE && !f16_all_finite((const uint16_t *)dst, b->size / 2)) {
        return invalid(p, "holds a scale that is not finite", err);
    }
    return 0;
}

static void fill_item(void *data, size_t i)
{
    struct batch *batch = data;
    struct err err;
    int r = fill_block(&batch->blocks[i], batch->base, &err);
    if (r < 0) {
        pthread_mutex_lock(&batch->lock);
        if (batch->result == 0) {
            batch->result = r;
            batch->err = err;
        }
        pthread_mutex_unlock(&batch->lock);
    }
}

/* The next blocks after (*piece, *off), as many as keep n_threads busy for a while. */
static void next_batch(const struct load_plan *plan, uint32_t n_threads, size_t *piece,
                       uint64_t *off, struct batch *batch)
{
    batch->n = 0;
    batch->bytes = 0;
    while (*piece < plan->n_pieces && batch->n < BATCH_MAX &&
           batch->bytes < (uint64_t)n_threads * 2 * BLOCK_BYTES) {
        const struct piece *p = &plan->pieces[*piece];
        uint64_t left = p->src.tensor->size_bytes - *off;
        uint64_t size = left < BLOCK_BYTES ? left : BLOCK_BYTES;
        batch->blocks[batch->n++] = (struct block){.piece = p, .off = *off, .size = size};
        batch->bytes += size;
        *off += size;
        if (size == left) {
            *off = 0;
            (*piece)++;
        }
    }
}

int load_fill(struct load_plan *plan, uint8_t *base, uint32_t n_threads,
              int (*progress)(void *data, uint64_t done, uint64_t total), void *progress_data,
              struct err *err)
{
    struct batch batch = {.base = base, .lock = PTHREAD_MUTEX_INITIALIZER};
    size_t piece = 0;
    uint64_t off = 0, done = 0;

    n_threads = n_threads ? n_threads : parallel_cores();
    image_write_header(&plan->model, base);
    while (piece < plan->n_pieces) {
        next_batch(plan, n_threads, &piece, &off, &batch);
        parallel_for(n_threads, batch.n, fill_item, &batch);
        if (batch.result < 0) {
            return err_set(err, batch.result, "%s", batch.err.text);
        }
        done += batch.bytes;
        if (progress && progress(progress_data, done, plan->total_bytes) != 0) {
            return err_set(err, -ECANCELED, "cancelled");
        }
    }
    return 0;
}
