/* SPDX-License-Identifier: MIT */
/*
 * y = x w^T for several tokens, by cooperative matrices: f16 tiles of w (dequantized on the way) and
 * of x in shared memory, sums in f32. A workgroup makes TILE_ROWS x TILE_TOKENS of y, or a part of
 * each sum, if z of the grid is more than one; a subgroup WARP_ROWS x WARP_TOKENS of that. The next
 * tiles are loaded into registers while the last are multiplied; with two BUFFERS they are also
 * stored while others still multiply. Workgroups of the same rows are neighbours in the grid, so
 * that all but the first of them find the weights in a cache.
 *
 * Within a run of four along K, elements 1 and 2 have changed places in x and in the tile of w, as
 * half_weights.glsl says. The includer says how many MATS a subgroup makes of rows and of tokens.
 */
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require
#include "common.glsl"
#include "weights.glsl"
#include "half_weights.glsl"

layout(constant_id = SPEC_GEMM_COLS) const uint COLS = 256;
layout(constant_id = SPEC_TILE_ROWS) const uint TILE_ROWS = 128;
layout(constant_id = SPEC_TILE_TOKENS) const uint TILE_TOKENS = 128;
layout(constant_id = SPEC_TILE_K) const uint TILE_K = 32;
layout(constant_id = SPEC_MAT_M) const uint MAT_M = 16;
layout(constant_id = SPEC_MAT_N) const uint MAT_N = 16;
layout(constant_id = SPEC_MAT_K) const uint MAT_K = 16;
layout(constant_id = SPEC_BUFFERS) const uint BUFFERS = 1;

PUSH(GEMM_FIELDS);

const uint BLOCKS = COLS / BLOCK;
const uint TILE_BLOCKS = TILE_K / BLOCK;              /* of 16 bytes, in a row of the tile of w */
const uint W_LOADS = TILE_ROWS * TILE_BLOCKS / WG;    /* per invocation */
const uint X_CHUNKS = TILE_K / 8;                     /* of 16 bytes, in a row of the tile of x */
const uint X_LOADS = TILE_TOKENS * X_CHUNKS / WG;
const uint STRIDE = TILE_K / 8 + 1; /* of a row of a tile, in uvec4; odd, for the memory's banks */
/* Matrices that a subgroup makes. Not specialized, and stored straight to memory: where a driver
 * cannot tell what indexes them, or they wait at barriers on their way out, it keeps them in memory
 * instead of registers, which was seen to be six times slower. */
const uint MATS_M = MATS;
const uint MATS_N = MATS;
const uint WARP_ROWS = MATS_M * MAT_M;
const uint WARP_TOKENS = MATS_N * MAT_N;
const uint WARPS_DOWN = TILE_ROWS / WARP_ROWS;
const uint STEPS = COLS / TILE_K;

const uint W_TILE = TILE_ROWS * STRIDE;
const uint X_TILE = TILE_TOKENS * STRIDE;

/* f16 in uvec4, so that they are read and written in 16 bytes at once. */
shared uvec4 w_tile[BUFFERS * W_TILE];
shared uvec4 x_tile[BUFFERS * X_TILE];

uvec4 w_raw[W_LOADS], x_raw[X_LOADS];
vec2 w_affine[W_LOADS];
uint first_row, first_token, n_tokens;

void load(uint s)
{
    [[unroll]] for (uint i = 0; i < W_LOADS; i++) {
        uint at = i * WG + gl_LocalInvocationID.x;
        uint row = min(first_row + at / TILE_BLOCKS, p.rows - 1);
        uint block = s * TILE_BLOCKS + at % TILE_BLOCKS;
        w_raw[i] = p.data.v[row * BLOCKS + block];
        w_affine[i] = block_affine(p.scale, p.bias, row, COLS, block);
    }
    [[unroll]] for (uint i = 0; i < X_LOADS; i++) {
        uint at = i * WG + gl_LocalInvocationID.x;
        uint token = min(first_token + at / X_CHUNKS, n_tokens - 1);
        x_raw[i] = p.x.v[token * (COLS / 8) + s * X_CHUNKS + at % X_CHUNKS];
    }
}

/* Four elements, 1 and 2 swapped. */
uvec2 four(vec4 v)
{
    return uvec2(packFloat2x16(f16vec2(v.xz)), packFloat2x16(f16vec2(v.yw)));
}

void store_w(uint buffer_, uint at, uvec4 raw, vec2 affine)
{
    uint to = buffer_ * W_TILE + at / TILE_BLOCKS * STRIDE + at % TILE_BLOCKS * BLOCK / 8;
    if (TYPE == WEIGHT_Q4) {
        f16vec2 a = f16vec2(affine);
        uvec4 odd = raw >> 8;
        w_tile[to] = uvec4(low(raw.x, a), low(odd.x, a), low(raw.y, a), low(odd.y, a));
        w_tile[to + 1] = uvec4(low(raw.z, a), low(odd.z, a), low(raw.w, a), low(odd.w, a));
        w_tile[to + 2] = uvec4(high(raw.x, a), high(odd.x, a), high(raw.y, a), high(odd.y, a));
        w_tile[to + 3] = uvec4(high(raw.z, a), high(odd.z, a), high(raw.w, a), high(odd.w, a));
    } else if (BLOCK >= 8) {
        [[unroll]] for (uint i = 0; i < VECS; i += 2) {
            w_tile[to + i / 2] = uvec4(four(unpack(raw, affine, i)), four(unpack(raw, affine, i + 1)));
        }
    } else {
        uvec2 v = four(unpack(raw, affine, 0));
        uint half_ = at % 2 * 2;
        w_tile[to][half_] = v.x;
        w_tile[to][half_ + 1] = v.y;
    }
}

void store(uint buffer_)
{
    [[unroll]] for (uint i = 0; i < W_LOADS; i++) {
        store_w(buffer_, i * WG + gl_LocalInvocationID.x, w_raw[i], w_affine[i]);
    }
    [[unroll]] for (uint i = 0; i < X_LOADS; i++) {
        uint at = i * WG + gl_LocalInvocationID.x;
        x_tile[buffer_ * X_TILE + at / X_CHUNKS * STRIDE + at % X_CHUNKS] = x_raw[i];
    }
}

void main()
{
    n_tokens = p.step_p.n;
    first_token = gl_WorkGroupID.x * TILE_TOKENS;
    first_row = p.first + gl_WorkGroupID.y * TILE_ROWS;
    if (first_token >= n_tokens) {
        return;
    }
    uint warp = gl_SubgroupID;
    uint warp_row = warp % WARPS_DOWN * WARP_ROWS;
    uint warp_token = warp / WARPS_DOWN * WARP_TOKENS;

    coopmat<float, gl_ScopeSubgroup, MAT_M, MAT_N, gl_MatrixUseAccumulator> sums[MATS_M * MATS_N];
    [[unroll]] for (uint i = 0; i < MATS_M * MATS_N; i++) {
        sums[i] = coopmat<float, gl_ScopeSubgroup, MAT_M, MAT_N, gl_MatrixUseAccumulator>(0.0);
    }
    uint begin = STEPS * gl_WorkGroupID.z / gl_NumWorkGroups.z;
    uint end = STEPS * (gl_WorkGroupID.z + 1) / gl_NumWorkGroups.z;
    load(begin);
    if (BUFFERS == 2) {
        store(0);
        barrier();
    }
    for (uint s = begin; s < end; s++) {
        uint now = BUFFERS == 2 ? (s - begin) % 2 : 0;
        if (BUFFERS == 1) {
            barrier();
            store(0);
            barrier();
        }
        if (s + 1 < end) {
            load(s + 1);
        }
        [[unroll]] for (uint k = 0; k < TILE_K; k += MAT_K) {
            coopmat<float16_t, gl_ScopeSubgroup, MAT_M, MAT_K, gl_MatrixUseA> a[MATS_M];
            [[unroll]] for (uint m = 0; m < MATS_M; m++) {
                coopMatLoad(a[m], w_tile, now * W_TILE + (warp_row + m * MAT_M) * STRIDE + k / 8, STRIDE,
                            gl_CooperativeMatrixLayoutRowMajor);
            }
            [[unroll]] for (uint n = 0; n < MATS_N; n++) {
                coopmat<float16_t, gl_ScopeSubgroup, MAT_K, MAT_N, gl_MatrixUseB> b;
                coopMatLoad(b, x_tile, now * X_TILE + (warp_token + n * MAT_N) * STRIDE + k / 8, STRIDE,
                            gl_CooperativeMatrixLayoutColumnMajor);
                [[unroll]] for (uint m = 0; m < MATS_M; m++) {
                    sums[n * MATS_M + m] = coopMatMulAdd(a[m], b, sums[n * MATS_M + m]);
                }
            }
        }
        if (BUFFERS == 2 && s + 1 < end) {
            store(1 - now);
            barrier();
        }
    }
    uint part = gl_WorkGroupID.z * p.part_floats;
    [[unroll]] for (uint n = 0; n < MATS_N; n++) {
        uint token = first_token + warp_token + n * MAT_N;
        if (token < n_tokens) { /* up to MAT_N - 1 more have room */
            coopmat<float, gl_ScopeSubgroup, MAT_M, MAT_N, gl_MatrixUseAccumulator> power;
            coopMatLoad(power, p.power.v, token * POWER_COPIES, POWER_COPIES,
                        gl_CooperativeMatrixLayoutColumnMajor);
            [[unroll]] for (uint m = 0; m < MATS_M; m++) {
                uint row = first_row + warp_row + m * MAT_M;
                if (row < p.rows) {
                    coopMatStore(sums[n * MATS_M + m] * power, p.y.v, part + token * p.y_rows + row - p.first,
                                 p.y_rows, gl_CooperativeMatrixLayoutColumnMajor);
                }
            }
        }
    }
}
