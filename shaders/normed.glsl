/* SPDX-License-Identifier: MIT */
/* The end of a norm: z = x * w * scale of a token, or its half form where a GEMM reads it next. For
 * push constants with NORMED_FIELDS. */
#include "half.glsl"

void store_normed(F32x4 x, F32x4R w, uint token, float scale)
{
    uint vecs = p.width / 4;
    uint first = token * vecs;
    if (p.as_half == 0) {
        for (uint i = gl_LocalInvocationID.x; i < vecs; i += WG) {
            p.z.v[first + i] = x.v[first + i] * w.v[i] * scale;
        }
        return;
    }
    float top = 0.0;
    for (uint i = gl_LocalInvocationID.x; i < vecs; i += WG) {
        top = max(top, largest(x.v[first + i] * w.v[i] * scale));
    }
    int e = half_exponent(workgroup_max(top));
    float down = ldexp(1.0, e);
    for (uint i = gl_LocalInvocationID.x; i < vecs; i += WG) {
        p.half_.v[first + i] = half_of_four(x.v[first + i] * w.v[i] * scale, down);
    }
    store_power(p.power, token, e);
}
