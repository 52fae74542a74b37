/* SPDX-License-Identifier: MIT */
/* How fast the device reads: all of an array, for nothing. */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"

PUSH(READ_FIELDS);

const uint AT_ONCE = 8; /* loads under way per invocation */

void main()
{
    uint stride = gl_NumWorkGroups.x * WG;
    uvec4 sum = uvec4(0);
    for (uint i = gl_GlobalInvocationID.x; i < p.n; i += AT_ONCE * stride) {
        uvec4 x[AT_ONCE];
        [[unroll]] for (uint u = 0; u < AT_ONCE; u++) {
            x[u] = p.data.v[min(i + u * stride, p.n - 1)];
        }
        [[unroll]] for (uint u = 0; u < AT_ONCE; u++) {
            sum ^= x[u];
        }
    }
    /* what a compiler cannot know to be false almost always */
    if ((sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x9e3779b9u) {
        p.sink.v[0] = 1;
    }
}
