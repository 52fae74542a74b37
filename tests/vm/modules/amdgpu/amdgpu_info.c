// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the device tells about itself: the INFO ioctl, sysfs and fdinfo. Memory figures are true;
 * what describes the GPU is that of a Radeon 8060S, as far as libdrm wants it.
 */
#include <linux/ktime.h>
#include <linux/sizes.h>
#include <linux/sysfs.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include <drm/drm_file.h>
#include <drm/drm_print.h>

#include "amdgpu.h"

#define MAX_REGISTERS 128

static int reply(const struct drm_amdgpu_info *info, const void *data, size_t size)
{
    size = min_t(size_t, size, info->return_size);
    return copy_to_user(u64_to_user_ptr(info->return_pointer), data, size) ? -EFAULT : 0;
}

static int reply_u32(const struct drm_amdgpu_info *info, u32 value)
{
    return reply(info, &value, sizeof value);
}

static int reply_u64(const struct drm_amdgpu_info *info, u64 value)
{
    return reply(info, &value, sizeof value);
}

static int info_device(struct amdgpu_device *adev, const struct drm_amdgpu_info *info)
{
    struct drm_amdgpu_info_device dev = {
        .device_id = adev->apu ? 0x1586 : 0x744c,
        .chip_rev = 1,
        .external_rev = 0xc1,
        .pci_rev = adev->apu ? 0xc1 : 0xc8,
        .family = adev->apu ? AMDGPU_FAMILY_GC_11_5_0 : AMDGPU_FAMILY_GC_11_0_0,
        .num_shader_engines = 2,
        .num_shader_arrays_per_engine = 2,
        .gpu_counter_freq = 100000,
        .max_engine_clock = 2900000,
        .max_memory_clock = 1000000,
        .ids_flags = adev->apu ? AMDGPU_IDS_FLAGS_FUSION : 0,
        .virtual_address_offset = AMDGPU_VA_START,
        .virtual_address_max = AMDGPU_VA_END,
        .virtual_address_alignment = PAGE_SIZE,
        .pte_fragment_size = SZ_2M,
        .gart_page_size = PAGE_SIZE,
        .cu_active_number = 40,
        .vram_type = AMDGPU_VRAM_TYPE_LPDDR5,
        .vram_bit_width = 256,
        .wave_front_size = 32,
    };

    return reply(info, &dev, sizeof dev);
}

static u64 usable(const struct ttm_resource_manager *man, const atomic64_t *pinned)
{
    return READ_ONCE(man->size) - atomic64_read(pinned);
}

static struct drm_amdgpu_heap_info heap_info(struct ttm_resource_manager *man,
                                             const atomic64_t *pinned)
{
    return (struct drm_amdgpu_heap_info){
        .total_heap_size = READ_ONCE(man->size),
        .usable_heap_size = usable(man, pinned),
        .heap_usage = ttm_resource_manager_usage(man),
        .max_allocation = usable(man, pinned) / 4 * 3,
    };
}

static int info_memory(struct amdgpu_device *adev, const struct drm_amdgpu_info *info)
{
    struct drm_amdgpu_memory_info mem = {
        .vram = heap_info(&adev->vram, &adev->vram_pin_size),
        .cpu_accessible_vram = heap_info(&adev->vram, &adev->vram_pin_size),
        .gtt = heap_info(&adev->gtt, &adev->gart_pin_size),
    };

    return reply(info, &mem, sizeof mem);
}

static int info_vram_gtt(struct amdgpu_device *adev, const struct drm_amdgpu_info *info)
{
    struct drm_amdgpu_info_vram_gtt sizes = {
        .vram_size = usable(&adev->vram, &adev->vram_pin_size),
        .vram_cpu_accessible_size = usable(&adev->vram, &adev->vram_pin_size),
        .gtt_size = usable(&adev->gtt, &adev->gart_pin_size),
    };

    return reply(info, &sizes, sizeof sizes);
}

static int info_registers(const struct drm_amdgpu_info *info)
{
    static const u32 zeros[MAX_REGISTERS];

    if (info->read_mmr_reg.count > MAX_REGISTERS) {
        return -EINVAL;
    }
    return reply(info, zeros, info->read_mmr_reg.count * sizeof zeros[0]);
}

int amdgpu_info_ioctl(struct drm_device *dev, void *data, struct drm_file *filp)
{
    static const struct drm_amdgpu_info_hw_ip no_engine;
    static const struct drm_amdgpu_info_firmware no_firmware;
    struct amdgpu_device *adev = drm_to_adev(dev);
    struct drm_amdgpu_info *info = data;

    if (info->return_size == 0 || info->return_pointer == 0) {
        return -EINVAL;
    }
    switch (info->query) {
    case AMDGPU_INFO_ACCEL_WORKING:
        return reply_u32(info, 1);
    case AMDGPU_INFO_DEV_INFO:
        return info_device(adev, info);
    case AMDGPU_INFO_MEMORY:
        return info_memory(adev, info);
    case AMDGPU_INFO_VRAM_GTT:
        return info_vram_gtt(adev, info);
    case AMDGPU_INFO_GTT_USAGE:
        return reply_u64(info, ttm_resource_manager_usage(&adev->gtt));
    case AMDGPU_INFO_VRAM_USAGE:
    case AMDGPU_INFO_VIS_VRAM_USAGE:
        return reply_u64(info, ttm_resource_manager_usage(&adev->vram));
    case AMDGPU_INFO_READ_MMR_REG:
        return info_registers(info);
    case AMDGPU_INFO_HW_IP_INFO:
        return reply(info, &no_engine, sizeof no_engine);
    case AMDGPU_INFO_HW_IP_COUNT:
        return reply_u32(info, 0);
    case AMDGPU_INFO_FW_VERSION:
        return reply(info, &no_firmware, sizeof no_firmware);
    case AMDGPU_INFO_TIMESTAMP:
        return reply_u64(info, ktime_get_ns() / 10); /* 100 MHz */
    case AMDGPU_INFO_NUM_BYTES_MOVED:
    case AMDGPU_INFO_NUM_EVICTIONS:
    case AMDGPU_INFO_NUM_VRAM_CPU_PAGE_FAULTS:
    case AMDGPU_INFO_VRAM_LOST_COUNTER:
        return reply_u64(info, 0);
    default:
        return -EINVAL;
    }
}

/* Contexts: without rings there is nothing to them but their number. */
int amdgpu_ctx_ioctl(struct drm_device *dev, void *data, struct drm_file *filp)
{
    struct amdgpu_device *adev = drm_to_adev(dev);
    struct amdgpu_fpriv *fpriv = filp->driver_priv;
    union drm_amdgpu_ctx *args = data;
    u32 id = args->in.ctx_id;
    int r = 0;

    mutex_lock(&fpriv->lock);
    switch (args->in.op) {
    case AMDGPU_CTX_OP_ALLOC_CTX:
        r = idr_alloc(&fpriv->contexts, fpriv, 1, 4096, GFP_KERNEL);
        if (r > 0) {
            counter_add(&adev->contexts, 1);
            memset(args, 0, sizeof *args);
            args->out.alloc.ctx_id = r;
            r = 0;
        }
        break;
    case AMDGPU_CTX_OP_FREE_CTX:
        if (idr_remove(&fpriv->contexts, id)) {
            counter_add(&adev->contexts, -1);
        } else {
            r = -EINVAL;
        }
        break;
    case AMDGPU_CTX_OP_QUERY_STATE:
    case AMDGPU_CTX_OP_QUERY_STATE2:
        if (!idr_find(&fpriv->contexts, id)) {
            r = -EINVAL;
        } else {
            memset(args, 0, sizeof *args); /* no reset, no hang */
        }
        break;
    default:
        r = -EINVAL;
    }
    mutex_unlock(&fpriv->lock);
    return r;
}

/* ---- fdinfo ---- */

struct mem_stats {
    struct drm_memory_stats in[TTM_PL_VRAM + 1]; /* by TTM type: 6.12 by place, 7.3 by preference */
    u64 requested_gtt;
    u64 requested_vram;
    u64 evicted_vram;
};

static u32 preferred_type(const struct amdgpu_bo *bo)
{
    if (bo->preferred_domains & AMDGPU_GEM_DOMAIN_VRAM) {
        return TTM_PL_VRAM;
    }
    return bo->preferred_domains & AMDGPU_GEM_DOMAIN_GTT ? TTM_PL_TT : TTM_PL_SYSTEM;
}

static void stats_add(struct mem_stats *stats, struct drm_gem_object *gobj)
{
    struct amdgpu_bo *bo = gem_to_amdgpu_bo(gobj);
    int mem_type = READ_ONCE(bo->mem_type);
    u64 size = amdgpu_bo_size(bo);
    u32 owner = SIM_NEW_KERNEL ? preferred_type(bo) : (u32)mem_type;

    if (mem_type >= 0) {
        stats->in[mem_type].resident += size;
        if (bo->flags & AMDGPU_GEM_CREATE_DISCARDABLE) {
            stats->in[mem_type].purgeable += size;
        }
    }
    if (mem_type >= 0 || SIM_NEW_KERNEL) {
        if (drm_gem_object_is_shared_for_memory_stats(gobj)) {
            stats->in[owner].shared += size;
        } else {
            stats->in[owner].private += size;
        }
    }
    if (bo->preferred_domains & AMDGPU_GEM_DOMAIN_VRAM) {
        stats->requested_vram += size;
        stats->evicted_vram += mem_type == TTM_PL_VRAM ? 0 : size;
    } else if (bo->preferred_domains & AMDGPU_GEM_DOMAIN_GTT) {
        stats->requested_gtt += size;
    }
}

static void print_kib(struct drm_printer *p, const char *key, u64 bytes)
{
    drm_printf(p, "%s:\t%llu KiB\n", key, bytes / 1024);
}

void amdgpu_show_fdinfo(struct drm_printer *p, struct drm_file *file)
{
    struct amdgpu_fpriv *fpriv = file->driver_priv;
    struct mem_stats stats = {};
    struct drm_gem_object *gobj;
    int id;

    spin_lock(&file->table_lock);
    idr_for_each_entry(&file->object_idr, gobj, id)
    {
        stats_add(&stats, gobj);
    }
    spin_unlock(&file->table_lock);
    drm_printf(p, "pasid:\t%u\n", fpriv->pasid);
#if SIM_NEW_KERNEL
    for (int type = TTM_PL_SYSTEM; type <= TTM_PL_VRAM; type++) {
        static const char *const names[] = {"cpu", "gtt", "vram"};

        drm_print_memory_stats(p, &stats.in[type],
                               DRM_GEM_OBJECT_RESIDENT | DRM_GEM_OBJECT_PURGEABLE, names[type]);
    }
#endif
    print_kib(p, "drm-memory-vram", stats.in[TTM_PL_VRAM].resident);
    print_kib(p, "drm-memory-gtt", stats.in[TTM_PL_TT].resident);
    print_kib(p, "drm-memory-cpu", stats.in[TTM_PL_SYSTEM].resident);
    print_kib(p, "amd-evicted-vram", stats.evicted_vram);
    print_kib(p, "amd-requested-vram", stats.requested_vram);
    print_kib(p, "amd-requested-gtt", stats.requested_gtt);
#if !SIM_NEW_KERNEL
    print_kib(p, "drm-shared-vram", stats.in[TTM_PL_VRAM].shared);
    print_kib(p, "drm-shared-gtt", stats.in[TTM_PL_TT].shared);
    print_kib(p, "drm-shared-cpu", stats.in[TTM_PL_SYSTEM].shared);
#endif
}

/* ---- sysfs ---- */

static struct amdgpu_device *dev_to_adev(struct device *dev)
{
    return drm_to_adev(dev_get_drvdata(dev));
}

static ssize_t mem_info_gtt_total_show(struct device *dev, struct device_attribute *attr, char *buf)
{
    return sysfs_emit(buf, "%llu\n", READ_ONCE(dev_to_adev(dev)->gtt.size));
}

static ssize_t mem_info_gtt_used_show(struct device *dev, struct device_attribute *attr, char *buf)
{
    return sysfs_emit(buf, "%llu\n", ttm_resource_manager_usage(&dev_to_adev(dev)->gtt));
}

static ssize_t mem_info_vram_total_show(struct device *dev, struct device_attribute *attr,
                                        char *buf)
{
    return sysfs_emit(buf, "%llu\n", dev_to_adev(dev)->vram.size);
}

static ssize_t mem_info_vram_used_show(struct device *dev, struct device_attribute *attr, char *buf)
{
    return sysfs_emit(buf, "%llu\n", ttm_resource_manager_usage(&dev_to_adev(dev)->vram));
}

/* all of VRAM is visible to the CPU */
#define mem_info_vis_vram_total_show mem_info_vram_total_show
#define mem_info_vis_vram_used_show  mem_info_vram_used_show

static DEVICE_ATTR_RO(mem_info_gtt_total);
static DEVICE_ATTR_RO(mem_info_gtt_used);
static DEVICE_ATTR_RO(mem_info_vram_total);
static DEVICE_ATTR_RO(mem_info_vram_used);
static DEVICE_ATTR_RO(mem_info_vis_vram_total);
static DEVICE_ATTR_RO(mem_info_vis_vram_used);

static struct attribute *amdgpu_dev_attrs[] = {
    &dev_attr_mem_info_gtt_total.attr,
    &dev_attr_mem_info_gtt_used.attr,
    &dev_attr_mem_info_vram_total.attr,
    &dev_attr_mem_info_vram_used.attr,
    &dev_attr_mem_info_vis_vram_total.attr,
    &dev_attr_mem_info_vis_vram_used.attr,
    NULL,
};

static const struct attribute_group amdgpu_dev_group = {.attrs = amdgpu_dev_attrs};

const struct attribute_group *amdgpu_dev_groups[] = {&amdgpu_dev_group, NULL};
