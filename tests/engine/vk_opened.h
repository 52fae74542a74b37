/* SPDX-License-Identifier: MIT */
/* What tests of the Vulkan backend's inside open: a device and a small model on it. A failure ends
 * the test. */
#ifndef TESTS_VK_OPENED_H
#define TESTS_VK_OPENED_H

#include "vk.h"

struct vk_opened {
    struct backend *backend;
    struct backend_model *bm;
    struct backend_state *state;
};

/* Whether there is a device; if not, that is printed, and the test should end with SKIP. ret is 0
 * but for validate: set where the validation layers are installed; where not, that is printed. */
bool vk_can_open(struct backend_params *ret);
/* The same for a device of integer dot products. */
bool vk_can_open_dot(struct backend_params *ret);

/* Two layers, the second a global one, of 2 heads and 1 KV head of 32; the caller changes what it
 * wants otherwise. */
struct model_config vk_small_config(uint32_t vocab);

/* A model bound and a timeline of max_pos tokens; vk_close() ends them. */
void vk_open(struct vk_opened *ret, const struct backend_params *params, const struct model *model,
             uint32_t max_pos);
/* In two steps, for who wants to change the backend in between; ret->backend is there. */
void vk_open_model(struct vk_opened *ret, const struct model *model, uint32_t max_pos);
void vk_close(struct vk_opened *opened);

/* Root mean square of the difference, relative to b's size. */
double vk_distance(const float *a, const float *b, size_t n);

#endif
