/* SPDX-License-Identifier: MIT */
/*
 * One HTTP request, from its headers to its reply, inside the server. Owns what every route needs:
 * who may ask, the body, the reply's headers. What a chat completion is, is completion.h's.
 * Everything here runs on the connection's own thread, which may wait.
 */
#ifndef HTTP_CALL_H
#define HTTP_CALL_H

#include <microhttpd.h>
#include <stdatomic.h>

#include "conns.h"
#include "guard.h"
#include "openai.h"
#include "queue.h"
#include "server.h"

/* What all calls share. Constant while connections are served, but for the atomics and what has its
 * own lock. */
struct server {
    const struct http_params *params;
    struct llm_engine_info info;
    struct llm_session *session; /* the queue's thread's, but for its constant sizes */
    struct queue *queue;
    struct conns conns;
    bool loopback;
    bool has_key;
    char key[GUARD_MAX_KEY_BYTES + 1];
    char fingerprint[24];
    int64_t started; /* seconds since 1970 */
    uint32_t send_timeout_s;
    uint32_t ping_ms;
    uint32_t max_queue;
    atomic_bool draining;
    atomic_bool broken; /* the engine failed at the latest request */
};

struct call {
    struct server *server;
    struct MHD_Connection *connection;
    struct conn *conn;
    const struct route *route;
    char id[65];         /* X-Request-Id */
    const char *origin;  /* of the page that may read the reply; NULL: none. libmicrohttpd's */
    const char *allow;   /* for 405 */
    uint64_t arrived_ns; /* when the request was complete, CLOCK_MONOTONIC */
    bool refused;
    struct openai_error refusal;
    char *body;
    size_t size, capacity;
};

/* libmicrohttpd's callbacks; cls is the server. */
enum MHD_Result call_on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                const char *method, const char *version, const char *upload_data,
                                size_t *upload_size, void **req_cls);
void call_on_completed(void *cls, struct MHD_Connection *connection, void **req_cls,
                       enum MHD_RequestTerminationCode why);
void call_on_connection(void *cls, struct MHD_Connection *connection, void **socket_cls,
                        enum MHD_ConnectionNotificationCode what);

/* The headers that every reply carries are added; response is consumed and may be NULL. */
enum MHD_Result call_reply(struct call *call, int status, struct MHD_Response *response);
/* json is malloc'ed and consumed; NULL (no memory) closes the connection. */
enum MHD_Result call_reply_json(struct call *call, int status, char *json);
enum MHD_Result call_reply_error(struct call *call, const struct openai_error *error);

/* One line to the server's log, after the request's id. */
void call_log(const struct server *server, const char *id, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
