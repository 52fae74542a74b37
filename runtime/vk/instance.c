/* SPDX-License-Identifier: MIT */
/* The loader, the instance, what the validation layers say, and how results become errors. */
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gttd_util.h"
#include "vkc.h"

#define VALIDATION_LAYER "VK_LAYER_KHRONOS_validation"
#define MESSAGES_LOGGED  8 /* per call: one mistake can be reported by every invocation */

static const struct {
    VkResult result;
    int code;
    const char *name;
} results[] = {
    {VK_NOT_READY, -EAGAIN, "VK_NOT_READY"},
    {VK_TIMEOUT, -ETIME, "VK_TIMEOUT"},
    {VK_ERROR_OUT_OF_HOST_MEMORY, -ENOMEM, "VK_ERROR_OUT_OF_HOST_MEMORY, no memory"},
    {VK_ERROR_OUT_OF_DEVICE_MEMORY, -ENOMEM, "VK_ERROR_OUT_OF_DEVICE_MEMORY, no device memory"},
    {VK_ERROR_INITIALIZATION_FAILED, -EIO, "VK_ERROR_INITIALIZATION_FAILED"},
    {VK_ERROR_DEVICE_LOST, -EIO, "VK_ERROR_DEVICE_LOST, the device was reset or removed"},
    {VK_ERROR_MEMORY_MAP_FAILED, -ENOMEM, "VK_ERROR_MEMORY_MAP_FAILED"},
    {VK_ERROR_LAYER_NOT_PRESENT, -ENOENT, "VK_ERROR_LAYER_NOT_PRESENT"},
    {VK_ERROR_EXTENSION_NOT_PRESENT, -ENOTSUP, "VK_ERROR_EXTENSION_NOT_PRESENT"},
    {VK_ERROR_FEATURE_NOT_PRESENT, -ENOTSUP, "VK_ERROR_FEATURE_NOT_PRESENT"},
    {VK_ERROR_INCOMPATIBLE_DRIVER, -ENODEV, "VK_ERROR_INCOMPATIBLE_DRIVER, no usable driver"},
    {VK_ERROR_TOO_MANY_OBJECTS, -EMFILE, "VK_ERROR_TOO_MANY_OBJECTS"},
    {VK_ERROR_FRAGMENTATION, -ENOMEM, "VK_ERROR_FRAGMENTATION"},
    {VK_ERROR_INVALID_EXTERNAL_HANDLE, -EINVAL, "VK_ERROR_INVALID_EXTERNAL_HANDLE"},
    {VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS, -EINVAL, "VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS"},
};

int vkc_errno(VkResult result)
{
    if (result >= 0 && result != VK_NOT_READY && result != VK_TIMEOUT) {
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(results); i++) {
        if (results[i].result == result) {
            return results[i].code;
        }
    }
    return -EIO;
}

int vkc_err(struct err *err, VkResult result, const char *call)
{
    int code = vkc_errno(result);
    if (code == 0) {
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(results); i++) {
        if (results[i].result == result) {
            return err_set(err, code, "%s: %s", call, results[i].name);
        }
    }
    return err_set(err, code, "%s: VkResult %d", call, (int)result);
}

void vkc_log(const struct vkc_instance *instance, const char *fmt, ...)
{
    if (!instance->params.log) {
        return;
    }
    char text[2 * ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    instance->params.log(instance->params.log_data, text);
}

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                 VkDebugUtilsMessageTypeFlagsEXT types,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data,
                                                 void *user)
{
    (void)severity;
    (void)types;
    struct vkc_instance *instance = user;
    const char *text = data->pMessage ? data->pMessage : "(no text)";
    pthread_mutex_lock(&instance->lock);
    if (instance->n_messages++ == 0) {
        snprintf(instance->message, sizeof instance->message, "%s", text);
    }
    if (instance->n_messages <= MESSAGES_LOGGED) {
        vkc_log(instance, "validation: %s", text);
    }
    pthread_mutex_unlock(&instance->lock);
    return VK_FALSE;
}

int vkc_checked(struct vkc_instance *instance, int r, struct err *err)
{
    pthread_mutex_lock(&instance->lock);
    if (instance->n_messages > 0) {
        r = err_set(err, -EPROTO, "Vulkan validation, %u messages, the first: %.400s",
                    instance->n_messages, instance->message);
        instance->n_messages = 0;
    }
    pthread_mutex_unlock(&instance->lock);
    return r;
}

static int load_library(struct vkc_instance *instance, struct err *err)
{
    instance->lib = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!instance->lib) {
        return err_set(err, -ENODEV, "no Vulkan loader on this machine (%s)", dlerror());
    }
    PFN_vkGetInstanceProcAddr get =
        (PFN_vkGetInstanceProcAddr)dlsym(instance->lib, "vkGetInstanceProcAddr");
    if (!get) {
        return err_set(err, -ENODEV, "libvulkan.so.1 has no vkGetInstanceProcAddr");
    }
#define VK_FN_GLOBAL(name)                                                    \
    instance->vk.name = (PFN_vk##name)get(NULL, "vk" #name);                  \
    if (!instance->vk.name) {                                                 \
        return err_set(err, -ENODEV, "the Vulkan loader has no vk%s", #name); \
    }
#include "vk_fn.def"
    return 0;
}

static int load_functions(struct vkc_instance *instance, struct err *err)
{
    PFN_vkGetInstanceProcAddr get =
        (PFN_vkGetInstanceProcAddr)dlsym(instance->lib, "vkGetInstanceProcAddr");
#define VK_FN_INSTANCE(name)                                                  \
    instance->vk.name = (PFN_vk##name)get(instance->handle, "vk" #name);      \
    if (!instance->vk.name) {                                                 \
        return err_set(err, -ENODEV, "the Vulkan loader has no vk%s", #name); \
    }
#define VK_FN_INSTANCE_OPTIONAL(name) \
    instance->vk.name = (PFN_vk##name)get(instance->handle, "vk" #name);
#include "vk_fn.def"
    return 0;
}

static int find_layer(struct vkc_instance *instance, struct err *err)
{
    uint32_t n = 0;
    int r = vkc_err(err, instance->vk.EnumerateInstanceLayerProperties(&n, NULL),
                    "vkEnumerateInstanceLayerProperties");
    if (r < 0) {
        return r;
    }
    AUTO_FREE VkLayerProperties *layers = calloc(n + 1, sizeof *layers);
    if (!layers) {
        return err_set(err, -ENOMEM, "no memory for the list of Vulkan layers");
    }
    r = vkc_err(err, instance->vk.EnumerateInstanceLayerProperties(&n, layers),
                "vkEnumerateInstanceLayerProperties");
    if (r < 0) {
        return r;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(layers[i].layerName, VALIDATION_LAYER) == 0) {
            return 0;
        }
    }
    return err_set(err, -ENOENT,
                   "Vulkan validation was asked for, but " VALIDATION_LAYER
                   " is not installed (Debian: vulkan-validationlayers)");
}

static VkDebugUtilsMessengerCreateInfoEXT messenger_info(struct vkc_instance *instance)
{
    /* GENERAL messages are the loader's talk about drivers that are none of our business. */
    return (VkDebugUtilsMessengerCreateInfoEXT){
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                           VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT |
                       VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT,
        .pfnUserCallback = on_message,
        .pUserData = instance,
    };
}

static int create_handle(struct vkc_instance *instance, struct err *err)
{
    static const VkValidationFeatureEnableEXT enables[] = {
        VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT,
    };
    static const char *const layers[] = {VALIDATION_LAYER};
    static const char *const extensions[] = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME,
                                             VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME};
    VkDebugUtilsMessengerCreateInfoEXT messenger = messenger_info(instance);
    VkValidationFeaturesEXT features = {
        .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
        .pNext = &messenger, /* so that vkCreateInstance itself is heard */
        .enabledValidationFeatureCount = ARRAY_SIZE(enables),
        .pEnabledValidationFeatures = enables,
    };
    VkApplicationInfo app = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
        .pApplicationName = "gttrun",
        .apiVersion = VK_API_VERSION_1_2,
    };
    VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pApplicationInfo = &app,
    };
    if (instance->params.validate) {
        info.pNext = &features;
        info.enabledLayerCount = ARRAY_SIZE(layers);
        info.ppEnabledLayerNames = layers;
        info.enabledExtensionCount = ARRAY_SIZE(extensions);
        info.ppEnabledExtensionNames = extensions;
    }
    return vkc_err(err, instance->vk.CreateInstance(&info, NULL, &instance->handle),
                   "vkCreateInstance");
}

int vkc_instance_create(const struct vkc_params *params, struct err *err, struct vkc_instance **ret)
{
    struct vkc_instance *instance = calloc(1, sizeof *instance);
    if (!instance) {
        return err_set(err, -ENOMEM, "no memory for a Vulkan instance");
    }
    instance->params = *params;
    pthread_mutex_init(&instance->lock, NULL);
    int r = load_library(instance, err);
    if (r < 0) {
        goto fail;
    }
    uint32_t version = 0;
    r = vkc_err(err, instance->vk.EnumerateInstanceVersion(&version), "vkEnumerateInstanceVersion");
    if (r < 0) {
        goto fail;
    }
    if (version < VK_API_VERSION_1_2) {
        r = err_set(err, -ENODEV, "the Vulkan loader is version %u.%u, 1.2 is needed",
                    VK_API_VERSION_MAJOR(version), VK_API_VERSION_MINOR(version));
        goto fail;
    }
    if (params->validate) {
        r = find_layer(instance, err);
        if (r < 0) {
            goto fail;
        }
    }
    r = create_handle(instance, err);
    if (r < 0) {
        goto fail;
    }
    r = load_functions(instance, err);
    if (r < 0) {
        goto fail;
    }
    if (params->validate) {
        VkDebugUtilsMessengerCreateInfoEXT info = messenger_info(instance);
        r = vkc_err(err,
                    instance->vk.CreateDebugUtilsMessengerEXT(instance->handle, &info, NULL,
                                                              &instance->messenger),
                    "vkCreateDebugUtilsMessengerEXT");
        if (r < 0) {
            goto fail;
        }
    }
    *ret = instance;
    return 0;
fail:
    vkc_instance_destroy(instance);
    return r;
}

void vkc_instance_destroy(struct vkc_instance *instance)
{
    if (!instance) {
        return;
    }
    if (instance->messenger) {
        instance->vk.DestroyDebugUtilsMessengerEXT(instance->handle, instance->messenger, NULL);
    }
    if (instance->handle && instance->vk.DestroyInstance) {
        instance->vk.DestroyInstance(instance->handle, NULL);
    }
    if (instance->lib) {
        dlclose(instance->lib);
    }
    pthread_mutex_destroy(&instance->lock);
    free(instance);
}
