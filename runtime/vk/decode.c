/* SPDX-License-Identifier: MIT */
/*
 * One token's pass in as few dependent steps as Gemma 3 allows, five per layer: QKV; attention with
 * all that leads to it; its output; gate and up with GeGLU; down. Norms and residual additions are
 * done by whoever reads them (gemv.comp's prologue). A matrix that gemv.comp cannot run is run as
 * the operations of record.c are.
 */
#include "vk.h"

/* A pass under way. What is to be done to the residual stream before it is read next is pending. */
struct one {
    struct backend_state *state;
    VkCommandBuffer cmd;
    struct err *err;
    struct vk_gemv_input pending; /* as a prologue: GEMV_NORM or GEMV_ADD_NORM */
};

static uint64_t act(const struct one *one, enum vk_act act)
{
    return one->state->acts.address + one->state->act_off[act];
}

static uint64_t weight_at(const struct one *one, uint64_t off)
{
    return vk_weights_address(&one->state->bm->weights, off);
}

static void barrier(const struct one *one)
{
    vkc_barrier(one->state->bm->backend->device, one->cmd, VKC_SHADER_TO_SHADER);
}

/* x + rmsnorm(ACT_Y) * post, and its norm, are what comes next. */
static void add_later(struct one *one, uint64_t post_off, uint64_t next_off)
{
    uint64_t x = one->pending.x;
    one->pending = (struct vk_gemv_input){
        .prologue = GEMV_ADD_NORM,
        .x = x,
        .y = act(one, ACT_Y),
        .post = weight_at(one, post_off),
        .next = weight_at(one, next_off),
        .x_out = x == act(one, ACT_X) ? act(one, ACT_X_NEXT) : act(one, ACT_X),
    };
}

/* The pending norm as a dispatch of its own, to ACT_Z; x is changed in place. */
static void norm_now(struct one *one)
{
    const struct backend_model *bm = one->state->bm;
    const struct vk_gemv_input *in = &one->pending;
    const struct model_config *c = &bm->model->config;
    if (in->prologue == GEMV_NORM) {
        struct push_rmsnorm push = {
            .x = in->x,
            .w = in->next,
            .z = act(one, ACT_Z),
            .step_p = one->state->step.address,
            .width = c->hidden,
            .eps = c->rms_eps,
        };
        vkc_dispatch(bm->backend->device, one->cmd, bm->rmsnorm, &push, sizeof push, 1, 1, 1);
    } else {
        struct push_add_norm push = {
            .x = in->x,
            .y = in->y,
            .post = in->post,
            .next = in->next,
            .z = act(one, ACT_Z),
            .step_p = one->state->step.address,
            .width = c->hidden,
            .eps = c->rms_eps,
        };
        vkc_dispatch(bm->backend->device, one->cmd, bm->add_norm, &push, sizeof push, 1, 1, 1);
    }
    vk_mark(one->state, one->cmd, "norm");
    barrier(one);
}

/* A matrix that reads the residual stream through its pending norm. */
static int normed_matrix(struct one *one, const struct weight *w, enum backend_op op,
                         uint32_t layer, uint64_t out, bool glu, const char *name)
{
    struct backend_state *state = one->state;
    barrier(one);
    if (!vk_gemv_fits(state->bm->backend, w)) {
        norm_now(one);
        return vk_record_op(state, one->cmd, op, layer, 1, true, one->err);
    }
    int r = vk_record_gemv(state, one->cmd, w, &one->pending, out, glu, name, NULL, one->err);
    if (one->pending.prologue == GEMV_ADD_NORM) {
        one->pending.x = one->pending.x_out;
    }
    return r;
}

static int attend(struct one *one, uint32_t layer)
{
    barrier(one);
    if (one->state->bm->attend_one) {
        vk_record_attend_one(one->state, one->cmd, layer);
        return 0;
    }
    int r = vk_record_op(one->state, one->cmd, OP_ROPE_STORE, layer, 1, false, one->err);
    if (r == 0) {
        barrier(one);
        r = vk_record_op(one->state, one->cmd, OP_ATTENTION, layer, 1, false, one->err);
    }
    return r;
}

/* Gate, up and GeGLU. */
static int gate_up(struct one *one, uint32_t layer)
{
    const struct weight *w = &one->state->bm->model->layers[layer].gate_up;
    int r = normed_matrix(one, w, OP_GATE_UP, layer, act(one, ACT_H), true, "gate_up");
    if (r == 0 && !vk_gemv_fits(one->state->bm->backend, w)) {
        barrier(one);
        r = vk_record_op(one->state, one->cmd, OP_GEGLU, layer, 1, false, one->err);
    }
    return r;
}

static int plain_op(struct one *one, enum backend_op op, uint32_t layer)
{
    barrier(one);
    return vk_record_op(one->state, one->cmd, op, layer, 1, false, one->err);
}

static int record_layer(struct one *one, uint32_t layer)
{
    const struct model *model = one->state->bm->model;
    const struct model_layer *l = &model->layers[layer];
    bool is_last = layer + 1 == model->config.n_layers;
    int r = normed_matrix(one, &l->qkv, OP_QKV, layer, act(one, ACT_QKV), false, "qkv");
    if (r == 0) {
        r = attend(one, layer);
    }
    if (r == 0) {
        r = plain_op(one, OP_ATTN_OUT, layer);
    }
    if (r == 0) {
        add_later(one, l->post_attn_norm_off, l->pre_ffn_norm_off);
        r = gate_up(one, layer);
    }
    if (r == 0) {
        r = plain_op(one, OP_DOWN, layer);
    }
    if (r == 0) {
        add_later(one, l->post_ffn_norm_off,
                  is_last ? model->final_norm_off : model->layers[layer + 1].input_norm_off);
    }
    return r;
}

int vk_record_one(struct backend_state *state, VkCommandBuffer cmd, enum logits_want want,
                  struct err *err)
{
    const struct model *model = state->bm->model;
    struct one one = {.state = state, .cmd = cmd, .err = err};
    one.pending = (struct vk_gemv_input){
        .prologue = GEMV_NORM,
        .x = act(&one, ACT_X),
        .next = weight_at(&one, model->layers[0].input_norm_off),
    };
    int r = vk_record_op(state, cmd, OP_EMBED, 0, 1, false, err);
    for (uint32_t l = 0; l < model->config.n_layers && r == 0; l++) {
        r = record_layer(&one, l);
    }
    if (r == 0 && want != LOGITS_NONE) {
        r = normed_matrix(&one, &model->head, OP_HEAD, 0, state->last.device.address, false,
                          "head");
    }
    return r;
}
