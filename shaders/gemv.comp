/* SPDX-License-Identifier: MIT */
/*
 * y = w z for one token and an int4 or int8 matrix. z comes from what PROLOGUE says and is made by
 * every workgroup for itself: cheaper than another dispatch and the barrier before it.
 *
 * z is rounded to 16 bits per block (the elements of 16 bytes of weights), held in shared memory as
 * two signed bytes v = 256 * high + low, so that integer dot products do the work: their sums are
 * exact. A row is read by LANES neighbouring invocations, ROWS rows at once, UNROLL blocks of each;
 * the next loads are under way while the last are used, the first before z is made. The grid is
 * about as large as the device; a workgroup goes on to rows further down.
 */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "weights.glsl"
#include "dot4.glsl"

layout(constant_id = SPEC_COLS) const uint COLS = 256;
layout(constant_id = SPEC_LANES) const uint LANES = 8;
layout(constant_id = SPEC_GEMV_ROWS) const uint ROWS = 2;
layout(constant_id = SPEC_UNROLL) const uint UNROLL = 1;
layout(constant_id = SPEC_PROLOGUE) const uint PROLOGUE = GEMV_PLAIN;
layout(constant_id = SPEC_GLU) const uint GLU = 0;

PUSH(GEMV_FIELDS);

const uint BLOCKS = COLS / BLOCK;
const uint PLANES = BLOCK / 16;      /* uvec4 of high bytes of a block, and as many of low */
const uint MATS = GLU != 0 ? 2 : 1;  /* the gate's row and the up's */
const uint LOADS = MATS * ROWS * UNROLL;
const uint STEPS = (BLOCKS + LANES * UNROLL - 1) / (LANES * UNROLL);
const bool EVEN = BLOCKS % (LANES * UNROLL) == 0;
const uint EIGHTS = COLS / 8; /* eight elements of z are an invocation's at once */
const uint MINE = (EIGHTS + WG - 1) / WG;

shared uvec4 xq[2 * PLANES * BLOCKS]; /* [high, low][plane][block] */
shared uvec2 xmeta[BLOCKS];           /* scale, sum of v */
shared float sums[2 * SLOTS];

uint me;   /* invocation of the workgroup, in the order of the subgroups */
uint lane; /* of a row */

/* Raw weights and the words that hold their scales and biases: in use, and under way. Globals,
 * because glslc's optimizer cannot copy arrays of specialized sizes. */
uvec4 raw[LOADS], next_raw[LOADS];
uint scale[LOADS], next_scale[LOADS];
uint bias[LOADS], next_bias[LOADS];
float acc[ROWS * MATS];

uint row_of(uint unit, uint mat)
{
    return min(unit, p.units - 1) + mat * p.units;
}

/* The index of a block's scale among those of the matrix. */
uint scale_index(uint row, uint block)
{
    return row * (COLS / GROUP) + block * BLOCK / GROUP;
}

void load(uint first_unit, uint s)
{
    [[unroll]] for (uint u = 0; u < UNROLL; u++) {
        uint block = (s * UNROLL + u) * LANES + lane;
        if (EVEN || block < BLOCKS) {
            [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
                uint row = row_of(first_unit + r / MATS, r % MATS);
                uint at = u * ROWS * MATS + r;
                next_raw[at] = p.data.v[row * BLOCKS + block];
                next_scale[at] = p.scale.v[scale_index(row, block) / 2];
                if (AFFINE != 0) {
                    next_bias[at] = p.bias.v[scale_index(row, block) / 2];
                }
            }
        }
    }
}

float half_of(uint pair, uint i)
{
    vec2 both = unpackHalf2x16(pair);
    return (i & 1) != 0 ? both.y : both.x;
}

uvec4 block_x[4]; /* high planes, low planes */

/* Sum over a block of q * v. */
int block_dot(uvec4 w)
{
    int high = 0, low = 0;
    [[unroll]] for (uint i = 0; i < 4; i++) {
        if (TYPE == WEIGHT_Q4) {
            uint a = w[i] & 0x0f0f0f0fu, b = (w[i] >> 4) & 0x0f0f0f0fu;
            high += dot4(a, block_x[0][i]) + dot4(b, block_x[1][i]);
            low += dot4(a, block_x[2][i]) + dot4(b, block_x[3][i]);
        } else {
            high += dot4(w[i], block_x[0][i]);
            low += dot4(w[i], block_x[PLANES][i]);
        }
    }
    return 256 * high + low;
}

void take()
{
    [[unroll]] for (uint i = 0; i < LOADS; i++) {
        raw[i] = next_raw[i];
        scale[i] = next_scale[i];
        bias[i] = next_bias[i];
    }
}

void multiply(uint first_unit, uint s)
{
    [[unroll]] for (uint u = 0; u < UNROLL; u++) {
        uint block = (s * UNROLL + u) * LANES + lane;
        if (EVEN || block < BLOCKS) {
            uvec2 meta = xmeta[block];
            float x_scale = uintBitsToFloat(meta.x);
            int x_sum = int(meta.y);
            [[unroll]] for (uint i = 0; i < 2 * PLANES; i++) {
                block_x[i] = xq[i * BLOCKS + block];
            }
            [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
                uint row = row_of(first_unit + r / MATS, r % MATS);
                uint at = u * ROWS * MATS + r;
                uint i = scale_index(row, block);
                int d = block_dot(raw[at]);
                float w_scale = half_of(scale[at], i);
                if (AFFINE != 0) {
                    acc[r] += x_scale * (w_scale * float(d) + half_of(bias[at], i) * float(x_sum));
                } else {
                    d -= TYPE == WEIGHT_Q4 ? 8 * x_sum : 0;
                    acc[r] += w_scale * (x_scale * float(d));
                }
            }
        }
    }
}

/* The low bytes: of v itself, they are what 256 * ((v + 128) >> 8) leaves over, as signed bytes. */
uint bytes(ivec4 v)
{
    return (v.x & 255) | (v.y & 255) << 8 | (v.z & 255) << 16 | (v.w & 255) << 24;
}

/* Eight elements of z, by invocation i of those that share a block. */
void put(uint i, vec4 z0, vec4 z1)
{
    const uint sharers = BLOCK / 8;
    uvec4 bits = max(floatBitsToUint(z0) & 0x7fffffffu, floatBitsToUint(z1) & 0x7fffffffu);
    uint top_bits = max(max(bits.x, bits.y), max(bits.z, bits.w)); /* of a NaN largest: not lost */
    [[unroll]] for (uint x = 1; x < sharers; x *= 2) {
        top_bits = max(top_bits, subgroupShuffleXor(top_bits, x));
    }
    float top = uintBitsToFloat(top_bits);
    float factor = top_bits == 0 ? 0.0 : 32512.0 / top;
    ivec4 v0 = ivec4(roundEven(z0 * factor)), v1 = ivec4(roundEven(z1 * factor));
    ivec4 both = v0 + v1;
    int sum = both.x + both.y + both.z + both.w;
    [[unroll]] for (uint x = 1; x < sharers; x *= 2) {
        sum += subgroupShuffleXor(sum, x);
    }
    uint block = i / sharers, word = i % sharers * 2;
    uint at = word / 4 * BLOCKS + block;
    xq[at][word % 4] = bytes((v0 + 128) >> 8);
    xq[at][word % 4 + 1] = bytes((v1 + 128) >> 8);
    xq[at + PLANES * BLOCKS][word % 4] = bytes(v0);
    xq[at + PLANES * BLOCKS][word % 4 + 1] = bytes(v1);
    if (word == 0) {
        xmeta[block] = uvec2(floatBitsToUint(top_bits == 0 ? 0.0 : top / 32512.0), uint(sum));
    }
}

/* All loads of a round are under way before the first is used. */
void make_plain()
{
    const uint round_size = MINE < 8 ? MINE : 8;
    vec4 x[2 * round_size];
    uint first = PROLOGUE == GEMV_LAST ? (p.step_p.n - 1) * EIGHTS : 0;
    for (uint start = 0; start < EIGHTS; start += round_size * WG) {
        [[unroll]] for (uint j = 0; j < round_size; j++) {
            uint i = start + j * WG + me;
            if (i < EIGHTS) {
                x[2 * j] = p.x.v[2 * (first + i)];
                x[2 * j + 1] = p.x.v[2 * (first + i) + 1];
            }
        }
        [[unroll]] for (uint j = 0; j < round_size; j++) {
            uint i = start + j * WG + me;
            if (i < EIGHTS) {
                put(i, x[2 * j], x[2 * j + 1]);
            }
        }
    }
}

/* The workgroup's sum; slot: 0 and 1 in turn. */
float add_up(float value, uint slot)
{
    value = subgroupAdd(value);
    if (gl_NumSubgroups == 1) {
        return value;
    }
    if (subgroupElect()) {
        sums[slot * SLOTS + gl_SubgroupID] = value;
    }
    barrier();
    value = 0.0;
    for (uint i = 0; i < gl_NumSubgroups; i++) {
        value += sums[slot * SLOTS + i];
    }
    return value;
}

/* z = rmsnorm(x') * next with x' = x, or x' = x + rmsnorm(y) * post, which is written. */
void make_normed()
{
    vec4 x[2 * MINE], y[2 * MINE], next[2 * MINE];
    float y_sum = 0.0, sum = 0.0;
    [[unroll]] for (uint j = 0; j < 2 * MINE; j++) {
        uint i = 2 * (j / 2 * WG + me) + j % 2;
        bool is_mine = i < 2 * EIGHTS;
        if (PROLOGUE == GEMV_ADD_NORM) {
            y[j] = is_mine ? p.y.v[i] : vec4(0.0);
        }
        x[j] = is_mine ? p.x.v[i] : vec4(0.0);
    }
    [[unroll]] for (uint j = 0; j < 2 * MINE; j++) {
        uint i = 2 * (j / 2 * WG + me) + j % 2;
        bool is_mine = i < 2 * EIGHTS;
        next[j] = is_mine ? p.next.v[i] : vec4(0.0);
        if (PROLOGUE == GEMV_ADD_NORM) {
            y_sum += dot(y[j], y[j]);
            y[j] *= is_mine ? p.post.v[i] : vec4(0.0);
        }
    }
    if (PROLOGUE == GEMV_ADD_NORM) {
        float factor = inversesqrt(add_up(y_sum, 0) / float(COLS) + p.eps);
        [[unroll]] for (uint j = 0; j < 2 * MINE; j++) {
            uint i = 2 * (j / 2 * WG + me) + j % 2;
            x[j] += y[j] * factor;
            if (gl_WorkGroupID.x == 0 && i < 2 * EIGHTS) {
                p.x_out.v[i] = x[j];
            }
        }
    }
    [[unroll]] for (uint j = 0; j < 2 * MINE; j++) {
        sum += dot(x[j], x[j]);
    }
    float factor = inversesqrt(add_up(sum, 1) / float(COLS) + p.eps);
    [[unroll]] for (uint j = 0; j < MINE; j++) {
        uint i = j * WG + me;
        if (i < EIGHTS) {
            put(i, x[2 * j] * next[2 * j] * factor, x[2 * j + 1] * next[2 * j + 1] * factor);
        }
    }
}

float gelu(float x)
{
    float u = 0.7978845608 * (x + 0.044715 * x * x * x);
    return x / (1.0 + exp(min(-2.0 * u, 80.0))); /* as in geglu.comp */
}

void main()
{
    me = gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
    lane = me % LANES;
    /* Neighbouring rows go to different workgroups, so that all have equally many. */
    uint unit = (me / LANES * gl_NumWorkGroups.x + gl_WorkGroupID.x) * ROWS;
    uint stride = WG / LANES * gl_NumWorkGroups.x * ROWS;

    load(unit, 0);
    if (PROLOGUE == GEMV_PLAIN || PROLOGUE == GEMV_LAST) {
        make_plain();
    } else {
        make_normed();
    }
    barrier();

    for (; unit < p.units; unit += stride) {
        [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
            acc[r] = 0.0;
        }
        for (uint s = 0; s < STEPS; s++) {
            take();
            bool goes_on = s + 1 < STEPS;
            if (goes_on || unit + stride < p.units) {
                load(goes_on ? unit : unit + stride, goes_on ? s + 1 : 0);
            }
            multiply(unit, s);
        }
        [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
            [[unroll]] for (uint x = 1; x < LANES; x *= 2) {
                acc[r] += subgroupShuffleXor(acc[r], x);
            }
        }
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            if (lane == r % LANES && unit + r < p.units) {
                p.out_.v[unit + r] = GLU != 0 ? gelu(acc[MATS * r]) * acc[MATS * r + MATS - 1] : acc[r];
            }
        }
    }
}
