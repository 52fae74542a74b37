// SPDX-License-Identifier: GPL-2.0-only
/*
 * Buffer objects: their life, where they may be placed, and pinning. Which page is where is TTM's
 * business (amdgpu_ttm.c); who may see them is GEM's (amdgpu_gem.c).
 */
#include <linux/slab.h>
#include <linux/version.h>

#include <drm/drm_prime.h>

#include "amdgpu.h"
#include "amdgpu_trace.h"

static void amdgpu_bo_user_destroy(struct ttm_buffer_object *tbo)
{
    struct amdgpu_bo *bo = ttm_to_amdgpu_bo(tbo);
    struct amdgpu_bo_user *ubo = to_amdgpu_bo_user(bo);
    struct amdgpu_device *adev = amdgpu_ttm_adev(tbo->bdev);

    if (tbo->type == ttm_bo_type_sg) {
        counter_add(&adev->imports, -1);
    }
    if (tbo->base.import_attach) {
        drm_prime_gem_destroy(&tbo->base, tbo->sg);
    }
    counter_add(&adev->objects, -1);
    counter_add(&adev->bytes, -(s64)amdgpu_bo_size(bo));
    drm_gem_object_release(&tbo->base);
    kfree(ubo->metadata);
    kvfree(ubo);
}

bool amdgpu_bo_is_amdgpu_bo(struct ttm_buffer_object *tbo)
{
    return tbo->destroy == amdgpu_bo_user_destroy;
}

void amdgpu_bo_placement_from_domain(struct amdgpu_bo *bo, u32 domain)
{
    static const struct {
        u32 domain;
        u32 mem_type;
    } places[] = {
        {AMDGPU_GEM_DOMAIN_VRAM, TTM_PL_VRAM},
        {AMDGPU_GEM_DOMAIN_GTT, TTM_PL_TT},
        {AMDGPU_GEM_DOMAIN_CPU, TTM_PL_SYSTEM},
    };
    unsigned int n = 0;

    memset(bo->placements, 0, sizeof bo->placements);
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        if (domain & places[i].domain) {
            bo->placements[n++].mem_type = places[i].mem_type;
        }
    }
    if (n == 0) {
        bo->placements[n++].mem_type = TTM_PL_SYSTEM;
    }
    bo->placement.num_placement = n;
    bo->placement.placement = bo->placements;
}

/* Moves a reserved BO that is not pinned into one of the domains. */
int amdgpu_bo_validate(struct amdgpu_bo *bo, u32 domain, bool interruptible)
{
    struct ttm_operation_ctx ctx = {.interruptible = interruptible};

    amdgpu_bo_placement_from_domain(bo, domain);
    return ttm_bo_validate(&bo->tbo, &bo->placement, &ctx);
}

/* As the real one: the manager must be strictly larger than the BO, GTT's when both will do. */
static bool amdgpu_bo_validate_size(struct amdgpu_device *adev, u64 size, u32 domain)
{
    if (domain & AMDGPU_GEM_DOMAIN_GTT) {
        return size < adev->gtt.size;
    }
    if (domain & AMDGPU_GEM_DOMAIN_VRAM) {
        return size < adev->vram.size;
    }
    return true;
}

noinline int amdgpu_bo_create_user(struct amdgpu_device *adev, struct amdgpu_bo_param *bp,
                                   struct amdgpu_bo_user **ubo_ptr)
{
    struct ttm_operation_ctx ctx = {
        .interruptible = true,
        .gfp_retry_mayfail = true, /* -ENOMEM rather than the OOM killer */
        .allow_res_evict = true,
        .resv = bp->resv,
    };
    u64 size = ALIGN((u64)bp->size, PAGE_SIZE);
    u32 page_align = ALIGN(bp->byte_align, PAGE_SIZE) >> PAGE_SHIFT;
    struct amdgpu_bo_user *ubo;
    struct amdgpu_bo *bo;
    int r;

    if (!amdgpu_bo_validate_size(adev, size, bp->domain)) {
        return -ENOMEM;
    }
    ubo = kvzalloc(sizeof *ubo, GFP_KERNEL);
    if (!ubo) {
        return -ENOMEM;
    }
    bo = &ubo->bo;
    drm_gem_private_object_init(&adev->ddev, &bo->tbo.base, size);
    bo->tbo.base.funcs = &amdgpu_gem_object_funcs;
    bo->tbo.priority = bp->flags & AMDGPU_GEM_CREATE_DISCARDABLE ? 0 : 1;
    bo->flags = bp->flags;
    bo->mem_type = -1;
    bo->preferred_domains = bp->domain;
    bo->allowed_domains = bp->domain;
    if (!(bp->flags & AMDGPU_GEM_CREATE_DISCARDABLE) &&
        bo->allowed_domains == AMDGPU_GEM_DOMAIN_VRAM) {
        bo->allowed_domains |= AMDGPU_GEM_DOMAIN_GTT;
    }
    counter_add(&adev->objects, 1);
    counter_add(&adev->bytes, size);
    if (bp->type == ttm_bo_type_sg) {
        counter_add(&adev->imports, 1);
    }
    amdgpu_bo_placement_from_domain(bo, bp->domain);
    /* on failure TTM drops the BO, which destroys it */
    r = ttm_bo_init_reserved(&adev->bdev, &bo->tbo, bp->type, &bo->placement, page_align, &ctx,
                             NULL, bp->resv, amdgpu_bo_user_destroy);
    if (r) {
        return r;
    }
    if (!bp->resv) {
        ttm_bo_unreserve(&bo->tbo);
    }
    trace_amdgpu_bo_create(bo);
    bo->flags &= ~AMDGPU_GEM_CREATE_CPU_ACCESS_REQUIRED; /* was a hint for the first placement */
    *ubo_ptr = ubo;
    return 0;
}

/*
 * 6.12 leaves a pinned BO on the list that evict_all walks until it is next unlocked through TTM,
 * which dma-buf's core does not do: the real driver would evict it on request of debugfs. All other
 * evictions look at the pin count. 7.3 does at once what is done here.
 */
static void pin_locked(struct amdgpu_bo *bo)
{
    ttm_bo_pin(&bo->tbo);
#if !SIM_NEW_KERNEL
    spin_lock(&bo->tbo.bdev->lru_lock);
    ttm_bo_move_to_lru_tail(&bo->tbo);
    spin_unlock(&bo->tbo.bdev->lru_lock);
#endif
}

static void unpin_locked(struct amdgpu_bo *bo)
{
    ttm_bo_unpin(&bo->tbo);
#if !SIM_NEW_KERNEL
    spin_lock(&bo->tbo.bdev->lru_lock);
    ttm_bo_move_to_lru_tail(&bo->tbo);
    spin_unlock(&bo->tbo.bdev->lru_lock);
#endif
}

noinline int amdgpu_bo_pin(struct amdgpu_bo *bo, u32 domain)
{
    struct amdgpu_device *adev = amdgpu_ttm_adev(bo->tbo.bdev);
    u64 size = amdgpu_bo_size(bo);
    int r;

    if (bo->preferred_domains & domain) {
        domain = bo->preferred_domains & domain;
    }
    if (bo->tbo.pin_count > 0) {
        bool vram = bo->tbo.resource->mem_type == TTM_PL_VRAM;

        if (!(domain & (vram ? AMDGPU_GEM_DOMAIN_VRAM : AMDGPU_GEM_DOMAIN_GTT))) {
            return -EINVAL;
        }
        pin_locked(bo);
        return 0;
    }
    if (fault_hits(&adev->fail_pin)) {
        return -ENOMEM;
    }
    r = amdgpu_bo_validate(bo, domain, false);
    if (r) {
        dev_err(adev->ddev.dev, "%p pin failed\n", bo);
        return r;
    }
    pin_locked(bo);
    atomic64_add(size, bo->tbo.resource->mem_type == TTM_PL_VRAM ? &adev->vram_pin_size
                                                                 : &adev->gart_pin_size);
    counter_add(&adev->pinned_bytes, size);
    return 0;
}

noinline void amdgpu_bo_unpin(struct amdgpu_bo *bo)
{
    struct amdgpu_device *adev = amdgpu_ttm_adev(bo->tbo.bdev);
    u64 size = amdgpu_bo_size(bo);

    unpin_locked(bo);
    if (bo->tbo.pin_count > 0) {
        return;
    }
    atomic64_sub(size, bo->tbo.resource->mem_type == TTM_PL_VRAM ? &adev->vram_pin_size
                                                                 : &adev->gart_pin_size);
    counter_add(&adev->pinned_bytes, -(s64)size);
}

/* TTM calls it before each move, and with no new place before the memory goes. */
noinline void amdgpu_bo_move_notify(struct ttm_buffer_object *tbo, bool evict,
                                    struct ttm_resource *new_mem)
{
    struct amdgpu_bo *bo = ttm_to_amdgpu_bo(tbo);
    struct ttm_resource *old_mem = tbo->resource;

    if (!amdgpu_bo_is_amdgpu_bo(tbo)) {
        return;
    }
    if (old_mem && old_mem->mem_type != TTM_PL_SYSTEM) {
        amdgpu_dma_buf_moved(bo);
    }
    WRITE_ONCE(bo->mem_type, new_mem ? (int)new_mem->mem_type : -1);
    trace_amdgpu_bo_move(bo, new_mem ? new_mem->mem_type : -1, old_mem ? old_mem->mem_type : -1);
}

int amdgpu_bo_set_metadata(struct amdgpu_bo *bo, const void *metadata, u32 metadata_size, u64 flags)
{
    struct amdgpu_bo_user *ubo = to_amdgpu_bo_user(bo);
    void *copy = NULL;

    if (metadata_size > 0) {
        copy = kmemdup(metadata, metadata_size, GFP_KERNEL);
        if (!copy) {
            return -ENOMEM;
        }
        ubo->metadata_flags = flags;
    }
    kfree(ubo->metadata);
    ubo->metadata = copy;
    ubo->metadata_size = metadata_size;
    return 0;
}
