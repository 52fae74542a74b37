/* SPDX-License-Identifier: MIT */
/* z = rmsnorm(x) * w, or its half form. One workgroup per token. */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

PUSH(RMSNORM_FIELDS);

#include "normed.glsl"

void main()
{
    uint token = gl_WorkGroupID.x;
    if (token >= p.step_p.n) {
        return;
    }
    uint vecs = p.width / 4;
    uint first = token * vecs;
    float sum = 0.0;
    for (uint i = gl_LocalInvocationID.x; i < vecs; i += WG) {
        vec4 x = p.x.v[first + i];
        sum += dot(x, x);
    }
    float scale = inversesqrt(workgroup_add(sum) / float(p.width) + p.eps);
    store_normed(p.x, p.w, token, scale);
}
