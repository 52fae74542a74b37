/* SPDX-License-Identifier: MIT */
/*
 * One timeline of a model: which tokens the KV cache holds, and how much of it a new prefix can
 * reuse. The cache itself is the backend's.
 */
#include "engine.h"
#include "sampler.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gttd_util.h"

#define DEFAULT_MAX_POS 8192

struct llm_session {
    struct llm_engine *engine;
    struct backend_state *state;
    uint32_t max_pos;
    uint32_t rewind_max; /* see backend_ops.state_create */
    uint64_t kv_bytes;
    int32_t *ids;         /* [max_pos], the tokens whose keys are in the cache */
    uint32_t pos;         /* how many of them */
    uint32_t high;        /* the highest pos since the cache was last started over */
    int32_t next_id;      /* what the oldest step in flight runs */
    uint32_t n_in_flight; /* steps: they run the tokens from pos on */
};

int llm_session_create(struct llm_engine *engine, uint32_t max_pos, struct err *err,
                       struct llm_session **ret)
{
    uint32_t limit = engine->model.config.max_pos;
    if (max_pos > limit) {
        return err_set(err, -EINVAL, "a context of %u tokens: the model's limit is %u", max_pos,
                       limit);
    }
    struct llm_session *session = calloc(1, sizeof *session);
    if (!session) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    session->engine = engine;
    session->max_pos = max_pos ? max_pos : limit < DEFAULT_MAX_POS ? limit : DEFAULT_MAX_POS;
    session->ids = malloc(session->max_pos * sizeof *session->ids);
    if (!session->ids) {
        llm_session_destroy(session);
        return err_set(err, -ENOMEM, "out of memory");
    }
    int r = engine->ops->state_create(engine->bound, session->max_pos, err, &session->state,
                                      &session->rewind_max, &session->kv_bytes);
    if (r < 0) {
        llm_session_destroy(session);
        return r;
    }
    start_done(&engine->start, START_STATE);
    *ret = session;
    return 0;
}

void llm_session_destroy(struct llm_session *session)
{
    if (!session) {
        return;
    }
    session->engine->ops->state_destroy(session->state);
    free(session->ids);
    free(session);
}

uint32_t llm_session_max_pos(const struct llm_session *session)
{
    return session->max_pos;
}

uint64_t llm_session_kv_bytes(const struct llm_session *session)
{
    return session->kv_bytes;
}

struct llm_engine *session_engine(struct llm_session *session)
{
    return session->engine;
}

void llm_session_forget(struct llm_session *session)
{
    session->pos = session->high = 0;
}

/* Go back to position `pos`, or to 0 if the local layers no longer hold the window before it. */
static void rewind_to(struct llm_session *session, uint32_t pos)
{
    if (pos < session->pos && session->high - pos > session->rewind_max) {
        pos = 0;
    }
    session->pos = pos;
    if (pos == 0) {
        session->high = 0;
    }
}

static int check_ids(const struct llm_session *session, const int32_t *ids, size_t n,
                     struct err *err)
{
    uint32_t vocab = session->engine->model.config.vocab;
    if (n == 0) {
        return err_set(err, -EINVAL, "no tokens");
    }
    if (n > session->max_pos) {
        return err_set(err, -E2BIG, "%zu tokens do not fit in a context of %u", n,
                       session->max_pos);
    }
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= vocab) {
            return err_set(err, -EINVAL, "token id %d: the vocabulary has %u", ids[i], vocab);
        }
    }
    return 0;
}

/* The next n ids are in the cache. */
static void advance_to(struct llm_session *session, const int32_t *ids, uint32_t n)
{
    memcpy(session->ids + session->pos, ids + session->pos, n * sizeof *ids);
    session->pos += n;
    if (session->pos > session->high) {
        session->high = session->pos;
    }
}

/* Run all_ids[pos..pos + n) and make them part of the timeline. */
static int advance(struct llm_session *session, const int32_t *all_ids, uint32_t n,
                   enum logits_want want, float *logits, struct err *err)
{
    int r = session->engine->ops->forward(session->state, all_ids + session->pos, n, session->pos,
                                          want, logits, err);
    if (r < 0) {
        /* what the cache holds beyond the last good position is unknown */
        session->pos = session->high = 0;
        return r;
    }
    advance_to(session, all_ids, n);
    return 0;
}

int llm_session_sync(struct llm_session *session, const int32_t *ids, size_t n, float *logits,
                     bool (*cancelled)(void *data), void *data, struct err *err, size_t *ret_reused)
{
    int r = check_ids(session, ids, n, err);
    if (r < 0) {
        return r;
    }
    uint32_t common = 0;
    while (common < session->pos && common < n && session->ids[common] == ids[common]) {
        common++;
    }
    if (common == n && logits) {
        common = (uint32_t)n - 1; /* the last token is run again for its logits */
    }
    rewind_to(session, common);
    size_t reused = session->pos;
    while (session->pos < n) {
        if (cancelled && cancelled(data)) {
            return err_set(err, -ECANCELED, "cancelled");
        }
        uint32_t left = (uint32_t)n - session->pos;
        uint32_t batch = left < session->engine->max_batch ? left : session->engine->max_batch;
        bool last = batch == left && logits;
        r = advance(session, ids, batch, last ? LOGITS_LAST : LOGITS_NONE, last ? logits : NULL,
                    err);
        if (r < 0) {
            return r;
        }
    }
    if (ret_reused) {
        *ret_reused = reused;
    }
    return 0;
}

bool session_can_decode(const struct llm_session *session)
{
    return session->engine->ops->decode_start != NULL;
}

int session_decode_start(struct llm_session *session, const struct backend_sampling *sampling,
                         const int32_t *ids, size_t n, uint32_t step, struct err *err)
{
    assert(n > 0 && session->pos == n - 1 && session->n_in_flight == 0);
    const struct backend_decode from = {
        .id = ids[n - 1],
        .pos = session->pos,
        .sampling = sampling,
        .history = ids,
        .n_history = n,
        .step = step,
    };
    session->next_id = ids[n - 1];
    return session->engine->ops->decode_start(session->state, &from, err);
}

static int submit_step(struct llm_session *session, struct err *err)
{
    int r = session->engine->ops->decode_submit(session->state, err);
    if (r < 0) {
        return r;
    }
    uint32_t end = session->pos + ++session->n_in_flight;
    session->high = end > session->high ? end : session->high;
    return 0;
}

static int collect_step(struct llm_session *session, struct err *err, int32_t *ret_id)
{
    session->n_in_flight--;
    return session->engine->ops->decode_collect(session->state, ret_id, err);
}

int session_decode_next(struct llm_session *session, uint32_t n, struct err *err, int32_t *ret_id)
{
    int r = 0;
    while (r == 0 && session->n_in_flight < n) {
        r = submit_step(session, err);
    }
    if (r == 0) {
        r = collect_step(session, err, ret_id);
    }
    if (r < 0) {
        session_decode_stop(session);
        session->pos = session->high = 0; /* what the cache holds is unknown */
        return r;
    }
    session->ids[session->pos++] = session->next_id;
    session->next_id = *ret_id;
    return 0;
}

void session_decode_stop(struct llm_session *session)
{
    struct err err;
    int32_t id;
    int r = 0;
    while (session->n_in_flight > 0) {
        int failed = collect_step(session, &err, &id);
        r = failed < 0 ? failed : r;
    }
    /* what was written beyond pos has overwritten the oldest of the local layers' keys */
    if (r < 0 || session->high - session->pos > session->rewind_max) {
        session->pos = session->high = 0;
    }
}

/* What a step of several sessions is made of; *ret_states is what the backend calls them. */
static int check_step(struct llm_session *const *sessions, uint32_t n, struct err *err,
                      struct backend_state **ret_states)
{
    if (n == 0 || n > LLM_MAX_SEQUENCES) {
        return err_set(err, -EINVAL, "%u sequences in one step: 1 to %d can decode together", n,
                       LLM_MAX_SEQUENCES);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (sessions[i]->engine != sessions[0]->engine) {
            return err_set(err, -EINVAL, "sequence %u is of another model", i);
        }
        if (sessions[i]->pos == sessions[i]->max_pos) {
            return err_set(err, -E2BIG, "sequence %u: its context of %u tokens is full", i,
                           sessions[i]->max_pos);
        }
        ret_states[i] = sessions[i]->state;
    }
    return 0;
}

/* The step is part of the timelines, or what they hold now is unknown. */
static void finish_step(struct llm_session *const *sessions, const int32_t *ids, uint32_t n, int r)
{
    for (uint32_t i = 0; i < n; i++) {
        struct llm_session *session = sessions[i];
        if (r < 0) {
            llm_session_forget(session);
            continue;
        }
        session->ids[session->pos++] = ids[i];
        session->high = session->pos > session->high ? session->pos : session->high;
    }
}

int llm_sessions_step(struct llm_session *const *sessions, const int32_t *ids, uint32_t n,
                      float *logits, struct err *err)
{
    struct backend_state *states[LLM_MAX_SEQUENCES];
    uint32_t pos[LLM_MAX_SEQUENCES];
    int r = check_step(sessions, n, err, states);
    if (r < 0) {
        return r;
    }
    for (uint32_t i = 0; i < n; i++) {
        pos[i] = sessions[i]->pos;
    }
    r = sessions[0]->engine->ops->forward_many(states, ids, pos, n, logits, err);
    if (r != -EINVAL) {
        finish_step(sessions, ids, n, r);
    }
    return r;
}

/* Where the backend draws no tokens: from the logits, here. */
static int draw_on_host(struct llm_session *const *sessions, const int32_t *ids, uint32_t n,
                        struct sampler *const *samplers, const uint32_t *steps, int32_t *ret_ids,
                        struct err *err)
{
    size_t vocab = sessions[0]->engine->model.config.vocab;
    AUTO_FREE float *logits = malloc(n * vocab * sizeof *logits);
    if (!logits) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    int r = llm_sessions_step(sessions, ids, n, logits, err);
    for (uint32_t i = 0; i < n && r == 0; i++) {
        r = sampler_draw(samplers[i], logits + i * vocab, sessions[i]->ids, sessions[i]->pos,
                         steps[i], &ret_ids[i]);
        if (r < 0) {
            err_set(err, r, "the model's logits are not numbers");
        }
    }
    return r;
}

static int draw_on_device(struct llm_session *const *sessions, const int32_t *ids, uint32_t n,
                          struct sampler *const *samplers, const uint32_t *steps, int32_t *ret_ids,
                          struct err *err)
{
    struct backend_state *states[LLM_MAX_SEQUENCES];
    struct backend_sampling sampling[LLM_MAX_SEQUENCES];
    struct backend_decode from[LLM_MAX_SEQUENCES];
    int r = check_step(sessions, n, err, states);
    for (uint32_t i = 0; i < n && r == 0; i++) {
        struct llm_session *session = sessions[i];
        sampler_describe(samplers[i], &sampling[i]);
        session->ids[session->pos] = ids[i];
        from[i] = (struct backend_decode){
            .id = ids[i],
            .pos = session->pos,
            .sampling = &sampling[i],
            .history = session->ids,
            .n_history = session->pos + 1,
            .step = steps[i],
        };
    }
    if (r < 0) {
        return r;
    }
    r = sessions[0]->engine->ops->draw_many(states, from, n, ret_ids, err);
    if (r != -EINVAL) {
        finish_step(sessions, ids, n, r == -EDOM ? 0 : r);
    }
    return r;
}

int llm_sessions_draw(struct llm_session *const *sessions, const int32_t *ids, uint32_t n,
                      const struct llm_sampling *how, const uint32_t *steps, int32_t *ret_ids,
                      struct err *err)
{
    struct sampler *samplers[LLM_MAX_SEQUENCES] = {0};
    struct backend_state *states[LLM_MAX_SEQUENCES];
    int32_t run[LLM_MAX_SEQUENCES]; /* ret_ids may be ids */
    int r = check_step(sessions, n, err, states);
    if (r < 0) {
        return r;
    }
    memcpy(run, ids, n * sizeof *run);
    const struct llm_engine *engine = sessions[0]->engine;
    for (uint32_t i = 0; i < n && r == 0; i++) {
        r = sampler_create(engine->model.config.vocab, &how[i], err, &samplers[i]);
    }
    if (r == 0) {
        r = (engine->ops->draw_many ? draw_on_device : draw_on_host)(sessions, run, n, samplers,
                                                                     steps, ret_ids, err);
    }
    for (uint32_t i = 0; i < n; i++) {
        sampler_destroy(samplers[i]);
    }
    return r;
}

uint32_t llm_session_max_batch(const struct llm_session *session)
{
    return session->engine->max_batch;
}

/* The last n_last of ids[0..n), of which the others are in the cache. */
static int profile_last(struct llm_session *session, const int32_t *ids, uint32_t n_last,
                        const struct llm_sampling *sampling, struct backend_kernel_time *ret,
                        size_t cap, size_t *ret_n, struct err *err)
{
    const struct llm_engine *engine = session->engine;
    struct sampler *sampler = NULL;
    struct backend_sampling how;
    if (sampling) {
        int r = sampler_create(engine->model.config.vocab, sampling, err, &sampler);
        if (r < 0) {
            return r;
        }
        sampler_describe(sampler, &how);
    }
    int r = engine->ops->profile(session->state, ids + session->pos, n_last, session->pos,
                                 sampling ? &how : NULL, ret, cap, ret_n, err);
    sampler_destroy(sampler);
    if (r < 0) {
        session->pos = session->high = 0;
        return r;
    }
    advance_to(session, ids, n_last);
    return 0;
}

int llm_session_profile(struct llm_session *session, const int32_t *ids, size_t n, uint32_t n_last,
                        const struct llm_sampling *sampling, struct llm_kernel_time *ret,
                        size_t cap, size_t *ret_n, struct err *err)
{
    struct backend_kernel_time times[32];
    const struct llm_engine *engine = session->engine;
    if (!engine->ops->profile || (sampling && !engine->ops->decode_start)) {
        return err_set(err, -ENOTSUP, "the %s backend times no %s", engine->ops->name,
                       engine->ops->profile ? "draws" : "kernels");
    }
    int r = check_ids(session, ids, n, err);
    if (r == 0 && n > n_last) {
        r = llm_session_sync(session, ids, n - n_last, NULL, NULL, NULL, err, NULL);
    }
    if (r < 0) {
        return r;
    }
    rewind_to(session, (uint32_t)n - n_last);
    if (session->pos != n - n_last) {
        return err_set(err, -EINVAL, "the context cannot go back to %zu", n - n_last);
    }
    size_t n_times = 0;
    r = profile_last(session, ids, n_last, sampling, times, ARRAY_SIZE(times), &n_times, err);
    if (r < 0) {
        return r;
    }
    *ret_n = n_times < cap ? n_times : cap;
    for (size_t i = 0; i < *ret_n; i++) {
        ret[i] = (struct llm_kernel_time){times[i].name, times[i].n, times[i].seconds};
    }
    return 0;
}

int llm_session_logits_all(struct llm_session *session, const int32_t *ids, size_t n, float *logits,
                           struct err *err)
{
    int r = check_ids(session, ids, n, err);
    if (r < 0) {
        return r;
    }
    rewind_to(session, 0);
    uint32_t vocab = session->engine->model.config.vocab;
    while (session->pos < n) {
        uint32_t left = (uint32_t)n - session->pos;
        uint32_t batch = left < session->engine->max_batch ? left : session->engine->max_batch;
        r = advance(session, ids, batch, LOGITS_ALL, logits + (size_t)session->pos * vocab, err);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}
