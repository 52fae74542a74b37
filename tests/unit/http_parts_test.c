/* SPDX-License-Identifier: MIT */
/* The server's parts that know neither HTTP nor the engine: guard, listener, pipe, queue, conns. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "conns.h"
#include "guard.h"
#include "listener.h"
#include "pipe.h"
#include "queue.h"

/* --- guard --- */

static int read_key(const char *text, size_t size, mode_t mode, char *key, bool *others)
{
    char path[] = "/tmp/gttd-key-XXXXXX";
    struct err err;
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    CHECK(write(fd, text, size) == (ssize_t)size && fchmod(fd, mode) == 0);
    close(fd);
    int r = guard_read_key(path, &err, key, others);
    CHECK(r == 0 || strstr(err.text, path));
    unlink(path);
    return r;
}

static void test_key(void)
{
    char key[GUARD_MAX_KEY_BYTES + 1];
    char longest[GUARD_MAX_KEY_BYTES + 200];
    bool others;
    struct err err;
    CHECK_EQ(read_key(" secret\r\n", 9, 0600, key, &others), 0);
    CHECK(strcmp(key, "secret") == 0 && !others);
    CHECK_EQ(read_key("secret", 6, 0644, key, &others), 0);
    CHECK(others);
    CHECK_EQ(read_key("", 0, 0600, key, &others), -EINVAL);
    CHECK_EQ(read_key("\n\n", 2, 0600, key, &others), -EINVAL);
    CHECK_EQ(read_key("two words", 9, 0600, key, &others), -EINVAL);
    CHECK_EQ(read_key("nul\0nul", 7, 0600, key, &others), -EINVAL);
    memset(longest, 'k', sizeof longest);
    CHECK_EQ(read_key(longest, GUARD_MAX_KEY_BYTES, 0600, key, &others), 0);
    CHECK_EQ(strlen(key), GUARD_MAX_KEY_BYTES);
    CHECK_EQ(read_key(longest, GUARD_MAX_KEY_BYTES + 1, 0600, key, &others), -EINVAL);
    CHECK_EQ(read_key(longest, sizeof longest, 0600, key, &others), -EINVAL);
    CHECK_EQ(guard_read_key("/nonexistent/key", &err, key, &others), -ENOENT);

    CHECK(guard_has_key("Bearer secret", "secret"));
    CHECK(guard_has_key("bearer  secret", "secret"));
    CHECK(!guard_has_key(NULL, "secret"));
    CHECK(!guard_has_key("", "secret"));
    CHECK(!guard_has_key("Bearer", "secret"));
    CHECK(!guard_has_key("Bearer ", "secret"));
    CHECK(!guard_has_key("Basic secret", "secret"));
    CHECK(!guard_has_key("Bearer secre", "secret"));
    CHECK(!guard_has_key("Bearer secretsecret", "secret"));
    CHECK(!guard_has_key("Bearer Secret", "secret"));
}

static void test_hosts(void)
{
    CHECK(guard_host_is_local("localhost") && guard_host_is_local("LocalHost:8006"));
    CHECK(guard_host_is_local("127.0.0.1:1") && guard_host_is_local("[::1]:65535"));
    CHECK(!guard_host_is_local("localhost.evil.example"));
    CHECK(!guard_host_is_local("localhost:"));
    CHECK(!guard_host_is_local("localhost:80x"));
    CHECK(!guard_host_is_local("127.0.0.1.evil.example:8006"));
    CHECK(!guard_host_is_local("evil.example") && !guard_host_is_local(""));
    CHECK(!guard_host_is_local("localhost@evil.example"));

    CHECK(guard_origin_allowed("http://localhost:3000", "127.0.0.1:8006"));
    CHECK(guard_origin_allowed("https://127.0.0.1", NULL));
    CHECK(guard_origin_allowed("http://box.lan:8006", "box.lan:8006"));
    CHECK(!guard_origin_allowed("http://box.lan:8007", "box.lan:8006"));
    CHECK(!guard_origin_allowed("http://localhost.evil.example", "localhost"));
    CHECK(!guard_origin_allowed("http://evil.example", "127.0.0.1:8006"));
    CHECK(!guard_origin_allowed("null", "127.0.0.1:8006"));
    CHECK(!guard_origin_allowed("file://", NULL));
}

/* --- listener --- */

static void test_listener(void)
{
    struct listener a, b;
    struct err err;
    CHECK_EQ(listener_open("127.0.0.1:0", &err, &a), 0);
    CHECK(a.loopback && strncmp(a.url, "http://127.0.0.1:", 17) == 0 && atoi(a.url + 17) > 0);
    CHECK(fcntl(a.fd, F_GETFD) & FD_CLOEXEC);
    CHECK_EQ(listener_open(a.url + 7, &err, &b), -EADDRINUSE);
    CHECK(strstr(err.text, a.url + 7));
    close(a.fd);
    CHECK_EQ(listener_open("localhost:0", &err, &a), 0);
    CHECK(a.loopback);
    close(a.fd);
    CHECK_EQ(listener_open("0.0.0.0:0", &err, &a), 0);
    CHECK(!a.loopback);
    close(a.fd);
    int r = listener_open("[::1]:0", &err, &a);
    if (r == 0) {
        CHECK(a.loopback && strncmp(a.url, "http://[::1]:", 13) == 0);
        close(a.fd);
    } else { /* a machine without IPv6 */
        CHECK(r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL);
    }
    static const char *const BAD[] = {
        "",          "127.0.0.1", ":8006", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:70000",
        "::1:8006",  "[]:8006",   "[:1",   "a:b:1",      "127.0.0.1:-1",   "127.0.0.1:123456",
        "[::1]8006",
    };
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        CHECK_EQ(listener_open(BAD[i], &err, &a), -EINVAL);
    }
    CHECK(listener_open("no-such-host.invalid:1", &err, &a) < 0);
}

/* --- pipe --- */

static bool readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void test_pipe(void)
{
    struct pipe pipe;
    char *text;
    size_t size;
    bool closed;
    CHECK_EQ(pipe_init(&pipe, 100), 0);
    CHECK(!readable(pipe.fd));
    CHECK_EQ(pipe_write(&pipe, "", 0), 0);
    CHECK(!readable(pipe.fd));
    CHECK_EQ(pipe_write(&pipe, "ab", 2), 0);
    CHECK_EQ(pipe_write(&pipe, "cd", 2), 0);
    CHECK(readable(pipe.fd));
    pipe_take(&pipe, &text, &size, &closed);
    CHECK(size == 4 && memcmp(text, "abcd", 4) == 0 && !closed && !readable(pipe.fd));
    free(text);
    pipe_take(&pipe, &text, &size, &closed);
    CHECK(!text && size == 0 && !closed);

    char big[101] = "";
    CHECK_EQ(pipe_write(&pipe, big, 101), -ENOBUFS);
    CHECK_EQ(pipe_write(&pipe, big, 90), 0);
    CHECK_EQ(pipe_write(&pipe, big, 11), -ENOBUFS);
    CHECK_EQ(pipe_write(&pipe, big, 10), 0);
    pipe_close(&pipe);
    pipe_take(&pipe, &text, &size, &closed);
    CHECK(size == 100 && closed && readable(pipe.fd)); /* stays readable: nothing will change */
    free(text);
    pipe_take(&pipe, &text, &size, &closed);
    CHECK(!text && closed);
    pipe_finish(&pipe);

    CHECK_EQ(pipe_init(&pipe, 100), 0);
    CHECK_EQ(pipe_write(&pipe, "left behind", 11), 0);
    pipe_finish(&pipe);
}

/* --- queue --- */

struct counter {
    struct job job;
    int order; /* 0: did not run */
    bool was_cancelled;
};

struct bench {
    atomic_int n_run;
    atomic_bool hold; /* jobs do not end while it is set, unless cancelled */
    atomic_int n_started;
};

static void run(void *data, struct job *job)
{
    struct bench *bench = data;
    struct counter *counter = (struct counter *)job;
    atomic_fetch_add(&bench->n_started, 1);
    while (atomic_load(&bench->hold) && !atomic_load(&job->cancelled)) {
        usleep(1000);
    }
    counter->was_cancelled = atomic_load(&job->cancelled);
    counter->order = atomic_fetch_add(&bench->n_run, 1) + 1;
}

static void wait_started(struct bench *bench, int n)
{
    while (atomic_load(&bench->n_started) < n) {
        usleep(1000);
    }
}

static void wait_run(struct bench *bench, int n)
{
    while (atomic_load(&bench->n_run) < n) {
        usleep(1000);
    }
}

static void test_queue(void)
{
    struct bench bench = {.hold = true};
    struct counter c[6] = {0};
    struct queue *queue;
    struct err err;
    CHECK_EQ(queue_create(3, run, &bench, &err, &queue), 0);
    CHECK_EQ(queue_submit(queue, &c[0].job), 0);
    wait_started(&bench, 1);
    for (int i = 1; i < 4; i++) {
        CHECK_EQ(queue_submit(queue, &c[i].job), 0);
    }
    CHECK_EQ(queue_submit(queue, &c[4].job), -EAGAIN);
    struct queue_load load = queue_load(queue);
    CHECK(load.running && load.n_waiting == 3);

    queue_leave(queue, &c[2].job); /* waits: never runs */
    CHECK_EQ(queue_load(queue).n_waiting, 2);
    CHECK_EQ(queue_submit(queue, &c[4].job), 0);
    queue_leave(queue, &c[0].job); /* runs: is cancelled, and over when this returns */
    CHECK(c[0].order == 1 && c[0].was_cancelled);

    atomic_store(&bench.hold, false);
    wait_run(&bench, 4);
    queue_leave(queue, &c[1].job);
    queue_leave(queue, &c[3].job);
    queue_leave(queue, &c[4].job);
    CHECK(c[1].order == 2 && c[3].order == 3 && c[4].order == 4 && c[2].order == 0);
    CHECK(!c[1].was_cancelled && !c[3].was_cancelled && !c[4].was_cancelled);

    queue_close(queue);
    CHECK_EQ(queue_submit(queue, &c[5].job), -ESHUTDOWN);
    queue_destroy(queue);
}

static void test_queue_cancel_all(void)
{
    struct bench bench = {.hold = true};
    struct counter c[3] = {0};
    struct queue *queue;
    struct err err;
    CHECK_EQ(queue_create(3, run, &bench, &err, &queue), 0);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(queue_submit(queue, &c[i].job), 0);
    }
    queue_cancel_all(queue);
    wait_run(&bench, 3); /* those that waited are run too, to hear of it */
    for (int i = 0; i < 3; i++) {
        queue_leave(queue, &c[i].job);
        CHECK(c[i].was_cancelled && c[i].order == i + 1);
    }
    queue_destroy(queue);
    queue_destroy(NULL);
}

/* --- conns --- */

static bool is_shut(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

static void test_conns(void)
{
    struct conns conns;
    int a[2], b[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b) == 0);
    conns_init(&conns, 20);
    struct conn *slow = conns_add(&conns, a[0]), *busy = conns_add(&conns, b[0]);
    CHECK(slow && busy);
    CHECK_EQ(conns_wait_idle(&conns, 0), 0);
    conns_set_busy(&conns, busy, true);
    conns_set_busy(&conns, busy, true); /* counts once */
    CHECK_EQ(conns_wait_idle(&conns, 1), -ETIMEDOUT);
    conns_reap(&conns);
    usleep(30000);
    conns_reap(&conns);
    CHECK(is_shut(a[1]) && !is_shut(b[1]));
    conns_set_busy(&conns, busy, false); /* a new deadline */
    CHECK_EQ(conns_wait_idle(&conns, 0), 0);
    usleep(30000);
    conns_reap(&conns);
    CHECK(is_shut(b[1]));
    conns_set_busy(&conns, slow, true);
    conns_remove(&conns, slow);
    conns_remove(&conns, busy);
    conns_remove(&conns, NULL);
    CHECK_EQ(conns_wait_idle(&conns, 0), 0);
    conns_finish(&conns);
    for (int i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
    }
}

int main(void)
{
    int before = count_fds(NULL);
    test_key();
    test_hosts();
    test_listener();
    test_pipe();
    test_queue();
    test_queue_cancel_all();
    test_conns();
    CHECK_EQ(count_fds(NULL), before);
    return 0;
}
