/* SPDX-License-Identifier: MIT */
/*
 * http_serve() in this process, with short limits: slow senders, slow readers, keys, IPv6, being
 * stopped; and every thread, fd and byte given back. What a client sees of a `gttrun serve` process
 * is serve_test's.
 */
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "chat_client.h"
#include "check.h"
#include "server.h"

#define MODEL "models/wordbook-22m"

static struct llm_engine *engine;

#define STORY "Tell me a story."
static char long_fields[128]; /* see chat_find_long() */

static char *long_body(const char *more)
{
    char fields[256];
    snprintf(fields, sizeof fields, "%s%s", long_fields, more);
    return chat_body(STORY, fields);
}

/* One server on its own thread. */
struct running {
    struct http_params params;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int port; /* 0: not ready yet */
    bool over;
    int result;
    struct err err;
    char log[16384];
};

static void take_log(void *data, const char *text)
{
    struct running *running = data;
    pthread_mutex_lock(&running->lock);
    size_t size = strlen(running->log);
    snprintf(running->log + size, sizeof running->log - size, "%s\n", text);
    pthread_mutex_unlock(&running->lock);
}

static void note_ready(void *data, const char *url)
{
    struct running *running = data;
    pthread_mutex_lock(&running->lock);
    running->port = atoi(strrchr(url, ':') + 1);
    pthread_cond_broadcast(&running->changed);
    pthread_mutex_unlock(&running->lock);
}

static void *serve(void *data)
{
    struct running *running = data;
    int r = http_serve(&running->params, &running->err);
    pthread_mutex_lock(&running->lock);
    running->result = r;
    running->over = true;
    pthread_cond_broadcast(&running->changed);
    pthread_mutex_unlock(&running->lock);
    return NULL;
}

/* params holds what differs from the tests' defaults. Returns when the server listens or failed. */
static void start(struct running *running, struct http_params params)
{
    memset(running, 0, sizeof *running);
    params.engine = engine;
    params.listen = params.listen ? params.listen : "127.0.0.1:0";
    params.stop_fd = eventfd(0, EFD_CLOEXEC);
    CHECK(params.stop_fd >= 0);
    params.log = take_log;
    params.ready = note_ready;
    params.data = running;
    running->params = params;
    pthread_mutex_init(&running->lock, NULL);
    pthread_cond_init(&running->changed, NULL);
    CHECK(pthread_create(&running->thread, NULL, serve, running) == 0);
    pthread_mutex_lock(&running->lock);
    while (!running->port && !running->over) {
        pthread_cond_wait(&running->changed, &running->lock);
    }
    pthread_mutex_unlock(&running->lock);
}

static void ask_to_stop(struct running *running)
{
    CHECK(eventfd_write(running->params.stop_fd, 1) == 0);
}

static int wait_over(struct running *running)
{
    CHECK(pthread_join(running->thread, NULL) == 0);
    pthread_cond_destroy(&running->changed);
    pthread_mutex_destroy(&running->lock);
    close(running->params.stop_fd);
    return running->result;
}

static int stop(struct running *running)
{
    ask_to_stop(running);
    return wait_over(running);
}

static void find_long(void)
{
    struct running running;
    start(&running, (struct http_params){0});
    snprintf(long_fields, sizeof long_fields, "%s", chat_find_long(running.port, STORY));
    CHECK_EQ(stop(&running), 0);
}

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void check_closed_within(int fd, double seconds)
{
    double start_s = now_s();
    size_t size;
    char *text = read_to_end(fd, &size);
    free(text);
    close(fd);
    CHECK(now_s() - start_s < seconds);
}

/* --- limits --- */

struct trickle {
    int fd;
    const char *text; /* sent again and again, a byte at a time */
    atomic_bool stop;
};

static void *send_slowly(void *data)
{
    struct trickle *t = data;
    for (size_t i = 0; !atomic_load(&t->stop); i++) {
        send_bytes(t->fd, t->text + i % strlen(t->text), 1);
        usleep(20000);
    }
    return NULL;
}

/* However it trickles, a request has its time and no more; others are answered meanwhile. */
static void check_slow_sender(int port, const char *first, const char *then)
{
    struct trickle t = {.fd = dial(port), .text = then};
    pthread_t thread;
    send_text(t.fd, first);
    CHECK(pthread_create(&thread, NULL, send_slowly, &t) == 0);
    struct chat chat = chat_ask(port, false, "hello", ",\"max_tokens\":1");
    CHECK_EQ(chat.status, 200);
    chat_finish(&chat);
    double start_s = now_s();
    size_t size;
    char *text = read_to_end(t.fd, &size);
    CHECK(now_s() - start_s < 10);
    CHECK_EQ(size, 0);
    free(text);
    atomic_store(&t.stop, true);
    pthread_join(thread, NULL);
    close(t.fd);
}

static void test_slow_senders(void)
{
    struct running running;
    start(&running, (struct http_params){.receive_timeout_ms = 400});
    check_slow_sender(running.port, "", "GET /health HTTP/1.1 ");
    check_slow_sender(running.port, "GET /health HTTP/1.1\r\nHost: localhost\r\nA: ", "x");
    check_slow_sender(running.port,
                      "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                      "Content-Length: 100000\r\n\r\n{",
                      " ");
    int idle = dial(running.port);
    check_closed_within(idle, 10);
    CHECK_EQ(stop(&running), 0);
}

/* A client that does not read holds up nobody, and is left in the end. */
static void test_slow_reader(void)
{
    struct running running;
    start(&running, (struct http_params){.send_timeout_s = 1});
    int small = 2048;
    char *body = long_body(",\"stream\":true,\"max_tokens\":600");
    int fd = dial(running.port);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
    char head[256];
    snprintf(head, sizeof head,
             "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n",
             strlen(body));
    send_text(fd, head);
    send_text(fd, body);
    chat_wait_load(running.port, true, 0);
    chat_wait_load(running.port, false, 0); /* ended or given up without being read */
    struct chat chat = chat_ask(running.port, true, "hello", ",\"max_tokens\":4");
    CHECK(chat.status == 200 && chat.done);
    chat_finish(&chat);
    free(body);
    close(fd);
    CHECK_EQ(stop(&running), 0);
}

/* Who waits in a stream hears a comment now and then. */
static void test_ping(void)
{
    struct running running;
    start(&running, (struct http_params){.ping_ms = 30});
    char *body = long_body(",\"stream\":true"), *got = NULL;
    int runs = post_start(running.port, "", body);
    chat_wait_load(running.port, true, 0);
    int waits = post_start(running.port, "", body);
    CHECK(read_until(waits, ": ping\n\n\r\n8\r\n: ping\n\n", &got));
    CHECK(strstr(got, "\"role\":\"assistant\""));
    close(runs);
    CHECK(read_until(waits, "\"delta\":{\"content\":", &got));
    close(waits);
    free(got);
    free(body);
    CHECK_EQ(stop(&running), 0);
}

/* --- keys --- */

static void test_key(void)
{
    char path[] = "/tmp/gttd-key-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, "s3cret\n", 7) == 7 && fchmod(fd, 0644) == 0);
    close(fd);
    struct running running;
    start(&running, (struct http_params){.api_key_file = path});
    unlink(path);
    char *body = chat_body("hello", ",\"max_tokens\":1");
    struct reply reply;
    static const struct {
        const char *header;
        int status;
    } KEYS[] = {
        {"", 401},
        {"Authorization: Bearer wrong\r\n", 401},
        {"Authorization: Bearer s3cre\r\n", 401},
        {"Authorization: Basic s3cret\r\n", 401},
        {"Authorization: Bearer s3cret\r\n", 200},
    };
    for (size_t i = 0; i < sizeof KEYS / sizeof KEYS[0]; i++) {
        post(running.port, KEYS[i].header, body, &reply);
        CHECK_EQ(reply.status, KEYS[i].status);
        CHECK(reply.status == 200 || has_header(&reply, "WWW-Authenticate: Bearer"));
        reply_finish(&reply);
    }
    get(running.port, "/v1/models", &reply);
    CHECK_EQ(reply.status, 401);
    reply_finish(&reply);
    get(running.port, "/health", &reply);
    CHECK_EQ(reply.status, 200);
    reply_finish(&reply);
    free(body);
    CHECK_EQ(stop(&running), 0);
    CHECK(strstr(running.log, "other users can read it"));
    CHECK(!strstr(running.log, "s3cret"));
}

/* --- where to listen --- */

static void test_addresses(void)
{
    struct running running, second;
    char address[64];
    start(&running, (struct http_params){0});
    snprintf(address, sizeof address, "127.0.0.1:%d", running.port);
    start(&second, (struct http_params){.listen = address});
    CHECK_EQ(wait_over(&second), -EADDRINUSE);
    CHECK(strstr(second.err.text, address));
    CHECK_EQ(stop(&running), 0);

    start(&running, (struct http_params){.listen = "nonsense"});
    CHECK_EQ(wait_over(&running), -EINVAL);
    start(&running, (struct http_params){.api_key_file = "/nonexistent"});
    CHECK_EQ(wait_over(&running), -ENOENT);
    start(&running, (struct http_params){.context = 1u << 30});
    CHECK(wait_over(&running) < 0);

    start(&running, (struct http_params){.listen = "0.0.0.0:0"});
    struct reply reply;
    exchange(running.port, "GET /health HTTP/1.1\r\nHost: box.lan\r\nConnection: close\r\n\r\n", "",
             &reply);
    CHECK_EQ(reply.status, 200); /* not on loopback: any name may be ours */
    reply_finish(&reply);
    CHECK_EQ(stop(&running), 0);
    CHECK(strstr(running.log, "no API key is asked for"));

    start(&running, (struct http_params){.listen = "[::]:0"});
    if (running.port) { /* reached by IPv4 as well */
        get(running.port, "/health", &reply);
        CHECK_EQ(reply.status, 200);
        reply_finish(&reply);
        ask_to_stop(&running);
    }
    wait_over(&running);
}

/* --- being stopped --- */

static void test_drain_deadline(void)
{
    struct running running;
    start(&running, (struct http_params){.drain_timeout_ms = 50});
    char *body = long_body(",\"stream\":true");
    int fds[3];
    for (int i = 0; i < 3; i++) { /* one runs, two wait */
        fds[i] = post_start(running.port, "", body);
    }
    chat_wait_load(running.port, true, 2);
    ask_to_stop(&running);
    for (int i = 0; i < 3; i++) {
        struct reply reply;
        receive(fds[i], &reply);
        struct chat chat = chat_parse(&reply);
        CHECK(chat.done && strcmp(chat.error_code, "stopping") == 0 && !chat.finish[0]);
        chat_finish(&chat);
        reply_finish(&reply);
    }
    CHECK_EQ(wait_over(&running), 0);
    free(body);
}

static void test_drain(void)
{
    struct running running;
    start(&running, (struct http_params){0});
    char *body = chat_body(STORY, ",\"max_tokens\":64,\"stream\":true");
    int idle = dial(running.port); /* says nothing: not waited for */
    int fd = post_start(running.port, "", body);
    chat_wait_load(running.port, true, 0);
    ask_to_stop(&running);
    struct reply reply;
    receive(fd, &reply);
    struct chat chat = chat_parse(&reply);
    CHECK(chat.done && chat.finish[0] && chat.text[0]);
    chat_finish(&chat);
    reply_finish(&reply);
    CHECK_EQ(wait_over(&running), 0);
    check_closed_within(idle, 1);
    free(body);
}

/* --- what is left over --- */

static int count_threads(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/task");
    CHECK(dir);
    while (readdir(dir)) {
        n++;
    }
    closedir(dir);
    return n - 2;
}

/* Some clients ask, some leave at some point of their request. */
static void session_of_clients(void)
{
    struct running running;
    start(&running, (struct http_params){0});
    for (int i = 0; i < 100; i++) {
        char *body =
            chat_body("hello", i % 2 ? ",\"max_tokens\":3,\"stream\":true" : ",\"max_tokens\":3");
        int fd = post_start(running.port, "", body);
        if (i % 4 < 2) {
            struct reply reply;
            receive(fd, &reply);
            CHECK_EQ(reply.status, 200);
            reply_finish(&reply);
        } else {
            usleep((useconds_t)(i * 50));
            close(fd);
        }
        free(body);
    }
    CHECK_EQ(stop(&running), 0);
}

static void test_nothing_left(void)
{
    session_of_clients(); /* what libraries allocate once */
    int n_fds = count_fds(NULL), n_threads = count_threads();
    size_t before = mallinfo2().uordblks;
    session_of_clients();
    session_of_clients();
    CHECK_EQ(count_fds(NULL), n_fds);
    CHECK_EQ(count_threads(), n_threads);
    size_t after = mallinfo2().uordblks;
    CHECK(after < before + 16384);
}

int main(void)
{
    if (access(MODEL "/config.json", R_OK) < 0) {
        fprintf(stderr, "skipped: no " MODEL "\n");
        return SKIP;
    }
    struct err err;
    struct llm_engine_params params = {.model_dir = MODEL,
                                       .backend = "cpu",
                                       .private_weights = true};
    if (llm_engine_open(&params, &err, &engine) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    int n_fds = count_fds(NULL);
    find_long();
    test_slow_senders();
    test_slow_reader();
    test_ping();
    test_key();
    test_addresses();
    test_drain();
    test_drain_deadline();
    test_nothing_left();
    CHECK_EQ(count_fds(NULL), n_fds);
    llm_engine_close(engine);
    return 0;
}
