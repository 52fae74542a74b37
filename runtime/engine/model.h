/* SPDX-License-Identifier: MIT */
/*
 * A model as the backends see it: its numbers, and where each weight lies in one block of memory
 * (the image, see image.h). A struct model owns nothing: the memory belongs to whoever mapped it
 * and outlives the model. Read-only after construction, so any number of threads may use it.
 */
#ifndef ENGINE_MODEL_H
#define ENGINE_MODEL_H

#include <stdint.h>

#include "config.h"

/* How the elements of a matrix are stored. The values are part of the image format. */
enum weight_type {
    WEIGHT_F32 = 1,
    WEIGHT_F16 = 2,
    WEIGHT_BF16 = 3,
    WEIGHT_Q4 = 4, /* unsigned nibbles, q in 0..15 */
    WEIGHT_Q8 = 5, /* signed bytes, q in -127..127 */
};

/*
 * A matrix [rows, cols], row-major: cols is the contraction dimension K, contiguous.
 *
 * F32, F16, BF16: data is rows * cols elements.
 *
 * Q8: data is rows * cols int8; scale is f16 [rows, cols / group];  w = s * q (+ b if bias_off).
 * Q4: data is rows * cols / 2 bytes; within each run of 32 elements along K (16 bytes), byte j
 * holds element j in its low and element 16 + j in its high nibble; w = s * (q - 8) without bias, w
 * = s * q + b with one (affine). bias is f16 [rows, cols / group] like scale. group is 32, 64 or
 * 128 and divides cols.
 *
 * Offsets are bytes from the start of the image, multiples of 256; no array straddles a chunk.
 * In a fused matrix (QKV, gate+up) the parts' rows follow each other.
 */
struct weight {
    uint32_t type; /* enum weight_type */
    uint32_t rows;
    uint32_t cols;
    uint32_t group; /* 0 for float types */
    uint64_t data_off;
    uint64_t scale_off; /* 0: none */
    uint64_t bias_off;  /* 0: none */
};

/* Norm weights are stored as f32 with Gemma's "+1" already added. Offsets like weight's. */
struct model_layer {
    uint64_t input_norm_off;     /* f32 [hidden] */
    uint64_t q_norm_off;         /* f32 [head_dim] */
    uint64_t k_norm_off;         /* f32 [head_dim] */
    uint64_t post_attn_norm_off; /* f32 [hidden] */
    uint64_t pre_ffn_norm_off;   /* f32 [hidden] */
    uint64_t post_ffn_norm_off;  /* f32 [hidden] */
    struct weight qkv;           /* [(n_heads + 2 * n_kv_heads) * head_dim, hidden]: q, k, v */
    struct weight attn_out;      /* [hidden, n_heads * head_dim] */
    struct weight gate_up;       /* [2 * ffn, hidden]: gate, up */
    struct weight down;          /* [hidden, ffn] */
};

struct weight_keeper; /* keeper.h */

/*
 * The block of memory that holds an image. base is mapped for reading in this process and
 * contiguous over the chunks; chunk i is bytes [i * chunk_bytes, (i + 1) * chunk_bytes) and the
 * last one ends at size_bytes (a multiple of 2 MiB, as is chunk_bytes).
 */
struct weight_memory {
    const uint8_t *base; /* 2 MiB aligned */
    uint64_t size_bytes;
    uint64_t chunk_bytes;
    uint32_t n_chunks;
    const int *dmabuf_fds; /* [n_chunks], borrowed; NULL when the memory is no dma-buf */
    const struct weight_keeper *keeper; /* of a device's copy, borrowed; NULL: nobody keeps one */
};

struct model {
    struct model_config config;
    struct weight_memory memory;
    struct weight embed;     /* [vocab, hidden] */
    struct weight head;      /* [vocab, hidden]; the same offsets as embed when tied */
    uint64_t final_norm_off; /* f32 [hidden] */
    struct model_layer layers[CONFIG_MAX_LAYERS];
};

/* Bytes of a matrix's arrays together, without padding: what one pass over it reads. */
uint64_t weight_bytes(const struct weight *w);

/* Sizes of the single arrays; scale is also bias's size, 0 for float types. */
uint64_t weight_data_bytes(const struct weight *w);
uint64_t weight_scale_bytes(const struct weight *w);

/* Row `row` of a matrix as float32: ret[cols]. base is the start of the image. */
void weight_dequant_row(const struct weight *w, const uint8_t *base, uint32_t row, float *ret);

/* Bytes that decoding one token reads: every layer's matrices and norms, and the head (the
 * embedding row is not counted). */
uint64_t model_bytes_per_token(const struct model *model);

#endif
