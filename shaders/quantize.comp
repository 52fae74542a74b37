/* SPDX-License-Identifier: MIT */
/* The input of few.comp: prologue.glsl's z of each token, to memory. One workgroup per token. */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "weights.glsl"

layout(constant_id = SPEC_COLS) const uint the_COLS = 256;
const uint the_QUADS = 1;
layout(constant_id = SPEC_PROLOGUE) const uint PROLOGUE = GEMV_PLAIN;

PUSH(QUANTIZE_FIELDS);

#define INPUT(name) the_##name
#define FIRST_FOUR  (gl_WorkGroupID.x * the_CHUNKS)
#define WRITES_X    true
#define HAS_Y       true
#define NORM_LATER  false
#define AHEAD        6
#define VEC4S_IN    F32x4R
#define VEC4S_OUT   F32x4
#include "prologue.glsl"

vec4 the_four_of(Input from, uint i)
{
    return from.x.v[FIRST_FOUR + i];
}

void the_put_block(uint block, uint word, uvec2 high, uvec2 low, float scale, int sum)
{
    uint at = gl_WorkGroupID.x * 2 * PLANES * the_BLOCKS + word / 4 * the_BLOCKS + block;
    p.xq.v[4 * at + word % 4] = high.x;
    p.xq.v[4 * (at + PLANES * the_BLOCKS) + word % 4] = low.x;
    if (word == 0) {
        p.meta.v[gl_WorkGroupID.x * the_BLOCKS + block] = uvec2(floatBitsToUint(scale), uint(sum));
    }
}

void main()
{
    if (gl_WorkGroupID.x >= p.step_p.n) {
        return;
    }
    me = gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
    the_make_input(Input(p.x, p.y, p.post, p.next, p.x_out, p.eps));
}
