/* SPDX-License-Identifier: MIT */
/*
 * y = w z for a few tokens and an int4 or int8 matrix, whose weights are read and unpacked once for
 * all of them: between gemv.comp, whose arithmetic this is, and gemm.comp. z is what quantize.comp
 * made. A workgroup has ROWS rows for every LANES invocations and goes along K in tiles of UNROLL *
 * LANES blocks: the tokens' z of a tile is in shared memory, and the next tile's weights and z are
 * under way while it is used. x of the grid: TOKENS tokens each, next to each other so that
 * they find the weights in a cache; y: rows.
 */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "weights.glsl"
#include "dot4.glsl"
#include "gelu.glsl"

layout(constant_id = SPEC_COLS) const uint COLS = 256;
layout(constant_id = SPEC_LANES) const uint LANES = 8;
layout(constant_id = SPEC_GEMV_ROWS) const uint ROWS = 2;
layout(constant_id = SPEC_UNROLL) const uint UNROLL = 1;
layout(constant_id = SPEC_FEW_TOKENS) const uint TOKENS = 8;
layout(constant_id = SPEC_GLU) const uint GLU = 0;

PUSH(FEW_FIELDS);

const uint BLOCKS = COLS / BLOCK;
const uint PLANES = 2 * (BLOCK / 16); /* uvec4 of high and of low bytes of a block */
const uint MATS = GLU != 0 ? 2 : 1;   /* the gate's row and the up's */
const uint ALL_ROWS = ROWS * MATS;
const uint TILE = LANES * UNROLL; /* blocks */
const uint TILES = (BLOCKS + TILE - 1) / TILE;
const bool EVEN = BLOCKS % TILE == 0;
const uint TILE_VECS = TOKENS * PLANES * TILE;
const uint VECS_MINE = (TILE_VECS + WG - 1) / WG;
const uint TILE_METAS = TOKENS * TILE;
const uint METAS_MINE = (TILE_METAS + WG - 1) / WG;

shared uvec4 xq[TILE_VECS];      /* [token][plane][block] */
shared uvec2 xmeta[TILE_METAS];  /* [token][block]: scale, sum of v */

uint lane; /* of a row */
uint first_token;

/* The tile in use, and the one under way. Globals, because glslc's optimizer cannot copy arrays of
 * specialized sizes. */
uvec4 raw[UNROLL * ALL_ROWS], next_raw[UNROLL * ALL_ROWS];
uint scale[UNROLL * ALL_ROWS], next_scale[UNROLL * ALL_ROWS];
uint bias[UNROLL * ALL_ROWS], next_bias[UNROLL * ALL_ROWS];
uvec4 next_x[VECS_MINE];
uvec2 next_meta[METAS_MINE];
float acc[ALL_ROWS * TOKENS];
uvec4 q_low[ALL_ROWS], q_high[ALL_ROWS]; /* a block's elements in bytes; q_high: int4's second half */

uint row_of(uint unit, uint mat)
{
    return min(unit, p.units - 1) + mat * p.units;
}

void load(uint first_unit, uint s)
{
    [[unroll]] for (uint u = 0; u < UNROLL; u++) {
        uint block = s * TILE + u * LANES + lane;
        if (EVEN || block < BLOCKS) {
            [[unroll]] for (uint r = 0; r < ALL_ROWS; r++) {
                uint row = row_of(first_unit + r / MATS, r % MATS);
                uint at = u * ALL_ROWS + r, i = scale_index(row, COLS, block);
                next_raw[at] = p.data.v[row * BLOCKS + block];
                next_scale[at] = p.scale.v[i / 2];
                if (AFFINE != 0) {
                    next_bias[at] = p.bias.v[i / 2];
                }
            }
        }
    }
    [[unroll]] for (uint j = 0; j < VECS_MINE; j++) {
        uint i = j * WG + gl_LocalInvocationID.x, block = s * TILE + i % TILE;
        if (i < TILE_VECS && (EVEN || block < BLOCKS)) {
            next_x[j] = p.xq.v[(first_token * PLANES + i / TILE) * BLOCKS + block];
        }
    }
    [[unroll]] for (uint j = 0; j < METAS_MINE; j++) {
        uint i = j * WG + gl_LocalInvocationID.x, block = s * TILE + i % TILE;
        if (i < TILE_METAS && (EVEN || block < BLOCKS)) {
            next_meta[j] = p.meta.v[(first_token + i / TILE) * BLOCKS + block];
        }
    }
}

/* What was under way is the tile in use. */
void take()
{
    [[unroll]] for (uint i = 0; i < UNROLL * ALL_ROWS; i++) {
        raw[i] = next_raw[i];
        scale[i] = next_scale[i];
        bias[i] = next_bias[i];
    }
    [[unroll]] for (uint j = 0; j < VECS_MINE; j++) {
        uint i = j * WG + gl_LocalInvocationID.x;
        if (i < TILE_VECS) {
            xq[i] = next_x[j];
        }
    }
    [[unroll]] for (uint j = 0; j < METAS_MINE; j++) {
        uint i = j * WG + gl_LocalInvocationID.x;
        if (i < TILE_METAS) {
            xmeta[i] = next_meta[j];
        }
    }
}

/* Sums over a block of row r of q times a token's high and low bytes. */
ivec2 block_dot(uint r, uint first_vec)
{
    ivec2 sum = ivec2(0);
    if (TYPE == WEIGHT_Q4) {
        uvec4 h0 = xq[first_vec], h1 = xq[first_vec + TILE];
        uvec4 l0 = xq[first_vec + 2 * TILE], l1 = xq[first_vec + 3 * TILE];
        [[unroll]] for (uint i = 0; i < 4; i++) {
            sum.x += dot4(q_low[r][i], h0[i]) + dot4(q_high[r][i], h1[i]);
            sum.y += dot4(q_low[r][i], l0[i]) + dot4(q_high[r][i], l1[i]);
        }
    } else {
        uvec4 h = xq[first_vec], l = xq[first_vec + TILE];
        [[unroll]] for (uint i = 0; i < 4; i++) {
            sum.x += dot4(q_low[r][i], h[i]);
            sum.y += dot4(q_low[r][i], l[i]);
        }
    }
    return sum;
}

/* Block u of the tile: its rows times all tokens. */
void multiply_block(uint first_unit, uint block, uint u)
{
    float w_scale[ALL_ROWS], w_bias[ALL_ROWS];
    [[unroll]] for (uint r = 0; r < ALL_ROWS; r++) {
        uint at = u * ALL_ROWS + r;
        uint i = scale_index(row_of(first_unit + r / MATS, r % MATS), COLS, block);
        w_scale[r] = half_of(scale[at], i);
        w_bias[r] = AFFINE != 0 ? half_of(bias[at], i) : 0.0;
        q_low[r] = TYPE == WEIGHT_Q4 ? raw[at] & 0x0f0f0f0fu : raw[at];
        q_high[r] = (raw[at] >> 4) & 0x0f0f0f0fu;
    }
    [[unroll]] for (uint t = 0; t < TOKENS; t++) {
        uvec2 meta = xmeta[t * TILE + u * LANES + lane];
        float x_scale = uintBitsToFloat(meta.x);
        int x_sum = int(meta.y);
        [[unroll]] for (uint r = 0; r < ALL_ROWS; r++) {
            ivec2 sums = block_dot(r, t * PLANES * TILE + u * LANES + lane);
            int d = 256 * sums.x + sums.y;
            uint at = r * TOKENS + t;
            if (AFFINE != 0) {
                acc[at] += x_scale * (w_scale[r] * float(d) + w_bias[r] * float(x_sum));
            } else {
                d -= TYPE == WEIGHT_Q4 ? 8 * x_sum : 0;
                acc[at] += w_scale[r] * (x_scale * float(d));
            }
        }
    }
}

/* One invocation of a row has all of its sums: which one, is different for each result. */
void write(uint first_unit)
{
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        [[unroll]] for (uint t = 0; t < TOKENS; t++) {
            uint at = MATS * r * TOKENS + t, up = at + (MATS - 1) * TOKENS;
            bool is_mine = lane == (r * TOKENS + t) % LANES && first_unit + r < p.units &&
                           first_token + t < p.step_p.n;
            if (is_mine) {
                p.out_.v[(first_token + t) * p.units + first_unit + r] =
                    GLU != 0 ? gelu(acc[at]) * acc[up] : acc[at];
            }
        }
    }
}

void main()
{
    first_token = gl_WorkGroupID.x * TOKENS;
    if (first_token >= p.step_p.n) {
        return;
    }
    uint me = gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
    lane = me % LANES;
    uint unit = (gl_WorkGroupID.y * (WG / LANES) + me / LANES) * ROWS;
    [[unroll]] for (uint i = 0; i < ALL_ROWS * TOKENS; i++) {
        acc[i] = 0.0;
    }
    load(unit, 0);
    for (uint s = 0; s < TILES; s++) {
        barrier();
        take();
        barrier();
        if (s + 1 < TILES) {
            load(unit, s + 1);
        }
        [[unroll]] for (uint u = 0; u < UNROLL; u++) {
            uint block = s * TILE + u * LANES + lane;
            if (EVEN || block < BLOCKS) {
                multiply_block(unit, block, u);
            }
        }
    }
    [[unroll]] for (uint i = 0; i < ALL_ROWS * TOKENS; i++) {
        [[unroll]] for (uint x = 1; x < LANES; x *= 2) {
            acc[i] += subgroupShuffleXor(acc[i], x);
        }
    }
    write(unit);
}
