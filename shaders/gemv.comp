/* SPDX-License-Identifier: MIT */
/*
 * y = w z for one token and an int4 or int8 matrix. z comes from what PROLOGUE says and is made by
 * every workgroup for itself: cheaper than another dispatch and the barrier before it.
 *
 * z is rounded to 16 bits per block (the elements of 16 bytes of weights), held in shared memory as
 * two signed bytes v = 256 * high + low, so that integer dot products do the work: their sums are
 * exact. The first weights are on their way while z is made. The grid is about as large as the
 * device.
 */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "weights.glsl"
#include "dot4.glsl"
#include "gelu.glsl"

layout(constant_id = SPEC_COLS) const uint the_COLS = 256;
const uint the_QUADS = 1;
layout(constant_id = SPEC_LANES) const uint the_LANES = 8;
layout(constant_id = SPEC_GEMV_ROWS) const uint the_ROWS = 2;
layout(constant_id = SPEC_UNROLL) const uint the_UNROLL = 1;
layout(constant_id = SPEC_PROLOGUE) const uint PROLOGUE = GEMV_PLAIN;
layout(constant_id = SPEC_GLU) const uint the_GLU = 0;

PUSH(GEMV_FIELDS);

#define INPUT(name)  the_##name
#define MATRIX(name) one_##name
#define FIRST_FOUR   (PROLOGUE == GEMV_LAST ? (p.step_p.n - 1) * the_CHUNKS : 0)
#define WRITES_X     (gl_WorkGroupID.x == 0)
#define HAS_Y        true
#define NORM_LATER   true
#define AHEAD        6
#define VEC4S_IN     F32x4R
#define VEC4S_OUT    F32x4
#define FLOATS_OUT   F32
#include "prologue.glsl"

shared uvec4 xq[2 * PLANES * the_BLOCKS]; /* [high, low][plane][block] */
shared uvec2 xmeta[the_BLOCKS];           /* scale, sum of v */

vec4 the_four_of(Input from, uint i)
{
    return from.x.v[FIRST_FOUR + i];
}

void the_put_block(uint block, uint word, uvec2 high, uvec2 low, float scale, int sum)
{
    uint at = word / 4 * the_BLOCKS + block, first = word % 4;
    xq[at][first] = high.x;
    xq[at + PLANES * the_BLOCKS][first] = low.x;
    if (word == 0) {
        xmeta[block] = uvec2(floatBitsToUint(scale), uint(sum));
    }
}

#define WORKER        me
#define WORKERS       WG
#define z_bytes(i)    xq[i]
#define z_meta(block) xmeta[block]
const uint one_COLS = the_COLS, one_LANES = the_LANES, one_ROWS = the_ROWS;
const uint one_UNROLL = the_UNROLL, one_NEAR = 0, one_GLU = the_GLU;
#include "gemv.glsl"

void main()
{
    me = gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
    Matrix w = Matrix(uvec2(p.data), uvec2(p.scale), uvec2(p.bias), p.units);
    one_gemv_begin(w);
    the_make_input(Input(p.x, p.y, p.post, p.next, p.x_out, p.eps));
    barrier();
    bool is_normed = PROLOGUE == GEMV_NORM || PROLOGUE == GEMV_ADD_NORM;
    one_gemv(w, is_normed ? the_norm_factor(1, p.eps) : 1.0, p.out_);
}
