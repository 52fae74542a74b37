/* SPDX-License-Identifier: MIT */
/* Several sequences that decode together, for bench. */
#include "bench_result.h"
#include "gttrun.h"

#include <errno.h>
#include <stdlib.h>

struct batch {
    const struct bench_batch *plan;
    struct llm_session *sessions[LLM_MAX_SEQUENCES];
    int32_t *ids;  /* [depth + 1], of the sequence that is being brought to the depth */
    float *logits; /* [n_sequences, vocab] */
};

/* Every sequence to the depth, over other tokens than the others and the repetition before. */
static int prepare(struct batch *b, uint32_t rep, struct err *err)
{
    int r = 0;
    for (uint32_t i = 0; i < b->plan->n_sequences && r == 0; i++) {
        for (uint32_t k = 0; k <= b->plan->depth; k++) {
            b->ids[k] = (int32_t)((2 + (i * 131 + rep + k) * 7919ull) % b->plan->vocab);
        }
        r = llm_session_sync(b->sessions[i], b->ids, b->plan->depth + 1, NULL, NULL, NULL, err,
                             NULL);
    }
    return r;
}

/* What the sequences run after what they were prepared with. */
static void next_ids(const struct bench_batch *plan, int32_t *ret)
{
    for (uint32_t i = 0; i < plan->n_sequences; i++) {
        ret[i] = (int32_t)((3 + i * 7919) % plan->vocab);
    }
}

/* Draw the next tokens of each, with a seed of its own. */
static int start(struct batch *b, struct err *err, struct llm_decoder **ret)
{
    const struct bench_batch *plan = b->plan;
    struct llm_sampling how[LLM_MAX_SEQUENCES];
    uint32_t steps[LLM_MAX_SEQUENCES] = {0};
    int32_t ids[LLM_MAX_SEQUENCES];
    next_ids(plan, ids);
    for (uint32_t i = 0; i < plan->n_sequences; i++) {
        how[i] = plan->sampling;
        how[i].seed = i;
    }
    return llm_decoder_start(b->sessions, ids, plan->n_sequences, how, steps, err, ret);
}

static int decode_drawn(struct batch *b, struct err *err)
{
    struct llm_decoder *decoder = NULL;
    int32_t ids[LLM_MAX_SEQUENCES];
    int r = start(b, err, &decoder);
    for (uint32_t left = b->plan->n_decode; left > 0 && r == 0; left--) {
        uint32_t n_ahead = b->plan->n_ahead < left ? b->plan->n_ahead : left;
        r = llm_decoder_next(decoder, n_ahead, ids, err);
    }
    llm_decoder_stop(decoder);
    return r;
}

static int decode_logits(struct batch *b, struct err *err)
{
    int32_t ids[LLM_MAX_SEQUENCES];
    int r = 0;
    next_ids(b->plan, ids);
    for (uint32_t step = 0; step < b->plan->n_decode && r == 0; step++) {
        r = llm_sessions_step(b->sessions, ids, b->plan->n_sequences, b->logits, err);
    }
    return r;
}

static int decode(struct batch *b, double *ret_tps, struct err *err)
{
    const struct bench_batch *plan = b->plan;
    uint64_t begun = now_ns();
    int r = plan->n_ahead ? decode_drawn(b, err) : decode_logits(b, err);
    *ret_tps = (double)plan->n_sequences * plan->n_decode * 1e9 / (double)(now_ns() - begun);
    return r;
}

/* A step's kernels; twice, of which the second counts. */
static int profile(struct batch *b, struct bench_profile *ret, struct err *err)
{
    int r = 0;
    for (uint32_t run = 0; run < 2 && r == 0; run++) {
        struct llm_decoder *decoder = NULL;
        r = prepare(b, run, err);
        if (r == 0) {
            r = start(b, err, &decoder);
        }
        if (r == 0) {
            r = llm_decoder_profile(decoder, ret->kernels, BENCH_KERNELS_MAX, &ret->n, err);
        }
        llm_decoder_stop(decoder);
    }
    ret->n_tokens = b->plan->n_sequences;
    return r;
}

int bench_batch(struct llm_engine *engine, const struct bench_batch *plan, uint32_t reps,
                double *ret_tps, struct bench_profile *ret_profile, struct err *err)
{
    struct batch b = {.plan = plan};
    int r = 0;
    b.ids = malloc((plan->depth + 1) * sizeof *b.ids);
    b.logits = malloc((size_t)plan->n_sequences * plan->vocab * sizeof *b.logits);
    if (!b.ids || !b.logits) {
        r = err_set(err, -ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < plan->n_sequences && r == 0; i++) {
        r = llm_session_create(engine, plan->depth + 1 + plan->n_decode, err, &b.sessions[i]);
    }
    for (uint32_t rep = 0; rep <= reps && r == 0; rep++) {
        double warm_up;
        r = prepare(&b, rep, err);
        if (r == 0) {
            r = decode(&b, rep ? &ret_tps[rep - 1] : &warm_up, err);
        }
    }
    if (r == 0 && ret_profile) {
        r = profile(&b, ret_profile, err);
    }
    for (uint32_t i = 0; i < plan->n_sequences; i++) {
        llm_session_destroy(b.sessions[i]);
    }
    free(b.ids);
    free(b.logits);
    return r;
}
