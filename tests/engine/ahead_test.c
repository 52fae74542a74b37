/* SPDX-License-Identifier: MIT */
/*
 * Generating with the device some steps ahead of the text, on the bundled model: the answer is that
 * of drawing every token on the host, however it ends, and the session can be used afterwards as if
 * nothing had been decoded beyond the end. Arguments: [BACKEND] (default vulkan).
 */
#include <errno.h>
#include <stdio.h>

#include "check.h"
#include "llm.h"

#define MODEL "models/wordbook-22m"

static const char prompt_text[] =
    "<bos><start_of_turn>user\nWhat does the word candle mean?<end_of_turn>\n<start_of_turn>model\n";

struct prompt {
    int32_t ids[256];
    size_t n;
};

static struct llm_engine *engine;
static struct prompt prompt;
static const struct llm_sampling greedy = {.top_p = 1, .repetition_penalty = 1};

/* Stops an answer from without. */
struct stopper {
    int asked, texts;           /* how often so far */
    int stop_asked, stop_texts; /* at which one to stop; 0: never */
};

static bool is_cancelled(void *data)
{
    struct stopper *stopper = data;
    return ++stopper->asked == stopper->stop_asked;
}

static int on_text(void *data, const char *text, size_t size)
{
    struct stopper *stopper = data;
    CHECK(text && size > 0);
    return ++stopper->texts == stopper->stop_texts;
}

static struct llm_session *new_session(uint32_t max_pos)
{
    struct llm_session *session;
    struct err err;
    CHECK_EQ(llm_session_create(engine, max_pos, &err, &session), 0);
    return session;
}

static struct llm_result generate(struct llm_session *session, const struct llm_request *request)
{
    struct llm_result result;
    struct err err;
    int r = llm_generate(session, request, &err, &result);
    if (r < 0) {
        fprintf(stderr, "%s\n", err.text);
    }
    CHECK_EQ(r, 0);
    return result;
}

static void expect_same(const struct llm_result *a, const struct llm_result *b)
{
    CHECK_EQ(a->n_ids, b->n_ids);
    CHECK(memcmp(a->ids, b->ids, a->n_ids * sizeof *a->ids) == 0);
    CHECK_EQ(a->finish, b->finish);
    CHECK_EQ(a->text_size, b->text_size);
    CHECK(memcmp(a->text, b->text, a->text_size) == 0);
}

/* What a session gives afterwards: of the prompt, the answer without its last token, and one more.
 * Nothing of the prompt and but the last token of the answer is computed again. */
static void logits_after(struct llm_session *session, const struct llm_result *result,
                         float *logits)
{
    int32_t ids[1024];
    size_t n = prompt.n, reused;
    struct err err;
    memcpy(ids, prompt.ids, n * sizeof *ids);
    if (result->n_ids > 0) {
        memcpy(ids + n, result->ids, (result->n_ids - 1) * sizeof *ids);
        n += result->n_ids - 1;
    }
    CHECK(n < 1023);
    ids[n] = 42;
    CHECK_EQ(llm_session_sync(session, ids, n + 1, logits, NULL, NULL, &err, &reused), 0);
    CHECK_EQ(reused, result->n_ids > 0 ? n : 0);
}

/* The same request with every token drawn on the host, and with so many steps ahead; what the
 * sessions then hold is the same to the last bit, and used again. */
static struct llm_result compare(struct llm_request request, uint32_t max_pos, uint32_t n_ahead,
                                 struct stopper *stopper)
{
    static float want[8192], got[8192];
    struct llm_session *here = new_session(max_pos), *there = new_session(max_pos);
    struct stopper copy = stopper ? *stopper : (struct stopper){0};
    request.prompt = prompt.ids;
    request.n_prompt = prompt.n;
    request.data = &copy;
    request.n_ahead = n_ahead;
    request.sample_on_host = true;
    struct llm_result expected = generate(here, &request);
    copy = stopper ? *stopper : (struct stopper){0};
    request.sample_on_host = false;
    struct llm_result result = generate(there, &request);
    expect_same(&expected, &result);
    CHECK_EQ(expected.n_reused, result.n_reused);
    if (prompt.n + result.n_ids < llm_session_max_pos(here)) {
        logits_after(here, &expected, want);
        logits_after(there, &result, got);
        CHECK(memcmp(want, got, sizeof want) == 0);
    }
    if (n_ahead == LLM_AHEAD_MAX) { /* the same session from the start */
        llm_result_finish(&result);
        llm_session_forget(there);
        copy = stopper ? *stopper : (struct stopper){0};
        result = generate(there, &request);
        expect_same(&expected, &result);
    }
    llm_result_finish(&expected);
    llm_session_destroy(here);
    llm_session_destroy(there);
    return result;
}

static void test_ends(void)
{
    static const uint32_t aheads[] = {1, 2, LLM_AHEAD_MAX};
    for (int i = 0; i < 3; i++) {
        const uint32_t n_ahead = aheads[i];
        struct llm_request request = {.sampling = greedy, .max_tokens = 60};
        struct llm_result result = compare(request, 512, n_ahead, NULL); /* an end token */
        CHECK(result.finish == LLM_FINISH_STOP && result.n_ids > 8);
        llm_result_finish(&result);

        request.max_tokens = 5;
        result = compare(request, 512, n_ahead, NULL);
        CHECK(result.finish == LLM_FINISH_LENGTH && result.n_ids == 5);
        llm_result_finish(&result);

        request = (struct llm_request){.sampling = greedy, .max_tokens = 22, .ignore_eos = true};
        result = compare(request, 512, n_ahead, NULL);
        CHECK(result.finish == LLM_FINISH_LENGTH && result.n_ids == 22);
        llm_result_finish(&result);

        static const char *const stops[] = {"wax", "never"};
        request = (struct llm_request){.sampling = greedy, .stops = stops, .n_stops = 2};
        result = compare(request, 512, n_ahead, NULL);
        CHECK(result.finish == LLM_FINISH_STOP && !strstr(result.text, "wax"));
        llm_result_finish(&result);

        uint32_t full = (uint32_t)prompt.n + 7; /* the context */
        request = (struct llm_request){.sampling = greedy, .ignore_eos = true};
        result = compare(request, full, n_ahead, NULL);
        CHECK(result.finish == LLM_FINISH_LENGTH && result.n_ids == 7);
        llm_result_finish(&result);
    }
}

static void test_cancelled(void)
{
    for (int step = 1; step <= 9; step += step < 4 ? 1 : 5) {
        struct stopper stopper = {.stop_asked = step};
        struct llm_request request = {.sampling = greedy,
                                      .max_tokens = 12,
                                      .cancelled = is_cancelled};
        struct llm_result result = compare(request, 512, LLM_AHEAD_MAX, &stopper);
        CHECK(result.finish == LLM_FINISH_CANCELLED);
        llm_result_finish(&result);

        stopper = (struct stopper){.stop_texts = step};
        request = (struct llm_request){.sampling = greedy,
                                       .max_tokens = 40,
                                       .ignore_eos = true,
                                       .on_text = on_text};
        result = compare(request, 512, 3, &stopper);
        CHECK(result.finish == LLM_FINISH_CANCELLED);
        llm_result_finish(&result);
    }
}

static void test_sampled(void)
{
    static const struct llm_logit_bias bias[] = {{300, 4}, {1000, -50}};
    static uint32_t allowed[8192 / 32];
    for (int i = 0; i < 8192 / 32; i++) {
        allowed[i] = i % 3 ? 0xffffffff : 0x55555555;
    }
    struct llm_sampling list[] = {
        {.temperature = 1, .top_k = 64, .top_p = 0.95f, .repetition_penalty = 1},
        {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
        {.temperature = 2, .top_p = 0.9f, .repetition_penalty = 1.2f},
        {.temperature = 1.5f, .top_k = 10, .top_p = 1, .min_p = 0.05f, .repetition_penalty = 0.9f},
        {.temperature = 0, .top_p = 1, .repetition_penalty = 1.7f},
        {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .bias = bias, .n_bias = 2},
        {.temperature = 1, .top_k = 5, .top_p = 1, .repetition_penalty = 1, .allowed = allowed},
        {.temperature = 0, .top_p = 1, .repetition_penalty = 1, .allowed = allowed},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        list[i].seed = 7 + i;
        struct llm_request request = {.sampling = list[i], .max_tokens = 12, .ignore_eos = true};
        struct llm_result result = compare(request, 256, 1 + (uint32_t)i % LLM_AHEAD_MAX, NULL);
        for (size_t k = 0; k < result.n_ids && list[i].allowed; k++) {
            CHECK(allowed[result.ids[k] / 32] >> (result.ids[k] % 32) & 1);
        }
        llm_result_finish(&result);
    }
}

/* Turns of a conversation in one session, against the same in another that draws on the host. */
static void test_turns(void)
{
    struct llm_session *here = new_session(1024), *there = new_session(1024);
    int32_t ids[1024];
    size_t n = prompt.n;
    memcpy(ids, prompt.ids, n * sizeof *ids);
    for (int turn = 0; turn < 2; turn++) {
        struct llm_request request = {.prompt = ids,
                                      .n_prompt = n,
                                      .sampling = greedy,
                                      .max_tokens = 40,
                                      .sample_on_host = true};
        struct llm_result want = generate(here, &request);
        request.sample_on_host = false;
        struct llm_result got = generate(there, &request);
        expect_same(&want, &got);
        CHECK_EQ(want.n_reused, got.n_reused);
        CHECK(turn == 0 || got.n_reused >= n - prompt.n - 1);
        memcpy(ids + n, got.ids, got.n_ids * sizeof *ids);
        n += got.n_ids;
        memcpy(ids + n, prompt.ids + 1, (prompt.n - 1) * sizeof *ids);
        n += prompt.n - 1;
        llm_result_finish(&want);
        llm_result_finish(&got);
    }
    llm_session_destroy(here);
    llm_session_destroy(there);
}

static void test_refused(void)
{
    struct llm_session *session = new_session(64);
    struct llm_request request = {.prompt = prompt.ids,
                                  .n_prompt = prompt.n,
                                  .sampling = greedy,
                                  .n_ahead = LLM_AHEAD_MAX + 1};
    struct llm_result result;
    struct err err;
    CHECK_EQ(llm_generate(session, &request, &err, &result), -EINVAL);
    CHECK(strstr(err.text, "ahead"));
    llm_session_destroy(session);
}

static void log_line(void *data, const char *text)
{
    (void)data;
    fprintf(stderr, "  %s\n", text);
}

int main(int argc, char **argv)
{
    struct llm_engine_params params = {.model_dir = MODEL,
                                       .backend = argc > 1 ? argv[1] : "vulkan",
                                       .private_weights = true,
                                       .validate = true,
                                       .log = log_line};
    struct err err;
    int r = llm_engine_open(&params, &err, &engine);
    if (r == -ENODEV) {
        printf("skipped: %s\n", err.text);
        return SKIP;
    }
    if (r == -ENOENT) {
        printf("NOT VALIDATED: %s\n", err.text);
        params.validate = false;
        r = llm_engine_open(&params, &err, &engine);
    }
    if (r < 0) {
        fprintf(stderr, "%s\n", err.text);
    }
    CHECK_EQ(r, 0);
    int32_t *ids;
    CHECK_EQ(tokenizer_encode(llm_engine_tokenizer(engine), prompt_text, strlen(prompt_text), true,
                              &ids, &prompt.n),
             0);
    CHECK(prompt.n > 4 && prompt.n < 64);
    memcpy(prompt.ids, ids, prompt.n * sizeof *ids);
    free(ids);
    test_ends();
    test_cancelled();
    test_sampled();
    test_turns();
    test_refused();
    llm_engine_close(engine);
    return 0;
}
