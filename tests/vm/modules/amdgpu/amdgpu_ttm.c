// SPDX-License-Identifier: GPL-2.0-only
/*
 * The driver's side of TTM: the sizes of GTT and VRAM, the callbacks that get pages, move and
 * evict. VRAM is pages of system memory too: it exists so that its limits and accounting do.
 */
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/version.h>

#include <drm/drm_file.h>
#include <drm/drm_prime.h>
#include <drm/ttm/ttm_pool.h>

#include "amdgpu.h"
#include "amdgpu_drv.h"

struct amdgpu_ttm_tt {
    struct ttm_tt ttm;
    struct drm_gem_object *gobj; /* the BO it belongs to */
};

static struct amdgpu_ttm_tt *ttm_to_amdgpu_ttm_tt(struct ttm_tt *ttm)
{
    return container_of(ttm, struct amdgpu_ttm_tt, ttm);
}

/* ---- GTT and VRAM: the place is only counted, nothing has an address ---- */

static noinline int amdgpu_gtt_mgr_new(struct ttm_resource_manager *man,
                                       struct ttm_buffer_object *tbo, const struct ttm_place *place,
                                       struct ttm_resource **res)
{
    struct ttm_resource *node = kzalloc(sizeof *node, GFP_KERNEL);

    if (!node) {
        return -ENOMEM;
    }
    ttm_resource_init(tbo, place, node); /* counts it */
    if (!(place->flags & TTM_PL_FLAG_TEMPORARY) && ttm_resource_manager_usage(man) > man->size) {
        ttm_resource_fini(man, node);
        kfree(node);
        return -ENOSPC; /* TTM evicts others and tries again */
    }
    *res = node;
    return 0;
}

static noinline void amdgpu_gtt_mgr_del(struct ttm_resource_manager *man, struct ttm_resource *res)
{
    ttm_resource_fini(man, res);
    kfree(res);
}

static const struct ttm_resource_manager_func amdgpu_gtt_mgr_func = {
    .alloc = amdgpu_gtt_mgr_new,
    .free = amdgpu_gtt_mgr_del,
};

static void manager_init(struct amdgpu_device *adev, struct ttm_resource_manager *man, int type,
                         u64 size)
{
    man->use_tt = true;
    man->func = &amdgpu_gtt_mgr_func;
    ttm_resource_manager_init(man, &adev->bdev, size);
    ttm_set_driver_manager(&adev->bdev, type, man);
    ttm_resource_manager_set_used(man, true);
}

static void manager_finish(struct amdgpu_device *adev, struct ttm_resource_manager *man, int type)
{
    ttm_resource_manager_set_used(man, false);
    if (ttm_resource_manager_evict_all(&adev->bdev, man)) {
        dev_err(adev->ddev.dev, "memory type %d is still in use\n", type);
        return;
    }
    ttm_resource_manager_cleanup(man);
    ttm_set_driver_manager(&adev->bdev, type, NULL);
}

/* ---- the pages of a BO ---- */

static noinline struct ttm_tt *amdgpu_ttm_tt_create(struct ttm_buffer_object *tbo, u32 page_flags)
{
    struct amdgpu_bo *bo = ttm_to_amdgpu_bo(tbo);
    struct amdgpu_ttm_tt *gtt = kzalloc(sizeof *gtt, GFP_KERNEL);
    enum ttm_caching caching =
        bo->flags & AMDGPU_GEM_CREATE_CPU_GTT_USWC ? ttm_write_combined : ttm_cached;

    if (!gtt) {
        return NULL;
    }
    gtt->gobj = &tbo->base;
    if (ttm_sg_tt_init(&gtt->ttm, tbo, page_flags, caching)) {
        kfree(gtt);
        return NULL;
    }
    return &gtt->ttm;
}

/* How much of it lies in whole 2 MiB pages, which a GPU maps with one entry. */
static u64 huge_bytes(const struct ttm_tt *ttm)
{
    const u32 run = SZ_2M / PAGE_SIZE;
    u64 n = 0;

    for (u32 i = 0; i + run <= ttm->num_pages; i += run) {
        unsigned long pfn = page_to_pfn(ttm->pages[i]);
        u32 k = 1;

        while (k < run && page_to_pfn(ttm->pages[i + k]) == pfn + k) {
            k++;
        }
        n += k == run && IS_ALIGNED(pfn, run) ? SZ_2M : 0;
    }
    return n;
}

static noinline int amdgpu_ttm_tt_populate(struct ttm_device *bdev, struct ttm_tt *ttm,
                                           struct ttm_operation_ctx *ctx)
{
    int r;

    if (ttm->page_flags & TTM_TT_FLAG_EXTERNAL) {
        return 0;
    }
    r = ttm_pool_alloc(&bdev->pool, ttm, ctx);
    if (r) {
        return r;
    }
    for (u32 i = 0; i < ttm->num_pages; i++) {
        ttm->pages[i]->mapping = bdev->dev_mapping;
    }
    counter_add(&amdgpu_ttm_adev(bdev)->huge_bytes, huge_bytes(ttm));
    return 0;
}

static void amdgpu_ttm_backend_unbind(struct ttm_tt *ttm)
{
    struct dma_buf_attachment *attach = ttm_to_amdgpu_ttm_tt(ttm)->gobj->import_attach;

    if ((ttm->page_flags & TTM_TT_FLAG_EXTERNAL) && ttm->sg) {
        dma_buf_unmap_attachment(attach, ttm->sg, DMA_BIDIRECTIONAL);
        ttm->sg = NULL;
    }
}

static noinline void amdgpu_ttm_tt_unpopulate(struct ttm_device *bdev, struct ttm_tt *ttm)
{
    amdgpu_ttm_backend_unbind(ttm);
    if (ttm->page_flags & TTM_TT_FLAG_EXTERNAL) {
        return;
    }
    counter_add(&amdgpu_ttm_adev(bdev)->huge_bytes, -(s64)huge_bytes(ttm));
    for (u32 i = 0; i < ttm->num_pages; i++) {
        ttm->pages[i]->mapping = NULL;
    }
    ttm_pool_free(&bdev->pool, ttm);
}

static void amdgpu_ttm_backend_destroy(struct ttm_device *bdev, struct ttm_tt *ttm)
{
    ttm_tt_fini(ttm);
    kfree(ttm_to_amdgpu_ttm_tt(ttm));
}

/* An import gets its addresses from the exporter when it enters GTT. */
static int amdgpu_ttm_backend_bind(struct ttm_tt *ttm)
{
    struct sg_table *sgt;

    if (!(ttm->page_flags & TTM_TT_FLAG_EXTERNAL) || ttm->sg) {
        return 0;
    }
    sgt = dma_buf_map_attachment(ttm_to_amdgpu_ttm_tt(ttm)->gobj->import_attach, DMA_BIDIRECTIONAL);
    if (IS_ERR(sgt)) {
        return PTR_ERR(sgt);
    }
    ttm->sg = sgt;
    drm_prime_sg_to_dma_addr_array(sgt, ttm->dma_address, ttm->num_pages);
    return 0;
}

/* ---- moving ---- */

static void amdgpu_evict_flags(struct ttm_buffer_object *tbo, struct ttm_placement *placement)
{
    struct amdgpu_bo *bo = ttm_to_amdgpu_bo(tbo);

    if (tbo->type == ttm_bo_type_sg || !amdgpu_bo_is_amdgpu_bo(tbo) ||
        (bo->flags & AMDGPU_GEM_CREATE_DISCARDABLE)) {
        placement->num_placement = 0; /* the content is elsewhere, or not wanted */
        return;
    }
    amdgpu_bo_placement_from_domain(bo, tbo->resource->mem_type == TTM_PL_VRAM
                                            ? AMDGPU_GEM_DOMAIN_GTT | AMDGPU_GEM_DOMAIN_CPU
                                            : AMDGPU_GEM_DOMAIN_CPU);
    *placement = bo->placement;
}

/* Every place is made of the BO's own pages: a move is only accounting. */
static noinline int amdgpu_bo_move(struct ttm_buffer_object *tbo, bool evict,
                                   struct ttm_operation_ctx *ctx, struct ttm_resource *new_mem,
                                   struct ttm_place *hop)
{
    struct ttm_resource *old_mem = tbo->resource;
    int r = ttm_bo_wait_ctx(tbo, ctx);

    if (r) {
        return r;
    }
    if (new_mem->mem_type == TTM_PL_TT) {
        r = amdgpu_ttm_backend_bind(tbo->ttm);
        if (r) {
            return r;
        }
    } else if (old_mem && old_mem->mem_type == TTM_PL_TT) {
        amdgpu_ttm_backend_unbind(tbo->ttm);
    }
    amdgpu_bo_move_notify(tbo, evict, new_mem);
    ttm_bo_move_null(tbo, new_mem);
    return 0;
}

static void amdgpu_bo_delete_mem_notify(struct ttm_buffer_object *tbo)
{
    amdgpu_bo_move_notify(tbo, false, NULL);
}

static struct ttm_device_funcs amdgpu_bo_driver = {
    .ttm_tt_create = amdgpu_ttm_tt_create,
    .ttm_tt_populate = amdgpu_ttm_tt_populate,
    .ttm_tt_unpopulate = amdgpu_ttm_tt_unpopulate,
    .ttm_tt_destroy = amdgpu_ttm_backend_destroy,
    .eviction_valuable = ttm_bo_eviction_valuable,
    .evict_flags = amdgpu_evict_flags,
    .move = amdgpu_bo_move,
    .delete_mem_notify = amdgpu_bo_delete_mem_notify,
};

/* ---- the device ---- */

u64 amdgpu_gtt_size(struct amdgpu_device *adev)
{
    u64 size = (u64)ttm_tt_pages_limit() << PAGE_SHIFT;

    if (amdgpu_gtt_mib > 0) {
        size = (u64)amdgpu_gtt_mib << 20;
    }
    if (adev->apu) {
        size = min(size, (u64)totalram_pages() << PAGE_SHIFT);
    }
    return size;
}

int amdgpu_ttm_init(struct amdgpu_device *adev)
{
    struct drm_device *ddev = &adev->ddev;
    int r;

    dma_set_max_seg_size(ddev->dev, UINT_MAX);
#if SIM_NEW_KERNEL
    r = ttm_device_init(&adev->bdev, &amdgpu_bo_driver, ddev->dev, ddev->anon_inode->i_mapping,
                        ddev->vma_offset_manager,
                        TTM_ALLOCATION_POOL_BENEFICIAL_ORDER(get_order(SZ_2M)));
#else
    r = ttm_device_init(&adev->bdev, &amdgpu_bo_driver, ddev->dev, ddev->anon_inode->i_mapping,
                        ddev->vma_offset_manager, false, false);
#endif
    if (r) {
        return r;
    }
    manager_init(adev, &adev->vram, TTM_PL_VRAM, (u64)amdgpu_vram_mib << 20);
    manager_init(adev, &adev->gtt, TTM_PL_TT, amdgpu_gtt_size(adev));
    return 0;
}

void amdgpu_ttm_fini(struct amdgpu_device *adev)
{
    drain_workqueue(adev->bdev.wq); /* imports are freed there, and need the managers */
    manager_finish(adev, &adev->vram, TTM_PL_VRAM);
    manager_finish(adev, &adev->gtt, TTM_PL_TT);
    ttm_device_fini(&adev->bdev);
}
