/* SPDX-License-Identifier: MIT */
/*
 * softmax(q k^T) v for one head (x of the grid) and token (y), over the positions that the token
 * sees: online softmax over blocks of WG keys, one key per invocation for the scores, invocations
 * along the head's dimension for the values.
 */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

#define HEAD_DIM_MAX 256

layout(constant_id = SPEC_MANY) const uint MANY = 0;

PUSH(ATTENTION_FIELDS);
#include "timeline.glsl"

shared vec4 query[HEAD_DIM_MAX / 4]; /* padded with zeros to row_halfs */
shared vec2 result[HEAD_DIM_MAX / 2];
shared float weight[WG];

float score(U32x4 keys, uint row)
{
    uint vecs = p.row_halfs / 8;
    float sum = 0.0;
    for (uint i = 0; i < vecs; i++) {
        uvec4 k = keys.v[row * vecs + i];
        sum += dot(query[2 * i], vec4(unpackHalf2x16(k.x), unpackHalf2x16(k.y)));
        sum += dot(query[2 * i + 1], vec4(unpackHalf2x16(k.z), unpackHalf2x16(k.w)));
    }
    return sum;
}

/* result = result * keep + sum over keys of weight * v, keys from a ring slot on. */
void add_values(U32 values, float keep, uint first_row, uint slot, uint ring, uint n_keys)
{
    uint row_words = p.row_halfs / 2;
    uint before_wrap = min(n_keys, ring - slot);
    for (uint pair = gl_LocalInvocationID.x; pair < p.head_dim / 2; pair += WG) {
        vec2 acc = result[pair] * keep;
        uint word = (first_row + slot) * row_words + pair;
        for (uint j = 0; j < before_wrap; j++) {
            acc += weight[j] * unpackHalf2x16(values.v[word + j * row_words]);
        }
        word = first_row * row_words + pair;
        for (uint j = before_wrap; j < n_keys; j++) {
            acc += weight[j] * unpackHalf2x16(values.v[word + (j - before_wrap) * row_words]);
        }
        result[pair] = acc;
    }
}

void main()
{
    uint token = gl_WorkGroupID.y;
    if (token >= p.step_p.n) {
        return;
    }
    uint lane = gl_LocalInvocationID.x;
    uint head = gl_WorkGroupID.x;
    Timeline timeline = timeline_of(token);
    uint ring = timeline.kv.ring;
    U32x4 keys = MANY != 0 ? U32x4(timeline.kv.k) : p.k;
    U32 values = MANY != 0 ? U32(timeline.kv.v) : p.v;
    uint end = timeline.pos + 1; /* keys [begin, end) are seen */
    uint begin = p.window != 0 && end > p.window ? end - p.window : 0;
    uint q_first = (token * gl_NumWorkGroups.x + head) * p.head_dim;
    uint first_row = head / p.heads_per_kv * ring;

    for (uint i = lane; i < p.row_halfs / 4; i += WG) {
        vec4 q = vec4(0.0);
        for (uint c = 0; c < 4 && 4 * i + c < p.head_dim; c++) {
            q[c] = p.q.v[q_first + 4 * i + c];
        }
        query[i] = q;
    }
    for (uint i = lane; i < p.head_dim / 2; i += WG) {
        result[i] = vec2(0.0);
    }
    barrier();

    float top = -3.0e38; /* the largest score so far; the same in every invocation */
    float total = 0.0;   /* of this invocation's keys, relative to top */
    for (uint j = begin; j < end; j += WG) {
        uint n_keys = min(WG, end - j);
        uint slot = j % ring;
        float s = -3.0e38;
        if (lane < n_keys) {
            uint mine = slot + lane;
            s = score(keys, first_row + (mine < ring ? mine : mine - ring));
        }
        float new_top = max(top, workgroup_max(s));
        float e = lane < n_keys ? exp(s - new_top) : 0.0;
        float keep = exp(top - new_top);
        top = new_top;
        total = total * keep + e;
        weight[lane] = e;
        barrier();
        add_values(values, keep, first_row, slot, ring, n_keys);
        barrier();
    }
    total = workgroup_add(total);
    for (uint i = lane; i < p.head_dim / 2; i += WG) {
        vec2 pair = result[i] / total;
        p.att.v[q_first + 2 * i] = pair.x;
        p.att.v[q_first + 2 * i + 1] = pair.y;
    }
}
