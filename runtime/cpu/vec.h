/* SPDX-License-Identifier: MIT */
/*
 * Float vectors as wide as the instruction set this file is compiled for: 16, 8 or 4 lanes, with
 * the compiler's vector types, so that kernels_float.h is written once. Private to the kernel
 * files: each has its own copy under its own -m flags, and everything here is static.
 */
#ifndef CPU_VEC_H
#define CPU_VEC_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "half.h"

#if defined(__AVX512F__)
#define VEC 16
#elif defined(__AVX2__)
#define VEC 8
#else
#define VEC 4
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(VEC * 4)));
typedef int32_t vi __attribute__((vector_size(VEC * 4)));
typedef uint16_t vu16 __attribute__((vector_size(VEC * 2)));
typedef int8_t vi8 __attribute__((vector_size(VEC)));

INLINE vf vf_load(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void vf_store(float *p, vf v)
{
    memcpy(p, &v, sizeof v);
}

INLINE vf vf_set(float x)
{
    return x - (vf){0};
}

/* mask is all ones or all zeros in each lane, as comparisons make it. */
INLINE vf vf_select(vi mask, vf a, vf b)
{
    return (vf)(((vi)a & mask) | ((vi)b & ~mask));
}

INLINE vf vf_max(vf a, vf b)
{
    return vf_select(a > b, a, b);
}

INLINE vf vf_min(vf a, vf b)
{
    return vf_select(a < b, a, b);
}

INLINE vf vf_abs(vf a)
{
    return (vf)((vi)a & 0x7fffffff);
}

INLINE float vf_sum(vf v)
{
#if VEC == 16
    return _mm512_reduce_add_ps((__m512)v);
#else
    float sum = 0;
    for (int i = 0; i < VEC / 2; i++) {
        sum += v[i] + v[i + VEC / 2];
    }
    return sum;
#endif
}

INLINE float vf_peak(vf v)
{
#if VEC == 16
    return _mm512_reduce_max_ps((__m512)v);
#else
    float peak = v[0];
    for (int i = 1; i < VEC; i++) {
        peak = peak > v[i] ? peak : v[i];
    }
    return peak;
#endif
}

INLINE vf vf_load_bf16(const uint16_t *p)
{
    vu16 half;
    memcpy(&half, p, sizeof half);
    return (vf)(__builtin_convertvector(half, vi) << 16);
}

INLINE vf vf_load_f16(const uint16_t *p)
{
#if VEC == 16
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
#elif VEC == 8
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
#else
    vf v;
    for (int i = 0; i < VEC; i++) {
        v[i] = f16_to_f32(p[i]);
    }
    return v;
#endif
}

/* The nearest integer (ties to even) of each lane, for |x| < 2^22: adding 1.5 * 2^23 leaves no
 * bits behind the point. */
#define VF_ROUND 12582912.0f

INLINE vi vf_round(vf x)
{
    return (vi)(x + VF_ROUND) - (vi)vf_set(VF_ROUND);
}

/*
 * e^x to 2 units in the last place (Cephes' expf: argument reduced by ln 2 in two parts, then a
 * polynomial); below -87 it stays at e^-87, above 88 at e^88.
 */
INLINE vf vf_exp(vf x)
{
    x = vf_min(vf_max(x, vf_set(-87.0f)), vf_set(88.0f));
    vi n = vf_round(x * 1.44269504088896341f);
    vf fn = __builtin_convertvector(n, vf);
    vf r = x - fn * 0.693359375f;
    r = r - fn * -2.12194440e-4f;
    vf p = vf_set(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    vf y = p * (r * r) + r + 1.0f;
    return y * (vf)((n + 127) << 23);
}

#endif
