/* SPDX-License-Identifier: MIT */
/*
 * A matrix's input z, made from what PROLOGUE says and rounded to 16 bits per block (the elements of
 * 16 bytes of weights): two signed bytes v = 256 * high + low, for integer dot products. Made by a
 * whole workgroup, each invocation eight elements at a time (EIGHTS in all, MINE at most by one).
 *
 * The includer has said COLS and PROLOGUE, FIRST_EIGHT (of the token, among those of x and y),
 * WRITES_X (whether this workgroup writes x_out), and has put_block() keep the result.
 */
layout(constant_id = SPEC_COLS) const uint COLS = 256;

const uint BLOCKS = COLS / BLOCK;
const uint PLANES = BLOCK / 16; /* uvec4 of high bytes of a block, and as many of low */
const uint EIGHTS = COLS / 8;   /* eight elements of z are an invocation's at once */
const uint MINE = (EIGHTS + WG - 1) / WG;

shared float sums[2 * SLOTS];

uint me; /* invocation of the workgroup, in the order of the subgroups */

/* Words `word` and `word` + 1 of a block's high and low bytes; word is 0: and its scale and sum. */
void put_block(uint block, uint word, uvec2 high, uvec2 low, float scale, int sum);

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
    put_block(i / sharers, i % sharers * 2, uvec2(bytes((v0 + 128) >> 8), bytes((v1 + 128) >> 8)),
              uvec2(bytes(v0), bytes(v1)), top_bits == 0 ? 0.0 : top / 32512.0, sum);
}

/* All loads of a round are under way before the first is used. */
void make_plain()
{
    const uint round_size = MINE < 8 ? MINE : 8;
    vec4 x[2 * round_size];
    for (uint start = 0; start < EIGHTS; start += round_size * WG) {
        [[unroll]] for (uint j = 0; j < round_size; j++) {
            uint i = start + j * WG + me;
            if (i < EIGHTS) {
                x[2 * j] = p.x.v[2 * (FIRST_EIGHT + i)];
                x[2 * j + 1] = p.x.v[2 * (FIRST_EIGHT + i) + 1];
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
            y[j] = is_mine ? p.y.v[2 * FIRST_EIGHT + i] : vec4(0.0);
        }
        x[j] = is_mine ? p.x.v[2 * FIRST_EIGHT + i] : vec4(0.0);
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
            if (WRITES_X && i < 2 * EIGHTS) {
                p.x_out.v[2 * FIRST_EIGHT + i] = x[j];
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

/* z, from the start; the includer waits at a barrier before it reads what others put. */
void make_input()
{
    if (PROLOGUE == GEMV_PLAIN || PROLOGUE == GEMV_LAST) {
        make_plain();
    } else {
        make_normed();
    }
}
