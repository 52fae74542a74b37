/* SPDX-License-Identifier: MIT */
/* h = gelu_tanh(gate) * up in its half form, for the GEMM that reads it next. One workgroup per token. */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "gelu.glsl"
#include "half.glsl"

layout(constant_id = SPEC_FFN) const uint FFN = 1024;

PUSH(GEGLU_HALF_FIELDS);

const uint VECS = FFN / 4;
const uint EACH = (VECS + WG - 1) / WG; /* of an invocation, kept until the largest is known */

void main()
{
    uint token = gl_WorkGroupID.x;
    if (token >= p.step_p.n) {
        return;
    }
    vec4 h[EACH];
    float top = 0.0;
    [[unroll]] for (uint k = 0; k < EACH; k++) {
        uint i = k * WG + gl_LocalInvocationID.x;
        h[k] = vec4(0.0);
        if (i < VECS) {
            vec4 gate = p.gate_up.v[token * 2 * VECS + i];
            h[k] = gelu(gate) * p.gate_up.v[token * 2 * VECS + VECS + i];
        }
        top = max(top, largest(h[k]));
    }
    int e = half_exponent(workgroup_max(top));
    float down = ldexp(1.0, e);
    [[unroll]] for (uint k = 0; k < EACH; k++) {
        uint i = k * WG + gl_LocalInvocationID.x;
        if (i < VECS) {
            p.half_.v[token * VECS + i] = half_of_four(h[k], down);
        }
    }
    store_power(p.power, token, e);
}
