/* SPDX-License-Identifier: MIT */
/*
 * One token each of several timelines in one pass. Activations, step and recordings are the model's
 * own here, made when first asked for; a recording is for so many tokens, whosever they are: the
 * step says of each where its timeline's keys and values lie (struct step_row). steps.c has them
 * decode ahead of the host.
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
    vk_state_destroy(many->state);
    free(many);
}

int vk_need_many(struct backend_model *bm, struct err *err)
{
    if (bm->many) {
        return bm->many->state->run.recording
                   ? err_set(err, -EBUSY, "other sequences of this model are decoding together")
                   : 0;
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

int vk_check_many(struct backend_state *const *states, const int32_t *ids, const uint32_t *pos,
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

void vk_set_rows(struct backend_state *many, struct backend_state *const *states,
                 const int32_t *ids, const uint32_t *pos, uint32_t n)
{
    struct step *step = many->step.map;
    step->n = n;
    for (uint32_t i = 0; i < n; i++) {
        step->ids[i] = ids[i];
        step->rows[i] = (struct step_row){.layers = states[i]->layers.address, .pos = pos[i]};
    }
}

int vk_forward_many(struct backend_state *const *states, const int32_t *ids, const uint32_t *pos,
                    uint32_t n, float *logits, struct err *err)
{
    enum logits_want want = logits ? LOGITS_ALL : LOGITS_NONE;
    int r = vk_check_many(states, ids, pos, n, err);
    if (r < 0) {
        return r;
    }
    if (n == 1) {
        return vk_forward(states[0], ids, 1, pos[0], logits ? LOGITS_LAST : want, logits, err);
    }
    struct backend_model *bm = states[0]->bm;
    r = vk_need_many(bm, err);
    if (r < 0) {
        return r;
    }
    struct backend_state *many = bm->many->state;
    const struct vk_recording *recording;
    r = vk_record_forward(many, vk_batch_index(n), want, err, &recording);
    if (r < 0) {
        return r;
    }
    vk_set_rows(many, states, ids, pos, n);
    for (uint32_t i = 0; i < n; i++) {
        vk_wrote_kv(states[i], 1, pos[i]); /* also when it fails half-way */
    }
    r = vk_run(bm->backend, recording->cmds, recording->n_cmds, err);
    if (r == 0 && logits) {
        memcpy(logits, many->all.host.map, (size_t)n * bm->model->config.vocab * sizeof *logits);
    }
    return r;
}
