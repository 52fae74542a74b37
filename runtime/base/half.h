/* SPDX-License-Identifier: MIT */
/*
 * 16-bit floats in plain C: IEEE binary16 and bfloat16 to float32 and back, rounding to nearest
 * even. Exact in every case (subnormals, infinities, NaN). Not meant for inner loops that matter.
 */
#ifndef BASE_HALF_H
#define BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float f32_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t f32_to_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float bf16_to_f32(uint16_t h)
{
    return f32_from_bits((uint32_t)h << 16);
}

static inline uint16_t f32_to_bf16(float f)
{
    uint32_t x = f32_to_bits(f);
    if ((x & 0x7fffffff) > 0x7f800000) {
        return (uint16_t)(x >> 16 | 0x40); /* a quiet NaN stays one */
    }
    return (uint16_t)((x + 0x7fff + (x >> 16 & 1)) >> 16);
}

static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t rest = h & 0x7fff;
    if (rest >= 0x7c00) {
        return f32_from_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    }
    if (rest < 0x400) {
        float f = (float)rest * 0x1p-24f;
        return sign ? -f : f;
    }
    return f32_from_bits(sign | ((rest << 13) + ((127u - 15) << 23)));
}

static inline uint16_t f32_to_f16(float f)
{
    uint32_t x = f32_to_bits(f);
    uint16_t sign = (uint16_t)(x >> 16 & 0x8000);
    x &= 0x7fffffff;
    if (x > 0x7f800000) {
        return (uint16_t)(sign | 0x7e00 | (x >> 13 & 0x3ff));
    }
    if (x >= 0x477ff000) { /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00);
    }
    if (x < 0x38800000) { /* subnormal: the float adder does the rounding */
        uint32_t y = f32_to_bits(f32_from_bits(x) + 0.5f) - 0x3f000000;
        return (uint16_t)(sign | y);
    }
    x += 0xfff + (x >> 13 & 1);
    return (uint16_t)(sign | ((x - ((127u - 15) << 23)) >> 13));
}

#endif
