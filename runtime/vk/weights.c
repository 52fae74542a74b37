/* SPDX-License-Identifier: MIT */
/* How an image's memory becomes readable by the device: imported where possible, else copied. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vk.h"

#define STAGING_BYTES (32ull << 20)

enum weight_path vk_weight_path(const struct vkc_physical *physical, bool is_dmabuf,
                                const char **ret_why)
{
    if (!vkc_is_unified(physical)) {
        *ret_why = "the device has memory of its own, which it reads faster";
        return WEIGHT_PATH_DEVICE_COPY;
    }
    if (is_dmabuf && physical->has_dmabuf) {
        *ret_why = "the device reads the dma-buf in place";
        return WEIGHT_PATH_DMABUF;
    }
    const char *no_dmabuf =
        is_dmabuf ? "the driver cannot import dma-bufs" : "the memory is not a dma-buf";
    if (physical->host_pointer_align) {
        *ret_why = no_dmabuf;
        return WEIGHT_PATH_HOST_POINTER;
    }
    *ret_why = is_dmabuf ? "the driver can import neither dma-bufs nor host memory"
                         : "the memory is not a dma-buf and the driver cannot import host memory";
    return WEIGHT_PATH_DEVICE_COPY;
}

static uint64_t chunk_size(const struct weight_memory *memory, uint32_t i)
{
    uint64_t rest = memory->size_bytes - i * memory->chunk_bytes;
    return rest < memory->chunk_bytes ? rest : memory->chunk_bytes;
}

static void drop_chunks(struct backend *backend, struct vk_weights *weights)
{
    for (uint32_t i = 0; i < weights->n_chunks; i++) {
        vkc_buffer_finish(backend->device, &weights->chunks[i]);
    }
}

static int import_chunks(struct backend *backend, const struct weight_memory *memory,
                         enum weight_path path, struct err *err, struct vk_weights *weights)
{
    for (uint32_t i = 0; i < memory->n_chunks; i++) {
        int r =
            path == WEIGHT_PATH_DMABUF
                ? vkc_buffer_import_dmabuf(backend->device, memory->dmabuf_fds[i],
                                           chunk_size(memory, i), "weights (dma-buf)", err,
                                           &weights->chunks[i])
                : vkc_buffer_import_host(backend->device, memory->base + i * memory->chunk_bytes,
                                         chunk_size(memory, i), "weights (host pointer)", err,
                                         &weights->chunks[i]);
        if (r < 0) {
            drop_chunks(backend, weights);
            return err_prefix(err, r, "chunk %u", i);
        }
    }
    return 0;
}

/* Two staging buffers: the CPU fills one while the device empties the other. */
struct staging {
    struct vkc_buffer buffer[2];
    VkCommandBuffer cmd[2];
    uint64_t done[2]; /* timeline value of the slot's last copy; 0: none */
};

static int stage(struct backend *backend, struct staging *staging, uint32_t slot,
                 const uint8_t *src, uint64_t size_bytes, const struct vkc_buffer *dst,
                 uint64_t dst_off, struct err *err)
{
    struct vkc_device *device = backend->device;
    int r = vkc_wait(device, staging->done[slot], err);
    if (r < 0) {
        return r;
    }
    vkc_cmd_free(device, staging->cmd[slot]);
    staging->cmd[slot] = NULL;
    memcpy(staging->buffer[slot].map, src, size_bytes);
    r = vkc_cmd_begin(device, err, &staging->cmd[slot]);
    if (r < 0) {
        return r;
    }
    vkc_copy(device, staging->cmd[slot], &staging->buffer[slot], 0, dst, dst_off, size_bytes);
    vkc_barrier(device, staging->cmd[slot], VKC_COPY_TO_SHADER);
    r = vkc_cmd_end(device, staging->cmd[slot], err);
    if (r < 0) {
        return r;
    }
    return vkc_submit(device, &staging->cmd[slot], 1, err, &staging->done[slot]);
}

static int copy_through(struct backend *backend, const struct weight_memory *memory,
                        struct staging *staging, struct err *err, struct vk_weights *weights)
{
    uint32_t slot = 0;
    for (uint32_t i = 0; i < memory->n_chunks; i++) {
        uint64_t size = chunk_size(memory, i);
        int r =
            vkc_buffer_init(backend->device, VKC_DEVICE, size, "weights", err, &weights->chunks[i]);
        if (r < 0) {
            return r;
        }
        for (uint64_t off = 0; off < size; off += STAGING_BYTES, slot ^= 1) {
            uint64_t part = size - off < STAGING_BYTES ? size - off : STAGING_BYTES;
            r = stage(backend, staging, slot, memory->base + i * memory->chunk_bytes + off, part,
                      &weights->chunks[i], off, err);
            if (r < 0) {
                return r;
            }
        }
    }
    return vkc_wait(backend->device, backend->device->submitted, err);
}

static int copy_chunks(struct backend *backend, const struct weight_memory *memory, struct err *err,
                       struct vk_weights *weights)
{
    struct vkc_device *device = backend->device;
    struct staging staging = {0};
    uint64_t size = memory->size_bytes < STAGING_BYTES ? memory->size_bytes : STAGING_BYTES;
    int r = 0;
    for (int s = 0; s < 2 && r == 0; s++) {
        r = vkc_buffer_init(device, VKC_UPLOAD, size, "staging", err, &staging.buffer[s]);
    }
    if (r == 0) {
        r = copy_through(backend, memory, &staging, err, weights);
    }
    if (r < 0) {
        vkc_wait(device, device->submitted, NULL);
        drop_chunks(backend, weights);
    }
    for (int s = 0; s < 2; s++) {
        vkc_cmd_free(device, staging.cmd[s]);
        vkc_buffer_finish(device, &staging.buffer[s]);
    }
    return r;
}

int vk_weights_init(struct backend *backend, const struct weight_memory *memory, struct err *err,
                    struct vk_weights *ret, enum weight_path *ret_path)
{
    const struct vkc_physical *physical = &backend->device->physical;
    struct vk_weights weights = {
        .chunks = calloc(memory->n_chunks, sizeof *weights.chunks),
        .n_chunks = memory->n_chunks,
        .chunk_bytes = memory->chunk_bytes,
    };
    if (!weights.chunks) {
        return err_set(err, -ENOMEM, "no memory for the weights' buffers");
    }
    const char *why;
    enum weight_path path = vk_weight_path(physical, memory->dmabuf_fds != NULL, &why);
    vkc_log(backend->instance, "weights: %s", why);
    int r = -ENOTSUP;
    while (path != WEIGHT_PATH_DEVICE_COPY) {
        struct err reason;
        r = import_chunks(backend, memory, path, &reason, &weights);
        if (r == 0) {
            break;
        }
        vkc_log(backend->instance, "weights: cannot import the %s: %s",
                path == WEIGHT_PATH_DMABUF ? "dma-buf" : "host memory", reason.text);
        path = path == WEIGHT_PATH_DMABUF && physical->host_pointer_align ? WEIGHT_PATH_HOST_POINTER
                                                                          : WEIGHT_PATH_DEVICE_COPY;
    }
    if (path == WEIGHT_PATH_DEVICE_COPY) {
        r = copy_chunks(backend, memory, err, &weights);
    }
    if (r < 0) {
        free(weights.chunks);
        return err_prefix(err, r, "weights");
    }
    *ret = weights;
    *ret_path = path;
    return 0;
}

void vk_weights_finish(struct backend *backend, struct vk_weights *weights)
{
    drop_chunks(backend, weights);
    free(weights->chunks);
    *weights = (struct vk_weights){0};
}

uint64_t vk_weights_address(const struct vk_weights *weights, uint64_t off)
{
    return weights->chunks[off / weights->chunk_bytes].address + off % weights->chunk_bytes;
}
