/* SPDX-License-Identifier: MIT */
/*
 * Buffers with an address: allocated, imported from a dma-buf, from host memory, or from another
 * process's. Each has its own VkDeviceMemory: there are few of them and they are large.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "gttd_util.h"
#include "vkc.h"

#define USAGE                                                                         \
    (VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT | \
     VK_BUFFER_USAGE_TRANSFER_SRC_BIT)

/* Memory properties a kind must have, and those it would like, best first. */
static const struct {
    VkMemoryPropertyFlags need;
    VkMemoryPropertyFlags like[2];
} kinds[] = {
    [VKC_DEVICE] = {0, {VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, 0}},
    [VKC_UPLOAD] = {VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
                    {0, 0}},
    [VKC_SHARED] = {VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
                    {VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, 0}},
    [VKC_READBACK] = {VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
                      {VK_MEMORY_PROPERTY_HOST_CACHED_BIT, 0}},
};

static int create_handle(struct vkc_device *device, uint64_t size_bytes, VkBufferUsageFlags usage,
                         VkExternalMemoryHandleTypeFlags external, struct err *err,
                         struct vkc_buffer *buffer)
{
    VkExternalMemoryBufferCreateInfo external_info = {
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
        .handleTypes = external,
    };
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .pNext = external ? &external_info : NULL,
        .size = size_bytes,
        .usage = usage,
    };
    buffer->size_bytes = size_bytes;
    return vkc_err(err, device->vk.CreateBuffer(device->handle, &info, NULL, &buffer->handle),
                   "vkCreateBuffer");
}

static VkResult allocate(struct vkc_device *device, uint64_t size_bytes, uint32_t type,
                         const void *next, struct vkc_buffer *buffer)
{
    VkMemoryAllocateFlagsInfo flags = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
        .pNext = next,
        .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT,
    };
    VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .pNext = &flags,
        .allocationSize = size_bytes,
        .memoryTypeIndex = type,
    };
    buffer->alloc_bytes = size_bytes;
    buffer->memory_type = type;
    return device->vk.AllocateMemory(device->handle, &info, NULL, &buffer->memory);
}

/* Try the allowed memory types, those with the liked properties first. */
static VkResult allocate_once(struct vkc_device *device, enum vkc_memory kind,
                              const VkMemoryRequirements *req, const void *next,
                              struct vkc_buffer *buffer)
{
    const VkPhysicalDeviceMemoryProperties *memory = &device->physical.memory;
    VkMemoryPropertyFlags need = kinds[kind].need;
    if (kind == VKC_DEVICE && !vkc_is_unified(&device->physical)) {
        /* Elsewhere system memory would work, slowly: not what was asked for. */
        need |= VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
    }
    VkResult result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    uint32_t tried = 0;
    for (size_t l = 0; l < ARRAY_SIZE(kinds[kind].like); l++) {
        VkMemoryPropertyFlags flags = need | kinds[kind].like[l];
        for (uint32_t i = 0; i < memory->memoryTypeCount; i++) {
            if (!(req->memoryTypeBits & ~tried & (1u << i)) ||
                (memory->memoryTypes[i].propertyFlags & flags) != flags ||
                memory->memoryHeaps[memory->memoryTypes[i].heapIndex].size < req->size) {
                continue;
            }
            tried |= 1u << i;
            result = allocate(device, req->size, i, next, buffer);
            if (result == VK_SUCCESS) {
                return result;
            }
        }
    }
    return result;
}

static int allocate_kind(struct vkc_device *device, enum vkc_memory kind,
                         const VkMemoryRequirements *req, const void *next, struct err *err,
                         struct vkc_buffer *buffer)
{
    VkResult result;
    do {
        result = allocate_once(device, kind, req, next, buffer);
    } while (result == VK_ERROR_OUT_OF_DEVICE_MEMORY && kind == VKC_DEVICE && device->reclaim &&
             device->reclaim(device->reclaim_data));
    return vkc_err(err, result, "vkAllocateMemory");
}

/* The last steps for every kind of buffer: memory is there, bind it and ask for the address. */
static int bind_memory(struct vkc_device *device, const char *name, struct err *err,
                       struct vkc_buffer *buffer)
{
    int r =
        vkc_err(err, device->vk.BindBufferMemory(device->handle, buffer->handle, buffer->memory, 0),
                "vkBindBufferMemory");
    if (r < 0) {
        return r;
    }
    VkBufferDeviceAddressInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO,
        .buffer = buffer->handle,
    };
    buffer->address = device->vk.GetBufferDeviceAddress(device->handle, &info);
    vkc_name(device, VK_OBJECT_TYPE_BUFFER, (uint64_t)buffer->handle, name);
    vkc_name(device, VK_OBJECT_TYPE_DEVICE_MEMORY, (uint64_t)buffer->memory, name);
    return 0;
}

/* export: it is VKC_DEVICE, and can be exported as an opaque fd. */
static int init_buffer(struct vkc_device *device, enum vkc_memory kind, bool export,
                       uint64_t size_bytes, const char *name, struct err *err,
                       struct vkc_buffer *ret)
{
    *ret = (struct vkc_buffer){0};
    if (size_bytes > device->physical.max_alloc_bytes) {
        return err_set(err, -ENOMEM,
                       "%s: %" PRIu64 " bytes is more than the device allocates at once (%" PRIu64
                       ")",
                       name, size_bytes, device->physical.max_alloc_bytes);
    }
    struct vkc_buffer buffer = {0};
    VkMemoryRequirements req;
    int r = create_handle(device, size_bytes, USAGE | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
                          export ? VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT : 0, err, &buffer);
    if (r < 0) {
        goto fail;
    }
    VkMemoryDedicatedAllocateInfo dedicated = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO,
        .buffer = buffer.handle,
    };
    VkExportMemoryAllocateInfo exported = {
        .sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
        .pNext = device->physical.opaque_fd_dedicated ? &dedicated : NULL,
        .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT,
    };
    device->vk.GetBufferMemoryRequirements(device->handle, buffer.handle, &req);
    r = allocate_kind(device, kind, &req, export ? &exported : NULL, err, &buffer);
    if (r < 0) {
        goto fail;
    }
    r = bind_memory(device, name, err, &buffer);
    if (r < 0) {
        goto fail;
    }
    if (kind != VKC_DEVICE) {
        r = vkc_err(err,
                    device->vk.MapMemory(device->handle, buffer.memory, 0, VK_WHOLE_SIZE, 0,
                                         &buffer.map),
                    "vkMapMemory");
        if (r < 0) {
            goto fail;
        }
    }
    *ret = buffer;
    return 0;
fail:
    vkc_buffer_finish(device, &buffer);
    return err_prefix(err, r, "%s, %" PRIu64 " bytes", name, size_bytes);
}

int vkc_buffer_init(struct vkc_device *device, enum vkc_memory kind, uint64_t size_bytes,
                    const char *name, struct err *err, struct vkc_buffer *ret)
{
    return init_buffer(device, kind, false, size_bytes, name, err, ret);
}

int vkc_buffer_init_exportable(struct vkc_device *device, uint64_t size_bytes, const char *name,
                               struct err *err, struct vkc_buffer *ret)
{
    return init_buffer(device, VKC_DEVICE, true, size_bytes, name, err, ret);
}

int vkc_buffer_export_fd(struct vkc_device *device, const struct vkc_buffer *buffer,
                         struct err *err, int *ret_fd)
{
    VkMemoryGetFdInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR,
        .memory = buffer->memory,
        .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT,
    };
    AUTO_FD fd = -1;
    int r = vkc_err(err, device->vk.GetMemoryFdKHR(device->handle, &info, &fd), "vkGetMemoryFdKHR");
    if (r < 0) {
        return r;
    }
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) { /* drivers do not promise it */
        return err_set(err, -errno, "vkGetMemoryFdKHR: %s", strerror(errno));
    }
    *ret_fd = take_fd(&fd);
    return 0;
}

/* A buffer over memory that exists: handle, a memory type that fits both, import, bind. */
static int import_memory(struct vkc_device *device, uint64_t size_bytes,
                         VkExternalMemoryHandleTypeFlagBits handle_type, uint32_t type_bits,
                         const void *import, const char *name, struct err *err,
                         struct vkc_buffer *ret)
{
    struct vkc_buffer buffer = {0};
    int r = create_handle(device, size_bytes, USAGE, handle_type, err, &buffer);
    if (r < 0) {
        goto fail;
    }
    VkMemoryRequirements req;
    device->vk.GetBufferMemoryRequirements(device->handle, buffer.handle, &req);
    type_bits &= req.memoryTypeBits;
    if (type_bits == 0 || req.size > size_bytes) {
        r = err_set(err, -ENOTSUP, "no memory type fits (the driver wants %" PRIu64 " bytes)",
                    (uint64_t)req.size);
        goto fail;
    }
    uint32_t type = (uint32_t)__builtin_ctz(type_bits);
    r = vkc_err(err, allocate(device, size_bytes, type, import, &buffer), "vkAllocateMemory");
    if (r < 0) {
        goto fail;
    }
    r = bind_memory(device, name, err, &buffer);
    if (r < 0) {
        goto fail;
    }
    *ret = buffer;
    return 0;
fail:
    vkc_buffer_finish(device, &buffer);
    return r;
}

int vkc_buffer_import_dmabuf(struct vkc_device *device, int fd, uint64_t size_bytes,
                             const char *name, struct err *err, struct vkc_buffer *ret)
{
    *ret = (struct vkc_buffer){0};
    off_t fd_size = lseek(fd, 0, SEEK_END);
    if (fd_size < 0 || (uint64_t)fd_size < size_bytes) {
        return err_set(err, -EINVAL, "the dma-buf has %jd bytes, %" PRIu64 " are needed",
                       (intmax_t)fd_size, size_bytes);
    }
    VkMemoryFdPropertiesKHR props = {.sType = VK_STRUCTURE_TYPE_MEMORY_FD_PROPERTIES_KHR};
    int r =
        vkc_err(err,
                device->vk.GetMemoryFdPropertiesKHR(device->handle,
                                                    VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
                                                    fd, &props),
                "vkGetMemoryFdPropertiesKHR");
    if (r < 0) {
        return r;
    }
    AUTO_FD own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0) {
        return err_set(err, -errno, "cannot duplicate the dma-buf: %s", strerror(errno));
    }
    VkImportMemoryFdInfoKHR import = {
        .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
        .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
        .fd = own,
    };
    r = import_memory(device, size_bytes, VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
                      props.memoryTypeBits, &import, name, err, ret);
    if (r == 0) {
        take_fd(&own); /* a successful import owns it */
    }
    return r;
}

int vkc_buffer_import_host(struct vkc_device *device, const void *base, uint64_t size_bytes,
                           const char *name, struct err *err, struct vkc_buffer *ret)
{
    *ret = (struct vkc_buffer){0};
    uint64_t align = device->physical.host_pointer_align;
    if ((uintptr_t)base % align || size_bytes % align) {
        return err_set(err, -EINVAL, "the memory is not aligned to %" PRIu64 " bytes", align);
    }
    VkMemoryHostPointerPropertiesEXT props = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT};
    int r = vkc_err(err,
                    device->vk.GetMemoryHostPointerPropertiesEXT(
                        device->handle, VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT,
                        base, &props),
                    "vkGetMemoryHostPointerPropertiesEXT");
    if (r < 0) {
        return r;
    }
    VkImportMemoryHostPointerInfoEXT import = {
        .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT,
        .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT,
        .pHostPointer = (void *)base,
    };
    return import_memory(device, size_bytes, VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT,
                         props.memoryTypeBits, &import, name, err, ret);
}

int vkc_buffer_import_opaque(struct vkc_device *device, int fd, uint64_t size_bytes,
                             uint64_t alloc_bytes, uint32_t memory_type, bool dedicated,
                             const char *name, struct err *err, struct vkc_buffer *ret)
{
    *ret = (struct vkc_buffer){0};
    struct vkc_buffer buffer = {0};
    VkMemoryRequirements req;
    AUTO_FD own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    int r = own < 0 ? err_set(err, -errno, "cannot duplicate an fd: %s", strerror(errno))
                    : create_handle(device, size_bytes, USAGE | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
                                    VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT, err, &buffer);
    if (r < 0) {
        goto fail;
    }
    device->vk.GetBufferMemoryRequirements(device->handle, buffer.handle, &req);
    if (memory_type >= device->physical.memory.memoryTypeCount ||
        !(req.memoryTypeBits & (1u << memory_type)) || req.size > alloc_bytes) {
        r = err_set(err, -EINVAL,
                    "memory of type %u and %" PRIu64 " bytes, where the driver wants %" PRIu64,
                    memory_type, alloc_bytes, (uint64_t)req.size);
        goto fail;
    }
    VkMemoryDedicatedAllocateInfo dedicated_info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO,
        .buffer = buffer.handle,
    };
    VkImportMemoryFdInfoKHR import = {
        .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
        .pNext = dedicated ? &dedicated_info : NULL,
        .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT,
        .fd = own,
    };
    r = vkc_err(err, allocate(device, alloc_bytes, memory_type, &import, &buffer),
                "vkAllocateMemory");
    if (r < 0) {
        goto fail;
    }
    take_fd(&own); /* a successful import owns it */
    r = bind_memory(device, name, err, &buffer);
    if (r < 0) {
        goto fail;
    }
    *ret = buffer;
    return 0;
fail:
    vkc_buffer_finish(device, &buffer);
    return r;
}

void vkc_buffer_finish(struct vkc_device *device, struct vkc_buffer *buffer)
{
    device->vk.DestroyBuffer(device->handle, buffer->handle, NULL);
    device->vk.FreeMemory(device->handle, buffer->memory, NULL); /* unmaps */
    *buffer = (struct vkc_buffer){0};
}
