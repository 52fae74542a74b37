/* SPDX-License-Identifier: MIT */
/* A few tokens times a quantized matrix: what suits few.comp, how it is specialized and recorded.
 */
#include <math.h>

#include "vk.h"

#define TOKENS_MAX     16 /* of a workgroup: each takes a register for every row */
#define CANDIDATES_MAX 16

/* Of z: 16-byte vectors of a block. */
static uint32_t planes_of(uint32_t type)
{
    return vk_block_of(type) / 8;
}

static uint32_t shared_bytes(uint32_t type, const struct vk_few_tuning *t)
{
    return t->tokens * t->lanes * t->unroll * (planes_of(type) * 16 + 8);
}

static uint32_t units_of(const struct weight *w, bool glu)
{
    return glu ? w->rows / 2 : w->rows;
}

bool vk_few_possible(const struct backend *backend, const struct weight *w)
{
    const struct vkc_physical *physical = &backend->device->physical;
    return (w->type == WEIGHT_Q4 || w->type == WEIGHT_Q8) && w->cols % 32 == 0 &&
           physical->has_int_dot && physical->has_shuffle && physical->subgroup_size >= 8;
}

struct vk_few_shape vk_few_shape(const struct weight *w, uint32_t batch, bool glu)
{
    return (struct vk_few_shape){
        .type = w->type,
        .affine = w->bias_off != 0,
        .group = w->group,
        .cols = w->cols,
        .rows = w->rows,
        .glu = glu,
        .batch = batch,
    };
}

bool vk_few_fits(const struct backend *backend, const struct weight *w, uint32_t batch)
{
    if (batch < 2 || batch > STEP_ROWS_MAX || !vk_few_possible(backend, w)) {
        return false;
    }
    for (int glu = 0; glu < 2; glu++) {
        struct vk_few_shape shape = vk_few_shape(w, batch, glu);
        const struct vk_few_choice *choice = vk_few_find(backend, &shape);
        if (choice) {
            return choice->tuning.tokens > 0;
        }
    }
    return batch <= backend->tuning.few_max || !vk_gemm_fits(backend, w);
}

/*
 * Clocks of a compute unit that a subgroup of 32 spends on a block of each of its rows, roughly,
 * for the order of candidates: the memory's share, the integer dot products, the reading of z from
 * shared memory, and what whole rounds of workgroups waste.
 */
static double cost(const struct vkc_physical *physical, const struct weight *w, bool glu,
                   const struct vk_few_tuning *t)
{
    const double bytes_per_clock = 15, busy = 1024; /* invocations on a compute unit */
    uint32_t mats = glu ? 2 : 1, blocks = w->cols / vk_block_of(w->type);
    uint32_t planes = planes_of(w->type), tile = t->lanes * t->unroll;
    double rows_at_once = t->rows * mats, rows = t->wg / t->lanes * rows_at_once;
    double z_share = t->tokens * (planes * 16 + 8) / (rows * 17);
    double memory = 32 * 17 / bytes_per_clock * (1 + z_share / 2);
    double alu = t->tokens * (4 * planes * 0.5 + 1.5);
    double shared = t->tokens * (planes + 1) * (t->lanes / 8) / rows_at_once;
    double longest = fmax(memory, fmax(alu, shared));
    double clocks = longest + (memory + alu + shared - longest) / 4;
    double groups = ceil(units_of(w, glu) / (rows / mats));
    double slots = physical->compute_units * floor(busy / t->wg);
    double idle = ceil(groups / slots) * slots / groups;
    return clocks * idle * (blocks + tile - 1) / tile * tile / blocks;
}

static bool suits(const struct vkc_physical *physical, const struct weight *w, bool glu,
                  const struct vk_few_tuning *t)
{
    const VkPhysicalDeviceLimits *limits = &physical->props.limits;
    uint32_t rows_at_once = t->rows * (glu ? 2 : 1), per_group = t->wg / t->lanes * t->rows;
    return t->wg % physical->subgroup_size == 0 && t->lanes <= physical->subgroup_size &&
           t->wg <= limits->maxComputeWorkGroupInvocations && rows_at_once * t->unroll <= 4 &&
           rows_at_once * t->tokens <= 32 &&
           shared_bytes(w->type, t) <= limits->maxComputeSharedMemorySize &&
           (units_of(w, glu) + per_group - 1) / per_group <= 65535;
}

uint32_t vk_few_candidates(const struct backend *backend, const struct weight *w, uint32_t batch,
                           bool glu, struct vk_few_tuning *ret, uint32_t cap)
{
    const struct vkc_physical *physical = &backend->device->physical;
    double costs[CANDIDATES_MAX];
    uint32_t n = 0;
    cap = cap < CANDIDATES_MAX ? cap : CANDIDATES_MAX;
    for (uint32_t i = 0; i < 2 * 3 * 3 * 2; i++) {
        struct vk_few_tuning t = {.wg = 128u << i % 2,
                                  .lanes = 8u << i / 2 % 3,
                                  .rows = 1u << i / 6 % 3,
                                  .unroll = 1u << i / 18,
                                  .tokens = batch < TOKENS_MAX ? batch : TOKENS_MAX};
        if (!suits(physical, w, glu, &t)) {
            continue;
        }
        double clocks = cost(physical, w, glu, &t);
        uint32_t at = n < cap ? n++ : cap;
        for (; at > 0 && costs[at - 1] > clocks; at--) {
            if (at < cap) {
                costs[at] = costs[at - 1];
                ret[at] = ret[at - 1];
            }
        }
        if (at < cap) {
            costs[at] = clocks;
            ret[at] = t;
        }
    }
    return n;
}

struct vk_few_tuning vk_few_tuning(const struct backend *backend, const struct weight *w,
                                   uint32_t batch, bool glu)
{
    const struct vkc_physical *physical = &backend->device->physical;
    struct vk_few_tuning best = {.wg = 2 * physical->subgroup_size,
                                 .lanes = 8,
                                 .rows = glu ? 1 : 2,
                                 .unroll = 1,
                                 .tokens = batch < TOKENS_MAX ? batch : TOKENS_MAX};
    if (backend->few && suits(physical, w, glu, backend->few)) {
        return *backend->few;
    }
    struct vk_few_shape shape = vk_few_shape(w, batch, glu);
    const struct vk_few_choice *choice = vk_few_find(backend, &shape);
    if (choice && choice->tuning.tokens && suits(physical, w, glu, &choice->tuning)) {
        return choice->tuning;
    }
    if (physical->props.deviceType != VK_PHYSICAL_DEVICE_TYPE_CPU) {
        vk_few_candidates(backend, w, batch, glu, &best, 1);
    }
    return best;
}

static int quantize_pipeline(struct backend *backend, const struct weight *w, uint32_t prologue,
                             struct err *err, VkPipeline *ret)
{
    uint32_t wg = backend->tuning.quantize_wg;
    uint32_t spec[] = {
        [SPEC_WG] = wg,        [SPEC_SLOTS] = vkc_subgroups(&backend->device->physical, wg),
        [SPEC_TYPE] = w->type, [SPEC_GROUP] = w->group,
        [SPEC_COLS] = w->cols, [SPEC_PROLOGUE] = prologue,
    };
    return vkc_pipeline_get(backend->device, SHADER_quantize, spec, sizeof spec / sizeof spec[0],
                            err, ret);
}

int vk_few_pipeline(struct backend *backend, const struct weight *w, const struct vk_few_tuning *t,
                    bool glu, struct err *err, VkPipeline *ret)
{
    uint32_t spec[] = {
        [SPEC_WG] = t->wg,         [SPEC_SLOTS] = vkc_subgroups(&backend->device->physical, t->wg),
        [SPEC_TYPE] = w->type,     [SPEC_AFFINE] = w->bias_off != 0,
        [SPEC_GROUP] = w->group,   [SPEC_COLS] = w->cols,
        [SPEC_LANES] = t->lanes,   [SPEC_GEMV_ROWS] = t->rows,
        [SPEC_UNROLL] = t->unroll, [SPEC_FEW_TOKENS] = t->tokens,
        [SPEC_GLU] = glu,
    };
    return vkc_pipeline_get(backend->device, SHADER_few, spec, sizeof spec / sizeof spec[0], err,
                            ret);
}

int vk_record_few(struct backend_state *state, VkCommandBuffer cmd, const struct weight *w,
                  const struct vk_gemv_input *input, uint64_t out, bool glu, uint32_t batch,
                  const char *name, struct err *err)
{
    const struct backend_model *bm = state->bm;
    struct backend *backend = bm->backend;
    struct vk_few_tuning t = vk_few_tuning(backend, w, batch, glu);
    VkPipeline quantize, few;
    int r = quantize_pipeline(backend, w, input->prologue, err, &quantize);
    if (r == 0) {
        r = vk_few_pipeline(backend, w, &t, glu, err, &few);
    }
    if (r < 0) {
        return r;
    }
    struct push_quantize z = {
        .x = input->x,
        .y = input->y,
        .post = input->post,
        .next = input->next,
        .x_out = input->x_out,
        .xq = state->acts.address + state->act_off[ACT_HALF],
        .meta = state->acts.address + state->act_off[ACT_BLOCKS],
        .step_p = state->step.address,
        .eps = bm->model->config.rms_eps,
    };
    vkc_dispatch(backend->device, cmd, quantize, &z, sizeof z, batch, 1, 1);
    vk_mark(state, cmd, "quantize");
    vkc_barrier(backend->device, cmd, VKC_SHADER_TO_SHADER);
    uint64_t data = vk_weights_address(&bm->weights, w->data_off);
    struct push_few push = {
        .data = data,
        .scale = vk_weights_address(&bm->weights, w->scale_off),
        .bias = w->bias_off ? vk_weights_address(&bm->weights, w->bias_off) : data,
        .xq = z.xq,
        .meta = z.meta,
        .out_ = out,
        .step_p = z.step_p,
        .units = units_of(w, glu),
    };
    uint32_t per_group = t.wg / t.lanes * t.rows;
    vkc_dispatch(backend->device, cmd, few, &push, sizeof push, (batch + t.tokens - 1) / t.tokens,
                 (push.units + per_group - 1) / per_group, 1);
    vk_mark(state, cmd, name);
    return 0;
}
