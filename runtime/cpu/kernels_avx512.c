/* SPDX-License-Identifier: MIT */
/*
 * Kernels for AVX-512 F, BW, VL and VNNI. Quantized weights meet int8 activations in VPDPBUSD,
 * which multiplies unsigned by signed bytes: nibbles are unsigned as they are, Q8 weights become so
 * by adding 128, and what was added comes off again through the sums of the activations.
 *
 * Few tokens: dot products along rows as the weights stream by (memory is the limit). Many: 16 rows
 * are turned into a panel with one row per lane, so that a group's products need no reduction
 * (arithmetic is the limit).
 */
#include "kernels_float.h"

/* Tokens from which on building panels pays. */
#define PANEL_MIN_TOKENS 6
#define PANEL_ROWS       16

/* One quantized matrix's arrays at some row. */
struct quant_row {
    const uint8_t *data;
    const uint16_t *scale, *bias;
};

struct quant_matrix {
    struct quant_row first; /* of the rows asked for */
    size_t data_stride, scale_stride;
    uint32_t cols, group;
};

static struct quant_matrix quant_matrix(const struct weight *w, const uint8_t *base, uint32_t row)
{
    struct quant_matrix m = {
        .data_stride = w->type == WEIGHT_Q4 ? w->cols / 2 : w->cols,
        .scale_stride = w->cols / w->group,
        .cols = w->cols,
        .group = w->group,
    };
    m.first.data = base + w->data_off + row * m.data_stride;
    m.first.scale = (const uint16_t *)(base + w->scale_off) + row * m.scale_stride;
    m.first.bias = w->bias_off ? (const uint16_t *)(base + w->bias_off) + row * m.scale_stride : 0;
    return m;
}

INLINE struct quant_row row_at(const struct quant_matrix *m, uint32_t r)
{
    struct quant_row row = m->first;
    row.data += r * m->data_stride;
    row.scale += r * m->scale_stride;
    if (row.bias) {
        row.bias += r * m->scale_stride;
    }
    return row;
}

/* Scales of 16 groups of 32, from group g of the row on; zero past the row's n_groups. */
INLINE __m512 load_scales(const uint16_t *p, uint32_t g, uint32_t n_groups, uint32_t group)
{
    uint32_t per = group / ACT_GROUP;
    uint32_t left = (n_groups - g) / per, most = 16 / per;
    __mmask16 mask = (__mmask16)((1u << (left < most ? left : most)) - 1);
    __m512 s = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p + g / per));
    if (per == 1) {
        return s;
    }
    __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_permutexvar_ps(_mm512_srli_epi32(lane, per == 2 ? 1 : 2), s);
}

/* What one unit of quantized activation adds besides the integer product: the bias, less the
 * offset that made the weights unsigned. */
INLINE __m512 load_zeros(const struct quant_row *row, __m512 scale, uint32_t g, uint32_t n_groups,
                         uint32_t group, bool q4, bool bias)
{
    if (!bias) {
        return _mm512_mul_ps(scale, _mm512_set1_ps(q4 ? -8.0f : -128.0f));
    }
    __m512 b = load_scales(row->bias, g, n_groups, group);
    return q4 ? b : _mm512_fmadd_ps(scale, _mm512_set1_ps(-128.0f), b);
}

INLINE __m512i load_bytes(const uint8_t *p, uint32_t n)
{
    if (n >= 64) {
        return _mm512_loadu_si512(p);
    }
    return _mm512_maskz_loadu_epi8(((__mmask64)1 << n) - 1, p);
}

/* --- few tokens: along the rows -------------------------------------------------------------- */

/* Lanes of each group of the b-th vector of a step: 4 lanes a group for Q4, 8 for Q8. */
INLINE __m512i group_lanes(bool q4, int b)
{
    if (q4) {
        __m512i g = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        return _mm512_add_epi32(g, _mm512_set1_epi32(4 * b));
    }
    __m512i g = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    return _mm512_add_epi32(g, _mm512_set1_epi32(2 * b));
}

/* Vector b of a step (64 bytes of weights from column k on): add R x C products, and fetch the
 * bytes that lie `ahead` of those read. */
INLINE void vector_step(bool q4, const struct quant_row *rows, int R, const int8_t *const *x, int C,
                        uint32_t k, uint32_t cols, int b, size_t ahead, __m512 (*scale)[4],
                        __m512 (*acc)[4])
{
    const __m512i zero = _mm512_setzero_si512();
    const __m512i low_bits = _mm512_set1_epi8(15);
    __m512i lanes = group_lanes(q4, b);
    for (int r = 0; r < R; r++) {
        __m512i lo, hi = zero;
        if (q4) {
            __m512i w = load_bytes(rows[r].data + k / 2, (cols - k) / 2);
            _mm_prefetch(rows[r].data + k / 2 + ahead, _MM_HINT_T0);
            lo = _mm512_and_si512(w, low_bits);
            hi = _mm512_and_si512(_mm512_srli_epi16(w, 4), low_bits);
        } else {
            __m512i w = load_bytes(rows[r].data + k, cols - k);
            _mm_prefetch(rows[r].data + k + ahead, _MM_HINT_T0);
            lo = _mm512_xor_si512(w, _mm512_set1_epi8((char)0x80));
        }
        for (int c = 0; c < C; c++) {
            __m512i dot = _mm512_dpbusd_epi32(zero, lo, _mm512_loadu_si512(x[c] + k));
            if (q4) {
                dot = _mm512_dpbusd_epi32(dot, hi, _mm512_loadu_si512(x[c] + k + 64));
            }
            acc[r][c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot),
                                        _mm512_permutexvar_ps(lanes, scale[r][c]), acc[r][c]);
        }
    }
}

/*
 * R rows times C tokens. A step is 16 groups of 32: one vector of scales, 4 vectors of nibbles or 8
 * of bytes. Every element is summed in the same order whatever R and C.
 */
INLINE void quant_tile(bool q4, bool bias, uint32_t group, const struct quant_matrix *m,
                       uint32_t row, int R, size_t ahead, const struct act_rows *act, uint32_t t,
                       int C, float *out, size_t out_stride)
{
    const uint32_t vector = q4 ? 128 : 64; /* columns in 64 bytes of weights */
    uint32_t n_groups = m->cols / ACT_GROUP;
    struct quant_row rows[4];
    const int8_t *x[4];
    __m512 acc[4][4];
    for (int r = 0; r < R; r++) {
        rows[r] = row_at(m, row + (uint32_t)r);
        for (int c = 0; c < C; c++) {
            acc[r][c] = _mm512_setzero_ps();
        }
    }
    for (int c = 0; c < C; c++) {
        x[c] = act->q + (t + (uint32_t)c) * act->q_stride;
    }
    for (uint32_t g = 0; g < n_groups; g += 16) {
        uint32_t left = n_groups - g;
        __mmask16 mask = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
        __m512 scale[4][4];
        for (int r = 0; r < R; r++) {
            __m512 s = load_scales(rows[r].scale, g, n_groups, group);
            __m512 z = load_zeros(&rows[r], s, g, n_groups, group, q4, bias);
            for (int c = 0; c < C; c++) {
                size_t at = (t + (uint32_t)c) * act->g_stride + g;
                acc[r][c] =
                    _mm512_fmadd_ps(z, _mm512_maskz_loadu_ps(mask, act->sum + at), acc[r][c]);
                scale[r][c] = _mm512_mul_ps(s, _mm512_maskz_loadu_ps(mask, act->scale + at));
            }
        }
        uint32_t k = g * ACT_GROUP;
        if (left >= 16) {
            for (int b = 0; b < (q4 ? 4 : 8); b++) {
                vector_step(q4, rows, R, x, C, k + (uint32_t)b * vector, UINT32_MAX, b, ahead,
                            scale, acc);
            }
        } else {
            int b = 0;
            for (; k + vector <= m->cols; b++, k += vector) {
                vector_step(q4, rows, R, x, C, k, UINT32_MAX, b, ahead, scale, acc);
            }
            if (k < m->cols) {
                vector_step(q4, rows, R, x, C, k, m->cols, b, ahead, scale, acc);
            }
        }
    }
    for (int r = 0; r < R; r++) {
        for (int c = 0; c < C; c++) {
            out[(t + (uint32_t)c) * out_stride + row + (uint32_t)r] =
                _mm512_reduce_add_ps(acc[r][c]);
        }
    }
}

/*
 * While a tile of 4 rows is multiplied the next one is fetched: its rows lie right behind, but rows
 * are too short for the hardware to see four streams coming.
 */
INLINE size_t prefetch_ahead(const struct quant_matrix *m, uint32_t r, uint32_t n_rows)
{
    return r + 8 <= n_rows ? 4 * m->data_stride : 0;
}

INLINE void quant_rows(bool q4, bool bias, uint32_t group, const struct quant_matrix *m,
                       uint32_t n_rows, const struct act_rows *act, uint32_t n, float *out,
                       size_t out_stride)
{
    uint32_t t = 0;
    for (; t + 2 <= n; t += 2) {
        uint32_t r = 0;
        for (; r + 4 <= n_rows; r += 4) {
            quant_tile(q4, bias, group, m, r, 4, prefetch_ahead(m, r, n_rows), act, t, 2, out,
                       out_stride);
        }
        for (; r < n_rows; r++) {
            quant_tile(q4, bias, group, m, r, 1, 0, act, t, 2, out, out_stride);
        }
    }
    /* One token and long rows: row after row is one stream, which the hardware fetches ahead by
     * itself; four rows at once, even with prefetches, read memory at two thirds of that speed on a
     * Zen 4. Short rows are over before that pays. */
    if (t < n) {
        uint32_t r = 0;
        for (; m->cols < 1024 && r + 4 <= n_rows; r += 4) {
            quant_tile(q4, bias, group, m, r, 4, prefetch_ahead(m, r, n_rows), act, t, 1, out,
                       out_stride);
        }
        for (; r < n_rows; r++) {
            quant_tile(q4, bias, group, m, r, 1, 0, act, t, 1, out, out_stride);
        }
    }
}

/* --- many tokens: panels of 16 rows ---------------------------------------------------------- */

/*
 * A panel in scratch, per group of 32 columns:
 *   w      [8][16] dwords: 4 consecutive columns of each of 16 rows, unsigned bytes
 *   scale  [16] floats
 *   zero   [16] floats
 */
struct panel_group {
    _Alignas(64) uint8_t w[8][64];
    float scale[PANEL_ROWS];
    float zero[PANEL_ROWS];
};

/* 16 rows of 16 dwords to 16 columns. */
INLINE void transpose(__m512i v[16])
{
    __m512i a[16];
    for (int i = 0; i < 8; i++) {
        a[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        v[4 * i] = _mm512_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
        v[4 * i + 1] = _mm512_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
        v[4 * i + 2] = _mm512_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
        v[4 * i + 3] = _mm512_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        a[i] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
        a[i + 4] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd);
        a[i + 8] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
        a[i + 12] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm512_shuffle_i32x4(a[i], a[i + 8], 0x88);
        v[i + 4] = _mm512_shuffle_i32x4(a[i + 4], a[i + 12], 0x88);
        v[i + 8] = _mm512_shuffle_i32x4(a[i], a[i + 8], 0xdd);
        v[i + 12] = _mm512_shuffle_i32x4(a[i + 4], a[i + 12], 0xdd);
    }
}

/* The bytes of 64 from column k on of n_rows rows (others zero), dword columns across rows. */
INLINE void load_transposed(const struct quant_matrix *m, uint32_t row, uint32_t n_rows,
                            size_t byte, uint32_t n_bytes, __m512i v[16])
{
    for (uint32_t r = 0; r < PANEL_ROWS; r++) {
        v[r] = r < n_rows ? load_bytes(m->first.data + (row + r) * m->data_stride + byte, n_bytes)
                          : _mm512_setzero_si512();
    }
    transpose(v);
}

static void pack_weights(bool q4, const struct quant_matrix *m, uint32_t row, uint32_t n_rows,
                         struct panel_group *panel)
{
    const __m512i low_bits = _mm512_set1_epi8(15);
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    size_t row_bytes = m->data_stride;
    for (size_t byte = 0; byte < row_bytes; byte += 64) {
        __m512i v[16];
        uint32_t left = (uint32_t)(row_bytes - byte);
        load_transposed(m, row, n_rows, byte, left, v);
        uint32_t n_dwords = left < 64 ? left / 4 : 16;
        for (uint32_t d = 0; d < n_dwords; d++) {
            if (q4) { /* 4 dwords a group: low nibbles are columns 0..15, high 16..31 */
                struct panel_group *p = panel + byte / 16 + d / 4;
                _mm512_store_si512(p->w[d % 4], _mm512_and_si512(v[d], low_bits));
                _mm512_store_si512(p->w[4 + d % 4],
                                   _mm512_and_si512(_mm512_srli_epi16(v[d], 4), low_bits));
            } else {
                struct panel_group *p = panel + byte / 32 + d / 8;
                _mm512_store_si512(p->w[d % 8], _mm512_xor_si512(v[d], flip));
            }
        }
    }
}

static void pack_scales(bool q4, const struct quant_matrix *m, uint32_t row, uint32_t n_rows,
                        struct panel_group *panel)
{
    uint32_t per = m->group / ACT_GROUP;
    for (uint32_t g = 0; g < m->cols / ACT_GROUP; g++) {
        uint16_t scale[PANEL_ROWS] = {0}, bias[PANEL_ROWS] = {0};
        for (uint32_t r = 0; r < n_rows; r++) {
            size_t at = (row + r) * m->scale_stride + g / per;
            scale[r] = m->first.scale[at];
            bias[r] = m->first.bias ? m->first.bias[at] : 0;
        }
        __m512 s = _mm512_cvtph_ps(_mm256_loadu_si256((const void *)scale));
        __m512 b = _mm512_cvtph_ps(_mm256_loadu_si256((const void *)bias));
        float offset = !q4 ? -128.0f : m->first.bias ? 0.0f : -8.0f;
        _mm512_store_ps(panel[g].scale, s);
        _mm512_store_ps(panel[g].zero, _mm512_fmadd_ps(s, _mm512_set1_ps(offset), b));
    }
}

/* A panel times C tokens; store[t] rows of 16, the first n_rows of each kept. */
INLINE void panel_tile(bool q4, const struct panel_group *panel, uint32_t n_groups,
                       const struct act_rows *act, uint32_t t, int C, uint32_t n_rows, float *out,
                       size_t out_stride)
{
    const int8_t *x = act->q + t * act->q_stride;
    const float *x_scale = act->scale + t * act->g_stride;
    const float *x_sum = act->sum + t * act->g_stride;
    __m512 acc[8];
    for (int c = 0; c < C; c++) {
        acc[c] = _mm512_setzero_ps();
    }
    for (uint32_t g = 0; g < n_groups; g++) {
        const struct panel_group *p = panel + g;
        size_t low = q4 ? g / 4 * 128 + g % 4 * 16 : (size_t)g * ACT_GROUP;
        size_t high = q4 ? low + 64 : low + 16;
        __m512i dot[8];
        for (int c = 0; c < C; c++) {
            dot[c] = _mm512_setzero_si512();
        }
        for (int d = 0; d < 8; d++) {
            __m512i w = _mm512_load_si512(p->w[d]);
            size_t at = d < 4 ? low + (size_t)d * 4 : high + (size_t)(d - 4) * 4;
            for (int c = 0; c < C; c++) {
                int32_t four;
                memcpy(&four, x + (size_t)c * act->q_stride + at, sizeof four);
                dot[c] = _mm512_dpbusd_epi32(dot[c], w, _mm512_set1_epi32(four));
            }
        }
        __m512 s = _mm512_load_ps(p->scale), z = _mm512_load_ps(p->zero);
        for (int c = 0; c < C; c++) {
            size_t at = (size_t)c * act->g_stride + g;
            __m512 both = _mm512_mul_ps(s, _mm512_set1_ps(x_scale[at]));
            acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[c]), both, acc[c]);
            acc[c] = _mm512_fmadd_ps(z, _mm512_set1_ps(x_sum[at]), acc[c]);
        }
    }
    __mmask16 keep = (__mmask16)((1u << n_rows) - 1);
    for (int c = 0; c < C; c++) {
        _mm512_mask_storeu_ps(out + (t + (uint32_t)c) * out_stride, keep, acc[c]);
    }
}

INLINE void panel_rows(bool q4, const struct quant_matrix *m, uint32_t n_rows,
                       const struct act_rows *act, uint32_t n, float *out, size_t out_stride,
                       struct panel_group *panel)
{
    uint32_t n_groups = m->cols / ACT_GROUP;
    for (uint32_t r = 0; r < n_rows; r += PANEL_ROWS) {
        uint32_t rows = n_rows - r < PANEL_ROWS ? n_rows - r : PANEL_ROWS;
        pack_weights(q4, m, r, rows, panel);
        pack_scales(q4, m, r, rows, panel);
        uint32_t t = 0;
        for (; t + 8 <= n; t += 8) {
            panel_tile(q4, panel, n_groups, act, t, 8, rows, out + r, out_stride);
        }
        for (; t + 2 <= n; t += 2) {
            panel_tile(q4, panel, n_groups, act, t, 2, rows, out + r, out_stride);
        }
        if (t < n) {
            panel_tile(q4, panel, n_groups, act, t, 1, rows, out + r, out_stride);
        }
    }
}

/* --- the table ------------------------------------------------------------------------------- */

INLINE void quant_group(bool q4, uint32_t group, const struct quant_matrix *m, uint32_t n_rows,
                        const struct act_rows *x, uint32_t n, float *out, size_t out_stride)
{
    if (m->first.bias) {
        quant_rows(q4, true, group, m, n_rows, x, n, out, out_stride);
    } else {
        quant_rows(q4, false, group, m, n_rows, x, n, out, out_stride);
    }
}

INLINE void quant_type(bool q4, const struct quant_matrix *m, uint32_t n_rows,
                       const struct act_rows *x, uint32_t n, float *out, size_t out_stride,
                       void *scratch)
{
    if (n >= PANEL_MIN_TOKENS) {
        panel_rows(q4, m, n_rows, x, n, out, out_stride, scratch);
    } else if (m->group == 32) {
        quant_group(q4, 32, m, n_rows, x, n, out, out_stride);
    } else if (m->group == 64) {
        quant_group(q4, 64, m, n_rows, x, n, out, out_stride);
    } else {
        quant_group(q4, 128, m, n_rows, x, n, out, out_stride);
    }
}

static void matmul(const struct weight *w, const uint8_t *base, const struct act_rows *x,
                   uint32_t n, uint32_t row, uint32_t n_rows, float *out, size_t out_stride,
                   void *scratch)
{
    if (!w->group) {
        float_matmul(w, base, x, n, row, n_rows, out, out_stride);
        return;
    }
    struct quant_matrix m = quant_matrix(w, base, row);
    if (w->type == WEIGHT_Q4) {
        quant_type(true, &m, n_rows, x, n, out, out_stride, scratch);
    } else {
        quant_type(false, &m, n_rows, x, n, out, out_stride, scratch);
    }
}

static size_t matmul_scratch(uint32_t max_cols)
{
    return (size_t)(max_cols / ACT_GROUP) * sizeof(struct panel_group);
}

const struct cpu_kernels cpu_kernels_avx512 = {
    .name = "AVX-512 VNNI",
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
