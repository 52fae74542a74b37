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

float half_at(U32 array, uint i)
{
    vec2 pair = unpackHalf2x16(array.v[i / 2]);
    return (i & 1) != 0 ? pair.y : pair.x;
}

/* (s, b) of w = s * q + b for a block of a row; (1, 0) for float types. */
vec2 block_affine(U32 scale, U32 bias, uint row, uint cols, uint block)
{
    if (!QUANTIZED) {
        return vec2(1.0, 0.0);
    }
    uint i = row * (cols / GROUP) + block * BLOCK / GROUP;
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

/* w[0 .. VECS) = the block's elements in order. */
void unpack_block(uvec4 raw, vec2 affine, out vec4 w[8])
{
    if (TYPE == WEIGHT_Q4) {
        for (uint i = 0; i < 4; i++) {
            w[i] = nibbles(raw[i]) * affine.x + affine.y;
            w[4 + i] = nibbles(raw[i] >> 4) * affine.x + affine.y;
        }
    } else if (TYPE == WEIGHT_Q8) {
        for (uint i = 0; i < 4; i++) {
            w[i] = signed_bytes(raw[i]) * affine.x + affine.y;
        }
    } else if (TYPE == WEIGHT_F16) {
        w[0] = vec4(unpackHalf2x16(raw.x), unpackHalf2x16(raw.y));
        w[1] = vec4(unpackHalf2x16(raw.z), unpackHalf2x16(raw.w));
    } else if (TYPE == WEIGHT_BF16) {
        uvec4 low = raw << 16;
        uvec4 high = raw & 0xffff0000u;
        w[0] = uintBitsToFloat(uvec4(low.x, high.x, low.y, high.y));
        w[1] = uintBitsToFloat(uvec4(low.z, high.z, low.w, high.w));
    } else {
        w[0] = uintBitsToFloat(raw);
    }
}
