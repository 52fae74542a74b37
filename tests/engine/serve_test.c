/* SPDX-License-Identifier: MIT */
/*
 * A real `gttrun serve` with the bundled model, asked over raw sockets: what a client can say,
 * right and wrong, when it leaves, when many come, and when the server is stopped.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "chat_client.h"
#include "check.h"
#include "spawn.h"

#define MODEL    "models/wordbook-22m"
#define MODEL_ID "wordbook-22m"
#define QUESTION "What does the word candle mean?"
#define GREEDY   ",\"temperature\":0,\"seed\":1,\"max_tokens\":48"

static struct process server;
static int port;

#define STORY "Tell me a story."
static char long_fields[128]; /* see chat_find_long() */

static char *long_body(const char *more)
{
    char fields[256];
    snprintf(fields, sizeof fields, "%s%s", long_fields, more);
    return chat_body(STORY, fields);
}

static void start_server(void)
{
    static const char *const ARGS[] = {"serve",       "-m",        MODEL, "--listen",
                                       "127.0.0.1:0", "--backend", "cpu", "--private",
                                       "--queue",     "3",         NULL};
    server = spawn_gttrun(ARGS);
    spawn_expect(&server, true, "listening on http://127.0.0.1:");
    char *errors = spawn_errors(&server);
    port = atoi(strstr(errors, "listening on http://127.0.0.1:") + 30);
    CHECK(port > 0);
    free(errors);
}

static int server_fds(void)
{
    char dir[64];
    snprintf(dir, sizeof dir, "/proc/%d/fd", (int)server.pid);
    return count_fds(dir);
}

/* --- routes --- */

static void expect_status(const char *head, int status, const char *header)
{
    struct reply reply;
    exchange(port, head, "", &reply);
    if (reply.status != status || (header && !has_header(&reply, header))) {
        fprintf(stderr, "%s-> %d, want %d and %s\n%s\n", head, reply.status, status,
                header ? header : "no more", reply.head ? reply.head : "");
        exit(1);
    }
    reply_finish(&reply);
}

#define CLOSE "Connection: close\r\n\r\n"
#define HOST  "Host: localhost\r\n"

static void test_routes(void)
{
    struct reply reply;
    get(port, "/health", &reply);
    CHECK(reply.status == 200 && strstr(reply.body, "\"status\":\"ok\""));
    CHECK(strstr(reply.body, "\"model\":\"" MODEL_ID "\"") && strstr(reply.body, "\"backend\":"));
    CHECK(strstr(reply.body, "\"source\":\"private\"") && strstr(reply.body, "\"bytes\":"));
    reply_finish(&reply);
    get(port, "/v1/models", &reply);
    CHECK(reply.status == 200 && strstr(reply.body, "\"id\":\"" MODEL_ID "\""));
    reply_finish(&reply);

    expect_status("GET /v1/models/" MODEL_ID " HTTP/1.1\r\n" HOST CLOSE, 200, NULL);
    expect_status("GET /v1/models/other HTTP/1.1\r\n" HOST CLOSE, 404, NULL);
    expect_status("HEAD /health HTTP/1.1\r\n" HOST CLOSE, 200, "Content-Length: ");
    expect_status("GET /health HTTP/1.0\r\n\r\n", 200, NULL);
    expect_status("GET / HTTP/1.1\r\n" HOST CLOSE, 404, "Content-Type: application/json");
    expect_status("GET /v1/../health HTTP/1.1\r\n" HOST CLOSE, 404, NULL);
    expect_status("POST /health HTTP/1.1\r\n" HOST "Content-Length: 0\r\n" CLOSE, 405,
                  "Allow: GET, HEAD, OPTIONS");
    expect_status("GET /v1/chat/completions HTTP/1.1\r\n" HOST CLOSE, 405, "Allow: POST, OPTIONS");
    expect_status("GET /health HTTP/1.1\r\n" HOST "X-Request-Id: my.id_1\r\n" CLOSE, 200,
                  "X-Request-Id: my.id_1\r\n");
    expect_status("GET /health HTTP/1.1\r\n" HOST "X-Request-Id: a b\r\n" CLOSE, 200,
                  "X-Request-Id: req-");
}

static void test_who_may_ask(void)
{
    expect_status("GET /health HTTP/1.1\r\nHost: evil.example\r\n" CLOSE, 403, NULL);
    expect_status("GET /health HTTP/1.1\r\nHost: localhost.evil.example:80\r\n" CLOSE, 403, NULL);
    expect_status("GET /health HTTP/1.1\r\nHost: [::1]:8006\r\n" CLOSE, 200, NULL);
    expect_status("POST /v1/chat/completions HTTP/1.1\r\n" HOST "Origin: https://evil.example\r\n"
                  "Content-Length: 0\r\n" CLOSE,
                  403, NULL);
    expect_status("GET /health HTTP/1.1\r\n" HOST "Origin: http://localhost:3000\r\n" CLOSE, 200,
                  "Access-Control-Allow-Origin: http://localhost:3000\r\n");
    expect_status("OPTIONS /v1/chat/completions HTTP/1.1\r\n" HOST "Origin: http://127.0.0.1\r\n"
                  "Access-Control-Request-Method: POST\r\n"
                  "Access-Control-Request-Headers: content-type, x-thing\r\n" CLOSE,
                  204, "Access-Control-Allow-Headers: content-type, x-thing\r\n");
    struct reply reply;
    exchange(port,
             "OPTIONS /v1/chat/completions HTTP/1.1\r\n" HOST "Origin: http://evil.example\r\n"
             "Access-Control-Request-Method: POST\r\n" CLOSE,
             "", &reply);
    CHECK(reply.status == 204 && !has_header(&reply, "Access-Control-"));
    reply_finish(&reply);
}

/* --- answers --- */

static void test_whole(void)
{
    struct chat chat = chat_ask(port, false, QUESTION, GREEDY ",\"model\":\"" MODEL_ID "\"");
    CHECK_EQ(chat.status, 200);
    CHECK(chat.text[0] && chat.prompt_tokens > 5 && chat.completion_tokens > 2);
    CHECK(strcmp(chat.finish, "stop") == 0 || chat.completion_tokens == 48);
    chat_finish(&chat);

    chat = chat_ask(port, false, QUESTION, ",\"max_tokens\":3,\"model\":\"default\"");
    CHECK_EQ(chat.completion_tokens, 3);
    CHECK(strcmp(chat.finish, "length") == 0);
    /* the same conversation again: all but its last token is still there */
    CHECK_EQ(chat.cached_tokens, chat.prompt_tokens - 1);
    chat_finish(&chat);
}

static void test_streamed(void)
{
    struct chat whole = chat_ask(port, false, QUESTION, GREEDY);
    struct chat stream = chat_ask(port, true, QUESTION, GREEDY);
    CHECK(stream.status == 200 && stream.done && stream.n_text_chunks > 1);
    CHECK(strcmp(stream.text, whole.text) == 0 && strcmp(stream.finish, whole.finish) == 0);
    CHECK_EQ(stream.completion_tokens, whole.completion_tokens);
    CHECK_EQ(stream.prompt_tokens, whole.prompt_tokens);

    /* HTTP/1.0 knows no chunks: the stream ends with the connection */
    char *body = chat_body(QUESTION, GREEDY ",\"stream\":true"), head[128];
    struct reply reply;
    snprintf(head, sizeof head, "POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %zu\r\n\r\n",
             strlen(body));
    exchange(port, head, body, &reply);
    CHECK(!has_header(&reply, "Transfer-Encoding"));
    struct chat old = chat_parse(&reply);
    CHECK(old.done && strcmp(old.text, whole.text) == 0);
    chat_finish(&old);
    reply_finish(&reply);
    free(body);
    chat_finish(&stream);
    chat_finish(&whole);
}

/* Stop at a word from the middle of the answer: all before it comes, and nothing else. */
static void test_stop(void)
{
    struct chat full = chat_ask(port, false, QUESTION, GREEDY);
    char *middle = strchr(full.text + strlen(full.text) / 2, ' ');
    CHECK(middle);
    char word[12], fields[128];
    snprintf(word, sizeof word, "%.6s", middle);
    CHECK(!strpbrk(word, "\"\\\n"));
    size_t n = (size_t)(strstr(full.text, word) - full.text);
    snprintf(fields, sizeof fields, GREEDY ",\"stop\":[\"never there\",\"%s\"]", word);
    for (int stream = 0; stream < 2; stream++) {
        struct chat chat = chat_ask(port, stream, QUESTION, fields);
        CHECK(strlen(chat.text) == n && strncmp(chat.text, full.text, n) == 0);
        CHECK(strcmp(chat.finish, "stop") == 0);
        chat_finish(&chat);
    }
    chat_finish(&full);
}

static void test_seed(void)
{
    const char *fields = ",\"seed\":42,\"max_tokens\":40,\"temperature\":1.5";
    struct chat first = chat_ask(port, false, STORY, fields);
    for (int i = 0; i < 4; i++) {
        struct chat again = chat_ask(port, i % 2, STORY, fields);
        CHECK(strcmp(again.text, first.text) == 0);
        chat_finish(&again);
        if (i == 1) { /* something else on the timeline in between */
            again = chat_ask(port, false, "hello", ",\"max_tokens\":5");
            chat_finish(&again);
        }
    }
    bool differs = false;
    for (int i = 0; i < 3 && !differs; i++) { /* no seed: a random one */
        struct chat other = chat_ask(port, false, STORY, ",\"max_tokens\":40,\"temperature\":1.5");
        differs = strcmp(other.text, first.text) != 0;
        chat_finish(&other);
    }
    CHECK(differs);
    chat_finish(&first);
}

static void test_sampling_edges(void)
{
    static const char *const FIELDS[] = {
        ",\"top_p\":0",
        ",\"top_k\":1",
        ",\"top_k\":2147483647",
        ",\"min_p\":1",
        ",\"min_p\":0.5",
        ",\"repetition_penalty\":10",
        ",\"repetition_penalty\":0.01",
        ",\"temperature\":1e-30",
        ",\"temperature\":2,\"top_k\":0,\"top_p\":1",
    };
    for (size_t i = 0; i < sizeof FIELDS / sizeof FIELDS[0]; i++) {
        char fields[128];
        snprintf(fields, sizeof fields, ",\"max_tokens\":4%s", FIELDS[i]);
        struct chat chat = chat_ask(port, false, "hello", fields);
        CHECK_EQ(chat.status, 200);
        chat_finish(&chat);
    }
}

/* --- refusals --- */

static void expect_refused(const char *body, int status, const char *code, const char *param)
{
    struct reply reply;
    post(port, "Content-Type: text/nonsense\r\n", body, &reply);
    struct chat chat = chat_parse(&reply);
    if (chat.status != status || strcmp(chat.error_code, code) != 0 ||
        strcmp(chat.error_param, param) != 0) {
        fprintf(stderr, "%.200s: %d, %s, %s\n", body, chat.status, chat.error_code,
                chat.error_param);
        exit(1);
    }
    chat_finish(&chat);
    reply_finish(&reply);
}

static char *long_text(size_t size)
{
    char *text = malloc(size + 1);
    CHECK(text);
    for (size_t i = 0; i < size; i++) {
        text[i] = "candle is a stick of wax with a wick. "[i % 38];
    }
    text[size] = '\0';
    return text;
}

static void test_refusals(void)
{
    expect_refused("", 400, "invalid_json", "");
    expect_refused("{\"messages\":", 400, "invalid_json", "");
    expect_refused("[1,2]", 400, "invalid_json", "");
    expect_refused("\x80\xff\x01", 400, "invalid_json", "");
    expect_refused("{}", 400, "invalid_type", "messages");
    expect_refused("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
                   "{\"role\":\"user\",\"content\":\"b\"}]}",
                   400, "invalid_value", "messages");
    expect_refused("{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]}", 400,
                   "invalid_value", "messages");
    expect_refused("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"model\":\"gpt-4\"}",
                   404, "model_not_found", "model");
    expect_refused("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":[{}]}", 400,
                   "unsupported_parameter", "tools");
    char *text = long_text(100000);
    char *body = chat_body(text, "");
    expect_refused(body, 400, "context_length_exceeded", "messages");
    free(body);
    free(text);

    /* a body over 8 MiB, with and without its length in advance */
    text = long_text((8u << 20) + 100);
    body = chat_body(text, "");
    expect_refused(body, 413, "body_too_large", "");
    char chunk[64];
    int fd = dial(port);
    send_text(fd,
              "POST /v1/chat/completions HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n" CLOSE);
    snprintf(chunk, sizeof chunk, "%zx\r\n", strlen(body));
    send_text(fd, chunk);
    send_text(fd, body);
    send_text(fd, "\r\n0\r\n\r\n");
    struct reply reply;
    receive(fd, &reply);
    CHECK_EQ(reply.status, 413);
    reply_finish(&reply);
    free(body);
    free(text);
    /* who asks before sending is told before sending */
    expect_status("POST /v1/chat/completions HTTP/1.1\r\n" HOST "Content-Length: 99999999999\r\n"
                  "Expect: 100-continue\r\n" CLOSE,
                  413, NULL);
}

/* What is no HTTP may be answered or hung up on, but the server lives. */
static void test_garbage(void)
{
    static const char *const GARBAGE[] = {
        "\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "POST /v1/chat/completions HTTP/1.1\r\n" HOST "Content-Length: -5\r\n" CLOSE,
        "POST /v1/chat/completions HTTP/1.1\r\n" HOST "Content-Length: 5x\r\n" CLOSE,
        "POST /v1/chat/completions HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n" CLOSE "zz",
        "POST /v1/chat/completions HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n" CLOSE
        "ffffffffffffffffff\r\n",
        "GET /%00%ff%zz HTTP/1.1\r\n" HOST CLOSE,
        "GET /health HTTP/1.1\r\nHost:\r\n" CLOSE,
        "NONSENSE /health HTTP/1.1\r\n" HOST CLOSE,
    };
    for (size_t i = 0; i < sizeof GARBAGE / sizeof GARBAGE[0]; i++) {
        int fd = dial(port);
        send_text(fd, GARBAGE[i]);
        shutdown(fd, SHUT_WR);
        struct reply reply;
        receive(fd, &reply);
        CHECK(reply.status < 500 || reply.status == 505); /* 505: not our HTTP version */
        reply_finish(&reply);
    }
    char *text = long_text(200000); /* headers without end */
    int fd = dial(port);
    send_text(fd, "GET /health HTTP/1.1\r\nA: ");
    send_text(fd, text);
    send_text(fd, "\r\n\r\n");
    struct reply reply;
    receive(fd, &reply);
    CHECK(reply.status == 0 || (reply.status >= 400 && reply.status < 500));
    reply_finish(&reply);
    free(text);
    struct chat chat = chat_ask(port, false, "hello", ",\"max_tokens\":1");
    CHECK_EQ(chat.status, 200);
    chat_finish(&chat);
}

/* Several requests on one connection, the later ones sent before the first is answered. */
static void test_keep_alive(void)
{
    char *body = chat_body("hello", ",\"max_tokens\":2"), head[256];
    int fd = dial(port);
    for (int i = 0; i < 3; i++) {
        snprintf(head, sizeof head,
                 "POST /v1/chat/completions HTTP/1.1\r\n" HOST "%sContent-Length: %zu\r\n\r\n",
                 i == 2 ? "Connection: close\r\n" : "", strlen(body));
        send_text(fd, head);
        send_text(fd, body);
    }
    size_t size;
    char *all = read_to_end(fd, &size);
    int n = 0;
    for (char *at = all; (at = strstr(at, "HTTP/1.1 200")); at++) {
        n++;
    }
    CHECK_EQ(n, 3);
    close(fd);
    free(all);
    free(body);
}

/* --- leaving, waiting --- */

static void test_leave(void)
{
    char *stream = long_body(",\"stream\":true");
    char *whole = long_body("");

    /* in the middle of a stream */
    char *got = NULL;
    int fd = post_start(port, "", stream);
    CHECK(read_until(fd, "\"content\":\"", &got));
    chat_wait_load(port, true, 0);
    close(fd);
    chat_wait_load(port, false, 0);
    free(got);

    /* while the answer is made, having heard nothing yet */
    fd = post_start(port, "", whole);
    chat_wait_load(port, true, 0);
    close(fd);
    chat_wait_load(port, false, 0);

    /* while waiting: gone at once, though another request still runs */
    fd = post_start(port, "", whole);
    chat_wait_load(port, true, 0);
    int waits = post_start(port, "", stream), waits_too = post_start(port, "", whole);
    chat_wait_load(port, true, 2);
    close(waits);
    chat_wait_load(port, true, 1);
    close(waits_too);
    chat_wait_load(port, true, 0);
    close(fd);
    chat_wait_load(port, false, 0);
    free(whole);
    free(stream);
}

static void test_queue_full(void)
{
    char *body = long_body(",\"stream\":true");
    int fds[4]; /* --queue 3: one runs, three wait */
    fds[0] = post_start(port, "", body);
    chat_wait_load(port, true, 0);
    for (int i = 1; i < 4; i++) {
        fds[i] = post_start(port, "", body);
        chat_wait_load(port, true, i);
    }
    struct reply reply;
    post(port, "", body, &reply);
    CHECK(reply.status == 429 && has_header(&reply, "Retry-After: 1"));
    CHECK(strstr(reply.body, "\"code\":\"queue_full\""));
    reply_finish(&reply);
    /* those that wait hear at once that they are welcome */
    char *got = NULL;
    CHECK(read_until(fds[3], "\"role\":\"assistant\"", &got));
    free(got);
    for (int i = 0; i < 4; i++) {
        close(fds[i]);
    }
    chat_wait_load(port, false, 0);
    free(body);
}

static void *ask_often(void *arg)
{
    int n_ok = 0;
    for (int i = 0; i < 5; i++) {
        struct chat chat = chat_ask(port, arg != NULL, "hello",
                                    ",\"temperature\":0,"
                                    "\"max_tokens\":6");
        CHECK(chat.status == 200 || chat.status == 429);
        n_ok += chat.status == 200 && chat.done;
        chat_finish(&chat);
    }
    return (void *)(intptr_t)n_ok;
}

static void test_many(void)
{
    struct chat first =
        chat_ask(port, false, "hello", ",\"temperature\":0,\"seed\":1,\"max_tokens\":6");
    for (int i = 0; i < 100; i++) {
        struct chat chat =
            chat_ask(port, i % 2, "hello", ",\"temperature\":0,\"seed\":1,\"max_tokens\":6");
        CHECK(chat.status == 200 && chat.done && strcmp(chat.text, first.text) == 0);
        chat_finish(&chat);
    }
    chat_finish(&first);
    pthread_t threads[8];
    intptr_t n_ok = 0;
    for (size_t i = 0; i < 8; i++) {
        CHECK(pthread_create(&threads[i], NULL, ask_often, i % 2 ? &port : NULL) == 0);
    }
    for (size_t i = 0; i < 8; i++) {
        void *n;
        pthread_join(threads[i], &n);
        n_ok += (intptr_t)n;
    }
    CHECK(n_ok >= 8); /* the queue of 3 may refuse some */
}

static void test_abandoned(void)
{
    char *body = long_body(",\"stream\":true"), head[256];
    snprintf(head, sizeof head,
             "POST /v1/chat/completions HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n",
             strlen(body));
    for (int i = 0; i < 200; i++) {
        int fd = dial(port);
        struct linger hard = {1, 0}; /* every second one by a reset */
        CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, i % 2 ? sizeof hard : 0) == 0 ||
              i % 2 == 0);
        send_bytes(fd, head, i % 5 == 0 ? 20 : strlen(head));
        if (i % 5 > 1) {
            send_bytes(fd, body, i % 5 == 2 ? 10 : strlen(body));
        }
        if (i % 5 == 4) {
            usleep((useconds_t)(i * 20));
        }
        close(fd);
    }
    chat_wait_load(port, false, 0);
    free(body);
}

static void wait_fds(int want)
{
    int n = -1;
    for (int i = 0; i < 500 && (n = server_fds()) != want; i++) {
        usleep(10000);
    }
    CHECK_EQ(n, want);
}

/* --- the end --- */

static void test_stop_in_stream(void)
{
    char *body = long_body(",\"stream\":true,\"max_tokens\":300");
    int fd = post_start(port, "", body);
    char *got = NULL;
    CHECK(read_until(fd, "\"content\":\"", &got));
    CHECK(kill(server.pid, SIGTERM) == 0);
    CHECK(read_until(fd, "data: [DONE]", &got));
    CHECK(strstr(got, "\"finish_reason\":\"length\"") || strstr(got, "\"finish_reason\":\"stop\""));
    CHECK_EQ(spawn_wait(&server), 0);
    free(got);
    free(body);
    close(fd);
}

int main(void)
{
    if (access(MODEL "/config.json", R_OK) < 0) {
        fprintf(stderr, "skipped: no " MODEL "\n");
        return SKIP;
    }
    start_server();
    test_routes();
    test_who_may_ask();
    test_whole();
    test_streamed();
    test_stop();
    test_seed();
    test_sampling_edges();
    wait_fds(server_fds());
    usleep(100000);
    int n_fds = server_fds();
    snprintf(long_fields, sizeof long_fields, "%s", chat_find_long(port, STORY));
    test_refusals();
    test_garbage();
    test_keep_alive();
    test_leave();
    test_queue_full();
    test_many();
    test_abandoned();
    test_many();
    wait_fds(n_fds);
    test_stop_in_stream();
    spawn_close(&server);
    spawn_clean_up();
    return 0;
}
