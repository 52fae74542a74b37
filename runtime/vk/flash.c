/* SPDX-License-Identifier: MIT */
/* Attention of several tokens by cooperative matrices: what suits flash.comp, and recording it. */
#include <assert.h>

#include "vk.h"

/* A workgroup's size in tokens, keys and invocations. */
struct block {
    uint32_t tokens, keys, wg;
};

static struct block block_of(const struct backend *backend, uint32_t head_dim)
{
    const struct vkc_physical *physical = &backend->device->physical;
    uint32_t subgroups = head_dim / (FLASH_VALUE_MATS * physical->coopmat.n);
    return (struct block){
        .tokens = FLASH_TOKEN_MATS * physical->coopmat.m,
        .keys = subgroups * physical->coopmat.n,
        .wg = subgroups * physical->subgroup_size,
    };
}

static uint32_t shared_bytes(const struct block *b, uint32_t head_dim)
{
    uint32_t queries = (head_dim + 8) * 2, scores = (b->keys + 4) * 4, weights = (b->keys + 8) * 2;
    return b->tokens * (queries + scores + weights + FLASH_COPIES * 4);
}

bool vk_flash_fits(const struct backend *backend, const struct model_config *c)
{
    const struct vkc_physical *physical = &backend->device->physical;
    if (!vk_gemm_possible(backend) || !physical->has_16bit_storage || !physical->has_shuffle ||
        c->head_dim % (FLASH_VALUE_MATS * physical->coopmat.n) ||
        c->head_dim % physical->coopmat.k || FLASH_COPIES % physical->coopmat.n ||
        FLASH_RING_ALIGN % physical->coopmat.n || FLASH_RING_ALIGN % physical->coopmat.k) {
        return false;
    }
    struct block b = block_of(backend, c->head_dim);
    uint32_t lanes = b.wg / b.tokens;
    return b.wg % b.tokens == 0 && lanes && (lanes & (lanes - 1)) == 0 &&
           lanes <= physical->subgroup_size && b.keys / 4 % lanes == 0 &&
           b.keys % physical->coopmat.k == 0 && backend->tuning.batch_max % b.tokens == 0 &&
           b.wg <= physical->props.limits.maxComputeWorkGroupInvocations &&
           shared_bytes(&b, c->head_dim) <= physical->props.limits.maxComputeSharedMemorySize;
}

int vk_flash_pipeline(struct backend *backend, const struct model_config *c, struct err *err,
                      VkPipeline *ret)
{
    const struct vkc_physical *physical = &backend->device->physical;
    struct block b = block_of(backend, c->head_dim);
    uint32_t spec[] = {
        [SPEC_WG] = b.wg,
        [SPEC_SLOTS] = b.wg / physical->subgroup_size,
        [SPEC_FLASH_HEAD_DIM] = c->head_dim,
        [SPEC_FLASH_MAT_M] = physical->coopmat.m,
        [SPEC_FLASH_MAT_N] = physical->coopmat.n,
        [SPEC_FLASH_MAT_K] = physical->coopmat.k,
    };
    return vkc_pipeline_get(backend->device, SHADER_flash, spec, sizeof spec / sizeof spec[0], err,
                            ret);
}

void vk_record_flash(struct backend_state *state, VkCommandBuffer cmd, uint32_t layer,
                     uint32_t batch)
{
    const struct backend_model *bm = state->bm;
    const struct model_config *c = &bm->model->config;
    struct layer_kv kv = vk_layer_kv(state, layer);
    uint32_t tokens = block_of(bm->backend, c->head_dim).tokens;
    assert(kv.ring % FLASH_RING_ALIGN == 0 && vk_row_halfs(c) == c->head_dim);
    struct push_flash push = {
        .q = state->acts.address + state->act_off[ACT_Q],
        .k = kv.k,
        .v = kv.v,
        .att = state->acts.address + state->act_off[ACT_ATT],
        .step_p = state->step.address,
        .heads_per_kv = c->n_heads / c->n_kv_heads,
        .ring = kv.ring,
        .window = c->layer_is_global[layer] ? 0 : c->window,
    };
    vkc_dispatch(bm->backend->device, cmd, bm->flash, &push, sizeof push, c->n_heads,
                 (batch + tokens - 1) / tokens, 1);
    vk_mark(state, cmd, "flash");
}
