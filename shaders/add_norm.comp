/* SPDX-License-Identifier: MIT */
/*
 * x += rmsnorm(y) * post; z = rmsnorm(x) * next, or its half form: the end of one half of a layer and the start of
 * the next. One workgroup per token; an invocation reads back only what it wrote itself.
 */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

PUSH(ADD_NORM_FIELDS);

#include "normed.glsl"
#include "parts.glsl"

void main()
{
    uint token = gl_WorkGroupID.x;
    if (token >= p.step_p.n) {
        return;
    }
    uint vecs = p.width / 4;
    uint first = token * vecs;
    float sum = 0.0;
    for (uint i = gl_LocalInvocationID.x; i < vecs; i += WG) {
        vec4 y;
        if (p.n_parts > 0 && i >= p.first) {
            y = sum_of_parts(p.parts, token * p.n_rows + i - p.first, p.n_parts, p.part_vecs);
            p.y.v[first + i] = y;
        } else {
            y = p.y.v[first + i];
        }
        sum += dot(y, y);
    }
    float y_scale = inversesqrt(workgroup_add(sum) / float(p.width) + p.eps);
    sum = 0.0;
    for (uint i = gl_LocalInvocationID.x; i < vecs; i += WG) {
        vec4 x = p.x.v[first + i] + p.y.v[first + i] * p.post.v[i] * y_scale;
        p.x.v[first + i] = x;
        sum += dot(x, x);
    }
    float x_scale = inversesqrt(workgroup_add(sum) / float(p.width) + p.eps);
    store_normed(p.x, p.next, token, x_scale);
}
