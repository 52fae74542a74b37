/* SPDX-License-Identifier: MIT */
/*
 * The loop from prompt to answer: sync, draw, stream, until something ends it. Where the backend
 * draws tokens itself, it is kept some steps ahead of the text; the first token is drawn here from
 * the prompt's logits all the same.
 */
#include "clock.h"
#include "engine.h"
#include "sampler.h"
#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct generation {
    struct llm_session *session;
    const struct llm_request *request;
    struct llm_engine *engine;
    struct sampler *sampler;
    struct stream stream;
    size_t n_sent; /* bytes of the stream already given to on_text */
    float *logits; /* [vocab] */
    int32_t *ids;  /* [n_prompt + max_tokens]: the timeline */
    size_t n_ids, cap;
    uint32_t n_ahead;            /* 0: each token is drawn here */
    struct llm_decoder *decoder; /* NULL: no token was drawn ahead yet */
    size_t n_reused;
};

static int generation_init(struct generation *g, struct llm_session *session,
                           const struct llm_request *request, struct err *err)
{
    *g = (struct generation){.session = session, .request = request};
    g->engine = session->engine;
    stream_init(&g->stream, request->stops, request->n_stops);
    uint32_t max_pos = llm_session_max_pos(session);
    if (request->n_prompt == 0) {
        return err_set(err, -EINVAL, "the prompt is empty");
    }
    if (request->n_prompt >= max_pos) {
        return err_set(err, -E2BIG, "the prompt has %zu tokens; the context holds %u",
                       request->n_prompt, max_pos);
    }
    if (request->n_ahead > LLM_AHEAD_MAX) {
        return err_set(err, -EINVAL, "%u steps ahead: at most %d", request->n_ahead, LLM_AHEAD_MAX);
    }
    if (g->engine->ops->decode_start && !request->sample_on_host) {
        g->n_ahead = request->n_ahead ? request->n_ahead : LLM_AHEAD_DEFAULT;
    }
    size_t room = max_pos - request->n_prompt;
    size_t max_tokens =
        request->max_tokens && request->max_tokens < room ? request->max_tokens : room;
    g->cap = request->n_prompt + max_tokens;
    g->ids = malloc(g->cap * sizeof *g->ids);
    g->logits = malloc(g->engine->model.config.vocab * sizeof *g->logits);
    if (!g->ids || !g->logits) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    memcpy(g->ids, request->prompt, request->n_prompt * sizeof *g->ids);
    g->n_ids = request->n_prompt;
    return sampler_create(g->engine->model.config.vocab, &request->sampling, err, &g->sampler);
}

static void generation_finish(struct generation *g)
{
    sampler_destroy(g->sampler);
    stream_finish(&g->stream);
    free(g->ids);
    free(g->logits);
}

/* Hand out text that has become final. */
static int send_text(struct generation *g)
{
    size_t size = g->stream.n_final - g->n_sent;
    if (size == 0 || !g->request->on_text) {
        return 0;
    }
    const char *text = g->stream.text + g->n_sent;
    g->n_sent = g->stream.n_final;
    return g->request->on_text(g->request->data, text, size) ? -ECANCELED : 0;
}

static int add_text(struct generation *g, int32_t id, struct err *err)
{
    if (!g->engine->tokenizer) {
        return 0; /* random weights: ids only */
    }
    const char *bytes;
    size_t size;
    bool special;
    int r = tokenizer_piece(g->engine->tokenizer, id, &bytes, &size, &special);
    if (r < 0) {
        return err_set(err, r, "token id %d is not in the tokenizer", id);
    }
    if (special) {
        return 0;
    }
    r = stream_add(&g->stream, bytes, size);
    if (r < 0) {
        return err_set(err, r, "out of memory");
    }
    return send_text(g);
}

static int next_here(struct generation *g, size_t step, int32_t *ret_id, struct err *err)
{
    const struct llm_request *q = g->request;
    size_t reused;
    int r = llm_session_sync(g->session, g->ids, g->n_ids, g->logits, q->cancelled, q->data, err,
                             &reused);
    if (r < 0) {
        return r;
    }
    r = sampler_draw(g->sampler, g->logits, g->ids, g->n_ids, step, err, ret_id);
    if (r < 0) {
        return r;
    }
    if (step == 0) {
        g->n_reused = reused;
    }
    return 0;
}

static int next_ahead(struct generation *g, size_t step, int32_t *ret_id, struct err *err)
{
    const struct llm_request *q = g->request;
    if (!g->decoder) {
        const uint32_t first = (uint32_t)step;
        int r = llm_decoder_start(&g->session, &g->ids[g->n_ids - 1], 1, &q->sampling, &first, err,
                                  &g->decoder);
        if (r < 0) {
            return r;
        }
    }
    if (q->cancelled && q->cancelled(q->data)) {
        return err_set(err, -ECANCELED, "cancelled");
    }
    size_t room = g->cap - g->n_ids; /* no step is begun whose token could not be used */
    return llm_decoder_next(g->decoder, room < g->n_ahead ? (uint32_t)room : g->n_ahead, ret_id,
                            err);
}

/* Add a token to the answer; 1 and *ret_finish: it was the last one. */
static int take(struct generation *g, int32_t id, enum llm_finish *ret_finish, struct err *err)
{
    g->ids[g->n_ids++] = id;
    *ret_finish = LLM_FINISH_STOP;
    if (!g->request->ignore_eos && llm_engine_is_eos(g->engine, id)) {
        return 1;
    }
    int r = add_text(g, id, err);
    if (r < 0 || g->stream.stopped) {
        return r < 0 ? r : 1;
    }
    *ret_finish = LLM_FINISH_LENGTH;
    return g->n_ids == g->cap;
}

/* Until the answer ends: 0 and its finish, or an error; -ECANCELED is the caller's wish. */
static int run(struct generation *g, struct llm_result *res, struct err *err)
{
    uint64_t start = now_ns();
    int r = 0;
    for (size_t step = 0; r == 0; step++) {
        int32_t id;
        r = step > 0 && g->n_ahead > 0 ? next_ahead(g, step, &id, err)
                                       : next_here(g, step, &id, err);
        if (r < 0) {
            break;
        }
        if (step == 0) {
            res->n_reused = g->n_reused;
            res->first_token_ns = now_ns();
            res->prefill_ns = res->first_token_ns - start;
        } else {
            res->decode_ns = now_ns() - res->first_token_ns;
        }
        r = take(g, id, &res->finish, err);
    }
    llm_decoder_stop(g->decoder);
    return r < 0 ? r : 0;
}

int llm_generate(struct llm_session *session, const struct llm_request *request, struct err *err,
                 struct llm_result *ret)
{
    struct generation g;
    struct llm_result res = {0};
    int r = generation_init(&g, session, request, err);
    if (r < 0) {
        goto out;
    }
    r = run(&g, &res, err);
    if (r == -ECANCELED) {
        res.finish = LLM_FINISH_CANCELLED;
        r = 0;
    }
    if (r == 0) {
        r = stream_end(&g.stream);
        if (r == 0 && res.finish != LLM_FINISH_CANCELLED && send_text(&g) < 0) {
            res.finish = LLM_FINISH_CANCELLED;
        }
    }
    if (r < 0) {
        goto out;
    }
    res.n_ids = g.n_ids - request->n_prompt;
    res.ids = malloc((res.n_ids ? res.n_ids : 1) * sizeof *res.ids);
    if (!res.ids) {
        r = err_set(err, -ENOMEM, "out of memory");
        goto out;
    }
    memcpy(res.ids, g.ids + request->n_prompt, res.n_ids * sizeof *res.ids);
    res.text = g.stream.text;
    res.text_size = g.stream.size;
    g.stream.text = NULL;
    *ret = res;
out:
    generation_finish(&g);
    return r;
}

void llm_result_finish(struct llm_result *result)
{
    free(result->ids);
    free(result->text);
    *result = (struct llm_result){0};
}
