/* SPDX-License-Identifier: MIT */
/* The Vulkan backend: opening a device, running forward passes and single operations on it. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
            .segment_flops = 100e9,
        };
    }
    return (struct vk_tuning){
        .matmul_wg = lanes > 32 ? lanes : 32,
        .matmul_rows = 4,
        .matmul_tile = 8,
        .token_wg = at_most(256, physical->props.limits.maxComputeWorkGroupInvocations),
        .head_wg = 64,
        .segment_flops = 100e9,
    };
}

static int open_device(struct backend *backend, const struct backend_params *params,
                       struct err *err)
{
    struct vkc_physical *list = NULL;
    uint32_t n = 0, index;
    int r = vkc_physical_list(backend->instance, err, &list, &n);
    if (r < 0) {
        return r;
    }
    r = vkc_physical_choose(list, n, params->device, err, &index);
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
    struct vkc_params vkc = {params->validate, params->log, params->log_data};
    int r = vkc_instance_create(&vkc, err, &backend->instance);
    if (r < 0) {
        goto fail;
    }
    r = open_device(backend, params, err);
    if (r < 0) {
        goto fail;
    }
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
    *ret = (struct backend_info){.backend = "vulkan", .max_batch = VK_BATCH_MAX};
    snprintf(ret->device, sizeof ret->device, "%s", backend->device->physical.props.deviceName);
}

static uint32_t batch_index(uint32_t n)
{
    uint32_t i = 0;
    while (vk_batches[i] < n) {
        i++;
    }
    return i;
}

/*
 * Local layers keep the last ring positions. What a token at pos sees must not have been
 * overwritten by later tokens of a timeline that was then rewound.
 */
static int check_step(const struct backend_state *state, uint32_t n, uint32_t pos, struct err *err)
{
    const struct model_config *c = &state->bm->model->config;
    if (n == 0 || n > VK_BATCH_MAX || pos > state->max_pos || n > state->max_pos - pos) {
        return err_set(err, -EINVAL,
                       "%u tokens at position %u: a batch is 1 to %d, of %u positions", n, pos,
                       VK_BATCH_MAX, state->max_pos);
    }
    uint32_t oldest = pos + 1 > c->window ? pos + 1 - c->window : 0;
    if (pos > 0 && oldest < state->ring_start) {
        return err_set(err, -EINVAL, "position %u needs keys from %u on, but they start at %u", pos,
                       oldest, state->ring_start);
    }
    return 0;
}

static void wrote_kv(struct backend_state *state, uint32_t n, uint32_t pos)
{
    if (pos == 0) {
        state->ring_start = 0;
    }
    for (uint32_t l = 0; l < state->bm->model->config.n_layers; l++) {
        uint32_t ring = state->kv[l].ring;
        if (pos + n > ring && pos + n - ring > state->ring_start) {
            state->ring_start = pos + n - ring; /* only local layers' rings are this short */
        }
    }
}

static int set_step(struct backend_state *state, const int32_t *ids, uint32_t n, uint32_t pos,
                    struct err *err)
{
    static_assert(VK_BATCH_MAX <= STEP_IDS_MAX, "a batch's ids must fit the step buffer");
    int r = check_step(state, n, pos, err);
    if (r < 0) {
        return r;
    }
    struct step step = {.pos = pos, .n = n};
    for (uint32_t i = 0; ids && i < n; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= state->bm->model->embed.rows) {
            return err_set(err, -EINVAL, "token id %d is outside the vocabulary", ids[i]);
        }
        step.ids[i] = ids[i];
    }
    memcpy(state->step.map, &step, sizeof step);
    return 0;
}

static int run(struct backend *backend, const VkCommandBuffer *cmds, uint32_t n, struct err *err)
{
    uint64_t done;
    int r = vkc_submit(backend->device, cmds, n, err, &done);
    if (r == 0) {
        r = vkc_wait(backend->device, done, err);
    }
    return vkc_checked(backend->instance, r, err);
}

static int vk_forward(struct backend_state *state, const int32_t *ids, uint32_t n, uint32_t pos,
                      enum logits_want want, float *logits, struct err *err)
{
    if (n == 1 && want == LOGITS_ALL) {
        want = LOGITS_LAST;
    }
    int r = set_step(state, ids, n, pos, err);
    if (r < 0) {
        return r;
    }
    const struct vk_recording *recording;
    r = vk_record_forward(state, batch_index(n), want, err, &recording);
    if (r < 0) {
        return r;
    }
    r = run(state->bm->backend, recording->cmds, recording->n_cmds, err);
    if (r < 0) {
        return r;
    }
    wrote_kv(state, n, pos);
    uint64_t row_bytes = state->bm->model->config.vocab * sizeof(float);
    if (want == LOGITS_LAST) {
        memcpy(logits, state->last.host.map, row_bytes);
    } else if (want == LOGITS_ALL) {
        memcpy(logits, state->all.host.map, n * row_bytes);
    }
    return 0;
}

/* Where an operation's input and output live; ACT_COUNT: nowhere among the activations. */
static const struct {
    enum vk_act in[2], out[2];
} op_io[OP_COUNT] = {
    [OP_EMBED] = {{ACT_COUNT, ACT_COUNT}, {ACT_X, ACT_COUNT}},
    [OP_ATTN_NORM] = {{ACT_X, ACT_COUNT}, {ACT_Z, ACT_COUNT}},
    [OP_QKV] = {{ACT_Z, ACT_COUNT}, {ACT_QKV, ACT_COUNT}},
    [OP_ROPE_STORE] = {{ACT_QKV, ACT_COUNT}, {ACT_Q, ACT_COUNT}},
    [OP_ATTENTION] = {{ACT_Q, ACT_COUNT}, {ACT_ATT, ACT_COUNT}},
    [OP_ATTN_OUT] = {{ACT_ATT, ACT_COUNT}, {ACT_Y, ACT_COUNT}},
    [OP_ATTN_ADD] = {{ACT_X, ACT_Y}, {ACT_X, ACT_Z}},
    [OP_GATE_UP] = {{ACT_Z, ACT_COUNT}, {ACT_GATE_UP, ACT_COUNT}},
    [OP_GEGLU] = {{ACT_GATE_UP, ACT_COUNT}, {ACT_H, ACT_COUNT}},
    [OP_DOWN] = {{ACT_H, ACT_COUNT}, {ACT_Y, ACT_COUNT}},
    [OP_FFN_ADD] = {{ACT_X, ACT_Y}, {ACT_X, ACT_Z}},
    [OP_HEAD] = {{ACT_Z, ACT_COUNT}, {ACT_COUNT, ACT_COUNT}}, /* out: state->all */
};

/* Record the copies between a host buffer and an operation's activations; the bytes copied. */
static uint64_t copy_acts(struct backend_state *state, VkCommandBuffer cmd,
                          const enum vk_act acts[2], uint32_t n, const struct vkc_buffer *host,
                          bool to_device)
{
    struct vkc_device *device = state->bm->backend->device;
    uint64_t total = 0;
    for (int i = 0; i < 2 && acts[i] != ACT_COUNT; i++) {
        uint64_t bytes =
            (uint64_t)n * vk_act_width(&state->bm->model->config, acts[i]) * sizeof(float);
        if (cmd && to_device) {
            vkc_copy(device, cmd, host, total, &state->acts, state->act_off[acts[i]], bytes);
        } else if (cmd) {
            vkc_copy(device, cmd, &state->acts, state->act_off[acts[i]], host, total, bytes);
        }
        total += bytes;
    }
    return total;
}

/* The host buffers and the command buffer of one vk_op(). */
struct op_run {
    struct vkc_buffer in, out;
    VkCommandBuffer cmd;
    uint64_t in_bytes, out_bytes;
};

static int prepare_op(struct backend_state *state, enum backend_op op, uint32_t n, struct err *err,
                      struct op_run *run)
{
    struct vkc_device *device = state->bm->backend->device;
    run->in_bytes = copy_acts(state, NULL, op_io[op].in, n, NULL, true);
    run->out_bytes = copy_acts(state, NULL, op_io[op].out, n, NULL, false);
    int r = 0;
    if (op == OP_HEAD) {
        run->out_bytes = (uint64_t)n * state->bm->model->config.vocab * sizeof(float);
        r = vk_state_need_all(state, err);
    }
    if (r == 0 && run->in_bytes) {
        r = vkc_buffer_init(device, VKC_UPLOAD, run->in_bytes, "operation in", err, &run->in);
    }
    if (r == 0) {
        r = vkc_buffer_init(device, VKC_READBACK, run->out_bytes, "operation out", err, &run->out);
    }
    if (r == 0) {
        r = vkc_cmd_begin(device, err, &run->cmd);
    }
    return r;
}

static int record_op(struct backend_state *state, enum backend_op op, uint32_t layer, uint32_t n,
                     struct err *err, struct op_run *run)
{
    struct vkc_device *device = state->bm->backend->device;
    copy_acts(state, run->cmd, op_io[op].in, n, &run->in, true);
    vkc_barrier(device, run->cmd, VKC_COPY_TO_SHADER);
    int r = vk_record_op(state, run->cmd, op, layer, vk_batches[batch_index(n)], false, err);
    if (r < 0) {
        return r;
    }
    vkc_barrier(device, run->cmd, VKC_SHADER_TO_COPY);
    if (op == OP_HEAD) {
        vkc_copy(device, run->cmd, &state->all.device, 0, &run->out, 0, run->out_bytes);
    } else {
        copy_acts(state, run->cmd, op_io[op].out, n, &run->out, false);
    }
    vkc_barrier(device, run->cmd, VKC_COPY_TO_HOST);
    return vkc_cmd_end(device, run->cmd, err);
}

static int vk_op(struct backend_state *state, enum backend_op op, uint32_t layer,
                 const int32_t *ids, uint32_t n, uint32_t pos, const float *in, float *out,
                 struct err *err)
{
    struct backend *backend = state->bm->backend;
    struct op_run op_run = {0};
    layer = op == OP_EMBED || op == OP_HEAD ? 0 : layer;
    int r = set_step(state, op == OP_EMBED ? ids : NULL, n, pos, err);
    if (r == 0) {
        r = prepare_op(state, op, n, err, &op_run);
    }
    if (r == 0) {
        r = record_op(state, op, layer, n, err, &op_run);
    }
    if (r == 0) {
        if (op_run.in_bytes) {
            memcpy(op_run.in.map, in, op_run.in_bytes);
        }
        r = run(backend, &op_run.cmd, 1, err);
    }
    if (r == 0) {
        memcpy(out, op_run.out.map, op_run.out_bytes);
        if (op == OP_ROPE_STORE) {
            wrote_kv(state, n, pos);
        }
    }
    vkc_cmd_free(backend->device, op_run.cmd);
    vkc_buffer_finish(backend->device, &op_run.in);
    vkc_buffer_finish(backend->device, &op_run.out);
    return r;
}

const struct backend_ops vulkan_backend = {
    .name = "vulkan",
    .open = vk_open,
    .close = vk_close,
    .info = vk_info,
    .bind = vk_bind,
    .unbind = vk_unbind,
    .state_create = vk_state_create,
    .state_destroy = vk_state_destroy,
    .forward = vk_forward,
    .op = vk_op,
};
