/* SPDX-License-Identifier: MIT */
/* h = gelu_tanh(gate) * up, four elements per invocation; y of the grid is the token. */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "gelu.glsl"

PUSH(GEGLU_FIELDS);

void main()
{
    uint token = gl_WorkGroupID.y;
    uint i = gl_GlobalInvocationID.x;
    uint vecs = p.ffn / 4;
    if (token >= p.step_p.n || i >= vecs) {
        return;
    }
    vec4 gate = p.gate_up.v[token * 2 * vecs + i];
    vec4 up = p.gate_up.v[token * 2 * vecs + vecs + i];
    p.h.v[token * vecs + i] = gelu(gate) * up;
}
