/* SPDX-License-Identifier: MIT */
/* One token times a quantized matrix: what suits gemv.comp, how it is specialized and recorded. */
#include <string.h>

#include "vk.h"

/* Of the workgroup's shared memory: z in two bytes per element, and a block's scale and sum. */
static uint32_t shared_bytes(const struct weight *w)
{
    return w->cols * 2 + w->cols / vk_block_of(w->type) * 8;
}

bool vk_gemv_fits(const struct backend *backend, const struct weight *w)
{
    const struct vkc_physical *physical = &backend->device->physical;
    const uint32_t for_reductions = 512;
    return (w->type == WEIGHT_Q4 || w->type == WEIGHT_Q8) && w->cols % 32 == 0 &&
           weight_bytes(w) <= UINT32_MAX && /* offsets are of 32 bits */
           physical->has_int_dot && physical->has_shuffle && physical->subgroup_size >= 8 &&
           shared_bytes(w) + for_reductions <= physical->props.limits.maxComputeSharedMemorySize;
}

struct vk_gemv_shape vk_gemv_shape(const struct weight *w, uint32_t prologue, bool glu)
{
    return (struct vk_gemv_shape){
        .type = w->type,
        .affine = w->bias_off != 0,
        .group = w->group,
        .cols = w->cols,
        .units = glu ? w->rows / 2 : w->rows,
        .normed = prologue == GEMV_NORM || prologue == GEMV_ADD_NORM,
        .glu = glu,
    };
}

/*
 * A workgroup's size that leaves few of the device's invocations without a row: units are dealt out
 * evenly, so what counts is how full the last round is. In thousandths of a round's rows: lower is
 * better.
 */
static uint32_t balance(const struct vkc_physical *physical, const struct vk_gemv_shape *shape,
                        struct vk_gemv_tuning *t)
{
    const uint32_t busy = 1536; /* invocations on a compute unit, of its registers' worth */
    uint32_t subgroup = physical->subgroup_size, best_waste = UINT32_MAX;
    uint32_t max_wg = physical->props.limits.maxComputeWorkGroupInvocations;
    max_wg = max_wg < 1024 ? max_wg : 1024;
    if (physical->has_size_control && max_wg > physical->max_subgroups * subgroup) {
        max_wg = physical->max_subgroups * subgroup;
    }
    for (uint32_t wg = subgroup * 4; wg <= max_wg && wg * t->per_cu <= busy; wg += subgroup) {
        uint64_t round = (uint64_t)wg / t->lanes * t->rows * t->per_cu * physical->compute_units;
        uint64_t rounds = (shape->units + round - 1) / round;
        uint32_t waste = (uint32_t)((rounds * round - shape->units) * 1000 / shape->units);
        /* half-empty compute units do not fill the memory's pipes either */
        waste += wg * t->per_cu < 512 ? 300 : 0;
        if (waste <= best_waste) {
            best_waste = waste;
            t->wg = wg;
        }
    }
    return best_waste;
}

uint32_t vk_gemv_candidates(const struct backend *backend, const struct vk_gemv_shape *shape,
                            struct vk_gemv_tuning *ret, uint32_t cap)
{
    static const uint32_t unrolls[] = {4, 2, 1, 7};
    const struct vkc_physical *physical = &backend->device->physical;
    uint32_t waste[64], n = 0;
    uint32_t mats = shape->glu ? 2 : 1, blocks = shape->cols / vk_block_of(shape->type);
    cap = cap < 64 ? cap : 64;
    for (uint32_t lanes = 8; lanes <= 32 && lanes <= physical->subgroup_size; lanes *= 2) {
        for (uint32_t i = 0; i < 12 * 4; i++) {
            struct vk_gemv_tuning t = {.lanes = lanes,
                                       .rows = 1u << i % 3,
                                       .per_cu = 1 + i / 3 % 4,
                                       .unroll = unrolls[i / 12]};
            uint32_t loads = t.rows * t.unroll * mats, step = lanes * t.unroll;
            uint32_t steps = (blocks + step - 1) / step;
            if (shape->units % t.rows || loads < 2 || loads > 8 ||
                (t.unroll > 1 && step > blocks + lanes)) {
                continue;
            }
            uint32_t w = balance(physical, shape, &t);
            if (w == UINT32_MAX) {
                continue;
            }
            w += (steps * step - blocks) * 1000 / blocks / 2;
            uint32_t at = n < cap ? n++ : cap;
            for (; at > 0 && waste[at - 1] > w; at--) {
                if (at < cap) {
                    waste[at] = waste[at - 1];
                    ret[at] = ret[at - 1];
                }
            }
            if (at < cap) {
                waste[at] = w;
                ret[at] = t;
            }
        }
    }
    return n;
}

static struct vk_gemv_tuning guess(const struct backend *backend, const struct vk_gemv_shape *shape)
{
    const struct vkc_physical *physical = &backend->device->physical;
    struct vk_gemv_tuning best;
    if (physical->props.deviceType != VK_PHYSICAL_DEVICE_TYPE_CPU &&
        vk_gemv_candidates(backend, shape, &best, 1) == 1) {
        return best;
    }
    uint32_t lanes = physical->subgroup_size < 8 ? physical->subgroup_size : 8;
    uint32_t rows = shape->units % 4 ? 1 : shape->glu ? 2 : 4;
    return (struct vk_gemv_tuning){physical->subgroup_size, lanes, rows, 1, 1};
}

struct vk_gemv_tuning vk_gemv_tuning(const struct backend *backend,
                                     const struct vk_gemv_shape *shape)
{
    for (uint32_t i = 0; i < backend->n_choices; i++) {
        if (memcmp(&backend->choices[i].shape, shape, sizeof *shape) == 0) {
            return backend->choices[i].tuning;
        }
    }
    return guess(backend, shape);
}

int vk_gemv_pipeline(struct backend *backend, const struct vk_gemv_shape *shape, uint32_t prologue,
                     const struct vk_gemv_tuning *tuning, struct err *err, VkPipeline *ret)
{
    uint32_t spec[] = {
        [SPEC_WG] = tuning->wg,
        [SPEC_SLOTS] = vkc_subgroups(&backend->device->physical, tuning->wg),
        [SPEC_TYPE] = shape->type,
        [SPEC_AFFINE] = shape->affine,
        [SPEC_GROUP] = shape->group,
        [SPEC_COLS] = shape->cols,
        [SPEC_LANES] = tuning->lanes,
        [SPEC_GEMV_ROWS] = tuning->rows,
        [SPEC_UNROLL] = tuning->unroll,
        [SPEC_PROLOGUE] = prologue,
        [SPEC_GLU] = shape->glu,
    };
    return vkc_pipeline_get(backend->device, SHADER_gemv, spec, sizeof spec / sizeof spec[0], err,
                            ret);
}

int vk_record_gemv(struct backend_state *state, VkCommandBuffer cmd, const struct weight *w,
                   const struct vk_gemv_input *input, uint64_t out, bool glu, const char *name,
                   const struct vk_gemv_tuning *tuning, struct err *err)
{
    struct backend_model *bm = state->bm;
    struct backend *backend = bm->backend;
    struct vk_gemv_shape shape = vk_gemv_shape(w, input->prologue, glu);
    struct vk_gemv_tuning chosen = tuning ? *tuning : vk_gemv_tuning(backend, &shape);
    VkPipeline pipeline;
    int r = vk_gemv_pipeline(backend, &shape, input->prologue, &chosen, err, &pipeline);
    if (r < 0) {
        return r;
    }
    uint64_t data = vk_weights_address(&bm->weights, w->data_off);
    struct push_gemv push = {
        .data = data,
        .scale = vk_weights_address(&bm->weights, w->scale_off),
        .bias = w->bias_off ? vk_weights_address(&bm->weights, w->bias_off) : data,
        .x = input->x,
        .y = input->y,
        .post = input->post,
        .next = input->next,
        .x_out = input->x_out,
        .out_ = out,
        .step_p = state->step.address,
        .units = shape.units,
        .eps = bm->model->config.rms_eps,
    };
    uint32_t per_group = chosen.wg / chosen.lanes * chosen.rows;
    uint32_t needed = (shape.units + per_group - 1) / per_group;
    uint32_t fill = backend->device->physical.compute_units * chosen.per_cu;
    vkc_dispatch(backend->device, cmd, pipeline, &push, sizeof push, needed < fill ? needed : fill,
                 1, 1);
    vk_mark(state, cmd, name);
    return 0;
}
