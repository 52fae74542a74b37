/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The simulated amdgpu: what one device, one open file and one buffer are. Memory is managed by the
 * kernel's own TTM, as in the real driver, so limits, eviction, pinning and huge pages are the real
 * ones; only the GPU is missing. Names that BPF programs attach to or read are the real driver's.
 */
#ifndef AMDGPU_SIM_H
#define AMDGPU_SIM_H

#include <linux/idr.h>
#include <linux/mutex.h>

#include <drm/amdgpu_drm.h>
#include <drm/drm_device.h>
#include <drm/drm_gem.h>
#include <drm/ttm/ttm_bo.h>
#include <drm/ttm/ttm_device.h>
#include <drm/ttm/ttm_placement.h>
#include <drm/ttm/ttm_resource.h>
#include <drm/ttm/ttm_tt.h>

struct drm_file;
struct drm_printer;

/* Debian 13 has 6.12 (stable) and 7.3 (backports); where the two differ, 7.3 is the new one. */
#define SIM_NEW_KERNEL (LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0))

/* A quantity that must return to 0 and never go below it. */
struct amdgpu_counter {
    atomic64_t now;
    atomic64_t total; /* everything that was ever added */
    atomic64_t below; /* how often it was negative: always a bug */
};

struct amdgpu_device {
    struct drm_device ddev;
    struct list_head link; /* in the list of devices, amdgpu_drv.c */
    bool apu;
    struct ttm_device bdev;
    struct ttm_resource_manager gtt;
    struct ttm_resource_manager vram;
    atomic64_t gart_pin_size;
    atomic64_t vram_pin_size;

    struct amdgpu_counter objects;
    struct amdgpu_counter bytes;
    struct amdgpu_counter pinned_bytes;
    struct amdgpu_counter huge_bytes;  /* in whole 2 MiB pages */
    struct amdgpu_counter imports;     /* objects that came from another exporter */
    struct amdgpu_counter exports;     /* dma-bufs of ours that are alive */
    struct amdgpu_counter attachments; /* to those */
    struct amdgpu_counter mappings;    /* of those attachments */
    struct amdgpu_counter va_mappings;
    struct amdgpu_counter contexts;
    struct amdgpu_counter files;
    atomic_t fail_create; /* n: the n-th GEM_CREATE from now fails; 0: none */
    atomic_t fail_export;
    atomic_t fail_pin;
};

#define AMDGPU_BO_MAX_PLACEMENTS 3

struct amdgpu_bo {
    u32 preferred_domains;
    u32 allowed_domains;
    struct ttm_place placements[AMDGPU_BO_MAX_PLACEMENTS];
    struct ttm_placement placement;
    struct ttm_buffer_object tbo;
    u64 flags;
    int mem_type; /* where it is, for fdinfo, which cannot lock it; -1: nowhere */
};

struct amdgpu_bo_user {
    struct amdgpu_bo bo;
    u64 tiling_flags;
    u64 metadata_flags;
    void *metadata;
    u32 metadata_size;
};

struct amdgpu_bo_param {
    unsigned long size;
    int byte_align;
    u32 domain;
    u64 flags;
    enum ttm_bo_type type;
    struct dma_resv *resv;
};

struct amdgpu_fpriv {
    struct mutex lock;
    struct list_head mappings; /* struct va_mapping, amdgpu_va.c */
    struct idr contexts;
    u32 pasid;
};

/* Added to BTF's and DRM's idea of an address that no BO has. */
#define AMDGPU_VA_START SZ_2M
#define AMDGPU_VA_END   (1ull << 47)

static inline struct amdgpu_device *drm_to_adev(struct drm_device *ddev)
{
    return container_of(ddev, struct amdgpu_device, ddev);
}

static inline struct amdgpu_device *amdgpu_ttm_adev(struct ttm_device *bdev)
{
    return container_of(bdev, struct amdgpu_device, bdev);
}

static inline struct amdgpu_bo *gem_to_amdgpu_bo(struct drm_gem_object *gobj)
{
    return container_of(gobj, struct amdgpu_bo, tbo.base);
}

static inline struct amdgpu_bo *ttm_to_amdgpu_bo(struct ttm_buffer_object *tbo)
{
    return container_of(tbo, struct amdgpu_bo, tbo);
}

static inline struct amdgpu_bo_user *to_amdgpu_bo_user(struct amdgpu_bo *bo)
{
    return container_of(bo, struct amdgpu_bo_user, bo);
}

static inline u64 amdgpu_bo_size(struct amdgpu_bo *bo)
{
    return bo->tbo.base.size;
}

static inline void counter_add(struct amdgpu_counter *counter, s64 n)
{
    if (atomic64_add_return(n, &counter->now) < 0) {
        atomic64_inc(&counter->below);
    }
    if (n > 0) {
        atomic64_add(n, &counter->total);
    }
}

/* True once, n calls after n was written to the fault's file. */
static inline bool fault_hits(atomic_t *fault)
{
    return atomic_dec_if_positive(fault) == 0;
}

/* amdgpu_object.c */
int amdgpu_bo_create_user(struct amdgpu_device *adev, struct amdgpu_bo_param *bp,
                          struct amdgpu_bo_user **ubo_ptr);
bool amdgpu_bo_is_amdgpu_bo(struct ttm_buffer_object *tbo);
void amdgpu_bo_placement_from_domain(struct amdgpu_bo *bo, u32 domain);
int amdgpu_bo_validate(struct amdgpu_bo *bo, u32 domain, bool interruptible);
int amdgpu_bo_pin(struct amdgpu_bo *bo, u32 domain);
void amdgpu_bo_unpin(struct amdgpu_bo *bo);
void amdgpu_bo_move_notify(struct ttm_buffer_object *tbo, bool evict, struct ttm_resource *new_mem);
int amdgpu_bo_set_metadata(struct amdgpu_bo *bo, const void *metadata, u32 metadata_size,
                           u64 flags);

/* amdgpu_ttm.c */
u64 amdgpu_gtt_size(struct amdgpu_device *adev);
int amdgpu_ttm_init(struct amdgpu_device *adev);
void amdgpu_ttm_fini(struct amdgpu_device *adev);

/* amdgpu_gem.c */
extern const struct drm_gem_object_funcs amdgpu_gem_object_funcs;
int amdgpu_gem_create_ioctl(struct drm_device *dev, void *data, struct drm_file *filp);
int amdgpu_gem_mmap_ioctl(struct drm_device *dev, void *data, struct drm_file *filp);
int amdgpu_gem_wait_idle_ioctl(struct drm_device *dev, void *data, struct drm_file *filp);
int amdgpu_gem_metadata_ioctl(struct drm_device *dev, void *data, struct drm_file *filp);
int amdgpu_gem_op_ioctl(struct drm_device *dev, void *data, struct drm_file *filp);

/* amdgpu_va.c */
int amdgpu_gem_va_ioctl(struct drm_device *dev, void *data, struct drm_file *filp);
void amdgpu_va_forget(struct amdgpu_device *adev, struct amdgpu_fpriv *fpriv,
                      struct amdgpu_bo *bo); /* bo NULL: all */

/* amdgpu_dma_buf.c */
struct dma_buf *amdgpu_gem_prime_export(struct drm_gem_object *gobj, int flags);
struct drm_gem_object *amdgpu_gem_prime_import(struct drm_device *dev, struct dma_buf *dma_buf);
void amdgpu_dma_buf_moved(struct amdgpu_bo *bo);

/* amdgpu_info.c */
int amdgpu_info_ioctl(struct drm_device *dev, void *data, struct drm_file *filp);
int amdgpu_ctx_ioctl(struct drm_device *dev, void *data, struct drm_file *filp);
void amdgpu_show_fdinfo(struct drm_printer *p, struct drm_file *file);
extern const struct attribute_group *amdgpu_dev_groups[];

/* amdgpu_debugfs.c */
void amdgpu_debugfs_init(struct amdgpu_device *adev);

#endif
