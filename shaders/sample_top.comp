/* SPDX-License-Identifier: MIT */
/* The best token of each row; if nothing else is wanted (is_last), it is the one. */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "sample.glsl"

/* x: key, y: id */
uvec2 better(uvec2 a, uvec2 b)
{
    return a.x > b.x || (a.x == b.x && a.y < b.y) ? a : b;
}

uvec2 subgroup_best(uvec2 mine)
{
    uint key = subgroupMax(mine.x);
    return uvec2(key, subgroupMin(mine.x == key ? mine.y : SAMPLE_NONE));
}

uvec2 workgroup_best(uvec2 mine)
{
    mine = subgroup_best(mine);
    barrier();
    if (subgroupElect()) {
        scan[gl_SubgroupID] = mine;
    }
    barrier();
    mine = uvec2(0, SAMPLE_NONE);
    for (uint i = gl_SubgroupInvocationID; i < gl_NumSubgroups; i += gl_SubgroupSize) {
        mine = better(mine, scan[i]);
    }
    return subgroup_best(mine);
}

void main()
{
    start();
    uvec2 best = uvec2(0, SAMPLE_NONE);
    const uint at_once = 8; /* are read before the first is used */
    for (uint first = slice_begin + tid; first < slice_end; first += at_once * WG) {
        float logits[at_once];
        [[unroll]] for (uint j = 0; j < at_once; j++) {
            uint id = first + j * WG;
            logits[j] = id < slice_end ? p.logits.v[row_first + id] : 0.0;
        }
        [[unroll]] for (uint j = 0; j < at_once; j++) {
            uint id = first + j * WG;
            if (id < slice_end) {
                best = better(best, uvec2(key_from(id, logits[j]), id));
            }
        }
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
