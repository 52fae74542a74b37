// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the device tells about itself: the queries that XRT makes to list and open it, sysfs, and in
 * debugfs what tests want. The figures of the hardware are a Strix Halo's.
 */
#include <linux/debugfs.h>
#include <linux/seq_file.h>
#include <linux/sysfs.h>
#include <linux/uaccess.h>

#include <drm/drm_file.h>

#include "amdxdna.h"

#define FIRMWARE   \
    {              \
        1, 1, 0, 0 \
    }

static int reply(struct amdxdna_drm_get_info *args, const void *data, u32 size)
{
    u32 n = min(size, args->buffer_size);

    args->buffer_size = size;
    return copy_to_user(u64_to_user_ptr(args->buffer), data, n) ? -EFAULT : 0;
}

int amdxdna_drm_get_info_ioctl(struct drm_device *dev, void *data, struct drm_file *filp)
{
    static const struct amdxdna_metadata metadata = {
        .col_size = 0x2000000,
        .cols = 8,
        .rows = 6,
        .version = {2, 0},
        .core = {4, 2, 2, 16, 16},
        .mem = {1, 1, 6, 64, 16},
        .shim = {1, 0, 2, 16, 16},
    };
    static const struct amdxdna_clocks clocks = {
        .mp_npu = {"MP-NPU Clock", 1267},
        .h = {"H Clock", 1800},
    };
    static const struct amdxdna_resources resources = {
        .npu_clk_max = 1800,
        .npu_tops_max = 50,
        .npu_task_max = 32,
    };
    static const struct amdxdna_firmware firmware = FIRMWARE;
    static const struct amdxdna_power_mode mode;
    struct amdxdna_drm_get_info *args = data;

    switch (args->param) {
    case DRM_AMDXDNA_QUERY_AIE_METADATA:
        return reply(args, &metadata, sizeof metadata);
    case DRM_AMDXDNA_QUERY_AIE_VERSION:
        return reply(args, &metadata.version, sizeof metadata.version);
    case DRM_AMDXDNA_QUERY_CLOCK_METADATA:
        return reply(args, &clocks, sizeof clocks);
    case DRM_AMDXDNA_QUERY_FIRMWARE_VERSION:
        return reply(args, &firmware, sizeof firmware);
    case DRM_AMDXDNA_GET_POWER_MODE:
        return reply(args, &mode, sizeof mode);
    case DRM_AMDXDNA_QUERY_RESOURCE_INFO:
        return reply(args, &resources, sizeof resources);
    case DRM_AMDXDNA_QUERY_SENSORS:
    case DRM_AMDXDNA_QUERY_HW_CONTEXTS:
        args->buffer_size = 0; /* none */
        return 0;
    default:
        return -EOPNOTSUPP;
    }
}

int amdxdna_drm_get_array_ioctl(struct drm_device *dev, void *data, struct drm_file *filp)
{
    struct amdxdna_drm_get_array *args = data;

    if (args->pad || args->num_element == 0 || args->element_size == 0) {
        return -EINVAL;
    }
    if (args->param != DRM_AMDXDNA_HW_CONTEXT_ALL) {
        return -EOPNOTSUPP;
    }
    args->num_element = 0; /* none */
    return 0;
}

/* ---- sysfs ---- */

static ssize_t vbnv_show(struct device *dev, struct device_attribute *attr, char *buf)
{
    return sysfs_emit(buf, "NPU Strix Halo (simulated)\n");
}

static ssize_t device_type_show(struct device *dev, struct device_attribute *attr, char *buf)
{
    return sysfs_emit(buf, "0\n"); /* queues are the kernel's */
}

static ssize_t fw_version_show(struct device *dev, struct device_attribute *attr, char *buf)
{
    static const struct amdxdna_firmware firmware = FIRMWARE;

    return sysfs_emit(buf, "%u.%u.%u.%u\n", firmware.major, firmware.minor, firmware.patch,
                      firmware.build);
}

static DEVICE_ATTR_RO(vbnv);
static DEVICE_ATTR_RO(device_type);
static DEVICE_ATTR_RO(fw_version);

static struct attribute *amdxdna_dev_attrs[] = {
    &dev_attr_vbnv.attr,
    &dev_attr_device_type.attr,
    &dev_attr_fw_version.attr,
    NULL,
};

static const struct attribute_group amdxdna_dev_group = {.attrs = amdxdna_dev_attrs};

const struct attribute_group *amdxdna_dev_groups[] = {&amdxdna_dev_group, NULL};

/* ---- debugfs ---- */

static int sim_counters_show(struct seq_file *m, void *unused)
{
    struct amdxdna_dev *xdna = m->private;

    seq_printf(m, "objects %lld\n", atomic64_read(&xdna->objects));
    seq_printf(m, "bytes %lld\n", atomic64_read(&xdna->bytes));
    seq_printf(m, "imports %lld\n", atomic64_read(&xdna->imports));
    seq_printf(m, "imported_bytes %lld\n", atomic64_read(&xdna->imported_bytes));
    seq_printf(m, "files %lld\n", atomic64_read(&xdna->files));
    return 0;
}
DEFINE_SHOW_ATTRIBUTE(sim_counters);

void amdxdna_debugfs_init(struct amdxdna_dev *xdna)
{
    struct dentry *root = xdna->ddev.accel->debugfs_root;

    debugfs_create_file("sim_counters", 0444, root, xdna, &sim_counters_fops);
    debugfs_create_atomic_t("sim_fail_import", 0600, root, &xdna->fail_import);
}
