/* SPDX-License-Identifier: MIT */
/*
 * The arithmetic of cpu_backend, one table per instruction set. Kernels know rows and vectors; they
 * know nothing of layers, threads or the model. Every pointer to floats is 64-byte aligned at the
 * start of a row unless said otherwise, and no kernel's result depends on which thread runs it or
 * how rows are cut into calls.
 */
#ifndef CPU_KERNELS_H
#define CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model.h"

/* Activations are quantized in groups of 32 whatever the group of the weights. */
#define ACT_GROUP 32

/* Keys in a block of the KV cache, and in one call of attend() at most. */
#define ATTN_BLOCK 64

/*
 * Activation rows (one per token), as float32 and, for quantized weights, as int8 with a float
 * scale per group: x = scale * q, q in -127..127, |error| <= scale / 2. sum is scale * (sum of q).
 *
 * For Q4 weights q is stored in nibble order, so that a vector of low nibbles meets its elements
 * without a shuffle: within each 128 elements (4 groups, the last ones may be absent), bytes
 * 0..63 hold elements 0..15 of each group and bytes 64..127 elements 16..31. For Q8: plain order.
 */
struct act_rows {
    const float *f;     /* [n, f_stride] */
    const int8_t *q;    /* [n, q_stride] */
    const float *scale; /* [n, g_stride] */
    const float *sum;   /* [n, g_stride] */
    size_t f_stride, q_stride, g_stride;
};

/* A softmax over some keys, not yet divided by its total: see attend(). */
struct attn_part {
    float max, total;
};

struct cpu_kernels {
    const char *name; /* "AVX-512 VNNI", as info.device says it */

    /* Groups [first, first + n_groups) of one activation row x to int8, at their places in the
     * row's q, scale and sum; nibble_order as in struct act_rows. */
    void (*quantize)(const float *x, uint32_t first, uint32_t n_groups, bool nibble_order,
                     int8_t *q, float *scale, float *sum);

    /*
     * out[t * out_stride + r - row] for rows r in [row, row + n_rows) and tokens t in [0, n):
     * w's row r times activation row t. out need not be aligned. scratch: 64-byte aligned,
     * matmul_scratch bytes for matrices of up to that many columns.
     */
    void (*matmul)(const struct weight *w, const uint8_t *base, const struct act_rows *x,
                   uint32_t n, uint32_t row, uint32_t n_rows, float *out, size_t out_stride,
                   void *scratch);
    size_t (*matmul_scratch)(uint32_t max_cols);

    /* y = x * w / sqrt(mean(x^2) + eps); y may be x. */
    void (*rmsnorm)(float *y, const float *x, const float *w, uint32_t n, float eps);

    /* x += y * w / sqrt(mean(y^2) + eps) */
    void (*rmsnorm_add)(float *x, const float *y, const float *w, uint32_t n, float eps);

    /* out = gelu_tanh(gate) * up; relative error of the gelu below 1e-6. Any alignment. */
    void (*geglu)(const float *gate, const float *up, uint32_t n, float *out);

    /* Rotate a head in place: (a, b) = (x[i], x[i + half]) by the angle of cos[i], sin[i]; then
     * multiply by scale. */
    void (*rope)(float *x, const float *cos, const float *sin, uint32_t half, float scale);

    /*
     * n_heads query heads (rows of stride floats, a multiple of 16, zero-padded) over keys
     * [first, end) of one block of the KV cache: k [stride, ATTN_BLOCK], v [ATTN_BLOCK, stride].
     * Merged into part[h], out[h], which hold earlier keys' results: max and total of
     * exp(score - max), out = sum of exp(score - max) * v. Start with max = -INFINITY, total = 0,
     * out = 0. The block's other keys may hold anything.
     */
    void (*attend)(const float *q, uint32_t n_heads, uint32_t stride, const float *k,
                   const float *v, uint32_t first, uint32_t end, struct attn_part *part,
                   float *out);

    /* Merge another result of attend() into part, out; n floats of one head. */
    void (*attn_merge)(struct attn_part *part, float *out, const struct attn_part *other,
                       const float *other_out, uint32_t n);
};

extern const struct cpu_kernels cpu_kernels_scalar;
extern const struct cpu_kernels cpu_kernels_avx2;
extern const struct cpu_kernels cpu_kernels_avx512;

#endif
