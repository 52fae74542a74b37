// SPDX-License-Identifier: GPL-2.0-only
/*
 * PRIME: a BO as a dma-buf for others, and others' dma-bufs as BOs. When an importer pins is
 * decided by the kernel's dma-buf core, which differs between 6.12 and 7.3; this file only offers
 * pin().
 */
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/module.h>
#include <linux/version.h>

#include <drm/drm_prime.h>

#include "amdgpu.h"

static const struct dma_buf_attach_ops amdgpu_dma_buf_attach_ops;

static struct amdgpu_bo *dma_buf_to_amdgpu_bo(struct dma_buf *dma_buf)
{
    return gem_to_amdgpu_bo(dma_buf->priv);
}

static struct amdgpu_device *dma_buf_to_adev(struct dma_buf *dma_buf)
{
    return amdgpu_ttm_adev(dma_buf_to_amdgpu_bo(dma_buf)->tbo.bdev);
}

static int amdgpu_dma_buf_attach(struct dma_buf *dma_buf, struct dma_buf_attachment *attach)
{
    attach->peer2peer = false;
    counter_add(&dma_buf_to_adev(dma_buf)->attachments, 1);
    return 0;
}

static void amdgpu_dma_buf_detach(struct dma_buf *dma_buf, struct dma_buf_attachment *attach)
{
    counter_add(&dma_buf_to_adev(dma_buf)->attachments, -1);
}

static noinline int amdgpu_dma_buf_pin(struct dma_buf_attachment *attach)
{
    struct amdgpu_bo *bo = dma_buf_to_amdgpu_bo(attach->dmabuf);

    dma_resv_assert_held(attach->dmabuf->resv);
#if SIM_NEW_KERNEL
    /* no importer here reaches VRAM */
    return amdgpu_bo_pin(bo, bo->allowed_domains & ~AMDGPU_GEM_DOMAIN_VRAM);
#else
    return amdgpu_bo_pin(bo, AMDGPU_GEM_DOMAIN_GTT);
#endif
}

static noinline void amdgpu_dma_buf_unpin(struct dma_buf_attachment *attach)
{
    amdgpu_bo_unpin(dma_buf_to_amdgpu_bo(attach->dmabuf));
}

static struct sg_table *amdgpu_dma_buf_map(struct dma_buf_attachment *attach,
                                           enum dma_data_direction dir)
{
    struct amdgpu_bo *bo = dma_buf_to_amdgpu_bo(attach->dmabuf);
    struct sg_table *sgt;
    int r;

    if (bo->tbo.pin_count == 0) {
        r = amdgpu_bo_validate(bo, AMDGPU_GEM_DOMAIN_GTT, false);
        if (r) {
            return ERR_PTR(r);
        }
    }
    if (bo->tbo.resource->mem_type != TTM_PL_TT) {
        return ERR_PTR(-EBUSY);
    }
    sgt = drm_prime_pages_to_sg(bo->tbo.base.dev, bo->tbo.ttm->pages, bo->tbo.ttm->num_pages);
    if (IS_ERR(sgt)) {
        return sgt;
    }
    if (dma_map_sgtable(attach->dev, sgt, dir, DMA_ATTR_SKIP_CPU_SYNC)) {
        sg_free_table(sgt);
        kfree(sgt);
        return ERR_PTR(-EBUSY);
    }
    counter_add(&dma_buf_to_adev(attach->dmabuf)->mappings, 1);
    return sgt;
}

static void amdgpu_dma_buf_unmap(struct dma_buf_attachment *attach, struct sg_table *sgt,
                                 enum dma_data_direction dir)
{
    dma_unmap_sgtable(attach->dev, sgt, dir, 0);
    sg_free_table(sgt);
    kfree(sgt);
    counter_add(&dma_buf_to_adev(attach->dmabuf)->mappings, -1);
}

/* A read brings the buffer back into GTT, if it may be there and is not pinned elsewhere. */
static int amdgpu_dma_buf_begin_cpu_access(struct dma_buf *dma_buf, enum dma_data_direction dir)
{
    struct amdgpu_bo *bo = dma_buf_to_amdgpu_bo(dma_buf);
    int r;

    if (dir != DMA_BIDIRECTIONAL && dir != DMA_FROM_DEVICE) {
        return 0;
    }
    r = ttm_bo_reserve(&bo->tbo, true, false, NULL);
    if (r) {
        return r;
    }
    if (bo->tbo.pin_count == 0 && (bo->allowed_domains & AMDGPU_GEM_DOMAIN_GTT)) {
        r = amdgpu_bo_validate(bo, AMDGPU_GEM_DOMAIN_GTT, true);
    }
    ttm_bo_unreserve(&bo->tbo);
    return r;
}

static int amdgpu_dma_buf_vmap(struct dma_buf *dma_buf, struct iosys_map *map)
{
#if SIM_NEW_KERNEL
    struct amdgpu_bo *bo = dma_buf_to_amdgpu_bo(dma_buf);
    int r = amdgpu_bo_pin(bo, AMDGPU_GEM_DOMAIN_GTT | AMDGPU_GEM_DOMAIN_VRAM);

    if (r) {
        return r;
    }
    r = drm_gem_dmabuf_vmap(dma_buf, map);
    if (r) {
        amdgpu_bo_unpin(bo);
    }
    return r;
#else
    return drm_gem_dmabuf_vmap(dma_buf, map);
#endif
}

static void amdgpu_dma_buf_vunmap(struct dma_buf *dma_buf, struct iosys_map *map)
{
    drm_gem_dmabuf_vunmap(dma_buf, map);
#if SIM_NEW_KERNEL
    amdgpu_bo_unpin(dma_buf_to_amdgpu_bo(dma_buf));
#endif
}

static void amdgpu_dma_buf_release(struct dma_buf *dma_buf)
{
    counter_add(&dma_buf_to_adev(dma_buf)->exports, -1);
    drm_gem_dmabuf_release(dma_buf);
}

static const struct dma_buf_ops amdgpu_dmabuf_ops = {
    .attach = amdgpu_dma_buf_attach,
    .detach = amdgpu_dma_buf_detach,
    .pin = amdgpu_dma_buf_pin,
    .unpin = amdgpu_dma_buf_unpin,
    .map_dma_buf = amdgpu_dma_buf_map,
    .unmap_dma_buf = amdgpu_dma_buf_unmap,
    .release = amdgpu_dma_buf_release,
    .begin_cpu_access = amdgpu_dma_buf_begin_cpu_access,
    .mmap = drm_gem_dmabuf_mmap,
    .vmap = amdgpu_dma_buf_vmap,
    .vunmap = amdgpu_dma_buf_vunmap,
};

noinline struct dma_buf *amdgpu_gem_prime_export(struct drm_gem_object *gobj, int flags)
{
    struct amdgpu_bo *bo = gem_to_amdgpu_bo(gobj);
    struct amdgpu_device *adev = drm_to_adev(gobj->dev);
    struct dma_buf *dma_buf;

    if (bo->flags & AMDGPU_GEM_CREATE_VM_ALWAYS_VALID) {
        return ERR_PTR(-EPERM);
    }
    if (fault_hits(&adev->fail_export)) {
        return ERR_PTR(-ENOMEM);
    }
#if SIM_NEW_KERNEL
    {
        struct ttm_operation_ctx ctx = {
            .interruptible = true,
            .no_wait_gpu = true,
            .gfp_retry_mayfail = true,
        };
        int r = ttm_bo_setup_export(&bo->tbo, &ctx);

        if (r) {
            return ERR_PTR(r);
        }
    }
#endif
    dma_buf = drm_gem_prime_export(gobj, flags);
    if (!IS_ERR(dma_buf)) {
        dma_buf->ops = &amdgpu_dmabuf_ops;
        counter_add(&adev->exports, 1);
    }
    return dma_buf;
}

/* Our BO moves: importers that can follow are told. */
void amdgpu_dma_buf_moved(struct amdgpu_bo *bo)
{
    struct drm_gem_object *gobj = &bo->tbo.base;

    if (!gobj->dma_buf || gobj->import_attach) {
        return;
    }
#if SIM_NEW_KERNEL
    dma_buf_invalidate_mappings(gobj->dma_buf);
#else
    dma_buf_move_notify(gobj->dma_buf);
#endif
}

/* The exporter moves what we have imported: drop our mapping, it is made again on the next use. */
static void amdgpu_dma_buf_move_notify(struct dma_buf_attachment *attach)
{
    struct amdgpu_bo *bo = gem_to_amdgpu_bo(attach->importer_priv);
    struct ttm_operation_ctx ctx = {};
    struct ttm_placement nowhere = {};

    if (bo->tbo.resource && bo->tbo.resource->mem_type != TTM_PL_SYSTEM &&
        ttm_bo_validate(&bo->tbo, &nowhere, &ctx)) {
        dev_err(bo->tbo.base.dev->dev, "cannot invalidate an import\n");
    }
}

static const struct dma_buf_attach_ops amdgpu_dma_buf_attach_ops = {
    .allow_peer2peer = true,
#if SIM_NEW_KERNEL
    .invalidate_mappings = amdgpu_dma_buf_move_notify,
#else
    .move_notify = amdgpu_dma_buf_move_notify,
#endif
};

/* A BO without pages that shares the dma-buf's lock. */
static struct drm_gem_object *amdgpu_dma_buf_create_obj(struct amdgpu_device *adev,
                                                        struct dma_buf *dma_buf)
{
    struct amdgpu_bo_param bp = {
        .size = dma_buf->size,
        .byte_align = PAGE_SIZE,
        .domain = AMDGPU_GEM_DOMAIN_CPU,
        .type = ttm_bo_type_sg,
        .resv = dma_buf->resv,
    };
    struct amdgpu_bo_user *ubo;
    int r;

    dma_resv_lock(dma_buf->resv, NULL);
    r = amdgpu_bo_create_user(adev, &bp, &ubo);
    dma_resv_unlock(dma_buf->resv);
    if (r) {
        return ERR_PTR(r);
    }
    ubo->bo.allowed_domains = AMDGPU_GEM_DOMAIN_GTT;
    ubo->bo.preferred_domains = AMDGPU_GEM_DOMAIN_GTT;
    return &ubo->bo.tbo.base;
}

noinline struct drm_gem_object *amdgpu_gem_prime_import(struct drm_device *dev,
                                                        struct dma_buf *dma_buf)
{
    struct dma_buf_attachment *attach;
    struct drm_gem_object *gobj;

    if (dma_buf->ops == &amdgpu_dmabuf_ops) {
        gobj = dma_buf->priv;
        if (gobj->dev == dev) { /* our own: no attachment, no pin, only a reference */
            drm_gem_object_get(gobj);
            return gobj;
        }
    }
    gobj = amdgpu_dma_buf_create_obj(drm_to_adev(dev), dma_buf);
    if (IS_ERR(gobj)) {
        return gobj;
    }
    attach = dma_buf_dynamic_attach(dma_buf, dev->dev, &amdgpu_dma_buf_attach_ops, gobj);
    if (IS_ERR(attach)) {
        drm_gem_object_put(gobj);
        return ERR_CAST(attach);
    }
    get_dma_buf(dma_buf);
    gobj->import_attach = attach;
    return gobj;
}

#if SIM_NEW_KERNEL
MODULE_IMPORT_NS("DMA_BUF");
#else
MODULE_IMPORT_NS(DMA_BUF);
#endif
