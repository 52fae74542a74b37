/* SPDX-License-Identifier: MIT */
/* h = gelu_tanh(gate) * up, four elements per invocation; y of the grid is the token. */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

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
    /* x/2 (1 + tanh(u)) is x / (1 + exp(-2u)), without tanh's cancellation near -1. exp() must not
     * overflow: what it does then is the driver's choice. */
    vec4 u = 0.7978845608 * (gate + 0.044715 * gate * gate * gate);
    vec4 gelu = gate / (1.0 + exp(min(-2.0 * u, vec4(80.0))));
    p.h.v[token * vecs + i] = gelu * up;
}
