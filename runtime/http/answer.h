/* SPDX-License-Identifier: MIT */
/*
 * One request to the engine and what became of it. This is where OpenAI's words meet the engine's;
 * it knows neither JSON nor sockets. Created by a connection's thread, run by the queue's, read
 * again by the connection's.
 */
#ifndef HTTP_ANSWER_H
#define HTTP_ANSWER_H

#include "llm.h"
#include "openai.h"
#include "pipe.h"
#include "queue.h"

struct answer {
    struct job job; /* first, so that the one is the other */
    struct openai_request request;
    int32_t *prompt;
    size_t n_prompt;
    uint64_t arrived_ns; /* CLOCK_MONOTONIC */
    struct pipe pipe;    /* the text, if it is streamed; closed when all below is final */

    int error; /* 0, or what the engine returned, with err */
    struct err err;
    bool too_slow; /* given up because the client was too far behind */
    struct llm_result result;
};

/*
 * Take over *request (left empty on success only) and encode its prompt. -EINVAL with *refusal:
 * roles that do not alternate, a conversation that leaves no room for an answer in max_pos tokens.
 */
int answer_create(const struct llm_engine *engine, uint32_t max_pos, struct openai_request *request,
                  uint64_t arrived_ns, struct openai_error *refusal, struct answer **ret);
void answer_destroy(struct answer *answer); /* not while a queue has its job; accepts NULL */

/* Generate, on the queue's thread; at once over if the job is cancelled already. */
void answer_run(struct answer *answer, struct llm_session *session);

/* Its error is about the request, not about the engine. */
bool answer_was_refused(const struct answer *answer);

/* Of an answer that ended well. */
struct openai_outcome answer_outcome(const struct answer *answer);

#endif
