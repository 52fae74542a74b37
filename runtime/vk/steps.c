/* SPDX-License-Identifier: MIT */
/*
 * Decoding ahead of the host: a pass ends with the drawing of the next tokens, which writes them,
 * and their positions, to the step buffer that the next pass reads. So the same recording is
 * submitted again and again, and the host only reads what was drawn.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>

#include "vk.h"

static_assert(BACKEND_AHEAD_MAX <= SAMPLE_RING, "tokens in flight must not overwrite each other");
static_assert(sizeof(struct step_row) % 4 == 0, "a row's position must be words from the next's");

/* Every row's way of drawing; *ret_kind: of all of them. */
static int start_rows(struct backend_run *run, const struct backend_decode *from, uint32_t n,
                      struct err *err, uint32_t *ret_kind)
{
    const struct backend_model *bm = run->by->bm;
    int r = 0;
    if (!run->sampler.backend) {
        r = vk_sampler_init(bm->backend, bm->model->config.vocab, run->n_rows, err, &run->sampler);
    }
    *ret_kind = vk_sample_kind(from[0].sampling);
    for (uint32_t i = 0; i < n && r == 0; i++) {
        r = vk_sampler_start(&run->sampler, i, from[i].sampling, from[i].history, from[i].n_history,
                             from[i].step, err);
        if (vk_sample_kind(from[i].sampling) != *ret_kind) {
            *ret_kind = VK_SAMPLE_KINDS - 1;
        }
    }
    return r;
}

static struct vk_step_end end_of(struct backend_run *run, uint32_t kind, uint32_t n_rows)
{
    const struct backend_state *by = run->by;
    uint64_t step = by->step.address;
    return (struct vk_step_end){
        .sampler = &run->sampler,
        .kind = kind,
        .io =
            {
                .logits = by->kv ? by->last.device.address : by->all.device.address,
                .next_id = step + offsetof(struct step, ids),
                .next_pos = by->kv ? step + offsetof(struct step, pos)
                                   : step + offsetof(struct step, rows[0].pos),
                .pos_stride = sizeof(struct step_row) / 4,
                .n_rows = n_rows,
            },
    };
}

/* What may decode, a timeline alone or the one that runs several of a model, with its first step
 * written for the device. */
static int choose_run(struct backend_state *const *states, const struct backend_decode *from,
                      uint32_t n, struct err *err, struct backend_run **ret)
{
    int32_t ids[STEP_ROWS_MAX] = {0};
    uint32_t pos[STEP_ROWS_MAX] = {0};
    for (uint32_t i = 0; i < n && i < STEP_ROWS_MAX; i++) {
        ids[i] = from[i].id;
        pos[i] = from[i].pos;
    }
    int r = vk_check_many(states, ids, pos, n, err);
    if (r == 0 && n > 1) {
        r = vk_need_many(states[0]->bm, err);
    }
    if (r < 0) {
        return r;
    }
    struct backend_run *run = n > 1 ? &states[0]->bm->many->state->run : &states[0]->run;
    if (run->recording) {
        return err_set(err, -EBUSY, "this sequence is decoding already");
    }
    if (n > 1) {
        vk_set_rows(run->by, states, ids, pos, n);
    } else {
        r = vk_set_step(run->by, ids, 1, pos[0], err);
    }
    for (uint32_t i = 0; i < n; i++) {
        run->rows[i] = (struct vk_run_row){states[i], from[i].pos, from[i].step};
    }
    *ret = run;
    return r;
}

int vk_decode_start(struct backend_state *const *states, const struct backend_decode *from,
                    uint32_t n, struct err *err, struct backend_run **ret)
{
    struct backend_run *run;
    uint32_t kind = 0;
    int r = choose_run(states, from, n, err, &run);
    if (r == 0) {
        r = start_rows(run, from, n, err, &kind);
    }
    if (r < 0) {
        return r;
    }
    uint32_t index = vk_batch_index(n);
    struct vk_recording *recording = &run->recordings[index][kind]; /* made on first use */
    run->end = end_of(run, kind, vk_batches[index]);
    if (recording->n_cmds == 0) {
        r = vk_recording_init(run->by, vk_batches[index], n == 1 ? LOGITS_LAST : LOGITS_ALL,
                              &run->end, err, recording);
    }
    if (r < 0) {
        return r;
    }
    run->recording = recording;
    run->n = n;
    run->submitted = run->collected = 0;
    *ret = run;
    return 0;
}

int vk_decode_submit(struct backend_run *run, struct err *err)
{
    for (uint32_t i = 0; i < run->n; i++) {
        const struct vk_run_row *row = &run->rows[i];
        if (row->pos >= row->state->max_pos) {
            return err_set(err, -EINVAL, "position %u of %u: no step", row->pos,
                           row->state->max_pos);
        }
    }
    if (run->submitted - run->collected >= BACKEND_AHEAD_MAX) {
        return err_set(err, -EBUSY, "%d steps are in flight", BACKEND_AHEAD_MAX);
    }
    for (uint32_t i = 0; i < run->n; i++) {
        vk_wrote_kv(run->rows[i].state, 1, run->rows[i].pos); /* also when it fails half-way */
    }
    int r = vkc_submit(run->by->bm->backend->device, run->recording->cmds, run->recording->n_cmds,
                       err, &run->done[run->submitted % SAMPLE_RING]);
    if (r < 0) {
        return r;
    }
    run->submitted++;
    for (uint32_t i = 0; i < run->n; i++) {
        run->rows[i].pos++;
    }
    return 0;
}

int vk_decode_collect(struct backend_run *run, int32_t *ret_ids, struct err *err)
{
    const struct backend *backend = run->by->bm->backend;
    if (run->collected == run->submitted) {
        return err_set(err, -EINVAL, "no step is in flight");
    }
    int r = vkc_wait(backend->device, run->done[run->collected++ % SAMPLE_RING], err);
    r = vkc_checked(backend->instance, r, err);
    if (r == 0) {
        r = vk_layers_check(run->by, err);
    }
    for (uint32_t i = 0; i < run->n; i++) {
        uint32_t step = run->rows[i].step++;
        if (r == 0) {
            r = vk_sampler_token(&run->sampler, i, step, err, &ret_ids[i]);
        }
    }
    return r;
}

void vk_decode_stop(struct backend_run *run)
{
    struct err err;
    if (!run) {
        return;
    }
    if (run->collected != run->submitted) { /* steps are done in order */
        (void)vkc_wait(run->by->bm->backend->device, run->done[(run->submitted - 1) % SAMPLE_RING],
                       &err);
    }
    run->collected = run->submitted;
    run->recording = NULL;
}

void vk_run_finish(struct backend_run *run)
{
    vk_decode_stop(run); /* nothing in flight outlives its memory */
    for (uint32_t b = 0; b < VK_N_BATCHES; b++) {
        for (uint32_t kind = 0; kind < VK_SAMPLE_KINDS; kind++) {
            vk_recording_finish(run->by, &run->recordings[b][kind]);
        }
    }
    vk_sampler_finish(&run->sampler);
}
