// SPDX-License-Identifier: GPL-2.0-only
/*
 * GPU addresses: which part of which BO a file has mapped where. There is no GPU and so no command
 * submission; what a submission would do to the BO, bring it into one of its domains, is done when
 * it is mapped.
 */
#include <linux/slab.h>

#include <drm/drm_file.h>

#include "amdgpu.h"

struct va_mapping {
    struct list_head link; /* amdgpu_fpriv::mappings */
    struct amdgpu_bo *bo;  /* the file's handle holds it */
    u64 start;
    u64 size;
};

static void mapping_drop(struct amdgpu_device *adev, struct va_mapping *mapping)
{
    counter_add(&adev->va_mappings, -1);
    list_del(&mapping->link);
    kfree(mapping);
}

void amdgpu_va_forget(struct amdgpu_device *adev, struct amdgpu_fpriv *fpriv, struct amdgpu_bo *bo)
{
    struct va_mapping *mapping, *next;

    mutex_lock(&fpriv->lock);
    list_for_each_entry_safe(mapping, next, &fpriv->mappings, link)
    {
        if (!bo || mapping->bo == bo) {
            mapping_drop(adev, mapping);
        }
    }
    mutex_unlock(&fpriv->lock);
}

static int va_map(struct amdgpu_device *adev, struct amdgpu_fpriv *fpriv, struct amdgpu_bo *bo,
                  const struct drm_amdgpu_gem_va *args)
{
    struct va_mapping *mapping, *other;

    if (!PAGE_ALIGNED(args->va_address) || !PAGE_ALIGNED(args->offset_in_bo) ||
        !PAGE_ALIGNED(args->map_size) || args->map_size == 0 ||
        args->offset_in_bo > amdgpu_bo_size(bo) ||
        args->map_size > amdgpu_bo_size(bo) - args->offset_in_bo) {
        return -EINVAL;
    }
    mapping = kzalloc(sizeof *mapping, GFP_KERNEL);
    if (!mapping) {
        return -ENOMEM;
    }
    mapping->bo = bo;
    mapping->start = args->va_address;
    mapping->size = args->map_size;
    mutex_lock(&fpriv->lock);
    list_for_each_entry(other, &fpriv->mappings, link)
    {
        if (other->start < mapping->start + mapping->size &&
            mapping->start < other->start + other->size) {
            mutex_unlock(&fpriv->lock);
            kfree(mapping);
            return -EINVAL;
        }
    }
    list_add_tail(&mapping->link, &fpriv->mappings);
    counter_add(&adev->va_mappings, 1);
    mutex_unlock(&fpriv->lock);
    return 0;
}

static int va_unmap(struct amdgpu_device *adev, struct amdgpu_fpriv *fpriv, struct amdgpu_bo *bo,
                    u64 start)
{
    struct va_mapping *mapping, *next;
    int r = -ENOENT;

    mutex_lock(&fpriv->lock);
    list_for_each_entry_safe(mapping, next, &fpriv->mappings, link)
    {
        if (mapping->bo == bo && mapping->start == start) {
            mapping_drop(adev, mapping);
            r = 0;
            break;
        }
    }
    mutex_unlock(&fpriv->lock);
    return r;
}

static int bring_in(struct amdgpu_bo *bo)
{
    int r = ttm_bo_reserve(&bo->tbo, true, false, NULL);

    if (r) {
        return r;
    }
    if (bo->tbo.pin_count == 0) {
        r = amdgpu_bo_validate(bo, bo->allowed_domains, true);
    }
    ttm_bo_unreserve(&bo->tbo);
    return r;
}

int amdgpu_gem_va_ioctl(struct drm_device *dev, void *data, struct drm_file *filp)
{
    const u32 valid_flags = AMDGPU_VM_DELAY_UPDATE | AMDGPU_VM_PAGE_READABLE |
                            AMDGPU_VM_PAGE_WRITEABLE | AMDGPU_VM_PAGE_EXECUTABLE |
                            AMDGPU_VM_MTYPE_MASK | AMDGPU_VM_PAGE_NOALLOC;
    struct drm_amdgpu_gem_va *args = data;
    struct amdgpu_device *adev = drm_to_adev(dev);
    struct amdgpu_fpriv *fpriv = filp->driver_priv;
    struct drm_gem_object *gobj;
    int r;

    if (args->va_address < AMDGPU_VA_START || args->va_address >= AMDGPU_VA_END ||
        args->map_size > AMDGPU_VA_END - args->va_address || (args->flags & ~valid_flags) ||
        (args->operation != AMDGPU_VA_OP_MAP && args->operation != AMDGPU_VA_OP_UNMAP)) {
        return -EINVAL;
    }
    gobj = drm_gem_object_lookup(filp, args->handle);
    if (!gobj) {
        return -ENOENT;
    }
    if (args->operation == AMDGPU_VA_OP_UNMAP) {
        r = va_unmap(adev, fpriv, gem_to_amdgpu_bo(gobj), args->va_address);
    } else {
        r = bring_in(gem_to_amdgpu_bo(gobj));
        if (!r) {
            r = va_map(adev, fpriv, gem_to_amdgpu_bo(gobj), args);
        }
    }
    drm_gem_object_put(gobj);
    return r;
}
