/* SPDX-License-Identifier: MIT */
/* Writes replies in OpenAI's form: see openai.h. */
#include "openai.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

/* Consumes root, which may be NULL. The only reals are times and speeds. */
static char *dump(json_t *root)
{
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(root);
    return text;
}

/*
 * A string of ours that may quote a stranger's bytes (the parser's "near ..."), cut anywhere: what
 * is not ASCII is replaced if the whole is not valid UTF-8.
 */
static json_t *safe_string(const char *text)
{
    json_t *value = json_string(text);
    if (value) {
        return value;
    }
    char ascii[sizeof((struct openai_error *)0)->message];
    size_t n = 0;
    for (; text[n] && n < sizeof ascii - 1; n++) {
        ascii[n] = (unsigned char)text[n] < 0x80 ? text[n] : '?';
    }
    ascii[n] = '\0';
    return json_string(ascii);
}

static const char *error_type(int status)
{
    if (status == 429) {
        return "rate_limit_error";
    }
    return status < 500 ? "invalid_request_error" : "server_error";
}

char *openai_error_json(const struct openai_error *error)
{
    json_t *param = error->param[0] ? safe_string(error->param) : json_null();
    return dump(json_pack("{s:{s:o, s:s, s:o, s:s?}}", "error", "message",
                          safe_string(error->message), "type", error_type(error->status), "param",
                          param, "code", error->code));
}

char *openai_health_json(const struct openai_server *s)
{
    return dump(
        json_pack("{s:s, s:s, s:s, s:s, s:{s:s, s:s, s:I}, s:{s:I, s:I}, s:{s:I, s:I, s:b}}",
                  "status", s->status, "model", s->model, "backend", s->backend, "device",
                  s->device, "weights", "source", s->source, "memory", s->memory, "bytes",
                  (json_int_t)s->weight_bytes, "context", "max_tokens", (json_int_t)s->max_pos,
                  "kv_bytes", (json_int_t)s->kv_bytes, "queue", "depth", (json_int_t)s->queue_depth,
                  "limit", (json_int_t)s->queue_limit, "running", (int)s->running));
}

static json_t *model_object(const char *model, int64_t created)
{
    return json_pack("{s:s, s:s, s:I, s:s}", "id", model, "object", "model", "created",
                     (json_int_t)created, "owned_by", "gttrun");
}

char *openai_model_json(const char *model, int64_t created)
{
    return dump(model_object(model, created));
}

char *openai_models_json(const char *model, int64_t created)
{
    return dump(json_pack("{s:s, s:[o]}", "object", "list", "data", model_object(model, created)));
}

static json_t *usage_object(const struct openai_outcome *outcome)
{
    return json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens",
                     (json_int_t)outcome->prompt_tokens, "completion_tokens",
                     (json_int_t)outcome->completion_tokens, "total_tokens",
                     (json_int_t)(outcome->prompt_tokens + outcome->completion_tokens),
                     "prompt_tokens_details", "cached_tokens", (json_int_t)outcome->cached_tokens);
}

/* JSON has no infinity. */
static double finite_or_zero(double x)
{
    return isfinite(x) ? x : 0;
}

static json_t *timings_object(const struct openai_outcome *outcome)
{
    return json_pack("{s:f, s:f, s:f}", "first_token_ms", finite_or_zero(outcome->first_token_ms),
                     "prefill_tps", finite_or_zero(outcome->prefill_tps), "decode_tps",
                     finite_or_zero(outcome->decode_tps));
}

static const char *finish_reason(const struct openai_outcome *outcome)
{
    return outcome->length ? "length" : "stop";
}

/* Consumes choices. */
static json_t *reply_object(const struct openai_reply *reply, const char *object, json_t *choices)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:o}", "id", reply->id, "object", object, "created",
                     (json_int_t)reply->created, "model", reply->model, "system_fingerprint",
                     reply->fingerprint, "choices", choices);
}

/* Consumes value; a failure makes the whole NULL, as json_pack() does. */
static json_t *with(json_t *object, const char *key, json_t *value)
{
    if (object && json_object_set_new(object, key, value) < 0) {
        json_decref(object);
        return NULL;
    }
    if (!object) {
        json_decref(value);
    }
    return object;
}

char *openai_completion_json(const struct openai_reply *reply, const char *text, size_t size,
                             const struct openai_outcome *outcome)
{
    json_t *choices = json_pack("[{s:i, s:{s:s, s:s%, s:n}, s:n, s:s}]", "index", 0, "message",
                                "role", "assistant", "content", text, size, "refusal", "logprobs",
                                "finish_reason", finish_reason(outcome));
    json_t *root = reply_object(reply, "chat.completion", choices);
    root = with(root, "usage", usage_object(outcome));
    return dump(with(root, "timings", timings_object(outcome)));
}

/* Consumes delta. finish may be NULL. */
static json_t *chunk_object(const struct openai_reply *reply, json_t *delta, const char *finish)
{
    json_t *choices = json_pack("[{s:i, s:o, s:n, s:s?}]", "index", 0, "delta", delta, "logprobs",
                                "finish_reason", finish);
    json_t *root = reply_object(reply, "chat.completion.chunk", choices);
    return reply->null_usage ? with(root, "usage", json_null()) : root;
}

char *openai_role_chunk(const struct openai_reply *reply)
{
    json_t *delta = json_pack("{s:s, s:s}", "role", "assistant", "content", "");
    return dump(chunk_object(reply, delta, NULL));
}

char *openai_text_chunk(const struct openai_reply *reply, const char *text, size_t size)
{
    return dump(chunk_object(reply, json_pack("{s:s%}", "content", text, size), NULL));
}

char *openai_finish_chunk(const struct openai_reply *reply, const struct openai_outcome *outcome)
{
    json_t *root = chunk_object(reply, json_object(), finish_reason(outcome));
    return dump(with(root, "timings", timings_object(outcome)));
}

char *openai_usage_chunk(const struct openai_reply *reply, const struct openai_outcome *outcome)
{
    json_t *root = reply_object(reply, "chat.completion.chunk", json_array());
    return dump(with(root, "usage", usage_object(outcome)));
}
