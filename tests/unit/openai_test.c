/* SPDX-License-Identifier: MIT */
/* openai.h: what a request may say, how each wrong one is refused, and what replies look like. */
#include <errno.h>
#include <jansson.h>

#include "check.h"
#include "openai.h"

#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"

static int parse(const char *json, struct openai_request *ret, struct openai_error *error)
{
    return openai_request_parse(json, strlen(json), ret, error);
}

static struct openai_request parse_ok(const char *json)
{
    struct openai_request request;
    struct openai_error error;
    if (parse(json, &request, &error) < 0) {
        fprintf(stderr, "%s\n: %s\n", json, error.message);
        exit(1);
    }
    return request;
}

static void test_defaults(void)
{
    struct openai_request r = parse_ok("{" HI "}");
    CHECK(!r.model && !r.stream && !r.include_usage && !r.has_seed);
    CHECK_EQ(r.max_tokens, 0);
    CHECK_EQ(r.top_k, 64);
    CHECK_EQ(r.n_stops, 0);
    CHECK(r.temperature == 1.0 && r.top_p == 0.95 && r.min_p == 0 && r.repetition_penalty == 1);
    CHECK_EQ(r.n_messages, 1);
    CHECK_EQ(r.messages[0].role, OPENAI_USER);
    CHECK(strcmp(r.messages[0].text, "Hi") == 0 && r.messages[0].size == 2);
    openai_request_finish(&r);
    openai_request_finish(&r); /* harmless on what is finished */
}

static void test_everything(void)
{
    struct openai_request r = parse_ok(
        "{\"model\":\"m\",\"messages\":["
        "{\"role\":\"developer\",\"content\":\"Be brief.\",\"name\":\"x\"},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"A\\u00e9\"},"
        "{\"type\":\"text\",\"text\":\"B\"}]},"
        "{\"role\":\"assistant\",\"content\":\"C\",\"tool_calls\":null},"
        "{\"role\":\"user\",\"content\":\"\"}],"
        "\"max_tokens\":7,\"max_completion_tokens\":5,\"temperature\":0,\"top_p\":0.5,"
        "\"top_k\":3,\"min_p\":0.1,\"seed\":-1,\"repetition_penalty\":1.5,"
        "\"stop\":[\"x\",\"yy\"],\"n\":1,\"stream\":true,"
        "\"stream_options\":{\"include_usage\":true,\"include_obfuscation\":false},"
        "\"user\":\"u\",\"metadata\":{\"a\":1},\"store\":false,\"presence_penalty\":0,"
        "\"frequency_penalty\":0.0,\"logit_bias\":{},\"tools\":[],\"tool_choice\":\"auto\","
        "\"logprobs\":false,\"response_format\":{\"type\":\"text\"},\"modalities\":[\"text\"],"
        "\"typical_p\":1.0,\"cache_prompt\":true}");
    CHECK(strcmp(r.model, "m") == 0);
    CHECK_EQ(r.n_messages, 4);
    CHECK_EQ(r.messages[0].role, OPENAI_SYSTEM);
    CHECK(strcmp(r.messages[1].text, "A\xc3\xa9"
                                     "B") == 0);
    CHECK_EQ(r.messages[2].role, OPENAI_ASSISTANT);
    CHECK_EQ(r.messages[3].size, 0);
    CHECK_EQ(r.max_tokens, 5);
    CHECK(r.temperature == 0 && r.top_p == 0.5 && r.min_p == 0.1 && r.repetition_penalty == 1.5);
    CHECK_EQ(r.top_k, 3);
    CHECK(r.has_seed && r.seed == UINT64_MAX);
    CHECK_EQ(r.n_stops, 2);
    CHECK(strcmp(r.stops[0], "x") == 0 && strcmp(r.stops[1], "yy") == 0);
    CHECK(r.stream && r.include_usage);
    openai_request_finish(&r);

    r = parse_ok("{" HI ",\"stop\":\"one\",\"model\":null,\"seed\":null,\"max_tokens\":null,"
                 "\"temperature\":null,\"stream\":null,\"stream_options\":null}");
    CHECK_EQ(r.n_stops, 1);
    CHECK(!r.model && !r.has_seed && r.temperature == 1.0);
    openai_request_finish(&r);
}

/* body, and the param and a part of the message that the refusal must have */
static const struct {
    const char *json, *param, *part;
} REFUSED[] = {
    {"", "", "not valid JSON"},
    {"{", "", "not valid JSON"},
    {"nonsense", "", "not valid JSON"},
    {"[]", "", "must be a JSON object"},
    {"null", "", "must be a JSON object"},
    {"\"x\"", "", "must be a JSON object"},
    {"{} {}", "", "not valid JSON"},
    {"{" HI "," HI "}", "", "duplicate"},
    {"{" HI ",\"user\":\"\\u0000\"}", "", "not valid JSON"},
    {"{" HI ",\"user\":\"\\ud800\"}", "", "not valid JSON"},
    {"{" HI ",\"user\":\"\xff\"}", "", "not valid JSON"},
    {"{" HI ",\"user\":\"\xed\xa0\x80\"}", "", "not valid JSON"},
    {"{" HI ",\"temperature\":1e999}", "", "not valid JSON"},
    {"{" HI ",\"seed\":99999999999999999999}", "", "not valid JSON"},
    {"{}", "messages", "must be an array"},
    {"{\"messages\":{}}", "messages", "must be an array"},
    {"{\"messages\":[]}", "messages", "at least one"},
    {"{\"messages\":[1]}", "messages[0]", "must be an object"},
    {"{\"messages\":[{}]}", "messages[0].role", "must be a string"},
    {"{\"messages\":[{\"role\":\"tool\",\"content\":\"\"}]}", "messages[0].role", "must be system"},
    {"{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content", "must be a string"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":null}]}", "messages[0].content", ""},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[]}]}", "messages[0].content", ""},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[7]}]}", "messages[0].content[0]", "type"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}",
     "messages[0].content[0]", "text"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
     "{\"type\":\"image_url\",\"image_url\":{\"url\":\"x\"}}]}]}",
     "messages[0].content[1]", "text parts only"},
    {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{}]}]}",
     "messages[0].tool_calls", "does not support"},
    {"{" HI ",\"model\":1}", "model", "must be a string"},
    {"{" HI ",\"max_tokens\":0}", "max_tokens", "must be in 1"},
    {"{" HI ",\"max_tokens\":-1}", "max_tokens", "must be in 1"},
    {"{" HI ",\"max_tokens\":2147483648}", "max_tokens", "must be in 1"},
    {"{" HI ",\"max_tokens\":1.5}", "max_tokens", "must be an integer"},
    {"{" HI ",\"max_completion_tokens\":\"1\"}", "max_completion_tokens", "must be an integer"},
    {"{" HI ",\"temperature\":\"1\"}", "temperature", "must be a number"},
    {"{" HI ",\"temperature\":2.1}", "temperature", "must be in 0 .. 2"},
    {"{" HI ",\"temperature\":-0.1}", "temperature", "must be in 0 .. 2"},
    {"{" HI ",\"top_p\":1.01}", "top_p", "must be in 0 .. 1"},
    {"{" HI ",\"min_p\":-1}", "min_p", "must be in 0 .. 1"},
    {"{" HI ",\"top_k\":-1}", "top_k", "must be in 0 .."},
    {"{" HI ",\"repetition_penalty\":0}", "repetition_penalty", "must be in"},
    {"{" HI ",\"seed\":1.0}", "seed", "must be an integer"},
    {"{" HI ",\"seed\":\"1\"}", "seed", "must be an integer"},
    {"{" HI ",\"stop\":1}", "stop", "must be a string or an array"},
    {"{" HI ",\"stop\":\"\"}", "stop", "bytes"},
    {"{" HI ",\"stop\":[\"a\",1]}", "stop[1]", "must be a string"},
    {"{" HI ",\"stop\":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}", "stop", "at most 16"},
    {"{" HI ",\"stream\":1}", "stream", "must be a boolean"},
    {"{" HI ",\"stream_options\":true}", "stream_options", "must be an object"},
    {"{" HI ",\"stream_options\":{\"include_usage\":1}}", "stream_options.include_usage", ""},
    {"{" HI ",\"n\":2}", "n", "must be 1"},
    {"{" HI ",\"n\":0}", "n", ""},
    {"{" HI ",\"logprobs\":true}", "logprobs", "does not support"},
    {"{" HI ",\"top_logprobs\":2}", "top_logprobs", "does not support"},
    {"{" HI ",\"logit_bias\":{\"1\":2}}", "logit_bias", "does not support"},
    {"{" HI ",\"tools\":[{}]}", "tools", "does not support"},
    {"{" HI ",\"tool_choice\":\"required\"}", "tool_choice", "does not support"},
    {"{" HI ",\"functions\":[{}]}", "functions", "does not support"},
    {"{" HI ",\"response_format\":{\"type\":\"json_object\"}}", "response_format", ""},
    {"{" HI ",\"response_format\":\"text\"}", "response_format", ""},
    {"{" HI ",\"presence_penalty\":0.5}", "presence_penalty", "does not support"},
    {"{" HI ",\"frequency_penalty\":-1}", "frequency_penalty", "does not support"},
    {"{" HI ",\"modalities\":[\"audio\"]}", "modalities", "text only"},
    {"{" HI ",\"modalities\":{}}", "modalities", "text only"},
    {"{" HI ",\"typical_p\":0.5}", "typical_p", "does not support"},
    {"{" HI ",\"ignore_eos\":true}", "ignore_eos", "does not support"},
};

/* The error's JSON must be readable and say the same. */
static void check_error_json(const struct openai_error *error)
{
    char *text = openai_error_json(error);
    CHECK(text);
    json_t *root = json_loads(text, 0, NULL);
    const json_t *e = json_object_get(root, "error");
    CHECK(json_is_string(json_object_get(e, "message")));
    CHECK(strcmp(json_string_value(json_object_get(e, "type")), "invalid_request_error") == 0);
    CHECK(json_object_get(e, "code"));
    const json_t *param = json_object_get(e, "param");
    CHECK(error->param[0] ? json_is_string(param) : json_is_null(param));
    json_decref(root);
    free(text);
}

static void test_refused(void)
{
    for (size_t i = 0; i < sizeof REFUSED / sizeof REFUSED[0]; i++) {
        struct openai_request request;
        struct openai_error error;
        int r = parse(REFUSED[i].json, &request, &error);
        if (r != -EINVAL || error.status != 400 || strcmp(error.param, REFUSED[i].param) != 0 ||
            !strstr(error.message, REFUSED[i].part)) {
            fprintf(stderr, "%s: %d, status %d, param %s: %s\n", REFUSED[i].json, r,
                    r < 0 ? error.status : 0, r < 0 ? error.param : "", r < 0 ? error.message : "");
            exit(1);
        }
        check_error_json(&error);
    }
}

static char *repeat(const char *head, const char *piece, size_t n, const char *tail)
{
    size_t size = strlen(head) + n * strlen(piece) + strlen(tail) + 1;
    char *text = malloc(size), *end = text;
    CHECK(text);
    end = stpcpy(end, head);
    for (size_t i = 0; i < n; i++) {
        end = stpcpy(end, piece);
    }
    strcpy(end, tail);
    return text;
}

static void expect_refused(char *json, int status, const char *part)
{
    struct openai_request request;
    struct openai_error error;
    CHECK_EQ(parse(json, &request, &error), -EINVAL);
    CHECK_EQ(error.status, status);
    CHECK(strstr(error.message, part));
    free(json);
}

static void test_bounds(void)
{
    expect_refused(repeat("{\"user\":", "[", 100000, ""), 400, "nested deeper");
    expect_refused(repeat("{\"user\":[", "{},", 200000, "0]}"), 400, "more than");
    expect_refused(repeat("", " ", OPENAI_MAX_BODY_BYTES + 1, ""), 413, "exceeds");
    expect_refused(repeat("{" HI ",\"stop\":\"", "x", OPENAI_MAX_STOP_BYTES + 1, "\"}"), 400,
                   "bytes");

    /* brackets and commas in a string are text */
    char *json =
        repeat("{\"messages\":[{\"role\":\"user\",\"content\":\"", "[{,\\\"", 50000, "\"}]}");
    struct openai_request request = parse_ok(json);
    CHECK_EQ(request.messages[0].size, 4 * 50000);
    openai_request_finish(&request);
    free(json);

    /* a long conversation */
    json = repeat("{\"messages\":[", "{\"role\":\"user\",\"content\":\"x\"},", 10000,
                  "{\"role\":\"user\",\"content\":\"x\"}]}");
    request = parse_ok(json);
    CHECK_EQ(request.n_messages, 10001);
    openai_request_finish(&request);
    free(json);
}

/* Any prefix of a good body is refused and leaks nothing; any single flipped byte is survived. */
static void test_mutations(void)
{
    static const char GOOD[] = "{\"model\":\"m\"," HI ",\"stop\":[\"a\",\"b\"],\"seed\":1}";
    struct openai_request request;
    struct openai_error error;
    for (size_t n = 0; n < sizeof GOOD - 1; n++) {
        CHECK_EQ(openai_request_parse(GOOD, n, &request, &error), -EINVAL);
    }
    for (size_t i = 0; i < sizeof GOOD - 1; i++) {
        for (int bit = 0; bit < 8; bit++) {
            char body[sizeof GOOD];
            memcpy(body, GOOD, sizeof GOOD);
            body[i] = (char)(body[i] ^ (1 << bit));
            if (openai_request_parse(body, sizeof GOOD - 1, &request, &error) == 0) {
                openai_request_finish(&request);
            } else {
                CHECK_EQ(error.status, 400);
                char *text = openai_error_json(&error);
                CHECK(text);
                free(text);
            }
        }
    }
}

static json_t *loaded(char *text)
{
    CHECK(text);
    json_t *root = json_loads(text, 0, NULL);
    CHECK(root);
    free(text);
    return root;
}

static const char *string_at(const json_t *root, const char *choice_part, const char *key)
{
    const json_t *choice = json_array_get(json_object_get(root, "choices"), 0);
    const json_t *part = choice_part ? json_object_get(choice, choice_part) : choice;
    return json_string_value(json_object_get(part, key));
}

static const struct openai_reply REPLY = {"chatcmpl-1", "m", "fp_1", 1234, true};
static const struct openai_outcome OUTCOME = {.length = true,
                                              .prompt_tokens = 10,
                                              .cached_tokens = 4,
                                              .completion_tokens = 3,
                                              .first_token_ms = 12.345678,
                                              .prefill_tps = 1.0 / 0.0,
                                              .decode_tps = 100};

static void check_usage(const json_t *root)
{
    const json_t *usage = json_object_get(root, "usage");
    CHECK_EQ(json_integer_value(json_object_get(usage, "prompt_tokens")), 10);
    CHECK_EQ(json_integer_value(json_object_get(usage, "completion_tokens")), 3);
    CHECK_EQ(json_integer_value(json_object_get(usage, "total_tokens")), 13);
    const json_t *details = json_object_get(usage, "prompt_tokens_details");
    CHECK_EQ(json_integer_value(json_object_get(details, "cached_tokens")), 4);
}

static void test_whole_reply(void)
{
    json_t *root = loaded(openai_completion_json(&REPLY, "a\"\n\xc3\xa9", 5, &OUTCOME));
    CHECK(strcmp(json_string_value(json_object_get(root, "object")), "chat.completion") == 0);
    CHECK(strcmp(json_string_value(json_object_get(root, "id")), "chatcmpl-1") == 0);
    CHECK(strcmp(json_string_value(json_object_get(root, "model")), "m") == 0);
    CHECK(strcmp(json_string_value(json_object_get(root, "system_fingerprint")), "fp_1") == 0);
    CHECK_EQ(json_integer_value(json_object_get(root, "created")), 1234);
    CHECK(strcmp(string_at(root, "message", "role"), "assistant") == 0);
    CHECK(strcmp(string_at(root, "message", "content"), "a\"\n\xc3\xa9") == 0);
    CHECK(strcmp(string_at(root, NULL, "finish_reason"), "length") == 0);
    check_usage(root);
    const json_t *timings = json_object_get(root, "timings");
    CHECK(json_real_value(json_object_get(timings, "first_token_ms")) == 12.3457);
    CHECK(json_real_value(json_object_get(timings, "prefill_tps")) == 0); /* not infinite */
    CHECK(json_real_value(json_object_get(timings, "decode_tps")) == 100);
    json_decref(root);
}

static void test_chunks(void)
{
    json_t *root = loaded(openai_role_chunk(&REPLY));
    CHECK(strcmp(json_string_value(json_object_get(root, "object")), "chat.completion.chunk") == 0);
    CHECK(strcmp(string_at(root, "delta", "role"), "assistant") == 0);
    CHECK(json_is_null(json_object_get(root, "usage")));
    json_decref(root);

    root = loaded(openai_text_chunk(&REPLY, "abc", 2));
    CHECK(strcmp(string_at(root, "delta", "content"), "ab") == 0);
    CHECK(!string_at(root, NULL, "finish_reason"));
    json_decref(root);

    root = loaded(openai_finish_chunk(&REPLY, &OUTCOME));
    CHECK(strcmp(string_at(root, NULL, "finish_reason"), "length") == 0);
    CHECK(json_object_get(root, "timings"));
    json_decref(root);

    root = loaded(openai_usage_chunk(&REPLY, &OUTCOME));
    CHECK_EQ(json_array_size(json_object_get(root, "choices")), 0);
    check_usage(root);
    json_decref(root);

    struct openai_reply plain = REPLY;
    plain.null_usage = false;
    root = loaded(openai_role_chunk(&plain));
    CHECK(!json_object_get(root, "usage"));
    json_decref(root);
}

static void test_other_replies(void)
{
    json_t *root = loaded(openai_models_json("m", 5));
    const json_t *model = json_array_get(json_object_get(root, "data"), 0);
    CHECK(strcmp(json_string_value(json_object_get(model, "id")), "m") == 0);
    json_decref(root);

    struct openai_server server = {.status = "ok",
                                   .model = "m",
                                   .backend = "cpu",
                                   .device = "a \"device\"",
                                   .source = "private",
                                   .memory = "adopted",
                                   .weight_bytes = 1ull << 40,
                                   .queue_depth = 2,
                                   .queue_limit = 32,
                                   .running = true};
    root = loaded(openai_health_json(&server));
    const json_t *weights = json_object_get(root, "weights");
    CHECK(json_integer_value(json_object_get(weights, "bytes")) == 1ll << 40);
    CHECK_EQ(json_integer_value(json_object_get(json_object_get(root, "queue"), "depth")), 2);
    CHECK(json_is_true(json_object_get(json_object_get(root, "queue"), "running")));
    json_decref(root);
}

int main(void)
{
    test_defaults();
    test_everything();
    test_refused();
    test_bounds();
    test_mutations();
    test_whole_reply();
    test_chunks();
    test_other_replies();
    return 0;
}
