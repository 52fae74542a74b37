/* SPDX-License-Identifier: MIT */
/*
 * OpenAI's chat API as C structs: a request's JSON read and checked, replies written. Knows neither
 * sockets nor the engine; owns no state, so any thread may call anything here. Everything in a
 * request comes from a stranger: what is wrong with it is answered in the API's own form, naming
 * the field.
 */
#ifndef HTTP_OPENAI_H
#define HTTP_OPENAI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPENAI_MAX_BODY_BYTES (8u << 20)
#define OPENAI_MAX_DEPTH      32    /* of nested objects and arrays */
#define OPENAI_MAX_VALUES     65536 /* in one body: bounds what parsing it can allocate */
#define OPENAI_MAX_STOPS      16
#define OPENAI_MAX_STOP_BYTES 1024

/* What the client is told, and with which HTTP status. */
struct openai_error {
    int status;
    const char *code; /* "model_not_found"; NULL: null */
    char param[128];  /* "messages[0].content"; empty: null */
    char message[512];
};

/* Fill in an error; returns -EINVAL, so that a failure is one line. param may be NULL. */
int openai_refuse(struct openai_error *error, int status, const char *code, const char *param,
                  const char *fmt, ...) __attribute__((format(printf, 5, 6)));

enum openai_role { OPENAI_SYSTEM, OPENAI_USER, OPENAI_ASSISTANT };

struct openai_message {
    enum openai_role role;
    char *text; /* valid UTF-8, NUL-terminated, without NULs inside */
    size_t size;
};

struct openai_request {
    char *model; /* NULL: not given */
    struct openai_message *messages;
    size_t n_messages;
    uint32_t max_tokens; /* 0: as many as fit */
    double temperature;
    double top_p;
    double min_p;
    double repetition_penalty;
    uint32_t top_k; /* 0: off */
    bool has_seed;
    uint64_t seed;
    char *stops[OPENAI_MAX_STOPS];
    size_t n_stops;
    bool stream;
    bool include_usage;
};

/*
 * Read the body of a chat completion. What is missing gets Gemma's defaults (temperature 1, top_k
 * 64, top_p 0.95). A field that would change the answer and is not implemented is refused; other
 * unknown fields are ignored. On success the caller finishes *ret. -EINVAL with *error filled in
 * (status 400), -ENOMEM with status 500.
 */
int openai_request_parse(const void *json, size_t size, struct openai_request *ret,
                         struct openai_error *error);
void openai_request_finish(struct openai_request *request);

/* What every reply to one request starts with. Strings are borrowed. */
struct openai_reply {
    const char *id;
    const char *model;
    const char *fingerprint;
    int64_t created; /* seconds since 1970 */
    bool null_usage; /* chunks before the last carry "usage": null */
};

/* How an answer ended. */
struct openai_outcome {
    bool length; /* finish_reason "length", else "stop" */
    size_t prompt_tokens;
    size_t cached_tokens; /* of prompt_tokens */
    size_t completion_tokens;
    double first_token_ms; /* since the request had arrived */
    double prefill_tps;
    double decode_tps;
};

struct openai_server {
    const char *status; /* "ok", "draining" */
    const char *model, *backend, *device, *source, *memory;
    uint64_t weight_bytes;
    uint64_t kv_bytes;
    uint32_t max_pos;
    size_t queue_depth; /* waiting, without the one that runs */
    size_t queue_limit;
    bool running;
};

/* All of these return malloc'ed JSON, the caller's, or NULL when there is no memory. */
char *openai_error_json(const struct openai_error *error);
char *openai_health_json(const struct openai_server *server);
char *openai_model_json(const char *model, int64_t created);
char *openai_models_json(const char *model, int64_t created);
char *openai_completion_json(const struct openai_reply *reply, const char *text, size_t size,
                             const struct openai_outcome *outcome);
/* The chunks of a stream, in this order: role, text ..., finish, and usage if it was asked for. */
char *openai_role_chunk(const struct openai_reply *reply);
char *openai_text_chunk(const struct openai_reply *reply, const char *text, size_t size);
char *openai_finish_chunk(const struct openai_reply *reply, const struct openai_outcome *outcome);
char *openai_usage_chunk(const struct openai_reply *reply, const struct openai_outcome *outcome);

#endif
