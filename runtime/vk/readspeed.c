/* SPDX-License-Identifier: MIT */
/* How fast the device reads the weights when it does nothing else: what decoding is measured by. */
#include <errno.h>
#include <time.h>

#include "vk.h"

#define GROUPS_PER_CU 16
#define PASS_SECONDS  0.05 /* long enough that submitting does not count */
#define ALL_SECONDS   0.3
#define REPEATS_MAX   4096

static double seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Read every chunk, so many times over. */
static void record(struct backend *backend, const struct vk_weights *weights, VkPipeline pipeline,
                   const struct vkc_buffer *sink, uint32_t repeats, VkCommandBuffer cmd)
{
    const struct vkc_physical *physical = &backend->device->physical;
    for (uint32_t repeat = 0; repeat < repeats; repeat++) {
        for (uint32_t i = 0; i < weights->n_chunks; i++) {
            struct push_read push = {
                .data = weights->chunks[i].address,
                .sink = sink->address,
                .n = (uint32_t)(weights->chunks[i].size_bytes / 16),
            };
            vkc_dispatch(backend->device, cmd, pipeline, &push, sizeof push,
                         physical->compute_units * GROUPS_PER_CU, 1, 1);
        }
    }
}

/* One submission's seconds. */
static int time_pass(struct backend *backend, const struct vk_weights *weights, VkPipeline pipeline,
                     const struct vkc_buffer *sink, uint32_t repeats, double *ret, struct err *err)
{
    VkCommandBuffer cmd;
    int r = vkc_cmd_begin(backend->device, err, &cmd);
    if (r < 0) {
        return r;
    }
    record(backend, weights, pipeline, sink, repeats, cmd);
    r = vkc_cmd_end(backend->device, cmd, err);
    double start = seconds();
    if (r == 0) {
        r = vk_run(backend, &cmd, 1, err);
    }
    *ret = seconds() - start;
    vkc_cmd_free(backend->device, cmd);
    return r;
}

static uint64_t total_bytes(const struct vk_weights *weights)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < weights->n_chunks; i++) {
        sum += weights->chunks[i].size_bytes;
    }
    return sum;
}

int vk_read_speed(struct backend_model *bm, double *ret, struct err *err)
{
    struct backend *backend = bm->backend;
    struct vkc_buffer sink;
    VkPipeline pipeline;
    uint32_t wg = backend->tuning.token_wg;
    const uint32_t spec[] = {[SPEC_WG] = wg, [SPEC_SLOTS] = wg};
    int r = vkc_pipeline_get(backend->device, SHADER_read, spec, 2, err, &pipeline);
    if (r == 0) {
        r = vkc_buffer_init(backend->device, VKC_DEVICE, 16, "read test", err, &sink);
    }
    if (r < 0) {
        return r;
    }
    double best = 0, begin = seconds();
    uint32_t repeats = 1;
    do {
        double pass = 0;
        r = time_pass(backend, &bm->weights, pipeline, &sink, repeats, &pass, err);
        double speed = (double)total_bytes(&bm->weights) * repeats / pass;
        if (pass < PASS_SECONDS && repeats < REPEATS_MAX) {
            repeats *= 2;
        } else if (speed > best) {
            best = speed;
        }
    } while (r == 0 && (best == 0 || seconds() - begin < ALL_SECONDS));
    vkc_buffer_finish(backend->device, &sink);
    *ret = best;
    return r;
}
