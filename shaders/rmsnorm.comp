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
    float sum = 0.0;
    [[unroll]] for (uint k = 0; k < EACH; k++) {
        uint i = vec_of(k);
        x[k] = i < VECS ? p.x.v[token * VECS + i] : vec4(0.0);
        w[k] = i < VECS ? p.w.v[i] : vec4(0.0);
        sum += dot(x[k], x[k]);
    }
    store_normed(token, inversesqrt(workgroup_add(sum) / float(WIDTH) + p.eps));
}
