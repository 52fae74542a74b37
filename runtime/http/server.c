/* SPDX-License-Identifier: MIT */
/* The server's life, from listening to the last answer: see server.h. */
#include "server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "answer.h"
#include "call.h"
#include "gttd_util.h"
#include "listener.h"

/* Connections beyond those that wait in the queue: readers of /health, senders, leavers. */
#define SPARE_CONNECTIONS 64

static uint32_t or_default(uint32_t value, uint32_t preset)
{
    return value ? value : preset;
}

static void log_line(const struct http_params *params, const char *text)
{
    if (params->log) {
        params->log(params->data, text);
    }
}

/* Same seed and same fingerprint: same text. */
static void set_fingerprint(struct server *server)
{
    const struct llm_engine_info *info = &server->info;
    char text[1024];
    int n = snprintf(text, sizeof text, "%s\n%s\n%s\n%llu", info->model_id, info->backend,
                     info->device, (unsigned long long)info->weight_bytes);
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
    for (int i = 0; i < n && i < (int)sizeof text - 1; i++) {
        hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3;
    }
    snprintf(server->fingerprint, sizeof server->fingerprint, "fp_%016llx",
             (unsigned long long)hash);
}

static int read_key(struct server *server, struct err *err)
{
    const char *path = server->params->api_key_file;
    bool others;
    if (!path) {
        return 0;
    }
    int r = guard_read_key(path, err, server->key, &others);
    if (r < 0) {
        return err_prefix(err, r, "API key file");
    }
    server->has_key = true;
    if (others) {
        char text[512];
        snprintf(text, sizeof text, "API key file %s: other users can read it; chmod 600 it", path);
        log_line(server->params, text);
    }
    return 0;
}

static int start_daemon(struct server *server, int listen_fd, struct err *err,
                        struct MHD_Daemon **ret)
{
    struct MHD_Daemon *daemon =
        MHD_start_daemon(MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
                             MHD_USE_POLL | MHD_USE_ITC,
                         0, NULL, NULL, call_on_request, server, MHD_OPTION_LISTEN_SOCKET,
                         (MHD_socket)listen_fd, MHD_OPTION_NOTIFY_COMPLETED, call_on_completed,
                         server, MHD_OPTION_NOTIFY_CONNECTION, call_on_connection, server,
                         MHD_OPTION_CONNECTION_LIMIT,
                         (unsigned)server->max_queue + SPARE_CONNECTIONS,
                         MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)server->send_timeout_s,
                         MHD_OPTION_END);
    if (!daemon) {
        return err_set(err, -EIO, "cannot start the HTTP server: %s", strerror(errno));
    }
    *ret = daemon;
    return 0;
}

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void wait_for_stop(struct server *server)
{
    uint32_t tick_ms = server->conns.receive_timeout_ms / 4;
    tick_ms = tick_ms < 1000 ? tick_ms + 1 : 1000;
    struct pollfd stop = {.fd = server->params->stop_fd, .events = POLLIN};
    while (poll(&stop, 1, (int)tick_ms) <= 0) {
        conns_reap(&server->conns);
        if (server->params->tick) {
            server->params->tick(server->params->data);
        }
    }
}

/* Give answers under way their time. */
static void drain(struct server *server)
{
    int64_t end = now_ms() + or_default(server->params->drain_timeout_ms, 30000);
    while (conns_wait_idle(&server->conns, 100) < 0 && now_ms() < end) {
        conns_reap(&server->conns);
    }
    /* Who is left is told so at once, if it still listens. */
    queue_cancel_all(server->queue);
    conns_wait_idle(&server->conns, 1000);
}

/* Consumes listen_fd. */
static int serve(struct server *server, int listen_fd, const char *url, struct err *err)
{
    struct MHD_Daemon *daemon = NULL;
    int r = start_daemon(server, listen_fd, err, &daemon);
    if (r < 0) {
        close(listen_fd);
        return r;
    }
    if (server->params->ready) {
        server->params->ready(server->params->data, url);
    }
    wait_for_stop(server);
    atomic_store(&server->draining, true);
    queue_close(server->queue);
    /* The socket is ours again, but libmicrohttpd's thread may be about to look at it once more:
     * close it after that thread has ended. */
    int quiesced_fd = MHD_quiesce_daemon(daemon);
    shutdown(quiesced_fd, SHUT_RDWR);
    drain(server);
    MHD_stop_daemon(daemon);
    close_fdp(&quiesced_fd);
    return 0;
}

static void run_job(void *data, struct job *job)
{
    struct server *server = data;
    struct answer *answer = (struct answer *)job;
    answer_run(answer, server->session);
    atomic_store(&server->broken, answer->error < 0 && !answer_was_refused(answer));
}

static int open_and_serve(struct server *server, struct err *err)
{
    const struct http_params *params = server->params;
    struct listener listener;
    int r = read_key(server, err);
    if (r == 0) {
        r = llm_session_create(params->engine, params->context, err, &server->session);
    }
    if (r < 0) {
        return r;
    }
    r = queue_create(server->max_queue, run_job, server, err, &server->queue);
    if (r == 0) {
        r = listener_open(params->listen, err, &listener);
    }
    if (r == 0) {
        server->loopback = listener.loopback;
        if (!listener.loopback && !server->has_key) {
            log_line(params, "other machines can reach this server, and no API key is asked for");
        }
        r = serve(server, listener.fd, listener.url, err);
    }
    queue_destroy(server->queue);
    llm_session_destroy(server->session);
    return r;
}

int http_serve(const struct http_params *params, struct err *err)
{
    if (!llm_engine_tokenizer(params->engine)) {
        return err_set(err, -EINVAL, "random weights have no tokenizer to serve with");
    }
    struct server server = {
        .params = params,
        .started = time(NULL),
        .max_queue = or_default(params->max_queue, 32),
        .send_timeout_s = or_default(params->send_timeout_s, 30),
        .ping_ms = or_default(params->ping_ms, 5000),
    };
    llm_engine_info(params->engine, &server.info);
    set_fingerprint(&server);
    conns_init(&server.conns, or_default(params->receive_timeout_ms, 60000));

    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    sigaction(SIGPIPE, &ignore, &before);
    int r = open_and_serve(&server, err);
    sigaction(SIGPIPE, &before, NULL);

    conns_finish(&server.conns);
    explicit_bzero(server.key, sizeof server.key);
    return r;
}
