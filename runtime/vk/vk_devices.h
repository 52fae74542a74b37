/* SPDX-License-Identifier: MIT */
/* The Vulkan devices of this machine as `gttrun devices` shows them. */
#ifndef VK_DEVICES_H
#define VK_DEVICES_H

#include <stddef.h>
#include <stdint.h>

#include "backend.h"

#define VK_DEVICE_HEAPS_MAX 16

struct vk_device_desc {
    char name[256];
    char driver[520]; /* "radv Mesa 25.0.1" */
    const char *type; /* "integrated", "discrete", "virtual", "cpu", "other" */
    uint32_t api_major, api_minor, api_patch;
    uint8_t uuid[16];
    uint32_t subgroup_size;
    uint32_t n_heaps;
    struct {
        uint64_t size_bytes;
        bool device_local;
    } heaps[VK_DEVICE_HEAPS_MAX];
    enum weight_path dmabuf_path; /* for weights that are dma-bufs, and why no better one */
    const char *dmabuf_why;
    enum weight_path plain_path; /* for weights in ordinary memory */
    const char *plain_why;
    /* why a copy in its own memory cannot outlive a process; NULL: it can */
    const char *copy_dies_because;
    char tuned_name[64]; /* the file in the cache directory with what was measured on it */
    char missing[256];   /* what we need and it lacks; "" if it can be used */
};

/*
 * All devices in the order that backend_params.device counts. *ret is malloc'ed and the caller's.
 * Loads and unloads the Vulkan loader; blocks for as long as drivers take to start. Errors: -ENODEV
 * no loader, no driver or no device.
 */
int vk_devices_list(struct err *err, struct vk_device_desc **ret, size_t *ret_n);

#endif
