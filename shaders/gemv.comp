/* SPDX-License-Identifier: MIT */
/*
 * y = w z for one token and an int4 or int8 matrix. z comes from what PROLOGUE says and is made by
 * every workgroup for itself: cheaper than another dispatch and the barrier before it.
 *
 * z is rounded to 16 bits per block (the elements of 16 bytes of weights), held in shared memory as
 * two signed bytes v = 256 * high + low, so that integer dot products do the work: their sums are
 * exact. A row is read by LANES neighbouring invocations, ROWS rows at once, UNROLL blocks of each;
 * the next loads are under way while the last are used, the first before z is made. The grid is
 * about as large as the device; a workgroup goes on to rows further down.
 */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "weights.glsl"
#include "dot4.glsl"
#include "gelu.glsl"

layout(constant_id = SPEC_LANES) const uint LANES = 8;
layout(constant_id = SPEC_GEMV_ROWS) const uint ROWS = 2;
layout(constant_id = SPEC_UNROLL) const uint UNROLL = 1;
layout(constant_id = SPEC_PROLOGUE) const uint PROLOGUE = GEMV_PLAIN;
layout(constant_id = SPEC_GLU) const uint GLU = 0;

PUSH(GEMV_FIELDS);

#define FIRST_EIGHT (PROLOGUE == GEMV_LAST ? (p.step_p.n - 1) * EIGHTS : 0)
#define WRITES_X    (gl_WorkGroupID.x == 0)
#include "prologue.glsl"

const uint MATS = GLU != 0 ? 2 : 1;  /* the gate's row and the up's */
const uint LOADS = MATS * ROWS * UNROLL;
const uint STEPS = (BLOCKS + LANES * UNROLL - 1) / (LANES * UNROLL);
const bool EVEN = BLOCKS % (LANES * UNROLL) == 0;

shared uvec4 xq[2 * PLANES * BLOCKS]; /* [high, low][plane][block] */
shared uvec2 xmeta[BLOCKS];           /* scale, sum of v */

uint lane; /* of a row */

/* Raw weights and the words that hold their scales and biases: in use, and under way. Globals,
 * because glslc's optimizer cannot copy arrays of specialized sizes. */
uvec4 raw[LOADS], next_raw[LOADS];
uint scale[LOADS], next_scale[LOADS];
uint bias[LOADS], next_bias[LOADS];
float acc[ROWS * MATS];

uint row_of(uint unit, uint mat)
{
    return min(unit, p.units - 1) + mat * p.units;
}

void load(uint first_unit, uint s)
{
    [[unroll]] for (uint u = 0; u < UNROLL; u++) {
        uint block = (s * UNROLL + u) * LANES + lane;
        if (EVEN || block < BLOCKS) {
            [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
                uint row = row_of(first_unit + r / MATS, r % MATS);
                uint at = u * ROWS * MATS + r;
                next_raw[at] = p.data.v[row * BLOCKS + block];
                next_scale[at] = p.scale.v[scale_index(row, COLS, block) / 2];
                if (AFFINE != 0) {
                    next_bias[at] = p.bias.v[scale_index(row, COLS, block) / 2];
                }
            }
        }
    }
}

uvec4 block_x[4]; /* high planes, low planes */

/* Sum over a block of q * v. */
int block_dot(uvec4 w)
{
    int high = 0, low = 0;
    [[unroll]] for (uint i = 0; i < 4; i++) {
        if (TYPE == WEIGHT_Q4) {
            uint a = w[i] & 0x0f0f0f0fu, b = (w[i] >> 4) & 0x0f0f0f0fu;
            high += dot4(a, block_x[0][i]) + dot4(b, block_x[1][i]);
            low += dot4(a, block_x[2][i]) + dot4(b, block_x[3][i]);
        } else {
            high += dot4(w[i], block_x[0][i]);
            low += dot4(w[i], block_x[PLANES][i]);
        }
    }
    return 256 * high + low;
}

void take()
{
    [[unroll]] for (uint i = 0; i < LOADS; i++) {
        raw[i] = next_raw[i];
        scale[i] = next_scale[i];
        bias[i] = next_bias[i];
    }
}

void multiply(uint first_unit, uint s)
{
    [[unroll]] for (uint u = 0; u < UNROLL; u++) {
        uint block = (s * UNROLL + u) * LANES + lane;
        if (EVEN || block < BLOCKS) {
            uvec2 meta = xmeta[block];
            float x_scale = uintBitsToFloat(meta.x);
            int x_sum = int(meta.y);
            [[unroll]] for (uint i = 0; i < 2 * PLANES; i++) {
                block_x[i] = xq[i * BLOCKS + block];
            }
            [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
                uint row = row_of(first_unit + r / MATS, r % MATS);
                uint at = u * ROWS * MATS + r;
                uint i = scale_index(row, COLS, block);
                int d = block_dot(raw[at]);
                float w_scale = half_of(scale[at], i);
                if (AFFINE != 0) {
                    acc[r] += x_scale * (w_scale * float(d) + half_of(bias[at], i) * float(x_sum));
                } else {
                    d -= TYPE == WEIGHT_Q4 ? 8 * x_sum : 0;
                    acc[r] += w_scale * (x_scale * float(d));
                }
            }
        }
    }
}

/* To shared memory. */
void put_block(uint block, uint word, uvec2 high, uvec2 low, float scale, int sum)
{
    uint at = word / 4 * BLOCKS + block;
    xq[at][word % 4] = high.x;
    xq[at][word % 4 + 1] = high.y;
    xq[at + PLANES * BLOCKS][word % 4] = low.x;
    xq[at + PLANES * BLOCKS][word % 4 + 1] = low.y;
    if (word == 0) {
        xmeta[block] = uvec2(floatBitsToUint(scale), uint(sum));
    }
}

void main()
{
    me = gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
    lane = me % LANES;
    /* Neighbouring rows go to different workgroups, so that all have equally many. */
    uint unit = (me / LANES * gl_NumWorkGroups.x + gl_WorkGroupID.x) * ROWS;
    uint stride = WG / LANES * gl_NumWorkGroups.x * ROWS;

    load(unit, 0);
    make_input();
    barrier();

    for (; unit < p.units; unit += stride) {
        [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
            acc[r] = 0.0;
        }
        for (uint s = 0; s < STEPS; s++) {
            take();
            bool goes_on = s + 1 < STEPS;
            if (goes_on || unit + stride < p.units) {
                load(goes_on ? unit : unit + stride, goes_on ? s + 1 : 0);
            }
            multiply(unit, s);
        }
        [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
            [[unroll]] for (uint x = 1; x < LANES; x *= 2) {
                acc[r] += subgroupShuffleXor(acc[r], x);
            }
        }
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            if (lane == r % LANES && unit + r < p.units) {
                p.out_.v[unit + r] = GLU != 0 ? gelu(acc[MATS * r]) * acc[MATS * r + MATS - 1] : acc[r];
            }
        }
    }
}
