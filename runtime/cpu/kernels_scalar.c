/* SPDX-License-Identifier: MIT */
/*
 * Kernels for any CPU: no instruction beyond the architecture's baseline. Quantized weights in
 * plain integer C, which compilers vectorise as far as the baseline goes.
 */
#include "kernels_float.h"

/* Integer product of one group of 32: weights as stored against activations in their order. */
static int dot_q4(const uint8_t *w, const int8_t *low, const int8_t *high)
{
    int sum = 0;
    for (int i = 0; i < 16; i++) {
        sum += (w[i] & 15) * low[i] + (w[i] >> 4) * high[i];
    }
    return sum;
}

static int dot_q8(const uint8_t *w, const int8_t *x)
{
    int sum = 0;
    for (int i = 0; i < 32; i++) {
        sum += (int8_t)w[i] * x[i];
    }
    return sum;
}

/* One row times one token. */
static float quant_dot(const struct weight *w, const uint8_t *base, const struct act_rows *x,
                       uint32_t t, uint32_t row)
{
    bool q4 = w->type == WEIGHT_Q4;
    uint32_t groups_a_scale = w->group / ACT_GROUP;
    size_t first = (size_t)row * (w->cols / w->group);
    const uint8_t *data = base + w->data_off + (size_t)row * (q4 ? w->cols / 2 : w->cols);
    const uint16_t *scale = (const uint16_t *)(base + w->scale_off) + first;
    const uint16_t *bias = w->bias_off ? (const uint16_t *)(base + w->bias_off) + first : NULL;
    const int8_t *q = x->q + t * x->q_stride;
    const float *x_scale = x->scale + t * x->g_stride;
    const float *x_sum = x->sum + t * x->g_stride;

    float sum = 0;
    for (uint32_t g = 0; g < w->cols / ACT_GROUP; g++) {
        const int8_t *low = q + g / 4 * 128 + g % 4 * 16;
        int dot = q4 ? dot_q4(data + g * 16, low, low + 64) : dot_q8(data + g * 32, q + g * 32);
        float s = f16_to_f32(scale[g / groups_a_scale]);
        float zero = bias ? f16_to_f32(bias[g / groups_a_scale]) : q4 ? -8.0f * s : 0.0f;
        sum += s * x_scale[g] * (float)dot + zero * x_sum[g];
    }
    return sum;
}

static void matmul(const struct weight *w, const uint8_t *base, const struct act_rows *x,
                   uint32_t n, uint32_t row, uint32_t n_rows, float *out, size_t out_stride,
                   void *scratch)
{
    (void)scratch;
    if (!w->group) {
        float_matmul(w, base, x, n, row, n_rows, out, out_stride);
        return;
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t t = 0; t < n; t++) {
            out[t * out_stride + r] = quant_dot(w, base, x, t, row + r);
        }
    }
}

static size_t matmul_scratch(uint32_t max_cols)
{
    (void)max_cols;
    return 0;
}

const struct cpu_kernels cpu_kernels_scalar = {
    .name = "scalar",
    .quantize = quantize,
    .matmul = matmul,
    .matmul_scratch = matmul_scratch,
    .rmsnorm = rmsnorm,
    .rmsnorm_add = rmsnorm_add,
    .geglu = geglu,
    .rope = rope,
    .attend = attend,
    .attn_merge = attn_merge,
};
