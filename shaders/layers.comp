/* SPDX-License-Identifier: MIT */
/*
 * All layers of one token in one dispatch, whose workgroups are all on the device at once and wait
 * for each other between the steps: QKV; attention; its output; gate, up and GeGLU; down. What a
 * step reads besides the others' results, its first weights or keys, is on its way while they are
 * waited for; at a barrier between dispatches the memory would be idle.
 *
 * Vulkan does not promise that waiting workgroups let others run. The grid must be one that is known
 * to fit (tune_layers.c tries it out); should it not, `failed` is set after `spins` looks at the
 * others and nobody waits any more. What others write is read through coherent references only.
 */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_KHR_memory_scope_semantics : require
#include "common.glsl"
#include "weights.glsl"
#include "dot4.glsl"
#include "gelu.glsl"

layout(constant_id = SPEC_QKV_TILE) const uint qkv_LANES = 8;
layout(constant_id = SPEC_QKV_TILE + 1) const uint qkv_ROWS = 1;
layout(constant_id = SPEC_QKV_TILE + 2) const uint qkv_UNROLL = 1;
layout(constant_id = SPEC_QKV_TILE + 3) const uint qkv_NEAR = 0;
layout(constant_id = SPEC_OUT_TILE) const uint out_LANES = 8;
layout(constant_id = SPEC_OUT_TILE + 1) const uint out_ROWS = 1;
layout(constant_id = SPEC_OUT_TILE + 2) const uint out_UNROLL = 1;
layout(constant_id = SPEC_OUT_TILE + 3) const uint out_NEAR = 0;
layout(constant_id = SPEC_GATE_TILE) const uint gate_LANES = 8;
layout(constant_id = SPEC_GATE_TILE + 1) const uint gate_ROWS = 1;
layout(constant_id = SPEC_GATE_TILE + 2) const uint gate_UNROLL = 1;
layout(constant_id = SPEC_GATE_TILE + 3) const uint gate_NEAR = 0;
layout(constant_id = SPEC_DOWN_TILE) const uint down_LANES = 8;
layout(constant_id = SPEC_DOWN_TILE + 1) const uint down_ROWS = 1;
layout(constant_id = SPEC_DOWN_TILE + 2) const uint down_UNROLL = 1;
layout(constant_id = SPEC_DOWN_TILE + 3) const uint down_NEAR = 0;
layout(constant_id = SPEC_LAYERS_HIDDEN) const uint hidden_COLS = 256;
layout(constant_id = SPEC_LAYERS_FFN) const uint ffn_COLS = 256;
layout(constant_id = SPEC_LAYERS_LOOKERS) const uint LOOKERS = 8;
layout(constant_id = SPEC_LAYERS_DIM) const uint HEAD_DIM = 64;
layout(constant_id = SPEC_LAYERS_LANES) const uint KEY_LANES = 8;
layout(constant_id = SPEC_LAYERS_N_HEADS) const uint N_HEADS = 1;
layout(constant_id = SPEC_LAYERS_AHEAD) const uint AHEAD = 6;
const uint heads_COLS = N_HEADS * HEAD_DIM;
const uint hidden_QUADS = 1, heads_QUADS = 1, ffn_QUADS = 2;
const uint KEYS = LAYERS_KEYS;
const uint HEADS = 1; /* of a task of attention */

#define ACT4 F32x4C
#define ACT1 F32C

PUSH(LAYERS_FIELDS);

#define VEC4S_IN    ACT4
#define VEC4S_OUT   ACT4
#define FLOATS_IN   ACT1
#define FLOATS_OUT  ACT1
#define FIRST_FOUR  0
#define WRITES_X    (gl_WorkGroupID.x == 0)
#define HAS_Y       has_y
#define NORM_LATER  true

bool has_y; /* false before the first layer */

/* --- inputs of matrices, by their width --- */

#define INPUT(name) hidden_##name
#define PROLOGUE    GEMV_ADD_NORM
#include "prologue.glsl"
#undef INPUT
#undef PROLOGUE
#define PROLOGUE    GEMV_PLAIN
#define INPUT(name) heads_##name
#include "prologue.glsl"
#undef INPUT
#define INPUT(name) ffn_##name
#include "prologue.glsl"

/* Of the lookers, very large. */
#define WORKER     (me - LOOKERS)
#define WORKERS    (WG - LOOKERS)
#define ATTENDER   (me < LOOKERS ? WORKERS + me : WORKER)
#define ATTENDERS  WORKERS
#define NEW_TEAM   TEAMS /* of the lookers */
#define LEAST_KEYS 1
#include "attend.glsl"

const uint SOME_COLS = hidden_COLS > heads_COLS ? hidden_COLS : heads_COLS;
const uint BLOCKS_MAX = (SOME_COLS > ffn_COLS ? SOME_COLS : ffn_COLS) / BLOCK;
const uint INPUT_VECS = 2 * PLANES * BLOCKS_MAX;
const uint ATTEND_VECS = (ATTEND_FLOATS + 3) / 4;

/* A matrix's input, [high, low][plane][block], or attention's scratch memory. */
shared uvec4 pool[INPUT_VECS > ATTEND_VECS ? INPUT_VECS : ATTEND_VECS];
shared uvec2 xmeta[BLOCKS_MAX]; /* scale, sum of v */

float scratch(uint i)
{
    return uintBitsToFloat(pool[i / 4][i % 4]);
}

void put_scratch(uint i, float value)
{
    pool[i / 4][i % 4] = floatBitsToUint(value);
}

vec4 scratch4(uint i)
{
    return uintBitsToFloat(pool[i / 4]);
}

void put_scratch4(uint i, vec4 value)
{
    pool[i / 4] = floatBitsToUint(value);
}

void put_result(uint head, uint dim, vec4 value)
{
    if (dim < HEAD_DIM) { /* a multiple of 4 */
        ACT4(p.att).v[(head * HEAD_DIM + dim) / 4] = value;
    }
}

void keep_block(const uint quads, uint n_blocks, uint block, uint word, uvec2 high, uvec2 low, float scale, int sum)
{
    uint at = word / 4 * n_blocks + block, first = word % 4;
    [[unroll]] for (uint i = 0; i < quads; i++) {
        pool[at][first + i] = high[i];
        pool[at + PLANES * n_blocks][first + i] = low[i];
    }
    if (word == 0) {
        xmeta[block] = uvec2(floatBitsToUint(scale), uint(sum));
    }
}

vec4 hidden_four_of(Input from, uint i)
{
    return from.x.v[i];
}

vec4 ffn_four_of(Input from, uint i)
{
    return from.x.v[i];
}

vec4 heads_four_of(Input from, uint i)
{
    return from.x.v[i];
}

void hidden_put_block(uint block, uint word, uvec2 high, uvec2 low, float scale, int sum)
{
    keep_block(hidden_QUADS, hidden_BLOCKS, block, word, high, low, scale, sum);
}

void heads_put_block(uint block, uint word, uvec2 high, uvec2 low, float scale, int sum)
{
    keep_block(heads_QUADS, heads_BLOCKS, block, word, high, low, scale, sum);
}

void ffn_put_block(uint block, uint word, uvec2 high, uvec2 low, float scale, int sum)
{
    keep_block(ffn_QUADS, ffn_BLOCKS, block, word, high, low, scale, sum);
}

/* What the heads attended to: where there are several parts, joined, some of them at once. */
void make_heads(Input from)
{
    if (n_parts == 1) {
        heads_make_plain(from);
        return;
    }
    const uint mine = heads_MINE, at_once = mine < AHEAD ? AHEAD / mine : 1;
    vec4 sum[mine];
    float best[mine], total[mine];
    [[unroll]] for (uint j = 0; j < mine; j++) {
        sum[j] = vec4(0.0);
        best[j] = LOWEST;
        total[j] = 0.0;
    }
    [[dont_unroll]] for (uint first = 0; first < n_parts; first += at_once) {
        vec4 value[mine * at_once];
        vec2 end[mine * at_once]; /* highest score and total */
        [[unroll]] for (uint q = 0; q < mine * at_once; q++) {
            uint i = q / at_once * WG + me, part = first + q % at_once;
            uint head = i / (HEAD_DIM / 4), four = i % (HEAD_DIM / 4);
            uint at = (head * p.max_parts + part) * (PART / 4);
            bool exists = i < heads_CHUNKS && part < n_parts;
            value[q] = exists ? p.parts.v[at + four] : vec4(0.0);
            end[q] = exists ? p.parts.v[at + ROW / 4].xy : vec2(LOWEST, 0.0);
        }
        [[unroll]] for (uint j = 0; j < mine; j++) {
            float new_best = best[j];
            [[unroll]] for (uint q = j * at_once; q < (j + 1) * at_once; q++) {
                new_best = max(new_best, end[q].x);
            }
            float keep = exp(best[j] - new_best);
            sum[j] *= keep;
            total[j] *= keep;
            best[j] = new_best;
            [[unroll]] for (uint q = j * at_once; q < (j + 1) * at_once; q++) {
                float weight = exp(end[q].x - new_best);
                sum[j] += weight * value[q];
                total[j] += weight * end[q].y;
            }
        }
    }
    [[unroll]] for (uint j = 0; j < mine; j++) {
        uint i = j * WG + me;
        heads_put(i, i < heads_CHUNKS ? sum[j] / total[j] : vec4(0.0), vec4(0.0));
    }
}

/* --- the matrices --- */

#define z_bytes(i)    pool[i]
#define z_meta(block) xmeta[block]
const uint qkv_COLS = hidden_COLS, out_COLS = heads_COLS, gate_COLS = hidden_COLS, down_COLS = ffn_COLS;
const uint qkv_GLU = 0, out_GLU = 0, gate_GLU = 1, down_GLU = 0;
#define MATRIX(name) qkv_##name
#include "gemv.glsl"
#undef MATRIX
#define MATRIX(name) out_##name
#include "gemv.glsl"
#undef MATRIX
#define MATRIX(name) gate_##name
#include "gemv.glsl"
#undef MATRIX
#define MATRIX(name) down_##name
#include "gemv.glsl"

/* --- where a layer has what is read --- */

shared uint rows[2 * LAYER_WORDS]; /* of this layer and the next */
uvec2 next_words;

void load_row(uint l)
{
    bool is_mine = WORKER < LAYER_WORDS / 2 && l < p.n_layers;
    next_words = is_mine ? p.layers.v[l * (LAYER_WORDS / 2) + WORKER] : uvec2(0);
}

/* What was loaded, to be read after the workgroup has synchronized. */
void keep_row(uint l)
{
    if (WORKER < LAYER_WORDS / 2) {
        uint at = l % 2 * LAYER_WORDS + 2 * WORKER;
        rows[at] = next_words.x;
        rows[at + 1] = next_words.y;
    }
}

uint word_of(uint l, uint at)
{
    return rows[l % 2 * LAYER_WORDS + at];
}

uvec2 address_of(uint l, uint at)
{
    return uvec2(word_of(l, at), word_of(l, at + 1));
}

Matrix matrix(uint l, uint at, uint units)
{
    return Matrix(address_of(l, at), address_of(l, at + 2), address_of(l, at + 4), units);
}

/*
 * --- waiting for each other ---
 *
 * By a subgroup that asks for no weights and no keys of the cache: a fence waits for what its
 * invocation has asked memory for.
 */

uint n_arrivals; /* of all workgroups, until now */
bool gave_up;

void workgroup_sync()
{
    controlBarrier(gl_ScopeWorkgroup, gl_ScopeWorkgroup, gl_StorageSemanticsBuffer | gl_StorageSemanticsShared,
                   gl_SemanticsAcquireRelease);
}

/* What this workgroup has written is there for all after they have waited: it was written coherently
 * and, for one invocation that then releases it, before the workgroup's barrier. */
void arrive()
{
    workgroup_sync();
    if (me == 0) {
        memoryBarrierBuffer();
        atomicAdd(p.arrived.v[LAYERS_ARRIVED], 1);
    }
    n_arrivals += gl_NumWorkGroups.x;
}

void wait()
{
    if (me == 0 && !gave_up) {
        uint arrived, looks = 0;
        do {
            arrived = atomicLoad(p.arrived.v[LAYERS_ARRIVED], gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
        } while (arrived < n_arrivals && looks++ < p.spins);
        if (arrived < n_arrivals) {
            gave_up = true;
            p.arrived.v[LAYERS_GAVE_UP] = 1;
            p.failed.v[0] = 1;
        }
        memoryBarrierBuffer();
    }
    workgroup_sync();
}

/* The last to leave gets the counter ready for the next dispatch. */
void leave()
{
    n_arrivals += gl_NumWorkGroups.x;
    workgroup_sync();
    if (me == 0 && atomicAdd(p.arrived.v[LAYERS_ARRIVED], 1) == n_arrivals - 1) {
        p.arrived.v[LAYERS_ARRIVED] = 0;
    }
}

/* --- the steps --- */

/* Whether task i of attention is anything; then it is begun. Everything is set in any case: what is
 * kept from another time takes registers until then. */
bool attend_task(uint l, uint i)
{
    a.qkv = p.qkv;
    a.first_qkv = 0;
    a.q_norm = F32R(address_of(l, LAYER_Q_NORM));
    a.k_norm = F32R(address_of(l, LAYER_K_NORM));
    a.turns = U32x2(address_of(l, LAYER_TURNS));
    a.k = U32x4(address_of(l, LAYER_K));
    a.v = U32x4(address_of(l, LAYER_V));
    a.k_out = U32x2W(address_of(l, LAYER_K));
    a.v_out = U32x2W(address_of(l, LAYER_V));
    a.first_to = 0;
    a.parts = p.parts;
    a.n_heads = N_HEADS;
    a.n_kv_heads = p.n_kv_heads;
    a.first_head = i % N_HEADS;
    a.kv_head = a.first_head / (N_HEADS / p.n_kv_heads);
    a.part = i / N_HEADS;
    a.max_parts = p.max_parts;
    a.pos = p.step_p.pos;
    a.ring = word_of(l, LAYER_RING);
    a.window = word_of(l, LAYER_WINDOW);
    a.eps = p.eps;
    a.query_scale = p.query_scale;
    return attend_begin();
}

/* No reference is kept from one layer to the next: a compiler (Mesa 26.1's) mixed them up. */

Matrix qkv_of(uint l)
{
    return matrix(l, LAYER_QKV, (N_HEADS + 2 * p.n_kv_heads) * HEAD_DIM);
}

Input qkv_input(uint l)
{
    return Input(p.x, p.y, F32x4R(address_of(l, LAYER_BEFORE)), F32x4R(address_of(l, LAYER_INPUT_NORM)), p.x_next,
                 p.eps);
}

/* What QKV reads besides the others' results. */
void qkv_begin(uint l)
{
    hidden_load_norms(qkv_input(l));
    qkv_gemv_begin(qkv_of(l));
}

void main()
{
    me = gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
    n_arrivals = 0;
    gave_up = p.arrived.v[LAYERS_GAVE_UP] != 0; /* others have waited long enough */
    has_y = false;
    load_row(0);
    keep_row(0);
    barrier();
    /* Written so that each step is in the program once: it is long, and fetching it takes time. */
    [[dont_unroll]] for (uint l = 0;; l++) {
        if (l > 0) {
            arrive();
        }
        qkv_begin(l);
        if (l > 0) {
            wait();
        }
        hidden_make_normed(qkv_input(l));
        barrier();
        qkv_gemv(qkv_of(l), hidden_norm_factor(1, p.eps), p.qkv);

        load_row(l + 1);
        uint task = gl_WorkGroupID.x;
        [[dont_unroll]] do {
            bool is_first = task < gl_NumWorkGroups.x, attends = attend_task(l, task);
            if (is_first) {
                arrive();
            }
            attend_more();
            if (is_first) {
                wait();
            }
            if (attends) {
                attend();
            }
            task += gl_NumWorkGroups.x;
        } while (task < N_HEADS * p.max_parts);

        arrive();
        Matrix attn_out = matrix(l, LAYER_ATTN_OUT, hidden_COLS);
        out_gemv_begin(attn_out);
        Matrix gate_up = matrix(l, LAYER_GATE_UP, ffn_COLS);
        wait();
        Input from = Input(ACT4(p.att), p.y, F32x4R(address_of(l, LAYER_POST_ATTN_NORM)),
                           F32x4R(address_of(l, LAYER_PRE_FFN_NORM)), p.x, p.eps);
        make_heads(from);
        keep_row(l + 1);
        barrier();
        out_gemv(attn_out, 1.0, ACT1(p.y));

        arrive();
        has_y = true;
        from.x = p.x_next;
        hidden_load_norms(from);
        gate_gemv_begin(gate_up);
        wait();
        hidden_make_normed(from);
        barrier();
        gate_gemv(gate_up, hidden_norm_factor(1, p.eps), p.h);

        arrive();
        Matrix down = matrix(l, LAYER_DOWN, hidden_COLS);
        down_gemv_begin(down);
        wait();
        from.x = ACT4(p.h);
        ffn_make_plain(from);
        barrier();
        down_gemv(down, 1.0, ACT1(p.y));
        if (l + 1 == p.n_layers) {
            break;
        }
    }
    leave();
}
