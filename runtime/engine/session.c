/* SPDX-License-Identifier: MIT */
/*
 * One timeline of a model: which tokens the KV cache holds, and how much of it a new prefix can
 * reuse. The cache itself is the backend's.
 */
#include "engine.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gttd_util.h"

#define DEFAULT_MAX_POS 8192

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
    assert(!session->is_decoding);
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

void llm_session_forget(struct llm_session *session)
{
    assert(!session->is_decoding);
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

static int check_idle(const struct llm_session *session, struct err *err)
{
    return session->is_decoding ? err_set(err, -EBUSY, "the sequence is decoding") : 0;
}

static int check_ids(const struct llm_session *session, const int32_t *ids, size_t n,
                     struct err *err)
{
    uint32_t vocab = session->engine->model.config.vocab;
    if (check_idle(session, err) < 0) {
        return -EBUSY;
    }
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

int sessions_check(struct llm_session *const *sessions, uint32_t n, struct err *err,
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
        if (check_idle(sessions[i], err) < 0) {
            return -EBUSY;
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
    int r = sessions_check(sessions, n, err, states);
    if (r < 0) {
        return r;
    }
    for (uint32_t i = 0; i < n; i++) {
        pos[i] = sessions[i]->pos;
    }
    r = sessions[0]->engine->ops->forward_many(states, ids, pos, n, logits, err);
    if (r != -EINVAL && r != -EBUSY) {
        finish_step(sessions, ids, n, r);
    }
    return r;
}

uint32_t llm_session_max_batch(const struct llm_session *session)
{
    return session->engine->max_batch;
}

int llm_session_profile(struct llm_session *session, const int32_t *ids, size_t n, uint32_t n_last,
                        struct kernel_time *ret, size_t cap, size_t *ret_n, struct err *err)
{
    const struct llm_engine *engine = session->engine;
    if (!engine->ops->profile) {
        return err_set(err, -ENOTSUP, "the %s backend times no kernels", engine->ops->name);
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
    r = engine->ops->profile(session->state, ids + session->pos, n_last, session->pos, ret, cap,
                             ret_n, err);
    if (r < 0) {
        llm_session_forget(session);
        return r;
    }
    advance_to(session, ids, n_last);
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
