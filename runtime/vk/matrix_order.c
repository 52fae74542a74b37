/* SPDX-License-Identifier: MIT */
/* Which elements of a cooperative matrix an invocation holds: the way that gemm_direct.comp can do
 * with, in any order of its pairs, or another. */
#include "vk.h"

enum { LANES = 32, ELEMENTS = 8, COLS = 16 };

/* Invocation i is to have, in rows i / 4 and 8 further down, elements 2 * (i % 4) and the next, and
 * those 8 further on. */
static uint32_t order_of(const uint32_t found[LANES * ELEMENTS])
{
    uint32_t order = 0;
    for (uint32_t pair = 0; pair < ELEMENTS / 2; pair++) {
        uint32_t lower = found[2 * pair] / COLS >= 8, odd = found[2 * pair] % COLS >= 8;
        order |= (lower * ORDER_LOWER + odd * ORDER_ODD) << 2 * pair;
        for (uint32_t i = 0; i < LANES; i++) {
            const uint32_t *has = found + i * ELEMENTS + 2 * pair;
            uint32_t want = (i / 4 + 8 * lower) * COLS + 2 * (i % 4) + 8 * odd;
            if (has[0] != want || has[1] != want + 1) {
                return VK_ORDER_NONE;
            }
        }
    }
    return order;
}

/* All four pairs are there. */
static bool is_whole(uint32_t order)
{
    uint32_t seen = 0;
    for (uint32_t pair = 0; pair < ELEMENTS / 2; pair++) {
        seen |= 1u << (order >> 2 * pair & 3);
    }
    return order < VK_ORDER_NONE && seen == 0xf;
}

static int ask(struct backend *backend, const struct vkc_buffer *out, struct err *err)
{
    struct vkc_device *device = backend->device;
    const uint32_t spec[] = {[SPEC_WG] = LANES, [SPEC_SLOTS] = 1};
    struct push_matrix_order push = {.out_ = out->address};
    VkPipeline pipeline;
    VkCommandBuffer cmd;
    int r = vkc_pipeline_get(device, SHADER_matrix_order, spec, 2, err, &pipeline);
    if (r == 0) {
        r = vkc_cmd_begin(device, err, &cmd);
    }
    if (r < 0) {
        return r;
    }
    vkc_dispatch(device, cmd, pipeline, &push, sizeof push, 1, 1, 1);
    vkc_barrier(device, cmd, VKC_SHADER_TO_HOST);
    r = vkc_cmd_end(device, cmd, err);
    if (r == 0) {
        r = vk_run(backend, &cmd, 1, err);
    }
    vkc_cmd_free(device, cmd);
    return r;
}

int vk_matrix_order(struct backend *backend, struct err *err)
{
    const struct vkc_physical *physical = &backend->device->physical;
    struct vkc_buffer out;
    backend->matrix_order = VK_ORDER_NONE;
    if (!vk_gemm_possible(backend) || physical->subgroup_size != LANES ||
        physical->coopmat.m != 16 || physical->coopmat.n != 16 || physical->coopmat.k != 16) {
        return 0;
    }
    int r = vkc_buffer_init(backend->device, VKC_READBACK, LANES * ELEMENTS * sizeof(uint32_t),
                            "matrix order", err, &out);
    if (r < 0) {
        return r;
    }
    struct err why;
    r = ask(backend, &out, &why);
    if (r < 0) { /* a device that is lost says so again */
        vkc_log(backend->instance, "elements of a matrix: %s: no direct weights", why.text);
        r = 0;
    } else {
        uint32_t order = order_of(out.map);
        backend->matrix_order = is_whole(order) ? order : VK_ORDER_NONE;
        if (!is_whole(order)) {
            const uint32_t *found = out.map;
            vkc_log(backend->instance,
                    "elements of a matrix: %u %u %u %u %u %u %u %u, then %u %u: no direct weights",
                    found[0], found[1], found[2], found[3], found[4], found[5], found[6], found[7],
                    found[8], found[9]);
        }
    }
    vkc_buffer_finish(backend->device, &out);
    return r;
}
