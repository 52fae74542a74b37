/* SPDX-License-Identifier: MIT */
/* One operation alone, between copies from and to the host: for the conformance suite. */
#include <errno.h>
#include <string.h>

#include "vk.h"

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
    int r = vk_record_op(state, run->cmd, op, layer, vk_batches[vk_batch_index(n)], false, err);
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

int vk_op(struct backend_state *state, enum backend_op op, uint32_t layer, const int32_t *ids,
          uint32_t n, uint32_t pos, const float *in, float *out, struct err *err)
{
    struct backend *backend = state->bm->backend;
    struct op_run op_run = {0};
    layer = op == OP_EMBED || op == OP_HEAD ? 0 : layer;
    if (op == OP_HEAD && n > VK_ALL_MAX) {
        return err_set(err, -EINVAL, "logits of %u tokens: at most %d", n, VK_ALL_MAX);
    }
    int r = vk_set_step(state, op == OP_EMBED ? ids : NULL, n, pos, err);
    if (r == 0) {
        r = prepare_op(state, op, n, err, &op_run);
    }
    if (r == 0) {
        r = record_op(state, op, layer, n, err, &op_run);
    }
    if (r == 0) {
        if (op == OP_ROPE_STORE) {
            vk_wrote_kv(state, n, pos);
        }
        if (op_run.in_bytes) {
            memcpy(op_run.in.map, in, op_run.in_bytes);
        }
        r = vk_run(backend, &op_run.cmd, 1, err);
    }
    if (r == 0) {
        memcpy(out, op_run.out.map, op_run.out_bytes);
    }
    vkc_cmd_free(backend->device, op_run.cmd);
    vkc_buffer_finish(backend->device, &op_run.in);
    vkc_buffer_finish(backend->device, &op_run.out);
    return r;
}
