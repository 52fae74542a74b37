/* SPDX-License-Identifier: MIT */
/* One row of weights to int4 or int8 groups: see quantize_row.h. */
#include "quantize_row.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "half.h"
#include "model.h"

#define GROUP_MAX 128
#define INLINE    inline __attribute__((always_inline))

/* Eight floats: sums are kept in eight lanes, so that SSE2 and AVX2 add in the same order. */
#define LANES 8
typedef float v8 __attribute__((vector_size(4 * LANES)));
typedef int32_t v8i __attribute__((vector_size(4 * LANES)));

static INLINE void load(v8 *ret, const float *p)
{
    memcpy(ret, p, sizeof *ret);
}

/* x where mask, else y. */
static INLINE void blend(v8 *ret, const v8i *mask, const v8 *x, const v8 *y)
{
    *ret = (v8)((*mask & (v8i)*x) | (~*mask & (v8i)*y));
}

static INLINE float sum_lanes(const v8 *v)
{
    float sum = 0;
    for (int i = 0; i < LANES; i++) {
        sum += (*v)[i];
    }
    return sum;
}

/* To the nearest integer, ties to even, for |x| < 2^22; unlike rintf() it is plain arithmetic. */
static INLINE float round_even(float x)
{
    const float magic = 0x1.8p23f;
    return (x + magic) - magic;
}

static INLINE float clamp(float x, float lo, float hi)
{
    x = x < lo ? lo : x;
    return x > hi ? hi : x;
}

/* q = w / s, rounded into -8..7. */
static INLINE void q4_round(const float *w, uint32_t group, float s, float *q)
{
    const v8 lo = (v8){0} - 8, hi = (v8){0} + 7, magic = (v8){0} + 0x1.8p23f;
    float inverse = s != 0 ? 1 / s : 0;
    for (uint32_t i = 0; i < group; i += LANES) {
        v8 x;
        load(&x, w + i);
        x *= inverse;
        v8i below = x<lo, above = x> hi;
        blend(&x, &below, &lo, &x);
        blend(&x, &above, &hi, &x);
        x = (x + magic) - magic;
        memcpy(q + i, &x, sizeof x);
    }
}

/* The scale that fits q best, or s if q is all zero. */
static INLINE float q4_refit(const float *w, uint32_t group, const float *q, float s)
{
    v8 qq = {0}, qw = {0};
    for (uint32_t i = 0; i < group; i += LANES) {
        v8 x, y;
        load(&x, w + i);
        load(&y, q + i);
        qq += y * y;
        qw += y * x;
    }
    float den = sum_lanes(&qq);
    return den > 0 ? sum_lanes(&qw) / den : s;
}

static INLINE float q4_error(const float *w, uint32_t group, const float *q, float s)
{
    v8 error = {0};
    for (uint32_t i = 0; i < group; i += LANES) {
        v8 x, y;
        load(&x, w + i);
        load(&y, q + i);
        v8 d = x - s * y;
        error += d * d;
    }
    return sum_lanes(&error);
}

static INLINE float farthest_from_0(const float *w, uint32_t group)
{
    float far = 0;
    for (uint32_t i = 0; i < group; i++) {
        far = fabsf(w[i]) > fabsf(far) ? w[i] : far;
    }
    return far;
}

/* The scale as it will be stored. */
static INLINE float through_f16(float s)
{
    return f16_to_f32(f32_to_f16(s));
}

static INLINE void q4_pack(const float *q, uint32_t group, uint8_t *ret)
{
    for (uint32_t run = 0; run < group; run += 32) {
        for (uint32_t j = 0; j < 16; j++) {
            uint32_t lo = (uint32_t)(q[run + j] + 8), hi = (uint32_t)(q[run + 16 + j] + 8);
            ret[run / 2 + j] = (uint8_t)(lo | hi << 4);
        }
    }
}

static INLINE float q4_search(const float *w, uint32_t group, uint8_t *ret_q)
{
    float q[GROUP_MAX], best_q[GROUP_MAX] = {0};
    float far = farthest_from_0(w, group), best_s = 0, best_error = INFINITY;

    for (int i = 0; i <= 24; i++) {
        float s = through_f16(-far / (6.4f + 0.1f * (float)i));
        q4_round(w, group, s, q);
        s = through_f16(q4_refit(w, group, q, s));
        q4_round(w, group, s, q);
        float error = q4_error(w, group, q, s);
        if (error < best_error) {
            best_error = error;
            best_s = s;
            for (uint32_t k = 0; k < group; k++) {
                best_q[k] = q[k];
            }
        }
    }
    q4_pack(best_q, group, ret_q);
    return best_s;
}

static float q4_plain(const float *w, uint32_t group, uint8_t *ret_q)
{
    return q4_search(w, group, ret_q);
}

#ifdef __x86_64__
/* Without FMA, so that every machine writes the same bytes. */
__attribute__((target("avx2"))) static float q4_avx2(const float *w, uint32_t group, uint8_t *ret_q)
{
    return q4_search(w, group, ret_q);
}
#endif

static float q4_group(const float *w, uint32_t group, uint8_t *ret_q)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2")) {
        return q4_avx2(w, group, ret_q);
    }
#endif
    return q4_plain(w, group, ret_q);
}

static float q8_group(const float *w, uint32_t group, uint8_t *ret_q)
{
    float s = through_f16(fabsf(farthest_from_0(w, group)) / 127);
    float inverse = s != 0 ? 1 / s : 0;
    for (uint32_t i = 0; i < group; i++) {
        ret_q[i] = (uint8_t)(int8_t)round_even(clamp(w[i] * inverse, -127, 127));
    }
    return s;
}

static bool all_in_range(const float *w, uint32_t group)
{
    uint32_t bad = 0;
    for (uint32_t i = 0; i < group; i++) {
        bad += !(fabsf(w[i]) <= 65504); /* then no scale overflows either */
    }
    return bad == 0;
}

int quantize_row(uint32_t type, uint32_t group, const float *w, uint32_t cols, uint8_t *ret_q,
                 uint16_t *ret_scale)
{
    for (uint32_t k = 0; k < cols; k += group) {
        if (!all_in_range(w + k, group)) {
            return -EDOM;
        }
        float s = type == WEIGHT_Q4 ? q4_group(w + k, group, ret_q + k / 2)
                                    : q8_group(w + k, group, ret_q + k);
        ret_scale[k / group] = f32_to_f16(s);
    }
    return 0;
}
