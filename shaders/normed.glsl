/* SPDX-License-Identifier: MIT */
/* The end of a norm: z = x * w * scale of a token, or its half form where a GEMM reads it next. For
 * push constants with NORMED_FIELDS. The token's row is in its workgroup's registers. */
#extension GL_EXT_control_flow_attributes : require
#include "half.glsl"

layout(constant_id = SPEC_WIDTH) const uint WIDTH = 256;

const uint VECS = WIDTH / 4;
const uint EACH = (VECS + WG - 1) / WG; /* of an invocation */

vec4 x[EACH], w[EACH];

uint vec_of(uint k)
{
    return k * WG + gl_LocalInvocationID.x;
}

void store_normed(uint token, float scale)
{
    uint first = token * VECS;
    float top = 0.0;
    [[unroll]] for (uint k = 0; k < EACH; k++) {
        x[k] *= w[k] * scale;
        top = max(top, largest(x[k]));
        if (p.as_half == 0 && vec_of(k) < VECS) {
            p.z.v[first + vec_of(k)] = x[k];
        }
    }
    if (p.as_half == 0) {
        return;
    }
    int e = half_exponent(workgroup_max(top));
    float down = ldexp(1.0, e);
    [[unroll]] for (uint k = 0; k < EACH; k++) {
        if (vec_of(k) < VECS) {
            p.half_.v[first + vec_of(k)] = half_of_four(x[k], down);
        }
    }
    store_power(p.power, token, e);
}
