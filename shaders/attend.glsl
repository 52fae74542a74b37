/* SPDX-License-Identifier: MIT */
/*
 * One token's way from its row of QKV to what its heads attended to, by one workgroup: q and k are
 * normed and rotated, k and v go to the KV cache, and HEADS query heads of one KV head read a part
 * of the cache. As many parts as there is work for are used; the last to finish joins them.
 *
 * KEY_LANES neighbouring invocations share a key, 16 bytes each at a time, and have a softmax of
 * their own; those of a workgroup are joined at its end.
 *
 * The includer has said HEADS, HEAD_DIM, KEY_LANES and KEYS (at once, per KEY_LANES invocations), the
 * types FLOATS_IN of qkv and FLOATS_OUT of the result, and keeps ATTEND_FLOATS floats of shared
 * memory: scratch(i), put_scratch(i, value), and four of them at once, i being a multiple of 4.
 */
#include "rotation.glsl"

const uint ROW_VECS = (HEAD_DIM + 7) / 8; /* uvec4 in a row of the cache */
const uint ROW = 8 * ROW_VECS;
const uint KEY_VECS = ROW_VECS / KEY_LANES; /* an invocation's */
const uint TEAMS = WG / KEY_LANES;
const uint PART = ROW + 2;  /* of the scratch memory: values, their maximum's score, their total */
const uint PART_KEYS = KEYS * TEAMS > 64 ? KEYS * TEAMS : 64; /* a part has at least so many */
const float LOWEST = -3.0e38;

/* In shared memory: the queries, the new key and value; the teams' values, tops and totals; their
 * joined ones. */
const uint NEW_K = HEADS * ROW;
const uint NEW_V = NEW_K + ROW;
const uint TEAM_VALUES = NEW_V + ROW;
const uint TEAM_TOPS = TEAM_VALUES + HEADS * TEAMS * ROW;
const uint TEAM_TOTALS = TEAM_TOPS + HEADS * TEAMS;
const uint JOINED_TOPS = TEAM_TOTALS + HEADS * TEAMS;
const uint JOINED_TOTALS = JOINED_TOPS + HEADS;
const uint ATTEND_FLOATS = JOINED_TOTALS + HEADS;

float scratch(uint i);
void put_scratch(uint i, float value);
vec4 scratch4(uint i);
void put_scratch4(uint i, vec4 value);

shared uint is_last;

struct Attention {
    FLOATS_IN qkv;
    uint first_qkv; /* the token's */
    F32R q_norm, k_norm;
    U32x2 turns;
    U32x4 k, v; /* f16 [n_kv_heads, ring, ROW], read and, the same memory, written */
    U32W k_out, v_out;
    FLOATS_OUT to;
    uint first_to;    /* of the token's heads, among those of all tokens */
    F32C parts;       /* [heads, max_parts, PART] */
    U32C finished;    /* 0 before and after */
    uint finished_at; /* these heads' */
    uint n_heads, n_kv_heads, first_head, kv_head, part, max_parts;
    uint pos, ring, window;
    float eps, query_scale;
};
Attention a;

/* Of the keys in the cache, all but the new one: the first and how many are seen, into how many
 * parts of which size they fall, and how many are this part's. */
uint first_pos, n_keys, n_parts, part_keys, n_mine;

/* Of this invocation's team: largest score, sum of exp(score - top), and so weighted values. */
float top[HEADS], total[HEADS];
float values[HEADS * KEY_VECS * 8];
float my_q[HEADS * KEY_VECS * 8];
uint team, team_lane;

uvec4 k_raw[KEYS * KEY_VECS], v_raw[KEYS * KEY_VECS];

/* Queries and the new key, normed, rotated and scaled, a team each; the new value. All that is read
 * is under way at once. */
void prepare(bool has_new)
{
    const uint half_dim = HEAD_DIM / 2, pairs = (half_dim + KEY_LANES - 1) / KEY_LANES;
    for (uint i = gl_LocalInvocationID.x; i < (HEADS + 2) * (ROW - HEAD_DIM); i += WG) {
        put_scratch(i / (ROW - HEAD_DIM) * ROW + HEAD_DIM + i % (ROW - HEAD_DIM), 0.0);
    }
    uint n_made = has_new ? HEADS + 2 : HEADS;
    for (uint h = team; h < n_made; h += TEAMS) {
        bool is_value = h == HEADS + 1;
        uint head = h < HEADS ? a.first_head + h : a.n_heads + a.kv_head + (h - HEADS) * a.n_kv_heads;
        uint first = a.first_qkv + head * HEAD_DIM;
        vec2 x[pairs], norm[pairs];
        uvec2 turn[pairs];
        [[unroll]] for (uint j = 0; j < pairs; j++) {
            uint i = j * KEY_LANES + team_lane;
            x[j] = norm[j] = vec2(0.0);
            turn[j] = uvec2(0);
            if (i < half_dim) {
                x[j] = vec2(a.qkv.v[first + i], a.qkv.v[first + half_dim + i]);
                norm[j] = h < HEADS ? vec2(a.q_norm.v[i], a.q_norm.v[half_dim + i])
                                    : vec2(a.k_norm.v[i], a.k_norm.v[half_dim + i]);
                turn[j] = a.turns.v[i];
            }
        }
        float sum = 0.0;
        [[unroll]] for (uint j = 0; j < pairs; j++) {
            sum += dot(x[j], x[j]);
        }
        [[unroll]] for (uint lanes = 1; lanes < KEY_LANES; lanes *= 2) {
            sum += subgroupShuffleXor(sum, lanes);
        }
        float scale = (h < HEADS ? a.query_scale : 1.0) * inversesqrt(sum / float(HEAD_DIM) + a.eps);
        [[unroll]] for (uint j = 0; j < pairs; j++) {
            uint i = j * KEY_LANES + team_lane;
            vec2 cs = rotation(a.pos, turn[j]);
            vec2 y = x[j] * norm[j] * scale;
            y = is_value ? x[j] : vec2(y.x * cs.x - y.y * cs.y, y.y * cs.x + y.x * cs.y);
            if (i < half_dim) {
                put_scratch(h * ROW + i, y.x);
                put_scratch(h * ROW + half_dim + i, y.y);
            }
        }
    }
    barrier();
}

/* As rope_store.comp rounds and clamps. */
uint to_halfs(float x, float y)
{
    return packHalf2x16(clamp(vec2(x, y), -65504.0, 65504.0));
}

void store_new()
{
    uint row = (a.kv_head * a.ring + a.pos % a.ring) * (ROW / 2);
    for (uint i = gl_LocalInvocationID.x; i < ROW; i += WG) {
        uint word = to_halfs(scratch(NEW_K + 2 * i), scratch(NEW_K + 2 * i + 1));
        if (i < ROW / 2) {
            a.k_out.v[row + i] = word;
        } else {
            a.v_out.v[row + i - ROW / 2] = word;
        }
    }
}

void dot8(uint h, uint m, uvec4 halfs, inout float sum)
{
    uint at = (h * KEY_VECS + m) * 8;
    [[unroll]] for (uint i = 0; i < 4; i++) {
        vec2 pair = unpackHalf2x16(halfs[i]);
        sum += my_q[at + 2 * i] * pair.x + my_q[at + 2 * i + 1] * pair.y;
    }
}

/* Load KEYS keys and values of this team, from this part's key on, of those in the cache. */
void load_keys(uint first)
{
    uint first_slot = (first_pos + a.part * part_keys) % a.ring;
    uint first_row = a.kv_head * a.ring;
    [[unroll]] for (uint j = 0; j < KEYS; j++) {
        uint key = first + j * TEAMS;
        [[unroll]] for (uint m = 0; m < KEY_VECS; m++) {
            /* 0 times whatever was there may be NaN; and it would take registers until now */
            k_raw[j * KEY_VECS + m] = v_raw[j * KEY_VECS + m] = uvec4(0);
        }
        if (key < n_mine) {
            uint slot = first_slot + key;
            slot = slot < a.ring ? slot : slot - a.ring;
            [[unroll]] for (uint m = 0; m < KEY_VECS; m++) {
                uint at = (first_row + slot) * ROW_VECS + m * KEY_LANES + team_lane;
                k_raw[j * KEY_VECS + m] = a.k.v[at];
                v_raw[j * KEY_VECS + m] = a.v.v[at];
            }
        }
    }
}

/* The new token's own key and value, as they will be read from the cache. */
void load_new()
{
    [[unroll]] for (uint m = 0; m < KEY_VECS; m++) {
        [[unroll]] for (uint i = 0; i < 2; i++) {
            uint at = (m * KEY_LANES + team_lane) * 8 + 4 * i;
            vec4 k = scratch4(NEW_K + at), v = scratch4(NEW_V + at);
            k_raw[m][2 * i] = to_halfs(k.x, k.y);
            k_raw[m][2 * i + 1] = to_halfs(k.z, k.w);
            v_raw[m][2 * i] = to_halfs(v.x, v.y);
            v_raw[m][2 * i + 1] = to_halfs(v.z, v.w);
        }
    }
}

/* The keys that were loaded, of which those below n exist. */
void attend_keys(uint first, uint n)
{
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        float score[KEYS];
        float new_top = top[h];
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            float sum = 0.0;
            [[unroll]] for (uint m = 0; m < KEY_VECS; m++) {
                dot8(h, m, k_raw[j * KEY_VECS + m], sum);
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
        [[unroll]] for (uint i = 0; i < KEY_VECS * 8; i++) {
            values[h * KEY_VECS * 8 + i] *= keep;
        }
        [[unroll]] for (uint j = 0; j < KEYS; j++) {
            float weight = first + j * TEAMS < n ? exp(score[j] - new_top) : 0.0;
            total[h] += weight;
            [[unroll]] for (uint m = 0; m < KEY_VECS; m++) {
                uint at = (h * KEY_VECS + m) * 8;
                [[unroll]] for (uint i = 0; i < 4; i++) {
                    vec2 pair = unpackHalf2x16(v_raw[j * KEY_VECS + m][i]);
                    values[at + 2 * i] += weight * pair.x;
                    values[at + 2 * i + 1] += weight * pair.y;
                }
            }
        }
    }
}

/* One head's teams by one subgroup: a team's top becomes what its values are multiplied by. */
void join_sums(uint h)
{
    float best = LOWEST, sum = 0.0;
    for (uint t = gl_SubgroupInvocationID; t < TEAMS; t += gl_SubgroupSize) {
        best = max(best, scratch(TEAM_TOPS + h * TEAMS + t));
    }
    best = subgroupMax(best);
    for (uint t = gl_SubgroupInvocationID; t < TEAMS; t += gl_SubgroupSize) {
        float factor = exp(scratch(TEAM_TOPS + h * TEAMS + t) - best);
        sum += scratch(TEAM_TOTALS + h * TEAMS + t) * factor;
        put_scratch(TEAM_TOPS + h * TEAMS + t, factor);
    }
    sum = subgroupAdd(sum);
    if (subgroupElect()) {
        put_scratch(JOINED_TOPS + h, best);
        put_scratch(JOINED_TOTALS + h, sum);
    }
}

/* The teams joined: to the result if this is the only part, else to the scratch memory. */
void join_teams()
{
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        [[unroll]] for (uint i = 0; i < KEY_VECS * 8; i += 4) {
            uint dim = (i / 8 * KEY_LANES + team_lane) * 8 + i % 8, at = h * KEY_VECS * 8 + i;
            put_scratch4(TEAM_VALUES + (h * TEAMS + team) * ROW + dim,
                         vec4(values[at], values[at + 1], values[at + 2], values[at + 3]));
        }
        if (team_lane == 0) {
            put_scratch(TEAM_TOPS + h * TEAMS + team, top[h]);
            put_scratch(TEAM_TOTALS + h * TEAMS + team, total[h]);
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
            value += scratch(TEAM_VALUES + (h * TEAMS + t) * ROW + dim) * scratch(TEAM_TOPS + h * TEAMS + t);
        }
        uint head = a.first_to + a.first_head + h;
        uint part = (head * a.max_parts + a.part) * PART;
        if (n_parts > 1) {
            a.parts.v[part + dim] = value;
            if (dim == 0) {
                a.parts.v[part + ROW] = scratch(JOINED_TOPS + h);
                a.parts.v[part + ROW + 1] = scratch(JOINED_TOTALS + h);
            }
        } else if (dim < HEAD_DIM) {
            a.to.v[head * HEAD_DIM + dim] = value / scratch(JOINED_TOTALS + h);
        }
    }
}

void join_parts(uint head)
{
    uint first = head * a.max_parts * PART;
    float best = LOWEST, sum = 0.0;
    for (uint s = 0; s < n_parts; s++) {
        best = max(best, a.parts.v[first + s * PART + ROW]);
    }
    for (uint s = 0; s < n_parts; s++) {
        uint part = first + s * PART;
        sum += a.parts.v[part + ROW + 1] * exp(a.parts.v[part + ROW] - best);
    }
    for (uint dim = gl_LocalInvocationID.x; dim < HEAD_DIM; dim += WG) {
        float value = 0.0;
        for (uint s = 0; s < n_parts; s++) {
            uint part = first + s * PART;
            value += a.parts.v[part + dim] * exp(a.parts.v[part + ROW] - best);
        }
        a.to.v[head * HEAD_DIM + dim] = value / sum;
    }
}

void join_if_last()
{
    memoryBarrierBuffer();
    barrier();
    if (gl_LocalInvocationID.x == 0) {
        is_last = atomicAdd(a.finished.v[a.finished_at], 1) == n_parts - 1 ? 1 : 0;
    }
    barrier();
    if (is_last == 0) {
        return;
    }
    memoryBarrierBuffer();
    for (uint h = 0; h < HEADS; h++) {
        join_parts(a.first_to + a.first_head + h);
    }
    if (gl_LocalInvocationID.x == 0) {
        a.finished.v[a.finished_at] = 0; /* for the next time */
    }
}

/* Whether there is anything in this part; then its first keys are under way, which may be before
 * qkv is there. */
bool attend_begin()
{
    first_pos = a.window != 0 && a.pos + 1 > a.window ? a.pos + 1 - a.window : 0;
    n_keys = a.pos - first_pos;
    uint share = (n_keys + a.max_parts - 1) / a.max_parts;
    part_keys = max(PART_KEYS, share);
    n_parts = max(1, (n_keys + part_keys - 1) / part_keys);
    uint index = gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
    team = index / KEY_LANES;
    team_lane = index % KEY_LANES;
    uint first_key = a.part * part_keys;
    n_mine = n_keys > first_key ? min(part_keys, n_keys - first_key) : 0;
    load_keys(team);
    return a.part < n_parts;
}

/* The rest. */
void attend()
{
    bool has_new = a.part == 0;
    prepare(has_new);
    if (has_new && a.first_head % (a.n_heads / a.n_kv_heads) == 0) {
        store_new();
    }
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        top[h] = LOWEST;
        total[h] = 0.0;
        [[unroll]] for (uint i = 0; i < KEY_VECS * 8; i += 4) {
            vec4 q = scratch4(h * ROW + (i / 8 * KEY_LANES + team_lane) * 8 + i % 8);
            [[unroll]] for (uint j = 0; j < 4; j++) {
                values[h * KEY_VECS * 8 + i + j] = 0.0;
                my_q[h * KEY_VECS * 8 + i + j] = q[j];
            }
        }
    }
    /* The new key is one more round, of which only team 0's first key exists. */
    uint rounds = (n_mine + KEYS * TEAMS - 1) / (KEYS * TEAMS) + (has_new ? 1 : 0);
    for (uint i = 0; i < rounds; i++) {
        uint key = i * KEYS * TEAMS + team;
        bool is_new = has_new && i == rounds - 1;
        if (is_new) {
            load_new();
        } else if (i > 0) {
            load_keys(key);
        }
        attend_keys(is_new ? team : key, is_new ? 1 : n_mine);
    }
    join_teams();
    if (n_parts > 1) {
        join_if_last();
    }
}
