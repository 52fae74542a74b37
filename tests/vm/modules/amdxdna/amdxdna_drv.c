// SPDX-License-Identifier: GPL-2.0-only
/*
 * The driver as the kernel sees it: a PCI driver for QEMU's edu device that makes an accel node.
 * Not for real hardware: it claims no NPU.
 */
#include <linux/dma-mapping.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/version.h>

#include <drm/drm_accel.h>
#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_ioctl.h>

#include "amdxdna.h"

static int amdxdna_drm_open(struct drm_device *dev, struct drm_file *filp)
{
    atomic64_inc(&to_xdna_dev(dev)->files);
    return 0;
}

static void amdxdna_drm_close(struct drm_device *dev, struct drm_file *filp)
{
    atomic64_dec(&to_xdna_dev(dev)->files);
}

static const struct drm_ioctl_desc amdxdna_drm_ioctls[] = {
    DRM_IOCTL_DEF_DRV(AMDXDNA_CREATE_BO, amdxdna_drm_create_bo_ioctl, 0),
    DRM_IOCTL_DEF_DRV(AMDXDNA_GET_BO_INFO, amdxdna_drm_get_bo_info_ioctl, 0),
    DRM_IOCTL_DEF_DRV(AMDXDNA_SYNC_BO, amdxdna_drm_sync_bo_ioctl, 0),
    DRM_IOCTL_DEF_DRV(AMDXDNA_GET_INFO, amdxdna_drm_get_info_ioctl, 0),
    DRM_IOCTL_DEF_DRV(AMDXDNA_GET_ARRAY, amdxdna_drm_get_array_ioctl, 0),
};

DEFINE_DRM_ACCEL_FOPS(amdxdna_fops);

static const struct drm_driver amdxdna_drm_drv = {
    .driver_features = DRIVER_GEM | DRIVER_COMPUTE_ACCEL | DRIVER_SYNCOBJ | DRIVER_SYNCOBJ_TIMELINE,
    .fops = &amdxdna_fops,
    .name = "amdxdna_accel_driver",
    .desc = "AMD XDNA (simulated, no hardware)",
    .major = 0,
    .minor = 10,
    .open = amdxdna_drm_open,
    .postclose = amdxdna_drm_close,
    .ioctls = amdxdna_drm_ioctls,
    .num_ioctls = ARRAY_SIZE(amdxdna_drm_ioctls),
    .gem_create_object = amdxdna_gem_create_object,
    .gem_prime_import = amdxdna_gem_prime_import,
    .gem_prime_import_sg_table = drm_gem_shmem_prime_import_sg_table,
};

static int amdxdna_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
    struct device *dev = &pdev->dev;
    struct amdxdna_dev *xdna;
    int r = pcim_enable_device(pdev);

    if (r) {
        return r;
    }
    r = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
    if (r) {
        return r;
    }
    dma_set_max_seg_size(dev, UINT_MAX);
    xdna = devm_drm_dev_alloc(dev, &amdxdna_drm_drv, struct amdxdna_dev, ddev);
    if (IS_ERR(xdna)) {
        return PTR_ERR(xdna);
    }
    pci_set_drvdata(pdev, xdna);
    r = drm_dev_register(&xdna->ddev, 0);
    if (r) {
        return r;
    }
    amdxdna_debugfs_init(xdna);
    dev_info(dev, "simulated amdxdna, no hardware\n");
    return 0;
}

static void amdxdna_remove(struct pci_dev *pdev)
{
    struct amdxdna_dev *xdna = pci_get_drvdata(pdev);

    drm_dev_unplug(&xdna->ddev);
}

static const struct pci_device_id amdxdna_pci_ids[] = {
    {PCI_DEVICE(0x1234, 0x11e8)},
    {},
};
MODULE_DEVICE_TABLE(pci, amdxdna_pci_ids);

static struct pci_driver amdxdna_pci_driver = {
    .name = "amdxdna",
    .id_table = amdxdna_pci_ids,
    .probe = amdxdna_probe,
    .remove = amdxdna_remove,
    .dev_groups = amdxdna_dev_groups,
};
module_pci_driver(amdxdna_pci_driver);

MODULE_DESCRIPTION("simulated amdxdna for tests: an importer that pins, without an NPU");
MODULE_AUTHOR("the gttd authors");
MODULE_LICENSE("GPL");
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
MODULE_IMPORT_NS("DMA_BUF");
#else
MODULE_IMPORT_NS(DMA_BUF);
#endif
