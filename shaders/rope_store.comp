/* SPDX-License-Identifier: MIT */
/*
 * From a row of QKV to a rotated, scaled q and to the KV cache: q and k heads are RMS-normed and
 * rotated (NeoX halves); k and v are stored as f16. One workgroup per head (q, then k, then v
 * heads: x of the grid) and token (y).
 */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "rotation.glsl"

#define HEAD_DIM_MAX 256

layout(constant_id = SPEC_MANY) const uint MANY = 0;

PUSH(ROPE_STORE_FIELDS);
#include "timeline.glsl"

shared float values[HEAD_DIM_MAX];

void norm_and_rotate(F32R w, uint in_first, uint pos, float factor)
{
    uint lane = gl_LocalInvocationID.x;
    float sum = 0.0;
    for (uint i = lane; i < p.head_dim; i += WG) {
        float value = p.qkv.v[in_first + i];
        sum += value * value;
    }
    float scale = factor * inversesqrt(workgroup_add(sum) / float(p.head_dim) + p.eps);
    uint half_dim = p.head_dim / 2;
    for (uint i = lane; i < half_dim; i += WG) {
        vec2 cs = rotation(pos, p.turns.v[i]);
        float a = p.qkv.v[in_first + i] * w.v[i] * scale;
        float b = p.qkv.v[in_first + half_dim + i] * w.v[half_dim + i] * scale;
        values[i] = a * cs.x - b * cs.y;
        values[half_dim + i] = b * cs.x + a * cs.y;
    }
}

/* values -> f16 pairs; the row's padding is zeroed. Beyond f16's range is clamped: an infinity in
 * the cache would make every later token NaN. */
void store_row(U32W cache, uint kv_head, uint slot, uint ring)
{
    uint first = (kv_head * ring + slot) * (p.row_halfs / 2);
    for (uint i = gl_LocalInvocationID.x; i < p.row_halfs / 2; i += WG) {
        vec2 pair = 2 * i < p.head_dim ? vec2(values[2 * i], values[2 * i + 1]) : vec2(0.0);
        cache.v[first + i] = packHalf2x16(clamp(pair, -65504.0, 65504.0));
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
    uint pos = timeline.pos, ring = timeline.kv.ring, slot = pos % ring;
    uint in_first = (token * (p.n_heads + 2 * p.n_kv_heads) + head) * p.head_dim;

    if (head < p.n_heads) {
        norm_and_rotate(p.q_norm, in_first, pos, p.query_scale);
        barrier();
        uint out_first = (token * p.n_heads + head) * p.head_dim;
        for (uint i = lane; i < p.head_dim; i += WG) {
            p.q.v[out_first + i] = values[i];
        }
    } else if (head < p.n_heads + p.n_kv_heads) {
        norm_and_rotate(p.k_norm, in_first, pos, 1.0);
        barrier();
        store_row(MANY != 0 ? U32W(timeline.kv.k) : p.k, head - p.n_heads, slot, ring);
    } else {
        for (uint i = lane; i < p.head_dim; i += WG) {
            values[i] = p.qkv.v[in_first + i];
        }
        barrier();
        store_row(MANY != 0 ? U32W(timeline.kv.v) : p.v, head - p.n_heads - p.n_kv_heads, slot,
                  ring);
    }
}
