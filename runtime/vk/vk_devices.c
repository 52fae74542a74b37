/* SPDX-License-Identifier: MIT */
/* Listing devices: see vk_devices.h. Opens none of them. */
#include "vk_devices.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vk.h"

static void describe(const struct vkc_physical *physical, struct vk_device_desc *ret)
{
    uint32_t version = physical->props.apiVersion;
    *ret = (struct vk_device_desc){
        .type = vkc_type_name(physical->props.deviceType),
        .api_major = VK_API_VERSION_MAJOR(version),
        .api_minor = VK_API_VERSION_MINOR(version),
        .api_patch = VK_API_VERSION_PATCH(version),
        .subgroup_size = physical->subgroup_size,
        .n_heaps = physical->memory.memoryHeapCount,
    };
    static_assert(VK_DEVICE_HEAPS_MAX == VK_MAX_MEMORY_HEAPS, "all heaps fit");
    snprintf(ret->name, sizeof ret->name, "%s", physical->props.deviceName);
    snprintf(ret->driver, sizeof ret->driver, "%s", physical->driver);
    snprintf(ret->missing, sizeof ret->missing, "%s", physical->missing);
    vk_choices_name(physical, ret->tuned_name);
    memcpy(ret->uuid, physical->uuid, sizeof ret->uuid);
    for (uint32_t i = 0; i < ret->n_heaps; i++) {
        ret->heaps[i].size_bytes = physical->memory.memoryHeaps[i].size;
        ret->heaps[i].device_local =
            physical->memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT;
    }
    ret->dmabuf_path = vk_weight_path(physical, true, &ret->dmabuf_why);
    ret->copy_dies_because = vk_copy_dies_because(physical, false);
    ret->plain_path = vk_weight_path(physical, false, &ret->plain_why);
}

int vk_devices_list(struct err *err, struct vk_device_desc **ret, size_t *ret_n)
{
    struct vkc_params params = {0};
    struct vkc_instance *instance = NULL;
    struct vkc_physical *list = NULL;
    struct vk_device_desc *descs = NULL;
    uint32_t n = 0;
    int r = vkc_instance_create(&params, err, &instance);
    if (r < 0) {
        return r;
    }
    r = vkc_physical_list(instance, err, &list, &n);
    if (r < 0) {
        goto out;
    }
    descs = calloc(n, sizeof *descs);
    if (!descs) {
        r = err_set(err, -ENOMEM, "no memory for the list of devices");
        goto out;
    }
    for (uint32_t i = 0; i < n; i++) {
        describe(&list[i], &descs[i]);
    }
    *ret = descs;
    *ret_n = n;
out:
    free(list);
    vkc_instance_destroy(instance);
    return r;
}
