/* SPDX-License-Identifier: MIT */
/* What tests of the Vulkan backend open: see vk_opened.h. */
#include "vk_opened.h"

#include <errno.h>
#include <math.h>

#include "check.h"

/* has_dot: of the device, if there is one. */
static bool can_open(struct backend_params *ret, bool *has_dot)
{
    struct backend *backend;
    struct err err;
    *ret = (struct backend_params){.validate = true};
    int r = vulkan_backend.open(ret, &err, &backend);
    if (r == -ENOENT) {
        printf("NOT VALIDATED: %s\n", err.text);
        ret->validate = false;
        r = vulkan_backend.open(ret, &err, &backend);
    }
    if (r == -ENODEV) {
        printf("skipped: %s\n", err.text);
        return false;
    }
    CHECK_EQ(r, 0);
    *has_dot = backend->device->physical.has_int_dot && backend->device->physical.has_shuffle;
    vulkan_backend.close(backend);
    return true;
}

bool vk_can_open(struct backend_params *ret)
{
    bool has_dot;
    return can_open(ret, &has_dot);
}

bool vk_can_open_dot(struct backend_params *ret)
{
    bool has_dot;
    if (!can_open(ret, &has_dot)) {
        return false;
    }
    if (!has_dot) {
        printf("skipped: no integer dot products here\n");
    }
    return has_dot;
}

struct model_config vk_small_config(uint32_t vocab)
{
    return (struct model_config){
        .n_layers = 2,
        .hidden = 64,
        .ffn = 128,
        .n_heads = 2,
        .n_kv_heads = 1,
        .head_dim = 32,
        .vocab = vocab,
        .window = 16,
        .max_pos = 4096,
        .rms_eps = 1e-6f,
        .query_scale = 0.125f,
        .rope_theta_local = 10000.0f,
        .rope_theta_global = 1000000.0f,
        .rope_factor_global = 1.0f,
        .tied_head = true,
        .layer_is_global = {false, true},
    };
}

void vk_open_model(struct vk_opened *ret, const struct model *model, uint32_t max_pos)
{
    struct err err;
    enum weight_path path;
    uint32_t rewind_max;
    uint64_t kv_bytes;
    CHECK_EQ(vulkan_backend.bind(ret->backend, model, &err, &ret->bm, &path), 0);
    CHECK_EQ(vulkan_backend.state_create(ret->bm, max_pos, &err, &ret->state, &rewind_max,
                                         &kv_bytes),
             0);
}

void vk_open(struct vk_opened *ret, const struct backend_params *params, const struct model *model,
             uint32_t max_pos)
{
    struct err err;
    CHECK_EQ(vulkan_backend.open(params, &err, &ret->backend), 0);
    vk_open_model(ret, model, max_pos);
}

void vk_close(struct vk_opened *opened)
{
    vulkan_backend.state_destroy(opened->state);
    vulkan_backend.unbind(opened->bm);
    vulkan_backend.close(opened->backend);
}

double vk_distance(const float *a, const float *b, size_t n)
{
    double diff = 0, sum = 0;
    for (size_t i = 0; i < n; i++) {
        diff += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        sum += (double)b[i] * b[i];
    }
    CHECK(sum > 0);
    return sqrt(diff / sum);
}
