/* SPDX-License-Identifier: MIT */
/* Recording commands, submitting them, sleeping until they are done. */
#include <assert.h>
#include <errno.h>

#include "vkc.h"

#define SUBMIT_MAX 256 /* a model has at most as many layers (CONFIG_MAX_LAYERS) */

static int begin_cmd(struct vkc_device *device, VkCommandBufferUsageFlags usage, struct err *err,
                     VkCommandBuffer *ret)
{
    VkCommandBufferAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = device->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1,
    };
    VkCommandBuffer cmd;
    int r = vkc_err(err, device->vk.AllocateCommandBuffers(device->handle, &info, &cmd),
                    "vkAllocateCommandBuffers");
    if (r < 0) {
        return r;
    }
    VkCommandBufferBeginInfo begin = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = usage,
    };
    r = vkc_err(err, device->vk.BeginCommandBuffer(cmd, &begin), "vkBeginCommandBuffer");
    if (r < 0) {
        vkc_cmd_free(device, cmd);
        return r;
    }
    *ret = cmd;
    return 0;
}

int vkc_cmd_begin(struct vkc_device *device, struct err *err, VkCommandBuffer *ret)
{
    return begin_cmd(device, 0, err, ret);
}

int vkc_cmd_begin_shared(struct vkc_device *device, struct err *err, VkCommandBuffer *ret)
{
    return begin_cmd(device, VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT, err, ret);
}

int vkc_cmd_end(struct vkc_device *device, VkCommandBuffer cmd, struct err *err)
{
    return vkc_err(err, device->vk.EndCommandBuffer(cmd), "vkEndCommandBuffer");
}

void vkc_cmd_free(struct vkc_device *device, VkCommandBuffer cmd)
{
    if (cmd) {
        device->vk.FreeCommandBuffers(device->handle, device->pool, 1, &cmd);
    }
}

void vkc_dispatch(struct vkc_device *device, VkCommandBuffer cmd, VkPipeline pipeline,
                  const void *push, uint32_t push_bytes, uint32_t x, uint32_t y, uint32_t z)
{
    assert(push_bytes <= VKC_PUSH_BYTES);
    device->vk.CmdBindPipeline(cmd, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    device->vk.CmdPushConstants(cmd, device->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, push_bytes,
                                push);
    device->vk.CmdDispatch(cmd, x, y, z);
}

void vkc_copy(struct vkc_device *device, VkCommandBuffer cmd, const struct vkc_buffer *src,
              uint64_t src_off, const struct vkc_buffer *dst, uint64_t dst_off, uint64_t size_bytes)
{
    assert(src_off + size_bytes <= src->size_bytes && dst_off + size_bytes <= dst->size_bytes);
    VkBufferCopy region = {.srcOffset = src_off, .dstOffset = dst_off, .size = size_bytes};
    device->vk.CmdCopyBuffer(cmd, src->handle, dst->handle, 1, &region);
}

void vkc_clear(struct vkc_device *device, VkCommandBuffer cmd, const struct vkc_buffer *buffer)
{
    device->vk.CmdFillBuffer(cmd, buffer->handle, 0, VK_WHOLE_SIZE, 0);
}

void vkc_barrier(struct vkc_device *device, VkCommandBuffer cmd, enum vkc_hazard hazard)
{
    static const struct {
        VkPipelineStageFlags from, to;
        VkAccessFlags wrote, will;
    } hazards[] = {
        [VKC_SHADER_TO_SHADER] = {VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                                  VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
                                  VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT},
        [VKC_SHADER_TO_COPY] = {VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                                VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
                                VK_ACCESS_TRANSFER_READ_BIT},
        [VKC_SHADER_TO_HOST] = {VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_PIPELINE_STAGE_HOST_BIT,
                                VK_ACCESS_SHADER_WRITE_BIT, VK_ACCESS_HOST_READ_BIT},
        [VKC_COPY_TO_SHADER] = {VK_PIPELINE_STAGE_TRANSFER_BIT,
                                VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
                                VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT},
        [VKC_COPY_TO_HOST] = {VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT,
                              VK_ACCESS_TRANSFER_WRITE_BIT, VK_ACCESS_HOST_READ_BIT},
    };
    VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = hazards[hazard].wrote,
        .dstAccessMask = hazards[hazard].will,
    };
    device->vk.CmdPipelineBarrier(cmd, hazards[hazard].from, hazards[hazard].to, 0, 1, &barrier, 0,
                                  NULL, 0, NULL);
}

int vkc_submit(struct vkc_device *device, const VkCommandBuffer *cmds, uint32_t n, struct err *err,
               uint64_t *ret_done)
{
    assert(n > 0 && n <= SUBMIT_MAX);
    uint64_t done = device->submitted + 1;
    VkTimelineSemaphoreSubmitInfo timeline = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .signalSemaphoreValueCount = 1,
        .pSignalSemaphoreValues = &done,
    };
    VkSubmitInfo submits[SUBMIT_MAX];
    for (uint32_t i = 0; i < n; i++) {
        submits[i] = (VkSubmitInfo){
            .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
            .commandBufferCount = 1,
            .pCommandBuffers = &cmds[i],
        };
    }
    submits[n - 1].pNext = &timeline;
    submits[n - 1].signalSemaphoreCount = 1;
    submits[n - 1].pSignalSemaphores = &device->timeline;
    int r = vkc_err(err, device->vk.QueueSubmit(device->queue, n, submits, VK_NULL_HANDLE),
                    "vkQueueSubmit");
    if (r < 0) {
        return r;
    }
    device->submitted = done;
    *ret_done = done;
    return 0;
}

int vkc_wait(struct vkc_device *device, uint64_t done, struct err *err)
{
    VkSemaphoreWaitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
        .semaphoreCount = 1,
        .pSemaphores = &device->timeline,
        .pValues = &done,
    };
    VkResult result = device->vk.WaitSemaphores(device->handle, &info, UINT64_MAX);
    if (result != VK_SUCCESS) {
        device->vk.DeviceWaitIdle(device->handle);
    }
    return vkc_err(err, result, "vkWaitSemaphores");
}
