/* SPDX-License-Identifier: MIT */
/*
 * Random weights for tests and for benchmarks of true shapes: a counter-based generator, so that
 * the bytes do not depend on how many threads made them.
 */
#include <math.h>
#include <string.h>

#include "half.h"
#include "image.h"
#include "parallel.h"

/* Enough work per item that 27B shapes are thousands of items, not millions. */
#define ITEM_BYTES (1u << 20)

/* splitmix64's finisher: 64 good bits from a counter. */
static inline uint64_t mix(uint64_t x)
{
    x *= 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

/* Uniform in [-1, 1), mean 0, standard deviation 1 / sqrt(3): lane i of stream key. */
static inline float uniform(uint64_t key, uint64_t i)
{
    return (float)(int32_t)(mix(key + i) >> 32) * 0x1p-31f;
}

/* Turns each byte 0x80 into 0: int8 weights stay in -127..127. */
static inline uint64_t without_minus_128(uint64_t x)
{
    uint64_t t = x ^ 0x8080808080808080;
    uint64_t nonzero = ((t & 0x7f7f7f7f7f7f7f7f) + 0x7f7f7f7f7f7f7f7f) | t;
    return x ^ (~nonzero & 0x8080808080808080);
}

static void random_bytes(uint8_t *data, uint64_t size, uint64_t key, bool int8)
{
    for (uint64_t i = 0; i < size; i += 8) {
        uint64_t x = mix(key + i / 8);
        x = int8 ? without_minus_128(x) : x;
        memcpy(data + i, &x, 8);
    }
}

static void random_f32(float *data, uint64_t n, float mean, float spread, uint64_t key)
{
    for (uint64_t i = 0; i < n; i++) {
        data[i] = mean + spread * uniform(key, i);
    }
}

static void random_half(uint16_t *data, uint64_t n, uint32_t type, float spread, uint64_t key)
{
    for (uint64_t i = 0; i < n; i++) {
        float x = spread * uniform(key, i);
        data[i] = type == WEIGHT_F16 ? f32_to_f16(x) : f32_to_bf16(x);
    }
}

struct matrix_job {
    const struct weight *w;
    uint8_t *base;
    uint64_t key;
    uint32_t rows_per_item;
};

/* Scales (and biases that put the mean of each group near 0) for rows [row, row + n). */
static void random_scales(const struct matrix_job *job, uint32_t row, uint32_t n, float std)
{
    const struct weight *w = job->w;
    uint64_t per_row = w->cols / w->group;
    uint16_t *scale = (uint16_t *)(job->base + w->scale_off) + row * per_row;
    uint16_t *bias = w->bias_off ? (uint16_t *)(job->base + w->bias_off) + row * per_row : NULL;
    uint64_t key = mix(job->key + 1) + row * per_row;
    /* the standard deviation of a uniform nibble is 4.61, of a uniform byte 73.6 */
    float s = std / (w->type == WEIGHT_Q4 ? 4.61f : 73.6f);

    for (uint64_t i = 0; i < n * per_row; i++) {
        float jitter = uniform(key, i);
        scale[i] = f32_to_f16(s * (1 + 0.25f * jitter));
        if (bias) {
            float zero = w->type == WEIGHT_Q4 ? 7.5f : 0;
            bias[i] = f32_to_f16(-s * (zero + 2 * jitter));
        }
    }
}

static void fill_rows(void *data, size_t item)
{
    const struct matrix_job *job = data;
    const struct weight *w = job->w;
    uint32_t row = (uint32_t)item * job->rows_per_item;
    uint32_t n = w->rows - row < job->rows_per_item ? w->rows - row : job->rows_per_item;
    uint64_t row_bytes = weight_data_bytes(w) / w->rows;
    uint8_t *rows = job->base + w->data_off + row * row_bytes;
    /* every row has room for cols counters of its own */
    uint64_t key = mix(job->key) + (uint64_t)row * w->cols;
    float std = 1 / sqrtf((float)w->cols);
    float spread = std * sqrtf(3);

    if (w->group) {
        random_bytes(rows, n * row_bytes, key, w->type == WEIGHT_Q8);
        random_scales(job, row, n, std);
    } else if (w->type == WEIGHT_F32) {
        random_f32((float *)rows, (uint64_t)n * w->cols, 0, spread, key);
    } else {
        random_half((uint16_t *)rows, (uint64_t)n * w->cols, w->type, spread, key);
    }
}

static void fill_matrix(const struct weight *w, uint8_t *base, uint64_t key, uint32_t n_threads)
{
    uint64_t row_bytes = weight_data_bytes(w) / w->rows;
    struct matrix_job job = {.w = w, .base = base, .key = key};
    job.rows_per_item = row_bytes < ITEM_BYTES ? (uint32_t)(ITEM_BYTES / row_bytes) : 1;
    parallel_for(n_threads, (w->rows + job.rows_per_item - 1) / job.rows_per_item, fill_rows, &job);
}

void image_fill_random(const struct model *planned, uint8_t *base, uint64_t seed,
                       uint32_t n_threads)
{
    uint32_t n_slots = image_n_slots(&planned->config);

    image_write_header(planned, base);
    for (uint32_t i = 0; i < n_slots; i++) {
        struct image_slot slot;
        image_slot((struct model *)planned, i, &slot); /* only read through */
        uint64_t key = mix(mix(seed) + i);
        if (slot.matrix) {
            fill_matrix(slot.matrix, base, key, n_threads);
        } else {
            random_f32((float *)(base + *slot.vector_off), slot.cols, 1, 0.5f, key);
        }
    }
}
