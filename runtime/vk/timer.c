/* SPDX-License-Identifier: MIT */
/* Timestamps of the device: when what was recorded before them was done. */
#include <errno.h>
#include <stdlib.h>

#include "gttd_util.h"
#include "vkc.h"

int vkc_timer_create(struct vkc_device *device, uint32_t n, struct err *err, VkQueryPool *ret)
{
    if (device->physical.timestamp_bits == 0) {
        return err_set(err, -ENOTSUP, "%s: its queue has no timestamps",
                       device->physical.props.deviceName);
    }
    VkQueryPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
        .queryType = VK_QUERY_TYPE_TIMESTAMP,
        .queryCount = n,
    };
    return vkc_err(err, device->vk.CreateQueryPool(device->handle, &info, NULL, ret),
                   "vkCreateQueryPool");
}

void vkc_timer_destroy(struct vkc_device *device, VkQueryPool pool)
{
    device->vk.DestroyQueryPool(device->handle, pool, NULL);
}

void vkc_timer_reset(struct vkc_device *device, VkCommandBuffer cmd, VkQueryPool pool, uint32_t n)
{
    device->vk.CmdResetQueryPool(cmd, pool, 0, n);
}

void vkc_timer_write(struct vkc_device *device, VkCommandBuffer cmd, VkQueryPool pool, uint32_t i)
{
    device->vk.CmdWriteTimestamp(cmd, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, pool, i);
}

int vkc_timer_read(struct vkc_device *device, VkQueryPool pool, uint32_t n, struct err *err,
                   double *ret_ns)
{
    AUTO_FREE uint64_t *ticks = calloc(n, sizeof *ticks);
    if (!ticks) {
        return err_set(err, -ENOMEM, "no memory for timestamps");
    }
    int r =
        vkc_err(err,
                device->vk.GetQueryPoolResults(device->handle, pool, 0, n, n * sizeof *ticks, ticks,
                                               sizeof *ticks,
                                               VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT),
                "vkGetQueryPoolResults");
    if (r < 0) {
        return r;
    }
    uint32_t unused = 64 - device->physical.timestamp_bits;
    for (uint32_t i = 0; i < n; i++) {
        /* the counter may wrap between the first and this one */
        uint64_t since = (ticks[i] - ticks[0]) << unused >> unused;
        ret_ns[i] = (double)since * (double)device->physical.props.limits.timestampPeriod;
    }
    return 0;
}
