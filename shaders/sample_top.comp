/* SPDX-License-Identifier: MIT */
/* The best token of each row; if nothing else is wanted (is_last), it is the one. */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "sample.glsl"

/* x: key, y: id */
uvec2 better(uvec2 a, uvec2 b)
{
    return a.x > b.x || (a.x == b.x && a.y < b.y) ? a : b;
}

uvec2 workgroup_best(uvec2 mine)
{
    barrier();
    scan[tid] = mine;
    for (uint n = WG / 2; n > 0; n /= 2) {
        barrier();
        if (tid < n) {
            scan[tid] = better(scan[tid], scan[tid + n]);
        }
    }
    barrier();
    return scan[0];
}

void main()
{
    start();
    uvec2 best = uvec2(0, SAMPLE_NONE);
    for (uint id = slice_begin + tid; id < slice_end; id += WG) {
        best = better(best, uvec2(key_at(id), id));
    }
    best = workgroup_best(best);
    uint parts = work_first + WORK_PARTS;
    if (tid == 0) {
        p.work.v[parts + gl_WorkGroupID.x * 2] = best.x;
        p.work.v[parts + gl_WorkGroupID.x * 2 + 1] = best.y;
    }
    if (!is_last_of_row()) {
        return;
    }
    best = uvec2(0, SAMPLE_NONE);
    for (uint i = tid; i < gl_NumWorkGroups.x; i += WG) {
        best = better(best, uvec2(p.work.v[parts + i * 2], p.work.v[parts + i * 2 + 1]));
    }
    best = workgroup_best(best);
    if (tid == 0) {
        p.work.v[work_first + WORK_TOP_KEY] = best.x;
        p.work.v[work_first + WORK_TOP_ID] = best.y;
        p.work.v[work_first + WORK_CUT_KEY] = 0; /* all are kept */
        p.work.v[work_first + WORK_CUT_TIES] = 0;
        if (p.is_last != 0) {
            emit(is_number(best.x) ? best.y : SAMPLE_NONE);
        }
    }
}
