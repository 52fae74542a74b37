/* SPDX-License-Identifier: MIT */
/*
 * One token's way from its row of QKV to what its heads attended to: q and k are normed and rotated,
 * k and v go to the KV cache, and HEADS query heads of one KV head (x of the grid) read a part of
 * the cache (y). As many parts as there is work for are used; the last to finish joins them.
 *
 * With MANY, z of the grid is one of several tokens, each of a timeline of its own.
 *
 * KEY_LANES neighbouring invocations share a key, 16 bytes each at a time, and have a softmax of
 * their own; those of a workgroup are joined at its end.
 */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "rotation.glsl"

layout(constant_id = SPEC_HEADS) const uint HEADS = 1;
layout(constant_id = SPEC_HEAD_DIM) const uint HEAD_DIM = 64;
layout(constant_id = SPEC_KEY_LANES) const uint KEY_LANES = 8;
layout(constant_id = SPEC_KEYS) const uint KEYS = 2; /* at once, per KEY_LANES invocations */
layout(constant_id = SPEC_ONE_MANY) const uint MANY = 0;

PUSH(ATTEND_ONE_FIELDS);
#include "timeline.glsl"

const uint VECS = (HEAD_DIM + 7) / 8; /* uvec4 in a row of the cache */
const uint ROW = 8 * VECS;
const uint MINE = VECS / KEY_LANES;
const uint TEAMS = WG / KEY_LANES;
const uint NEW_K = HEADS * ROW;
const uint NEW_V = NEW_K + ROW;
const uint PART = ROW + 2;  /* of the scratch memory: values, their maximum's score, their total */
const uint PART_KEYS = KEYS * TEAMS > 64 ? KEYS * TEAMS : 64; /* a part has at least so many */
const float LOWEST = -3.0e38;

shared float rows[(HEADS + 2) * ROW]; /* queries, new key, new value */
shared vec2 team_sums[HEADS * TEAMS]; /* top, total */
shared float team_values[HEADS * TEAMS * ROW];
shared vec2 joined[HEADS]; /* top, total */
shared uint is_last;

/* Of this invocation's team: largest score, sum of exp(score - top), and so weighted values. */
float top[HEADS], total[HEADS];
float values[HEADS * MINE * 8];
float my_q[HEADS * MINE * 8];
uint team, team_lane;
Timeline timeline;

uvec4 k_raw[KEYS * MINE], v_raw[KEYS * MINE];

/* Where the token's are among all tokens' q, k and v, and among their heads. */
uint first_qkv()
{
    return MANY != 0 ? gl_WorkGroupID.z * (p.n_heads + 2 * p.n_kv_heads) * HEAD_DIM : 0;
}

uint att_head(uint head)
{
    return MANY != 0 ? gl_WorkGroupID.z * p.n_heads + head : head;
}

/* Queries and the new key, normed, rotated and scaled, a subgroup each; the new value. */
void prepare(uint kv_head, uint first_head, uint pos, bool has_new)
{
    for (uint i = gl_LocalInvocationID.x; i < (HEADS + 2) * (ROW - HEAD_DIM); i += WG) {
        rows[i / (ROW - HEAD_DIM) * ROW + HEAD_DIM + i % (ROW - HEAD_DIM)] = 0.0;
    }
    uint n_made = has_new ? HEADS + 2 : HEADS;
    for (uint h = gl_SubgroupID; h < n_made; h += gl_NumSubgroups) {
        uint head = h < HEADS ? first_head + h : p.n_heads + kv_head + (h - HEADS) * p.n_kv_heads;
        uint first = first_qkv() + head * HEAD_DIM;
        if (h == HEADS + 1) {
            for (uint i = gl_SubgroupInvocationID; i < HEAD_DIM; i += gl_SubgroupSize) {
                rows[NEW_V + i] = p.qkv.v[first + i];
            }
            continue;
        }
        F32R norm = h < HEADS ? p.q_norm : p.k_norm;
        float sum = 0.0;
        for (uint i = gl_SubgroupInvocationID; i < HEAD_DIM; i += gl_SubgroupSize) {
            float value = p.qkv.v[first + i];
            sum += value * value;
        }
        float scale = (h < HEADS ? p.query_scale : 1.0) *
                      inversesqrt(subgroupAdd(sum) / float(HEAD_DIM) + p.eps);
        for (uint i = gl_SubgroupInvocationID; i < HEAD_DIM / 2; i += gl_SubgroupSize) {
            vec2 cs = rotation(pos, p.turns.v[i]);
            uint j = HEAD_DIM / 2 + i;
            float a = p.qkv.v[first + i] * norm.v[i] * scale;
            float b = p.qkv.v[first + j] * norm.v[j] * scale;
            rows[h * ROW + i] = a * cs.x - b * cs.y;
            rows[h * ROW + j] = b * cs.x + a * cs.y;
        }
    }
    barrier();
}

/* As rope_store.comp rounds and clamps. */
uint to_halfs(float a, float b)
{
    return packHalf2x16(clamp(vec2(a, b), -65504.0, 65504.0));
}

void store_new(uint kv_head, uint pos)
{
    uint ring = timeline.kv.ring;
    uint row = (kv_head * ring + pos % ring) * (ROW / 2);
    U32W keys = MANY != 0 ? U32W(timeline.kv.k) : p.k_out;
    U32W values = MANY != 0 ? U32W(timeline.kv.v) : p.v_out;
    for (uint i = gl_LocalInvocationID.x; i < ROW; i += WG) {
        uint word = to_halfs(rows[NEW_K + 2 * i], rows[NEW_K + 2 * i + 1]);
        if (i < ROW / 2) {
            keys.v[row + i] = word;
        } else {
            values.v[row + i - ROW / 2] = word;
        }
    }
}

void dot8(uint h, uint m, uvec4 raw, inout float sum)
{
    uint at = (h * MINE + m) * 8;
    [[unroll]] for (uint i = 0; i < 4; i++) {
        vec2 pair = unpackHalf2x16(raw[i]);
        sum += my_q[at + 2 * i] * pair.x + my_q[at + 2 * i + 1] * pair.y;
    }
}

/* Load KEYS keys and values of this team, of which those below n are in the cache. */
void load(uint first, uint n, uint first_slot, uint first_row)
{
    uint ring = timeline.kv.ring;
    U32x4 old_keys = MANY != 0 ? U32x4(timeline.kv.k) : p.k;
    U32x4 old_values = MANY != 0 ? U32x4(timeline.kv.v) : p.v;
    [[unroll]] for (uint j = 0; j < KEYS; j++) {
        uint key = first + j * TEAMS;
        [[unroll]] for (uint m = 0; m < MINE && key >= n; m++) {
            v_raw[j * MINE + m] = uvec4(0); /* a weight of 0 times whatever was there may be NaN */
        }
        if (key < n) {
            uint slot = first_slot + key;
            slot = slot < ring ? slot : slot - ring;
            [[unroll]] for (uint m = 0; m < MINE; m++) {
                uint at = (first_row + slot) * VECS + m * KEY_LANES + team_lane;
                k_raw[j * MINE + m] = old_keys.v[at];
                v_raw[j * MINE + m] = old_values.v[at];
            }
        }
    }
}

/* The new token's own key and value, as they will be read from the cache. */
void load_new()
{
    [[unroll]] for (uint m = 0; m < MINE; m++) {
        [[unroll]] for (uint i = 0; i < 4; i++) {
            uint at = NEW_K + (m * KEY_LANES + team_lane) * 8 + 2 * i;
            k_raw[m][i] = to_halfs(rows[at], rows[at + 1]);
            v_raw[m][i] = to_halfs(rows[at + ROW], rows[at + ROW + 1]);
        }
    }
}

/* The keys that were loaded, of which those below n exist. */
void attend(uint first, uint n)
{
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        float score[KEYS];
        float new_top = top[h];
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            float sum = 0.0;
            [[unroll]] for (uint m = 0; m < MINE; m++) {
                dot8(h, m, k_raw[j * MINE + m], sum);
            }
            [[unroll]] for (uint x = 1; x < KEY_LANES; x *= 2) {
                sum += subgroupShuffleXor(sum, x);
            }
            score[j] = first + j * TEAMS < n ? sum : LOWEST;
            new_top = max(new_top, score[j]);
        }
        float keep = exp(top[h] - new_top);
        top[h] = new_top;
        total[h] *= keep;
        [[unroll]] for (uint i = 0; i < MINE * 8; i++) {
            values[h * MINE * 8 + i] *= keep;
        }
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            float weight = first + j * TEAMS < n ? exp(score[j] - new_top) : 0.0;
            total[h] += weight;
            [[unroll]] for (uint m = 0; m < MINE; m++) {
                uint at = (h * MINE + m) * 8;
                [[unroll]] for (uint i = 0; i < 4; i++) {
                    vec2 pair = unpackHalf2x16(v_raw[j * MINE + m][i]);
                    values[at + 2 * i] += weight * pair.x;
                    values[at + 2 * i + 1] += weight * pair.y;
                }
            }
        }
    }
}

/* One head's teams by one subgroup: .x of team_sums becomes what a team's values are multiplied by. */
void join_sums(uint h)
{
    float best = LOWEST, sum = 0.0;
    for (uint t = gl_SubgroupInvocationID; t < TEAMS; t += gl_SubgroupSize) {
        best = max(best, team_sums[h * TEAMS + t].x);
    }
    best = subgroupMax(best);
    for (uint t = gl_SubgroupInvocationID; t < TEAMS; t += gl_SubgroupSize) {
        float factor = exp(team_sums[h * TEAMS + t].x - best);
        sum += team_sums[h * TEAMS + t].y * factor;
        team_sums[h * TEAMS + t].x = factor;
    }
    sum = subgroupAdd(sum);
    if (subgroupElect()) {
        joined[h] = vec2(best, sum);
    }
}

/* The teams joined: to att if this is the only part, else to the scratch memory. */
void join_teams(uint first_head, bool alone)
{
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        [[unroll]] for (uint i = 0; i < MINE * 8; i++) {
            uint dim = (i / 8 * KEY_LANES + team_lane) * 8 + i % 8;
            team_values[(h * TEAMS + team) * ROW + dim] = values[h * MINE * 8 + i];
        }
        if (team_lane == 0) {
            team_sums[h * TEAMS + team] = vec2(top[h], total[h]);
        }
    }
    barrier();
    for (uint h = gl_SubgroupID; h < HEADS; h += gl_NumSubgroups) {
        join_sums(h);
    }
    barrier();
    for (uint i = gl_LocalInvocationID.x; i < HEADS * ROW; i += WG) {
        uint h = i / ROW, dim = i % ROW;
        float value = 0.0;
        [[unroll]] for (uint t = 0; t < TEAMS; t++) {
            value += team_values[(h * TEAMS + t) * ROW + dim] * team_sums[h * TEAMS + t].x;
        }
        uint part = (att_head(first_head + h) * gl_NumWorkGroups.y + gl_WorkGroupID.y) * PART;
        if (!alone) {
            p.parts.v[part + dim] = value;
            if (dim == 0) {
                p.parts.v[part + ROW] = joined[h].x;
                p.parts.v[part + ROW + 1] = joined[h].y;
            }
        } else if (dim < HEAD_DIM) {
            p.att.v[att_head(first_head + h) * HEAD_DIM + dim] = value / joined[h].y;
        }
    }
}

void join_parts(uint head, uint n_parts)
{
    uint first = att_head(head) * gl_NumWorkGroups.y * PART;
    float best = LOWEST, sum = 0.0;
    for (uint s = 0; s < n_parts; s++) {
        best = max(best, p.parts.v[first + s * PART + ROW]);
    }
    for (uint s = 0; s < n_parts; s++) {
        uint part = first + s * PART;
        sum += p.parts.v[part + ROW + 1] * exp(p.parts.v[part + ROW] - best);
    }
    for (uint dim = gl_LocalInvocationID.x; dim < HEAD_DIM; dim += WG) {
        float value = 0.0;
        for (uint s = 0; s < n_parts; s++) {
            uint part = first + s * PART;
            value += p.parts.v[part + dim] * exp(p.parts.v[part + ROW] - best);
        }
        p.att.v[att_head(head) * HEAD_DIM + dim] = value / sum;
    }
}

void main()
{
    uint first_head = gl_WorkGroupID.x * HEADS;
    uint kv_head = first_head / p.heads_per_kv;
    if (MANY != 0 && gl_WorkGroupID.z >= p.step_p.n) {
        return;
    }
    timeline = timeline_of(gl_WorkGroupID.z);
    uint pos = timeline.pos;
    uint begin = p.window != 0 && pos + 1 > p.window ? pos + 1 - p.window : 0;
    uint n_keys = pos - begin; /* in the cache: all but the new one */
    uint share = (n_keys + gl_NumWorkGroups.y - 1) / gl_NumWorkGroups.y;
    uint part_keys = max(PART_KEYS, share);
    uint n_parts = max(1, (n_keys + part_keys - 1) / part_keys);
    if (gl_WorkGroupID.y >= n_parts) {
        return;
    }
    uint index = gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
    team = index / KEY_LANES;
    team_lane = index % KEY_LANES;
    uint first_key = gl_WorkGroupID.y * part_keys;
    uint n = n_keys > first_key ? min(part_keys, n_keys - first_key) : 0;
    uint first_slot = (begin + first_key) % timeline.kv.ring;
    uint first_row = kv_head * timeline.kv.ring;
    load(team, n, first_slot, first_row); /* under way while q is made */
    bool has_new = gl_WorkGroupID.y == 0;
    prepare(kv_head, first_head, pos, has_new);
    if (has_new && first_head % p.heads_per_kv == 0) {
        store_new(kv_head, pos);
    }
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        top[h] = LOWEST;
        total[h] = 0.0;
        [[unroll]] for (uint i = 0; i < MINE * 8; i++) {
            values[h * MINE * 8 + i] = 0.0;
            my_q[h * MINE * 8 + i] = rows[h * ROW + (i / 8 * KEY_LANES + team_lane) * 8 + i % 8];
        }
    }
    /* The new key is one more round, of which only team 0's first key exists. */
    uint rounds = (n + KEYS * TEAMS - 1) / (KEYS * TEAMS) + (has_new ? 1 : 0);
    for (uint i = 0; i < rounds; i++) {
        uint key = i * KEYS * TEAMS + team;
        bool is_new = has_new && i == rounds - 1;
        if (is_new) {
            load_new();
        } else if (i > 0) {
            load(key, n, first_slot, first_row);
        }
        attend(is_new ? team : key, is_new ? 1 : n);
    }
    join_teams(first_head, n_parts == 1);
    if (n_parts == 1) {
        return;
    }
    uint finished = gl_WorkGroupID.z * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    memoryBarrierBuffer();
    barrier();
    if (gl_LocalInvocationID.x == 0) {
        is_last = atomicAdd(p.finished.v[finished], 1) == n_parts - 1 ? 1 : 0;
    }
    barrier();
    if (is_last == 0) {
        return;
    }
    memoryBarrierBuffer();
    for (uint h = 0; h < HEADS; h++) {
        join_parts(first_head + h, n_parts);
    }
    if (gl_LocalInvocationID.x == 0) {
        p.finished.v[finished] = 0; /* for the next dispatch */
    }
}
