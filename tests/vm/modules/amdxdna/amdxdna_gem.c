// SPDX-License-Identifier: GPL-2.0-only
/*
 * Buffers: shmem of our own, and imports. DRM's own import does what the real driver's does: a
 * static attachment, mapped until the last handle is closed.
 */
#include <linux/overflow.h>
#include <linux/slab.h>

#include <drm/drm_cache.h>
#include <drm/drm_file.h>
#include <drm/drm_prime.h>
#include <drm/drm_vma_manager.h>

#include "amdxdna.h"

struct amdxdna_bo {
    struct drm_gem_shmem_object base;
    u32 type;
};

static struct amdxdna_bo *to_xdna_bo(struct drm_gem_object *gobj)
{
    return container_of(gobj, struct amdxdna_bo, base.base);
}

static void count(struct drm_gem_object *gobj, int n)
{
    struct amdxdna_dev *xdna = to_xdna_dev(gobj->dev);

    if (gobj->import_attach) {
        atomic64_add(n, &xdna->imports);
        atomic64_add(n * (s64)gobj->size, &xdna->imported_bytes);
    } else {
        atomic64_add(n, &xdna->objects);
        atomic64_add(n * (s64)gobj->size, &xdna->bytes);
    }
}

static void amdxdna_gem_obj_free(struct drm_gem_object *gobj)
{
    count(gobj, -1);
    drm_gem_shmem_free(&to_xdna_bo(gobj)->base);
}

static const struct drm_gem_object_funcs amdxdna_gem_funcs = {
    .free = amdxdna_gem_obj_free,
    .print_info = drm_gem_shmem_object_print_info,
    .pin = drm_gem_shmem_object_pin,
    .unpin = drm_gem_shmem_object_unpin,
    .get_sg_table = drm_gem_shmem_object_get_sg_table,
    .vmap = drm_gem_shmem_object_vmap,
    .vunmap = drm_gem_shmem_object_vunmap,
    .mmap = drm_gem_shmem_object_mmap,
    .vm_ops = &drm_gem_shmem_vm_ops,
};

struct drm_gem_object *amdxdna_gem_create_object(struct drm_device *dev, size_t size)
{
    struct amdxdna_bo *bo = kzalloc(sizeof *bo, GFP_KERNEL);

    if (!bo) {
        return ERR_PTR(-ENOMEM);
    }
    bo->type = AMDXDNA_BO_SHARE;
    bo->base.base.funcs = &amdxdna_gem_funcs;
    return &bo->base.base;
}

noinline struct drm_gem_object *amdxdna_gem_prime_import(struct drm_device *dev,
                                                         struct dma_buf *dma_buf)
{
    struct drm_gem_object *gobj;

    if (atomic_dec_if_positive(&to_xdna_dev(dev)->fail_import) == 0) {
        return ERR_PTR(-ENOMEM);
    }
    gobj = drm_gem_prime_import(dev, dma_buf);
    if (!IS_ERR(gobj) && gobj->import_attach) { /* else it is our own buffer */
        count(gobj, 1);
    }
    return gobj;
}

int amdxdna_drm_create_bo_ioctl(struct drm_device *dev, void *data, struct drm_file *filp)
{
    struct amdxdna_drm_create_bo *args = data;
    struct drm_gem_shmem_object *shmem;
    int r;

    if (args->flags || args->size == 0) {
        return -EINVAL;
    }
    switch (args->type) {
    case AMDXDNA_BO_SHARE:
    case AMDXDNA_BO_CMD:
        break;
    case AMDXDNA_BO_DEV_HEAP:
        if (!IS_ALIGNED(args->size, AMDXDNA_HEAP_SIZE)) {
            return -EINVAL;
        }
        break;
    case AMDXDNA_BO_DEV:
        return -EOPNOTSUPP; /* parts of the heap: nothing runs here that would want one */
    default:
        return -EINVAL;
    }
    if (args->vaddr) {
        return -EOPNOTSUPP; /* user pages */
    }
    shmem = drm_gem_shmem_create(dev, args->size);
    if (IS_ERR(shmem)) {
        return PTR_ERR(shmem);
    }
    count(&shmem->base, 1);
    to_xdna_bo(&shmem->base)->type = args->type;
    r = drm_gem_handle_create(filp, &shmem->base, &args->handle);
    drm_gem_object_put(&shmem->base);
    return r;
}

int amdxdna_drm_get_bo_info_ioctl(struct drm_device *dev, void *data, struct drm_file *filp)
{
    struct amdxdna_drm_get_bo_info *args = data;
    struct drm_gem_object *gobj;

    if (args->ext || args->ext_flags || args->pad) {
        return -EINVAL;
    }
    gobj = drm_gem_object_lookup(filp, args->handle);
    if (!gobj) {
        return -ENOENT;
    }
    args->map_offset = drm_vma_node_offset_addr(&gobj->vma_node);
    args->vaddr = AMDXDNA_INVALID_ADDR;
    args->xdna_addr =
        to_xdna_bo(gobj)->type == AMDXDNA_BO_DEV_HEAP ? AMDXDNA_HEAP_BASE : AMDXDNA_INVALID_ADDR;
    drm_gem_object_put(gobj);
    return 0;
}

static int flush(struct drm_gem_shmem_object *shmem)
{
    int r = drm_gem_shmem_pin(shmem);

    if (r) {
        return r;
    }
    drm_clflush_pages(shmem->pages, shmem->base.size >> PAGE_SHIFT);
    drm_gem_shmem_unpin(shmem);
    return 0;
}

int amdxdna_drm_sync_bo_ioctl(struct drm_device *dev, void *data, struct drm_file *filp)
{
    struct amdxdna_drm_sync_bo *args = data;
    struct drm_gem_object *gobj = drm_gem_object_lookup(filp, args->handle);
    u64 end;
    int r;

    if (!gobj) {
        return -ENOENT;
    }
    if (gobj->import_attach) {
        r = -EOPNOTSUPP; /* as the real one, which also warns */
    } else if (args->offset >= gobj->size || check_add_overflow(args->offset, args->size, &end)) {
        r = -EINVAL;
    } else {
        r = flush(&to_xdna_bo(gobj)->base);
    }
    drm_gem_object_put(gobj);
    return r;
}
