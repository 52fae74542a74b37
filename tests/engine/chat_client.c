/* SPDX-License-Identifier: MIT */
/* Chat completions for tests: see chat_client.h. */
#include "chat_client.h"

#include <jansson.h>
#include <unistd.h>

#include "check.h"

char *chat_body(const char *question, const char *fields)
{
    char *body;
    json_t *q = json_string(question);
    char *quoted = json_dumps(q, JSON_ENCODE_ANY);
    CHECK(quoted);
    CHECK(asprintf(&body, "{\"messages\":[{\"role\":\"user\",\"content\":%s}]%s}", quoted, fields) >
          0);
    free(quoted);
    json_decref(q);
    return body;
}

static void copy_string(char *to, size_t capacity, const json_t *from)
{
    snprintf(to, capacity, "%s", json_is_string(from) ? json_string_value(from) : "");
}

static void add_text(struct chat *chat, const char *text)
{
    size_t size = chat->text ? strlen(chat->text) : 0;
    chat->text = realloc(chat->text, size + strlen(text) + 1);
    CHECK(chat->text);
    strcpy(chat->text + size, text);
}

static void take_error(const json_t *error, struct chat *chat)
{
    CHECK(json_is_string(json_object_get(error, "message")));
    CHECK(json_is_string(json_object_get(error, "type")));
    copy_string(chat->error_code, sizeof chat->error_code, json_object_get(error, "code"));
    copy_string(chat->error_param, sizeof chat->error_param, json_object_get(error, "param"));
}

static size_t count_of(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    CHECK(json_is_integer(value) && json_integer_value(value) >= 0);
    return (size_t)json_integer_value(value);
}

static void take_usage(const json_t *usage, struct chat *chat)
{
    chat->prompt_tokens = count_of(usage, "prompt_tokens");
    chat->completion_tokens = count_of(usage, "completion_tokens");
    chat->cached_tokens =
        count_of(json_object_get(usage, "prompt_tokens_details"), "cached_tokens");
    CHECK_EQ(count_of(usage, "total_tokens"), chat->prompt_tokens + chat->completion_tokens);
    CHECK(chat->cached_tokens <= chat->prompt_tokens);
}

static void check_common(const json_t *root, const char *object)
{
    CHECK(strcmp(json_string_value(json_object_get(root, "object")), object) == 0);
    CHECK(strncmp(json_string_value(json_object_get(root, "id")), "chatcmpl-", 9) == 0);
    CHECK(strncmp(json_string_value(json_object_get(root, "system_fingerprint")), "fp_", 3) == 0);
    CHECK(json_integer_value(json_object_get(root, "created")) > 1500000000);
    CHECK(json_is_string(json_object_get(root, "model")));
}

static void check_timings(const json_t *root)
{
    const json_t *timings = json_object_get(root, "timings");
    CHECK(json_real_value(json_object_get(timings, "first_token_ms")) > 0);
    CHECK(json_is_real(json_object_get(timings, "prefill_tps")));
    CHECK(json_is_real(json_object_get(timings, "decode_tps")));
}

/* Chunks come in this order: role, texts, finish, usage; or an error event at any point. */
enum stage { BEFORE_ROLE, IN_TEXT, AFTER_FINISH, AFTER_USAGE };

static void take_chunk(const json_t *root, enum stage *stage, struct chat *chat)
{
    if (json_object_get(root, "error")) {
        take_error(json_object_get(root, "error"), chat);
        return;
    }
    check_common(root, "chat.completion.chunk");
    const json_t *choices = json_object_get(root, "choices");
    if (json_array_size(choices) == 0) {
        CHECK_EQ(*stage, AFTER_FINISH);
        *stage = AFTER_USAGE;
        take_usage(json_object_get(root, "usage"), chat);
        return;
    }
    const json_t *choice = json_array_get(choices, 0), *delta = json_object_get(choice, "delta");
    const json_t *finish = json_object_get(choice, "finish_reason");
    if (*stage == BEFORE_ROLE) {
        CHECK(strcmp(json_string_value(json_object_get(delta, "role")), "assistant") == 0);
        CHECK(json_is_null(finish));
        *stage = IN_TEXT;
        return;
    }
    CHECK_EQ(*stage, IN_TEXT);
    if (json_is_null(finish)) {
        add_text(chat, json_string_value(json_object_get(delta, "content")));
        chat->n_text_chunks++;
        return;
    }
    CHECK_EQ(json_object_size(delta), 0);
    copy_string(chat->finish, sizeof chat->finish, finish);
    check_timings(root);
    *stage = AFTER_FINISH;
}

static void take_stream(const char *body, struct chat *chat)
{
    enum stage stage = BEFORE_ROLE;
    while (*body && !chat->done) {
        const char *end = strstr(body, "\n\n");
        if (!end) {
            break; /* cut off */
        }
        if (body[0] == ':') { /* a comment */
            body = end + 2;
            continue;
        }
        CHECK(strncmp(body, "data: ", 6) == 0);
        if (strncmp(body + 6, "[DONE]", 6) == 0) {
            chat->done = true;
        } else {
            json_t *root = json_loadb(body + 6, (size_t)(end - body) - 6, 0, NULL);
            CHECK(root);
            take_chunk(root, &stage, chat);
            json_decref(root);
        }
        body = end + 2;
    }
    CHECK(!chat->done || body[0] == '\0');
}

static void take_whole(const json_t *root, struct chat *chat)
{
    check_common(root, "chat.completion");
    const json_t *choice = json_array_get(json_object_get(root, "choices"), 0);
    const json_t *message = json_object_get(choice, "message");
    CHECK(strcmp(json_string_value(json_object_get(message, "role")), "assistant") == 0);
    add_text(chat, json_string_value(json_object_get(message, "content")));
    copy_string(chat->finish, sizeof chat->finish, json_object_get(choice, "finish_reason"));
    take_usage(json_object_get(root, "usage"), chat);
    check_timings(root);
    chat->done = true;
}

struct chat chat_parse(const struct reply *reply)
{
    struct chat chat = {.status = reply->status};
    add_text(&chat, "");
    if (reply->status == 0) {
        return chat;
    }
    CHECK(has_header(reply, "X-Request-Id: "));
    if (has_header(reply, "Content-Type: text/event-stream")) {
        CHECK_EQ(reply->status, 200);
        take_stream(reply->body, &chat);
        CHECK(!chat.done || reply->whole);
        return chat;
    }
    CHECK(has_header(reply, "Content-Type: application/json") && reply->whole);
    json_t *root = json_loads(reply->body, 0, NULL);
    CHECK(root);
    if (reply->status == 200) {
        take_whole(root, &chat);
    } else {
        take_error(json_object_get(root, "error"), &chat);
    }
    json_decref(root);
    return chat;
}

struct chat chat_ask(int port, bool stream, const char *question, const char *fields)
{
    char *all;
    CHECK(asprintf(&all, "%s%s", fields,
                   stream ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : "") >=
          0);
    char *body = chat_body(question, all);
    struct reply reply;
    post(port, "", body, &reply);
    struct chat chat = chat_parse(&reply);
    reply_finish(&reply);
    free(body);
    free(all);
    return chat;
}

void chat_finish(struct chat *chat)
{
    free(chat->text);
    *chat = (struct chat){0};
}

const char *chat_find_long(int port, const char *question)
{
    static char fields[128];
    /* the end of a turn is in the prompt, so that the penalty makes it rare */
    for (int seed = 1; seed < 100; seed++) {
        char probe[sizeof fields + 32];
        snprintf(fields, sizeof fields, ",\"temperature\":2,\"repetition_penalty\":10,\"seed\":%d",
                 seed);
        snprintf(probe, sizeof probe, "%s,\"max_tokens\":400", fields);
        struct chat chat = chat_ask(port, true, question, probe);
        bool is_long = chat.status == 200 && chat.completion_tokens == 400;
        chat_finish(&chat);
        if (is_long) {
            return fields;
        }
    }
    fprintf(stderr, "no seed makes a long answer\n");
    exit(1);
}

void chat_load(int port, bool *ret_running, int *ret_waiting)
{
    struct reply reply;
    get(port, "/health", &reply);
    json_t *root = json_loads(reply.body, 0, NULL);
    const json_t *queue = json_object_get(root, "queue");
    *ret_running = json_is_true(json_object_get(queue, "running"));
    *ret_waiting = (int)json_integer_value(json_object_get(queue, "depth"));
    json_decref(root);
    reply_finish(&reply);
}

void chat_wait_load(int port, bool running, int waiting)
{
    bool now_running = !running;
    int now_waiting = -1;
    for (int i = 0; i < 6000; i++) {
        chat_load(port, &now_running, &now_waiting);
        if (now_running == running && now_waiting == waiting) {
            return;
        }
        usleep(10000);
    }
    fprintf(stderr, "running %d, waiting %d; want %d and %d\n", now_running, now_waiting, running,
            waiting);
    exit(1);
}
