/* SPDX-License-Identifier: MIT */
/* How fast the device reads the weights when it does nothing else: what decoding is measured by. */
#include <errno.h>
#include <time.h>

#include "gttd_util.h"
#include "vk.h"

#define PASS_SECONDS 0.03 /* long enough that submitting does not count */
#define WAY_SECONDS  0.06
#define REPEATS_MAX  4096

/*
 * How many workgroups per compute unit read at a time, of which the fastest counts. 0: one for each
 * run, as the matrices have it; the device starts them in order, so that none gets far ahead.
 */
static const uint32_t ways[] = {0, 2, 4, 8};

struct test {
    struct backend *backend;
    const struct vk_weights *weights;
    VkPipeline pipeline;
    struct vkc_buffer sink;
    uint32_t wg;
};

static double seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void record_chunk(const struct test *test, const struct vkc_buffer *chunk, uint32_t per_cu,
                         VkCommandBuffer cmd)
{
    const struct vkc_physical *physical = &test->backend->device->physical;
    uint32_t n = (uint32_t)(chunk->size_bytes / 16), run = test->wg * READ_AT_ONCE;
    uint32_t n_runs = (n + run - 1) / run;
    uint32_t most = physical->props.limits.maxComputeWorkGroupCount[0];
    most =
        per_cu && per_cu * physical->compute_units < most ? per_cu * physical->compute_units : most;
    uint32_t groups = n_runs < most ? n_runs : most;
    struct push_read push = {
        .data = chunk->address,
        .sink = test->sink.address,
        .n = n,
        .steps = (n_runs + groups - 1) / groups,
    };
    vkc_dispatch(test->backend->device, cmd, test->pipeline, &push, sizeof push, groups, 1, 1);
}

/* Every chunk, so many times over, in one submission: its seconds. */
static int time_pass(const struct test *test, uint32_t per_cu, uint32_t repeats, double *ret,
                     struct err *err)
{
    struct backend *backend = test->backend;
    VkCommandBuffer cmd;
    int r = vkc_cmd_begin(backend->device, err, &cmd);
    if (r < 0) {
        return r;
    }
    for (uint32_t i = 0; i < repeats * test->weights->n_chunks; i++) {
        record_chunk(test, &test->weights->chunks[i % test->weights->n_chunks], per_cu, cmd);
    }
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

/* The best pass of one way, if it is better than *best. */
static int time_way(const struct test *test, uint32_t per_cu, double *best, struct err *err)
{
    double begin = seconds(), bytes = (double)total_bytes(test->weights);
    uint32_t repeats = 1;
    bool counted = false;
    int r = 0;
    while (r == 0 && (!counted || seconds() - begin < WAY_SECONDS)) {
        double pass = 0;
        r = time_pass(test, per_cu, repeats, &pass, err);
        if (pass < PASS_SECONDS && repeats < REPEATS_MAX) {
            repeats *= 2;
        } else if (r == 0) {
            *best = bytes * repeats / pass > *best ? bytes * repeats / pass : *best;
            counted = true;
        }
    }
    return r;
}

int vk_read_speed(struct backend_model *bm, double *ret, struct err *err)
{
    struct backend *backend = bm->backend;
    struct test test = {.backend = backend,
                        .weights = &bm->weights,
                        .wg = backend->tuning.token_wg};
    const uint32_t spec[] = {[SPEC_WG] = test.wg, [SPEC_SLOTS] = test.wg};
    double best = 0;
    int r = vkc_pipeline_get(backend->device, SHADER_read, spec, 2, err, &test.pipeline);
    if (r == 0) {
        r = vkc_buffer_init(backend->device, VKC_DEVICE, 16, "read test", err, &test.sink);
    }
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < ARRAY_SIZE(ways) && r == 0; i++) {
        r = time_way(&test, ways[i], &best, err);
    }
    vkc_buffer_finish(backend->device, &test.sink);
    *ret = best;
    return r;
}
