// SPDX-License-Identifier: GPL-2.0-only
/*
 * GEM: what user space asks of its buffers, checked as the real driver of the same kernel checks
 * it.
 */
#include <linux/dma-resv.h>
#include <linux/mm.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include <drm/drm_file.h>
#include <drm/drm_gem_ttm_helper.h>
#include <drm/drm_vma_manager.h>

#include "amdgpu.h"

#define CREATE_FLAGS_6_12                                                      \
    (AMDGPU_GEM_CREATE_CPU_ACCESS_REQUIRED | AMDGPU_GEM_CREATE_NO_CPU_ACCESS | \
     AMDGPU_GEM_CREATE_CPU_GTT_USWC | AMDGPU_GEM_CREATE_VRAM_CLEARED |         \
     AMDGPU_GEM_CREATE_VM_ALWAYS_VALID | AMDGPU_GEM_CREATE_EXPLICIT_SYNC |     \
     AMDGPU_GEM_CREATE_ENCRYPTED | AMDGPU_GEM_CREATE_GFX12_DCC | AMDGPU_GEM_CREATE_DISCARDABLE)

#if SIM_NEW_KERNEL
#define CREATE_FLAGS                                                                           \
    (CREATE_FLAGS_6_12 | AMDGPU_GEM_CREATE_VRAM_WIPE_ON_RELEASE | AMDGPU_GEM_CREATE_COHERENT | \
     AMDGPU_GEM_CREATE_UNCACHED | AMDGPU_GEM_CREATE_EXT_COHERENT)
#else
#define CREATE_FLAGS CREATE_FLAGS_6_12
#endif

#define MEMORY_DOMAINS (AMDGPU_GEM_DOMAIN_CPU | AMDGPU_GEM_DOMAIN_GTT | AMDGPU_GEM_DOMAIN_VRAM)

static noinline void amdgpu_gem_object_free(struct drm_gem_object *gobj)
{
    struct amdgpu_bo *bo = gem_to_amdgpu_bo(gobj);

#if SIM_NEW_KERNEL
    ttm_bo_fini(&bo->tbo);
#else
    ttm_bo_put(&bo->tbo);
#endif
}

static noinline int amdgpu_gem_object_open(struct drm_gem_object *obj, struct drm_file *file_priv)
{
    return 0;
}

static noinline void amdgpu_gem_object_close(struct drm_gem_object *obj, struct drm_file *file_priv)
{
    amdgpu_va_forget(drm_to_adev(obj->dev), file_priv->driver_priv, gem_to_amdgpu_bo(obj));
}

static int amdgpu_gem_object_mmap(struct drm_gem_object *obj, struct vm_area_struct *vma)
{
    if (gem_to_amdgpu_bo(obj)->flags & AMDGPU_GEM_CREATE_NO_CPU_ACCESS) {
        return -EPERM;
    }
    return drm_gem_ttm_mmap(obj, vma);
}

static const struct vm_operations_struct amdgpu_gem_vm_ops = {
    .fault = ttm_bo_vm_fault,
    .open = ttm_bo_vm_open,
    .close = ttm_bo_vm_close,
    .access = ttm_bo_vm_access,
};

const struct drm_gem_object_funcs amdgpu_gem_object_funcs = {
    .free = amdgpu_gem_object_free,
    .open = amdgpu_gem_object_open,
    .close = amdgpu_gem_object_close,
    .export = amdgpu_gem_prime_export,
    .vmap = drm_gem_ttm_vmap,
    .vunmap = drm_gem_ttm_vunmap,
    .mmap = amdgpu_gem_object_mmap,
    .vm_ops = &amdgpu_gem_vm_ops,
};

static bool domains_valid(u32 domains)
{
    /* GDS, GWS, OA and doorbells are hardware that this device does not have */
    return (domains & ~(u32)MEMORY_DOMAINS) == 0;
}

noinline int amdgpu_gem_create_ioctl(struct drm_device *dev, void *data, struct drm_file *filp)
{
    struct amdgpu_device *adev = drm_to_adev(dev);
    union drm_amdgpu_gem_create *args = data;
    struct amdgpu_bo_param bp = {
        .size = args->in.bo_size,
        .byte_align = args->in.alignment,
        .domain = args->in.domains,
        .flags = args->in.domain_flags | AMDGPU_GEM_CREATE_VRAM_CLEARED,
        .type = ttm_bo_type_device,
    };
    struct amdgpu_bo_user *ubo;
    u32 handle;
    int r;

    if (args->in.domain_flags & ~(u64)CREATE_FLAGS || !domains_valid(args->in.domains)) {
        return -EINVAL;
    }
    if (args->in.domain_flags & AMDGPU_GEM_CREATE_ENCRYPTED) {
        return -EINVAL; /* as without TMZ */
    }
    if (fault_hits(&adev->fail_create)) {
        return -ENOMEM;
    }
    r = amdgpu_bo_create_user(adev, &bp, &ubo);
    if (r && r != -ERESTARTSYS && bp.domain == AMDGPU_GEM_DOMAIN_VRAM) {
        bp.domain |= AMDGPU_GEM_DOMAIN_GTT;
        r = amdgpu_bo_create_user(adev, &bp, &ubo);
    }
    if (r) {
        return r;
    }
    r = drm_gem_handle_create(filp, &ubo->bo.tbo.base, &handle);
    drm_gem_object_put(&ubo->bo.tbo.base);
    if (r) {
        return r;
    }
    memset(args, 0, sizeof *args);
    args->out.handle = handle;
    return 0;
}

int amdgpu_gem_mmap_ioctl(struct drm_device *dev, void *data, struct drm_file *filp)
{
    union drm_amdgpu_gem_mmap *args = data;
    struct drm_gem_object *gobj = drm_gem_object_lookup(filp, args->in.handle);
    int r = 0;

    if (!gobj) {
        return -ENOENT;
    }
    if (gem_to_amdgpu_bo(gobj)->flags & AMDGPU_GEM_CREATE_NO_CPU_ACCESS) {
        r = -EPERM;
    } else {
        args->out.addr_ptr = drm_vma_node_offset_addr(&gobj->vma_node);
    }
    drm_gem_object_put(gobj);
    return r;
}

int amdgpu_gem_wait_idle_ioctl(struct drm_device *dev, void *data, struct drm_file *filp)
{
    union drm_amdgpu_gem_wait_idle *args = data;
    struct drm_gem_object *gobj = drm_gem_object_lookup(filp, args->in.handle);
    unsigned long timeout = MAX_SCHEDULE_TIMEOUT;
    long left;

    if (!gobj) {
        return -ENOENT;
    }
    if ((s64)args->in.timeout >= 0) {
        s64 ns = (s64)args->in.timeout - ktime_get_ns();

        timeout = ns < 0 ? 0 : nsecs_to_jiffies(ns);
    }
    left = dma_resv_wait_timeout(gobj->resv, DMA_RESV_USAGE_READ, true, timeout);
    drm_gem_object_put(gobj);
    if (left < 0) {
        return left;
    }
    memset(args, 0, sizeof *args);
    args->out.status = left == 0;
    return 0;
}

static int metadata_get(struct amdgpu_bo_user *ubo, struct drm_amdgpu_gem_metadata *args)
{
    args->data.tiling_info = ubo->tiling_flags;
    args->data.flags = ubo->metadata_flags;
    args->data.data_size_bytes = ubo->metadata_size;
    if (ubo->metadata_size > 0) {
        memcpy(args->data.data, ubo->metadata, ubo->metadata_size);
    }
    return 0;
}

static int metadata_set(struct amdgpu_bo_user *ubo, struct drm_amdgpu_gem_metadata *args)
{
    if (args->data.data_size_bytes > sizeof args->data.data) {
        return -EINVAL;
    }
    ubo->tiling_flags = args->data.tiling_info;
    return amdgpu_bo_set_metadata(&ubo->bo, args->data.data, args->data.data_size_bytes,
                                  args->data.flags);
}

int amdgpu_gem_metadata_ioctl(struct drm_device *dev, void *data, struct drm_file *filp)
{
    struct drm_amdgpu_gem_metadata *args = data;
    struct drm_gem_object *gobj = drm_gem_object_lookup(filp, args->handle);
    struct amdgpu_bo_user *ubo;
    int r;

    if (!gobj) {
        return -ENOENT;
    }
    ubo = to_amdgpu_bo_user(gem_to_amdgpu_bo(gobj));
    r = ttm_bo_reserve(&ubo->bo.tbo, true, false, NULL);
    if (!r) {
        if (args->op == AMDGPU_GEM_METADATA_OP_GET_METADATA) {
            r = metadata_get(ubo, args);
        } else if (args->op == AMDGPU_GEM_METADATA_OP_SET_METADATA) {
            r = metadata_set(ubo, args);
        }
        ttm_bo_unreserve(&ubo->bo.tbo);
    }
    drm_gem_object_put(gobj);
    return r;
}

/* Anyone with a handle may do it, also to a buffer that was shared with him. It moves nothing now.
 */
static int set_placement(struct amdgpu_bo *bo, u64 domains)
{
    int r = ttm_bo_reserve(&bo->tbo, true, false, NULL);

    if (r) {
        return r;
    }
    if (bo->tbo.base.import_attach && (domains & AMDGPU_GEM_DOMAIN_VRAM)) {
        r = -EINVAL;
    } else {
        bo->preferred_domains = domains & MEMORY_DOMAINS;
        bo->allowed_domains = bo->preferred_domains;
        if (bo->allowed_domains == AMDGPU_GEM_DOMAIN_VRAM) {
            bo->allowed_domains |= AMDGPU_GEM_DOMAIN_GTT;
        }
    }
    ttm_bo_unreserve(&bo->tbo);
    return r;
}

int amdgpu_gem_op_ioctl(struct drm_device *dev, void *data, struct drm_file *filp)
{
    struct drm_amdgpu_gem_op *args = data;
    struct drm_gem_object *gobj;
    struct amdgpu_bo *bo;
    int r = -EINVAL;

#if SIM_NEW_KERNEL
    if (args->padding) {
        return -EINVAL;
    }
#endif
    gobj = drm_gem_object_lookup(filp, args->handle);
    if (!gobj) {
        return -ENOENT;
    }
    bo = gem_to_amdgpu_bo(gobj);
    if (args->op == AMDGPU_GEM_OP_GET_GEM_CREATE_INFO) {
        struct drm_amdgpu_gem_create_in info = {
            .bo_size = amdgpu_bo_size(bo),
            .alignment = (u64)bo->tbo.page_alignment << PAGE_SHIFT,
            .domains = bo->preferred_domains,
            .domain_flags = bo->flags,
        };

        r = copy_to_user(u64_to_user_ptr(args->value), &info, sizeof info) ? -EFAULT : 0;
    } else if (args->op == AMDGPU_GEM_OP_SET_PLACEMENT) {
        r = set_placement(bo, args->value);
    }
    drm_gem_object_put(gobj);
    return r;
}
