/* SPDX-License-Identifier: MIT */
/*
 * attend.glsl for one token: x of the grid is its heads, HEADS at once, y a part of the cache. With
 * MANY, z of the grid is one of several tokens, each of a timeline of its own.
 */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "half.glsl"

layout(constant_id = SPEC_HEADS) const uint HEADS = 1;
layout(constant_id = SPEC_HEAD_DIM) const uint HEAD_DIM = 64;
layout(constant_id = SPEC_KEY_LANES) const uint KEY_LANES = 8;
layout(constant_id = SPEC_KEYS) const uint KEYS = 2;
layout(constant_id = SPEC_ONE_MANY) const uint MANY = 0;

PUSH(ATTEND_ONE_FIELDS);
#include "timeline.glsl"

#define FLOATS_IN  F32R
#define LEAST_KEYS 128
#define ATTENDER   (gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID)
#define ATTENDERS  WG
#define NEW_TEAM   (TEAMS - 1) /* which often has no other key */
#include "attend.glsl"

shared vec4 memory[(ATTEND_FLOATS + 3) / 4];

float scratch(uint i)
{
    return memory[i / 4][i % 4];
}

void put_scratch(uint i, float value)
{
    memory[i / 4][i % 4] = value;
}

vec4 scratch4(uint i)
{
    return memory[i / 4];
}

void put_scratch4(uint i, vec4 value)
{
    memory[i / 4] = value;
}

bool as_half()
{
    return (p.half_.x | p.half_.y) != 0;
}

void put_result(uint head, uint dim, vec4 value)
{
    uint at = head * HEAD_DIM + dim;
    if (as_half()) { /* HEAD_DIM is a multiple of 4 */
        if (dim < HEAD_DIM) {
            U32x2W(p.half_).v[at / 4] = half_of_four(value, 1.0);
        }
        return;
    }
    [[unroll]] for (uint j = 0; j < 4; j++) {
        if (dim + j < HEAD_DIM) {
            p.att.v[at + j] = value[j];
        }
    }
}

void main()
{
    uint token = gl_WorkGroupID.z;
    if (MANY != 0 && token >= p.step_p.n) {
        return;
    }
    Timeline timeline = timeline_of(token);
    a.qkv = p.qkv;
    a.first_qkv = token * (p.n_heads + 2 * p.n_kv_heads) * HEAD_DIM;
    a.q_norm = p.q_norm;
    a.k_norm = p.k_norm;
    a.turns = p.turns;
    a.k = MANY != 0 ? U32x4(timeline.kv.k) : p.k;
    a.v = MANY != 0 ? U32x4(timeline.kv.v) : p.v;
    a.k_out = U32x2W(uvec2(a.k));
    a.v_out = U32x2W(uvec2(a.v));
    a.first_to = token * p.n_heads;
    a.parts = p.parts;
    a.finished = p.finished;
    a.finished_at = token * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    a.n_heads = p.n_heads;
    a.n_kv_heads = p.n_kv_heads;
    a.first_head = gl_WorkGroupID.x * HEADS;
    a.kv_head = a.first_head / p.heads_per_kv;
    a.part = gl_WorkGroupID.y;
    a.max_parts = gl_NumWorkGroups.y;
    a.pos = timeline.pos;
    a.ring = timeline.kv.ring;
    a.window = p.window;
    a.eps = p.eps;
    a.query_scale = p.query_scale;
    if (as_half() && gl_WorkGroupID.x == 0 && gl_WorkGroupID.y == 0) {
        store_power(p.power, token, 0);
    }
    if (attend_begin()) {
        attend_more();
        attend();
        if (n_parts > 1) {
            join_if_last();
        }
    }
}
