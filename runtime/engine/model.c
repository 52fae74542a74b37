/* SPDX-License-Identifier: MIT */
/* Sizes and elements of a model's matrices: see model.h. Knows no file and no image header. */
#include "model.h"

#include "half.h"

uint64_t weight_data_bytes(const struct weight *w)
{
    uint64_t n = (uint64_t)w->rows * w->cols;
    switch (w->type) {
    case WEIGHT_F32:
        return n * 4;
    case WEIGHT_F16:
    case WEIGHT_BF16:
        return n * 2;
    case WEIGHT_Q8:
        return n;
    case WEIGHT_Q4:
        return n / 2;
    }
    return 0;
}

uint64_t weight_scale_bytes(const struct weight *w)
{
    return w->group ? (uint64_t)w->rows * (w->cols / w->group) * 2 : 0;
}

uint64_t weight_bytes(const struct weight *w)
{
    return weight_data_bytes(w) + weight_scale_bytes(w) * (w->bias_off ? 2 : 1);
}

uint64_t model_bytes_per_token(const struct model *model)
{
    const struct model_config *c = &model->config;
    uint64_t norms = 4ull * (4 * (uint64_t)c->hidden + 2 * (uint64_t)c->head_dim);
    uint64_t bytes = weight_bytes(&model->head) + 4ull * c->hidden;

    for (uint32_t i = 0; i < c->n_layers; i++) {
        const struct model_layer *l = &model->layers[i];
        bytes += norms + weight_bytes(&l->qkv) + weight_bytes(&l->attn_out) +
                 weight_bytes(&l->gate_up) + weight_bytes(&l->down);
    }
    return bytes;
}

/* One group of a quantized row: q -> s * q + b. k0 is the group's first column. */
static void dequant_group(const struct weight *w, const uint8_t *row, uint32_t k0, float s, float b,
                          float *ret)
{
    if (w->type == WEIGHT_Q8) {
        for (uint32_t k = k0; k < k0 + w->group; k++) {
            ret[k] = s * (float)(int8_t)row[k] + b;
        }
        return;
    }
    for (uint32_t run = k0; run < k0 + w->group; run += 32) {
        for (uint32_t j = 0; j < 16; j++) {
            uint8_t byte = row[run / 2 + j];
            ret[run + j] = s * (float)(byte & 15) + b;
            ret[run + 16 + j] = s * (float)(byte >> 4) + b;
        }
    }
}

void weight_dequant_row(const struct weight *w, const uint8_t *base, uint32_t row, float *ret)
{
    const uint8_t *data = base + w->data_off + weight_data_bytes(w) / w->rows * row;

    if (!w->group) {
        for (uint32_t k = 0; k < w->cols; k++) {
            ret[k] = w->type == WEIGHT_F32   ? ((const float *)data)[k]
                     : w->type == WEIGHT_F16 ? f16_to_f32(((const uint16_t *)data)[k])
                                             : bf16_to_f32(((const uint16_t *)data)[k]);
        }
        return;
    }
    uint32_t n_groups = w->cols / w->group;
    uint64_t first = (uint64_t)row * n_groups;
    const uint16_t *scale = (const uint16_t *)(base + w->scale_off) + first;
    const uint16_t *bias = w->bias_off ? (const uint16_t *)(base + w->bias_off) + first : NULL;
    for (uint32_t g = 0; g < n_groups; g++) {
        float s = f16_to_f32(scale[g]);
        float b = bias ? f16_to_f32(bias[g]) : w->type == WEIGHT_Q4 ? -8 * s : 0;
        dequant_group(w, data, g * w->group, s, b, ret);
    }
}
