/* SPDX-License-Identifier: MIT */
/*
 * Reading a matrix of any stored type (model.h, enum weight_type) in blocks of 16 bytes: one
 * 128-bit load gives BLOCK consecutive elements of a row as VECS vec4. A block lies within one
 * quantization group. No 8- or 16-bit storage feature is needed.
 */
#define WEIGHT_F32  1
#define WEIGHT_F16  2
#define WEIGHT_BF16 3
#define WEIGHT_Q4   4
#define WEIGHT_Q8   5

layout(constant_id = SPEC_TYPE) const uint TYPE = WEIGHT_Q4;
layout(constant_id = SPEC_AFFINE) const uint AFFINE = 0;
layout(constant_id = SPEC_GROUP) const uint GROUP = 32;

const uint BLOCK = TYPE == WEIGHT_Q4 ? 32 : TYPE == WEIGHT_Q8 ? 16 : TYPE == WEIGHT_F32 ? 4 : 8;
const uint VECS = BLOCK / 4;
const bool QUANTIZED = TYPE >= WEIGHT_Q4;

/* Element i of an array of f16, of which pair is word i / 2. */
float half_of(uint pair, uint i)
{
    vec2 both = unpackHalf2x16(pair);
    return (i & 1) != 0 ? both.y : both.x;
}

float half_at(U32 array, uint i)
{
    return half_of(array.v[i / 2], i);
}

/* The index of a block's scale among those of the matrix. */
uint scale_index(uint row, uint cols, uint block)
{
    return row * (cols / GROUP) + block * BLOCK / GROUP;
}

/* (s, b) of w = s * q + b for a block of a row; (1, 0) for float types. */
vec2 block_affine(U32 scale, U32 bias, uint row, uint cols, uint block)
{
    if (!QUANTIZED) {
        return vec2(1.0, 0.0);
    }
    uint i = scale_index(row, cols, block);
    float s = half_at(scale, i);
    if (AFFINE != 0) {
        return vec2(s, half_at(bias, i));
    }
    return vec2(s, TYPE == WEIGHT_Q4 ? -8.0 * s : 0.0);
}

vec4 nibbles(uint word)
{
    return vec4(word & 15u, (word >> 8) & 15u, (word >> 16) & 15u, (word >> 24) & 15u);
}

vec4 signed_bytes(uint word)
{
    int i = int(word);
    return vec4(bitfieldExtract(i, 0, 8), bitfieldExtract(i, 8, 8), bitfieldExtract(i, 16, 8), i >> 24);
}

/* Elements 4 * i .. 4 * i + 3 of a block, i < VECS. */
vec4 unpack(uvec4 raw, vec2 affine, uint i)
{
    if (TYPE == WEIGHT_Q4) {
        return nibbles(i < 4 ? raw[i] : raw[i - 4] >> 4) * affine.x + affine.y;
    }
    if (TYPE == WEIGHT_Q8) {
        return signed_bytes(raw[i]) * affine.x + affine.y;
    }
    if (TYPE == WEIGHT_F32) {
        return uintBitsToFloat(raw);
    }
    uvec2 pairs = i == 0 ? raw.xy : raw.zw;
    if (TYPE == WEIGHT_F16) {
        return vec4(unpackHalf2x16(pairs.x), unpackHalf2x16(pairs.y));
    }
    return uintBitsToFloat(uvec4(pairs.x << 16, pairs.x & 0xffff0000u, pairs.y << 16, pairs.y & 0xffff0000u));
}

uvec2 advance(uvec2 address, uint bytes)
{
    uint carry, low = uaddCarry(address.x, bytes, carry);
    return uvec2(low, address.y + carry);
}
