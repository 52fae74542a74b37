/* SPDX-License-Identifier: MIT */
/*
 * The kernels that work on float32, written once over vec.h: norms, RoPE, GeGLU, attention, int8
 * quantization of activations, and matrix times vectors for float weights. Included by each kernel
 * file, never elsewhere.
 */
#ifndef CPU_KERNELS_FLOAT_H
#define CPU_KERNELS_FLOAT_H

#include <math.h>

#include "kernels.h"
#include "vec.h"

static float inverse_rms(const float *x, uint32_t n, float eps)
{
    vf sum0 = {0}, sum1 = {0};
    uint32_t i = 0;
    for (; i + 2 * VEC <= n; i += 2 * VEC) {
        vf a = vf_load(x + i), b = vf_load(x + i + VEC);
        sum0 += a * a;
        sum1 += b * b;
    }
    float sum = vf_sum(sum0 + sum1);
    for (; i < n; i++) {
        sum += x[i] * x[i];
    }
    return 1.0f / sqrtf(sum / (float)n + eps);
}

static void rmsnorm(float *y, const float *x, const float *w, uint32_t n, float eps)
{
    float inv = inverse_rms(x, n, eps);
    uint32_t i = 0;
    for (; i + VEC <= n; i += VEC) {
        vf_store(y + i, vf_load(x + i) * inv * vf_load(w + i));
    }
    for (; i < n; i++) {
        y[i] = x[i] * inv * w[i];
    }
}

static void rmsnorm_add(float *x, const float *y, const float *w, uint32_t n, float eps)
{
    float inv = inverse_rms(y, n, eps);
    uint32_t i = 0;
    for (; i + VEC <= n; i += VEC) {
        vf_store(x + i, vf_load(x + i) + vf_load(y + i) * inv * vf_load(w + i));
    }
    for (; i < n; i++) {
        x[i] += y[i] * inv * w[i];
    }
}

/* x/2 * (1 + tanh(u)) is x / (1 + e^-2u). */
INLINE vf gelu_tanh(vf x)
{
    vf minus_2u = x * (x * x * (-2.0f * 0.7978845608f * 0.044715f) + -2.0f * 0.7978845608f);
    return x / (vf_exp(minus_2u) + 1.0f);
}

static void geglu(const float *gate, const float *up, uint32_t n, float *out)
{
    uint32_t i = 0;
    for (; i + VEC <= n; i += VEC) {
        vf_store(out + i, gelu_tanh(vf_load(gate + i)) * vf_load(up + i));
    }
    if (i < n) {
        float g[VEC] = {0}, u[VEC] = {0}, o[VEC];
        memcpy(g, gate + i, (n - i) * sizeof *g);
        memcpy(u, up + i, (n - i) * sizeof *u);
        vf_store(o, gelu_tanh(vf_load(g)) * vf_load(u));
        memcpy(out + i, o, (n - i) * sizeof *o);
    }
}

static void rope(float *x, const float *cos, const float *sin, uint32_t half, float scale)
{
    uint32_t i = 0;
    for (; i + VEC <= half; i += VEC) {
        vf a = vf_load(x + i), b = vf_load(x + i + half);
        vf c = vf_load(cos + i), s = vf_load(sin + i);
        vf_store(x + i, (a * c - b * s) * scale);
        vf_store(x + i + half, (b * c + a * s) * scale);
    }
    for (; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = (a * cos[i] - b * sin[i]) * scale;
        x[i + half] = (b * cos[i] + a * sin[i]) * scale;
    }
}

/* --- attention ------------------------------------------------------------------------------- */

/* Keys whose scores are summed at once, as registers allow: 4 heads times this many vectors. */
#define SCORE_KEYS (VEC == 16 ? 64 : 2 * VEC)

/* Scores of the keys around [first, end): keys lie across lanes, so nothing is summed over lanes.
 */
INLINE void scores(const float *q, int n_heads, uint32_t stride, const float *k, uint32_t first,
                   uint32_t end, float (*score)[ATTN_BLOCK])
{
    for (uint32_t j = first / SCORE_KEYS * SCORE_KEYS; j < end; j += SCORE_KEYS) {
        vf sum[4][SCORE_KEYS / VEC] = {{{0}}};
        for (uint32_t i = 0; i < stride; i++) {
            for (int l = 0; l < SCORE_KEYS / VEC; l++) {
                vf key = vf_load(k + (size_t)i * ATTN_BLOCK + j + l * VEC);
                for (int h = 0; h < n_heads; h++) {
                    sum[h][l] += key * q[(size_t)h * stride + i];
                }
            }
        }
        for (int h = 0; h < n_heads; h++) {
            for (int l = 0; l < SCORE_KEYS / VEC; l++) {
                vf_store(score[h] + j + l * VEC, sum[h][l]);
            }
        }
    }
}

/* The score vector from key j on, with -INFINITY for keys outside [first, end): whatever lies in
 * the cache there, even a NaN, has no say. */
INLINE vf score_lanes(const float *score, uint32_t j, uint32_t first, uint32_t end)
{
    vi key;
    for (int l = 0; l < VEC; l++) {
        key[l] = (int)j + l;
    }
    vi inside = (key >= (int)first) & (key < (int)end);
    return vf_select(inside, vf_load(score + j), vf_set(-INFINITY));
}

/* Scores to exp(score - max), 0 outside [first, end); returns by what earlier results must be
 * multiplied. */
INLINE float soften(float *score, uint32_t first, uint32_t end, struct attn_part *part)
{
    uint32_t start = first / VEC * VEC;
    vf peak = vf_set(part->max);
    for (uint32_t j = start; j < end; j += VEC) {
        peak = vf_max(score_lanes(score, j, first, end), peak);
    }
    float max = vf_peak(peak);
    vf sum = {0};
    for (uint32_t j = start; j < end; j += VEC) {
        vf s = score_lanes(score, j, first, end);
        vf e = vf_select(s > -INFINITY, vf_exp(s - max), (vf){0});
        vf_store(score + j, e);
        sum += e;
    }
    float earlier = part->max == -INFINITY ? 0.0f : expf(part->max - max);
    part->max = max;
    part->total = part->total * earlier + vf_sum(sum);
    return earlier;
}

INLINE void weigh_values(int n_heads, uint32_t stride, const float *v, uint32_t first, uint32_t end,
                         float (*score)[ATTN_BLOCK], const float *earlier, float *out)
{
    for (uint32_t i = 0; i < stride; i += 16) {
        vf acc[4][16 / VEC];
        for (int h = 0; h < n_heads; h++) {
            for (int l = 0; l < 16 / VEC; l++) {
                acc[h][l] = vf_load(out + (size_t)h * stride + i + l * VEC) * earlier[h];
            }
        }
        for (uint32_t j = first; j < end; j++) {
            for (int l = 0; l < 16 / VEC; l++) {
                vf value = vf_load(v + (size_t)j * stride + i + l * VEC);
                for (int h = 0; h < n_heads; h++) {
                    acc[h][l] += value * score[h][j];
                }
            }
        }
        for (int h = 0; h < n_heads; h++) {
            for (int l = 0; l < 16 / VEC; l++) {
                vf_store(out + (size_t)h * stride + i + l * VEC, acc[h][l]);
            }
        }
    }
}

INLINE void attend_heads(const float *q, int n_heads, uint32_t stride, const float *k,
                         const float *v, uint32_t first, uint32_t end, struct attn_part *part,
                         float *out)
{
    float score[4][ATTN_BLOCK];
    float earlier[4];
    scores(q, n_heads, stride, k, first, end, score);
    for (int h = 0; h < n_heads; h++) {
        earlier[h] = soften(score[h], first, end, &part[h]);
    }
    weigh_values(n_heads, stride, v, first, end, score, earlier, out);
}

static void attend(const float *q, uint32_t n_heads, uint32_t stride, const float *k,
                   const float *v, uint32_t first, uint32_t end, struct attn_part *part, float *out)
{
    uint32_t h = 0;
    for (; h + 4 <= n_heads; h += 4) {
        attend_heads(q + (size_t)h * stride, 4, stride, k, v, first, end, part + h,
                     out + (size_t)h * stride);
    }
    for (; h + 2 <= n_heads; h += 2) {
        attend_heads(q + (size_t)h * stride, 2, stride, k, v, first, end, part + h,
                     out + (size_t)h * stride);
    }
    for (; h < n_heads; h++) {
        attend_heads(q + (size_t)h * stride, 1, stride, k, v, first, end, part + h,
                     out + (size_t)h * stride);
    }
}

static void attn_merge(struct attn_part *part, float *out, const struct attn_part *other,
                       const float *other_out, uint32_t n)
{
    float max = part->max > other->max ? part->max : other->max;
    float mine = part->max == -INFINITY ? 0.0f : expf(part->max - max);
    float theirs = other->max == -INFINITY ? 0.0f : expf(other->max - max);
    part->max = max;
    part->total = part->total * mine + other->total * theirs;
    for (uint32_t i = 0; i < n; i += VEC) {
        vf_store(out + i, vf_load(out + i) * mine + vf_load(other_out + i) * theirs);
    }
}

/* --- int8 activations ------------------------------------------------------------------------ */

static void quantize(const float *row, uint32_t first, uint32_t n_groups, bool nibble_order,
                     int8_t *q, float *scale, float *sum)
{
    for (uint32_t g = first; g < first + n_groups; g++) {
        const float *x = row + (size_t)g * ACT_GROUP;
        vf peak = {0};
        for (int i = 0; i < ACT_GROUP; i += VEC) {
            peak = vf_max(vf_abs(vf_load(x + i)), peak);
        }
        float amax = vf_peak(peak);
        float inv = amax > 0 ? 127.0f / amax : 0.0f;
        _Alignas(64) int8_t bytes[ACT_GROUP];
        vi total = {0};
        for (int i = 0; i < ACT_GROUP; i += VEC) {
            vi rounded = vf_round(vf_load(x + i) * inv);
            vi8 narrow = __builtin_convertvector(rounded, vi8);
            memcpy(bytes + i, &narrow, sizeof narrow);
            total += rounded;
        }
        scale[g] = amax / 127.0f;
        sum[g] = scale[g] * vf_sum(__builtin_convertvector(total, vf));
        if (nibble_order) {
            int8_t *low = q + g / 4 * 128 + g % 4 * 16;
            memcpy(low, bytes, 16);
            memcpy(low + 64, bytes + 16, 16);
        } else {
            memcpy(q + (size_t)g * ACT_GROUP, bytes, ACT_GROUP);
        }
    }
}

/* --- float weights --------------------------------------------------------------------------- */

INLINE vf load_weight(enum weight_type type, const uint8_t *row, size_t i)
{
    return type == WEIGHT_F32   ? vf_load((const float *)row + i)
           : type == WEIGHT_F16 ? vf_load_f16((const uint16_t *)row + i)
                                : vf_load_bf16((const uint16_t *)row + i);
}

INLINE float load_weight1(enum weight_type type, const uint8_t *row, size_t i)
{
    return type == WEIGHT_F32   ? ((const float *)row)[i]
           : type == WEIGHT_F16 ? f16_to_f32(((const uint16_t *)row)[i])
                                : bf16_to_f32(((const uint16_t *)row)[i]);
}

/* n_rows <= 4 rows times n <= 4 tokens. Each element is summed in the same order whatever the
 * tile. */
INLINE void float_tile(enum weight_type type, const uint8_t *rows, uint32_t cols, int n_rows,
                       const float *x, size_t x_stride, int n, float *out, size_t out_stride)
{
    size_t row_bytes = (size_t)cols * (type == WEIGHT_F32 ? 4 : 2);
    vf sum[4][4] = {{{0}}};
    uint32_t i = 0;
    for (; i + VEC <= cols; i += VEC) {
        vf w[4];
        for (int r = 0; r < n_rows; r++) {
            w[r] = load_weight(type, rows + r * row_bytes, i);
        }
        for (int t = 0; t < n; t++) {
            vf a = vf_load(x + t * x_stride + i);
            for (int r = 0; r < n_rows; r++) {
                sum[t][r] += a * w[r];
            }
        }
    }
    for (int t = 0; t < n; t++) {
        for (int r = 0; r < n_rows; r++) {
            float total = vf_sum(sum[t][r]);
            for (uint32_t j = i; j < cols; j++) {
                total += x[t * x_stride + j] * load_weight1(type, rows + r * row_bytes, j);
            }
            out[t * out_stride + r] = total;
        }
    }
}

INLINE void float_rows(enum weight_type type, const uint8_t *rows, uint32_t cols, int n_rows,
                       const struct act_rows *x, uint32_t n, float *out, size_t out_stride)
{
    uint32_t t = 0;
    for (; t + 4 <= n; t += 4) {
        float_tile(type, rows, cols, n_rows, x->f + t * x->f_stride, x->f_stride, 4,
                   out + t * out_stride, out_stride);
    }
    for (; t < n; t++) {
        float_tile(type, rows, cols, n_rows, x->f + t * x->f_stride, x->f_stride, 1,
                   out + t * out_stride, out_stride);
    }
}

INLINE void float_matmul_as(enum weight_type type, const struct weight *w, const uint8_t *base,
                            const struct act_rows *x, uint32_t n, uint32_t row, uint32_t n_rows,
                            float *out, size_t out_stride)
{
    size_t row_bytes = (size_t)w->cols * (type == WEIGHT_F32 ? 4 : 2);
    const uint8_t *rows = base + w->data_off + row * row_bytes;
    uint32_t r = 0;
    for (; r + 4 <= n_rows; r += 4) {
        float_rows(type, rows + r * row_bytes, w->cols, 4, x, n, out + r, out_stride);
    }
    for (; r < n_rows; r++) {
        float_rows(type, rows + r * row_bytes, w->cols, 1, x, n, out + r, out_stride);
    }
}

/* A matrix of a float type; matmul() of each table comes here for those. */
static void float_matmul(const struct weight *w, const uint8_t *base, const struct act_rows *x,
                         uint32_t n, uint32_t row, uint32_t n_rows, float *out, size_t out_stride)
{
    switch (w->type) {
    case WEIGHT_F32:
        float_matmul_as(WEIGHT_F32, w, base, x, n, row, n_rows, out, out_stride);
        break;
    case WEIGHT_F16:
        float_matmul_as(WEIGHT_F16, w, base, x, n, row, n_rows, out, out_stride);
        break;
    default:
        float_matmul_as(WEIGHT_BF16, w, base, x, n, row, n_rows, out, out_stride);
        break;
    }
}

#endif
