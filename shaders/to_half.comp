/* SPDX-License-Identifier: MIT */
/* The half form of what no kernel wrote in it. One workgroup per token. */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "half.glsl"

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
        top = max(top, largest(p.x.v[first + i]));
    }
    int e = half_exponent(workgroup_max(top));
    float down = ldexp(1.0, e);
    for (uint i = gl_LocalInvocationID.x; i < vecs; i += WG) {
        p.half_.v[first + i] = half_of_four(p.x.v[first + i], down);
    }
    store_power(p.power, token, e);
}
