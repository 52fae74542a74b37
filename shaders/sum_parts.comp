/* SPDX-License-Identifier: MIT */
/* What gemm.glsl left in parts, where its reader does not add them up; y of the grid is the token. */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "parts.glsl"

PUSH(SUM_PARTS_FIELDS);

void main()
{
    uint token = gl_WorkGroupID.y;
    uint row = gl_GlobalInvocationID.x;
    if (token >= p.step_p.n || row >= p.n_rows) {
        return;
    }
    p.y.v[token * p.y_rows + p.first + row] =
        sum_of_parts(p.parts, token * p.n_rows + row, p.n_parts, p.part_vecs);
}
