/* SPDX-License-Identifier: MIT */
/* The parts of gemm.glsl's sums, added up in their order; some are read at once. */
#extension GL_EXT_control_flow_attributes : require

vec4 sum_of_parts(F32x4R parts, uint at, uint n_parts, uint part_vecs)
{
    const uint at_once = 4;
    vec4 sum = vec4(0.0);
    [[dont_unroll]] for (uint first = 0; first < n_parts; first += at_once) {
        vec4 part[at_once];
        [[unroll]] for (uint j = 0; j < at_once; j++) {
            part[j] = first + j < n_parts ? parts.v[(first + j) * part_vecs + at] : vec4(0.0);
        }
        [[unroll]] for (uint j = 0; j < at_once; j++) {
            sum += part[j];
        }
    }
    return sum;
}
