/* SPDX-License-Identifier: MIT */
/* Several tokens times a matrix by cooperative matrices: what suits gemm.comp, and its tiles. */
#include <errno.h>

#include "gttd_util.h"
#include "vk.h"

static uint32_t block_of(uint32_t type)
{
    return type == WEIGHT_Q4 ? 32 : type == WEIGHT_Q8 ? 16 : type == WEIGHT_F32 ? 4 : 8;
}

static uint32_t warps(const struct vkc_physical *physical, const struct vk_gemm_tiles *t)
{
    return t->rows / (t->mats * physical->coopmat.m) *
           (t->tokens / (t->mats * physical->coopmat.n));
}

static uint32_t shared_bytes(const struct vk_gemm_tiles *t)
{
    return (t->rows + t->tokens) * (t->k + 8) * 2 * t->buffers;
}

static bool suits(const struct vkc_physical *physical, const struct weight *w,
                  const struct vk_gemm_tiles *t)
{
    uint32_t wg = warps(physical, t) * physical->subgroup_size;
    if (wg == 0) {
        return false;
    }
    uint32_t w_blocks = t->rows * (t->k / block_of(w->type)), x_chunks = t->tokens * (t->k / 8);
    return w->cols % t->k == 0 && w->rows % physical->coopmat.m == 0 && w_blocks % wg == 0 &&
           x_chunks % wg == 0 && t->rows % (t->mats * physical->coopmat.m) == 0 &&
           t->tokens % (t->mats * physical->coopmat.n) == 0 && t->k % physical->coopmat.k == 0 &&
           physical->coopmat.k % 4 == 0 &&
           shared_bytes(t) <= physical->props.limits.maxComputeSharedMemorySize &&
           wg <= physical->props.limits.maxComputeWorkGroupInvocations;
}

struct vk_gemm_shape vk_gemm_shape(const struct weight *w)
{
    return (struct vk_gemm_shape){
        .type = w->type,
        .affine = w->bias_off != 0,
        .group = w->group ? w->group : 32,
        .cols = w->cols,
        .rows = w->rows,
    };
}

/* Large tiles read less; with small matrices they would leave most of the device idle, so those
 * that do not fill it come last. */
uint32_t vk_gemm_candidates(const struct backend *backend, const struct weight *w,
                            struct vk_gemm_tiles *ret, uint32_t cap)
{
    static const struct vk_gemm_tiles all[] = {
        {128, 128, 32, GEMM_MATS, 1},     {128, 128, 32, GEMM_MATS, 2},
        {128, 256, 32, GEMM_MATS, 1},     {128, 128, 64, GEMM_MATS, 1},
        {64, 64, 64, GEMM_SMALL_MATS, 1}, {64, 64, 64, GEMM_SMALL_MATS, 2},
        {64, 128, 32, GEMM_MATS, 2},      {64, 64, 32, GEMM_MATS, 1},
        {32, 32, 32, GEMM_SMALL_MATS, 1},
    };
    const struct vkc_physical *physical = &backend->device->physical;
    uint32_t n = 0;
    bool is_cpu = physical->props.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
    for (int fills = 1; fills >= 0; fills--) {
        for (size_t i = is_cpu ? ARRAY_SIZE(all) - 1 : 0; i < ARRAY_SIZE(all) && n < cap; i++) {
            uint32_t groups =
                (w->rows + all[i].rows - 1) / all[i].rows * (VK_BATCH_MAX / all[i].tokens);
            bool does = groups >= 2 * physical->compute_units || all[i].rows < 128;
            if (does == fills && suits(physical, w, &all[i])) {
                ret[n++] = all[i];
            }
        }
    }
    return n;
}

static bool choose_tiles(const struct backend *backend, const struct weight *w,
                         struct vk_gemm_tiles *ret)
{
    struct vk_gemm_shape shape = vk_gemm_shape(w);
    const struct vk_gemm_choice *choice = vk_gemm_find(backend, &shape);
    if (choice && suits(&backend->device->physical, w, &choice->tiles)) {
        *ret = choice->tiles;
        return true;
    }
    return vk_gemm_candidates(backend, w, ret, 1) == 1;
}

bool vk_gemm_possible(const struct backend *backend)
{
    const struct vkc_physical *physical = &backend->device->physical;
    return physical->coopmat.m && 16 % physical->coopmat.n == 0 && physical->has_size_control &&
           shaders[SHADER_gemm].size_bytes > 0;
}

bool vk_gemm_fits(const struct backend *backend, const struct weight *w)
{
    if (!vk_gemm_possible(backend)) {
        return false;
    }
    struct vk_gemm_tiles t;
    return choose_tiles(backend, w, &t);
}

int vk_gemm_pipeline(struct backend *backend, const struct weight *w,
                     const struct vk_gemm_tiles *tiles, struct err *err, VkPipeline *ret)
{
    const struct vkc_physical *physical = &backend->device->physical;
    struct vk_gemm_tiles t;
    if (tiles) {
        t = *tiles;
    } else if (!choose_tiles(backend, w, &t)) {
        return err_set(err, -ENOTSUP, "no tiles for rows of %u elements", w->cols);
    }
    uint32_t n_warps = warps(physical, &t);
    uint32_t spec[] = {
        [SPEC_WG] = n_warps * physical->subgroup_size,
        [SPEC_SLOTS] = n_warps,
        [SPEC_TYPE] = w->type,
        [SPEC_AFFINE] = w->bias_off != 0,
        [SPEC_GROUP] = w->group ? w->group : 32,
        [SPEC_GEMM_COLS] = w->cols,
        [SPEC_TILE_ROWS] = t.rows,
        [SPEC_TILE_TOKENS] = t.tokens,
        [SPEC_TILE_K] = t.k,
        [SPEC_MAT_M] = physical->coopmat.m,
        [SPEC_MAT_N] = physical->coopmat.n,
        [SPEC_MAT_K] = physical->coopmat.k,
        [SPEC_BUFFERS] = t.buffers,
    };
    return vkc_pipeline_get(backend->device, t.mats == GEMM_MATS ? SHADER_gemm : SHADER_gemm_small,
                            spec, sizeof spec / sizeof spec[0], err, ret);
}

void vk_record_to_half(struct backend_state *state, VkCommandBuffer cmd, uint64_t x, uint32_t width,
                       uint32_t batch)
{
    const struct backend_model *bm = state->bm;
    struct push_to_half push = {
        .x = x,
        .half_ = state->acts.address + state->act_off[ACT_HALF],
        .power = state->acts.address + state->act_off[ACT_POWER],
        .step_p = state->step.address,
        .width = width,
    };
    vkc_dispatch(bm->backend->device, cmd, bm->to_half, &push, sizeof push, batch, 1, 1);
    vk_mark(state, cmd, "to_half");
}

int vk_record_gemm(struct backend_state *state, VkCommandBuffer cmd, const struct weight *w,
                   const struct vk_gemm_tiles *tiles, uint64_t y, uint32_t batch, const char *name,
                   struct err *err)
{
    const struct backend_model *bm = state->bm;
    struct vk_gemm_tiles t;
    VkPipeline pipeline;
    int r = vk_gemm_pipeline(bm->backend, w, tiles, err, &pipeline);
    if (r < 0) {
        return r;
    }
    if (tiles) {
        t = *tiles;
    } else {
        choose_tiles(bm->backend, w, &t);
    }
    uint64_t data = vk_weights_address(&bm->weights, w->data_off);
    struct push_gemm push = {
        .data = data,
        .scale = w->scale_off ? vk_weights_address(&bm->weights, w->scale_off) : data,
        .bias = w->bias_off ? vk_weights_address(&bm->weights, w->bias_off) : data,
        .x = state->acts.address + state->act_off[ACT_HALF],
        .power = state->acts.address + state->act_off[ACT_POWER],
        .y = y,
        .step_p = state->step.address,
        .rows = w->rows,
    };
    vkc_dispatch(bm->backend->device, cmd, pipeline, &push, sizeof push,
                 (w->rows + t.rows - 1) / t.rows, (batch + t.tokens - 1) / t.tokens, 1);
    vk_mark(state, cmd, name);
    return 0;
}
