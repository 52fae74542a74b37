/* SPDX-License-Identifier: MIT */
/*
 * A matrix's input z, made from what PROLOGUE says and rounded to 16 bits per block (the elements of
 * 16 bytes of weights): two signed bytes v = 256 * high + low, for integer dot products. Made by a
 * whole workgroup, each invocation QUADS times four elements at a time (CHUNKS in all, MINE at most by
 * one).
 *
 * Included once for each width of an input, with INPUT(name) giving its names. The includer has said
 * INPUT(COLS), INPUT(QUADS) (2: fewer instructions in all than with 1, by fewer invocations), PROLOGUE,
 * FIRST_FOUR (of the token, among those of x and y), WRITES_X (whether this workgroup writes x_out),
 * HAS_Y (false: y is 0), NORM_LATER (what is made must then be multiplied by norm_factor(), after a
 * barrier), AHEAD (of a plain input: fours under way), the types VEC4S_IN and VEC4S_OUT of activations,
 * and has INPUT(put_block)() keep the result: QUADS words from `word` on of a block's high and low bytes
 * and, where word is 0, its scale and sum. INPUT(four_of)() reads the input of a PROLOGUE without a norm.
 */
#define COLS        INPUT(COLS)
#define BLOCKS      INPUT(BLOCKS)
#define QUADS       INPUT(QUADS)
#define CHUNKS      INPUT(CHUNKS)
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

/*
 * Added to less than 2^15, it leaves the nearest integer v, ties to even, plus 0x8080 in the sum's last
 * 16 bits. Without their top bits, the two bytes of that are those of v, the low one signed.
 */
const float ROUNDER = 12582912.0 + 32896.0; /* 1.5 * 2^23 + 0x8080 */

/* High and low bytes of four such sums. */
uvec2 split_bytes(uvec4 v)
{
    uvec2 pairs = (v.xy & 0xffffu) | v.zw << 16;
    uint high = (pairs.x >> 8 & 0x00ff00ffu) | (pairs.y & 0xff00ff00u);
    uint low = (pairs.x & 0x00ff00ffu) | (pairs.y << 8 & 0xff00ff00u);
    return uvec2(high, low) ^ 0x80808080u;
}

/* The bits of the largest of eight, without their signs; of a NaN largest: it is not lost. */
uint largest_bits(vec4 a, vec4 b)
{
    uvec4 bits = max(floatBitsToUint(a) & 0x7fffffffu, floatBitsToUint(b) & 0x7fffffffu);
    return max(max(bits.x, bits.y), max(bits.z, bits.w));
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
const uint CHUNKS = COLS / (4 * QUADS);
const uint MINE = (CHUNKS + WG - 1) / WG;

void put_block(uint block, uint word, uvec2 high, uvec2 low, float scale, int sum);

/* Four elements of z or eight, if there are so many, by invocation i of those that share a block. */
void put(uint i, vec4 a, vec4 b)
{
    const uint sharers = BLOCK / (4 * QUADS);
    uint top_bits = largest_bits(a, b);
    [[unroll]] for (uint x = 1; x < sharers; x *= 2) {
        top_bits = max(top_bits, subgroupShuffleXor(top_bits, x));
    }
    float top = uintBitsToFloat(top_bits);
    float factor = top < 1e-30 ? 0.0 : 32512.0 / top;
    uvec4 u = floatBitsToUint(a * factor + ROUNDER), v = floatBitsToUint(b * factor + ROUNDER);
    uvec4 both = u + (QUADS == 2 ? v : uvec4(0));
    uint sum = both.x + both.y + both.z + both.w - 4 * QUADS * floatBitsToUint(ROUNDER);
    [[unroll]] for (uint x = 1; x < sharers; x *= 2) {
        sum += subgroupShuffleXor(sum, x);
    }
    uvec2 first = split_bytes(u), second = split_bytes(v);
    if (i < CHUNKS) {
        put_block(i / sharers, i % sharers * QUADS, uvec2(first.x, second.x), uvec2(first.y, second.y), top / 32512.0,
                  int(sum));
    }
}

/* Four elements of a plain input. */
vec4 four_of(Input from, uint i);

/* Some loads are under way before the first is used. */
void make_plain(Input from)
{
    const uint round_size = MINE < AHEAD / QUADS ? MINE : AHEAD / QUADS;
    vec4 x[QUADS * round_size];
    [[dont_unroll]] for (uint start = 0; start < CHUNKS; start += round_size * WG) {
        [[unroll]] for (uint j = 0; j < QUADS * round_size; j++) {
            uint i = start + j / QUADS * WG + me;
            x[j] = i < CHUNKS ? four_of(from, QUADS * i + j % QUADS) : vec4(0.0);
        }
        [[unroll]] for (uint j = 0; j < round_size; j++) {
            put(start + j * WG + me, x[QUADS * j], QUADS == 2 ? x[QUADS * j + QUADS - 1] : vec4(0.0));
        }
    }
}

vec4 post[QUADS * MINE], next[QUADS * MINE];

/* What z is made from besides the activations: can be under way before those are there. */
void load_norms(Input from)
{
    [[unroll]] for (uint j = 0; j < QUADS * MINE; j++) {
        uint i = j / QUADS * WG + me, at = QUADS * i + j % QUADS;
        next[j] = i < CHUNKS ? from.next_norm.v[at] : vec4(0.0);
        if (PROLOGUE == GEMV_ADD_NORM) {
            post[j] = i < CHUNKS ? from.post_norm.v[at] : vec4(0.0);
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
    vec4 x[QUADS * MINE], y[QUADS * MINE];
    float y_sum = 0.0, sum = 0.0;
    [[unroll]] for (uint j = 0; j < QUADS * MINE; j++) {
        uint i = j / QUADS * WG + me, at = FIRST_FOUR + QUADS * i + j % QUADS;
        if (PROLOGUE == GEMV_ADD_NORM) {
            y[j] = i < CHUNKS && HAS_Y ? from.y.v[at] : vec4(0.0);
        }
        x[j] = i < CHUNKS ? from.x.v[at] : vec4(0.0);
    }
    if (PROLOGUE == GEMV_ADD_NORM) {
        [[unroll]] for (uint j = 0; j < QUADS * MINE; j++) {
            y_sum += dot(y[j], y[j]);
            y[j] *= post[j];
        }
        give_sum(y_sum, 0);
        barrier();
        float factor = norm_factor(0, from.eps);
        [[unroll]] for (uint j = 0; j < QUADS * MINE; j++) {
            uint i = j / QUADS * WG + me;
            x[j] += y[j] * factor;
            if (WRITES_X && i < CHUNKS) {
                from.x_out.v[FIRST_FOUR + QUADS * i + j % QUADS] = x[j];
            }
        }
    }
    [[unroll]] for (uint j = 0; j < QUADS * MINE; j++) {
        sum += dot(x[j], x[j]);
    }
    give_sum(sum, 1);
    float factor = 1.0;
    if (!NORM_LATER) {
        barrier();
        factor = norm_factor(1, from.eps);
    }
    [[unroll]] for (uint j = 0; j < MINE; j++) {
        uint a = QUADS * j, b = QUADS * j + QUADS - 1;
        put(j * WG + me, x[a] * next[a] * factor, QUADS == 2 ? x[b] * next[b] * factor : vec4(0.0));
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
#undef QUADS
#undef CHUNKS
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
