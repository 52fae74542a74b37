/* SPDX-License-Identifier: MIT */
/*
 * x += rmsnorm(y) * post; z = rmsnorm(x) * next, or its half form: the end of one half of a layer and the start of
 * the next. One workgroup per token.
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
    uint first = token * VECS;
    vec4 y[EACH], post[EACH];
    float sum = 0.0;
    [[unroll]] for (uint k = 0; k < EACH; k++) {
        uint i = vec_of(k);
        bool exists = i < VECS;
        x[k] = exists ? p.x.v[first + i] : vec4(0.0);
        post[k] = exists ? p.post.v[i] : vec4(0.0);
        w[k] = exists ? p.next.v[i] : vec4(0.0);
        y[k] = vec4(0.0);
        if (exists && p.n_parts > 0 && i >= p.first) {
            y[k] = sum_of_parts(p.parts, token * p.n_rows + i - p.first, p.n_parts, p.part_vecs);
        } else if (exists) {
            y[k] = p.y.v[first + i];
        }
        sum += dot(y[k], y[k]);
    }
    float y_scale = inversesqrt(workgroup_add(sum) / float(WIDTH) + p.eps);
    sum = 0.0;
    [[unroll]] for (uint k = 0; k < EACH; k++) {
        x[k] += y[k] * post[k] * y_scale;
        sum += dot(x[k], x[k]);
        if (vec_of(k) < VECS) {
            p.x.v[first + vec_of(k)] = x[k];
        }
    }
    store_normed(token, inversesqrt(workgroup_add(sum) / float(WIDTH) + p.eps));
}
