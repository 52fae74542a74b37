/* SPDX-License-Identifier: MIT */
/* Reads and checks the body of a chat completion: see openai.h. */
#include "openai.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gttd_util.h"

/* Fields that would change the answer. They may be present only with a value that asks for nothing:
 * null, false, 0, "", [], {}, or the one named here. */
static const struct {
    const char *name;
    const char *neutral; /* a string or, in JSON, a number; NULL: none */
} UNSUPPORTED[] = {
    {"tools", NULL},
    {"tool_choice", "none"},
    {"functions", NULL},
    {"function_call", "none"},
    {"response_format", NULL},
    {"logprobs", NULL},
    {"top_logprobs", NULL},
    {"logit_bias", NULL},
    {"presence_penalty", NULL},
    {"frequency_penalty", NULL},
    {"audio", NULL},
    {"web_search_options", NULL},
    {"grammar", NULL},
    {"json_schema", NULL},
    {"guided_json", NULL},
    {"guided_regex", NULL},
    {"guided_choice", NULL},
    {"guided_grammar", NULL},
    {"structured_outputs", NULL},
    {"ignore_eos", NULL},
    {"min_tokens", NULL},
    {"stop_token_ids", NULL},
    {"bad_words", NULL},
    {"mirostat", NULL},
    {"typical_p", "1"},
    {"dry_multiplier", NULL},
    {"xtc_probability", NULL},
    {"dynatemp_range", NULL},
    {"use_beam_search", NULL},
    {"best_of", "1"},
    {"suffix", NULL},
    {"echo", NULL},
};

int openai_refuse(struct openai_error *error, int status, const char *code, const char *param,
                  const char *fmt, ...)
{
    error->status = status;
    error->code = code;
    snprintf(error->param, sizeof error->param, "%s", param ? param : "");
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(error->message, sizeof error->message, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

static int no_memory(struct openai_error *error)
{
    openai_refuse(error, 500, NULL, NULL, "out of memory");
    return -ENOMEM;
}

static int wrong_type(struct openai_error *error, const char *param, const char *want)
{
    return openai_refuse(error, 400, "invalid_type", param, "%s must be %s", param, want);
}

/* Count brackets and commas before anything is allocated for them. */
static int check_bounds(const char *json, size_t size, struct openai_error *error)
{
    size_t depth = 0, n_values = 0;
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        char c = json[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
            continue;
        }
        in_string = c == '"';
        depth += c == '{' || c == '[';
        n_values += c == '{' || c == '[' || c == ',';
        depth -= depth > 0 && (c == '}' || c == ']');
        if (depth > OPENAI_MAX_DEPTH) {
            return openai_refuse(error, 400, "invalid_json", NULL,
                                 "the body is nested deeper than %d levels", OPENAI_MAX_DEPTH);
        }
        if (n_values > OPENAI_MAX_VALUES) {
            return openai_refuse(error, 400, "invalid_json", NULL,
                                 "the body has more than %d values", OPENAI_MAX_VALUES);
        }
    }
    return 0;
}

/* A member that is there and not null, or NULL. */
static const json_t *member(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

static int get_bool(const json_t *object, const char *name, bool *ret, struct openai_error *error)
{
    const json_t *value = member(object, name);
    if (!value) {
        return 0;
    }
    if (!json_is_boolean(value)) {
        return wrong_type(error, name, "a boolean");
    }
    *ret = json_is_true(value);
    return 0;
}

static int get_number(const json_t *object, const char *name, double min, double max, double *ret,
                      struct openai_error *error)
{
    const json_t *value = member(object, name);
    if (!value) {
        return 0;
    }
    if (!json_is_number(value)) {
        return wrong_type(error, name, "a number");
    }
    double number = json_number_value(value);
    if (!(number >= min && number <= max)) {
        return openai_refuse(error, 400, "invalid_value", name, "%s must be in %g .. %g", name, min,
                             max);
    }
    *ret = number;
    return 0;
}

static int get_count(const json_t *object, const char *name, uint32_t min, uint32_t *ret,
                     struct openai_error *error)
{
    const json_t *value = member(object, name);
    if (!value) {
        return 0;
    }
    if (!json_is_integer(value)) {
        return wrong_type(error, name, "an integer");
    }
    json_int_t number = json_integer_value(value);
    if (number < min || number > INT32_MAX) {
        return openai_refuse(error, 400, "invalid_value", name, "%s must be in %u .. %d", name, min,
                             INT32_MAX);
    }
    *ret = (uint32_t)number;
    return 0;
}

static bool asks_for_nothing(const json_t *value, const char *neutral)
{
    switch (json_typeof(value)) {
    case JSON_NULL:
    case JSON_FALSE:
        return true;
    case JSON_INTEGER:
    case JSON_REAL:
        return json_number_value(value) == 0 ||
               (neutral && json_number_value(value) == strtod(neutral, NULL));
    case JSON_STRING:
        return json_string_length(value) == 0 ||
               (neutral && strcmp(json_string_value(value), neutral) == 0);
    case JSON_ARRAY:
        return json_array_size(value) == 0;
    case JSON_OBJECT:
        return json_object_size(value) == 0;
    case JSON_TRUE:
        break;
    }
    return false;
}

/* "auto" chooses among tools, of which there are none; "text" is what we give anyway. */
static bool is_harmless(const char *name, const json_t *value)
{
    if (strcmp(name, "tool_choice") == 0 || strcmp(name, "function_call") == 0) {
        return json_is_string(value) && strcmp(json_string_value(value), "auto") == 0;
    }
    if (strcmp(name, "response_format") == 0) {
        const char *type = json_string_value(json_object_get(value, "type"));
        return type && strcmp(type, "text") == 0;
    }
    return false;
}

static int check_unsupported(const json_t *root, struct openai_error *error)
{
    for (size_t i = 0; i < ARRAY_SIZE(UNSUPPORTED); i++) {
        const char *name = UNSUPPORTED[i].name;
        const json_t *value = json_object_get(root, name);
        if (value && !asks_for_nothing(value, UNSUPPORTED[i].neutral) &&
            !is_harmless(name, value)) {
            return openai_refuse(error, 400, "unsupported_parameter", name,
                                 "this server does not support %s", name);
        }
    }
    uint32_t n = 1;
    int r = get_count(root, "n", 1, &n, error);
    if (r == 0 && n != 1) {
        r = openai_refuse(error, 400, "unsupported_value", "n",
                          "this server gives one answer: n "
                          "must be 1");
    }
    const json_t *modalities = member(root, "modalities");
    if (r == 0 && modalities) {
        const char *first = json_string_value(json_array_get(modalities, 0));
        if (json_array_size(modalities) != 1 || !first || strcmp(first, "text") != 0) {
            r = openai_refuse(error, 400, "unsupported_value", "modalities",
                              "this server answers with text only");
        }
    }
    return r;
}

static int get_role(const json_t *message, const char *param, enum openai_role *ret,
                    struct openai_error *error)
{
    static const struct {
        const char *name;
        enum openai_role role;
    } ROLES[] = {
        {"system", OPENAI_SYSTEM},
        {"developer", OPENAI_SYSTEM},
        {"user", OPENAI_USER},
        {"assistant", OPENAI_ASSISTANT},
    };
    const char *name = json_string_value(json_object_get(message, "role"));
    if (!name) {
        return wrong_type(error, param, "a string");
    }
    for (size_t i = 0; i < ARRAY_SIZE(ROLES); i++) {
        if (strcmp(name, ROLES[i].name) == 0) {
            *ret = ROLES[i].role;
            return 0;
        }
    }
    return openai_refuse(error, 400, "invalid_value", param,
                         "%s must be system, developer, user or assistant", param);
}

static int set_text(const char *text, size_t size, struct openai_message *message,
                    struct openai_error *error)
{
    message->text = malloc(size + 1);
    if (!message->text) {
        return no_memory(error);
    }
    memcpy(message->text, text, size);
    message->text[size] = '\0';
    message->size = size;
    return 0;
}

/* The texts of an array of {"type": "text", "text": ...}, one after another. */
static int join_parts(const json_t *parts, const char *param, struct openai_message *message,
                      struct openai_error *error)
{
    size_t i, size = 0;
    const json_t *part;
    json_array_foreach(parts, i, part)
    {
        char name[sizeof error->param];
        snprintf(name, sizeof name, "%s[%zu]", param, i);
        const char *type = json_string_value(json_object_get(part, "type"));
        if (!type) {
            return wrong_type(error, name, "an object with a type");
        }
        if (strcmp(type, "text") != 0) {
            return openai_refuse(error, 400, "unsupported_value", name,
                                 "%s: this server reads text parts only", name);
        }
        if (!json_is_string(json_object_get(part, "text"))) {
            return wrong_type(error, name, "a text part with a string text");
        }
        size += json_string_length(json_object_get(part, "text"));
    }
    AUTO_FREE char *text = malloc(size + 1);
    if (!text) {
        return no_memory(error);
    }
    char *end = text;
    json_array_foreach(parts, i, part)
    {
        const json_t *value = json_object_get(part, "text");
        end = mempcpy(end, json_string_value(value), json_string_length(value));
    }
    return set_text(text, size, message, error);
}

static int get_message(const json_t *value, size_t index, struct openai_message *ret,
                       struct openai_error *error)
{
    char param[64], field[sizeof param + 16];
    snprintf(param, sizeof param, "messages[%zu]", index);
    if (!json_is_object(value)) {
        return wrong_type(error, param, "an object");
    }
    snprintf(field, sizeof field, "%s.role", param);
    int r = get_role(value, field, &ret->role, error);
    if (r < 0) {
        return r;
    }
    static const char *const CALLS[] = {"tool_calls", "function_call"};
    for (size_t i = 0; i < ARRAY_SIZE(CALLS); i++) {
        const json_t *calls = json_object_get(value, CALLS[i]);
        if (calls && !asks_for_nothing(calls, NULL)) {
            snprintf(field, sizeof field, "%s.%s", param, CALLS[i]);
            return openai_refuse(error, 400, "unsupported_parameter", field,
                                 "this server does not support %s", field);
        }
    }
    const json_t *content = json_object_get(value, "content");
    snprintf(field, sizeof field, "%s.content", param);
    if (json_is_string(content)) {
        return set_text(json_string_value(content), json_string_length(content), ret, error);
    }
    if (json_is_array(content) && json_array_size(content) > 0) {
        return join_parts(content, field, ret, error);
    }
    return wrong_type(error, field, "a string or an array of text parts");
}

static int get_messages(const json_t *root, struct openai_request *ret, struct openai_error *error)
{
    const json_t *messages = json_object_get(root, "messages");
    size_t n = json_array_size(messages);
    if (!json_is_array(messages)) {
        return wrong_type(error, "messages", "an array");
    }
    if (n == 0) {
        return openai_refuse(error, 400, "invalid_value", "messages",
                             "messages must hold at least one message");
    }
    ret->messages = calloc(n, sizeof *ret->messages);
    if (!ret->messages) {
        return no_memory(error);
    }
    ret->n_messages = n;
    for (size_t i = 0; i < n; i++) {
        int r = get_message(json_array_get(messages, i), i, &ret->messages[i], error);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int add_stop(const json_t *value, const char *param, struct openai_request *ret,
                    struct openai_error *error)
{
    if (!json_is_string(value)) {
        return wrong_type(error, param, "a string");
    }
    size_t size = json_string_length(value);
    if (size == 0 || size > OPENAI_MAX_STOP_BYTES) {
        return openai_refuse(error, 400, "invalid_value", param, "%s must have 1 .. %d bytes",
                             param, OPENAI_MAX_STOP_BYTES);
    }
    char *stop = strdup(json_string_value(value));
    if (!stop) {
        return no_memory(error);
    }
    ret->stops[ret->n_stops++] = stop;
    return 0;
}

static int get_stops(const json_t *root, struct openai_request *ret, struct openai_error *error)
{
    const json_t *stop = member(root, "stop");
    if (!stop) {
        return 0;
    }
    if (json_is_string(stop)) {
        return add_stop(stop, "stop", ret, error);
    }
    if (!json_is_array(stop)) {
        return wrong_type(error, "stop", "a string or an array of strings");
    }
    if (json_array_size(stop) > OPENAI_MAX_STOPS) {
        return openai_refuse(error, 400, "invalid_value", "stop",
                             "stop must hold at most %d strings", OPENAI_MAX_STOPS);
    }
    for (size_t i = 0; i < json_array_size(stop); i++) {
        char param[32];
        snprintf(param, sizeof param, "stop[%zu]", i);
        int r = add_stop(json_array_get(stop, i), param, ret, error);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int get_model(const json_t *root, struct openai_request *ret, struct openai_error *error)
{
    const json_t *model = member(root, "model");
    if (!model) {
        return 0;
    }
    if (!json_is_string(model)) {
        return wrong_type(error, "model", "a string");
    }
    ret->model = strdup(json_string_value(model));
    return ret->model ? 0 : no_memory(error);
}

static int get_seed(const json_t *root, struct openai_request *ret, struct openai_error *error)
{
    const json_t *seed = member(root, "seed");
    if (!seed) {
        return 0;
    }
    if (!json_is_integer(seed)) {
        return wrong_type(error, "seed", "an integer");
    }
    ret->has_seed = true;
    ret->seed = (uint64_t)json_integer_value(seed);
    return 0;
}

static int get_sampling(const json_t *root, struct openai_request *ret, struct openai_error *error)
{
    ret->temperature = 1.0;
    ret->top_p = 0.95;
    ret->repetition_penalty = 1.0;
    ret->top_k = 64;
    int r = get_number(root, "temperature", 0, 2, &ret->temperature, error);
    if (r < 0 || (r = get_number(root, "top_p", 0, 1, &ret->top_p, error)) < 0 ||
        (r = get_number(root, "min_p", 0, 1, &ret->min_p, error)) < 0 ||
        (r = get_number(root, "repetition_penalty", 0.01, 10, &ret->repetition_penalty, error)) <
            0 ||
        (r = get_count(root, "top_k", 0, &ret->top_k, error)) < 0) {
        return r;
    }
    return get_seed(root, ret, error);
}

static int get_stream(const json_t *root, struct openai_request *ret, struct openai_error *error)
{
    int r = get_bool(root, "stream", &ret->stream, error);
    const json_t *options = member(root, "stream_options");
    if (r < 0 || !options) {
        return r;
    }
    if (!json_is_object(options)) {
        return wrong_type(error, "stream_options", "an object");
    }
    const json_t *usage = member(options, "include_usage");
    if (usage && !json_is_boolean(usage)) {
        return wrong_type(error, "stream_options.include_usage", "a boolean");
    }
    ret->include_usage = json_is_true(usage);
    return 0;
}

static int read_fields(const json_t *root, struct openai_request *ret, struct openai_error *error)
{
    int r = check_unsupported(root, error);
    if (r < 0 || (r = get_model(root, ret, error)) < 0 ||
        (r = get_messages(root, ret, error)) < 0 || (r = get_sampling(root, ret, error)) < 0 ||
        (r = get_stops(root, ret, error)) < 0 || (r = get_stream(root, ret, error)) < 0 ||
        (r = get_count(root, "max_tokens", 1, &ret->max_tokens, error)) < 0) {
        return r;
    }
    /* the newer name of the same thing; it wins */
    return get_count(root, "max_completion_tokens", 1, &ret->max_tokens, error);
}

int openai_request_parse(const void *json, size_t size, struct openai_request *ret,
                         struct openai_error *error)
{
    if (size > OPENAI_MAX_BODY_BYTES) {
        return openai_refuse(error, 413, "body_too_large", NULL, "the body exceeds %u bytes",
                             OPENAI_MAX_BODY_BYTES);
    }
    int r = check_bounds(json, size, error);
    if (r < 0) {
        return r;
    }
    json_error_t where;
    json_t *root = json_loadb(json, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &where);
    if (!root && json_error_code(&where) == json_error_out_of_memory) {
        return no_memory(error);
    }
    if (!root) {
        return openai_refuse(error, 400, "invalid_json", NULL,
                             "the body is not valid JSON: line %d, column %d: %s", where.line,
                             where.column, where.text);
    }
    struct openai_request request = {0};
    r = json_is_object(root)
            ? read_fields(root, &request, error)
            : openai_refuse(error, 400, "invalid_json", NULL, "the body must be a JSON object");
    json_decref(root);
    if (r < 0) {
        openai_request_finish(&request);
        return r;
    }
    *ret = request;
    return 0;
}

void openai_request_finish(struct openai_request *request)
{
    free(request->model);
    for (size_t i = 0; i < request->n_messages; i++) {
        free(request->messages[i].text);
    }
    free(request->messages);
    for (size_t i = 0; i < request->n_stops; i++) {
        free(request->stops[i]);
    }
    *request = (struct openai_request){0};
}
