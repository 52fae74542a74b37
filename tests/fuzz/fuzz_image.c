/* SPDX-License-Identifier: MIT */
/*
 * The header and table of an image, as another process may have written them: what binds can be
 * read to its last byte. The input is the start of the image, laid over a valid one.
 */
#include <stdlib.h>
#include <string.h>

#include "image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct model_config config = {
    .n_layers = 1,
    .hidden = 64,
    .ffn = 64,
    .n_heads = 2,
    .n_kv_heads = 1,
    .head_dim = 32,
    .vocab = 64,
    .window = 8,
    .max_pos = 16,
    .tied_head = true,
};

static void read_array(const struct weight_memory *memory, uint64_t off, uint64_t bytes)
{
    volatile uint8_t sum = 0;
    if (off / memory->chunk_bytes != (off + bytes - 1) / memory->chunk_bytes) {
        abort();
    }
    for (uint64_t i = 0; i < bytes; i++) {
        sum = (uint8_t)(sum + memory->base[off + i]);
    }
}

static void read_all(struct model *model)
{
    for (uint32_t i = 0; i < image_n_slots(&config); i++) {
        struct image_slot slot;
        image_slot(model, i, &slot);
        if (slot.vector_off) {
            read_array(&model->memory, *slot.vector_off, 4ull * slot.cols);
            continue;
        }
        read_array(&model->memory, slot.matrix->data_off, weight_data_bytes(slot.matrix));
        if (slot.matrix->scale_off) {
            read_array(&model->memory, slot.matrix->scale_off, weight_scale_bytes(slot.matrix));
        }
        if (slot.matrix->bias_off) {
            read_array(&model->memory, slot.matrix->bias_off, weight_scale_bytes(slot.matrix));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct image_formats formats;
    static struct model planned, bound;
    static uint8_t *base;
    struct err err;
    if (!base) {
        const struct weight_format q4 = {.type = WEIGHT_Q4, .group = 32, .affine = true};
        formats.embed = (struct weight_format){.type = WEIGHT_BF16};
        formats.layers[0].qkv = formats.layers[0].attn_out = q4;
        formats.layers[0].gate_up = formats.layers[0].down = q4;
        if (image_plan(&config, &formats, IMAGE_CHUNK_ALIGN, &planned, &err) < 0) {
            abort();
        }
        base = calloc(1, planned.memory.size_bytes);
        if (!base) {
            abort();
        }
    }
    const size_t table =
        sizeof(struct image_header) + image_n_slots(&config) * sizeof(struct image_tensor);
    size = size < table ? size : table;
    image_write_header(&planned, base);
    memcpy(base, data, size);
    struct weight_memory memory = planned.memory;
    memory.base = base;
    if (image_bind(&config, &memory, &bound, &err) == 0) {
        read_all(&bound);
    }
    return 0;
}
