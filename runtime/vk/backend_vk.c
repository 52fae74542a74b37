/* SPDX-License-Identifier: MIT */
/* The Vulkan backend as the engine sees it; here is only the opening of a device. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vk.h"

static uint32_t at_most(uint32_t value, uint32_t limit)
{
    return value < limit ? value : limit;
}

static struct vk_tuning tune(const struct vkc_physical *physical)
{
    uint32_t lanes = physical->subgroup_size;
    if (physical->props.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU) {
        /* An invocation is a SIMD lane and a barrier a switch of coroutines. */
        return (struct vk_tuning){
            .matmul_wg = lanes,
            .matmul_rows = 8,
            .matmul_tile = 4,
            .token_wg = 2 * lanes,
            .head_wg = 4 * lanes,
            .attend_wg = lanes,
            .sample_wg = 2 * lanes,
            .quantize_wg = 2 * lanes,
            .few_max = 8,
            .batch_max = 32,
            .segment_flops = 100e9,
        };
    }
    return (struct vk_tuning){
        .matmul_wg = lanes > 32 ? lanes : 32,
        .matmul_rows = 4,
        .matmul_tile = 8,
        .token_wg = at_most(256, physical->props.limits.maxComputeWorkGroupInvocations),
        .head_wg = 64,
        .attend_wg = at_most(256, physical->props.limits.maxComputeWorkGroupInvocations),
        .sample_wg = at_most(256, physical->props.limits.maxComputeWorkGroupInvocations),
        .quantize_wg = at_most(512, physical->props.limits.maxComputeWorkGroupInvocations),
        .few_max = 8,
        .batch_max = VK_BATCH_MAX,
        /* a few TFLOP/s against hundreds */
        .segment_flops = vkc_is_unified(physical) ? 100e9 : 4e12,
    };
}

static bool has_gpu(const struct vkc_physical *list, uint32_t n)
{
    bool found = false;
    for (uint32_t i = 0; i < n; i++) {
        found |= !list[i].missing[0] && list[i].props.deviceType != VK_PHYSICAL_DEVICE_TYPE_CPU;
    }
    return found;
}

static int open_device(struct backend *backend, const struct backend_params *params,
                       struct err *err)
{
    struct vkc_physical *list = NULL;
    uint32_t n = 0, index;
    int r = vkc_physical_list(backend->instance, err, &list, &n);
    if (r < 0) {
        return params->gpu_only ? -ENXIO : r;
    }
    r = params->gpu_only && !has_gpu(list, n)
            ? err_set(err, -ENXIO, "no usable Vulkan GPU")
            : vkc_physical_choose(list, n, params->device, err, &index);
    start_done(params->start, START_INSTANCE);
    if (r == 0) {
        backend->tuning = tune(&list[index]);
        r = vkc_device_create(backend->instance, &list[index], params->cache_dir, err,
                              &backend->device);
    }
    free(list);
    return r;
}

static void vk_close(struct backend *backend)
{
    if (!backend) {
        return;
    }
    free(backend->choices);
    free(backend->gemms);
    free(backend->fews);
    free(backend->layers_choices);
    free(backend->choices_path);
    vkc_device_destroy(backend->device);
    vkc_instance_destroy(backend->instance);
    free(backend);
}

static int vk_open(const struct backend_params *params, struct err *err, struct backend **ret)
{
    struct backend *backend = calloc(1, sizeof *backend);
    if (!backend) {
        return err_set(err, -ENOMEM, "no memory for the Vulkan backend");
    }
    backend->copy_weights = params->copy_weights;
    backend->start = params->start;
    struct vkc_params vkc = {params->validate, params->log, params->log_data};
    int r = vkc_instance_create(&vkc, err, &backend->instance);
    if (r < 0) {
        r = params->gpu_only && r != -ENOENT ? -ENXIO : r;
        goto fail;
    }
    r = open_device(backend, params, err);
    if (r < 0) {
        goto fail;
    }
    backend->always_layers = params->always_layers;
    r = vk_matrix_order(backend, err);
    if (r < 0) {
        goto fail;
    }
    vk_choices_load(backend, params->cache_dir);
    r = vkc_checked(backend->instance, 0, err);
    if (r < 0) {
        goto fail;
    }
    *ret = backend;
    return 0;
fail:
    vk_close(backend);
    return r;
}

static void vk_info(const struct backend *backend, struct backend_info *ret)
{
    *ret = (struct backend_info){
        .backend = "vulkan",
        .max_batch = backend->tuning.batch_max,
        .max_sequences = STEP_ROWS_MAX,
        .f16_batches = vk_gemm_possible(backend),
    };
    const struct vkc_physical *physical = &backend->device->physical;
    snprintf(ret->device, sizeof ret->device, "%s", physical->props.deviceName);
    snprintf(ret->driver, sizeof ret->driver, "%s", physical->driver);
}

const struct backend_ops vulkan_backend = {
    .name = "vulkan",
    .open = vk_open,
    .close = vk_close,
    .info = vk_info,
    .bind = vk_bind,
    .unbind = vk_unbind,
    .weight_start = vk_weight_start,
    .state_create = vk_state_create,
    .state_destroy = vk_state_destroy,
    .forward = vk_forward,
    .decode_start = vk_decode_start,
    .decode_submit = vk_decode_submit,
    .decode_collect = vk_decode_collect,
    .decode_stop = vk_decode_stop,
    .decode_profile = vk_decode_profile,
    .forward_many = vk_forward_many,
    .profile = vk_profile,
    .read_speed = vk_read_speed,
    .op = vk_op,
};
