/* SPDX-License-Identifier: MIT */
/*
 * softmax(q k^T) v for one head (x of the grid) and TOKENS tokens (y), by cooperative matrices: f16
 * inputs, f32 sums, online softmax over blocks of KEYS keys (Dao, "FlashAttention-2", 2023).
 *
 * For the scores, each subgroup takes MAT_N keys of a block; for the values, each takes VALUE_MATS
 * times MAT_N of the head's elements: so every key and value is read once per workgroup, from
 * memory. Between the two, scores and weights pass through shared memory.
 *
 * Keys that a token does not see get weight 0, not their value: slots of the ring that no position
 * was written to must hold numbers (state.c zeroes them). Rows of att beyond the last token's are
 * written up to a multiple of TOKENS.
 */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_EXT_shader_16bit_storage : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"

layout(buffer_reference, std430, buffer_reference_align = 16) restrict readonly buffer F16x4R { f16vec4 v[]; };

layout(constant_id = SPEC_FLASH_HEAD_DIM) const uint HEAD_DIM = 128;
layout(constant_id = SPEC_FLASH_MAT_M) const uint MAT_M = 16;
layout(constant_id = SPEC_FLASH_MAT_N) const uint MAT_N = 16;
layout(constant_id = SPEC_FLASH_MAT_K) const uint MAT_K = 16;

PUSH(FLASH_FIELDS);

/* Not specialized: see gemm.glsl. */
const uint TOKEN_MATS = FLASH_TOKEN_MATS;
const uint VALUE_MATS = FLASH_VALUE_MATS;

const uint TOKENS = TOKEN_MATS * MAT_M;
const uint SUBGROUPS = HEAD_DIM / (VALUE_MATS * MAT_N);
const uint KEYS = SUBGROUPS * MAT_N;
const uint VECS = HEAD_DIM / 4;
const uint Q_STRIDE = VECS + 2;
const uint S_STRIDE = KEYS / 4 + 1;
const uint P_STRIDE = KEYS / 4 + 2;
const uint LANES = WG / TOKENS; /* invocations per token in the softmax */
const uint CHUNKS = KEYS / 4 / LANES;
const float NOTHING = -3.0e38;

shared f16vec4 q_tile[TOKENS * Q_STRIDE];
shared vec4 s_tile[TOKENS * S_STRIDE];
shared f16vec4 p_tile[TOKENS * P_STRIDE];
shared float row_tile[TOKENS * FLASH_COPIES]; /* a factor per token, as the rows of a matrix */

coopmat<float, gl_ScopeSubgroup, MAT_M, MAT_N, gl_MatrixUseAccumulator> sums[TOKEN_MATS * VALUE_MATS];

uint first_token, n_tokens, head_row; /* head_row: of k and v, in slots */

void load_queries()
{
    uint width = gl_NumWorkGroups.x * VECS;
    for (uint i = gl_LocalInvocationID.x; i < TOKENS * VECS; i += WG) {
        uint token = min(first_token + i / VECS, n_tokens - 1);
        vec4 q = p.q.v[token * width + gl_WorkGroupID.x * VECS + i % VECS];
        q_tile[i / VECS * Q_STRIDE + i % VECS] = f16vec4(q);
    }
}

/* The scores of this subgroup's keys, from position first_key on. */
void score(uint first_key)
{
    coopmat<float, gl_ScopeSubgroup, MAT_M, MAT_N, gl_MatrixUseAccumulator> scores[TOKEN_MATS];
    [[unroll]] for (uint m = 0; m < TOKEN_MATS; m++) {
        scores[m] = coopmat<float, gl_ScopeSubgroup, MAT_M, MAT_N, gl_MatrixUseAccumulator>(0.0);
    }
    uint row = head_row + (first_key + gl_SubgroupID * MAT_N) % p.ring;
    [[unroll]] for (uint k = 0; k < HEAD_DIM; k += MAT_K) {
        coopmat<float16_t, gl_ScopeSubgroup, MAT_K, MAT_N, gl_MatrixUseB> keys;
        coopMatLoad(keys, p.k.v, row * VECS + k / 4, VECS, gl_CooperativeMatrixLayoutColumnMajor);
        [[unroll]] for (uint m = 0; m < TOKEN_MATS; m++) {
            coopmat<float16_t, gl_ScopeSubgroup, MAT_M, MAT_K, gl_MatrixUseA> queries;
            coopMatLoad(queries, q_tile, m * MAT_M * Q_STRIDE + k / 4, Q_STRIDE,
                        gl_CooperativeMatrixLayoutRowMajor);
            scores[m] = coopMatMulAdd(queries, keys, scores[m]);
        }
    }
    [[unroll]] for (uint m = 0; m < TOKEN_MATS; m++) {
        coopMatStore(scores[m], s_tile, m * MAT_M * S_STRIDE + gl_SubgroupID * MAT_N / 4, S_STRIDE,
                     gl_CooperativeMatrixLayoutRowMajor);
    }
}

/* One invocation's part of a token's softmax. */
uint row, lane;
float top, total; /* of this invocation's keys, relative to top, which all of a token share */

void set_factor(float value)
{
    for (uint i = lane; i < FLASH_COPIES; i += LANES) {
        row_tile[row * FLASH_COPIES + i] = value;
    }
}

/* Scores to weights, of the keys [begin, end) that the token sees. */
void weigh(uint first_key, uint begin, uint end)
{
    float new_top = top;
    [[unroll]] for (uint i = 0; i < CHUNKS; i++) {
        uint at = i * LANES + lane;
        uint key = first_key + 4 * at;
        vec4 s = s_tile[row * S_STRIDE + at];
        [[unroll]] for (uint c = 0; c < 4; c++) {
            new_top = key + c >= begin && key + c < end ? max(new_top, s[c]) : new_top;
        }
    }
    [[unroll]] for (uint x = 1; x < LANES; x *= 2) {
        new_top = max(new_top, subgroupShuffleXor(new_top, x));
    }
    float keep = exp(top - new_top);
    total *= keep;
    [[unroll]] for (uint i = 0; i < CHUNKS; i++) {
        uint at = i * LANES + lane;
        uint key = first_key + 4 * at;
        vec4 s = s_tile[row * S_STRIDE + at];
        vec4 e = vec4(0.0);
        [[unroll]] for (uint c = 0; c < 4; c++) {
            e[c] = key + c >= begin && key + c < end ? exp(s[c] - new_top) : 0.0;
        }
        total += (e.x + e.y) + (e.z + e.w);
        p_tile[row * P_STRIDE + at] = f16vec4(e);
    }
    top = new_top;
    set_factor(keep);
}

void scale_sums()
{
    [[unroll]] for (uint m = 0; m < TOKEN_MATS; m++) {
        coopmat<float, gl_ScopeSubgroup, MAT_M, MAT_N, gl_MatrixUseAccumulator> factor;
        coopMatLoad(factor, row_tile, m * MAT_M * FLASH_COPIES, FLASH_COPIES,
                    gl_CooperativeMatrixLayoutRowMajor);
        [[unroll]] for (uint o = 0; o < VALUE_MATS; o++) {
            sums[o * TOKEN_MATS + m] = sums[o * TOKEN_MATS + m] * factor;
        }
    }
}

void add_values(uint first_key)
{
    for (uint k = 0; k < KEYS; k += MAT_K) {
        uint at = (head_row + (first_key + k) % p.ring) * VECS + gl_SubgroupID * VALUE_MATS * MAT_N / 4;
        coopmat<float16_t, gl_ScopeSubgroup, MAT_M, MAT_K, gl_MatrixUseA> weights[TOKEN_MATS];
        [[unroll]] for (uint m = 0; m < TOKEN_MATS; m++) {
            coopMatLoad(weights[m], p_tile, m * MAT_M * P_STRIDE + k / 4, P_STRIDE,
                        gl_CooperativeMatrixLayoutRowMajor);
        }
        [[unroll]] for (uint o = 0; o < VALUE_MATS; o++) {
            coopmat<float16_t, gl_ScopeSubgroup, MAT_K, MAT_N, gl_MatrixUseB> values;
            coopMatLoad(values, p.v.v, at + o * MAT_N / 4, VECS, gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint m = 0; m < TOKEN_MATS; m++) {
                sums[o * TOKEN_MATS + m] = coopMatMulAdd(weights[m], values, sums[o * TOKEN_MATS + m]);
            }
        }
    }
}

void store_sums()
{
    uint width = gl_NumWorkGroups.x * HEAD_DIM;
    uint column = gl_WorkGroupID.x * HEAD_DIM + gl_SubgroupID * VALUE_MATS * MAT_N;
    [[unroll]] for (uint m = 0; m < TOKEN_MATS; m++) {
        uint token = first_token + m * MAT_M;
        if (token < n_tokens) {
            [[unroll]] for (uint o = 0; o < VALUE_MATS; o++) {
                coopMatStore(sums[o * TOKEN_MATS + m], p.att.v, token * width + column + o * MAT_N,
                             width, gl_CooperativeMatrixLayoutRowMajor);
            }
        }
    }
}

/* The first position that the token at pos sees. */
uint first_seen(uint pos)
{
    return p.window != 0 && pos >= p.window ? pos + 1 - p.window : 0;
}

void main()
{
    n_tokens = p.step_p.n;
    first_token = gl_WorkGroupID.y * TOKENS;
    if (first_token >= n_tokens) {
        return;
    }
    head_row = gl_WorkGroupID.x / p.heads_per_kv * p.ring;
    uint me = gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
    row = me / LANES;
    lane = me % LANES;
    top = NOTHING;
    total = 0.0;
    uint pos = p.step_p.pos;
    uint end = pos + min(first_token + row, n_tokens - 1) + 1;
    uint begin = first_seen(end - 1);
    uint last_end = pos + min(first_token + TOKENS, n_tokens);
    [[unroll]] for (uint i = 0; i < TOKEN_MATS * VALUE_MATS; i++) {
        sums[i] = coopmat<float, gl_ScopeSubgroup, MAT_M, MAT_N, gl_MatrixUseAccumulator>(0.0);
    }
    load_queries();
    barrier();
    uint first_key = first_seen(pos + first_token) / FLASH_RING_ALIGN * FLASH_RING_ALIGN;
    for (; first_key < last_end; first_key += KEYS) {
        score(first_key);
        barrier();
        weigh(first_key, begin, end);
        barrier();
        scale_sums();
        add_values(first_key);
    }
    [[unroll]] for (uint x = 1; x < LANES; x *= 2) {
        total += subgroupShuffleXor(total, x);
    }
    barrier(); /* row_tile has been read */
    set_factor(1.0 / total);
    barrier();
    scale_sums();
    store_sums();
}
