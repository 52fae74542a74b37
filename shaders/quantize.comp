/* SPDX-License-Identifier: MIT */
/* The input of few.comp: prologue.glsl's z of each token, to memory. One workgroup per token. */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "weights.glsl"

layout(constant_id = SPEC_PROLOGUE) const uint PROLOGUE = GEMV_PLAIN;

PUSH(QUANTIZE_FIELDS);

#define FIRST_EIGHT (gl_WorkGroupID.x * EIGHTS)
#define WRITES_X    true
#include "prologue.glsl"

void put_block(uint block, uint word, uvec2 high, uvec2 low, float scale, int sum)
{
    uint at = gl_WorkGroupID.x * 2 * PLANES * BLOCKS + word / 4 * BLOCKS + block;
    p.xq.v[2 * at + word % 4 / 2] = high;
    p.xq.v[2 * (at + PLANES * BLOCKS) + word % 4 / 2] = low;
    if (word == 0) {
        p.meta.v[gl_WorkGroupID.x * BLOCKS + block] = uvec2(floatBitsToUint(scale), uint(sum));
    }
}

void main()
{
    if (gl_WorkGroupID.x >= p.step_p.n) {
        return;
    }
    me = gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
    make_input();
}
