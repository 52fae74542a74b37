/* SPDX-License-Identifier: MIT */
/* The parts of gemm.glsl's sums, added up in their order. */
vec4 sum_of_parts(F32x4R parts, uint at, uint n_parts, uint part_vecs)
{
    vec4 sum = parts.v[at];
    for (uint i = 1; i < n_parts; i++) {
        sum += parts.v[i * part_vecs + at];
    }
    return sum;
}
