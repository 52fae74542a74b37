/* SPDX-License-Identifier: MIT */
/* The logical device: one queue, one timeline, the features and extensions that we use. */
#include <errno.h>
#include <stdlib.h>

#include "gttd_util.h"
#include "vkc.h"

static int create_handle(struct vkc_device *device, struct err *err)
{
    const struct vkc_physical *physical = &device->physical;
    float priority = 1.0f;
    VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueFamilyIndex = physical->queue_family,
        .queueCount = 1,
        .pQueuePriorities = &priority,
    };
    VkPhysicalDeviceVulkan12Features features = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        .bufferDeviceAddress = VK_TRUE,
        .timelineSemaphore = VK_TRUE,
    };
    VkPhysicalDeviceShaderIntegerDotProductFeatures int_dot = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES,
        .shaderIntegerDotProduct = VK_TRUE,
    };
    VkPhysicalDeviceSubgroupSizeControlFeatures size_control = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES,
        .subgroupSizeControl = VK_TRUE,
        .computeFullSubgroups = VK_TRUE,
    };
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR coopmat = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR,
        .cooperativeMatrix = VK_TRUE,
    };
    VkPhysicalDeviceVulkan11Features features11 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
        .storageBuffer16BitAccess = VK_TRUE,
    };
    const char *extensions[8];
    uint32_t n_extensions = 0;
    if (physical->has_int_dot) {
        extensions[n_extensions++] = VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME;
        features.pNext = &int_dot;
    }
    if (physical->has_size_control) {
        extensions[n_extensions++] = VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME;
        size_control.pNext = features.pNext;
        features.pNext = &size_control;
    }
    if (physical->coopmat.m) {
        extensions[n_extensions++] = VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME;
        coopmat.pNext = features.pNext;
        features.pNext = &coopmat;
        features.shaderFloat16 = VK_TRUE;
        features.vulkanMemoryModel = VK_TRUE; /* and then for the other shaders' atomics: */
        features.vulkanMemoryModelDeviceScope = VK_TRUE;
    }
    if (physical->has_16bit_storage) {
        features11.pNext = features.pNext;
        features.pNext = &features11;
    }
    if (physical->has_cache_feedback) {
        extensions[n_extensions++] = VK_EXT_PIPELINE_CREATION_FEEDBACK_EXTENSION_NAME;
    }
    if (physical->has_dmabuf || physical->has_opaque_fd) {
        extensions[n_extensions++] = VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME;
    }
    if (physical->has_dmabuf) {
        extensions[n_extensions++] = VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME;
    }
    if (physical->host_pointer_align) {
        extensions[n_extensions++] = VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME;
    }
    VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &features,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = n_extensions,
        .ppEnabledExtensionNames = extensions,
    };
    return vkc_err(err,
                   device->instance->vk.CreateDevice(physical->handle, &info, NULL,
                                                     &device->handle),
                   "vkCreateDevice");
}

static int load_functions(struct vkc_device *device, struct err *err)
{
    PFN_vkGetDeviceProcAddr get = device->instance->vk.GetDeviceProcAddr;
#define VK_FN_DEVICE(name)                                             \
    device->vk.name = (PFN_vk##name)get(device->handle, "vk" #name);   \
    if (!device->vk.name) {                                            \
        return err_set(err, -ENODEV, "the driver has no vk%s", #name); \
    }
#define VK_FN_DEVICE_OPTIONAL(name) device->vk.name = (PFN_vk##name)get(device->handle, "vk" #name);
#include "vk_fn.def"
    return 0;
}

static int create_timeline(struct vkc_device *device, struct err *err)
{
    VkSemaphoreTypeCreateInfo type = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
        .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE,
    };
    VkSemaphoreCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
        .pNext = &type,
    };
    return vkc_err(err, device->vk.CreateSemaphore(device->handle, &info, NULL, &device->timeline),
                   "vkCreateSemaphore");
}

static int create_pool(struct vkc_device *device, struct err *err)
{
    VkCommandPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .queueFamilyIndex = device->physical.queue_family,
    };
    return vkc_err(err, device->vk.CreateCommandPool(device->handle, &info, NULL, &device->pool),
                   "vkCreateCommandPool");
}

static int create_layout(struct vkc_device *device, struct err *err)
{
    VkPushConstantRange range = {.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT, .size = VKC_PUSH_BYTES};
    VkPipelineLayoutCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &range,
    };
    return vkc_err(err,
                   device->vk.CreatePipelineLayout(device->handle, &info, NULL, &device->layout),
                   "vkCreatePipelineLayout");
}

int vkc_device_create(struct vkc_instance *instance, const struct vkc_physical *physical,
                      const char *cache_dir, struct err *err, struct vkc_device **ret)
{
    struct vkc_device *device = calloc(1, sizeof *device);
    if (!device) {
        return err_set(err, -ENOMEM, "no memory for a Vulkan device");
    }
    pthread_mutex_init(&device->pipelines_lock, NULL);
    pthread_cond_init(&device->pipelines_made, NULL);
    device->instance = instance;
    device->physical = *physical;
    int r = create_handle(device, err);
    if (r < 0) {
        goto fail;
    }
    r = load_functions(device, err);
    if (r < 0) {
        goto fail;
    }
    device->vk.GetDeviceQueue(device->handle, physical->queue_family, 0, &device->queue);
    r = create_timeline(device, err);
    if (r < 0) {
        goto fail;
    }
    r = create_pool(device, err);
    if (r < 0) {
        goto fail;
    }
    r = create_layout(device, err);
    if (r < 0) {
        goto fail;
    }
    r = vkc_cache_load(device, cache_dir, err);
    if (r < 0) {
        goto fail;
    }
    *ret = device;
    return 0;
fail:
    vkc_device_destroy(device);
    return r;
}

void vkc_device_destroy(struct vkc_device *device)
{
    if (!device) {
        return;
    }
    /* load_functions() may have failed half-way; then nothing was made with the device. */
    if (device->handle && device->vk.WaitSemaphores) {
        device->vk.DeviceWaitIdle(device->handle);
        vkc_pipelines_destroy(device);
        device->vk.DestroyPipelineCache(device->handle, device->cache, NULL);
        device->vk.DestroyPipelineLayout(device->handle, device->layout, NULL);
        device->vk.DestroyCommandPool(device->handle, device->pool, NULL);
        device->vk.DestroySemaphore(device->handle, device->timeline, NULL);
    }
    if (device->handle && device->vk.DestroyDevice) {
        device->vk.DestroyDevice(device->handle, NULL);
    }
    pthread_cond_destroy(&device->pipelines_made);
    pthread_mutex_destroy(&device->pipelines_lock);
    free(device->cache_path);
    free(device);
}

void vkc_name(struct vkc_device *device, VkObjectType type, uint64_t handle, const char *name)
{
    struct vkc_instance *instance = device->instance;
    if (!instance->messenger) {
        return;
    }
    VkDebugUtilsObjectNameInfoEXT info = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_OBJECT_NAME_INFO_EXT,
        .objectType = type,
        .objectHandle = handle,
        .pObjectName = name,
    };
    instance->vk.SetDebugUtilsObjectNameEXT(device->handle, &info);
}
