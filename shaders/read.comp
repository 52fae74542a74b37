/* SPDX-License-Identifier: MIT */
/*
 * How fast the device reads: all of an array, for nothing. In each step the workgroups read runs that
 * lie next to each other, so that what is under way at a time is a window of a few MB that moves
 * through memory: reading all over a large array at once costs more than the memory does.
 */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"

PUSH(READ_FIELDS);

void main()
{
    const uint run = WG * READ_AT_ONCE;
    uint first = gl_WorkGroupID.x * run + gl_LocalInvocationID.x;
    uvec4 sum = uvec4(0);
    for (uint step = 0; step < p.steps; step++) {
        uvec4 x[READ_AT_ONCE];
        [[unroll]] for (uint u = 0; u < READ_AT_ONCE; u++) {
            x[u] = p.data.v[min(first + u * WG, p.n - 1)];
        }
        [[unroll]] for (uint u = 0; u < READ_AT_ONCE; u++) {
            sum ^= x[u];
        }
        first += gl_NumWorkGroups.x * run;
    }
    /* what a compiler cannot know to be false almost always */
    if ((sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x9e3779b9u) {
        p.sink.v[0] = 1;
    }
}
