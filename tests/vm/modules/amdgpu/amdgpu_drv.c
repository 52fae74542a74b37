// SPDX-License-Identifier: GPL-2.0-only
/*
 * The driver as the kernel sees it: parameters, the PCI device (QEMU's ati-vga), further devices on
 * the platform bus, open files. Not for real hardware: it claims no AMD GPU that exists.
 */
#include <linux/dma-mapping.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/version.h>

#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_gem.h>
#include <drm/drm_ioctl.h>
#include <drm/drm_managed.h>

#include "amdgpu.h"
#include "amdgpu_drv.h"

#define ADDRESS_BITS 44
#define MAX_DISCRETE 4

static LIST_HEAD(devices);
static DEFINE_MUTEX(devices_lock); /* of the list */

int amdgpu_gtt_mib = -1;
uint amdgpu_vram_mib = 512;
static bool apu = true;
static uint discrete;
static struct platform_device *discrete_devices[MAX_DISCRETE];

/* Of all devices and at once; the real driver reads its own once, at load. */
static int gtt_mib_set(const char *val, const struct kernel_param *kp)
{
    struct amdgpu_device *adev;
    int r = param_set_int(val, kp);

    if (r) {
        return r;
    }
    mutex_lock(&devices_lock);
    list_for_each_entry(adev, &devices, link)
    {
        WRITE_ONCE(adev->gtt.size, amdgpu_gtt_size(adev));
    }
    mutex_unlock(&devices_lock);
    return 0;
}

static const struct kernel_param_ops gtt_mib_ops = {.set = gtt_mib_set, .get = param_get_int};

module_param_cb(gtt_mib, &gtt_mib_ops, &amdgpu_gtt_mib, 0644);
MODULE_PARM_DESC(gtt_mib, "size of GTT in MiB, may change at run time (-1: ttm.pages_limit)");
module_param_named(gttsize, amdgpu_gtt_mib, int, 0400);
MODULE_PARM_DESC(gttsize, "the same under the real driver's name");
module_param_named(vram_mib, amdgpu_vram_mib, uint, 0444);
MODULE_PARM_DESC(vram_mib, "size of VRAM in MiB");
module_param(apu, bool, 0444);
MODULE_PARM_DESC(apu, "the PCI device says that it is an APU");
module_param(discrete, uint, 0444);
MODULE_PARM_DESC(discrete, "number of further devices, on the platform bus, that are no APU (0-4)");

/* ---- open files ---- */

static int amdgpu_driver_open(struct drm_device *dev, struct drm_file *file)
{
    static atomic_t last_pasid = ATOMIC_INIT(0x8000);
    struct amdgpu_fpriv *fpriv = kzalloc(sizeof *fpriv, GFP_KERNEL);

    if (!fpriv) {
        return -ENOMEM;
    }
    mutex_init(&fpriv->lock);
    INIT_LIST_HEAD(&fpriv->mappings);
    idr_init_base(&fpriv->contexts, 1);
    fpriv->pasid = atomic_inc_return(&last_pasid);
    file->driver_priv = fpriv;
    counter_add(&drm_to_adev(dev)->files, 1);
    return 0;
}

static void amdgpu_driver_postclose(struct drm_device *dev, struct drm_file *file)
{
    struct amdgpu_device *adev = drm_to_adev(dev);
    struct amdgpu_fpriv *fpriv = file->driver_priv;
    void *context;
    int id;

    amdgpu_va_forget(adev, fpriv, NULL);
    idr_for_each_entry(&fpriv->contexts, context, id)
    {
        counter_add(&adev->contexts, -1);
    }
    idr_destroy(&fpriv->contexts);
    mutex_destroy(&fpriv->lock);
    kfree(fpriv);
    counter_add(&adev->files, -1);
}

/* ---- the driver ---- */

static const struct drm_ioctl_desc amdgpu_ioctls[] = {
    DRM_IOCTL_DEF_DRV(AMDGPU_GEM_CREATE, amdgpu_gem_create_ioctl, DRM_AUTH | DRM_RENDER_ALLOW),
    DRM_IOCTL_DEF_DRV(AMDGPU_GEM_MMAP, amdgpu_gem_mmap_ioctl, DRM_AUTH | DRM_RENDER_ALLOW),
    DRM_IOCTL_DEF_DRV(AMDGPU_CTX, amdgpu_ctx_ioctl, DRM_AUTH | DRM_RENDER_ALLOW),
    DRM_IOCTL_DEF_DRV(AMDGPU_INFO, amdgpu_info_ioctl, DRM_AUTH | DRM_RENDER_ALLOW),
    DRM_IOCTL_DEF_DRV(AMDGPU_GEM_METADATA, amdgpu_gem_metadata_ioctl, DRM_AUTH | DRM_RENDER_ALLOW),
    DRM_IOCTL_DEF_DRV(AMDGPU_GEM_WAIT_IDLE, amdgpu_gem_wait_idle_ioctl,
                      DRM_AUTH | DRM_RENDER_ALLOW),
    DRM_IOCTL_DEF_DRV(AMDGPU_GEM_VA, amdgpu_gem_va_ioctl, DRM_AUTH | DRM_RENDER_ALLOW),
    DRM_IOCTL_DEF_DRV(AMDGPU_GEM_OP, amdgpu_gem_op_ioctl, DRM_AUTH | DRM_RENDER_ALLOW),
};

static const struct file_operations amdgpu_driver_fops = {
    .owner = THIS_MODULE,
    .open = drm_open,
    .release = drm_release,
    .unlocked_ioctl = drm_ioctl,
    .compat_ioctl = drm_compat_ioctl,
    .mmap = drm_gem_mmap,
    .poll = drm_poll,
    .read = drm_read,
    .llseek = noop_llseek,
    .show_fdinfo = drm_show_fdinfo,
    .fop_flags = FOP_UNSIGNED_OFFSET,
};

static const struct drm_driver amdgpu_driver = {
    .driver_features = DRIVER_GEM | DRIVER_RENDER | DRIVER_SYNCOBJ | DRIVER_SYNCOBJ_TIMELINE,
    .open = amdgpu_driver_open,
    .postclose = amdgpu_driver_postclose,
    .ioctls = amdgpu_ioctls,
    .num_ioctls = ARRAY_SIZE(amdgpu_ioctls),
    .fops = &amdgpu_driver_fops,
    .show_fdinfo = amdgpu_show_fdinfo,
    .gem_prime_import = amdgpu_gem_prime_import,
    .name = "amdgpu",
    .desc = "AMD GPU (simulated, no hardware)",
    .major = 3,
#if SIM_NEW_KERNEL
    .minor = 64,
#else
    .minor = 61,
#endif
};

/* ---- devices ---- */

/* Runs when the last file and the last dma-buf are gone, which may be after the unbinding. */
static void device_release(struct drm_device *ddev, void *unused)
{
    amdgpu_ttm_fini(drm_to_adev(ddev));
}

static int device_init(struct device *dev, bool is_apu)
{
    struct amdgpu_device *adev;
    int r = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(ADDRESS_BITS));

    if (r) {
        return r;
    }
    adev = devm_drm_dev_alloc(dev, &amdgpu_driver, struct amdgpu_device, ddev);
    if (IS_ERR(adev)) {
        return PTR_ERR(adev);
    }
    adev->apu = is_apu;
    dev_set_drvdata(dev, &adev->ddev);
    r = amdgpu_ttm_init(adev);
    if (r) {
        return r;
    }
    r = drmm_add_action_or_reset(&adev->ddev, device_release, NULL);
    if (r) {
        return r;
    }
    r = drm_dev_register(&adev->ddev, 0);
    if (r) {
        return r;
    }
    amdgpu_debugfs_init(adev);
    mutex_lock(&devices_lock);
    list_add_tail(&adev->link, &devices);
    mutex_unlock(&devices_lock);
    dev_info(dev, "simulated amdgpu, %s: %llu MiB of GTT, %llu MiB of VRAM, no hardware\n",
             is_apu ? "APU" : "discrete", adev->gtt.size >> 20, adev->vram.size >> 20);
    return 0;
}

static void device_remove(struct device *dev)
{
    struct drm_device *ddev = dev_get_drvdata(dev);

    mutex_lock(&devices_lock);
    list_del(&drm_to_adev(ddev)->link);
    mutex_unlock(&devices_lock);
    drm_dev_unplug(ddev);
}

static int amdgpu_pci_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
    int r = pcim_enable_device(pdev);

    return r ? r : device_init(&pdev->dev, apu);
}

static void amdgpu_pci_remove(struct pci_dev *pdev)
{
    device_remove(&pdev->dev);
}

/* QEMU's ati-vga: a Rage 128 or, with model=rv100, a Radeon 7000 that no other driver wants here.
 */
static const struct pci_device_id amdgpu_pci_ids[] = {
    {PCI_DEVICE(PCI_VENDOR_ID_ATI, 0x5046)},
    {PCI_DEVICE(PCI_VENDOR_ID_ATI, 0x5159)},
    {},
};
MODULE_DEVICE_TABLE(pci, amdgpu_pci_ids);

static struct pci_driver amdgpu_pci_driver = {
    .name = "amdgpu",
    .id_table = amdgpu_pci_ids,
    .probe = amdgpu_pci_probe,
    .remove = amdgpu_pci_remove,
    .dev_groups = amdgpu_dev_groups,
};

static int amdgpu_platform_probe(struct platform_device *pdev)
{
    return device_init(&pdev->dev, false);
}

static void amdgpu_platform_remove(struct platform_device *pdev)
{
    device_remove(&pdev->dev);
}

static struct platform_driver amdgpu_platform_driver = {
    .driver = {.name = "amdgpu", .dev_groups = amdgpu_dev_groups},
    .probe = amdgpu_platform_probe,
    .remove = amdgpu_platform_remove,
};

static void discrete_remove(void)
{
    for (int i = 0; i < MAX_DISCRETE; i++) {
        platform_device_unregister(discrete_devices[i]); /* NULL will do */
    }
}

static int discrete_add(void)
{
    if (discrete > MAX_DISCRETE) {
        return -EINVAL;
    }
    for (int i = 0; i < (int)discrete; i++) {
        struct platform_device_info info = {
            .name = "amdgpu",
            .id = i,
            .dma_mask = DMA_BIT_MASK(ADDRESS_BITS),
        };

        discrete_devices[i] = platform_device_register_full(&info);
        if (IS_ERR(discrete_devices[i])) {
            int r = PTR_ERR(discrete_devices[i]);

            discrete_devices[i] = NULL;
            discrete_remove();
            return r;
        }
    }
    return 0;
}

static int __init amdgpu_init(void)
{
    int r = pci_register_driver(&amdgpu_pci_driver);

    if (r) {
        return r;
    }
    r = platform_driver_register(&amdgpu_platform_driver);
    if (r) {
        goto fail_pci;
    }
    r = discrete_add();
    if (r) {
        goto fail_platform;
    }
    return 0;

fail_platform:
    platform_driver_unregister(&amdgpu_platform_driver);
fail_pci:
    pci_unregister_driver(&amdgpu_pci_driver);
    return r;
}

static void __exit amdgpu_exit(void)
{
    discrete_remove();
    platform_driver_unregister(&amdgpu_platform_driver);
    pci_unregister_driver(&amdgpu_pci_driver);
}

module_init(amdgpu_init);
module_exit(amdgpu_exit);

MODULE_DESCRIPTION("simulated amdgpu for tests: memory management without a GPU");
MODULE_AUTHOR("the gttd authors");
MODULE_LICENSE("GPL");
