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

static int decode(struct batch *b, double *ret_tps, struct err *err)
{
    const struct bench_batch *plan = b->plan;
    struct llm_sampling how[LLM_MAX_SEQUENCES];
    uint32_t steps[LLM_MAX_SEQUENCES];
    int32_t ids[LLM_MAX_SEQUENCES];
    for (uint32_t i = 0; i < plan->n_sequences; i++) {
        how[i] = plan->sampling;
        how[i].seed = i;
        ids[i] = (int32_t)((3 + i * 7919) % plan->vocab);
    }
    uint64_t start = now_ns();
    int r = 0;
    for (uint32_t step = 0; step < plan->n_decode && r == 0; step++) {
        for (uint32_t i = 0; i < plan->n_sequences; i++) {
            steps[i] = step;
        }
        r = plan->logits_to_host
                ? llm_sessions_step(b->sessions, ids, plan->n_sequences, b->logits, err)
                : llm_sessions_draw(b->sessions, ids, plan->n_sequences, how, steps, ids, err);
    }
    *ret_tps = (double)plan->n_sequences * plan->n_decode * 1e9 / (double)(now_ns() - start);
    return r;
}

int bench_batch(struct llm_engine *engine, const struct bench_batch *plan, uint32_t reps,
                double *ret_tps, struct err *err)
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
    for (uint32_t i = 0; i < plan->n_sequences; i++) {
        llm_session_destroy(b.sessions[i]);
    }
    free(b.ids);
    free(b.logits);
    return r;
}
