/* SPDX-License-Identifier: MIT */
/*
 * Kernels for AVX2 with FMA and F16C. VPMADDUBSW multiplies unsigned by signed bytes and adds pairs
 * to 16 bits, saturating: nibbles are far from that; Q8 weights give their sign to the activation
 * first, which keeps a pair within 2 * 127 * 127.
 */
#include "kernels_float.h"

struct quant_row {
    const uint8_t *data;
    const uint16_t *scale, *bias; /* bias NULL: none */
};

/* Scales of the 8 groups of 32 from group g of the row on; zero past the row's n_groups. */
INLINE __m256 load_scales(const uint16_t *p, uint32_t g, uint32_t n_groups, uint32_t group)
{
    uint32_t per = group / ACT_GROUP;
    uint32_t left = (n_groups - g) / per, most = 8 / per;
    uint16_t half[8] = {0};
    memcpy(half, p + g / per, (left < most ? left : most) * sizeof *half);
    __m256 s = _mm256_cvtph_ps(_mm_loadu_si128((const void *)half));
    if (per == 1) {
        return s;
    }
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_permutevar8x32_ps(s, _mm256_srli_epi32(lane, per == 2 ? 1 : 2));
}

/* Eight floats of which the first n are read, others zero. */
INLINE __m256 load_floats(const float *p, uint32_t n)
{
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n < 8 ? n : 8)), lane));
}

/* 32 bytes of weights of which the first n (16 or more) are read, others zero. */
INLINE __m256i load_bytes(const uint8_t *p, uint32_t n)
{
    return n >= 32 ? _mm256_loadu_si256((const void *)p)
                   : _mm256_zextsi128_si256(_mm_loadu_si128((const void *)p));
}

/* Columns k .. k + 63 of Q4, in 8 lanes: 4 of the first group, 4 of the second. */
INLINE __m256i dot_q4(const uint8_t *data, const int8_t *x, uint32_t k, uint32_t cols)
{
    const __m256i low_bits = _mm256_set1_epi8(15);
    __m256i w = load_bytes(data + k / 2, (cols - k) / 2);
    const int8_t *low = x + k / 128 * 128 + k % 128 / 2;
    __m256i lo = _mm256_and_si256(w, low_bits);
    __m256i hi = _mm256_and_si256(_mm256_srli_epi16(w, 4), low_bits);
    __m256i pairs =
        _mm256_add_epi16(_mm256_maddubs_epi16(lo, _mm256_loadu_si256((const void *)low)),
                         _mm256_maddubs_epi16(hi, _mm256_loadu_si256((const void *)(low + 64))));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* Columns k .. k + 31 of Q8: one group in 8 lanes. */
INLINE __m256i dot_q8(const uint8_t *data, const int8_t *x, uint32_t k)
{
    __m256i w = _mm256_loadu_si256((const void *)(data + k));
    __m256i a = _mm256_loadu_si256((const void *)(x + k));
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* One row times C tokens; a step is 8 groups of 32. */
INLINE void quant_tile(bool q4, uint32_t group, const struct quant_row *row, uint32_t cols,
                       const struct act_rows *act, uint32_t t, int C, float *out, size_t out_stride)
{
    uint32_t n_groups = cols / ACT_GROUP;
    __m256 acc[4];
    for (int c = 0; c < C; c++) {
        acc[c] = _mm256_setzero_ps();
    }
    for (uint32_t g = 0; g < n_groups; g += 8) {
        uint32_t left = n_groups - g < 8 ? n_groups - g : 8;
        __m256 s = load_scales(row->scale, g, n_groups, group);
        __m256 z = row->bias ? load_scales(row->bias, g, n_groups, group)
                             : _mm256_mul_ps(s, _mm256_set1_ps(q4 ? -8.0f : 0.0f));
        __m256 scale[4];
        for (int c = 0; c < C; c++) {
            size_t at = (t + (uint32_t)c) * act->g_stride + g;
            acc[c] = _mm256_fmadd_ps(z, load_floats(act->sum + at, left), acc[c]);
            scale[c] = _mm256_mul_ps(s, load_floats(act->scale + at, left));
        }
        for (uint32_t i = 0; i < left; i += q4 ? 2 : 1) {
            int first = (int)i, second = q4 ? first + 1 : first;
            __m256i lanes =
                _mm256_setr_epi32(first, first, first, first, second, second, second, second);
            uint32_t k = (g + i) * ACT_GROUP;
            for (int c = 0; c < C; c++) {
                const int8_t *x = act->q + (t + (uint32_t)c) * act->q_stride;
                __m256i dot = q4 ? dot_q4(row->data, x, k, cols) : dot_q8(row->data, x, k);
                acc[c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot),
                                         _mm256_permutevar8x32_ps(scale[c], lanes), acc[c]);
            }
        }
    }
    for (int c = 0; c < C; c++) {
        out[(t + (uint32_t)c) * out_stride] = vf_sum((vf)acc[c]);
    }
}

INLINE void quant_matmul(bool q4, uint32_t group, const struct weight *w, const uint8_t *base,
                         const struct act_rows *x, uint32_t n, uint32_t row, uint32_t n_rows,
                         float *out, size_t out_stride)
{
    size_t row_bytes = q4 ? w->cols / 2 : w->cols;
    size_t row_scales = w->cols / group;
    for (uint32_t r = 0; r < n_rows; r++) {
        size_t first = (row + r) * row_scales;
        struct quant_row at = {
            .data = base + w->data_off + (row + r) * row_bytes,
            .scale = (const uint16_t *)(base + w->scale_off) + first,
            .bias = w->bias_off ? (const uint16_t *)(base + w->bias_off) + first : NULL,
        };
        uint32_t t = 0;
        for (; t + 4 <= n; t += 4) {
            quant_tile(q4, group, &at, w->cols, x, t, 4, out + r, out_stride);
        }
        for (; t < n; t++) {
            quant_tile(q4, group, &at, w->cols, x, t, 1, out + r, out_stride);
        }
    }
}

INLINE void quant_type(bool q4, const struct weight *w, const uint8_t *base,
                       const struct act_rows *x, uint32_t n, uint32_t row, uint32_t n_rows,
                       float *out, size_t out_stride)
{
    if (w->group == 32) {
        quant_matmul(q4, 32, w, base, x, n, row, n_rows, out, out_stride);
    } else if (w->group == 64) {
        quant_matmul(q4, 64, w, base, x, n, row, n_rows, out, out_stride);
    } else {
        quant_matmul(q4, 128, w, base, x, n, row, n_rows, out, out_stride);
    }
}

static void matmul(const struct weight *w, const uint8_t *base, const struct act_rows *x,
                   uint32_t n, uint32_t row, uint32_t n_rows, float *out, size_t out_stride,
                   void *scratch)
{
    (void)scratch;
    if (!w->group) {
        float_matmul(w, base, x, n, row, n_rows, out, out_stride);
    } else if (w->type == WEIGHT_Q4) {
        quant_type(true, w, base, x, n, row, n_rows, out, out_stride);
    } else {
        quant_type(false, w, base, x, n, row, n_rows, out, out_stride);
    }
}

static size_t matmul_scratch(uint32_t max_cols)
{
    (void)max_cols;
    return 0;
}

const struct cpu_kernels cpu_kernels_avx2 = {
    .name = "AVX2",
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
