/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The simulated amdxdna: an NPU's memory interface without an NPU. It is there to import: an import
 * attaches statically and maps, as the real driver's, and that is what pins the exporter's buffer.
 */
#ifndef AMDXDNA_SIM_H
#define AMDXDNA_SIM_H

#include <drm/drm_device.h>
#include <drm/drm_gem.h>
#include <drm/drm_gem_shmem_helper.h>

#include "amdxdna_abi.h"

struct drm_file;

struct amdxdna_dev {
    struct drm_device ddev;
    atomic64_t objects;
    atomic64_t bytes;
    atomic64_t imports;
    atomic64_t imported_bytes;
    atomic64_t files;
    atomic_t fail_import; /* n: the n-th import from now fails; 0: none */
};

/* Where the NPU sees the heap; of the rest it takes the user's addresses. */
#define AMDXDNA_HEAP_BASE    0x4000000ull
#define AMDXDNA_HEAP_SIZE    (64ull << 20)
#define AMDXDNA_INVALID_ADDR (~0ull)

static inline struct amdxdna_dev *to_xdna_dev(struct drm_device *ddev)
{
    return container_of(ddev, struct amdxdna_dev, ddev);
}

/* amdxdna_gem.c */
struct drm_gem_object *amdxdna_gem_create_object(struct drm_device *dev, size_t size);
struct drm_gem_object *amdxdna_gem_prime_import(struct drm_device *dev, struct dma_buf *dma_buf);
int amdxdna_drm_create_bo_ioctl(struct drm_device *dev, void *data, struct drm_file *filp);
int amdxdna_drm_get_bo_info_ioctl(struct drm_device *dev, void *data, struct drm_file *filp);
int amdxdna_drm_sync_bo_ioctl(struct drm_device *dev, void *data, struct drm_file *filp);

/* amdxdna_info.c */
int amdxdna_drm_get_info_ioctl(struct drm_device *dev, void *data, struct drm_file *filp);
int amdxdna_drm_get_array_ioctl(struct drm_device *dev, void *data, struct drm_file *filp);
extern const struct attribute_group *amdxdna_dev_groups[];
void amdxdna_debugfs_init(struct amdxdna_dev *xdna);

#endif
