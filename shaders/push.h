/* SPDX-License-Identifier: MIT */
/*
 * What the host and the shaders agree on: the push constants of each shader and the step buffer.
 * Read by C and by GLSL; an ADDR is a 64-bit device address, in GLSL a reference of that type.
 * Push constants are recorded into command buffers and never change; what changes from step to
 * step is in struct step, which every shader reads through its address.
 */
#ifndef PUSH_H
#define PUSH_H

#ifdef __STDC_VERSION__
#include <stdint.h>
#define ADDR(type) uint64_t
#define UINT       uint32_t
#define FLOAT      float
#define RAW_ADDR   uint64_t
#else
#define ADDR(type) type
#define UINT       uint
#define FLOAT      float
#define RAW_ADDR   uvec2 /* to be made a reference by whoever uses it */
#endif

/* Specialization constants that every shader has. */
#define SPEC_WG    0 /* invocations per workgroup */
#define SPEC_SLOTS 1 /* the most subgroups a workgroup can be split into */
/* Shaders that read weights (weights.glsl). */
#define SPEC_TYPE   2 /* enum weight_type */
#define SPEC_AFFINE 3 /* 1: there is a bias array */
#define SPEC_GROUP  4 /* elements per scale */
/* matmul */
#define SPEC_ROWS 5 /* rows of the matrix per workgroup */
#define SPEC_TILE 6 /* tokens per workgroup */

/* gemv */
#define SPEC_COLS      5  /* of the matrix */
#define SPEC_LANES     6  /* invocations per row, a power of two within a subgroup */
#define SPEC_GEMV_ROWS 7  /* rows at once (pairs of them with SPEC_GLU) */
#define SPEC_UNROLL    8  /* blocks of a row at once */
#define SPEC_PROLOGUE  9  /* where z comes from: */
#define GEMV_PLAIN     0  /* z = x of the first token */
#define GEMV_NORM      1  /* z = rmsnorm(x) * next */
#define GEMV_ADD_NORM  2  /* x_out = x + rmsnorm(y) * post; z = rmsnorm(x_out) * next */
#define GEMV_LAST      3  /* z = x of the last token */
#define SPEC_GLU       10 /* 1: out[i] = gelu_tanh(row i) * row units + i */

/* quantize: SPEC_TYPE of the matrix that reads its result, SPEC_COLS and SPEC_PROLOGUE as above */

/* few: SPEC_COLS to SPEC_UNROLL and SPEC_GLU as above */
#define SPEC_FEW_TOKENS 9 /* per workgroup */

/* gemm */
#define SPEC_GEMM_COLS   5 /* of the matrix */
#define SPEC_TILE_ROWS   6 /* of a workgroup: rows of the matrix */
#define SPEC_TILE_TOKENS 7
#define SPEC_TILE_K      8
#define SPEC_MAT_M       9  /* of a cooperative matrix: rows */
#define SPEC_MAT_N       10 /* tokens */
#define SPEC_MAT_K       11
#define SPEC_BUFFERS     12 /* tiles in shared memory: 1, or 2 in turn */
#define SPEC_WARPS_K     13 /* gemm_few: subgroups that share rows */
#define SPEC_ORDER       14 /* gemm_direct: of a matrix's elements, see matrix_order.comp */
#define GEMM_MATS        4  /* a subgroup makes so many times so many cooperative matrices */
#define GEMM_SMALL_MATS  2
#define GEMM_FEW_MATS    2 /* in gemm_few, of rows */
#define GEMM_FEW_BLOCKS  4 /* of a row that a subgroup of it loads at once */
#define ORDER_LOWER      1 /* of two bits for each two elements: they lie in the lower half, */
#define ORDER_ODD        2 /* in the second half of the columns */
#define ORDER_USUAL      0xe4
#define POWER_COPIES     16 /* of a token's scale, so that it can be loaded as a matrix's column */

/* geglu_half */
#define SPEC_FFN 2

/* rmsnorm, add_norm: of a token's row */
#define SPEC_WIDTH 2

/* rope_store, attention */
#define SPEC_MANY 2 /* 1: each token is of a timeline of its own: step's rows */

/* attend_one */
#define SPEC_HEADS      2 /* query heads per workgroup, all of one KV head */
#define SPEC_HEAD_DIM   3
#define SPEC_KEY_LANES  4 /* invocations per key, a power of two within a subgroup */
#define SPEC_KEYS       5 /* keys at once, per so many invocations */
#define SPEC_ONE_MANY   6 /* as SPEC_MANY; z of the grid is the token */
#define ATTEND_PART_END 4 /* floats of a part behind its values */

/* layers: the tiles of its four matrices, each SPEC_LANES, SPEC_GEMV_ROWS, SPEC_UNROLL and, as
 * gemv.glsl says, NEAR */
#define SPEC_QKV_TILE      5
#define SPEC_OUT_TILE      9
#define SPEC_GATE_TILE     13
#define SPEC_DOWN_TILE     17
#define SPEC_LAYERS_HIDDEN 21
#define SPEC_LAYERS_FFN    22
#define SPEC_LAYERS_LOOKERS \
    23 /* invocations that wait for the others, and read no weights: a subgroup */
#define SPEC_LAYERS_DIM     24
#define SPEC_LAYERS_LANES   25 /* invocations per key */
#define SPEC_LAYERS_N_HEADS 26 /* of the model */
#define SPEC_LAYERS_AHEAD   27 /* of an input: fours of an invocation under way at once */
#define LAYERS_KEYS         4  /* as SPEC_KEYS */

/* sample_*: a token is drawn from each row of logits (y of the grid) */
#define SAMPLE_SLICES 128 /* at most: x of the grid, each a range of ids */
#define SAMPLE_BINS   2048
#define SAMPLE_RING   16 /* the last tokens of a row */
#define SAMPLE_NONE   0xffffffffu
#define SAMPLE_ALL    0xffffffffu /* as top_p */
/* A row's scratch memory, in words; zero between dispatches: FINISHED and the bins. */
#define WORK_FINISHED 0
#define WORK_TOP_KEY  1 /* of the best token */
#define WORK_TOP_ID   2
#define WORK_CUT_KEY  3 /* kept are those with a higher key, */
#define WORK_CUT_TIES 4 /* and so many of those with this one */
#define WORK_PREFIX   5 /* of a key that is being found, from level to level of sample_bins */
#define WORK_LEFT     6 /* 64 bits: how much of it and those below it is still to be kept */
#define WORK_PARTS    8 /* [SAMPLE_SLICES, 3] */
#define WORK_BINS     (WORK_PARTS + 3 * SAMPLE_SLICES) /* [2, SAMPLE_BINS]: low, high words */
#define WORK_WORDS    (WORK_BINS + 2 * SAMPLE_BINS)

/* flash */
#define SPEC_FLASH_HEAD_DIM 2
#define SPEC_FLASH_MAT_M    3 /* of a cooperative matrix: tokens */
#define SPEC_FLASH_MAT_N    4 /* keys, and elements of a head */
#define SPEC_FLASH_MAT_K    5
#define FLASH_TOKEN_MATS    2  /* a workgroup's tokens, in matrices */
#define FLASH_VALUE_MATS    4  /* a subgroup's part of a head, in matrices */
#define FLASH_COPIES        16 /* of a token's factor */
#define FLASH_RING_ALIGN    16 /* slots of a ring: no matrix of keys goes over its end */

#define STEP_IDS_MAX  512
#define STEP_ROWS_MAX 32

/* One forward pass: written by the host before a submission. After these, ids[STEP_IDS_MAX] and
 * rows[STEP_ROWS_MAX]. pos is the first token's, where all are of one timeline. */
#define STEP_FIELDS  \
    UINT pos;        \
    UINT n;          \
    UINT reserved_0; \
    UINT reserved_1;

/* A token among those of other timelines: its position, and its timeline's layers[n_layers]. */
#define STEP_ROW_FIELDS \
    RAW_ADDR layers;    \
    UINT pos;           \
    UINT reserved;

/* Where a timeline has a layer's keys and values, as ROPE_STORE_FIELDS has them. */
#define LAYER_KV_FIELDS \
    RAW_ADDR k;         \
    RAW_ADDR v;         \
    UINT ring;          \
    UINT reserved_0;    \
    UINT reserved_1;    \
    UINT reserved_2;

/* y[t][r] = sum over k of w[r][k] * x[t][k]; last_only: one row of y, for token n - 1. */
#define MATMUL_FIELDS  \
    ADDR(U32x4) data;  \
    ADDR(U32) scale;   \
    ADDR(U32) bias;    \
    ADDR(F32x4R) x;    \
    ADDR(F32) y;       \
    ADDR(Step) step_p; \
    UINT rows;         \
    UINT cols;         \
    UINT last_only;

/* One token. units: rows, half of them with SPEC_GLU. */
#define GEMV_FIELDS    \
    ADDR(U32x4) data;  \
    ADDR(U32) scale;   \
    ADDR(U32) bias;    \
    ADDR(F32x4R) x;    \
    ADDR(F32x4R) y;    \
    ADDR(F32x4R) post; \
    ADDR(F32x4R) next; \
    ADDR(F32x4) x_out; \
    ADDR(F32) out_;    \
    ADDR(Step) step_p; \
    UINT units;        \
    FLOAT eps;

/* xq[t], meta[t]: what becomes of x[t] in prologue.glsl; uvec4 [2 * planes, blocks], uvec2 [blocks]
 */
#define QUANTIZE_FIELDS \
    ADDR(F32x4R) x;     \
    ADDR(F32x4R) y;     \
    ADDR(F32x4R) post;  \
    ADDR(F32x4R) next;  \
    ADDR(F32x4) x_out;  \
    ADDR(U32W) xq;      \
    ADDR(U32x2W) meta;  \
    ADDR(Step) step_p;  \
    FLOAT eps;

/* out[t][unit], from what quantize.comp made of the tokens. units: as in GEMV_FIELDS. */
#define FEW_FIELDS     \
    ADDR(U32x4) data;  \
    ADDR(U32) scale;   \
    ADDR(U32) bias;    \
    ADDR(U32x4) xq;    \
    ADDR(U32x2) meta;  \
    ADDR(F32) out_;    \
    ADDR(Step) step_p; \
    UINT units;

/* The elements of a matrix, of which each is the number, that each of 32 invocations has: [8]. */
#define MATRIX_ORDER_FIELDS ADDR(U32W) out_;

/* half[t] = f16 of x[t] * 2^-e, power[t][POWER_COPIES] = 2^e: the half form, see half.glsl. */
#define TO_HALF_FIELDS  \
    ADDR(F32x4R) x;     \
    ADDR(U32x2W) half_; \
    ADDR(F32) power;    \
    ADDR(Step) step_p;  \
    UINT width;

/* y[part][t][r - first] = power[t] * sum over a part of k of w[r][k] * x[t][k], x as TO_HALF_FIELDS
 * has it, r from first to rows; rows of y beyond the last token's are written up to a multiple
 * of 16.
 */
#define GEMM_FIELDS    \
    ADDR(U32x4) data;  \
    ADDR(U32) scale;   \
    ADDR(U32) bias;    \
    ADDR(U32x4) x;     \
    ADDR(F32R) power;  \
    ADDR(F32) y;       \
    ADDR(Step) step_p; \
    UINT first;        \
    UINT rows;         \
    UINT y_rows;       \
    UINT part_floats;

/* y[t][first + r] = sum over parts of parts[part][t][r], r below n_rows; first and the numbers of
 * rows in vec4. */
#define SUM_PARTS_FIELDS \
    ADDR(F32x4R) parts;  \
    ADDR(F32x4) y;       \
    ADDR(Step) step_p;   \
    UINT first;          \
    UINT n_rows;         \
    UINT y_rows;         \
    UINT part_vecs;      \
    UINT n_parts;

/* x[t] = w[ids[t]] * factor */
#define EMBED_FIELDS   \
    ADDR(U32x4) data;  \
    ADDR(U32) scale;   \
    ADDR(U32) bias;    \
    ADDR(F32x4) x;     \
    ADDR(Step) step_p; \
    UINT cols;         \
    FLOAT factor;

/* z, or with as_half its half form. */
#define NORMED_FIELDS   \
    ADDR(F32x4) z;      \
    ADDR(U32x2W) half_; \
    ADDR(F32) power;    \
    ADDR(Step) step_p;  \
    FLOAT eps;          \
    UINT as_half;

/* z = rmsnorm(x) * w */
#define RMSNORM_FIELDS \
    ADDR(F32x4) x;     \
    ADDR(F32x4R) w;    \
    NORMED_FIELDS

/* x += rmsnorm(y) * post; z = rmsnorm(x) * next. n_parts not 0: y's n_rows from first on are still
 * in parts, as SUM_PARTS_FIELDS has them. */
#define ADD_NORM_FIELDS \
    ADDR(F32x4) x;      \
    ADDR(F32x4R) y;     \
    ADDR(F32x4R) parts; \
    ADDR(F32x4R) post;  \
    ADDR(F32x4R) next;  \
    NORMED_FIELDS       \
    UINT first;         \
    UINT n_rows;        \
    UINT part_vecs;     \
    UINT n_parts;

/* k and v: f16 [n_kv_heads, ring, row_halfs] as pairs; position p is in slot p % ring. With
 * SPEC_MANY, here and below, k, v and ring are those of the token's timeline and layer instead. */
#define ROPE_STORE_FIELDS \
    ADDR(F32R) qkv;       \
    ADDR(F32R) q_norm;    \
    ADDR(F32R) k_norm;    \
    ADDR(U32x2) turns;    \
    ADDR(F32) q;          \
    ADDR(U32W) k;         \
    ADDR(U32W) v;         \
    ADDR(Step) step_p;    \
    UINT n_heads;         \
    UINT n_kv_heads;      \
    UINT head_dim;        \
    UINT row_halfs;       \
    UINT ring;            \
    UINT layer;           \
    FLOAT eps;            \
    FLOAT query_scale;

/* window 0: all earlier positions are seen */
#define ATTENTION_FIELDS \
    ADDR(F32R) q;        \
    ADDR(U32x4) k;       \
    ADDR(U32) v;         \
    ADDR(F32) att;       \
    ADDR(Step) step_p;   \
    UINT heads_per_kv;   \
    UINT head_dim;       \
    UINT row_halfs;      \
    UINT ring;           \
    UINT layer;          \
    UINT window;

/* As ATTENTION_FIELDS, in rows of SPEC_FLASH_HEAD_DIM. */
#define FLASH_FIELDS   \
    ADDR(F32x4R) q;    \
    ADDR(F16x4R) k;    \
    ADDR(F16x4R) v;    \
    ADDR(F32) att;     \
    ADDR(Step) step_p; \
    UINT heads_per_kv; \
    UINT ring;         \
    UINT window;

/* qkv: of one token, or of as many as z of the grid. k and v as above, to be read and written.
 * parts: f32 [n, n_heads, parts, row_halfs + ATTEND_PART_END], parts: y of the grid; finished: 0
 * for each x of the grid and token, and 0 again after. half_ not 0: the result's half form, which
 * needs no power (values are f16), and its powers. */
#define ATTEND_ONE_FIELDS \
    ADDR(F32R) qkv;       \
    ADDR(F32R) q_norm;    \
    ADDR(F32R) k_norm;    \
    ADDR(U32x2) turns;    \
    ADDR(U32x4) k;        \
    ADDR(U32x4) v;        \
    ADDR(F32) att;        \
    RAW_ADDR half_;       \
    ADDR(F32) power;      \
    ADDR(F32x4C) parts;   \
    ADDR(U32C) finished;  \
    ADDR(Step) step_p;    \
    UINT n_heads;         \
    UINT n_kv_heads;      \
    UINT heads_per_kv;    \
    UINT ring;            \
    UINT layer;           \
    UINT window;          \
    FLOAT eps;            \
    FLOAT query_scale;

/* What layers.comp reads of a layer: struct layer_row, and where it is in that, in words. A matrix
 * is three addresses. before: the norm of what is added to x in front of the layer's QKV, of no
 * meaning in the first. */
#define LAYER_QKV            0
#define LAYER_ATTN_OUT       6
#define LAYER_GATE_UP        12
#define LAYER_DOWN           18
#define LAYER_BEFORE         24
#define LAYER_INPUT_NORM     26
#define LAYER_POST_ATTN_NORM 28
#define LAYER_PRE_FFN_NORM   30
#define LAYER_Q_NORM         32
#define LAYER_K_NORM         34
#define LAYER_TURNS          36
#define LAYER_K              38
#define LAYER_V              40
#define LAYER_RING           42
#define LAYER_WINDOW         43
#define LAYER_WORDS          44

/* All layers of one token: x becomes what the last one adds ACT_Y to. arrived: 0 between dispatches
 * unless workgroups gave up, which failed tells the host. parts as in ATTEND_ONE_FIELDS. */
#define LAYERS_ARRIVED 0 /* words of arrived: a counter */
#define LAYERS_GAVE_UP 1
#define LAYERS_WORDS   2
#define LAYERS_FIELDS   \
    ADDR(U32x2) layers; \
    ADDR(ACT4) x;       \
    ADDR(ACT4) x_next;  \
    ADDR(ACT4) y;       \
    ADDR(ACT1) qkv;     \
    ADDR(ACT1) att;     \
    ADDR(ACT1) h;       \
    ADDR(F32x4C) parts; \
    ADDR(U32C) arrived; \
    ADDR(U32C) failed;  \
    ADDR(Step) step_p;  \
    UINT n_layers;      \
    UINT n_kv_heads;    \
    UINT max_parts;     \
    UINT spins;         \
    FLOAT eps;          \
    FLOAT query_scale;

/* Reads n times 16 bytes: each workgroup steps times READ_AT_ONCE of them per invocation. */
#define READ_AT_ONCE 8
#define READ_FIELDS   \
    ADDR(U32x4) data; \
    ADDR(U32W) sink;  \
    UINT n;           \
    UINT steps;

/* h = gelu_tanh(gate) * up, gate_up [n, 2 * ffn] */
#define GEGLU_FIELDS      \
    ADDR(F32x4R) gate_up; \
    ADDR(F32x4) h;        \
    ADDR(Step) step_p;    \
    UINT ffn;

/* The half form of h */
#define GEGLU_HALF_FIELDS \
    ADDR(F32x4R) gate_up; \
    ADDR(U32x2W) half_;   \
    ADDR(F32) power;      \
    ADDR(Step) step_p;

/* How a row is sampled, and how far it is: see struct backend_sampling. 64-bit words: low, high. */
#define SAMPLE_ROW_FIELDS \
    ADDR(F32R) adjust;    \
    UINT seed_low;        \
    UINT seed_high;       \
    UINT least_low;       \
    UINT least_high;      \
    UINT step;            \
    UINT top_k;           \
    UINT top_p;           \
    UINT has_adjust;      \
    FLOAT rate;           \
    FLOAT penalty;        \
    FLOAT inverse;        \
    UINT reserved;

/* ring [rows, SAMPLE_RING]: the token of a step, or SAMPLE_NONE, is at step % SAMPLE_RING. The
 * token also goes to next_id[row], and next_pos[row * pos_stride] is advanced by one. seen: bitmap
 * [rows, vocab]. */
#define SAMPLE_FIELDS      \
    ADDR(F32R) logits;     \
    ADDR(SampleRows) rows; \
    ADDR(U32C) seen;       \
    ADDR(U32C) work;       \
    ADDR(U32W) ring;       \
    ADDR(U32W) next_id;    \
    ADDR(U32C) next_pos;   \
    UINT pos_stride;       \
    UINT vocab;            \
    UINT is_last;          \
    UINT level;            \
    UINT by_weight;

#ifdef __STDC_VERSION__
struct push_sample {
    SAMPLE_FIELDS
};
struct sample_row {
    SAMPLE_ROW_FIELDS
};
struct push_matmul {
    MATMUL_FIELDS
};
struct push_gemv {
    GEMV_FIELDS
};
struct push_quantize {
    QUANTIZE_FIELDS
};
struct push_few {
    FEW_FIELDS
};
struct push_to_half {
    TO_HALF_FIELDS
};
struct push_matrix_order {
    MATRIX_ORDER_FIELDS
};
struct push_gemm {
    GEMM_FIELDS
};
struct push_sum_parts {
    SUM_PARTS_FIELDS
};
struct push_embed {
    EMBED_FIELDS
};
struct push_rmsnorm {
    RMSNORM_FIELDS
};
struct push_add_norm {
    ADD_NORM_FIELDS
};
struct push_rope_store {
    ROPE_STORE_FIELDS
};
struct push_attention {
    ATTENTION_FIELDS
};
struct push_flash {
    FLASH_FIELDS
};
struct push_attend_one {
    ATTEND_ONE_FIELDS
};
struct layer_matrix {
    uint64_t data, scales, biases;
};
struct layer_row {
    struct layer_matrix qkv, attn_out, gate_up, down;
    uint64_t before, input_norm, post_attn_norm, pre_ffn_norm, q_norm, k_norm, turns, k, v;
    uint32_t ring, window;
};
struct push_layers {
    LAYERS_FIELDS
};
struct push_geglu {
    GEGLU_FIELDS
};
struct push_geglu_half {
    GEGLU_HALF_FIELDS
};
struct push_read {
    READ_FIELDS
};
struct step_row {
    STEP_ROW_FIELDS
};
struct layer_kv {
    LAYER_KV_FIELDS
};
struct step {
    STEP_FIELDS
    int32_t ids[STEP_IDS_MAX];
    struct step_row rows[STEP_ROWS_MAX];
};
#endif

#endif
