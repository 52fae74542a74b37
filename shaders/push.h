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
#else
#define ADDR(type) type
#define UINT       uint
#define FLOAT      float
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

#define STEP_IDS_MAX 64

/* One forward pass: written by the host before a submission. */
#define STEP_FIELDS  \
    UINT pos;        \
    UINT n;          \
    UINT reserved_0; \
    UINT reserved_1;

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

/* x[t] = w[ids[t]] * factor */
#define EMBED_FIELDS   \
    ADDR(U32x4) data;  \
    ADDR(U32) scale;   \
    ADDR(U32) bias;    \
    ADDR(F32x4) x;     \
    ADDR(Step) step_p; \
    UINT cols;         \
    FLOAT factor;

/* z = rmsnorm(x) * w */
#define RMSNORM_FIELDS \
    ADDR(F32x4R) x;    \
    ADDR(F32x4R) w;    \
    ADDR(F32x4) z;     \
    ADDR(Step) step_p; \
    UINT width;        \
    FLOAT eps;

/* x += rmsnorm(y) * post; z = rmsnorm(x) * next */
#define ADD_NORM_FIELDS \
    ADDR(F32x4) x;      \
    ADDR(F32x4R) y;     \
    ADDR(F32x4R) post;  \
    ADDR(F32x4R) next;  \
    ADDR(F32x4) z;      \
    ADDR(Step) step_p;  \
    UINT width;         \
    FLOAT eps;

/* k and v: f16 [n_kv_heads, ring, row_halfs] as pairs; position p is in slot p % ring. */
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
    UINT window;

/* h = gelu_tanh(gate) * up, gate_up [n, 2 * ffn] */
#define GEGLU_FIELDS      \
    ADDR(F32x4R) gate_up; \
    ADDR(F32x4) h;        \
    ADDR(Step) step_p;    \
    UINT ffn;

#ifdef __STDC_VERSION__
struct push_matmul {
    MATMUL_FIELDS
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
struct push_geglu {
    GEGLU_FIELDS
};
struct step {
    STEP_FIELDS
    int32_t ids[STEP_IDS_MAX];
};
#endif

#endif
