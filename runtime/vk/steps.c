/* SPDX-License-Identifier: MIT */
/*
 * Decoding ahead of the host: a token's pass ends with the drawing of the next one, which writes
 * it, and its position, to the step buffer that the next pass reads. So the same recording is
 * submitted again and again, and the host only reads what was drawn.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>

#include "vk.h"

static_assert(BACKEND_AHEAD_MAX <= SAMPLE_RING, "tokens in flight must not overwrite each other");

int vk_step_begin(struct backend_state *state, const struct backend_decode *from, struct err *err,
                  struct vk_step_end *ret)
{
    struct vk_steps *steps = &state->steps;
    const struct backend_model *bm = state->bm;
    int r = vk_set_step(state, &from->id, 1, from->pos, err);
    if (r == 0 && !steps->sampler.backend) {
        r = vk_sampler_init(bm->backend, bm->model->config.vocab, 1, err, &steps->sampler);
    }
    if (r == 0) {
        r = vk_sampler_start(&steps->sampler, 0, from->sampling, from->history, from->n_history,
                             from->step, err);
    }
    if (r < 0) {
        return r;
    }
    *ret = (struct vk_step_end){
        .sampler = &steps->sampler,
        .kind = vk_sample_kind(from->sampling),
        .io =
            {
                .logits = state->last.device.address,
                .next_id = state->step.address + offsetof(struct step, ids),
                .next_pos = state->step.address + offsetof(struct step, pos),
                .n_rows = 1,
            },
    };
    return 0;
}

int vk_decode_start(struct backend_state *state, const struct backend_decode *from, struct err *err)
{
    struct vk_steps *steps = &state->steps;
    struct vk_step_end end;
    if (steps->collected != steps->submitted) {
        return err_set(err, -EBUSY, "steps are in flight");
    }
    steps->recording = NULL;
    int r = vk_step_begin(state, from, err, &end);
    if (r < 0) {
        return r;
    }
    struct vk_recording *recording = &steps->recordings[end.kind]; /* made on first use */
    if (recording->n_cmds == 0) {
        r = vk_recording_init(state, 1, LOGITS_LAST, &end, err, recording);
    }
    if (r < 0) {
        return r;
    }
    steps->recording = recording;
    steps->pos = from->pos;
    steps->submitted = steps->collected = from->step;
    return 0;
}

int vk_decode_submit(struct backend_state *state, struct err *err)
{
    struct vk_steps *steps = &state->steps;
    if (!steps->recording || steps->pos >= state->max_pos) {
        return err_set(err, -EINVAL, "position %u of %u: no step", steps->pos, state->max_pos);
    }
    if (steps->submitted - steps->collected >= BACKEND_AHEAD_MAX) {
        return err_set(err, -EBUSY, "%d steps are in flight", BACKEND_AHEAD_MAX);
    }
    vk_wrote_kv(state, 1, steps->pos); /* also when it fails half-way */
    int r = vkc_submit(state->bm->backend->device, steps->recording->cmds, steps->recording->n_cmds,
                       err, &steps->done[steps->submitted % SAMPLE_RING]);
    if (r == 0) {
        steps->submitted++;
        steps->pos++;
    }
    return r;
}

int vk_decode_collect(struct backend_state *state, int32_t *ret_id, struct err *err)
{
    struct vk_steps *steps = &state->steps;
    if (steps->collected == steps->submitted) {
        return err_set(err, -EINVAL, "no step is in flight");
    }
    uint32_t step = steps->collected++;
    int r = vkc_wait(state->bm->backend->device, steps->done[step % SAMPLE_RING], err);
    r = vkc_checked(state->bm->backend->instance, r, err);
    if (r == 0) {
        r = vk_layers_check(state, err);
    }
    return r < 0 ? r : vk_sampler_token(&steps->sampler, 0, step, err, ret_id);
}

void vk_steps_finish(struct backend_state *state)
{
    struct vk_steps *steps = &state->steps;
    struct err err;
    int32_t id;
    while (steps->collected != steps->submitted) {
        (void)vk_decode_collect(state, &id, &err); /* nothing in flight outlives its memory */
    }
    for (uint32_t kind = 0; kind < VK_SAMPLE_KINDS; kind++) {
        vk_recording_finish(state, &steps->recordings[kind]);
    }
    vk_sampler_finish(&steps->sampler);
}
