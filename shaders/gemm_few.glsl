/* SPDX-License-Identifier: MIT */
/*
 * y = x w^T for a few tokens and an int4 or int8 matrix by cooperative matrices: as gemm.glsl, but
 * bound by the reading of the weights. A subgroup has 2 matrices' rows and as many tokens as the
 * workgroup (the includer's TOKEN_MATS matrices); WARPS_K subgroups share their rows, and what each
 * has summed up along its part of K is added up in the end. In a round a workgroup goes TILE_K along
 * K, a subgroup DEPTH steps of it, 4 blocks of each row at a time: x of the round is in shared
 * memory, and a round's weights are under way while the last one's are used, each replaced at once.
 *
 * The weights become f16 in a piece of shared memory of their subgroup's own or, with DIRECT, go from
 * the registers they were loaded into to those of the matrix: whoever has loaded a row's block also
 * holds that row in the matrix, if it lies there as matrix_order.comp looks for. For that, what a matrix
 * takes as its columns are elements of four blocks; x is put into shared memory in the same order.
 */
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require
#include "common.glsl"
#include "weights.glsl"
#include "half_weights.glsl"

layout(constant_id = SPEC_GEMM_COLS) const uint COLS = 256;
layout(constant_id = SPEC_TILE_ROWS) const uint TILE_ROWS = 64;
layout(constant_id = SPEC_TILE_TOKENS) const uint TOKENS = 16; /* up to TOKEN_MATS * MAT_N */
layout(constant_id = SPEC_TILE_K) const uint TILE_K = 256;
layout(constant_id = SPEC_MAT_M) const uint MAT_M = 16;
layout(constant_id = SPEC_MAT_N) const uint MAT_N = 16;
layout(constant_id = SPEC_MAT_K) const uint MAT_K = 16;
layout(constant_id = SPEC_BUFFERS) const uint BUFFERS = 1; /* of x */
layout(constant_id = SPEC_WARPS_K) const uint WARPS_K = 1;
#ifdef DIRECT
layout(constant_id = SPEC_ORDER) const uint ORDER = ORDER_USUAL;
#endif

PUSH(GEMM_FIELDS);

const uint MATS_M = GEMM_FEW_MATS; /* not specialized: see gemm.glsl */
const uint MATS_N = TOKEN_MATS;
const uint SUBGROUP = WG / SLOTS;
const uint BLOCKS = COLS / BLOCK;
const uint STEP_K = GEMM_FEW_BLOCKS * BLOCK;
const uint DEPTH = TILE_K / (STEP_K * WARPS_K);
const uint ROUNDS = (COLS + TILE_K - 1) / TILE_K;
const uint ROWS = MATS_M * MAT_M; /* of a subgroup */
const uint LOAD_ROWS = SUBGROUP / GEMM_FEW_BLOCKS;
const uint LOADS = ROWS / LOAD_ROWS;
const uint SCALES = COLS / GROUP;

/* x of a step, in uvec4: TOKENS rows, of odd strides for the memory's banks. A matrix of more tokens
 * takes what lies behind for theirs: whatever it is, it goes into sums that nobody reads. */
const uint STEP_VECS = STEP_K / 8;
const uint STRIDE = STEP_VECS + 1;
const uint X_STEP = TOKENS * STRIDE;
const uint STEPS = WARPS_K * DEPTH;
const uint X_TILE = STEPS * X_STEP;
const uint X_ALL = BUFFERS * X_TILE + (MATS_N * MAT_N - TOKENS) * STRIDE;
const uint X_VECS = TOKENS * STEPS * STEP_VECS;
const uint X_LOADS = (X_VECS + WG - 1) / WG;

/* Sums: [WARPS_K][token][row]. */
const uint SUM_STRIDE = TILE_ROWS / 4 + 1;
const uint SUMS_ALL = WARPS_K * MATS_N * MAT_N * SUM_STRIDE;

shared uvec4 tile[X_ALL > SUMS_ALL ? X_ALL : SUMS_ALL];
#ifndef DIRECT
const uint W_TILE = ROWS * STRIDE; /* of a subgroup */
shared uvec4 w_tile[SLOTS * W_TILE];
#endif

/* Weights under way, and the words that hold their scales and biases. */
uvec4 raw[DEPTH * LOADS];
uint scale[DEPTH * LOADS], bias[DEPTH * LOADS];
uvec4 x_raw[X_LOADS];
uint warp_k, warp_row, row, quad; /* row, quad: of an invocation's first block of a step */
uint first_token, n_tokens;
coopmat<float, gl_ScopeSubgroup, MAT_M, MAT_N, gl_MatrixUseAccumulator> sums[MATS_M * MATS_N];

/* Beyond K there is only x of 0. */
uint block_of(uint round, uint d)
{
    uint step_ = (round * WARPS_K + warp_k) * DEPTH + d;
    return min(step_ * GEMM_FEW_BLOCKS + quad, BLOCKS - 1);
}

/* What is added to an address here is constant. */
void load_w(uint round, uint d)
{
    uint block = block_of(round, d);
    uint first_pair = scale_index(row, COLS, block) / 2 * 4;
    U32x4 from = U32x4(advance(uvec2(p.data), (row * BLOCKS + block) * 16));
    U32 scales = U32(advance(uvec2(p.scale), first_pair));
    U32 biases = U32(advance(uvec2(p.bias), AFFINE != 0 ? first_pair : 0));
    [[unroll]] for (uint i = 0; i < LOADS; i++) {
        raw[d * LOADS + i] = from.v[i * LOAD_ROWS * BLOCKS];
        scale[d * LOADS + i] = scales.v[i * LOAD_ROWS * SCALES / 2];
        if (AFFINE != 0) {
            bias[d * LOADS + i] = biases.v[i * LOAD_ROWS * SCALES / 2];
        }
    }
}

void load_x(uint round)
{
    [[unroll]] for (uint i = 0; i < X_LOADS; i++) {
        uint at = i * WG + gl_LocalInvocationID.x;
        uint token = first_token + at / (STEPS * STEP_VECS);
        uint vec = round * STEPS * STEP_VECS + at % (STEPS * STEP_VECS);
        x_raw[i] = uvec4(0);
        if (at < X_VECS && token < n_tokens && vec < COLS / 8) {
            x_raw[i] = p.x.v[token * (COLS / 8) + vec];
        }
    }
}

void store_x(uint buffer_)
{
    [[unroll]] for (uint i = 0; i < X_LOADS; i++) {
        uint at = i * WG + gl_LocalInvocationID.x;
        uint token = at / (STEPS * STEP_VECS), vec = at % (STEPS * STEP_VECS);
        uint to = buffer_ * X_TILE + vec / STEP_VECS * X_STEP + token * STRIDE;
        if (at < X_VECS) {
#ifdef DIRECT
            /* Two runs of a block; a matrix has a run of each of the four, half by half. */
            uint in_step = vec % STEP_VECS, block = in_step / (BLOCK / 8);
            to += in_step % (BLOCK / 8) * 4;
            [[unroll]] for (uint half_ = 0; half_ < 4; half_++) {
                tile[to + half_][block] = x_raw[i][half_];
            }
#else
            tile[to + vec % STEP_VECS] = x_raw[i];
#endif
        }
    }
}

f16vec2 affine_of(uint round, uint d, uint i)
{
    bool is_odd = scale_index(row, COLS, block_of(round, d)) % 2 != 0;
    f16vec2 s = unpackFloat2x16(scale[d * LOADS + i]);
    f16vec2 b = unpackFloat2x16(bias[d * LOADS + i]);
    return is_odd ? f16vec2(s.y, b.y) : f16vec2(s.x, b.x);
}

/* Elements 0 and 2 of run `run` of a block, or 1 and 3 of it. */
uint pair_of(uvec4 block, f16vec2 affine, uint run, bool odd)
{
    uint word = odd ? block[run % 4] >> 8 : block[run % 4];
    uint pair;
    if (TYPE == WEIGHT_Q8) {
        pair = bytes(word, affine);
    } else if (run < 4) {
        pair = low(word, affine);
    } else {
        pair = high(word, affine);
    }
    return pair;
}

#ifdef DIRECT
f16vec2 affine[LOADS];

/* What an invocation has of matrix m as its elements 2 * pair and the next, as ORDER says. */
f16vec2 elements(uint d, uint m, uint run, uint pair)
{
    uint i = 2 * m + (ORDER >> 2 * pair & ORDER_LOWER);
    return unpackFloat2x16(pair_of(raw[d * LOADS + i], affine[i], run, (ORDER >> 2 * pair & ORDER_ODD) != 0));
}

/* Run `run` of all blocks. */
void multiply(uint d, uint run, uint x_at)
{
    coopmat<float16_t, gl_ScopeSubgroup, MAT_M, MAT_K, gl_MatrixUseA> a[MATS_M];
    [[unroll]] for (uint m = 0; m < MATS_M; m++) {
        [[unroll]] for (uint pair = 0; pair < 4; pair++) {
            f16vec2 both = elements(d, m, run, pair);
            a[m][2 * pair] = both.x;
            a[m][2 * pair + 1] = both.y;
        }
    }
    [[unroll]] for (uint n = 0; n < MATS_N; n++) {
        coopmat<float16_t, gl_ScopeSubgroup, MAT_K, MAT_N, gl_MatrixUseB> b;
        coopMatLoad(b, tile, x_at + n * MAT_N * STRIDE + 2 * run, STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
        [[unroll]] for (uint m = 0; m < MATS_M; m++) {
            sums[n * MATS_M + m] = coopMatMulAdd(a[m], b, sums[n * MATS_M + m]);
        }
    }
}

/* Not a loop: glslc's optimizer would leave it as one. */
void multiply_four(uint d, uint first_run, uint x_at)
{
    multiply(d, first_run, x_at);
    multiply(d, first_run + 1, x_at);
    multiply(d, first_run + 2, x_at);
    multiply(d, first_run + 3, x_at);
}

void use_step(uint round, uint d, uint x_at, bool goes_on)
{
    [[unroll]] for (uint i = 0; i < LOADS; i++) {
        affine[i] = affine_of(round, d, i);
    }
    multiply_four(d, 0, x_at);
    if (VECS == 8) {
        multiply_four(d, 4, x_at);
    }
    if (goes_on) {
        load_w(round + 1, d);
    }
}
#else
void store_w(uint round, uint d)
{
    uint lane = gl_SubgroupInvocationID;
    [[unroll]] for (uint i = 0; i < LOADS; i++) {
        uint to = gl_SubgroupID * W_TILE + (i * LOAD_ROWS + lane / GEMM_FEW_BLOCKS) * STRIDE + quad * BLOCK / 8;
        uvec4 block = raw[d * LOADS + i];
        f16vec2 a = affine_of(round, d, i);
        [[unroll]] for (uint run = 0; run < 8; run += 2) {
            if (run < VECS) {
                w_tile[to + run / 2] = uvec4(pair_of(block, a, run, false), pair_of(block, a, run, true),
                                             pair_of(block, a, run + 1, false), pair_of(block, a, run + 1, true));
            }
        }
    }
}

void subgroup_barrier()
{
    controlBarrier(gl_ScopeSubgroup, gl_ScopeSubgroup, gl_StorageSemanticsShared, gl_SemanticsAcquireRelease);
}

void use_step(uint round, uint d, uint x_at, bool goes_on)
{
    store_w(round, d);
    if (goes_on) {
        load_w(round + 1, d);
    }
    subgroup_barrier();
    [[unroll]] for (uint k = 0; k < STEP_K; k += MAT_K) {
        coopmat<float16_t, gl_ScopeSubgroup, MAT_M, MAT_K, gl_MatrixUseA> a[MATS_M];
        [[unroll]] for (uint m = 0; m < MATS_M; m++) {
            coopMatLoad(a[m], w_tile, gl_SubgroupID * W_TILE + m * MAT_M * STRIDE + k / 8, STRIDE,
                        gl_CooperativeMatrixLayoutRowMajor);
        }
        [[unroll]] for (uint n = 0; n < MATS_N; n++) {
            coopmat<float16_t, gl_ScopeSubgroup, MAT_K, MAT_N, gl_MatrixUseB> b;
            coopMatLoad(b, tile, x_at + n * MAT_N * STRIDE + k / 8, STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
            [[unroll]] for (uint m = 0; m < MATS_M; m++) {
                sums[n * MATS_M + m] = coopMatMulAdd(a[m], b, sums[n * MATS_M + m]);
            }
        }
    }
    subgroup_barrier();
}
#endif

void use_round(uint round, uint buffer_, bool goes_on)
{
    [[unroll]] for (uint d = 0; d < DEPTH; d++) {
        use_step(round, d, buffer_ * X_TILE + (warp_k * DEPTH + d) * X_STEP, goes_on);
    }
}

/* The subgroups' sums to shared memory, and from there, added up, to y from row `first` on. */
void write(uint tile_row, uint first)
{
    [[unroll]] for (uint n = 0; n < MATS_N; n++) {
        [[unroll]] for (uint m = 0; m < MATS_M; m++) {
            uint to = (warp_k * MATS_N + n) * MAT_N * SUM_STRIDE + (warp_row + m * MAT_M) / 4;
            coopMatStore(sums[n * MATS_M + m], tile, to, SUM_STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
        }
    }
    barrier();
    F32x4 y = F32x4(p.y);
    uint part = gl_WorkGroupID.z * p.part_floats;
    for (uint i = gl_LocalInvocationID.x; i < TOKENS * TILE_ROWS / 4; i += WG) {
        uint token = i / (TILE_ROWS / 4), four = i % (TILE_ROWS / 4), at_row = tile_row + 4 * four;
        if (first_token + token < n_tokens && at_row >= first) {
            vec4 sum = vec4(0.0);
            [[unroll]] for (uint k = 0; k < WARPS_K; k++) {
                sum += uintBitsToFloat(tile[(k * MATS_N * MAT_N + token) * SUM_STRIDE + four]);
            }
            uint at = part + (first_token + token) * p.y_rows + at_row - p.first;
            y.v[at / 4] = sum * p.power.v[(first_token + token) * POWER_COPIES];
        }
    }
}

void main()
{
    n_tokens = p.step_p.n;
    first_token = gl_WorkGroupID.x * TOKENS;
    if (first_token >= n_tokens) {
        return;
    }
    /* The last tile is moved up to where it is whole. */
    uint first = p.first + gl_WorkGroupID.y * TILE_ROWS;
    uint tile_row = min(first, p.rows - TILE_ROWS);
    warp_k = gl_SubgroupID % WARPS_K;
    warp_row = gl_SubgroupID / WARPS_K * ROWS;
    row = tile_row + warp_row + gl_SubgroupInvocationID / GEMM_FEW_BLOCKS;
    quad = gl_SubgroupInvocationID % GEMM_FEW_BLOCKS;
    [[unroll]] for (uint i = 0; i < MATS_M * MATS_N; i++) {
        sums[i] = coopmat<float, gl_ScopeSubgroup, MAT_M, MAT_N, gl_MatrixUseAccumulator>(0.0);
    }
    uint begin = ROUNDS * gl_WorkGroupID.z / gl_NumWorkGroups.z;
    uint end = ROUNDS * (gl_WorkGroupID.z + 1) / gl_NumWorkGroups.z;
    [[unroll]] for (uint d = 0; d < DEPTH; d++) {
        load_w(begin, d);
    }
    load_x(begin);
    if (BUFFERS == 2) {
        store_x(0);
        barrier();
    }
    [[dont_unroll]] for (uint round = begin; round < end; round++) {
        uint now = BUFFERS == 2 ? (round - begin) % 2 : 0;
        if (BUFFERS == 1) {
            store_x(0);
            barrier();
        }
        bool goes_on = round + 1 < end;
        if (goes_on) {
            load_x(round + 1);
        }
        use_round(round, now, goes_on);
        if (BUFFERS == 2 && goes_on) {
            store_x(1 - now);
        }
        barrier();
    }
    write(tile_row, first);
}
