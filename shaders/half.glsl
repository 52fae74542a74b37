/* SPDX-License-Identifier: MIT */
/*
 * Activations as gemm.glsl multiplies them: f16, each token scaled by a power of two so that its
 * largest element is within (1/2, 1] of 2^14 (Gemma 3's exceed f16 by orders of magnitude), and
 * elements 1 and 2 of four swapped.
 */

/* The power for a token whose largest element, without its sign, is top. */
int half_exponent(float top)
{
    int e;
    frexp(top, e); /* top is below 2^e */
    return clamp(14 - e, -126, 126);
}

float largest(vec4 v)
{
    vec4 a = abs(v);
    return max(max(a.x, a.y), max(a.z, a.w));
}

uvec2 half_of_four(vec4 v, float down)
{
    vec4 x = v * down;
    return uvec2(packHalf2x16(x.xz), packHalf2x16(x.yw));
}

void store_power(F32 power, uint token, int exponent)
{
    for (uint i = gl_LocalInvocationID.x; i < POWER_COPIES; i += WG) {
        power.v[token * POWER_COPIES + i] = ldexp(1.0, -exponent);
    }
}
