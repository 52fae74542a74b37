/* SPDX-License-Identifier: MIT */
/*
 * One token's way from its row of QKV to what its heads attended to, by one workgroup: q and k are
 * normed and rotated, k and v go to the KV cache, and HEADS query heads of one KV head read a part
 * of the cache. As many parts as there is work for are used; where there are several, the includer
 * joins them: by join_if_last(), or when they are read.
 *
 * KEY_LANES neighbouring invocations, a team, share a key, 16 bytes each at a time, and have a softmax
 * of their own; those of a subgroup are joined by shuffles, those of the workgroup at its end.
 *
 * The includer has said HEADS, HEAD_DIM, KEY_LANES and KEYS (at once, per KEY_LANES invocations), the
 * type FLOATS_IN of qkv, LEAST_KEYS, who reads the cache (ATTENDERS invocations of the workgroup, whole
 * subgroups; ATTENDER is their number or, of others, ATTENDERS or more) and NEW_TEAM, the number of the
 * team that has the new key. It keeps ATTEND_FLOATS floats of shared memory: scratch(i),
 * put_scratch(i, value), and four of them at once, i being a multiple of 4; and, by put_result(), the
 * result: four elements of a head (among those of all tokens) from dim on, of which the last may be
 * beyond its end.
 */
#include "rotation.glsl"

const uint ROW_VECS = (HEAD_DIM + 7) / 8; /* uvec4 in a row of the cache */
const uint ROW = 8 * ROW_VECS;
const uint KEY_VECS = ROW_VECS / KEY_LANES; /* an invocation's */
const uint TEAMS = ATTENDERS / KEY_LANES;
const uint PART = ROW + ATTEND_PART_END; /* of the scratch memory: values, their maximum's score, their total */
/* A part has at least so many keys: one round, or more where joining costs more. */
const uint PART_KEYS = KEYS * TEAMS > LEAST_KEYS ? KEYS * TEAMS : LEAST_KEYS;
const float LOWEST = -3.0e38;

/* In shared memory: the queries, the new key and value; the subgroups' values, tops and totals. */
const uint NEW_K = HEADS * ROW;
const uint NEW_V = NEW_K + ROW;
const uint GROUP_VALUES = NEW_V + ROW;
const uint GROUP_TOPS = GROUP_VALUES + HEADS * SLOTS * ROW;
const uint GROUP_TOTALS = GROUP_TOPS + HEADS * SLOTS;
const uint ATTEND_FLOATS = GROUP_TOTALS + HEADS * SLOTS;

float scratch(uint i);
void put_scratch(uint i, float value);
vec4 scratch4(uint i);
void put_scratch4(uint i, vec4 value);
void put_result(uint head, uint dim, vec4 value);

shared uint is_last;

struct Attention {
    FLOATS_IN qkv;
    uint first_qkv; /* the token's */
    F32R q_norm, k_norm;
    U32x2 turns;
    U32x4 k, v; /* f16 [n_kv_heads, ring, ROW], read and, the same memory, written */
    U32x2W k_out, v_out;
    uint first_to;    /* of the token's heads, among those of all tokens */
    F32x4C parts;     /* [heads, max_parts, PART] */
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

/* A team makes a row: a query, the new key or the new value, of which an invocation has PAIRS pairs.
 * With what they are multiplied by and, cos and sin, turned by. */
const uint HALF_DIM = HEAD_DIM / 2;
const uint PAIRS = (HALF_DIM + KEY_LANES - 1) / KEY_LANES;
const bool ROW_EACH = TEAMS >= HEADS + 2; /* each team makes one at most */
vec2 pair_norm[PAIRS], pair_turn[PAIRS];

void load_turns(uint h)
{
    [[unroll]] for (uint j = 0; j < PAIRS; j++) {
        uint i = j * KEY_LANES + team_lane;
        pair_norm[j] = vec2(0.0);
        pair_turn[j] = vec2(1.0, 0.0);
        if (i < HALF_DIM && h <= HEADS) {
            pair_norm[j] = h < HEADS ? vec2(a.q_norm.v[i], a.q_norm.v[HALF_DIM + i])
                                     : vec2(a.k_norm.v[i], a.k_norm.v[HALF_DIM + i]);
            pair_turn[j] = rotation(a.pos, a.turns.v[i]);
        }
    }
}

/* Queries and the new key, normed, rotated and scaled; the new value. */
void prepare(bool has_new)
{
    for (uint i = gl_LocalInvocationID.x; i < (HEADS + 2) * (ROW - HEAD_DIM); i += WG) {
        put_scratch(i / (ROW - HEAD_DIM) * ROW + HEAD_DIM + i % (ROW - HEAD_DIM), 0.0);
    }
    uint n_made = has_new ? HEADS + 2 : HEADS;
    for (uint h = team; team < TEAMS && h < n_made; h += TEAMS) {
        bool is_value = h == HEADS + 1;
        uint head = h < HEADS ? a.first_head + h : a.n_heads + a.kv_head + (h - HEADS) * a.n_kv_heads;
        uint first = a.first_qkv + head * HEAD_DIM;
        vec2 x[PAIRS];
        [[unroll]] for (uint j = 0; j < PAIRS; j++) {
            uint i = j * KEY_LANES + team_lane;
            x[j] = i < HALF_DIM ? vec2(a.qkv.v[first + i], a.qkv.v[first + HALF_DIM + i]) : vec2(0.0);
        }
        if (!ROW_EACH) {
            load_turns(h);
        }
        float sum = 0.0;
        [[unroll]] for (uint j = 0; j < PAIRS; j++) {
            sum += dot(x[j], x[j]);
        }
        [[unroll]] for (uint lanes = 1; lanes < KEY_LANES; lanes *= 2) {
            sum += subgroupShuffleXor(sum, lanes);
        }
        float scale = (h < HEADS ? a.query_scale : 1.0) * inversesqrt(sum / float(HEAD_DIM) + a.eps);
        [[unroll]] for (uint j = 0; j < PAIRS; j++) {
            uint i = j * KEY_LANES + team_lane;
            vec2 cs = pair_turn[j];
            vec2 y = x[j] * pair_norm[j] * scale;
            y = is_value ? x[j] : vec2(y.x * cs.x - y.y * cs.y, y.y * cs.x + y.x * cs.y);
            if (i < HALF_DIM) {
                put_scratch(h * ROW + i, y.x);
                put_scratch(h * ROW + HALF_DIM + i, y.y);
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
    for (uint i = gl_LocalInvocationID.x; i < ROW / 2; i += WG) {
        bool is_key = i < ROW / 4;
        uint four = is_key ? i : i - ROW / 4;
        vec4 x = scratch4((is_key ? NEW_K : NEW_V) + 4 * four);
        uvec2 halfs = uvec2(to_halfs(x.x, x.y), to_halfs(x.z, x.w));
        if (is_key) {
            a.k_out.v[row / 2 + four] = halfs;
        } else {
            a.v_out.v[row / 2 + four] = halfs;
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

/* All teams of a subgroup have the softmax of all of them after this. */
void join_teams()
{
    [[dont_unroll]] for (uint x = KEY_LANES; x < gl_SubgroupSize; x *= 2) {
        [[unroll]] for (uint h = 0; h < HEADS; h++) {
            float new_top = max(top[h], subgroupShuffleXor(top[h], x));
            float keep = exp(top[h] - new_top);
            top[h] = new_top;
            total[h] *= keep;
            total[h] += subgroupShuffleXor(total[h], x);
            [[unroll]] for (uint i = h * KEY_VECS * 8; i < (h + 1) * KEY_VECS * 8; i++) {
                values[i] *= keep;
                values[i] += subgroupShuffleXor(values[i], x);
            }
        }
    }
}

/* A team's part of the keys. */
void attend_mine(bool has_new)
{
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
    bool wants_new = has_new && team == NEW_TEAM;
    [[dont_unroll]] for (uint first = team; first < n_mine || wants_new; first += KEYS * TEAMS) {
        bool is_new = first >= n_mine;
        if (is_new) {
            load_new();
            wants_new = false;
        } else if (first > team) {
            load_keys(first);
        }
        attend_keys(is_new ? 0 : first, is_new ? 1 : n_mine);
    }
}

/* To the other subgroups, all by the same factor; by the first team of this. */
void give_softmax()
{
    uint lane = gl_SubgroupInvocationID;
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        if (lane == 0) {
            put_scratch(GROUP_TOPS + h * SLOTS + gl_SubgroupID, top[h]);
        }
    }
    barrier();
    [[unroll]] for (uint h = 0; h < HEADS; h++) {
        uint slot = h * SLOTS + gl_SubgroupID;
        float best = LOWEST;
        [[dont_unroll]] for (uint i = lane; i < gl_NumSubgroups; i += gl_SubgroupSize) {
            best = max(best, scratch(GROUP_TOPS + h * SLOTS + i));
        }
        best = subgroupMax(best);
        float factor = exp(top[h] - best);
        top[h] = best;
        [[unroll]] for (uint i = 0; i < KEY_VECS * 8; i += 4) {
            uint dim = (i / 8 * KEY_LANES + team_lane) * 8 + i % 8, at = h * KEY_VECS * 8 + i;
            vec4 value = vec4(values[at], values[at + 1], values[at + 2], values[at + 3]);
            if (lane < KEY_LANES) {
                put_scratch4(GROUP_VALUES + slot * ROW + dim, value * factor);
            }
        }
        if (lane == 0) {
            put_scratch(GROUP_TOTALS + slot, total[h] * factor);
        }
    }
}

/* Where a head's four elements from dim on go: to the result if this is the only part, else to the
 * scratch memory. */
void put_head(uint h, uint dim, vec4 value, float best, float sum)
{
    uint head = a.first_to + a.first_head + h;
    if (n_parts > 1) {
        uint part = (head * a.max_parts + a.part) * (PART / 4);
        a.parts.v[part + dim / 4] = value;
        if (dim == 0) {
            a.parts.v[part + ROW / 4] = vec4(best, sum, 0.0, 0.0);
        }
    } else {
        put_result(head, dim, value / sum);
    }
}

void join_groups()
{
    [[dont_unroll]] for (uint i = gl_LocalInvocationID.x; i < HEADS * (ROW / 4); i += WG) {
        uint h = i / (ROW / 4), dim = i % (ROW / 4) * 4;
        float sum = 0.0;
        vec4 value = vec4(0.0);
        [[unroll]] for (uint slot = h * SLOTS; slot < (h + 1) * SLOTS; slot++) {
            if (slot - h * SLOTS < gl_NumSubgroups) {
                sum += scratch(GROUP_TOTALS + slot);
                value += scratch4(GROUP_VALUES + slot * ROW + dim);
            }
        }
        float best = top[0];
        [[unroll]] for (uint j = 1; j < HEADS; j++) {
            best = j == h ? top[j] : best;
        }
        put_head(h, dim, value, best, sum);
    }
}

void join_parts(uint head)
{
    uint first = head * a.max_parts * (PART / 4);
    float best = LOWEST, sum = 0.0;
    for (uint s = 0; s < n_parts; s++) {
        best = max(best, a.parts.v[first + (s * PART + ROW) / 4].x);
    }
    for (uint s = 0; s < n_parts; s++) {
        vec2 end = a.parts.v[first + (s * PART + ROW) / 4].xy;
        sum += end.y * exp(end.x - best);
    }
    for (uint four = gl_LocalInvocationID.x; four < ROW / 4; four += WG) {
        vec4 value = vec4(0.0);
        for (uint s = 0; s < n_parts; s++) {
            uint part = first + s * (PART / 4);
            value += a.parts.v[part + four] * exp(a.parts.v[part + ROW / 4].x - best);
        }
        put_result(head, 4 * four, value / sum);
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

/* Whether there is anything in this part; then its first keys are under way, which may be before qkv is
 * there, as may attend_more(). */
bool attend_begin()
{
    first_pos = a.window != 0 && a.pos + 1 > a.window ? a.pos + 1 - a.window : 0;
    n_keys = a.pos - first_pos;
    uint share = (n_keys + a.max_parts - 1) / a.max_parts;
    part_keys = max(PART_KEYS, share);
    n_parts = max(1, (n_keys + part_keys - 1) / part_keys);
    team = ATTENDER / KEY_LANES;
    team_lane = ATTENDER % KEY_LANES;
    uint first_key = a.part * part_keys;
    n_mine = n_keys > first_key && team < TEAMS ? min(part_keys, n_keys - first_key) : 0;
    load_keys(team);
    return a.part < n_parts;
}

/* What qkv is multiplied by. */
void attend_more()
{
    if (ROW_EACH) {
        load_turns(team);
    }
}

/* The rest. */
void attend()
{
    bool has_new = a.part == 0;
    prepare(has_new);
    if (has_new && a.first_head % (a.n_heads / a.n_kv_heads) == 0) {
        store_new();
    }
    attend_mine(has_new);
    join_teams();
    give_softmax();
    barrier();
    join_groups();
}
