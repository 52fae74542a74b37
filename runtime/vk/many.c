/* SPDX-License-Identifier: MIT */
/*
 * One token each of several timelines in one pass. Activations, step and recordings are the model's
 * own here, made when first asked for; a recording is for so many tokens, whosever they are: the
 * step says of each where its timeline's keys and values lie (struct step_row).
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vk.h"

void vk_many_destroy(struct vk_many *many)
{
    if (!many) {
        return;
    }
    for (int b = 0; b < VK_N_BATCHES && many->state; b++) {
        for (int kind = 0; kind < VK_SAMPLE_KINDS; kind++) {
            vk_recording_finish(many->state, &many->draws[b][kind]);
        }
    }
    if (many->sampler.backend) {
        vkc_buffer_finish(many->sampler.backend->device, &many->unused);
    }
    vk_sampler_finish(&many->sampler);
    vk_state_destroy(many->state);
    free(many);
}

static int need_many(struct backend_model *bm, struct err *err)
{
    if (bm->many) {
        return 0;
    }
    struct vk_many *many = calloc(1, sizeof *many);
    if (!many) {
        return err_set(err, -ENOMEM, "no memory for several sequences");
    }
    int r = vk_attend_pipelines(bm, true, err, &many->attend);
    if (r == 0) {
        r = vk_state_create_many(bm, err, &many->state);
    }
    if (r < 0) {
        vk_many_destroy(many);
        return r;
    }
    bm->many = many;
    return 0;
}

static int check(struct backend_state *const *states, const int32_t *ids, const uint32_t *pos,
                 uint32_t n, struct err *err)
{
    static_assert(STEP_ROWS_MAX <= VK_ALL_MAX, "a batch's logits must fit");
    int r = backend_check_many(states, ids, n, STEP_ROWS_MAX,
                               n > 0 ? states[0]->bm->model->config.vocab : 0, err);
    for (uint32_t i = 0; i < n && r == 0; i++) {
        if (states[i]->bm != states[0]->bm) {
            return err_set(err, -EINVAL, "sequence %u is of another model", i);
        }
        r = vk_check_step(states[i], 1, pos[i], err);
        if (r < 0) {
            return err_prefix(err, r, "sequence %u", i);
        }
    }
    return r;
}

static void set_rows(struct backend_state *many, struct backend_state *const *states,
                     const int32_t *ids, const uint32_t *pos, uint32_t n)
{
    struct step *step = many->step.map;
    step->n = n;
    for (uint32_t i = 0; i < n; i++) {
        step->ids[i] = ids[i];
        step->rows[i] = (struct step_row){.layers = states[i]->layers.address, .pos = pos[i]};
        vk_wrote_kv(states[i], 1, pos[i]); /* also when it fails half-way */
    }
}

int vk_forward_many(struct backend_state *const *states, const int32_t *ids, const uint32_t *pos,
                    uint32_t n, float *logits, struct err *err)
{
    enum logits_want want = logits ? LOGITS_ALL : LOGITS_NONE;
    int r = check(states, ids, pos, n, err);
    if (r < 0) {
        return r;
    }
    if (n == 1) {
        return vk_forward(states[0], ids, 1, pos[0], logits ? LOGITS_LAST : want, logits, err);
    }
    struct backend_model *bm = states[0]->bm;
    r = need_many(bm, err);
    if (r < 0) {
        return r;
    }
    struct backend_state *many = bm->many->state;
    const struct vk_recording *recording;
    r = vk_record_forward(many, vk_batch_index(n), want, err, &recording);
    if (r < 0) {
        return r;
    }
    set_rows(many, states, ids, pos, n);
    r = vk_run(bm->backend, recording->cmds, recording->n_cmds, err);
    if (r == 0 && logits) {
        memcpy(logits, many->all.host.map, (size_t)n * bm->model->config.vocab * sizeof *logits);
    }
    return r;
}

static int need_sampler(struct backend_model *bm, struct err *err)
{
    struct vk_many *many = bm->many;
    if (many->sampler.backend) {
        return 0;
    }
    int r =
        vk_sampler_init(bm->backend, bm->model->config.vocab, STEP_ROWS_MAX, err, &many->sampler);
    if (r < 0) {
        return r;
    }
    r = vkc_buffer_init(bm->backend->device, VKC_SHARED, STEP_ROWS_MAX * sizeof(uint32_t),
                        "unused tokens", err, &many->unused);
    if (r < 0) {
        vk_sampler_finish(&many->sampler);
    }
    return r;
}

/* The recording of a pass of so many tokens that ends with this kind of drawing. */
static int need_draw(struct vk_many *many, uint32_t batch_index, uint32_t kind, struct err *err,
                     const struct vk_recording **ret)
{
    struct vk_recording *recording = &many->draws[batch_index][kind];
    const struct vk_step_end end = {
        .sampler = &many->sampler,
        .kind = kind,
        .io =
            {
                .logits = many->state->all.device.address,
                .next_id = many->unused.address, /* the host says what is next */
                .next_pos = many->unused.address,
                .stride = 1,
                .n_rows = vk_batches[batch_index],
            },
    };
    *ret = recording;
    return recording->n_cmds ? 0
                             : vk_recording_init(many->state, vk_batches[batch_index], LOGITS_ALL,
                                                 &end, err, recording);
}

/* Every row's way of drawing; *ret_kind: of all of them. */
static int start_rows(struct vk_many *many, const struct backend_decode *from, uint32_t n,
                      struct err *err, uint32_t *ret_kind)
{
    int r = 0;
    *ret_kind = vk_sample_kind(from[0].sampling);
    for (uint32_t i = 0; i < n && r == 0; i++) {
        r = vk_sampler_start(&many->sampler, i, from[i].sampling, from[i].history,
                             from[i].n_history, from[i].step, err);
        if (vk_sample_kind(from[i].sampling) != *ret_kind) {
            *ret_kind = VK_SAMPLE_KINDS - 1;
        }
    }
    return r;
}

static int draw_one(struct backend_state *state, const struct backend_decode *from, int32_t *ret_id,
                    struct err *err)
{
    int r = vk_decode_start(state, from, err);
    if (r == 0) {
        r = vk_decode_submit(state, err);
    }
    return r < 0 ? r : vk_decode_collect(state, ret_id, err);
}

int vk_draw_many(struct backend_state *const *states, const struct backend_decode *from, uint32_t n,
                 int32_t *ret_ids, struct err *err)
{
    int32_t ids[STEP_ROWS_MAX] = {0};
    uint32_t pos[STEP_ROWS_MAX] = {0}, kind = 0;
    const struct vk_recording *recording = NULL;
    for (uint32_t i = 0; i < n && i < STEP_ROWS_MAX; i++) {
        ids[i] = from[i].id;
        pos[i] = from[i].pos;
    }
    int r = check(states, ids, pos, n, err);
    if (r < 0) {
        return r;
    }
    if (n == 1) {
        return draw_one(states[0], from, ret_ids, err);
    }
    struct backend_model *bm = states[0]->bm;
    r = need_many(bm, err);
    if (r == 0) {
        r = need_sampler(bm, err);
    }
    if (r == 0) {
        r = start_rows(bm->many, from, n, err, &kind);
    }
    if (r == 0) {
        r = need_draw(bm->many, vk_batch_index(n), kind, err, &recording);
    }
    if (r < 0) {
        return r;
    }
    set_rows(bm->many->state, states, ids, pos, n);
    r = vk_run(bm->backend, recording->cmds, recording->n_cmds, err);
    for (uint32_t i = 0; i < n && r == 0; i++) {
        r = vk_sampler_token(&bm->many->sampler, i, from[i].step, err, &ret_ids[i]);
    }
    return r;
}
