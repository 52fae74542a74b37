/* SPDX-License-Identifier: MIT */
/*
 * Sessions that decode: steps in flight where the backend draws tokens itself, logits and samplers
 * here where it does not.
 */
#include "engine.h"
#include "sampler.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static_assert(LLM_AHEAD_MAX <= BACKEND_AHEAD_MAX, "a backend must bear what callers may ask for");

struct llm_decoder {
    const struct llm_engine *engine;
    uint32_t n;
    struct llm_session *sessions[LLM_MAX_SEQUENCES];
    struct sampler *samplers[LLM_MAX_SEQUENCES];
    int32_t ids[LLM_MAX_SEQUENCES];    /* what the next step to be collected runs */
    struct backend_run *run;           /* NULL: tokens are drawn here */
    uint32_t n_in_flight;              /* steps: they run the tokens from each session's pos on */
    bool has_failed;                   /* what the caches hold is unknown */
    uint32_t steps[LLM_MAX_SEQUENCES]; /* of the tokens that are told next */
    float *logits;                     /* [n, vocab]; NULL: tokens are drawn on the device */
};

static void decoder_free(struct llm_decoder *d)
{
    for (uint32_t i = 0; i < d->n; i++) {
        sampler_destroy(d->samplers[i]);
    }
    free(d->logits);
    free(d);
}

static int start_on_device(struct llm_decoder *d, struct backend_state *const *states,
                           struct err *err)
{
    struct backend_sampling sampling[LLM_MAX_SEQUENCES];
    struct backend_decode from[LLM_MAX_SEQUENCES];
    for (uint32_t i = 0; i < d->n; i++) {
        struct llm_session *session = d->sessions[i];
        sampler_describe(d->samplers[i], &sampling[i]);
        session->ids[session->pos] = d->ids[i];
        from[i] = (struct backend_decode){
            .id = d->ids[i],
            .pos = session->pos,
            .sampling = &sampling[i],
            .history = session->ids,
            .n_history = session->pos + 1,
            .step = d->steps[i],
        };
    }
    return d->engine->ops->decode_start(states, from, d->n, err, &d->run);
}

static int start_here(struct llm_decoder *d, struct backend_state *const *states, struct err *err)
{
    uint32_t vocab = d->engine->model.config.vocab;
    d->logits = malloc((size_t)d->n * vocab * sizeof *d->logits);
    if (!d->logits) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    return backend_check_many(states, d->ids, d->n, LLM_MAX_SEQUENCES, vocab, err);
}

int llm_decoder_start(struct llm_session *const *sessions, const int32_t *ids, uint32_t n,
                      const struct llm_sampling *how, const uint32_t *steps, struct err *err,
                      struct llm_decoder **ret)
{
    struct backend_state *states[LLM_MAX_SEQUENCES];
    int r = sessions_check(sessions, n, err, states);
    if (r < 0) {
        return r;
    }
    struct llm_decoder *d = calloc(1, sizeof *d);
    if (!d) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    d->engine = sessions[0]->engine;
    for (uint32_t i = 0; i < n && r == 0; i++) {
        r = sampler_create(d->engine->model.config.vocab, &how[i], err, &d->samplers[i]);
        d->n += r == 0;
    }
    if (r == 0) {
        memcpy(d->sessions, sessions, n * sizeof *sessions);
        memcpy(d->ids, ids, n * sizeof *ids);
        memcpy(d->steps, steps, n * sizeof *steps);
        r = d->engine->ops->decode_start ? start_on_device(d, states, err)
                                         : start_here(d, states, err);
    }
    if (r < 0) {
        decoder_free(d);
        return r;
    }
    for (uint32_t i = 0; i < n; i++) {
        sessions[i]->is_decoding = true;
    }
    *ret = d;
    return 0;
}

/* The oldest step is part of the timelines; ids: what comes next. */
static void take_step(struct llm_decoder *d, const int32_t *ids)
{
    for (uint32_t i = 0; i < d->n; i++) {
        struct llm_session *session = d->sessions[i];
        session->ids[session->pos++] = d->ids[i];
        session->high = session->pos > session->high ? session->pos : session->high;
        d->ids[i] = ids[i];
        d->steps[i]++;
    }
}

static int submit_step(struct llm_decoder *d, struct err *err)
{
    int r = d->engine->ops->decode_submit(d->run, err);
    if (r < 0) {
        return r;
    }
    d->n_in_flight++;
    for (uint32_t i = 0; i < d->n; i++) {
        struct llm_session *session = d->sessions[i];
        uint32_t end = session->pos + d->n_in_flight;
        session->high = end > session->high ? end : session->high;
    }
    return 0;
}

/* How many steps the fullest context bears; *ret_full: which that is. */
static uint32_t room_of(const struct llm_decoder *d, uint32_t *ret_full)
{
    uint32_t room = UINT32_MAX;
    for (uint32_t i = 0; i < d->n; i++) {
        uint32_t here = d->sessions[i]->max_pos - d->sessions[i]->pos;
        if (here < room) {
            room = here;
            *ret_full = i;
        }
    }
    return room;
}

static int next_on_device(struct llm_decoder *d, uint32_t n_ahead, int32_t *ret_ids,
                          struct err *err)
{
    int r = 0;
    uint32_t full, room = room_of(d, &full), n = n_ahead < room ? n_ahead : room;
    while (r == 0 && d->n_in_flight < n) {
        r = submit_step(d, err);
    }
    if (r == 0) {
        d->n_in_flight--;
        r = d->engine->ops->decode_collect(d->run, ret_ids, err);
    }
    return r;
}

static int next_here(struct llm_decoder *d, int32_t *ret_ids, struct err *err)
{
    struct backend_state *states[LLM_MAX_SEQUENCES];
    uint32_t pos[LLM_MAX_SEQUENCES];
    size_t vocab = d->engine->model.config.vocab;
    for (uint32_t i = 0; i < d->n; i++) {
        struct llm_session *session = d->sessions[i];
        states[i] = session->state;
        pos[i] = session->pos;
        session->ids[session->pos] = d->ids[i];
    }
    int r = d->engine->ops->forward_many(states, d->ids, pos, d->n, d->logits, err);
    for (uint32_t i = 0; i < d->n && r == 0; i++) {
        r = sampler_draw(d->samplers[i], d->logits + i * vocab, d->sessions[i]->ids, pos[i] + 1,
                         d->steps[i], err, &ret_ids[i]);
    }
    return r;
}

/* Whether there is a next step. */
static int check_next(const struct llm_decoder *d, struct err *err)
{
    uint32_t full;
    if (d->has_failed) {
        return err_set(err, -EINVAL, "decoding has failed before");
    }
    if (room_of(d, &full) == 0) {
        return err_set(err, -E2BIG, "sequence %u: its context of %u tokens is full", full,
                       d->sessions[full]->max_pos);
    }
    return 0;
}

int llm_decoder_next(struct llm_decoder *d, uint32_t n_ahead, int32_t *ret_ids, struct err *err)
{
    if (n_ahead == 0 || n_ahead > LLM_AHEAD_MAX) {
        return err_set(err, -EINVAL, "%u steps ahead: 1 to %d", n_ahead, LLM_AHEAD_MAX);
    }
    int r = check_next(d, err);
    if (r < 0) {
        return r;
    }
    int32_t ids[LLM_MAX_SEQUENCES];
    r = d->run ? next_on_device(d, n_ahead, ids, err) : next_here(d, ids, err);
    if (r < 0) {
        d->has_failed = true;
        return r;
    }
    take_step(d, ids);
    memcpy(ret_ids, ids, d->n * sizeof *ids);
    return 0;
}

int llm_decoder_profile(struct llm_decoder *d, struct kernel_time *ret, size_t cap, size_t *ret_n,
                        struct err *err)
{
    if (!d->run) {
        return err_set(err, -ENOTSUP, "the %s backend times no draws", d->engine->ops->name);
    }
    int r = check_next(d, err);
    if (r == 0 && d->n_in_flight > 0) {
        r = err_set(err, -EINVAL, "steps are in flight");
    }
    if (r < 0) {
        return r;
    }
    r = d->engine->ops->decode_profile(d->run, ret, cap, ret_n, err);
    d->has_failed = r != -ENOTSUP; /* what was drawn is not told */
    return r;
}

void llm_decoder_stop(struct llm_decoder *d)
{
    if (!d) {
        return;
    }
    if (d->run) {
        d->engine->ops->decode_stop(d->run);
    }
    for (uint32_t i = 0; i < d->n; i++) {
        struct llm_session *session = d->sessions[i];
        session->is_decoding = false;
        /* what was written beyond pos has overwritten the oldest of the local layers' keys */
        if (d->has_failed || session->high - session->pos > session->rewind_max) {
            llm_session_forget(session);
        }
    }
    decoder_free(d);
}
