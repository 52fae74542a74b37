/* SPDX-License-Identifier: MIT */
/*
 * The layout of an image: planning it, writing its table, and trusting a table that another process
 * wrote only after checking it. Knows no files and allocates nothing but a list while it checks.
 */
#include "image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gttd_util.h"

#define LAYER_SLOTS (IMAGE_DOWN - IMAGE_INPUT_NORM + 1)

static const char *const slot_names[] = {
    [IMAGE_EMBED] = "embed",
    [IMAGE_HEAD] = "head",
    [IMAGE_FINAL_NORM] = "final_norm",
    [IMAGE_INPUT_NORM] = "input_norm",
    [IMAGE_Q_NORM] = "q_norm",
    [IMAGE_K_NORM] = "k_norm",
    [IMAGE_POST_ATTN_NORM] = "post_attn_norm",
    [IMAGE_PRE_FFN_NORM] = "pre_ffn_norm",
    [IMAGE_POST_FFN_NORM] = "post_ffn_norm",
    [IMAGE_QKV] = "qkv",
    [IMAGE_ATTN_OUT] = "attn_out",
    [IMAGE_GATE_UP] = "gate_up",
    [IMAGE_DOWN] = "down",
};

static uint64_t round_up(uint64_t x, uint64_t to)
{
    return (x + to - 1) / to * to;
}

/* Slots before the layers: embed, head unless tied, final_norm. */
static uint32_t n_global_slots(const struct model_config *config)
{
    return config->tied_head ? 2 : 3;
}

uint32_t image_n_slots(const struct model_config *config)
{
    return n_global_slots(config) + config->n_layers * LAYER_SLOTS;
}

static void slot_matrix(struct image_slot *slot, struct weight *w, uint32_t rows, uint32_t cols)
{
    slot->matrix = w;
    slot->rows = rows;
    slot->cols = cols;
}

static void slot_vector(struct image_slot *slot, uint64_t *off, uint32_t size)
{
    slot->vector_off = off;
    slot->rows = 1;
    slot->cols = size;
}

void image_slot(struct model *model, uint32_t i, struct image_slot *ret)
{
    const struct model_config *c = &model->config;
    uint32_t n_global = n_global_slots(c);
    struct image_slot slot = {0};

    if (i < n_global) {
        slot.kind = i == 0 ? IMAGE_EMBED : i == n_global - 1 ? IMAGE_FINAL_NORM : IMAGE_HEAD;
        snprintf(slot.name, sizeof slot.name, "%s", slot_names[slot.kind]);
    } else {
        slot.kind = IMAGE_INPUT_NORM + (i - n_global) % LAYER_SLOTS;
        slot.layer = (i - n_global) / LAYER_SLOTS;
        snprintf(slot.name, sizeof slot.name, "%" PRIu32 ".%s", slot.layer, slot_names[slot.kind]);
    }
    assert(slot.layer < CONFIG_MAX_LAYERS);
    struct model_layer *l = &model->layers[slot.layer];
    uint32_t q_rows = c->n_heads * c->head_dim;
    uint32_t kv_rows = c->n_kv_heads * c->head_dim;
    switch (slot.kind) {
    case IMAGE_EMBED:
        slot_matrix(&slot, &model->embed, c->vocab, c->hidden);
        break;
    case IMAGE_HEAD:
        slot_matrix(&slot, &model->head, c->vocab, c->hidden);
        break;
    case IMAGE_FINAL_NORM:
        slot_vector(&slot, &model->final_norm_off, c->hidden);
        break;
    case IMAGE_INPUT_NORM:
        slot_vector(&slot, &l->input_norm_off, c->hidden);
        break;
    case IMAGE_Q_NORM:
        slot_vector(&slot, &l->q_norm_off, c->head_dim);
        break;
    case IMAGE_K_NORM:
        slot_vector(&slot, &l->k_norm_off, c->head_dim);
        break;
    case IMAGE_POST_ATTN_NORM:
        slot_vector(&slot, &l->post_attn_norm_off, c->hidden);
        break;
    case IMAGE_PRE_FFN_NORM:
        slot_vector(&slot, &l->pre_ffn_norm_off, c->hidden);
        break;
    case IMAGE_POST_FFN_NORM:
        slot_vector(&slot, &l->post_ffn_norm_off, c->hidden);
        break;
    case IMAGE_QKV:
        slot_matrix(&slot, &l->qkv, q_rows + 2 * kv_rows, c->hidden);
        break;
    case IMAGE_ATTN_OUT:
        slot_matrix(&slot, &l->attn_out, c->hidden, q_rows);
        break;
    case IMAGE_GATE_UP:
        slot_matrix(&slot, &l->gate_up, 2 * c->ffn, c->hidden);
        break;
    case IMAGE_DOWN:
        slot_matrix(&slot, &l->down, c->hidden, c->ffn);
        break;
    }
    *ret = slot;
}

struct weight_format *image_slot_format(struct image_formats *formats,
                                        const struct image_slot *slot)
{
    switch (slot->kind) {
    case IMAGE_EMBED:
        return &formats->embed;
    case IMAGE_HEAD:
        return &formats->head;
    case IMAGE_QKV:
        return &formats->layers[slot->layer].qkv;
    case IMAGE_ATTN_OUT:
        return &formats->layers[slot->layer].attn_out;
    case IMAGE_GATE_UP:
        return &formats->layers[slot->layer].gate_up;
    default:
        return &formats->layers[slot->layer].down;
    }
}

/* Is this type and group a form that rows of `cols` elements can have? */
static int check_format(const char *name, uint32_t type, uint32_t group, uint32_t cols,
                        struct err *err)
{
    switch (type) {
    case WEIGHT_F32:
    case WEIGHT_F16:
    case WEIGHT_BF16:
        if (group != 0) {
            return err_set(err, -EINVAL, "tensor %s: a float matrix with groups of %" PRIu32, name,
                           group);
        }
        return 0;
    case WEIGHT_Q4:
    case WEIGHT_Q8:
        if (group != 32 && group != 64 && group != 128) {
            return err_set(err, -EINVAL, "tensor %s: group of %" PRIu32 " is not 32, 64 or 128",
                           name, group);
        }
        if (cols % group != 0) {
            return err_set(err, -EINVAL,
                           "tensor %s: rows of %" PRIu32 " do not divide into groups of %" PRIu32,
                           name, cols, group);
        }
        return 0;
    }
    return err_set(err, -EINVAL, "tensor %s: unknown weight type %" PRIu32, name, type);
}

/* Where the next array goes. */
struct cursor {
    uint64_t end;
    uint64_t chunk_bytes;
};

static int place(struct cursor *cur, const char *name, uint64_t bytes, uint64_t *ret_off,
                 struct err *err)
{
    if (bytes > cur->chunk_bytes) {
        return err_set(err, -E2BIG,
                       "tensor %s: an array of %" PRIu64 " bytes exceeds a chunk of %" PRIu64, name,
                       bytes, cur->chunk_bytes);
    }
    uint64_t off = round_up(cur->end, IMAGE_ALIGN);
    if (off / cur->chunk_bytes != (off + bytes - 1) / cur->chunk_bytes) {
        off = round_up(off, cur->chunk_bytes);
    }
    cur->end = off + bytes;
    *ret_off = off;
    return 0;
}

static int place_matrix(struct cursor *cur, const struct image_slot *slot,
                        const struct weight_format *format, struct err *err)
{
    struct weight *w = slot->matrix;
    *w = (struct weight){.type = format->type,
                         .rows = slot->rows,
                         .cols = slot->cols,
                         .group = format->group};
    int r = check_format(slot->name, w->type, w->group, w->cols, err);
    if (r < 0) {
        return r;
    }
    if (format->affine && !w->group) {
        return err_set(err, -EINVAL, "tensor %s: a float matrix cannot be affine", slot->name);
    }
    r = place(cur, slot->name, weight_data_bytes(w), &w->data_off, err);
    if (r == 0 && w->group) {
        r = place(cur, slot->name, weight_scale_bytes(w), &w->scale_off, err);
    }
    if (r == 0 && format->affine) {
        r = place(cur, slot->name, weight_scale_bytes(w), &w->bias_off, err);
    }
    return r;
}

int image_plan(const struct model_config *config, const struct image_formats *formats,
               uint64_t chunk_max_bytes, struct model *ret, struct err *err)
{
    if (chunk_max_bytes == 0 || chunk_max_bytes % IMAGE_CHUNK_ALIGN != 0 ||
        chunk_max_bytes > IMAGE_CHUNK_MAX) {
        return err_set(err, -EINVAL, "%" PRIu64 " is no chunk size", chunk_max_bytes);
    }
    struct model *model = calloc(1, sizeof *model);
    if (!model) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    model->config = *config;
    uint32_t n_slots = image_n_slots(config);
    struct cursor cur = {
        .end = sizeof(struct image_header) + n_slots * sizeof(struct image_tensor),
        .chunk_bytes = chunk_max_bytes,
    };
    int r = 0;
    for (uint32_t i = 0; i < n_slots && r == 0; i++) {
        struct image_slot slot;
        image_slot(model, i, &slot);
        r = slot.matrix
                ? place_matrix(&cur, &slot,
                               image_slot_format((struct image_formats *)formats, &slot), err)
                : place(&cur, slot.name, 4ull * slot.cols, slot.vector_off, err);
    }
    if (r == 0) {
        if (config->tied_head) {
            model->head = model->embed;
        }
        struct weight_memory *mem = &model->memory;
        mem->size_bytes = round_up(cur.end, IMAGE_CHUNK_ALIGN);
        mem->chunk_bytes = mem->size_bytes <= chunk_max_bytes ? mem->size_bytes : chunk_max_bytes;
        mem->n_chunks = (uint32_t)((mem->size_bytes + mem->chunk_bytes - 1) / mem->chunk_bytes);
        *ret = *model;
    }
    free(model);
    return r;
}

void image_write_header(const struct model *model, uint8_t *base)
{
    struct image_header header = {
        .magic = IMAGE_MAGIC,
        .version = IMAGE_VERSION,
        .n_tensors = image_n_slots(&model->config),
        .size_bytes = model->memory.size_bytes,
        .chunk_bytes = model->memory.chunk_bytes,
    };
    memcpy(base, &header, sizeof header);
    for (uint32_t i = 0; i < header.n_tensors; i++) {
        struct image_slot slot;
        image_slot((struct model *)model, i, &slot); /* only read through */
        struct image_tensor t = {.type = WEIGHT_F32, .rows = slot.rows, .cols = slot.cols};
        memcpy(t.name, slot.name, sizeof t.name);
        if (slot.matrix) {
            t.type = slot.matrix->type;
            t.group = slot.matrix->group;
            t.data_off = slot.matrix->data_off;
            t.scale_off = slot.matrix->scale_off;
            t.bias_off = slot.matrix->bias_off;
        } else {
            t.data_off = *slot.vector_off;
        }
        memcpy(base + sizeof header + i * sizeof t, &t, sizeof t);
    }
}

/* The arrays seen so far while an image is checked. */
struct extent {
    uint64_t off;
    uint64_t end;
    uint32_t slot;
};

struct extents {
    struct extent *v;
    size_t n;
};

static int check_array(const struct weight_memory *mem, const char *name, const char *what,
                       uint64_t off, uint64_t bytes, uint32_t slot, struct extents *seen,
                       struct err *err)
{
    if (off % IMAGE_ALIGN != 0) {
        return err_set(err, -EINVAL, "tensor %s: %s at offset %" PRIu64 " is not aligned", name,
                       what, off);
    }
    if (bytes > mem->size_bytes || off > mem->size_bytes - bytes) {
        return err_set(err, -EINVAL,
                       "tensor %s: %s at offset %" PRIu64 " does not end within the image", name,
                       what, off);
    }
    if (off / mem->chunk_bytes != (off + bytes - 1) / mem->chunk_bytes) {
        return err_set(err, -EINVAL, "tensor %s: %s at offset %" PRIu64 " straddles chunks", name,
                       what, off);
    }
    seen->v[seen->n++] = (struct extent){.off = off, .end = off + bytes, .slot = slot};
    return 0;
}

static bool is_zero(const void *p, size_t size)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < size; i++) {
        if (b[i]) {
            return false;
        }
    }
    return true;
}

/* Check one table entry and take its offsets into the slot. */
static int bind_tensor(const struct image_tensor *t, const struct weight_memory *mem,
                       const struct image_slot *slot, uint32_t i, struct extents *seen,
                       struct err *err)
{
    if (memcmp(t->name, slot->name, sizeof t->name) != 0) {
        return err_set(err, -EINVAL, "tensor %s: table entry %" PRIu32 " has another name",
                       slot->name, i);
    }
    if (t->rows != slot->rows || t->cols != slot->cols) {
        return err_set(err, -EINVAL,
                       "tensor %s: shape is [%" PRIu32 ", %" PRIu32 "], the config wants [%" PRIu32
                       ", %" PRIu32 "]",
                       slot->name, t->rows, t->cols, slot->rows, slot->cols);
    }
    int r = check_format(slot->name, t->type, t->group, t->cols, err);
    if (r < 0) {
        return r;
    }
    if (t->reserved) {
        return err_set(err, -EINVAL, "tensor %s: reserved field is not zero", slot->name);
    }
    if (!slot->matrix && t->type != WEIGHT_F32) {
        return err_set(err, -EINVAL, "tensor %s: a norm must be f32", slot->name);
    }
    if (t->group ? !t->scale_off : t->scale_off || t->bias_off) {
        return err_set(err, -EINVAL, "tensor %s: scale or bias does not go with its type",
                       slot->name);
    }
    struct weight w = {.type = t->type,
                       .rows = t->rows,
                       .cols = t->cols,
                       .group = t->group,
                       .data_off = t->data_off,
                       .scale_off = t->scale_off,
                       .bias_off = t->bias_off};
    r = check_array(mem, slot->name, "data", w.data_off, weight_data_bytes(&w), i, seen, err);
    if (r == 0 && w.scale_off) {
        r = check_array(mem, slot->name, "scale", w.scale_off, weight_scale_bytes(&w), i, seen,
                        err);
    }
    if (r == 0 && w.bias_off) {
        r = check_array(mem, slot->name, "bias", w.bias_off, weight_scale_bytes(&w), i, seen, err);
    }
    if (r < 0) {
        return r;
    }
    if (slot->matrix) {
        *slot->matrix = w;
    } else {
        *slot->vector_off = w.data_off;
    }
    return 0;
}

static int check_memory(const struct weight_memory *mem, struct err *err)
{
    if (mem->size_bytes == 0 || mem->size_bytes % IMAGE_CHUNK_ALIGN || mem->chunk_bytes == 0 ||
        mem->chunk_bytes % IMAGE_CHUNK_ALIGN || mem->chunk_bytes > IMAGE_CHUNK_MAX ||
        mem->n_chunks != (mem->size_bytes + mem->chunk_bytes - 1) / mem->chunk_bytes) {
        return err_set(err, -EINVAL,
                       "the image's memory is odd: %" PRIu64 " bytes in %" PRIu32
                       " chunks of %" PRIu64,
                       mem->size_bytes, mem->n_chunks, mem->chunk_bytes);
    }
    return 0;
}

static int check_header(const struct image_header *header, const struct model_config *config,
                        const struct weight_memory *mem, struct err *err)
{
    if (memcmp(header->magic, IMAGE_MAGIC, sizeof header->magic) != 0) {
        return err_set(err, -EINVAL, "this is no image: its magic is wrong");
    }
    if (header->version != IMAGE_VERSION) {
        return err_set(err, -EINVAL, "the image has version %" PRIu32 ", this program wants %d",
                       header->version, IMAGE_VERSION);
    }
    if (header->size_bytes != mem->size_bytes || header->chunk_bytes != mem->chunk_bytes) {
        return err_set(err, -EINVAL,
                       "the image says %" PRIu64 " bytes in chunks of %" PRIu64
                       ", its memory has %" PRIu64 " in chunks of %" PRIu64,
                       header->size_bytes, header->chunk_bytes, mem->size_bytes, mem->chunk_bytes);
    }
    if (header->n_tensors != image_n_slots(config)) {
        return err_set(err, -EINVAL, "the image has %" PRIu32 " tensors, the config wants %" PRIu32,
                       header->n_tensors, image_n_slots(config));
    }
    if (!is_zero(header->reserved, sizeof header->reserved)) {
        return err_set(err, -EINVAL, "a reserved field of the image's header is not zero");
    }
    return 0;
}

static int by_offset(const void *pa, const void *pb)
{
    const struct extent *a = pa, *b = pb;
    return a->off < b->off ? -1 : a->off > b->off;
}

static int check_overlaps(struct extents *seen, struct model *model, struct err *err)
{
    qsort(seen->v, seen->n, sizeof *seen->v, by_offset);
    for (size_t i = 0; i < seen->n; i++) {
        uint64_t floor = i ? seen->v[i - 1].end
                           : sizeof(struct image_header) +
                                 image_n_slots(&model->config) * sizeof(struct image_tensor);
        if (seen->v[i].off < floor) {
            struct image_slot slot;
            image_slot(model, seen->v[i].slot, &slot);
            return err_set(err, -EINVAL, "tensor %s: overlaps what lies before offset %" PRIu64,
                           slot.name, floor);
        }
    }
    return 0;
}

int image_bind(const struct model_config *config, const struct weight_memory *memory,
               struct model *ret, struct err *err)
{
    struct image_header header;
    int r = check_memory(memory, err);
    if (r < 0) {
        return r;
    }
    /* Each part is copied before it is checked: the memory is shared. */
    memcpy(&header, memory->base, sizeof header);
    r = check_header(&header, config, memory, err);
    if (r < 0) {
        return r;
    }
    AUTO_FREE struct model *model = calloc(1, sizeof *model);
    AUTO_FREE struct extent *extents = calloc(3 * (size_t)header.n_tensors, sizeof *extents);
    if (!model || !extents) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    struct extents seen = {.v = extents};
    model->config = *config;
    model->memory = *memory;
    for (uint32_t i = 0; i < header.n_tensors; i++) {
        struct image_tensor t;
        struct image_slot slot;
        memcpy(&t, memory->base + sizeof header + i * sizeof t, sizeof t);
        image_slot(model, i, &slot);
        r = bind_tensor(&t, memory, &slot, i, &seen, err);
        if (r < 0) {
            return r;
        }
    }
    r = check_overlaps(&seen, model, err);
    if (r < 0) {
        return r;
    }
    if (config->tied_head) {
        model->head = model->embed;
    }
    *ret = *model;
    return 0;
}
