/* SPDX-License-Identifier: MIT */
/*
 * All layers of one token in one dispatch, whose workgroups are all on the device at once and wait
 * for each other between the steps: QKV; attention; its output; gate, up and GeGLU; down. What a
 * step reads besides the others' results, its first weights or keys, is on its way while they are
 * waited for: so the memory is never idle, as it is at a barrier between dispatches.
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
layout(constant_id = SPEC_OUT_TILE) const uint out_LANES = 8;
layout(constant_id = SPEC_OUT_TILE + 1) const uint out_ROWS = 1;
layout(constant_id = SPEC_OUT_TILE + 2) const uint out_UNROLL = 1;
layout(constant_id = SPEC_GATE_TILE) const uint gate_LANES = 8;
layout(constant_id = SPEC_GATE_TILE + 1) const uint gate_ROWS = 1;
layout(constant_id = SPEC_GATE_TILE + 2) const uint gate_UNROLL = 1;
layout(constant_id = SPEC_DOWN_TILE) const uint down_LANES = 8;
layout(constant_id = SPEC_DOWN_TILE + 1) const uint down_ROWS = 1;
layout(constant_id = SPEC_DOWN_TILE + 2) const uint down_UNROLL = 1;
layout(constant_id = SPEC_LAYERS_HIDDEN) const uint hidden_COLS = 256;
layout(constant_id = SPEC_LAYERS_FFN) const uint ffn_COLS = 256;
layout(constant_id = SPEC_LAYERS_HEADS) const uint HEADS = 1;
layout(constant_id = SPEC_LAYERS_DIM) const uint HEAD_DIM = 64;
layout(constant_id = SPEC_LAYERS_LANES) const uint KEY_LANES = 8;
layout(constant_id = SPEC_LAYERS_N_HEADS) const uint N_HEADS = 1;
layout(constant_id = SPEC_LAYERS_TOUCHES) const uint TOUCHES = 0;
const uint heads_COLS = N_HEADS * HEAD_DIM;
const uint KEYS = LAYERS_KEYS;

struct LayerMatrix {
    LAYER_MATRIX_FIELDS
};
#define LAYER_MATRIX LayerMatrix
struct Layer {
    LAYER_FIELDS
};
#define ACT4 F32x4C
#define ACT1 F32C
layout(buffer_reference, std430, buffer_reference_align = 8) restrict readonly buffer Layers { Layer v[]; };

PUSH(LAYERS_FIELDS);
#define LAYER p.layers.v[l] /* read where it is used, to take no registers */

#define VEC4S_IN    ACT4
#define VEC4S_OUT   ACT4
#define FLOATS_IN   ACT1
#define FLOATS_OUT  ACT1
#define FIRST_FOUR  0
#define WRITES_X    (gl_WorkGroupID.x == 0)
#define HAS_Y       has_y

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

void keep_block(uint n_blocks, uint block, uint word, uint high, uint low, float scale, int sum)
{
    uint at = word / 4 * n_blocks + block;
    pool[at][word % 4] = high;
    pool[at + PLANES * n_blocks][word % 4] = low;
    if (word == 0) {
        xmeta[block] = uvec2(floatBitsToUint(scale), uint(sum));
    }
}

void hidden_put_block(uint block, uint word, uint high, uint low, float scale, int sum)
{
    keep_block(hidden_BLOCKS, block, word, high, low, scale, sum);
}

void heads_put_block(uint block, uint word, uint high, uint low, float scale, int sum)
{
    keep_block(heads_BLOCKS, block, word, high, low, scale, sum);
}

void ffn_put_block(uint block, uint word, uint high, uint low, float scale, int sum)
{
    keep_block(ffn_BLOCKS, block, word, high, low, scale, sum);
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

Matrix matrix(LayerMatrix w, uint units)
{
    return Matrix(w.data, w.scales, w.biases, units);
}

/* --- waiting for each other --- */

uint n_arrivals; /* of all workgroups, until now */
bool gave_up;

void workgroup_sync()
{
    controlBarrier(gl_ScopeWorkgroup, gl_ScopeWorkgroup, gl_StorageSemanticsBuffer | gl_StorageSemanticsShared,
                   gl_SemanticsAcquireRelease);
}

/* What this workgroup has written is there for all after they have waited. */
void arrive()
{
    memoryBarrierBuffer(); /* by all: not every device's fence waits for what other subgroups wrote */
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

/* Weights that are needed soon, on their way to the cache: while nobody multiplies, the memory would
 * be idle. The workgroups share them as they lie there, touch_bytes() at once. */
uint touched[TOUCHES + 1];

uint touch_bytes()
{
    return gl_NumWorkGroups.x * WG * TOUCHES * LAYERS_SECTOR;
}

/* Not by the subgroup that looks at the others: its loads would be waited for, and its share is left
 * out. first: in bytes. */
void touch(Matrix w, uint cols, uint mats, uint first)
{
    const uint sector_vecs = LAYERS_SECTOR / 16;
    uint n = w.units * mats * (cols / BLOCK);
    [[unroll]] for (uint j = 0; j < TOUCHES; j++) {
        uint at = first / 16 + ((j * gl_NumWorkGroups.x + gl_WorkGroupID.x) * WG + me) * sector_vecs;
        touched[j] = gl_SubgroupID != 0 && at < n ? w.data.v[at].x : 0;
    }
}

/* They have been asked for. */
void touched_all()
{
    uint sum = 0;
    [[unroll]] for (uint j = 0; j < TOUCHES; j++) {
        sum ^= touched[j];
    }
    if (TOUCHES > 0 && sum == 0x9e3779b9u) { /* which a compiler cannot know to be rare */
        p.arrived.v[LAYERS_UNREAD] = sum;
    }
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

const uint HEAD_GROUPS = N_HEADS / HEADS;

/* Whether task i of attention is anything; then it is begun. Everything is set in any case: what is
 * kept from another time takes registers until then. */
bool attend_task(uint l, uint i)
{
    a.qkv = p.qkv;
    a.first_qkv = 0;
    a.q_norm = LAYER.q_norm;
    a.k_norm = LAYER.k_norm;
    a.turns = LAYER.turns;
    a.k = U32x4(LAYER.k);
    a.v = U32x4(LAYER.v);
    a.k_out = U32W(LAYER.k);
    a.v_out = U32W(LAYER.v);
    a.to = p.att;
    a.first_to = 0;
    a.parts = p.parts;
    a.finished = p.finished;
    a.finished_at = i % HEAD_GROUPS;
    a.n_heads = N_HEADS;
    a.n_kv_heads = p.n_kv_heads;
    a.first_head = i % HEAD_GROUPS * HEADS;
    a.kv_head = a.first_head / (N_HEADS / p.n_kv_heads);
    a.part = i / HEAD_GROUPS;
    a.max_parts = p.max_parts;
    a.pos = p.step_p.pos;
    a.ring = LAYER.ring;
    a.window = LAYER.window;
    a.eps = p.eps;
    a.query_scale = p.query_scale;
    return attend_begin();
}

/* No reference is kept from one layer to the next: a compiler (Mesa 26.1's) mixed them up. */

Matrix qkv_of(uint l)
{
    return matrix(LAYER.qkv, (N_HEADS + 2 * p.n_kv_heads) * HEAD_DIM);
}

Input qkv_input(uint l)
{
    return Input(p.x, p.y, LAYER.before, LAYER.input_norm, p.x_next, p.eps);
}

/* What QKV reads besides the others' results. */
void qkv_begin(uint l)
{
    Matrix qkv = qkv_of(l);
    qkv_gemv_begin(qkv);
    hidden_load_norms(qkv_input(l));
    touch(qkv, hidden_COLS, 1, 0);
}

void main()
{
    me = gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
    n_arrivals = 0;
    gave_up = p.arrived.v[LAYERS_GAVE_UP] != 0; /* others have waited long enough */
    has_y = false;
    qkv_begin(0);
    for (uint l = 0;;) {
        hidden_make_normed(qkv_input(l));
        barrier();
        qkv_gemv(qkv_of(l), p.qkv);
        touched_all();

        arrive();
        uint task = gl_WorkGroupID.x;
        bool attends = attend_task(l, task);
        Matrix attn_out = matrix(LAYER.attn_out, hidden_COLS);
        touch(attn_out, heads_COLS, 1, 0);
        wait();
        while (task < HEAD_GROUPS * p.max_parts) {
            if (attends) {
                attend();
            }
            task += gl_NumWorkGroups.x;
            attends = attend_task(l, task);
        }
        touched_all();

        arrive();
        out_gemv_begin(attn_out);
        Matrix gate_up = matrix(LAYER.gate_up, ffn_COLS);
        touch(gate_up, hidden_COLS, 2, 0);
        wait();
        Input from = Input(ACT4(p.att), p.y, LAYER.post_attn_norm, LAYER.pre_ffn_norm, p.x, p.eps);
        heads_make_plain(from);
        barrier();
        out_gemv(attn_out, ACT1(p.y));
        touched_all();

        arrive();
        gate_gemv_begin(gate_up);
        has_y = true;
        from.x = p.x_next;
        hidden_load_norms(from);
        touch(gate_up, hidden_COLS, 2, touch_bytes());
        wait();
        hidden_make_normed(from);
        barrier();
        gate_gemv(gate_up, p.h);
        touched_all();

        arrive();
        Matrix down = matrix(LAYER.down, hidden_COLS);
        down_gemv_begin(down);
        touch(down, ffn_COLS, 1, 0);
        wait();
        from.x = ACT4(p.h);
        ffn_make_plain(from);
        barrier();
        down_gemv(down, ACT1(p.y));
        touched_all();

        if (++l == p.n_layers) {
            break;
        }
        arrive();
        qkv_begin(l);
        wait();
    }
    leave();
}
