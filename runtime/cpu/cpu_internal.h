/* SPDX-License-Identifier: MIT */
/* What the files of cpu_backend share with each other, and with tests that look inside. */
#ifndef CPU_INTERNAL_H
#define CPU_INTERNAL_H

#include "backend.h"
#include "kernels.h"
#include "pool.h"

/* Tokens in one forward(), and how many more than the window a local layer keeps. */
#define CPU_MAX_BATCH 128

/* Timelines in one forward_many(). */
#define CPU_MAX_SEQUENCES 32

/* Keys whose attention is one work item while decoding; results do not depend on who does it. */
#define ATTN_SEGMENT 256

/* --- isa.c ----------------------------------------------------------------------------------- */

enum cpu_isa { CPU_ISA_BEST, CPU_ISA_SCALAR, CPU_ISA_AVX2, CPU_ISA_AVX512 };

/* The kernels of one instruction set, or of the best this CPU has; NULL if it lacks it. */
const struct cpu_kernels *cpu_isa_kernels(enum cpu_isa isa);

/* For tests: which kernels the next cpu_backend.open() takes. */
void cpu_isa_force(enum cpu_isa isa);
enum cpu_isa cpu_isa_forced(void);

/* --- cpu.c ----------------------------------------------------------------------------------- */

struct backend {
    const struct cpu_kernels *kernels;
    struct pool *pool;
    char device[256];
};

struct backend_model {
    struct backend *backend;
    const struct model *model;
    double *inv_freq; /* [2, head_dim / 2]: radians per position of local and global layers */
};

/* --- state.c --------------------------------------------------------------------------------- */

/*
 * One layer's cache, in blocks of ATTN_BLOCK positions. Keys lie across a block, so that scores are
 * sums of vectors and need no reduction; values lie along it.
 */
struct kv_cache {
    float *k;          /* [n_kv_heads, capacity / ATTN_BLOCK, head_stride, ATTN_BLOCK] */
    float *v;          /* [n_kv_heads, capacity, head_stride] */
    uint32_t capacity; /* positions, a multiple of ATTN_BLOCK; position p lies in p % capacity */
};

/* Quantized rows of one step's input: the memory behind struct act_rows. */
struct act_buffer {
    int8_t *q;
    float *scale, *sum;
    size_t q_stride, g_stride;
};

/* Strides are in floats and multiples of 16, so that every row starts a cache line. */
struct backend_state {
    struct backend *backend;
    struct backend_model *bm;
    const struct model *model;
    uint32_t max_pos, max_batch;
    size_t hidden_stride, qkv_stride, attn_stride, ffn_stride;
    uint32_t head_stride;

    struct kv_cache *kv; /* [n_layers] */
    float *x, *y, *z;    /* [max_batch, hidden_stride]: residual; a layer's output; its norm */
    float *qkv;          /* [max_batch, qkv_stride] */
    float *q;            /* [max_batch, n_heads * head_stride], zero-padded heads */
    float *attn;         /* [max_batch, attn_stride] */
    float *gate_up;      /* [max_batch, 2 * ffn_stride]: gate at 0, up at ffn */
    float *h;            /* [max_batch, ffn_stride] */
    struct act_buffer act_in, act_ffn; /* what qkv, attn_out, gate_up, head read; what down reads */
    float *rope[2];                    /* local, global: [max_batch, 2, head_dim / 2]: cos, sin */

    /* Attention of one token by several threads: a row per segment of keys. */
    struct attn_part *part; /* [segments, n_heads] */
    float *part_out;        /* [segments, n_heads, head_stride] */

    uint8_t *scratch; /* [n_threads, scratch_bytes]: panels, and attention of a token by one */
    size_t scratch_bytes;

    void *memory; /* all of the above but kv itself */
    size_t memory_bytes;
};

int cpu_state_create(struct backend_model *bm, uint32_t max_pos, struct err *err,
                     struct backend_state **ret, uint32_t *ret_rewind_max, uint64_t *ret_kv_bytes);
void cpu_state_destroy(struct backend_state *state);

/* --- forward.c ------------------------------------------------------------------------------- */

int cpu_forward(struct backend_state *state, const int32_t *ids, uint32_t n, uint32_t pos,
                enum logits_want want, float *logits, struct err *err);
int cpu_forward_many(struct backend_state *const *states, const int32_t *ids, const uint32_t *pos,
                     uint32_t n, float *logits, struct err *err);
int cpu_op(struct backend_state *state, enum backend_op op, uint32_t layer, const int32_t *ids,
           uint32_t n, uint32_t pos, const float *in, float *out, struct err *err);

#endif
