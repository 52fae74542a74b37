/* SPDX-License-Identifier: MIT */
/* A timeline's memory: KV cache and activations, in one lazily populated mapping. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "cpu_internal.h"

/* Lays arrays out one after the other: once without a base, to learn the size. */
struct arena {
    uint8_t *base;
    size_t used;
};

static void *take(struct arena *arena, size_t n, size_t size)
{
    void *p = arena->base ? arena->base + arena->used : NULL;
    arena->used += (n * size + 63) / 64 * 64;
    return p;
}

static float *take_floats(struct arena *arena, size_t n)
{
    return take(arena, n, sizeof(float));
}

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static void take_act(struct arena *arena, struct act_buffer *act, uint32_t n, uint32_t cols)
{
    act->q_stride = round_up(cols, 128); /* kernels read whole blocks and ignore the rest */
    act->g_stride = round_up((cols + ACT_GROUP - 1) / ACT_GROUP, 16);
    act->q = take(arena, n, act->q_stride);
    act->scale = take_floats(arena, n * act->g_stride);
    act->sum = take_floats(arena, n * act->g_stride);
}

/* Positions that a layer keeps: all, or the window and what batches and rewinds need beside it. */
static uint32_t kv_capacity(const struct backend_state *s, uint32_t layer)
{
    const struct model_config *c = &s->model->config;
    uint64_t keep = s->max_pos;
    if (!c->layer_is_global[layer] && (uint64_t)c->window + CPU_MAX_BATCH < keep) {
        keep = c->window + CPU_MAX_BATCH;
    }
    return (uint32_t)round_up(keep, ATTN_BLOCK);
}

/* KV cache; returns its bytes. */
static size_t lay_out_kv(struct backend_state *s, struct arena *arena)
{
    const struct model_config *c = &s->model->config;
    size_t start = arena->used;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        struct kv_cache *kv = &s->kv[i];
        kv->capacity = kv_capacity(s, i);
        size_t n = (size_t)c->n_kv_heads * kv->capacity * s->head_stride;
        kv->k = take_floats(arena, n);
        kv->v = take_floats(arena, n);
    }
    return arena->used - start;
}

static void lay_out_activations(struct backend_state *s, struct arena *arena)
{
    const struct model_config *c = &s->model->config;
    uint32_t n = s->max_batch, n_threads = pool_n_threads(s->backend->pool);
    uint32_t attn = c->n_heads * c->head_dim;
    size_t heads = (size_t)c->n_heads * s->head_stride;
    size_t segments = round_up(s->max_pos, ATTN_SEGMENT) / ATTN_SEGMENT + 1;

    s->x = take_floats(arena, n * s->hidden_stride);
    s->y = take_floats(arena, n * s->hidden_stride);
    s->z = take_floats(arena, n * s->hidden_stride);
    s->qkv = take_floats(arena, n * s->qkv_stride);
    s->q = take_floats(arena, n * heads);
    s->attn = take_floats(arena, n * s->attn_stride);
    s->gate_up = take_floats(arena, n * 2 * s->ffn_stride);
    s->h = take_floats(arena, n * s->ffn_stride);
    take_act(arena, &s->act_in, n, max_u32(c->hidden, attn));
    take_act(arena, &s->act_ffn, n, c->ffn);
    s->rope[0] = take_floats(arena, (size_t)n * c->head_dim);
    s->rope[1] = take_floats(arena, (size_t)n * c->head_dim);
    s->part = take(arena, segments * c->n_heads, sizeof *s->part);
    s->part_out = take_floats(arena, segments * heads);

    size_t panel = s->backend->kernels->matmul_scratch(max_u32(max_u32(c->hidden, attn), c->ffn));
    size_t attn_scratch = 2 * heads * sizeof(float) + 2 * c->n_heads * sizeof(struct attn_part);
    s->scratch_bytes = round_up(panel > attn_scratch ? panel : attn_scratch, 4096);
    s->scratch = take(arena, n_threads, s->scratch_bytes);
}

int cpu_state_create(struct backend_model *bm, uint32_t max_pos, struct err *err,
                     struct backend_state **ret, uint32_t *ret_rewind_max, uint64_t *ret_kv_bytes)
{
    const struct model_config *c = &bm->model->config;
    struct backend_state *s = calloc(1, sizeof *s);
    if (!s) {
        return err_set(err, -ENOMEM, "cpu: out of memory");
    }
    s->backend = bm->backend;
    s->bm = bm;
    s->model = bm->model;
    s->max_pos = max_pos;
    s->max_batch = max_pos < CPU_MAX_BATCH ? max_pos : CPU_MAX_BATCH;
    s->max_batch = max_u32(s->max_batch, CPU_MAX_SEQUENCES); /* it may lend its activations */
    s->hidden_stride = round_up(c->hidden, 16);
    s->qkv_stride = round_up((size_t)(c->n_heads + 2 * c->n_kv_heads) * c->head_dim, 16);
    s->attn_stride = round_up((size_t)c->n_heads * c->head_dim, 16);
    s->ffn_stride = round_up(c->ffn, 16);
    s->head_stride = (uint32_t)round_up(c->head_dim, 16);
    s->kv = calloc(c->n_layers, sizeof *s->kv);
    if (!s->kv) {
        cpu_state_destroy(s);
        return err_set(err, -ENOMEM, "cpu: out of memory");
    }

    struct arena measure = {0};
    size_t kv_bytes = lay_out_kv(s, &measure);
    lay_out_activations(s, &measure);
    void *memory = mmap(NULL, measure.used, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        int r = -errno;
        cpu_state_destroy(s);
        return err_set(err, r, "cpu: no memory for a context of %u tokens (%zu MiB)", max_pos,
                       measure.used >> 20);
    }
    s->memory = memory;
    s->memory_bytes = measure.used;
    struct arena arena = {.base = memory};
    lay_out_kv(s, &arena);
    lay_out_activations(s, &arena);

    uint32_t rewind_max = UINT32_MAX;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        if (s->kv[i].capacity < max_pos) {
            rewind_max = CPU_MAX_BATCH;
        }
    }
    *ret = s;
    *ret_rewind_max = rewind_max;
    *ret_kv_bytes = kv_bytes;
    return 0;
}

void cpu_state_destroy(struct backend_state *s)
{
    if (!s) {
        return;
    }
    if (s->memory) {
        munmap(s->memory, s->memory_bytes);
    }
    free(s->kv);
    free(s);
}
