/* SPDX-License-Identifier: MIT */
/* From operations to dispatches, and from a forward pass to command buffers that are replayed. */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "vk.h"

const uint32_t vk_batches[VK_N_BATCHES] = {1, 2, 4, 8, 16, 32, VK_ALL_MAX, VK_BATCH_MAX};

/* One op's surroundings. */
struct op {
    struct backend_state *state;
    VkCommandBuffer cmd;
    uint32_t batch;
    struct err *err;
    bool in_pass; /* the op before it is, too, and the one after it */
};

static uint64_t act(const struct op *op, enum vk_act act)
{
    return op->state->acts.address + op->state->act_off[act];
}

static uint64_t weight_at(const struct op *op, uint64_t off)
{
    return vk_weights_address(&op->state->bm->weights, off);
}

static const struct model_config *config_of(const struct op *op)
{
    return &op->state->bm->model->config;
}

static void dispatch(const struct op *op, VkPipeline pipeline, const char *name, const void *push,
                     uint32_t push_bytes, uint32_t x, uint32_t y, uint32_t z)
{
    vkc_dispatch(op->state->bm->backend->device, op->cmd, pipeline, push, push_bytes, x, y, z);
    vk_mark(op->state, op->cmd, name);
}

static bool takes_gemm(const struct op *op, const struct weight *w)
{
    const struct backend *backend = op->state->bm->backend;
    return op->batch > 1 && !vk_few_fits(backend, w, op->batch) && vk_gemm_fits(backend, w);
}

/* Whether what norms or gates leaves only the half form to the matrix that reads it next. The
 * head's batch may be one token of a timeline's many. */
static bool leaves_half(const struct op *op, const struct weight *reader)
{
    bool is_one = reader == &op->state->bm->model->head && op->state->kv;
    return op->in_pass && !is_one && takes_gemm(op, reader);
}

/* One token each of other timelines has all of attention in one dispatch. */
static bool attends_at_once(const struct backend_state *state)
{
    return !state->kv && vk_attend_of(state)->attend_one;
}

/* Whether that dispatch leaves only the half form. */
static bool attends_half(const struct op *op, const struct weight *reader)
{
    return attends_at_once(op->state) && leaves_half(op, reader) &&
           config_of(op)->head_dim % 4 == 0;
}

/* Whether a GEMM leaves the adding up of its parts to the norm that comes next. */
static bool leaves_parts(const struct op *op, uint64_t y)
{
    return op->in_pass && y == act(op, ACT_Y);
}

static int record_matmul(const struct op *op, const struct weight *w, const char *name, uint64_t x,
                         uint64_t y, bool last_only)
{
    struct backend_model *bm = op->state->bm;
    const struct vk_tuning *tuning = &bm->backend->tuning;
    bool one = last_only || op->batch == 1;
    if (one && vk_gemv_fits(bm->backend, w)) {
        struct vk_gemv_input input = {.prologue = op->batch == 1 ? GEMV_PLAIN : GEMV_LAST, .x = x};
        return vk_record_gemv(op->state, op->cmd, w, &input, y, false, name, NULL, op->err);
    }
    if (!one && vk_few_fits(bm->backend, w, op->batch)) {
        struct vk_gemv_input input = {.prologue = GEMV_PLAIN, .x = x};
        return vk_record_few(op->state, op->cmd, w, &input, y, false, op->batch, name, op->err);
    }
    if (!one && takes_gemm(op, w)) {
        bool is_half = x == act(op, ACT_ATT) ? attends_half(op, w) : leaves_half(op, w);
        if (!is_half) {
            vk_record_to_half(op->state, op->cmd, x, w->cols, op->batch);
            vkc_barrier(bm->backend->device, op->cmd, VKC_SHADER_TO_SHADER);
        }
        return vk_record_gemm(op->state, op->cmd, w, NULL, y, leaves_parts(op, y), op->batch, name,
                              op->err);
    }
    uint32_t tile = one ? 1 : tuning->matmul_tile;
    VkPipeline pipeline;
    int r = vk_matmul_pipeline(bm, w, tile, op->err, &pipeline);
    if (r < 0) {
        return r;
    }
    uint64_t data = weight_at(op, w->data_off);
    struct push_matmul push = {
        .data = data,
        .scale = w->scale_off ? weight_at(op, w->scale_off) : data,
        .bias = w->bias_off ? weight_at(op, w->bias_off) : data,
        .x = x,
        .y = y,
        .step_p = op->state->step.address,
        .rows = w->rows,
        .cols = w->cols,
        .last_only = last_only,
    };
    uint32_t groups = (w->rows + tuning->matmul_rows - 1) / tuning->matmul_rows;
    uint32_t folds = (groups + 65534) / 65535;
    uint32_t tiles = one ? 1 : (op->batch + tile - 1) / tile;
    dispatch(op, pipeline, name, &push, sizeof push, (groups + folds - 1) / folds, tiles, folds);
    return 0;
}

static int record_embed(const struct op *op)
{
    struct backend_model *bm = op->state->bm;
    const struct weight *w = &bm->model->embed;
    VkPipeline pipeline;
    int r = vk_embed_pipeline(bm, op->err, &pipeline);
    if (r < 0) {
        return r;
    }
    uint64_t data = weight_at(op, w->data_off);
    struct push_embed push = {
        .data = data,
        .scale = w->scale_off ? weight_at(op, w->scale_off) : data,
        .bias = w->bias_off ? weight_at(op, w->bias_off) : data,
        .x = act(op, ACT_X),
        .step_p = op->state->step.address,
        .cols = w->cols,
        .factor = sqrtf((float)w->cols),
    };
    dispatch(op, pipeline, "embed", &push, sizeof push, op->batch, 1, 1);
    return 0;
}

static int record_attn_norm(const struct op *op, uint32_t layer)
{
    const struct backend_model *bm = op->state->bm;
    struct push_rmsnorm push = {
        .x = act(op, ACT_X),
        .w = weight_at(op, bm->model->layers[layer].input_norm_off),
        .z = act(op, ACT_Z),
        .half_ = act(op, ACT_HALF),
        .power = act(op, ACT_POWER),
        .step_p = op->state->step.address,
        .eps = config_of(op)->rms_eps,
        .as_half = leaves_half(op, &bm->model->layers[layer].qkv),
    };
    dispatch(op, bm->rmsnorm, "norm", &push, sizeof push, op->batch, 1, 1);
    return 0;
}

/* writer: the matrix that made y; reader: the one that multiplies z. */
static int record_add_norm(const struct op *op, const struct weight *writer, uint64_t post_off,
                           uint64_t next_off, const struct weight *reader)
{
    struct vk_gemm_parts parts = {0};
    if (leaves_parts(op, act(op, ACT_Y)) && takes_gemm(op, writer)) {
        parts = vk_gemm_parts(op->state, writer, act(op, ACT_Y), op->batch);
    }
    struct push_add_norm push = {
        .x = act(op, ACT_X),
        .y = act(op, ACT_Y),
        .parts = parts.address,
        .post = weight_at(op, post_off),
        .next = weight_at(op, next_off),
        .z = act(op, ACT_Z),
        .half_ = act(op, ACT_HALF),
        .power = act(op, ACT_POWER),
        .step_p = op->state->step.address,
        .eps = config_of(op)->rms_eps,
        .as_half = leaves_half(op, reader),
        .first = parts.first / 4,
        .n_rows = parts.rows / 4,
        .part_vecs = parts.floats / 4,
        .n_parts = parts.n,
    };
    dispatch(op, op->state->bm->add_norm, "norm", &push, sizeof push, op->batch, 1, 1);
    return 0;
}

const struct vk_attend_pipelines *vk_attend_of(const struct backend_state *state)
{
    return state->kv ? &state->bm->attend : &state->bm->many->attend;
}

static int record_rope_store(const struct op *op, uint32_t layer)
{
    const struct backend_model *bm = op->state->bm;
    const struct model_config *c = config_of(op);
    struct layer_kv kv = vk_layer_kv(op->state, layer);
    uint64_t table = c->layer_is_global[layer] ? c->head_dim / 2 * sizeof(uint64_t) : 0;
    struct push_rope_store push = {
        .qkv = act(op, ACT_QKV),
        .q_norm = weight_at(op, bm->model->layers[layer].q_norm_off),
        .k_norm = weight_at(op, bm->model->layers[layer].k_norm_off),
        .turns = bm->turns.address + table,
        .q = act(op, ACT_Q),
        .k = kv.k,
        .v = kv.v,
        .step_p = op->state->step.address,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .row_halfs = vk_row_halfs(c),
        .ring = kv.ring,
        .layer = layer,
        .eps = c->rms_eps,
        .query_scale = c->query_scale,
    };
    dispatch(op, vk_attend_of(op->state)->rope_store, "rope_store", &push, sizeof push,
             c->n_heads + 2 * c->n_kv_heads, op->batch, 1);
    return 0;
}

void vk_record_attend_one(struct backend_state *state, VkCommandBuffer cmd, uint32_t layer,
                          uint32_t batch, bool as_half)
{
    struct op op = {.state = state, .cmd = cmd, .batch = batch};
    const struct backend_model *bm = state->bm;
    const struct model_config *c = config_of(&op);
    struct layer_kv kv = vk_layer_kv(state, layer);
    uint64_t table = c->layer_is_global[layer] ? c->head_dim / 2 * sizeof(uint64_t) : 0;
    struct push_attend_one push = {
        .qkv = act(&op, ACT_QKV),
        .q_norm = weight_at(&op, bm->model->layers[layer].q_norm_off),
        .k_norm = weight_at(&op, bm->model->layers[layer].k_norm_off),
        .turns = bm->turns.address + table,
        .k = kv.k,
        .v = kv.v,
        .att = act(&op, ACT_ATT),
        .half_ = as_half ? act(&op, ACT_HALF) : 0,
        .power = act(&op, ACT_POWER),
        .parts = state->part_sums.address,
        .finished = state->finished.address,
        .step_p = state->step.address,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .heads_per_kv = c->n_heads / c->n_kv_heads,
        .ring = kv.ring,
        .layer = layer,
        .window = c->layer_is_global[layer] ? 0 : c->window,
        .eps = c->rms_eps,
        .query_scale = c->query_scale,
    };
    dispatch(&op, vk_attend_of(state)->attend_one, "attend_one", &push, sizeof push,
             c->n_heads / bm->attend_one_heads, vk_attend_parts(bm, batch), batch);
}

static int record_attention(const struct op *op, uint32_t layer)
{
    const struct model_config *c = config_of(op);
    if (op->batch > 1 && op->state->bm->flash && op->state->kv) {
        vk_record_flash(op->state, op->cmd, layer, op->batch);
        return 0;
    }
    struct layer_kv kv = vk_layer_kv(op->state, layer);
    struct push_attention push = {
        .q = act(op, ACT_Q),
        .k = kv.k,
        .v = kv.v,
        .att = act(op, ACT_ATT),
        .step_p = op->state->step.address,
        .heads_per_kv = c->n_heads / c->n_kv_heads,
        .head_dim = c->head_dim,
        .row_halfs = vk_row_halfs(c),
        .ring = kv.ring,
        .layer = layer,
        .window = c->layer_is_global[layer] ? 0 : c->window,
    };
    dispatch(op, vk_attend_of(op->state)->attention, "attention", &push, sizeof push, c->n_heads,
             op->batch, 1);
    return 0;
}

/* reader: the matrix that multiplies h. */
static int record_geglu(const struct op *op, const struct weight *reader)
{
    const struct backend_model *bm = op->state->bm;
    if (leaves_half(op, reader)) {
        struct push_geglu_half push = {
            .gate_up = act(op, ACT_GATE_UP),
            .half_ = act(op, ACT_HALF),
            .power = act(op, ACT_POWER),
            .step_p = op->state->step.address,
        };
        dispatch(op, bm->geglu_half, "geglu", &push, sizeof push, op->batch, 1, 1);
        return 0;
    }
    struct push_geglu push = {
        .gate_up = act(op, ACT_GATE_UP),
        .h = act(op, ACT_H),
        .step_p = op->state->step.address,
        .ffn = config_of(op)->ffn,
    };
    uint32_t wg = bm->backend->tuning.token_wg;
    dispatch(op, bm->geglu, "geglu", &push, sizeof push, (push.ffn / 4 + wg - 1) / wg, op->batch,
             1);
    return 0;
}

static int record_op(const struct op *op, enum backend_op which, uint32_t layer, bool last_only)
{
    const struct model *model = op->state->bm->model;
    const struct model_layer *l = &model->layers[layer];
    bool is_last_layer = layer + 1 == model->config.n_layers;
    switch (which) {
    case OP_EMBED:
        return record_embed(op);
    case OP_ATTN_NORM:
        return record_attn_norm(op, layer);
    case OP_QKV:
        return record_matmul(op, &l->qkv, "qkv", act(op, ACT_Z), act(op, ACT_QKV), false);
    case OP_ROPE_STORE:
        return record_rope_store(op, layer);
    case OP_ATTENTION:
        return record_attention(op, layer);
    case OP_ATTN_OUT:
        return record_matmul(op, &l->attn_out, "attn_out", act(op, ACT_ATT), act(op, ACT_Y), false);
    case OP_ATTN_ADD:
        return record_add_norm(op, &l->attn_out, l->post_attn_norm_off, l->pre_ffn_norm_off,
                               &l->gate_up);
    case OP_GATE_UP:
        return record_matmul(op, &l->gate_up, "gate_up", act(op, ACT_Z), act(op, ACT_GATE_UP),
                             false);
    case OP_GEGLU:
        return record_geglu(op, &l->down);
    case OP_DOWN:
        return record_matmul(op, &l->down, "down", act(op, ACT_H), act(op, ACT_Y), false);
    case OP_FFN_ADD:
        return record_add_norm(op, &l->down, l->post_ffn_norm_off,
                               is_last_layer ? model->final_norm_off
                                             : model->layers[layer + 1].input_norm_off,
                               is_last_layer ? &model->head : &model->layers[layer + 1].qkv);
    case OP_HEAD:
        return record_matmul(op, &model->head, "head", act(op, ACT_Z),
                             last_only ? op->state->last.device.address
                                       : op->state->all.device.address,
                             last_only);
    case OP_COUNT:
        break;
    }
    assert(!"no such operation");
    return -EINVAL;
}

int vk_record_op(struct backend_state *state, VkCommandBuffer cmd, enum backend_op which,
                 uint32_t layer, uint32_t batch, bool last_only, struct err *err)
{
    const struct op op = {.state = state, .cmd = cmd, .batch = batch, .err = err};
    return record_op(&op, which, layer, last_only);
}

/* A forward pass under way: the segment being recorded and what it holds so far. */
struct pass {
    struct backend_state *state;
    struct vk_recording *recording;
    uint32_t batch;
    double flops; /* in the last command buffer */
    struct err *err;
    const struct vk_step_end *end; /* NULL: the logits go to the host */
};

static int start_segment(struct pass *pass)
{
    struct vk_recording *recording = pass->recording;
    struct vkc_device *device = pass->state->bm->backend->device;
    VkCommandBuffer *cmd = &recording->cmds[recording->n_cmds];
    int r = pass->end ? vkc_cmd_begin_shared(device, pass->err, cmd)
                      : vkc_cmd_begin(device, pass->err, cmd);
    if (r == 0) {
        recording->n_cmds++;
        pass->flops = 0;
    }
    return r;
}

static VkCommandBuffer current(const struct pass *pass)
{
    return pass->recording->cmds[pass->recording->n_cmds - 1];
}

static int end_segment(struct pass *pass)
{
    return vkc_cmd_end(pass->state->bm->backend->device, current(pass), pass->err);
}

/* Every op reads what the one before it wrote. */
static int append(struct pass *pass, enum backend_op which, uint32_t layer, bool last_only)
{
    vkc_barrier(pass->state->bm->backend->device, current(pass), VKC_SHADER_TO_SHADER);
    const struct op op = {.state = pass->state,
                          .cmd = current(pass),
                          .batch = pass->batch,
                          .err = pass->err,
                          .in_pass = true};
    return record_op(&op, which, layer, last_only);
}

/* Other timelines' keys are as many as the model allows. */
static double layer_flops(const struct pass *pass, uint32_t layer)
{
    const struct backend_state *state = pass->state;
    const struct model_config *c = &state->bm->model->config;
    const struct model_layer *l = &state->bm->model->layers[layer];
    const struct weight *matrices[] = {&l->qkv, &l->attn_out, &l->gate_up, &l->down};
    uint32_t n_keys = c->layer_is_global[layer] ? c->max_pos : c->window;
    double flops = 4.0 * c->n_heads * c->head_dim * (state->kv ? state->kv[layer].ring : n_keys);
    for (int m = 0; m < 4; m++) {
        flops += 2.0 * matrices[m]->rows * matrices[m]->cols;
    }
    return flops * pass->batch;
}

/* A layer is about to be recorded: in a command buffer of its own if the last has enough. */
static int make_room(struct pass *pass, uint32_t layer)
{
    double flops = layer_flops(pass, layer);
    int r = 0;
    if (pass->flops > 0 && pass->flops + flops > pass->state->bm->backend->tuning.segment_flops) {
        r = end_segment(pass);
        if (r == 0) {
            r = start_segment(pass);
        }
    }
    pass->flops += flops;
    return r;
}

static void append_attend_one(struct pass *pass, uint32_t layer)
{
    const struct backend_model *bm = pass->state->bm;
    const struct op op = {.state = pass->state, .batch = pass->batch, .in_pass = true};
    bool as_half = attends_half(&op, &bm->model->layers[layer].attn_out);
    vkc_barrier(bm->backend->device, current(pass), VKC_SHADER_TO_SHADER);
    vk_record_attend_one(pass->state, current(pass), layer, pass->batch, as_half);
}

static int append_layer(struct pass *pass, uint32_t layer)
{
    int r = make_room(pass, layer);
    /* From the second layer on, the FFN_ADD before has normed already. */
    for (int which = layer == 0 ? OP_ATTN_NORM : OP_QKV; which <= OP_FFN_ADD && r == 0; which++) {
        if (which == OP_ROPE_STORE && attends_at_once(pass->state)) {
            append_attend_one(pass, layer);
            which = OP_ATTENTION;
        } else {
            r = append(pass, (enum backend_op)which, layer, false);
        }
    }
    return r;
}

/* Logits to where the CPU reads them. */
static void append_copy(struct pass *pass, enum logits_want want)
{
    struct backend_state *state = pass->state;
    struct vkc_device *device = state->bm->backend->device;
    const struct vk_logits *logits = want == LOGITS_LAST ? &state->last : &state->all;
    uint64_t rows = want == LOGITS_LAST ? 1 : pass->batch;
    vkc_barrier(device, current(pass), VKC_SHADER_TO_COPY);
    vkc_copy(device, current(pass), &logits->device, 0, &logits->host, 0,
             rows * state->bm->model->config.vocab * sizeof(float));
    vkc_barrier(device, current(pass), VKC_COPY_TO_HOST);
    vk_mark(state, current(pass), "copy logits");
}

static int append_ops(struct pass *pass, enum logits_want want)
{
    int r = vk_record_op(pass->state, current(pass), OP_EMBED, 0, pass->batch, false, pass->err);
    for (uint32_t l = 0; l < pass->state->bm->model->config.n_layers && r == 0; l++) {
        r = append_layer(pass, l);
    }
    if (r == 0 && want != LOGITS_NONE) {
        r = append(pass, OP_HEAD, 0, want == LOGITS_LAST);
    }
    return r;
}

/* A token of this timeline, or of many others. */
static int append_decode(struct pass *pass, enum logits_want want)
{
    struct vk_decode decode = {.state = pass->state,
                               .cmd = current(pass),
                               .batch = pass->batch,
                               .err = pass->err};
    const struct backend_model *bm = pass->state->bm;
    bool at_once = pass->batch == 1 && pass->state->kv && bm->layers.groups > 0;
    int r = vk_decode_begin(&decode);
    if (r == 0 && at_once) {
        r = vk_decode_layers(&decode);
    }
    for (uint32_t l = 0; l < bm->model->config.n_layers && r == 0 && !at_once; l++) {
        r = make_room(pass, l);
        decode.cmd = current(pass);
        if (r == 0) {
            r = vk_decode_layer(&decode, l);
        }
    }
    if (r == 0 && want != LOGITS_NONE) {
        r = vk_decode_head(&decode);
    }
    return r;
}

/* Whether the larger matrices of all layers are multiplied as those of a batch of one timeline:
 * then the others, too, read what that leaves them. */
static bool takes_gemms(const struct pass *pass)
{
    const struct op op = {.state = pass->state, .batch = pass->batch};
    const struct model *model = pass->state->bm->model;
    bool takes = true;
    for (uint32_t l = 0; l < model->config.n_layers; l++) {
        takes = takes && takes_gemm(&op, &model->layers[l].gate_up) &&
                takes_gemm(&op, &model->layers[l].down);
    }
    return takes;
}

static int record_pass(struct pass *pass, enum logits_want want)
{
    int r = start_segment(pass);
    if (r < 0) {
        return r;
    }
    vk_mark(pass->state, current(pass), NULL);
    /* What the pass before this one read must not be overwritten yet, and its writes be seen. */
    vkc_barrier(pass->state->bm->backend->device, current(pass), VKC_SHADER_TO_SHADER);
    bool decodes = pass->batch == 1 || (!pass->state->kv && !takes_gemms(pass));
    r = decodes ? append_decode(pass, want) : append_ops(pass, want);
    if (r < 0) {
        return r;
    }
    if (pass->end) {
        vk_record_sample(pass->end->sampler, current(pass), pass->end->kind, &pass->end->io,
                         pass->state);
        vkc_barrier(pass->state->bm->backend->device, current(pass), VKC_SHADER_TO_HOST);
    } else if (want != LOGITS_NONE) {
        append_copy(pass, want);
    }
    return end_segment(pass);
}

void vk_recording_finish(struct backend_state *state, struct vk_recording *recording)
{
    for (uint32_t i = 0; i < recording->n_cmds; i++) {
        vkc_cmd_free(state->bm->backend->device, recording->cmds[i]);
    }
    free(recording->cmds);
    *recording = (struct vk_recording){0};
}

int vk_recording_init(struct backend_state *state, uint32_t batch, enum logits_want want,
                      const struct vk_step_end *end, struct err *err, struct vk_recording *ret)
{
    struct vk_recording recording = {
        .cmds = calloc(state->bm->model->config.n_layers, sizeof *recording.cmds)};
    if (!recording.cmds) {
        return err_set(err, -ENOMEM, "no memory for command buffers");
    }
    struct pass pass = {state, &recording, batch, 0, err, end};
    int r = record_pass(&pass, want);
    if (r < 0) {
        vk_recording_finish(state, &recording);
        return r;
    }
    start_done(state->bm->backend->start, START_RECORDED);
    *ret = recording;
    return 0;
}

int vk_record_forward(struct backend_state *state, uint32_t batch_index, enum logits_want want,
                      struct err *err, const struct vk_recording **ret)
{
    struct vk_recording *slot = &state->recordings[batch_index][want];
    if (slot->n_cmds > 0) {
        *ret = slot;
        return 0;
    }
    if (want == LOGITS_ALL) {
        int r = vk_state_need_all(state, err);
        if (r < 0) {
            return r;
        }
    }
    int r = vk_recording_init(state, vk_batches[batch_index], want, NULL, err, slot);
    if (r == 0) {
        *ret = slot;
    }
    return r;
}
