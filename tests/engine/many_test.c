/* SPDX-License-Identifier: MIT */
/*
 * Several sessions of the bundled model decoded together: many_test BACKEND. Greedy text is the
 * same as alone, whoever else is in a step; what llm_sessions_step() refuses changes nothing.
 *
 * Rows differ from single tokens as the conformance suite's repeats do. On Vulkan that is the last
 * bits, or hundredths with f16 matrices (9 rows and more). On the CPU sums in another order move
 * int8 activations to the next step: 2e-2 of logits whose rms is about 10, and several times that
 * in the worst of them. So a token that is not the one chosen alone must be as good but for that;
 * then the other is followed.
 */
#include <errno.h>

#include "check.h"
#include "llm.h"

#define MODEL "models/wordbook-22m"
#define BOS   2

enum { N = 8, N_NEW = 12, CONTEXT = 96 };

static float near_tie = 0.05f;

static const char *const prompts[N] = {
    "The word \"river\" means",
    "A dog is",
    "In the morning the children",
    "water: a clear liquid that",
    "Once upon a time there was a king who",
    "hot is the opposite of",
    "She went to the market and bought",
    "A",
};

/* One timeline: what it was given and what greedy decoding alone makes of it. */
struct line {
    int32_t ids[CONTEXT];
    size_t n_prompt;
};

static int32_t largest(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return (int32_t)best;
}

static struct llm_engine *open_engine(const char *backend)
{
    const struct llm_engine_params params = {.model_dir = MODEL,
                                             .backend = backend,
                                             .private_weights = true};
    struct llm_engine *engine;
    struct err err = {""};
    int r = llm_engine_open(&params, &err, &engine);
    if (r < 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(r == -ENODEV ? SKIP : 1);
    }
    return engine;
}

static void must(int r, const struct err *err)
{
    if (r < 0) {
        fprintf(stderr, "%s\n", err->text);
        exit(1);
    }
}

/* Decode N_NEW tokens after each prompt, one session after the other. */
static void decode_alone(struct llm_engine *engine, struct line *lines, float *logits)
{
    struct llm_engine_info info;
    llm_engine_info(engine, &info);
    for (int i = 0; i < N; i++) {
        struct line *line = &lines[i];
        struct llm_session *session;
        struct err err = {""};
        int32_t *ids;
        size_t n_text;
        CHECK_EQ(tokenizer_encode(llm_engine_tokenizer(engine), prompts[i], strlen(prompts[i]),
                                  false, &ids, &n_text),
                 0);
        line->n_prompt = n_text + 1;
        CHECK(n_text > 0 && line->n_prompt + N_NEW <= CONTEXT);
        line->ids[0] = BOS;
        memcpy(line->ids + 1, ids, n_text * sizeof *ids);
        free(ids);
        must(llm_session_create(engine, CONTEXT, &err, &session), &err);
        for (size_t n = line->n_prompt; n < line->n_prompt + N_NEW; n++) {
            must(llm_session_sync(session, line->ids, n, logits, NULL, NULL, &err, NULL), &err);
            line->ids[n] = largest(logits, info.vocab);
        }
        llm_session_destroy(session);
    }
}

/* The same step with other sessions that have the same timelines, where the backend draws the
 * tokens: in ways that come to the best one. */
static void draw(struct llm_session *const *sessions, const int32_t *ids, uint32_t n, int at,
                 const float *logits, size_t vocab)
{
    struct llm_sampling how[N];
    uint32_t steps[N];
    int32_t drawn[N];
    struct err err = {""};
    for (uint32_t i = 0; i < n; i++) {
        bool greedy = at % 2 || i % 3 == 0;
        how[i] = (struct llm_sampling){.temperature = greedy ? 0 : 0.7f,
                                       .top_k = i % 3 == 1 ? 1 : 0,
                                       .top_p = i % 3 == 2 ? 1e-6f : 1,
                                       .repetition_penalty = 1,
                                       .seed = i};
        steps[i] = (uint32_t)at;
    }
    memcpy(drawn, ids, n * sizeof *ids);
    must(llm_sessions_draw(sessions, drawn, n, how, steps, drawn, &err), &err);
    for (uint32_t i = 0; i < n; i++) {
        CHECK_EQ(drawn[i], largest(logits + i * vocab, vocab));
    }
}

/* A step for those lines whose turn it is: the first tokens come one line after the other, and the
 * lines end in another order than they began. Returns the number of near ties. */
static int step(struct llm_session *const *sessions, struct llm_session *const *twins,
                const struct line *lines, int at, float *logits, size_t vocab, bool *ret_any)
{
    struct llm_session *which[N], *drawing[N];
    int32_t ids[N], wanted[N];
    struct err err = {""};
    uint32_t n = 0;
    int ties = 0;
    for (int i = 0; i < N; i++) {
        int first = i == 2 ? 5 : 0, k = at - first, last = i == 4 ? 7 : N_NEW - 1;
        if (k >= 0 && k < last) {
            which[n] = sessions[i];
            drawing[n] = twins[i];
            ids[n] = lines[i].ids[lines[i].n_prompt + (size_t)k];
            wanted[n++] = lines[i].ids[lines[i].n_prompt + (size_t)k + 1];
        }
    }
    *ret_any = n > 0;
    if (n == 0) {
        return 0;
    }
    must(llm_sessions_step(which, ids, n, logits, &err), &err);
    draw(drawing, ids, n, at, logits, vocab);
    for (uint32_t i = 0; i < n; i++) {
        const float *row = logits + i * vocab;
        int32_t got = largest(row, vocab);
        ties += got != wanted[i];
        if (got != wanted[i] && !(row[got] - row[wanted[i]] <= near_tie)) {
            fprintf(stderr, "step %d, row %u: token %d, alone it was %d, logits %g and %g\n", at, i,
                    got, wanted[i], row[got], row[wanted[i]]);
            exit(1);
        }
    }
    return ties;
}

static void test_refusals(struct llm_engine *engine, const char *backend, float *logits)
{
    struct llm_session *sessions[LLM_MAX_SEQUENCES + 1];
    int32_t ids[LLM_MAX_SEQUENCES + 1] = {2, 5};
    struct llm_engine_info info;
    struct err err = {""};
    size_t reused;
    llm_engine_info(engine, &info);
    must(llm_session_create(engine, 3, &err, &sessions[0]), &err);
    must(llm_session_create(engine, 8, &err, &sessions[1]), &err);
    for (int i = 2; i <= LLM_MAX_SEQUENCES; i++) {
        sessions[i] = sessions[0];
    }
    must(llm_sessions_step(sessions, ids, 2, logits, &err), &err);
    CHECK_EQ(llm_sessions_step(sessions, ids, 0, logits, &err), -EINVAL);
    CHECK_EQ(llm_sessions_step(sessions, ids, LLM_MAX_SEQUENCES + 1, logits, &err), -EINVAL);
    CHECK(strstr(err.text, "1 to 32"));
    CHECK_EQ(llm_sessions_step(sessions, ids, 3, logits, &err), -EINVAL);
    CHECK(strstr(err.text, "the same"));
    ids[1] = (int32_t)info.vocab;
    CHECK_EQ(llm_sessions_step(sessions, ids, 2, logits, &err), -EINVAL);
    CHECK(strstr(err.text, "vocabulary"));
    ids[1] = 5;
    must(llm_sessions_step(sessions, ids, 2, NULL, &err), &err);
    must(llm_sessions_step(sessions, ids, 2, logits, &err), &err);
    CHECK_EQ(llm_sessions_step(sessions, ids, 2, logits, &err), -E2BIG);
    const struct llm_sampling greedy = {.top_p = 1, .repetition_penalty = 1}, bad = {.top_p = 2};
    const struct llm_sampling how[2] = {greedy, bad};
    const uint32_t steps[2] = {0, 0};
    int32_t drawn[2];
    CHECK_EQ(llm_sessions_draw(sessions, ids, 2, how, steps, drawn, &err), -E2BIG);
    CHECK(strstr(err.text, "sequence 0") && strstr(err.text, "full"));
    CHECK_EQ(llm_sessions_draw(sessions + 1, ids, 1, how + 1, steps, drawn, &err), -EINVAL);
    CHECK(strstr(err.text, "top_p"));

    /* What was refused is not in the timeline, and what was not is. */
    const int32_t timeline[] = {5, 5, 5, 7};
    must(llm_session_sync(sessions[1], timeline, 4, logits, NULL, NULL, &err, &reused), &err);
    CHECK_EQ(reused, 3);

    struct llm_engine *other = open_engine(backend);
    llm_session_destroy(sessions[0]);
    must(llm_session_create(other, 8, &err, &sessions[0]), &err);
    CHECK_EQ(llm_sessions_step(sessions, ids, 2, logits, &err), -EINVAL);
    CHECK(strstr(err.text, "another model"));
    llm_session_destroy(sessions[0]);
    llm_session_destroy(sessions[1]);
    llm_engine_close(other);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    near_tie = strcmp(argv[1], "cpu") == 0 ? 1.0f : near_tie;
    static struct line lines[N];
    struct llm_engine *engine = open_engine(argv[1]);
    struct llm_engine_info info;
    struct llm_session *sessions[2 * N];
    struct err err = {""};
    llm_engine_info(engine, &info);
    float *logits = malloc((size_t)N * info.vocab * sizeof *logits);
    CHECK(logits);
    decode_alone(engine, lines, logits);
    for (int i = 0; i < 2 * N; i++) {
        const struct line *line = &lines[i % N];
        must(llm_session_create(engine, CONTEXT, &err, &sessions[i]), &err);
        must(llm_session_sync(sessions[i], line->ids, line->n_prompt, NULL, NULL, NULL, &err, NULL),
             &err);
    }
    bool any = true;
    int ties = 0;
    for (int at = 0; any; at++) {
        ties += step(sessions, sessions + N, lines, at, logits, info.vocab, &any);
    }
    size_t reused, n_line = lines[0].n_prompt + N_NEW;
    must(llm_session_sync(sessions[N], lines[0].ids, n_line, NULL, NULL, NULL, &err, &reused),
         &err);
    CHECK_EQ(reused, n_line - 1);
    printf("%s: %d sequences of %d tokens, together as alone, %d near ties\n", argv[1], N, N_NEW,
           ties);
    for (int i = 0; i < 2 * N; i++) {
        llm_session_destroy(sessions[i]);
    }
    test_refusals(engine, argv[1], logits);
    free(logits);
    llm_engine_close(engine);
    return 0;
}
