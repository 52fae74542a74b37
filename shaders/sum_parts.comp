/* SPDX-License-Identifier: MIT */
/* The parts of gemm.comp's sums, added up in their order; y of the grid is the token. */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

PUSH(SUM_PARTS_FIELDS);

void main()
{
    uint token = gl_WorkGroupID.y;
    uint row = gl_GlobalInvocationID.x;
    if (token >= p.step_p.n || row >= p.n_rows) {
        return;
    }
    uint at = token * p.n_rows + row;
    vec4 sum = p.parts.v[at];
    for (uint i = 1; i < p.n_parts; i++) {
        sum += p.parts.v[i * p.part_vecs + at];
    }
    p.y.v[token * p.y_rows + p.first + row] = sum;
}
