// SPDX-License-Identifier: GPL-2.0-only
/*
 * debugfs, beside the primary minor's other files: eviction as in the real driver, and what only
 * tests want: counters that prove that nothing is left, and faults to inject.
 */
#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include <drm/drm_file.h>

#include "amdgpu.h"

static int evict_gtt_get(void *data, u64 *val)
{
    struct amdgpu_device *adev = data;

    *val = ttm_resource_manager_evict_all(&adev->bdev, &adev->gtt);
    return 0;
}

static int evict_vram_get(void *data, u64 *val)
{
    struct amdgpu_device *adev = data;

    *val = ttm_resource_manager_evict_all(&adev->bdev, &adev->vram);
    return 0;
}

/* reading does it */
DEFINE_DEBUGFS_ATTRIBUTE(evict_gtt_fops, evict_gtt_get, NULL, "%lld\n");
DEFINE_DEBUGFS_ATTRIBUTE(evict_vram_fops, evict_vram_get, NULL, "%lld\n");

static void print_counter(struct seq_file *m, const char *name, const struct amdgpu_counter *c)
{
    seq_printf(m, "%s %lld total %lld below %lld\n", name, atomic64_read(&c->now),
               atomic64_read(&c->total), atomic64_read(&c->below));
}

static int sim_counters_show(struct seq_file *m, void *unused)
{
    struct amdgpu_device *adev = m->private;

    flush_workqueue(adev->bdev.wq); /* imports are freed there: count them as gone */
    print_counter(m, "objects", &adev->objects);
    print_counter(m, "bytes", &adev->bytes);
    print_counter(m, "pinned_bytes", &adev->pinned_bytes);
    print_counter(m, "huge_bytes", &adev->huge_bytes);
    print_counter(m, "imports", &adev->imports);
    print_counter(m, "exports", &adev->exports);
    print_counter(m, "attachments", &adev->attachments);
    print_counter(m, "mappings", &adev->mappings);
    print_counter(m, "va_mappings", &adev->va_mappings);
    print_counter(m, "contexts", &adev->contexts);
    print_counter(m, "files", &adev->files);
    seq_printf(m, "gtt_used %llu\n", ttm_resource_manager_usage(&adev->gtt));
    seq_printf(m, "vram_used %llu\n", ttm_resource_manager_usage(&adev->vram));
    return 0;
}
DEFINE_SHOW_ATTRIBUTE(sim_counters);

void amdgpu_debugfs_init(struct amdgpu_device *adev)
{
    struct dentry *root = adev->ddev.primary->debugfs_root;

    debugfs_create_file("amdgpu_evict_gtt", 0400, root, adev, &evict_gtt_fops);
    debugfs_create_file("amdgpu_evict_vram", 0400, root, adev, &evict_vram_fops);
    debugfs_create_file("sim_counters", 0444, root, adev, &sim_counters_fops);
    debugfs_create_atomic_t("sim_fail_create", 0600, root, &adev->fail_create);
    debugfs_create_atomic_t("sim_fail_export", 0600, root, &adev->fail_export);
    debugfs_create_atomic_t("sim_fail_pin", 0600, root, &adev->fail_pin);
    ttm_resource_manager_create_debugfs(&adev->gtt, root, "amdgpu_gtt_mm");
    ttm_resource_manager_create_debugfs(&adev->vram, root, "amdgpu_vram_mm");
}
