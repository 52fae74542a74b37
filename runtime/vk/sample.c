/* SPDX-License-Identifier: MIT */
/* Drawing tokens on the device: what a row of logits is sampled with, and the dispatches of it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vk.h"

static uint32_t seen_words(const struct vk_sampler *sampler)
{
    return (sampler->vocab + 31) / 32;
}

int vk_sample_pipelines(struct backend *backend, struct err *err, struct vk_sample_pipelines *ret)
{
    const struct {
        enum shader_id shader;
        VkPipeline *ret;
    } used[] = {{SHADER_sample_top, &ret->top},
                {SHADER_sample_bins, &ret->bins},
                {SHADER_sample_draw, &ret->draw}};
    uint32_t wg = backend->tuning.sample_wg;
    uint32_t spec[] =
        {[SPEC_WG] = wg, [SPEC_SLOTS] = vkc_subgroups(&backend->device->physical, wg)};
    int r = 0;
    for (int i = 0; i < 3 && r == 0; i++) {
        r = vkc_pipeline_get(backend->device, used[i].shader, spec, 2, err, used[i].ret);
    }
    return r;
}

static int make_buffers(struct vk_sampler *sampler, struct err *err)
{
    uint64_t n_rows = sampler->n_rows;
    const struct {
        enum vkc_memory kind;
        uint64_t size_bytes;
        const char *name;
        struct vkc_buffer *ret;
    } buffers[] = {
        {VKC_SHARED, n_rows * sizeof(struct sample_row), "sampling", &sampler->rows},
        {VKC_SHARED, n_rows * WORK_WORDS * sizeof(uint32_t), "sampling work", &sampler->work},
        {VKC_SHARED, n_rows * seen_words(sampler) * sizeof(uint32_t), "seen tokens",
         &sampler->seen},
        {VKC_READBACK, n_rows * SAMPLE_RING * sizeof(uint32_t), "tokens", &sampler->ring},
    };
    for (int i = 0; i < 4; i++) {
        int r = vkc_buffer_init(sampler->backend->device, buffers[i].kind, buffers[i].size_bytes,
                                buffers[i].name, err, buffers[i].ret);
        if (r < 0) {
            return r;
        }
        memset(buffers[i].ret->map, 0, buffers[i].size_bytes);
    }
    return 0;
}

int vk_sampler_init(struct backend *backend, uint32_t vocab, uint32_t n_rows, struct err *err,
                    struct vk_sampler *ret)
{
    uint32_t slices = 2 * backend->device->physical.compute_units;
    slices = slices < SAMPLE_SLICES ? slices : SAMPLE_SLICES;
    *ret = (struct vk_sampler){
        .backend = backend,
        .vocab = vocab,
        .n_rows = n_rows,
        /* sample_draw.comp has an invocation for each */
        .slices = slices < backend->tuning.sample_wg ? slices : backend->tuning.sample_wg,
    };
    int r = vk_sample_pipelines(backend, err, &ret->pipelines);
    if (r == 0) {
        r = make_buffers(ret, err);
    }
    if (r < 0) {
        vk_sampler_finish(ret);
    }
    return r;
}

void vk_sampler_finish(struct vk_sampler *sampler)
{
    if (!sampler->backend) {
        return;
    }
    struct vkc_device *device = sampler->backend->device;
    vkc_buffer_finish(device, &sampler->rows);
    vkc_buffer_finish(device, &sampler->work);
    vkc_buffer_finish(device, &sampler->seen);
    vkc_buffer_finish(device, &sampler->adjust);
    vkc_buffer_finish(device, &sampler->ring);
    *sampler = (struct vk_sampler){0};
}

uint32_t vk_sample_kind(const struct backend_sampling *how)
{
    if (how->rate == 0) {
        return VK_SAMPLE_GREEDY;
    }
    return VK_SAMPLE_DRAW + (how->top_k ? 1 : 0) + (how->top_p < 1 ? 2 : 0);
}

/* The bitmap of the history, made here and copied: device memory is slow to read. */
static int write_seen(struct vk_sampler *sampler, uint32_t row, const int32_t *history, size_t n,
                      struct err *err)
{
    uint32_t words = seen_words(sampler), *seen = calloc(words, sizeof *seen);
    if (!seen) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t id = (uint32_t)history[i];
        if (id < sampler->vocab) {
            seen[id / 32] |= 1u << (id % 32);
        }
    }
    memcpy((uint32_t *)sampler->seen.map + (size_t)row * words, seen, words * sizeof *seen);
    free(seen);
    return 0;
}

static int write_adjust(struct vk_sampler *sampler, uint32_t row, const float *adjust,
                        struct err *err)
{
    uint64_t bytes = sampler->vocab * sizeof *adjust;
    if (!sampler->adjust.map) {
        int r = vkc_buffer_init(sampler->backend->device, VKC_SHARED, sampler->n_rows * bytes,
                                "logit bias", err, &sampler->adjust);
        if (r < 0) {
            return r;
        }
    }
    memcpy((float *)sampler->adjust.map + (size_t)row * sampler->vocab, adjust, bytes);
    return 0;
}

int vk_sampler_start(struct vk_sampler *sampler, uint32_t row, const struct backend_sampling *how,
                     const int32_t *history, size_t n, uint32_t step, struct err *err)
{
    int r = how->penalty != 1 ? write_seen(sampler, row, history, n, err) : 0;
    if (r == 0 && how->adjust) {
        r = write_adjust(sampler, row, how->adjust, err);
    }
    if (r < 0) {
        return r;
    }
    uint64_t least = (uint64_t)(how->min_p * 0x1p44f);
    uint64_t row_bytes = sampler->vocab * sizeof(float);
    ((struct sample_row *)sampler->rows.map)[row] = (struct sample_row){
        .adjust = how->adjust ? sampler->adjust.address + row * row_bytes : 0,
        .seed_low = (uint32_t)how->seed,
        .seed_high = (uint32_t)(how->seed >> 32),
        .least_low = (uint32_t)least,
        .least_high = (uint32_t)(least >> 32),
        .step = step,
        .top_k = how->top_k,
        .top_p = how->top_p < 1 ? (uint32_t)(how->top_p * 0x1p32f) : SAMPLE_ALL,
        .has_adjust = how->adjust != NULL,
        .rate = how->rate,
        .penalty = how->penalty,
        .inverse = 1 / how->penalty,
    };
    return 0;
}

/* One dispatch and the barrier before it. */
static void dispatch(const struct vk_sampler *sampler, VkCommandBuffer cmd, VkPipeline pipeline,
                     const struct push_sample *push, uint32_t n_rows, struct backend_state *marks,
                     const char *name)
{
    struct vkc_device *device = sampler->backend->device;
    vkc_barrier(device, cmd, VKC_SHADER_TO_SHADER);
    vkc_dispatch(device, cmd, pipeline, push, sizeof *push, sampler->slices, n_rows, 1);
    if (marks) {
        vk_mark(marks, cmd, name);
    }
}

void vk_record_sample(struct vk_sampler *sampler, VkCommandBuffer cmd, uint32_t kind,
                      const struct vk_sample_io *io, struct backend_state *marks)
{
    struct push_sample push = {
        .logits = io->logits,
        .rows = sampler->rows.address,
        .seen = sampler->seen.address,
        .work = sampler->work.address,
        .ring = sampler->ring.address,
        .next_id = io->next_id,
        .next_pos = io->next_pos,
        .pos_stride = io->pos_stride,
        .vocab = sampler->vocab,
        .is_last = kind == VK_SAMPLE_GREEDY,
    };
    dispatch(sampler, cmd, sampler->pipelines.top, &push, io->n_rows, marks, "sample_top");
    if (kind == VK_SAMPLE_GREEDY) {
        return;
    }
    for (uint32_t filter = 0; filter < 2; filter++) {
        bool wanted = (kind - VK_SAMPLE_DRAW) >> filter & 1;
        push.by_weight = filter;
        for (push.level = 0; wanted && push.level < 3; push.level++) {
            dispatch(sampler, cmd, sampler->pipelines.bins, &push, io->n_rows, marks,
                     "sample_bins");
        }
    }
    dispatch(sampler, cmd, sampler->pipelines.draw, &push, io->n_rows, marks, "sample_draw");
}

int vk_sampler_token(const struct vk_sampler *sampler, uint32_t row, uint32_t step, struct err *err,
                     int32_t *ret)
{
    uint32_t id = ((const uint32_t *)sampler->ring.map)[row * SAMPLE_RING + step % SAMPLE_RING];
    if (id >= sampler->vocab) {
        return err_set(err, -EDOM, "the model's logits are not numbers");
    }
    *ret = (int32_t)id;
    return 0;
}
