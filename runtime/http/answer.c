/* SPDX-License-Identifier: MIT */
/* A request to the engine: see answer.h. */
#include "answer.h"

#include <assert.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "chat.h"
#include "gttd_util.h"

/* Far more than any answer has: only a client that does not read at all gets that far behind. */
#define MAX_BEHIND_BYTES (1u << 20)

static_assert(offsetof(struct answer, job) == 0, "a job is cast to its answer");

static int refuse_oom(struct openai_error *refusal)
{
    openai_refuse(refusal, 500, NULL, NULL, "out of memory");
    return -ENOMEM;
}

static int encode(const struct tokenizer *tok, const struct openai_request *request,
                  struct openai_error *refusal, int32_t **ret_ids, size_t *ret_n)
{
    static const enum chat_role ROLES[] = {
        [OPENAI_SYSTEM] = CHAT_SYSTEM,
        [OPENAI_USER] = CHAT_USER,
        [OPENAI_ASSISTANT] = CHAT_ASSISTANT,
    };
    AUTO_FREE struct chat_message *messages = calloc(request->n_messages, sizeof *messages);
    if (!messages) {
        return refuse_oom(refusal);
    }
    for (size_t i = 0; i < request->n_messages; i++) {
        const struct openai_message *m = &request->messages[i];
        messages[i] = (struct chat_message){ROLES[m->role], m->text, m->size};
    }
    struct err err = {""};
    int r = chat_encode(tok, messages, request->n_messages, &err, ret_ids, ret_n);
    if (r == -ENOMEM) {
        return refuse_oom(refusal);
    }
    if (r < 0) {
        return openai_refuse(refusal, 400, "invalid_value", "messages", "%s", err.text);
    }
    return 0;
}

int answer_create(const struct llm_engine *engine, uint32_t max_pos, struct openai_request *request,
                  uint64_t arrived_ns, struct openai_error *refusal, struct answer **ret)
{
    AUTO_FREE int32_t *prompt = NULL;
    size_t n_prompt;
    int r = encode(llm_engine_tokenizer(engine), request, refusal, &prompt, &n_prompt);
    if (r < 0) {
        return r;
    }
    if (n_prompt >= max_pos) {
        return openai_refuse(refusal, 400, "context_length_exceeded", "messages",
                             "the conversation has %zu tokens; the context of %u leaves no room "
                             "for an answer",
                             n_prompt, max_pos);
    }
    struct answer *answer = calloc(1, sizeof *answer);
    if (!answer) {
        return refuse_oom(refusal);
    }
    r = pipe_init(&answer->pipe, MAX_BEHIND_BYTES);
    if (r < 0) {
        free(answer);
        openai_refuse(refusal, 503, NULL, NULL, "out of file descriptors");
        return r;
    }
    answer->request = *request;
    *request = (struct openai_request){0};
    answer->prompt = take_ptr(&prompt);
    answer->n_prompt = n_prompt;
    answer->arrived_ns = arrived_ns;
    *ret = answer;
    return 0;
}

void answer_destroy(struct answer *answer)
{
    if (!answer) {
        return;
    }
    llm_result_finish(&answer->result);
    pipe_finish(&answer->pipe);
    openai_request_finish(&answer->request);
    free(answer->prompt);
    free(answer);
}

static bool is_cancelled(void *data)
{
    return atomic_load(&((struct answer *)data)->job.cancelled);
}

static int on_text(void *data, const char *text, size_t size)
{
    struct answer *answer = data;
    int r = pipe_write(&answer->pipe, text, size);
    answer->too_slow = r < 0;
    return r;
}

static uint64_t seed_of(const struct openai_request *request)
{
    uint64_t seed = request->seed;
    if (!request->has_seed && getrandom(&seed, sizeof seed, 0) != sizeof seed) {
        struct timespec ts;
        clock_gettime(CLOCK_REALTIME, &ts);
        seed = (uint64_t)ts.tv_nsec;
    }
    return seed;
}

void answer_run(struct answer *answer, struct llm_session *session)
{
    const struct openai_request *wish = &answer->request;
    struct llm_request request = {
        .prompt = answer->prompt,
        .n_prompt = answer->n_prompt,
        .max_tokens = wish->max_tokens,
        .sampling =
            {
                .temperature = (float)wish->temperature,
                .top_k = wish->top_k,
                /* 0: the best token alone */
                .top_p = fmaxf((float)wish->top_p, FLT_MIN),
                .min_p = (float)wish->min_p,
                .repetition_penalty = (float)wish->repetition_penalty,
                .seed = seed_of(wish),
            },
        .stops = (const char *const *)wish->stops,
        .n_stops = wish->n_stops,
        .on_text = wish->stream ? on_text : NULL,
        .cancelled = is_cancelled,
        .data = answer,
    };
    if (is_cancelled(answer)) {
        answer->result.finish = LLM_FINISH_CANCELLED;
    } else {
        if (wish->has_seed) {
            llm_session_forget(session); /* who gives a seed wants the same text again */
        }
        answer->error = llm_generate(session, &request, &answer->err, &answer->result);
    }
    pipe_close(&answer->pipe);
}

bool answer_was_refused(const struct answer *answer)
{
    return answer->error == -EINVAL || answer->error == -E2BIG;
}

static double per_second(size_t n, uint64_t ns)
{
    return ns > 0 ? (double)n * 1e9 / (double)ns : 0;
}

struct openai_outcome answer_outcome(const struct answer *answer)
{
    const struct llm_result *result = &answer->result;
    return (struct openai_outcome){
        .length = result->finish == LLM_FINISH_LENGTH,
        .prompt_tokens = answer->n_prompt,
        .cached_tokens = result->n_reused,
        .completion_tokens = result->n_ids,
        .first_token_ms = ((double)result->first_token_ns - (double)answer->arrived_ns) / 1e6,
        .prefill_tps = per_second(answer->n_prompt - result->n_reused, result->prefill_ns),
        .decode_tps = result->n_ids > 1 ? per_second(result->n_ids - 1, result->decode_ns) : 0,
    };
}
