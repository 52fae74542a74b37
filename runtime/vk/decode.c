/* SPDX-License-Identifier: MIT */
/*
 * One token's pass in as few dependent steps as Gemma 3 allows, five per layer: QKV; attention with
 * all that leads to it; its output; gate and up with GeGLU; down. Norms and residual additions are
 * done by whoever reads them (gemv.comp's prologue). With several tokens (of a timeline each),
 * whose inputs few.comp shares between its workgroups, what quantizes a matrix's input does that:
 * four steps more. A matrix that neither can run is run as the operations of record.c are.
 */
#include "vk.h"

static uint64_t act(const struct vk_decode *d, enum vk_act act)
{
    return d->state->acts.address + d->state->act_off[act];
}

static uint64_t weight_at(const struct vk_decode *d, uint64_t off)
{
    return vk_weights_address(&d->state->bm->weights, off);
}

static void barrier(const struct vk_decode *d)
{
    vkc_barrier(d->state->bm->backend->device, d->cmd, VKC_SHADER_TO_SHADER);
}

/* x + rmsnorm(ACT_Y) * post, and its norm, are what comes next. */
static void add_later(struct vk_decode *d, uint64_t post_off, uint64_t next_off)
{
    uint64_t x = d->pending.x;
    d->pending = (struct vk_gemv_input){
        .prologue = GEMV_ADD_NORM,
        .x = x,
        .y = act(d, ACT_Y),
        .post = weight_at(d, post_off),
        .next = weight_at(d, next_off),
        .x_out = x == act(d, ACT_X) ? act(d, ACT_X_NEXT) : act(d, ACT_X),
    };
}

/* The pending norm as a dispatch of its own, to ACT_Z; x is changed in place. */
static void norm_now(struct vk_decode *d)
{
    const struct backend_model *bm = d->state->bm;
    const struct vk_gemv_input *in = &d->pending;
    if (in->prologue == GEMV_NORM) {
        struct push_rmsnorm push = {
            .x = in->x,
            .w = in->next,
            .z = act(d, ACT_Z),
            .step_p = d->state->step.address,
            .eps = bm->model->config.rms_eps,
        };
        vkc_dispatch(bm->backend->device, d->cmd, bm->rmsnorm, &push, sizeof push, d->batch, 1, 1);
    } else {
        struct push_add_norm push = {
            .x = in->x,
            .y = in->y,
            .post = in->post,
            .next = in->next,
            .z = act(d, ACT_Z),
            .step_p = d->state->step.address,
            .eps = bm->model->config.rms_eps,
        };
        vkc_dispatch(bm->backend->device, d->cmd, bm->add_norm, &push, sizeof push, d->batch, 1, 1);
    }
    vk_mark(d->state, d->cmd, "norm");
    barrier(d);
}

static bool fits(const struct vk_decode *d, const struct weight *w)
{
    const struct backend *backend = d->state->bm->backend;
    return d->batch == 1 ? vk_gemv_fits(backend, w) : vk_few_fits(backend, w, d->batch);
}

/* A matrix that reads the residual stream through its pending norm. */
static int normed_matrix(struct vk_decode *d, const struct weight *w, enum backend_op op,
                         uint32_t layer, uint64_t out, bool glu, const char *name)
{
    struct backend_state *state = d->state;
    int r;
    barrier(d);
    if (!fits(d, w)) {
        norm_now(d);
        return vk_record_op(state, d->cmd, op, layer, d->batch, d->state->kv, d->err);
    }
    if (d->batch == 1) {
        r = vk_record_gemv(state, d->cmd, w, &d->pending, out, glu, name, NULL, d->err);
    } else {
        r = vk_record_few(state, d->cmd, w, &d->pending, out, glu, d->batch, name, d->err);
    }
    if (d->pending.prologue == GEMV_ADD_NORM) {
        d->pending.x = d->pending.x_out;
    }
    return r;
}

static int attend(struct vk_decode *d, uint32_t layer)
{
    barrier(d);
    if (vk_attend_of(d->state)->attend_one) {
        vk_record_attend_one(d->state, d->cmd, layer, d->batch, false);
        return 0;
    }
    int r = vk_record_op(d->state, d->cmd, OP_ROPE_STORE, layer, d->batch, false, d->err);
    if (r == 0) {
        barrier(d);
        r = vk_record_op(d->state, d->cmd, OP_ATTENTION, layer, d->batch, false, d->err);
    }
    return r;
}

/* Gate, up and GeGLU. */
static int gate_up(struct vk_decode *d, uint32_t layer)
{
    const struct weight *w = &d->state->bm->model->layers[layer].gate_up;
    int r = normed_matrix(d, w, OP_GATE_UP, layer, act(d, ACT_H), true, "gate_up");
    if (r == 0 && !fits(d, w)) {
        barrier(d);
        r = vk_record_op(d->state, d->cmd, OP_GEGLU, layer, d->batch, false, d->err);
    }
    return r;
}

static int plain_op(struct vk_decode *d, enum backend_op op, uint32_t layer)
{
    barrier(d);
    return vk_record_op(d->state, d->cmd, op, layer, d->batch, false, d->err);
}

int vk_decode_layer(struct vk_decode *d, uint32_t layer)
{
    const struct model *model = d->state->bm->model;
    const struct model_layer *l = &model->layers[layer];
    bool is_last = layer + 1 == model->config.n_layers;
    int r = normed_matrix(d, &l->qkv, OP_QKV, layer, act(d, ACT_QKV), false, "qkv");
    if (r == 0) {
        r = attend(d, layer);
    }
    if (r == 0) {
        r = plain_op(d, OP_ATTN_OUT, layer);
    }
    if (r == 0) {
        add_later(d, l->post_attn_norm_off, l->pre_ffn_norm_off);
        r = gate_up(d, layer);
    }
    if (r == 0) {
        r = plain_op(d, OP_DOWN, layer);
    }
    if (r == 0) {
        add_later(d, l->post_ffn_norm_off,
                  is_last ? model->final_norm_off : model->layers[layer + 1].input_norm_off);
    }
    return r;
}

int vk_decode_layers(struct vk_decode *d)
{
    const struct model *model = d->state->bm->model;
    barrier(d);
    int r = vk_record_layers(d->state, d->cmd, &d->state->bm->layers, VK_LAYERS_SPINS, d->err);
    add_later(d, model->layers[model->config.n_layers - 1].post_ffn_norm_off,
              model->final_norm_off);
    return r;
}

int vk_decode_begin(struct vk_decode *d)
{
    d->pending = (struct vk_gemv_input){
        .prologue = GEMV_NORM,
        .x = act(d, ACT_X),
        .next = weight_at(d, d->state->bm->model->layers[0].input_norm_off),
    };
    return vk_record_op(d->state, d->cmd, OP_EMBED, 0, d->batch, false, d->err);
}

int vk_decode_head(struct vk_decode *d)
{
    const struct vk_logits *logits = d->state->kv ? &d->state->last : &d->state->all;
    return normed_matrix(d, &d->state->bm->model->head, OP_HEAD, 0, logits->device.address, false,
                         "head");
}
