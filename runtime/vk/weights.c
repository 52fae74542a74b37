/* SPDX-License-Identifier: MIT */
/* How an image's memory becomes readable by the device: imported where possible, else copied
 * (device_copy.c). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vk.h"

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

uint64_t vk_chunk_bytes(const struct weight_memory *memory, uint32_t i)
{
    uint64_t rest = memory->size_bytes - i * memory->chunk_bytes;
    return rest < memory->chunk_bytes ? rest : memory->chunk_bytes;
}

void vk_weights_drop(struct backend *backend, struct vk_weights *weights)
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
                                           vk_chunk_bytes(memory, i), "weights (dma-buf)", err,
                                           &weights->chunks[i])
                : vkc_buffer_import_host(backend->device, memory->base + i * memory->chunk_bytes,
                                         vk_chunk_bytes(memory, i), "weights (host pointer)", err,
                                         &weights->chunks[i]);
        if (r < 0) {
            vk_weights_drop(backend, weights);
            return err_prefix(err, r, "chunk %u", i);
        }
    }
    return 0;
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
    if (backend->copy_weights) {
        path = WEIGHT_PATH_DEVICE_COPY;
        why = "to be copied, as was asked for";
    }
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
        weights.is_copy = true;
        r = vk_device_copy(backend, memory, err, &weights, &path);
    }
    if (r < 0) {
        vk_weights_finish(backend, &weights);
        return err_prefix(err, r, "weights");
    }
    *ret = weights;
    *ret_path = path;
    return 0;
}

void vk_weights_finish(struct backend *backend, struct vk_weights *weights)
{
    if (weights->is_copy) {
        vk_device_copy_finish(backend, weights);
    } else {
        vk_weights_drop(backend, weights);
    }
    free(weights->chunks);
    *weights = (struct vk_weights){0};
}

uint64_t vk_weights_address(const struct vk_weights *weights, uint64_t off)
{
    return weights->chunks[off / weights->chunk_bytes].address + off % weights->chunk_bytes;
}
