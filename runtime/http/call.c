/* SPDX-License-Identifier: MIT */
/* One HTTP request: see call.h. */
#include "call.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "completion.h"
#include "gttd_util.h"

struct route {
    const char *path;
    const char *method; /* a GET route answers HEAD too */
    const char *allow;
    bool open; /* needs no key */
    enum MHD_Result (*answer)(struct call *call);
};

static enum MHD_Result answer_health(struct call *call)
{
    struct server *server = call->server;
    struct queue_load load = queue_load(server->queue);
    bool draining = atomic_load(&server->draining), broken = atomic_load(&server->broken);
    struct openai_server health = {
        .status = draining ? "draining"
                  : broken ? "error"
                           : "ok",
        .model = server->info.model_id,
        .backend = server->info.backend,
        .device = server->info.device,
        .source = server->info.source,
        .memory = server->info.memory,
        .weight_bytes = server->info.weight_bytes,
        .kv_bytes = llm_session_kv_bytes(server->session),
        .max_pos = llm_session_max_pos(server->session),
        .queue_depth = load.n_waiting,
        .queue_limit = server->max_queue,
        .running = load.running,
    };
    return call_reply_json(call, draining || broken ? 503 : 200, openai_health_json(&health));
}

static enum MHD_Result answer_models(struct call *call)
{
    return call_reply_json(call, 200,
                           openai_models_json(call->server->info.model_id, call->server->started));
}

static enum MHD_Result answer_model(struct call *call)
{
    return call_reply_json(call, 200,
                           openai_model_json(call->server->info.model_id, call->server->started));
}

#define GET_ALLOW  "GET, HEAD, OPTIONS"
#define POST_ALLOW "POST, OPTIONS"

static const struct route ROUTES[] = {
    {"/health", "GET", GET_ALLOW, true, answer_health},
    {"/v1/models", "GET", GET_ALLOW, false, answer_models},
    {"/v1/chat/completions", "POST", POST_ALLOW, false, completion_answer},
};
static const struct route MODEL_ROUTE = {"/v1/models/", "GET", GET_ALLOW, false, answer_model};

static const char *header(const struct call *call, const char *name)
{
    return MHD_lookup_connection_value(call->connection, MHD_HEADER_KIND, name);
}

void call_log(const struct server *server, const char *id, const char *fmt, ...)
{
    char text[640], line[sizeof text + 80];
    if (!server->params->log) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(line, sizeof line, "%s: %s", id, text);
    server->params->log(server->params->data, line);
}

/* --- the reply --- */

static bool add_header(struct MHD_Response *response, const char *name, const char *value)
{
    return MHD_add_response_header(response, name, value) == MHD_YES;
}

static bool add_headers(const struct call *call, int status, struct MHD_Response *response)
{
    bool ok =
        add_header(response, "X-Request-Id", call->id) && add_header(response, "Vary", "Origin");
    if (call->origin) {
        ok = ok && add_header(response, "Access-Control-Allow-Origin", call->origin) &&
             add_header(response, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
    }
    if (status == 401) {
        ok = ok && add_header(response, "WWW-Authenticate", "Bearer");
    } else if (status == 405) {
        ok = ok && add_header(response, "Allow", call->route->allow);
    } else if (status == 429) {
        ok = ok && add_header(response, "Retry-After", "1");
    }
    if (atomic_load(&call->server->draining)) {
        ok = ok && add_header(response, "Connection", "close");
    }
    return ok;
}

enum MHD_Result call_reply(struct call *call, int status, struct MHD_Response *response)
{
    enum MHD_Result result = MHD_NO;
    if (response && add_headers(call, status, response)) {
        result = MHD_queue_response(call->connection, (unsigned)status, response);
    }
    if (response) {
        MHD_destroy_response(response);
    }
    return result;
}

enum MHD_Result call_reply_json(struct call *call, int status, char *json)
{
    if (!json) {
        return MHD_NO;
    }
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(json), json, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(json);
        return MHD_NO;
    }
    if (!add_header(response, "Content-Type", "application/json")) {
        MHD_destroy_response(response);
        return MHD_NO;
    }
    return call_reply(call, status, response);
}

enum MHD_Result call_reply_error(struct call *call, const struct openai_error *error)
{
    return call_reply_json(call, error->status, openai_error_json(error));
}

/* What a browser asks before it lets a page ask. */
static enum MHD_Result reply_preflight(struct call *call)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    bool ok = response && add_header(response, "Allow", call->route->allow);
    if (ok && call->origin) {
        /* libmicrohttpd lets no CR or LF into a header's value */
        const char *wanted = header(call, "Access-Control-Request-Headers");
        ok = add_header(response, "Access-Control-Allow-Methods", call->route->allow) &&
             add_header(response, "Access-Control-Allow-Headers",
                        wanted && *wanted ? wanted : "Authorization, Content-Type") &&
             add_header(response, "Access-Control-Max-Age", "600");
    }
    if (!ok && response) {
        MHD_destroy_response(response);
        return MHD_NO;
    }
    return call_reply(call, 204, response);
}

/* --- the request --- */

/* The client's own id if it is a plain word, else one of ours. */
static void choose_id(struct call *call)
{
    const char *given = header(call, "X-Request-Id");
    size_t n = given ? strlen(given) : 0;
    if (n > 0 && n < sizeof call->id &&
        strspn(given, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n) {
        memcpy(call->id, given, n + 1);
        return;
    }
    uint64_t random = 0;
    if (getrandom(&random, sizeof random, 0) != sizeof random) {
        random = (uint64_t)(uintptr_t)call;
    }
    snprintf(call->id, sizeof call->id, "req-%016llx", (unsigned long long)random);
}

static const struct route *find_route(const struct server *server, const char *url)
{
    for (size_t i = 0; i < ARRAY_SIZE(ROUTES); i++) {
        if (strcmp(url, ROUTES[i].path) == 0) {
            return &ROUTES[i];
        }
    }
    size_t n = strlen(MODEL_ROUTE.path);
    if (strncmp(url, MODEL_ROUTE.path, n) == 0 && strcmp(url + n, server->info.model_id) == 0) {
        return &MODEL_ROUTE;
    }
    return NULL;
}

static int refuse_no_route(const struct server *server, const char *url,
                           struct openai_error *refusal)
{
    if (strncmp(url, MODEL_ROUTE.path, strlen(MODEL_ROUTE.path)) == 0) {
        return openai_refuse(refusal, 404, "model_not_found", "model",
                             "no such model; this server has %s", server->info.model_id);
    }
    return openai_refuse(refusal, 404, "not_found", NULL, "no such route");
}

static bool is_method(const struct route *route, const char *method)
{
    return strcmp(method, route->method) == 0 ||
           (strcmp(method, "HEAD") == 0 && strcmp(route->method, "GET") == 0) ||
           strcmp(method, "OPTIONS") == 0;
}

/* All that can be said against a request before its body: 0, or -EINVAL with call->refusal. */
static int judge(struct call *call, const char *url, const char *method)
{
    struct server *server = call->server;
    struct openai_error *refusal = &call->refusal;
    const char *host = header(call, "Host"), *origin = header(call, "Origin");
    if (server->loopback && host && !guard_host_is_local(host)) {
        return openai_refuse(refusal, 403, "host_not_allowed", NULL,
                             "the Host header must name localhost, 127.0.0.1 or [::1]");
    }
    if (origin && guard_origin_allowed(origin, host)) {
        call->origin = origin;
    } else if (origin && strcmp(method, "POST") == 0) {
        return openai_refuse(refusal, 403, "origin_not_allowed", NULL,
                             "pages of other sites may not use this server");
    }
    call->route = find_route(server, url);
    if (!call->route) {
        return refuse_no_route(server, url, refusal);
    }
    if (!is_method(call->route, method)) {
        return openai_refuse(refusal, 405, "method_not_allowed", NULL, "use %s",
                             call->route->method);
    }
    if (strcmp(method, "OPTIONS") == 0) {
        return 0;
    }
    if (server->has_key && !call->route->open &&
        !guard_has_key(header(call, "Authorization"), server->key)) {
        return openai_refuse(refusal, 401, "invalid_api_key", NULL,
                             "this server wants its API key: Authorization: Bearer KEY");
    }
    if (atomic_load(&server->draining) && !call->route->open) {
        return openai_refuse(refusal, 503, "stopping", NULL, "the server is stopping");
    }
    const char *length = header(call, "Content-Length");
    if (length && strtoull(length, NULL, 10) > OPENAI_MAX_BODY_BYTES) {
        return openai_refuse(refusal, 413, "body_too_large", NULL, "the body exceeds %u bytes",
                             OPENAI_MAX_BODY_BYTES);
    }
    return 0;
}

static enum MHD_Result begin(struct server *server, struct MHD_Connection *connection,
                             const char *url, const char *method, void **req_cls)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct call *call = calloc(1, sizeof *call);
    if (!call || !info->socket_context) {
        free(call);
        return MHD_NO;
    }
    *req_cls = call;
    call->server = server;
    call->connection = connection;
    call->conn = info->socket_context;
    choose_id(call);
    call->refused = judge(call, url, method) < 0;
    /* A reply now means that the body is never read and the connection must close, which can cost a
     * client that is still sending the reply itself: only one that waits for our word gets it. */
    if (call->refused && header(call, "Expect")) {
        return call_reply_error(call, &call->refusal);
    }
    return MHD_YES;
}

/* Keep a piece of the body, or drop it when the call is refused already. */
static void receive(struct call *call, const char *data, size_t size)
{
    if (call->refused) {
        return;
    }
    if (size > OPENAI_MAX_BODY_BYTES - call->size) {
        call->refused = true;
        openai_refuse(&call->refusal, 413, "body_too_large", NULL, "the body exceeds %u bytes",
                      OPENAI_MAX_BODY_BYTES);
    } else if (call->size + size > call->capacity) {
        size_t capacity = call->capacity ? call->capacity : 4096;
        while (capacity < call->size + size) {
            capacity *= 2;
        }
        char *body = realloc(call->body, capacity);
        if (body) {
            call->body = body;
            call->capacity = capacity;
        } else {
            call->refused = true;
            openai_refuse(&call->refusal, 503, NULL, NULL, "out of memory");
        }
    }
    if (call->refused) {
        free(call->body);
        call->body = NULL;
        call->size = call->capacity = 0;
        return;
    }
    memcpy(call->body + call->size, data, size);
    call->size += size;
}

enum MHD_Result call_on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                const char *method, const char *version, const char *upload_data,
                                size_t *upload_size, void **req_cls)
{
    (void)version;
    struct call *call = *req_cls;
    if (!call) {
        return begin(cls, connection, url, method, req_cls);
    }
    if (*upload_size > 0) {
        receive(call, upload_data, *upload_size);
        *upload_size = 0;
        return MHD_YES;
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    call->arrived_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    conns_set_busy(&call->server->conns, call->conn, true);
    if (call->refused) {
        return call_reply_error(call, &call->refusal);
    }
    return strcmp(method, "OPTIONS") == 0 ? reply_preflight(call) : call->route->answer(call);
}

void call_on_completed(void *cls, struct MHD_Connection *connection, void **req_cls,
                       enum MHD_RequestTerminationCode why)
{
    (void)cls;
    (void)connection;
    (void)why;
    struct call *call = *req_cls;
    if (call) {
        conns_set_busy(&call->server->conns, call->conn, false);
        free(call->body);
        free(call);
        *req_cls = NULL;
    }
}

void call_on_connection(void *cls, struct MHD_Connection *connection, void **socket_cls,
                        enum MHD_ConnectionNotificationCode what)
{
    struct server *server = cls;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        *socket_cls = conns_add(&server->conns, info->connect_fd);
    } else {
        conns_remove(&server->conns, *socket_cls);
        *socket_cls = NULL;
    }
}
