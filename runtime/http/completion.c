/* SPDX-License-Identifier: MIT */
/* Chat completions over HTTP: see completion.h. */
#include "completion.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "answer.h"
#include "gttd_util.h"

/* An answer on its way to one client. */
struct completion {
    struct server *server;
    struct answer *answer;
    bool submitted; /* the queue has the answer's job */
    bool logged;
    struct MHD_Connection *connection;
    int socket; /* of connection */
    char request_id[65];
    char id[80];
    struct openai_reply reply;

    /* of a stream: */
    enum { SEND_ROLE, SEND_TEXT, SEND_END } next;
    char *out; /* being sent, malloc'ed */
    size_t out_size, out_sent;
};

enum event { EVENT_PIPE, EVENT_TIMEOUT, EVENT_GONE };

static enum event wait_for(const struct completion *c, int timeout_ms)
{
    /* The time the engine takes is not the client's idleness: without a timeout libmicrohttpd
     * leaves its clock alone, and setting one again starts it anew. */
    MHD_set_connection_option(c->connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
    struct pollfd fds[] = {
        {.fd = c->socket, .events = POLLRDHUP},
        {.fd = c->answer->pipe.fd, .events = POLLIN},
    };
    int n;
    do {
        n = poll(fds, ARRAY_SIZE(fds), timeout_ms);
    } while (n < 0 && errno == EINTR);
    MHD_set_connection_option(c->connection, MHD_CONNECTION_OPTION_TIMEOUT,
                              (unsigned)c->server->send_timeout_s);
    if (n < 0 || fds[0].revents) {
        return EVENT_GONE;
    }
    return n == 0 ? EVENT_TIMEOUT : EVENT_PIPE;
}

/* Why there is no answer, or 0 if there is one. To be asked after the pipe was closed. */
static int check_outcome(struct completion *c, struct openai_error *error)
{
    const struct answer *answer = c->answer;
    if (answer_was_refused(answer)) {
        return openai_refuse(error, 400, "invalid_value", NULL, "%s", answer->err.text);
    }
    if (answer->error < 0) {
        return openai_refuse(error, 500, "engine_failed", NULL, "the engine failed: %s",
                             answer->err.text);
    }
    if (answer->too_slow) {
        return openai_refuse(error, 408, "client_too_slow", NULL,
                             "the client was too slow to take the answer");
    }
    if (answer->result.finish == LLM_FINISH_CANCELLED) {
        return openai_refuse(error, 503, "stopping", NULL, "the server is stopping");
    }
    return 0;
}

static void log_outcome(struct completion *c, const struct openai_outcome *outcome)
{
    c->logged = true;
    call_log(c->server, c->request_id,
             "%zu prompt tokens (%zu cached), %zu answered (%s), first after %.0f ms, then %.1f/s",
             outcome->prompt_tokens, outcome->cached_tokens, outcome->completion_tokens,
             outcome->length ? "length" : "stop", outcome->first_token_ms, outcome->decode_tps);
}

static void log_failure(struct completion *c, const char *why)
{
    c->logged = true;
    call_log(c->server, c->request_id, "%s", why);
}

/* Gives the answer back from the queue, where it may be waiting or running. */
static void completion_destroy(void *data)
{
    struct completion *c = data;
    if (c->submitted) {
        queue_leave(c->server->queue, &c->answer->job);
        if (!c->logged) {
            log_failure(c, "the client left");
        }
    }
    answer_destroy(c->answer);
    free(c->out);
    free(c);
}

/* --- streamed --- */

/* One or more events; consumes what it is given. NULL: no memory. */
static int set_out(struct completion *c, char *first, char *second, const char *last)
{
    free(c->out);
    c->out = NULL;
    c->out_sent = 0;
    int n = -1;
    if (first) {
        n = asprintf(&c->out, "data: %s\n\n%s%s%s%s", first, second ? "data: " : "",
                     second ? second : "", second ? "\n\n" : "", last);
    }
    free(first);
    free(second);
    if (n < 0) {
        c->out = NULL;
        return -ENOMEM;
    }
    c->out_size = (size_t)n;
    return 0;
}

#define DONE_EVENT "data: [DONE]\n\n"

static int set_end(struct completion *c)
{
    struct openai_error error;
    c->next = SEND_END;
    if (check_outcome(c, &error) < 0) {
        log_failure(c, error.message);
        return set_out(c, openai_error_json(&error), NULL, DONE_EVENT);
    }
    struct openai_outcome outcome = answer_outcome(c->answer);
    log_outcome(c, &outcome);
    char *usage = NULL;
    if (c->answer->request.include_usage) {
        usage = openai_usage_chunk(&c->reply, &outcome);
        if (!usage) {
            return -ENOMEM;
        }
    }
    return set_out(c, openai_finish_chunk(&c->reply, &outcome), usage, DONE_EVENT);
}

static int set_ping(struct completion *c)
{
    free(c->out);
    c->out = strdup(": ping\n\n");
    c->out_sent = 0;
    c->out_size = c->out ? strlen(c->out) : 0;
    return c->out ? 0 : -ENOMEM;
}

/* Wait for something to send and put it into c->out. -EPIPE: the client left. */
static int set_next(struct completion *c)
{
    if (c->next == SEND_ROLE) {
        c->next = SEND_TEXT;
        return set_out(c, openai_role_chunk(&c->reply), NULL, "");
    }
    for (;;) {
        enum event event = wait_for(c, (int)c->server->ping_ms);
        if (event == EVENT_GONE) {
            return -EPIPE;
        }
        if (event == EVENT_TIMEOUT) {
            return set_ping(c);
        }
        AUTO_FREE char *text = NULL;
        size_t size;
        bool closed;
        pipe_take(&c->answer->pipe, &text, &size, &closed);
        if (text) {
            return set_out(c, openai_text_chunk(&c->reply, text, size), NULL, "");
        }
        if (closed) {
            return set_end(c);
        }
    }
}

/* libmicrohttpd's content reader. It waits: each connection has its own thread. */
static ssize_t read_stream(void *cls, uint64_t pos, char *buf, size_t capacity)
{
    (void)pos;
    struct completion *c = cls;
    if (c->out_sent == c->out_size) {
        if (c->next == SEND_END) {
            return MHD_CONTENT_READER_END_OF_STREAM;
        }
        int r = set_next(c);
        if (r < 0) {
            log_failure(c, r == -EPIPE ? "the client left" : "out of memory");
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
    }
    size_t n = c->out_size - c->out_sent;
    n = n < capacity ? n : capacity;
    memcpy(buf, c->out + c->out_sent, n);
    c->out_sent += n;
    return (ssize_t)n;
}

/* Consumes c, at the end of the stream. */
static enum MHD_Result stream(struct call *call, struct completion *c)
{
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, read_stream, c,
                                          completion_destroy);
    if (!response) {
        completion_destroy(c);
        return MHD_NO;
    }
    if (MHD_add_response_header(response, "Content-Type", "text/event-stream") != MHD_YES ||
        MHD_add_response_header(response, "Cache-Control", "no-cache") != MHD_YES ||
        MHD_add_response_header(response, "X-Accel-Buffering", "no") != MHD_YES) {
        MHD_destroy_response(response);
        return MHD_NO;
    }
    return call_reply(call, 200, response);
}

/* --- whole --- */

static int wait_closed(struct completion *c)
{
    for (;;) {
        if (wait_for(c, -1) == EVENT_GONE) {
            return -EPIPE;
        }
        AUTO_FREE char *text = NULL;
        size_t size;
        bool closed;
        pipe_take(&c->answer->pipe, &text, &size, &closed);
        if (closed) {
            return 0;
        }
    }
}

/* Consumes c. */
static enum MHD_Result reply_whole(struct call *call, struct completion *c)
{
    int r = wait_closed(c);
    enum MHD_Result result = MHD_NO;
    struct openai_error error;
    if (r == 0 && check_outcome(c, &error) < 0) {
        log_failure(c, error.message);
        result = call_reply_error(call, &error);
    } else if (r == 0) {
        struct openai_outcome outcome = answer_outcome(c->answer);
        log_outcome(c, &outcome);
        const struct llm_result *answer = &c->answer->result;
        result = call_reply_json(call, 200,
                                 openai_completion_json(&c->reply, answer->text, answer->text_size,
                                                        &outcome));
    }
    completion_destroy(c);
    return result;
}

/* --- from body to queue --- */

static int check_model(const struct server *server, const struct openai_request *request,
                       struct openai_error *error)
{
    const char *model = request->model;
    if (!model || !*model || strcmp(model, "default") == 0 ||
        strcmp(model, server->info.model_id) == 0) {
        return 0;
    }
    return openai_refuse(error, 404, "model_not_found", "model",
                         "no such model; this server has %s", server->info.model_id);
}

/* Consumes answer. */
static struct completion *completion_create(struct call *call, struct answer *answer)
{
    struct completion *c = calloc(1, sizeof *c);
    if (!c) {
        answer_destroy(answer);
        return NULL;
    }
    c->server = call->server;
    c->answer = answer;
    c->connection = call->connection;
    c->socket =
        MHD_get_connection_info(call->connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    memcpy(c->request_id, call->id, sizeof c->request_id);
    snprintf(c->id, sizeof c->id, "chatcmpl-%s", call->id);
    c->reply = (struct openai_reply){
        .id = c->id,
        .model = call->server->info.model_id,
        .fingerprint = call->server->fingerprint,
        .created = time(NULL),
        .null_usage = answer->request.include_usage,
    };
    return c;
}

static int create_answer(struct call *call, struct answer **ret, struct openai_error *error)
{
    struct server *server = call->server;
    struct openai_request request;
    int r = openai_request_parse(call->body ? call->body : "", call->size, &request, error);
    if (r < 0) {
        return r;
    }
    free(call->body);
    call->body = NULL;
    call->size = call->capacity = 0;
    r = check_model(server, &request, error);
    if (r == 0) {
        r = answer_create(server->params->engine, llm_session_max_pos(server->session), &request,
                          call->arrived_ns, error, ret);
    }
    openai_request_finish(&request);
    return r;
}

enum MHD_Result completion_answer(struct call *call)
{
    struct openai_error error;
    struct answer *answer = NULL;
    if (create_answer(call, &answer, &error) < 0) {
        return call_reply_error(call, &error);
    }
    struct completion *c = completion_create(call, answer);
    if (!c) {
        return MHD_NO;
    }
    int r = queue_submit(call->server->queue, &answer->job);
    if (r < 0) {
        completion_destroy(c);
        if (r == -EAGAIN) {
            openai_refuse(&error, 429, "queue_full", NULL,
                          "%u requests wait already; try again in a moment",
                          call->server->max_queue);
        } else {
            openai_refuse(&error, 503, "stopping", NULL, "the server is stopping");
        }
        return call_reply_error(call, &error);
    }
    c->submitted = true;
    return answer->request.stream ? stream(call, c) : reply_whole(call, c);
}
