/* SPDX-License-Identifier: MIT */
/*
 * int4 and int8 weights as f16, two at a time: those 16 bits apart in a word, which of a run of four
 * elements are 0 and 2, or, of a word shifted by 8, 1 and 3. So elements 1 and 2 of four change
 * places; where x has them changed too (half.glsl), a sum does not care. affine: see block_affine().
 */
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require

uint scaled(f16vec2 q, f16vec2 affine)
{
    return packFloat2x16(AFFINE != 0 ? q * affine.x + affine.y : q * affine.x);
}

/* Two nibbles as what they stand for: 1024 + q is 0x6400 | q in f16, */
uint low(uint word, f16vec2 affine)
{
    f16vec2 q = unpackFloat2x16((word & 0x000f000fu) | 0x64006400u) - float16_t(AFFINE != 0 ? 1024.0 : 1032.0);
    return scaled(q, affine);
}

/* 1024 + 16 q is 0x6400 | q << 4: exact, and without a shift; */
uint high(uint word, f16vec2 affine)
{
    f16vec2 q = unpackFloat2x16((word & 0x00f000f0u) | 0x64006400u) * float16_t(0.0625) -
                float16_t(AFFINE != 0 ? 64.0 : 72.0);
    return scaled(q, affine);
}

/* and of two signed bytes, 1024 + 128 + q is 0x6400 | (q ^ 0x80). */
uint bytes(uint word, f16vec2 affine)
{
    f16vec2 q = unpackFloat2x16((word & 0x00ff00ffu) ^ 0x64806480u) - float16_t(1152.0);
    return scaled(q, affine);
}
