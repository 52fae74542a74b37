/* SPDX-License-Identifier: MIT */
/*
 * A matrix's input z, made from what PROLOGUE says and rounded to 16 bits per block (the elements of
 * 16 bytes of weights): two signed bytes v = 256 * high + low, for integer dot products. Made by a
 * whole workgroup, each invocation four elements at a time (FOURS in all, MINE at most by one).
 *
 * Included once for each width of an input, with INPUT(name) giving its names. The includer has said
 * INPUT(COLS) and PROLOGUE, FIRST_FOUR (of the token, among those of x and y), WRITES_X (whether this
 * workgroup writes x_out), HAS_Y (false: y is 0), NORM_LATER (what is made must then be multiplied by
 * norm_factor(), after a barrier), the types VEC4S_IN and VEC4S_OUT of activations, and has
 * INPUT(put_block)() keep the result: word `word` of a block's high and low bytes and, where word is
 * 0, its scale and sum. INPUT(four_of)() reads the input of a PROLOGUE without a norm.
 */
#define COLS        INPUT(COLS)
#define BLOCKS      INPUT(BLOCKS)
#define FOURS       INPUT(FOURS)
#define MINE        INPUT(MINE)
#define put         INPUT(put)
#define put_block   INPUT(put_block)
#define make_plain  INPUT(make_plain)
#define make_normed INPUT(make_normed)
#define make_input  INPUT(make_input)
#define load_norms  INPUT(load_norms)
#define post        INPUT(post)
#define next        INPUT(next)
#define norm_factor INPUT(norm_factor)
#define four_of     INPUT(four_of)

#ifndef PROLOGUE_GLSL
#define PROLOGUE_GLSL
const uint PLANES = BLOCK / 16; /* uvec4 of high bytes of a block, and as many of low */

struct Input {
    VEC4S_IN x, y;
    F32x4R post_norm, next_norm;
    VEC4S_OUT x_out;
    float eps;
};

shared float sums[2 * SLOTS];

uint me; /* invocation of the workgroup, in the order of the subgroups */

/* Added to less than 2^22, it leaves the nearest integer v in the sum's last bits, ties to even. */
const float ROUNDER = 12582912.0; /* 1.5 * 2^23 */

uint low_bytes(uvec4 v)
{
    return (v.x & 255u) | (v.y & 255u) << 8 | (v.z & 255u) << 16 | v.w << 24;
}

/* What 256 times these leaves over is low_bytes(), as signed bytes. */
uint high_bytes(uvec4 v)
{
    v += 128u;
    return (v.x >> 8 & 255u) | (v.y & 0xff00u) | (v.z & 0xff00u) << 8 | (v.w & 0xff00u) << 16;
}

/* A value's sum over the workgroup, there after a barrier; slot: 0 and 1 in turn. */
void give_sum(float value, uint slot)
{
    value = subgroupAdd(value);
    if (subgroupElect()) {
        sums[slot * SLOTS + gl_SubgroupID] = value;
    }
}

float given_sum(uint slot)
{
    float sum = 0.0;
    for (uint i = gl_SubgroupInvocationID; i < gl_NumSubgroups; i += gl_SubgroupSize) {
        sum += sums[slot * SLOTS + i];
    }
    return subgroupAdd(sum);
}
#endif

const uint BLOCKS = COLS / BLOCK;
const uint FOURS = COLS / 4; /* four elements of z are an invocation's at once */
const uint MINE = (FOURS + WG - 1) / WG;

void put_block(uint block, uint word, uint high, uint low, float scale, int sum);

/* Four elements of z, if there are so many, by invocation i of those that share a block. */
void put(uint i, vec4 z)
{
    const uint sharers = BLOCK / 4;
    uvec4 bits = floatBitsToUint(z) & 0x7fffffffu;
    uint top_bits = max(max(bits.x, bits.y), max(bits.z, bits.w)); /* of a NaN largest: not lost */
    [[unroll]] for (uint x = 1; x < sharers; x *= 2) {
        top_bits = max(top_bits, subgroupShuffleXor(top_bits, x));
    }
    float top = uintBitsToFloat(top_bits);
    float factor = top < 1e-30 ? 0.0 : 32512.0 / top;
    uvec4 v = floatBitsToUint(z * factor + ROUNDER);
    uint sum = v.x + v.y + v.z + v.w - 4 * floatBitsToUint(ROUNDER);
    [[unroll]] for (uint x = 1; x < sharers; x *= 2) {
        sum += subgroupShuffleXor(sum, x);
    }
    if (i < FOURS) {
        put_block(i / sharers, i % sharers, high_bytes(v), low_bytes(v), top / 32512.0, int(sum));
    }
}

/* Four elements of a plain input. */
vec4 four_of(Input from, uint i);

/* Some loads are under way before the first is used. */
void make_plain(Input from)
{
    const uint round_size = MINE < 6 ? MINE : 6;
    vec4 x[round_size];
    [[dont_unroll]] for (uint start = 0; start < FOURS; start += round_size * WG) {
        [[unroll]] for (uint j = 0; j < round_size; j++) {
            uint i = start + j * WG + me;
            x[j] = i < FOURS ? four_of(from, i) : vec4(0.0);
        }
        [[unroll]] for (uint j = 0; j < round_size; j++) {
            put(start + j * WG + me, x[j]);
        }
    }
}

vec4 post[MINE], next[MINE];

/* What z is made from besides the activations: can be under way before those are there. */
void load_norms(Input from)
{
    [[unroll]] for (uint j = 0; j < MINE; j++) {
        uint i = j * WG + me;
        next[j] = i < FOURS ? from.next_norm.v[i] : vec4(0.0);
        if (PROLOGUE == GEMV_ADD_NORM) {
            post[j] = i < FOURS ? from.post_norm.v[i] : vec4(0.0);
        }
    }
}

/* 1 / rms, of slot's sum of squares. */
float norm_factor(uint slot, float eps)
{
    return inversesqrt(given_sum(slot) / float(COLS) + eps);
}

/* z = rmsnorm(x') * next with x' = x, or x' = x + rmsnorm(y) * post, which is written. */
void make_normed(Input from)
{
    vec4 x[MINE], y[MINE];
    float y_sum = 0.0, sum = 0.0;
    [[unroll]] for (uint j = 0; j < MINE; j++) {
        uint i = j * WG + me;
        if (PROLOGUE == GEMV_ADD_NORM) {
            y[j] = i < FOURS && HAS_Y ? from.y.v[FIRST_FOUR + i] : vec4(0.0);
        }
        x[j] = i < FOURS ? from.x.v[FIRST_FOUR + i] : vec4(0.0);
    }
    if (PROLOGUE == GEMV_ADD_NORM) {
        [[unroll]] for (uint j = 0; j < MINE; j++) {
            y_sum += dot(y[j], y[j]);
            y[j] *= post[j];
        }
        give_sum(y_sum, 0);
        barrier();
        float factor = norm_factor(0, from.eps);
        [[unroll]] for (uint j = 0; j < MINE; j++) {
            uint i = j * WG + me;
            x[j] += y[j] * factor;
            if (WRITES_X && i < FOURS) {
                from.x_out.v[FIRST_FOUR + i] = x[j];
            }
        }
    }
    [[unroll]] for (uint j = 0; j < MINE; j++) {
        sum += dot(x[j], x[j]);
    }
    give_sum(sum, 1);
    float factor = 1.0;
    if (!NORM_LATER) {
        barrier();
        factor = norm_factor(1, from.eps);
    }
    [[unroll]] for (uint j = 0; j < MINE; j++) {
        put(j * WG + me, x[j] * next[j] * factor);
    }
}

/* z, from the start; the includer waits at a barrier before it reads what others put. */
void make_input(Input from)
{
    if (PROLOGUE == GEMV_PLAIN || PROLOGUE == GEMV_LAST) {
        make_plain(from);
    } else {
        load_norms(from);
        make_normed(from);
    }
}

#undef COLS
#undef BLOCKS
#undef FOURS
#undef MINE
#undef put
#undef put_block
#undef make_plain
#undef make_normed
#undef make_input
#undef load_norms
#undef post
#undef next
#undef norm_factor
#undef four_of
