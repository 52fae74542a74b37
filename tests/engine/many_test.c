/* SPDX-License-Identifier: MIT */
/*
 * Several sessions of the bundled model decoded together: many_test BACKEND. Greedy text is the
 * same as alone, whoever else is in a step, and however many steps are in flight; what
 * llm_sessions_step() refuses changes nothing.
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
    struct llm_engine_params params = {.model_dir = MODEL,
                                       .backend = backend,
                                       .private_weights = true,
                                       .validate = strcmp(backend, "vulkan") == 0};
    struct llm_engine *engine;
    struct err err = {""};
    int r = llm_engine_open(&params, &err, &engine);
    if (r == -ENOENT && params.validate) {
        printf("NOT VALIDATED: %s\n", err.text);
        params.validate = false;
        r = llm_engine_open(&params, &err, &engine);
    }
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
    struct llm_decoder *decoder;
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
    must(llm_decoder_start(sessions, ids, n, how, steps, &err, &decoder), &err);
    must(llm_decoder_next(decoder, 1, drawn, &err), &err);
    llm_decoder_stop(decoder);
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
    struct llm_decoder *decoder;
    CHECK_EQ(llm_decoder_start(sessions, ids, 2, how, steps, &err, &decoder), -E2BIG);
    CHECK(strstr(err.text, "sequence 0") && strstr(err.text, "full"));
    CHECK_EQ(llm_decoder_start(sessions + 1, ids, 1, how + 1, steps, &err, &decoder), -EINVAL);
    CHECK(strstr(err.text, "top_p"));
    ids[0] = -1;
    CHECK_EQ(llm_decoder_start(sessions + 1, ids, 1, how, steps, &err, &decoder), -EINVAL);
    CHECK(strstr(err.text, "vocabulary"));

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

static void new_sessions(struct llm_engine *engine, const struct line *lines, uint32_t room,
                         struct llm_session **ret)
{
    struct err err = {""};
    for (int i = 0; i < 3; i++) {
        uint32_t max_pos = (uint32_t)lines[i].n_prompt + room + (uint32_t)i;
        must(llm_session_create(engine, max_pos, &err, &ret[i]), &err);
        must(llm_session_sync(ret[i], lines[i].ids, lines[i].n_prompt, NULL, NULL, NULL, &err,
                              NULL),
             &err);
    }
}

/* Steps in flight, until a context is full: the tokens are those of a decoder for each step, and
 * what was collected is in the timelines. */
static void test_decoder(struct llm_engine *engine, const struct line *lines, uint32_t n_ahead)
{
    enum { THREE = 3, ROOM = 9, TAKEN = 7 };
    struct llm_session *ahead[THREE], *plain[THREE];
    struct llm_decoder *decoder, *other;
    struct llm_sampling how[THREE];
    int32_t ids[THREE], first[THREE], drawn[THREE], timeline[CONTEXT];
    uint32_t steps[THREE] = {0, 5, 1};
    struct llm_engine_info info;
    struct err err = {""};
    size_t reused;
    llm_engine_info(engine, &info);
    new_sessions(engine, lines, n_ahead == 1 ? ROOM : TAKEN, ahead);
    new_sessions(engine, lines, ROOM, plain);
    for (int i = 0; i < THREE; i++) {
        how[i] = (struct llm_sampling){.temperature = i == 1 ? 1 : 0,
                                       .top_k = i == 1 ? 40 : 0,
                                       .top_p = 1,
                                       .repetition_penalty = i == 2 ? 1.3f : 1,
                                       .seed = 11};
        ids[i] = first[i] = lines[i].ids[lines[i].n_prompt];
    }
    memcpy(timeline, lines[0].ids, lines[0].n_prompt * sizeof *timeline);
    must(llm_decoder_start(ahead, first, THREE, how, steps, &err, &decoder), &err);
    CHECK_EQ(llm_decoder_start(ahead, first, 1, how, steps, &err, &other), -EBUSY);
    CHECK_EQ(llm_sessions_step(ahead + 1, first, 1, NULL, &err), -EBUSY);
    CHECK_EQ(llm_session_sync(ahead[2], first, 1, NULL, NULL, NULL, &err, NULL), -EBUSY);
    if (info.draws_ahead) { /* the others' steps need the same memory */
        CHECK_EQ(llm_sessions_step(plain, first, 2, NULL, &err), -EBUSY);
        CHECK(strstr(err.text, "together"));
        CHECK_EQ(llm_decoder_start(plain, first, 2, how, steps, &err, &other), -EBUSY);
    }
    CHECK_EQ(llm_decoder_next(decoder, 0, drawn, &err), -EINVAL);
    CHECK_EQ(llm_decoder_next(decoder, LLM_AHEAD_MAX + 1, drawn, &err), -EINVAL);
    int32_t taken[TAKEN][THREE];
    for (int k = 0; k < TAKEN; k++) {
        must(llm_decoder_next(decoder, n_ahead, taken[k], &err), &err);
    }
    if (n_ahead > 1) {
        CHECK_EQ(llm_decoder_next(decoder, n_ahead, drawn, &err), -E2BIG);
        CHECK(strstr(err.text, "sequence 0") && strstr(err.text, "full"));
    }
    llm_decoder_stop(decoder);
    must(llm_session_sync(plain[0], timeline, lines[0].n_prompt, NULL, NULL, NULL, &err, &reused),
         &err);
    CHECK_EQ(reused, lines[0].n_prompt); /* what was refused has changed nothing */
    for (uint32_t k = 0; k < TAKEN; k++) {
        timeline[lines[0].n_prompt + k] = ids[0];
        must(llm_decoder_start(plain, ids, THREE, how, steps, &err, &decoder), &err);
        must(llm_decoder_next(decoder, 1, ids, &err), &err);
        llm_decoder_stop(decoder);
        CHECK(memcmp(ids, taken[k], sizeof ids) == 0);
        for (int i = 0; i < THREE; i++) {
            steps[i]++;
        }
    }
    must(llm_session_sync(ahead[0], timeline, lines[0].n_prompt + TAKEN, NULL, NULL, NULL, &err,
                          &reused),
         &err);
    CHECK_EQ(reused, lines[0].n_prompt + TAKEN);
    for (int i = 0; i < THREE; i++) {
        llm_session_destroy(ahead[i]);
        llm_session_destroy(plain[i]);
    }
}

/* A row whose logits are not numbers, and a step that is timed: both are the decoder's last, and
 * the sessions have to be computed again. */
static void test_last_steps(struct llm_engine *engine, const struct line *lines)
{
    static const struct llm_logit_bias bias[] = {{300, 3e38f}, {300, 3e38f}}; /* they add up */
    struct llm_session *sessions[3];
    struct llm_sampling how[3];
    struct llm_decoder *decoder;
    struct llm_engine_info info;
    struct err err = {""};
    int32_t ids[3] = {5, 6, 7};
    const uint32_t steps[3] = {0};
    size_t reused;
    llm_engine_info(engine, &info);
    for (uint32_t timed = 0; timed < 2; timed++) {
        new_sessions(engine, lines, 4, sessions);
        for (int i = 0; i < 3; i++) {
            bool is_bad = i == 2 && !timed;
            how[i] = (struct llm_sampling){.temperature = 1,
                                           .top_p = 1,
                                           .repetition_penalty = 1.5f,
                                           .bias = bias,
                                           .n_bias = is_bad ? 2 : 1};
        }
        must(llm_decoder_start(sessions, ids, 3, how, steps, &err, &decoder), &err);
        if (timed) {
            struct kernel_time times[64];
            size_t n = 0;
            int r = llm_decoder_profile(decoder, times, 64, &n, &err);
            CHECK_EQ(r, info.draws_ahead ? 0 : -ENOTSUP);
            CHECK(!info.draws_ahead || (n > 4 && times[0].seconds > 0));
        } else {
            CHECK_EQ(llm_decoder_next(decoder, 2, ids, &err), -EDOM);
        }
        if (!timed || info.draws_ahead) {
            CHECK_EQ(llm_decoder_next(decoder, 2, ids, &err), -EINVAL);
        }
        llm_decoder_stop(decoder);
        must(llm_session_sync(sessions[0], lines[0].ids, lines[0].n_prompt, NULL, NULL, NULL, &err,
                              &reused),
             &err);
        CHECK_EQ(reused, timed && !info.draws_ahead ? lines[0].n_prompt : 0);
        for (int i = 0; i < 3; i++) {
            llm_session_destroy(sessions[i]);
        }
    }
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
    test_last_steps(engine, lines);
    for (uint32_t n_ahead = 1; n_ahead <= LLM_AHEAD_MAX; n_ahead += 7) {
        test_decoder(engine, lines, n_ahead);
    }
    free(logits);
    llm_engine_close(engine);
    return 0;
}
