/* SPDX-License-Identifier: MIT */
/* Running a forward pass: the step is checked and written, a recording submitted and awaited. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "vk.h"

uint32_t vk_batch_index(uint32_t n)
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
int vk_check_step(const struct backend_state *state, uint32_t n, uint32_t pos, struct err *err)
{
    const struct model_config *c = &state->bm->model->config;
    const uint32_t batch_max = state->bm->backend->tuning.batch_max;
    if (n == 0 || n > batch_max || pos > state->max_pos || n > state->max_pos - pos) {
        return err_set(err, -EINVAL,
                       "%u tokens at position %u: a batch is 1 to %u, of %u positions", n, pos,
                       batch_max, state->max_pos);
    }
    uint32_t oldest = pos + 1 > c->window ? pos + 1 - c->window : 0;
    if (pos > 0 && oldest < state->ring_start) {
        return err_set(err, -EINVAL, "position %u needs keys from %u on, but they start at %u", pos,
                       oldest, state->ring_start);
    }
    return 0;
}

void vk_wrote_kv(struct backend_state *state, uint32_t n, uint32_t pos)
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

int vk_set_step(struct backend_state *state, const int32_t *ids, uint32_t n, uint32_t pos,
                struct err *err)
{
    static_assert(VK_BATCH_MAX <= STEP_IDS_MAX, "a batch's ids must fit the step buffer");
    int r = vk_check_step(state, n, pos, err);
    if (r < 0) {
        return r;
    }
    struct step *step = state->step.map;
    for (uint32_t i = 0; ids && i < n; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= state->bm->model->embed.rows) {
            return err_set(err, -EINVAL, "token id %d is outside the vocabulary", ids[i]);
        }
        step->ids[i] = ids[i];
    }
    step->pos = pos;
    step->n = n;
    return 0;
}

int vk_run(struct backend *backend, const VkCommandBuffer *cmds, uint32_t n, struct err *err)
{
    uint64_t done;
    int r = vkc_submit(backend->device, cmds, n, err, &done);
    if (r == 0) {
        r = vkc_wait(backend->device, done, err);
    }
    return vkc_checked(backend->instance, r, err);
}

static int forward(struct backend_state *state, const int32_t *ids, uint32_t n, uint32_t pos,
                   enum logits_want want, float *logits, struct err *err)
{
    if (n == 1 && want == LOGITS_ALL) {
        want = LOGITS_LAST;
    }
    int r = vk_set_step(state, ids, n, pos, err);
    if (r < 0) {
        return r;
    }
    const struct vk_recording *recording;
    r = vk_record_forward(state, vk_batch_index(n), want, err, &recording);
    if (r < 0) {
        return r;
    }
    vk_wrote_kv(state, n, pos); /* also when it fails half-way */
    r = vk_run(state->bm->backend, recording->cmds, recording->n_cmds, err);
    if (r == 0) {
        r = vk_layers_check(state, err);
    }
    if (r < 0) {
        return r;
    }
    uint64_t row_bytes = state->bm->model->config.vocab * sizeof(float);
    if (want == LOGITS_LAST) {
        memcpy(logits, state->last.host.map, row_bytes);
    } else if (want == LOGITS_ALL) {
        memcpy(logits, state->all.host.map, n * row_bytes);
    }
    return 0;
}

int vk_forward(struct backend_state *state, const int32_t *ids, uint32_t n, uint32_t pos,
               enum logits_want want, float *logits, struct err *err)
{
    if (want != LOGITS_ALL) {
        return forward(state, ids, n, pos, want, logits, err);
    }
    int r = n > 0 ? 0 : err_set(err, -EINVAL, "no tokens");
    for (uint32_t done = 0; r == 0 && done < n;) {
        uint32_t part = n - done < VK_ALL_MAX ? n - done : VK_ALL_MAX;
        r = forward(state, ids + done, part, pos + done, want, logits, err);
        logits += (size_t)part * state->bm->model->config.vocab;
        done += part;
    }
    return r;
}
