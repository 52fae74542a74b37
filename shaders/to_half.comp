/* SPDX-License-Identifier: MIT */
/*
 * Activations as gemm.comp multiplies them: f16, each token scaled by a power of two so that its
 * largest element is within (1/2, 1] of 2^14. Gemma 3's activations exceed f16 by orders of
 * magnitude. Elements 1 and 2 of four are swapped, as gemm.glsl wants them. One workgroup per token.
 */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

PUSH(TO_HALF_FIELDS);

void main()
{
    uint token = gl_WorkGroupID.x;
    if (token >= p.step_p.n) {
        return;
    }
    uint vecs = p.width / 4;
    uint first = token * vecs;
    float top = 0.0;
    for (uint i = gl_LocalInvocationID.x; i < vecs; i += WG) {
        vec4 x = abs(p.x.v[first + i]);
        top = max(top, max(max(x.x, x.y), max(x.z, x.w)));
    }
    int e;
    frexp(workgroup_max(top), e); /* top is below 2^e */
    float down = ldexp(1.0, clamp(14 - e, -126, 126));
    for (uint i = gl_LocalInvocationID.x; i < vecs; i += WG) {
        vec4 x = p.x.v[first + i] * down;
        p.half_.v[first + i] = uvec2(packHalf2x16(x.xz), packHalf2x16(x.yw));
    }
    for (uint i = gl_LocalInvocationID.x; i < POWER_COPIES; i += WG) {
        p.power.v[token * POWER_COPIES + i] = ldexp(1.0, -clamp(14 - e, -126, 126));
    }
}
