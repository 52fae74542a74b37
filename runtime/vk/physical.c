/* SPDX-License-Identifier: MIT */
/* Physical devices: what each one is, can do and lacks, and which one is meant. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gttd_util.h"
#include "vkc.h"

static void add_missing(struct vkc_physical *physical, const char *what)
{
    size_t used = strlen(physical->missing);
    snprintf(physical->missing + used, sizeof physical->missing - used, "%s%s", used ? ", " : "",
             what);
}

static bool has_extension(const VkExtensionProperties *list, uint32_t n, const char *name)
{
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(list[i].extensionName, name) == 0) {
            return true;
        }
    }
    return false;
}

static int list_extensions(struct vkc_instance *instance, VkPhysicalDevice handle, struct err *err,
                           VkExtensionProperties **ret, uint32_t *ret_n)
{
    uint32_t n = 0;
    int r = vkc_err(err, instance->vk.EnumerateDeviceExtensionProperties(handle, NULL, &n, NULL),
                    "vkEnumerateDeviceExtensionProperties");
    if (r < 0) {
        return r;
    }
    AUTO_FREE VkExtensionProperties *list = calloc(n + 1, sizeof *list);
    if (!list) {
        return err_set(err, -ENOMEM, "no memory for the list of Vulkan extensions");
    }
    r = vkc_err(err, instance->vk.EnumerateDeviceExtensionProperties(handle, NULL, &n, list),
                "vkEnumerateDeviceExtensionProperties");
    if (r < 0) {
        return r;
    }
    *ret = take_ptr(&list);
    *ret_n = n;
    return 0;
}

static VkExternalMemoryFeatureFlags external_features(struct vkc_instance *instance,
                                                      VkPhysicalDevice handle,
                                                      VkBufferUsageFlags more_usage,
                                                      VkExternalMemoryHandleTypeFlagBits type)
{
    VkPhysicalDeviceExternalBufferInfo info = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_BUFFER_INFO,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT |
                 VK_BUFFER_USAGE_TRANSFER_SRC_BIT | more_usage,
        .handleType = type,
    };
    VkExternalBufferProperties props = {.sType = VK_STRUCTURE_TYPE_EXTERNAL_BUFFER_PROPERTIES};
    instance->vk.GetPhysicalDeviceExternalBufferProperties(handle, &info, &props);
    return props.externalMemoryProperties.externalMemoryFeatures;
}

static bool importable(struct vkc_instance *instance, VkPhysicalDevice handle,
                       VkExternalMemoryHandleTypeFlagBits type)
{
    return external_features(instance, handle, 0, type) & VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT;
}

/* Whether memory can outlive the process: exported, and imported by the next. */
static void query_opaque_fd(struct vkc_instance *instance, struct vkc_physical *physical)
{
    const VkExternalMemoryFeatureFlags need =
        VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT | VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT;
    VkExternalMemoryFeatureFlags features =
        external_features(instance, physical->handle, VK_BUFFER_USAGE_TRANSFER_DST_BIT,
                          VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT);
    physical->has_opaque_fd = (features & need) == need;
    physical->opaque_fd_dedicated = features & VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT;
}

/* Compute alone is preferred: long work there does not hold up a desktop. */
static bool choose_queue_family(struct vkc_instance *instance, struct vkc_physical *physical)
{
    uint32_t n = 0;
    instance->vk.GetPhysicalDeviceQueueFamilyProperties(physical->handle, &n, NULL);
    VkQueueFamilyProperties families[16];
    n = n < ARRAY_SIZE(families) ? n : ARRAY_SIZE(families);
    instance->vk.GetPhysicalDeviceQueueFamilyProperties(physical->handle, &n, families);
    bool found = false;
    for (uint32_t i = 0; i < n; i++) {
        if (!(families[i].queueFlags & VK_QUEUE_COMPUTE_BIT)) {
            continue;
        }
        bool compute_only = !(families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT);
        if (!found || compute_only) {
            physical->queue_family = i;
            physical->timestamp_bits = families[i].timestampValidBits;
            found = true;
        }
        if (compute_only) {
            break;
        }
    }
    return found;
}

/* How many SMs or CUs: grids that fill the device once are made from this. */
static void query_compute_units(struct vkc_instance *instance, struct vkc_physical *physical,
                                const VkExtensionProperties *extensions, uint32_t n)
{
    VkPhysicalDeviceShaderSMBuiltinsPropertiesNV nvidia = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_SM_BUILTINS_PROPERTIES_NV};
    VkPhysicalDeviceShaderCorePropertiesAMD amd = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_CORE_PROPERTIES_AMD};
    VkPhysicalDeviceProperties2 props = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    physical->compute_units = 16;
    if (physical->props.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU) {
        physical->compute_units = 4;
    } else if (has_extension(extensions, n, VK_NV_SHADER_SM_BUILTINS_EXTENSION_NAME)) {
        props.pNext = &nvidia;
        instance->vk.GetPhysicalDeviceProperties2(physical->handle, &props);
        physical->compute_units = nvidia.shaderSMCount;
    } else if (has_extension(extensions, n, VK_AMD_SHADER_CORE_PROPERTIES_EXTENSION_NAME)) {
        props.pNext = &amd;
        instance->vk.GetPhysicalDeviceProperties2(physical->handle, &props);
        physical->compute_units =
            amd.shaderEngineCount * amd.shaderArraysPerEngineCount * amd.computeUnitsPerShaderArray;
    }
    if (physical->compute_units == 0 || physical->compute_units > 4096) {
        physical->compute_units = 16;
    }
}

static int query_coopmat(struct vkc_instance *instance, struct vkc_physical *physical,
                         struct err *err)
{
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR coopmat = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR};
    VkPhysicalDeviceVulkan11Features features11 =
        {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES, .pNext = &coopmat};
    VkPhysicalDeviceVulkan12Features features12 =
        {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, .pNext = &features11};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &features12};
    instance->vk.GetPhysicalDeviceFeatures2(physical->handle, &features);
    if (!coopmat.cooperativeMatrix || !features12.shaderFloat16 || !features12.vulkanMemoryModel ||
        !features12.vulkanMemoryModelDeviceScope ||
        !instance->vk.GetPhysicalDeviceCooperativeMatrixPropertiesKHR) {
        return 0;
    }
    physical->has_16bit_storage = features11.storageBuffer16BitAccess;
    VkCooperativeMatrixPropertiesKHR list[64];
    uint32_t n = ARRAY_SIZE(list);
    for (uint32_t i = 0; i < n; i++) {
        list[i] = (VkCooperativeMatrixPropertiesKHR){
            .sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR};
    }
    int r = vkc_err(err,
                    instance->vk.GetPhysicalDeviceCooperativeMatrixPropertiesKHR(physical->handle,
                                                                                 &n, list),
                    "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
    for (uint32_t i = 0; i < n && r == 0; i++) {
        const VkCooperativeMatrixPropertiesKHR *p = &list[i];
        bool fits = p->AType == VK_COMPONENT_TYPE_FLOAT16_KHR &&
                    p->BType == VK_COMPONENT_TYPE_FLOAT16_KHR &&
                    p->CType == VK_COMPONENT_TYPE_FLOAT32_KHR &&
                    p->ResultType == VK_COMPONENT_TYPE_FLOAT32_KHR &&
                    p->scope == VK_SCOPE_SUBGROUP_KHR && !p->saturatingAccumulation &&
                    p->MSize <= 16 && p->NSize <= 16 && p->KSize <= 16;
        if (fits && p->MSize * p->NSize * p->KSize >
                        physical->coopmat.m * physical->coopmat.n * physical->coopmat.k) {
            physical->coopmat.m = p->MSize;
            physical->coopmat.n = p->NSize;
            physical->coopmat.k = p->KSize;
        }
    }
    return r;
}

static void query_size_control(struct vkc_instance *instance, struct vkc_physical *physical)
{
    VkPhysicalDeviceSubgroupSizeControlFeatures size_control = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES};
    VkPhysicalDeviceSubgroupSizeControlProperties sizes = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &size_control};
    VkPhysicalDeviceProperties2 props = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                         .pNext = &sizes};
    instance->vk.GetPhysicalDeviceFeatures2(physical->handle, &features);
    instance->vk.GetPhysicalDeviceProperties2(physical->handle, &props);
    physical->max_subgroups = sizes.maxComputeWorkgroupSubgroups;
    physical->has_size_control = size_control.subgroupSizeControl &&
                                 size_control.computeFullSubgroups &&
                                 (sizes.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT);
}

static void query_int_dot(struct vkc_instance *instance, struct vkc_physical *physical)
{
    VkPhysicalDeviceShaderIntegerDotProductFeatures int_dot = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &int_dot};
    instance->vk.GetPhysicalDeviceFeatures2(physical->handle, &features);
    physical->has_int_dot = int_dot.shaderIntegerDotProduct;
}

static void query_properties(struct vkc_instance *instance, struct vkc_physical *physical,
                             bool has_size_control, VkSubgroupFeatureFlags *ret_subgroup_ops,
                             VkShaderStageFlags *ret_subgroup_stages)
{
    VkPhysicalDeviceSubgroupSizeControlProperties size_control = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES};
    VkPhysicalDeviceExternalMemoryHostPropertiesEXT host = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT};
    VkPhysicalDeviceMaintenance3Properties limits = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES};
    VkPhysicalDeviceSubgroupProperties subgroup =
        {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES, .pNext = &limits};
    VkPhysicalDeviceDriverProperties driver =
        {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES, .pNext = &subgroup};
    VkPhysicalDeviceIDProperties id = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES,
                                       .pNext = &driver};
    VkPhysicalDeviceProperties2 props = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                         .pNext = &id};
    if (physical->host_pointer_align) {
        host.pNext = props.pNext;
        props.pNext = &host;
    }
    if (has_size_control) {
        size_control.pNext = props.pNext;
        props.pNext = &size_control;
    }
    instance->vk.GetPhysicalDeviceProperties2(physical->handle, &props);

    physical->host_pointer_align =
        physical->host_pointer_align ? host.minImportedHostPointerAlignment : 0;
    snprintf(physical->driver, sizeof physical->driver, "%s %s", driver.driverName,
             driver.driverInfo);
    memcpy(physical->uuid, id.deviceUUID, sizeof physical->uuid);
    memcpy(physical->driver_uuid, id.driverUUID, sizeof physical->driver_uuid);
    physical->max_alloc_bytes = limits.maxMemoryAllocationSize;
    physical->subgroup_size = subgroup.subgroupSize;
    physical->min_subgroup_size = size_control.minSubgroupSize ? size_control.minSubgroupSize : 1;
    *ret_subgroup_ops = subgroup.supportedOperations;
    *ret_subgroup_stages = subgroup.supportedStages;
}

#define SHARED_NEEDED (20u << 10) /* sample_bins.comp */

static void check_features(struct vkc_instance *instance, struct vkc_physical *physical,
                           VkSubgroupFeatureFlags ops, VkShaderStageFlags stages)
{
    VkPhysicalDeviceVulkan12Features features12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &features12};
    instance->vk.GetPhysicalDeviceFeatures2(physical->handle, &features);
    if (!features12.bufferDeviceAddress) {
        add_missing(physical, "bufferDeviceAddress");
    }
    if (!features12.timelineSemaphore) {
        add_missing(physical, "timelineSemaphore");
    }
    if (!(stages & VK_SHADER_STAGE_COMPUTE_BIT) || !(ops & VK_SUBGROUP_FEATURE_BASIC_BIT) ||
        !(ops & VK_SUBGROUP_FEATURE_ARITHMETIC_BIT)) {
        add_missing(physical, "subgroup arithmetic in compute shaders");
    }
    if (physical->props.limits.maxComputeSharedMemorySize < SHARED_NEEDED) {
        add_missing(physical, "20 KiB of shared memory");
    }
}

static int query(struct vkc_instance *instance, VkPhysicalDevice handle, struct err *err,
                 struct vkc_physical *ret)
{
    *ret = (struct vkc_physical){.handle = handle};
    instance->vk.GetPhysicalDeviceProperties(handle, &ret->props);
    instance->vk.GetPhysicalDeviceMemoryProperties(handle, &ret->memory);
    if (!choose_queue_family(instance, ret)) {
        add_missing(ret, "a compute queue");
    }
    if (ret->props.apiVersion < VK_API_VERSION_1_2) {
        add_missing(ret, "Vulkan 1.2");
        return 0; /* the structures below belong to 1.2 */
    }
    AUTO_FREE VkExtensionProperties *extensions = NULL;
    uint32_t n = 0;
    int r = list_extensions(instance, handle, err, &extensions, &n);
    if (r < 0) {
        return r;
    }
    ret->has_dmabuf = has_extension(extensions, n, VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME) &&
                      has_extension(extensions, n, VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME) &&
                      importable(instance, handle, VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT);
    if (has_extension(extensions, n, VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME)) {
        query_opaque_fd(instance, ret);
    }
    ret->host_pointer_align =
        has_extension(extensions, n, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME) &&
        importable(instance, handle, VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT);

    VkSubgroupFeatureFlags ops = 0;
    VkShaderStageFlags stages = 0;
    query_properties(instance, ret,
                     has_extension(extensions, n, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME),
                     &ops, &stages);
    check_features(instance, ret, ops, stages);
    ret->has_shuffle = ops & VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
    query_compute_units(instance, ret, extensions, n);
    ret->has_cache_feedback =
        has_extension(extensions, n, VK_EXT_PIPELINE_CREATION_FEEDBACK_EXTENSION_NAME);
    if (has_extension(extensions, n, VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME)) {
        query_int_dot(instance, ret);
    }
    if (has_extension(extensions, n, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME)) {
        query_size_control(instance, ret);
    }
    if (has_extension(extensions, n, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME)) {
        return query_coopmat(instance, ret, err);
    }
    return 0;
}

int vkc_physical_list(struct vkc_instance *instance, struct err *err, struct vkc_physical **ret,
                      uint32_t *ret_n)
{
    VkPhysicalDevice handles[32];
    uint32_t n = ARRAY_SIZE(handles);
    VkResult result = instance->vk.EnumeratePhysicalDevices(instance->handle, &n, handles);
    if (result == VK_ERROR_INITIALIZATION_FAILED) {
        n = 0; /* what the loader says when there is no driver */
    } else {
        int r = vkc_err(err, result, "vkEnumeratePhysicalDevices");
        if (r < 0) {
            return r;
        }
    }
    if (n == 0) {
        return err_set(err, -ENODEV,
                       "no Vulkan device: no driver is installed (Debian: mesa-vulkan-drivers)");
    }
    AUTO_FREE struct vkc_physical *list = calloc(n, sizeof *list);
    if (!list) {
        return err_set(err, -ENOMEM, "no memory for the list of Vulkan devices");
    }
    for (uint32_t i = 0; i < n; i++) {
        int r = query(instance, handles[i], err, &list[i]);
        if (r < 0) {
            return r;
        }
    }
    *ret = take_ptr(&list);
    *ret_n = n;
    return 0;
}

const char *vkc_type_name(VkPhysicalDeviceType type)
{
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return "integrated";
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return "discrete";
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
        return "virtual";
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return "cpu";
    default:
        return "other";
    }
}

bool vkc_is_unified(const struct vkc_physical *physical)
{
    return physical->props.deviceType == VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU ||
           physical->props.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
}

/* "0 NVIDIA H100, 1 llvmpipe": what there was to choose from. */
static void describe(const struct vkc_physical *list, uint32_t n, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < n && used < size; i++) {
        bool usable = list[i].missing[0] == '\0';
        used +=
            (size_t)snprintf(text + used, size - used, "%s%u %s%s%s", i ? "; " : "", i,
                             list[i].props.deviceName, usable ? "" : " without ", list[i].missing);
    }
}

static int choose_default(const struct vkc_physical *list, uint32_t n, struct err *err,
                          uint32_t *ret)
{
    static const VkPhysicalDeviceType order[] = {
        VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU, VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU,
        VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU,    VK_PHYSICAL_DEVICE_TYPE_CPU,
        VK_PHYSICAL_DEVICE_TYPE_OTHER,
    };
    for (size_t o = 0; o < ARRAY_SIZE(order); o++) {
        for (uint32_t i = 0; i < n; i++) {
            if (list[i].props.deviceType == order[o] && !list[i].missing[0]) {
                *ret = i;
                return 0;
            }
        }
    }
    char text[ERR_TEXT_MAX - 64];
    describe(list, n, text, sizeof text);
    return err_set(err, -ENODEV, "no usable Vulkan device: %s", text);
}

int vkc_physical_choose(const struct vkc_physical *list, uint32_t n, const char *want,
                        struct err *err, uint32_t *ret)
{
    if (!want) {
        return choose_default(list, n, err, ret);
    }
    char *end;
    errno = 0;
    unsigned long index = strtoul(want, &end, 10);
    bool is_index = isdigit((unsigned char)want[0]) && *end == '\0' && errno == 0;
    for (uint32_t i = 0; i < n; i++) {
        if (is_index ? i != index : !strcasestr(list[i].props.deviceName, want)) {
            continue;
        }
        if (list[i].missing[0]) {
            return err_set(err, -ENOTSUP, "Vulkan device %u, %s, lacks %s", i,
                           list[i].props.deviceName, list[i].missing);
        }
        *ret = i;
        return 0;
    }
    char text[ERR_TEXT_MAX - 128];
    describe(list, n, text, sizeof text);
    return err_set(err, -ENODEV, "no Vulkan device \"%.64s\"; there are: %s", want, text);
}
