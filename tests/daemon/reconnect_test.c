/* SPDX-License-Identifier: MIT */
/*
 * What a client of libgtt notices of a restart of gttd: a call that takes longer, and otherwise
 * nothing, as long as what it holds is there again; a clear error where it is not.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "supervisor.h"

static struct supervisor sup;

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static bool held(const struct gtt_segment *segment)
{
    struct gtt_segment_info info;
    gtt_segment_get_info(segment, &info);
    return info.held;
}

static void expect_error(struct gtt *gtt, const char *text)
{
    if (!strstr(gtt_last_error(gtt), text)) {
        fprintf(stderr, "\"%s\" is not in: %s\n", text, gtt_last_error(gtt));
        CHECK(!"the sentence");
    }
}

/* Leases, mappings, fds and even the number of the socket stay. */
static void test_leases(int signal)
{
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_status status;
    struct stat before, after;
    uint8_t *base, *again;
    int fd, fd_again, sock = gtt_fd(gtt);
    struct gtt_segment *one = rig_fill(gtt, "one", 4 * MIB, 1), *two;
    CHECK_EQ(gtt_open(gtt, "one", 0, 0, &two), 0);
    CHECK_EQ(gtt_segment_map(one, false, (void **)&base), 0);
    CHECK_EQ(gtt_segment_chunk_fd(one, 0, &fd), 0);
    CHECK_EQ(fstat(fd, &before), 0);
    sup_restart(&sup, signal);
    CHECK_EQ(gtt_status(gtt, &status), 0);
    CHECK_EQ(status.n_leases, 2);
    CHECK(held(one) && held(two));
    CHECK_EQ(gtt_fd(gtt), sock);
    CHECK_EQ(gtt_segment_map(one, false, (void **)&again), 0);
    CHECK(again == base && base[4 * MIB - 1] == 1);
    CHECK_EQ(gtt_segment_chunk_fd(one, 0, &fd_again), 0);
    CHECK_EQ(fd_again, fd);
    CHECK_EQ(gtt_segment_chunk_fd(two, 0, &fd_again), 0); /* only fetched now */
    CHECK_EQ(fstat(fd_again, &after), 0);
    CHECK(before.st_ino == after.st_ino && before.st_dev == after.st_dev);
    CHECK_EQ(gtt_drop(gtt, "one", 0), -EBUSY);
    gtt_segment_close(two);
    gtt_segment_close(one);
    sup_restart(&sup, signal);
    CHECK_EQ(gtt_drop(gtt, "one", 0), 0);
    gtt_disconnect(gtt);
}

/* For one that makes no calls: the socket hangs up, and then it is one call. */
static void test_reconnect_call(void)
{
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_segment *segment = rig_fill(gtt, "idle", 2 * MIB, 1);
    CHECK_EQ(gtt_reconnect(gtt, -1), 0);
    sup_restart(&sup, SIGKILL);
    struct pollfd pfd = {.fd = gtt_fd(gtt), .events = POLLIN};
    CHECK_EQ(poll(&pfd, 1, 5000), 1);
    CHECK(pfd.revents & POLLHUP);
    CHECK_EQ(rig_count(&sup.rig).n_leases, 0);
    CHECK_EQ(gtt_reconnect(gtt, -1), 0);
    CHECK_EQ(rig_count(&sup.rig).n_leases, 1);
    CHECK_EQ(poll(&pfd, 1, 0), 0);
    gtt_segment_close(segment);
    CHECK_EQ(gtt_drop(gtt, "idle", 0), 0);
    gtt_disconnect(gtt);
}

/* A segment that is another one now, and one that is gone: said of these, and the mapping is what
 * it was. */
static void test_not_the_same(void)
{
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_segment *same = rig_fill(gtt, "same", 2 * MIB, 1);
    struct gtt_segment *other = rig_fill(gtt, "other", 2 * MIB, 2), *unmapped;
    struct gtt_segment *gone = rig_fill(gtt, "gone", 2 * MIB, 3);
    uint8_t *base;
    void *none;
    int fd;
    CHECK_EQ(gtt_segment_map(other, false, (void **)&base), 0);
    CHECK_EQ(gtt_open(gtt, "other", 0, 0, &unmapped), 0);
    sup_restart(&sup, SIGKILL);
    struct gtt *meanwhile = rig_connect(&sup.rig);
    CHECK_EQ(gtt_drop(meanwhile, "other", 0), 0);
    CHECK_EQ(gtt_drop(meanwhile, "gone", 0), 0);
    gtt_segment_close(rig_fill(meanwhile, "other", 2 * MIB, 9));
    CHECK_EQ(gtt_reconnect(gtt, -1), -ESTALE);
    expect_error(gtt, "gttd has restarted and does not have it any more");
    CHECK(held(same) && !held(other) && !held(unmapped) && !held(gone));
    CHECK(base[0] == 2 && base[2 * MIB - 1] == 2);
    CHECK_EQ(gtt_segment_verify(other), 0);
    CHECK_EQ(gtt_segment_chunk_fd(unmapped, 0, &fd), -ESTALE);
    CHECK_EQ(gtt_segment_map(unmapped, false, &none), -ESTALE);
    CHECK_EQ(rig_count(&sup.rig).n_leases, 1);
    gtt_segment_close(unmapped);
    gtt_segment_close(gone);
    gtt_segment_close(other);
    gtt_segment_close(same);
    CHECK_EQ(gtt_drop(gtt, "same", 0), 0);
    CHECK_EQ(gtt_drop(gtt, "other", 0), 0);
    gtt_disconnect(gtt);
    gtt_disconnect(meanwhile);
}

/* What was being filled cannot be sealed any more, and can be created again. */
static void test_filling(void)
{
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_create_params params = {.name = "filling", .size_bytes = 2 * MIB};
    struct gtt_segment *segment, *anonymous, *none;
    struct gtt_status status;
    uint8_t *base;
    CHECK_EQ(gtt_open(gtt, "filling", GTT_OPEN_FILL, 0, &none), 1);
    CHECK_EQ(gtt_create(gtt, &params, &segment), 0);
    CHECK_EQ(gtt_segment_map(segment, true, (void **)&base), 0);
    params.name = NULL;
    CHECK_EQ(gtt_create(gtt, &params, &anonymous), 0);
    sup_restart(&sup, SIGKILL);
    memset(base, 5, 2 * MIB);
    CHECK_EQ(gtt_segment_seal(segment, NULL, NULL, 0), -ECONNRESET);
    expect_error(gtt, "filling: gttd has restarted while it was being filled: create it again");
    CHECK_EQ(gtt_segment_seal(segment, NULL, NULL, 0), -ECONNRESET);
    CHECK_EQ(base[0], 5); /* still there, though perhaps only to read */
    CHECK_EQ(gtt_status(gtt, &status), 0);
    CHECK_EQ(status.n_segments, 0);
    gtt_segment_close(segment);
    gtt_segment_close(anonymous);
    gtt_segment_close(rig_fill(gtt, "filling", 2 * MIB, 7));
    CHECK_EQ(gtt_drop(gtt, "filling", 0), 0);

    /* a claim does not stay; creating works all the same, and so does giving it up */
    CHECK_EQ(gtt_open(gtt, "claimed", GTT_OPEN_FILL, 0, &none), 1);
    CHECK_EQ(gtt_open(gtt, "given up", GTT_OPEN_FILL, 0, &none), -EINVAL);
    CHECK_EQ(gtt_open(gtt, "given-up", GTT_OPEN_FILL, 0, &none), 1);
    sup_restart(&sup, SIGTERM);
    gtt_segment_close(rig_fill(gtt, "claimed", 2 * MIB, 7));
    CHECK_EQ(gtt_abandon(gtt, "given-up"), 0);
    CHECK_EQ(gtt_abandon(gtt, "given-up"), -ENOENT);
    CHECK_EQ(gtt_drop(gtt, "claimed", 0), 0);
    gtt_disconnect(gtt);
}

static int want_seal;

/* In a child: gttd is killed in the middle of this seal. */
static void sealer(void *data, int pipe_fd)
{
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_create_params params = {.name = "sealing", .size_bytes = 2 * MIB};
    struct gtt_segment *segment;
    uint8_t *base;
    (void)data;
    CHECK_EQ(gtt_create(gtt, &params, &segment), 0);
    CHECK_EQ(gtt_segment_map(segment, true, (void **)&base), 0);
    memset(base, 5, 2 * MIB);
    CHECK_EQ(write(pipe_fd, "x", 1), 1);
    raise(SIGSTOP);
    CHECK_EQ(gtt_segment_seal(segment, NULL, NULL, 0), want_seal);
    CHECK_EQ(base[2 * MIB - 1], 5);
    CHECK_EQ(held(segment), want_seal == 0);
    if (want_seal == 0) {
        CHECK_EQ(gtt_segment_verify(segment), 0);
    }
    gtt_segment_close(segment);
    gtt_disconnect(gtt);
}

/* Killed before all is stored: an error. After that: it is as if nothing had happened. */
static void test_sealing(int kill_at, int want)
{
    int pipe_fd;
    want_seal = want;
    pid_t pid = rig_fork(sealer, NULL, &pipe_fd);
    rig_pipe_byte(pipe_fd);
    sleep_ms(100); /* the messages of what was before have come */
    sup_kill_at(&sup, kill_at);
    CHECK_EQ(kill(pid, SIGCONT), 0);
    sup_end(&sup, 0);
    sup_kill_at(&sup, -1);
    sup_launch(&sup);
    rig_join(pid);
    close(pipe_fd);
    struct gtt *gtt = rig_connect(&sup.rig);
    CHECK_EQ(gtt_drop(gtt, "sealing", 0), want == 0 ? 0 : -ENOENT);
    gtt_disconnect(gtt);
}

/* In a child: an OPEN that waits while gttd restarts. */
static void waiter(void *data, int pipe_fd)
{
    const uint32_t *flags = data;
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_segment *segment;
    CHECK_EQ(write(pipe_fd, "x", 1), 1);
    int r = gtt_open(gtt, "awaited", *flags, 20000, &segment);
    CHECK_EQ(write(pipe_fd, r == 0 ? "0" : r == 1 ? "1" : r == -ENOENT ? "n" : "?", 1), 1);
    if (r == 0) {
        CHECK_EQ(gtt_segment_verify(segment), 0);
        gtt_segment_close(segment);
    }
    gtt_disconnect(gtt);
}

static void wait_for_waiter(void)
{
    while (rig_count(&sup.rig).n_waiters != 1) {
        sleep_ms(5);
    }
}

/* It is asked again: whoever wants to fill may now; who does not learns that there is nothing; and
 * who comes to one that is being filled again goes on waiting. */
static void test_waiting(int signal)
{
    static uint32_t fill = GTT_OPEN_WAIT | GTT_OPEN_FILL, only_wait = GTT_OPEN_WAIT;
    struct gtt_segment *segment;
    int pipe_fd;
    struct gtt *gtt = rig_connect(&sup.rig);
    CHECK_EQ(gtt_open(gtt, "awaited", GTT_OPEN_FILL, 0, &segment), 1);
    pid_t pid = rig_fork(waiter, &fill, &pipe_fd);
    rig_pipe_byte(pipe_fd);
    wait_for_waiter();
    sup_restart(&sup, signal);
    CHECK_EQ(rig_pipe_byte(pipe_fd), '1');
    rig_join(pid);
    close(pipe_fd);
    gtt_disconnect(gtt);

    gtt = rig_connect(&sup.rig);
    CHECK_EQ(gtt_open(gtt, "awaited", GTT_OPEN_FILL, 0, &segment), 1);
    pid = rig_fork(waiter, &only_wait, &pipe_fd);
    rig_pipe_byte(pipe_fd);
    wait_for_waiter();
    sup_restart(&sup, signal);
    CHECK_EQ(rig_pipe_byte(pipe_fd), 'n');
    rig_join(pid);
    close(pipe_fd);
    CHECK_EQ(gtt_open(gtt, "awaited", GTT_OPEN_FILL, 0, &segment), 1);
    pid = rig_fork(waiter, &fill, &pipe_fd);
    rig_pipe_byte(pipe_fd);
    wait_for_waiter();
    CHECK_EQ(kill(pid, SIGSTOP), 0); /* so that the other is first */
    sup_restart(&sup, signal);
    CHECK_EQ(gtt_open(gtt, "awaited", GTT_OPEN_FILL, 0, &segment), 1);
    CHECK_EQ(kill(pid, SIGCONT), 0);
    wait_for_waiter();
    gtt_segment_close(rig_fill(gtt, "awaited", 2 * MIB, 4));
    CHECK_EQ(rig_pipe_byte(pipe_fd), '0');
    rig_join(pid);
    close(pipe_fd);
    CHECK_EQ(gtt_drop(gtt, "awaited", 0), 0);
    gtt_disconnect(gtt);
}

static void expect_event(struct gtt *gtt, enum gtt_event_kind kind)
{
    struct gtt_event event;
    CHECK_EQ(gtt_next_event(gtt, 5000, &event), 0);
    CHECK_EQ(event.kind, kind);
}

static void test_watching(void)
{
    struct gtt *watcher = rig_connect(&sup.rig), *gtt = rig_connect(&sup.rig);
    struct gtt_event event;
    CHECK_EQ(gtt_watch(watcher), 0);
    gtt_segment_close(rig_fill(gtt, "seen", 2 * MIB, 1));
    expect_event(watcher, GTT_EVENT_CREATED);
    sup_restart(&sup, SIGKILL); /* with events that have not been read */
    expect_event(watcher, GTT_EVENT_SEALED);
    expect_event(watcher, GTT_EVENT_CLOSED);
    CHECK_EQ(gtt_next_event(watcher, 5000, &event), 0);
    CHECK_EQ(event.kind, GTT_EVENT_LOST);
    CHECK_EQ(event.n_lost, 0);
    CHECK_EQ(gtt_drop(gtt, "seen", 0), 0);
    expect_event(watcher, GTT_EVENT_DROPPED);
    CHECK_EQ(gtt_next_event(watcher, 0, &event), -ETIMEDOUT);
    gtt_disconnect(watcher);
    gtt_disconnect(gtt);
}

/* Lists go on where they were; a drop by id is not repeated blindly. */
static void test_list_and_drop(void)
{
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_entry entry;
    uint64_t cursor = 0;
    gtt_segment_close(rig_fill(gtt, "a", 2 * MIB, 1));
    gtt_segment_close(rig_fill(gtt, "b", 2 * MIB, 1));
    CHECK_EQ(gtt_list(gtt, &cursor, &entry), 1);
    CHECK(!strcmp(entry.name, "a"));
    sup_restart(&sup, SIGKILL);
    CHECK_EQ(gtt_reconnect(gtt, -1), 0);
    CHECK_EQ(gtt_list(gtt, &cursor, &entry), 1);
    CHECK(!strcmp(entry.name, "b"));
    CHECK_EQ(gtt_list(gtt, &cursor, &entry), 0);
    sup_restart(&sup, SIGKILL);
    CHECK_EQ(gtt_drop_id(gtt, entry.id, 0), -ECONNRESET);
    expect_error(gtt, "gttd has restarted; look again");
    CHECK_EQ(gtt_drop_id(gtt, entry.id, 0), 0);
    CHECK_EQ(gtt_drop(gtt, "a", 0), 0);
    gtt_disconnect(gtt);
}

/* One that does not come back is waited for once; when it does, all goes on. */
static void test_gone(void)
{
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_status status;
    struct gtt_segment *segment = rig_fill(gtt, "gone", 2 * MIB, 1);
    close(sup.listen_fd); /* nobody listens for it */
    sup_end(&sup, SIGKILL);
    int64_t start_ms = now_ms();
    CHECK_EQ(gtt_status(gtt, &status), -ECONNRESET);
    expect_error(gtt, "gttd has ended the connection and is not back: no gttd at");
    CHECK(now_ms() - start_ms < 5000);
    start_ms = now_ms();
    CHECK_EQ(gtt_status(gtt, &status), -ECONNRESET);
    CHECK_EQ(gtt_reconnect(gtt, -1), -ECONNRESET);
    CHECK(now_ms() - start_ms < 500);
    CHECK_EQ(gtt_segment_verify(segment), 0);
    sup_listen(&sup);
    sup_launch(&sup);
    CHECK_EQ(gtt_status(gtt, &status), 0);
    CHECK(!held(segment)); /* there was no store */
    CHECK_EQ(gtt_reconnect(gtt, -1), -ESTALE);
    gtt_segment_close(segment);
    gtt_disconnect(gtt);
}

/* In a child: work that must not fail, until *data. */
static void worker(void *data, int pipe_fd)
{
    const atomic_bool *enough = data;
    struct gtt *gtt = rig_connect(&sup.rig);
    int n = 0;
    CHECK_EQ(write(pipe_fd, "x", 1), 1);
    while (!atomic_load(enough)) {
        struct gtt_segment *segment;
        uint8_t *base;
        int r = gtt_open(gtt, "shared", 0, 0, &segment);
        if (r < 0) {
            fprintf(stderr, "%s\n", gtt_last_error(gtt));
        }
        CHECK_EQ(r, 0);
        CHECK_EQ(gtt_segment_map(segment, false, (void **)&base), 0);
        CHECK(base[0] == 3 && base[2 * MIB - 1] == 3);
        gtt_segment_close(segment);
        n++;
    }
    CHECK(n > 0);
    CHECK_EQ(count_fds(NULL), count_fds(NULL));
    gtt_disconnect(gtt);
}

static void test_busy(void)
{
    enum { N = 4 };
    pid_t pids[N];
    int pipes[N];
    atomic_bool *enough = mmap(NULL, sizeof(*enough), PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0); /* the children see it too */
    CHECK(enough != MAP_FAILED);
    struct gtt *gtt = rig_connect(&sup.rig);
    gtt_segment_close(rig_fill(gtt, "shared", 2 * MIB, 3));
    for (int i = 0; i < N; i++) {
        pids[i] = rig_fork(worker, enough, &pipes[i]);
        rig_pipe_byte(pipes[i]);
    }
    for (int i = 0; i < 6; i++) {
        sleep_ms(150);
        sup_restart(&sup, i % 2 ? SIGTERM : SIGKILL);
    }
    sleep_ms(150);
    atomic_store(enough, true);
    for (int i = 0; i < N; i++) {
        rig_join(pids[i]);
        close(pipes[i]);
    }
    CHECK_EQ(munmap(enough, sizeof(*enough)), 0);
    CHECK_EQ(gtt_drop(gtt, "shared", 0), 0);
    gtt_disconnect(gtt);
}

int main(void)
{
    sup_start(&sup, 64, NULL);
    int n_fds = count_fds(NULL);
    test_leases(SIGKILL);
    test_leases(SIGTERM);
    test_reconnect_call();
    test_not_the_same();
    test_filling();
    test_sealing(0, -ECONNRESET);
    test_sealing(1, -ECONNRESET);
    test_sealing(2, 0);
    test_waiting(SIGKILL);
    test_waiting(SIGTERM);
    test_watching();
    test_list_and_drop();
    test_busy();
    for (int ms = 0; (sup_count(&sup, NULL) || count_fds(NULL) != n_fds) && ms < 5000; ms++) {
        sleep_ms(1); /* the last removal is on its way, and a barrier that follows it */
    }
    CHECK_EQ(sup_count(&sup, NULL), 0);
    CHECK_EQ(count_fds(NULL), n_fds);
    sup_stop(&sup);
    sup_start(&sup, 0, NULL);
    test_gone();
    sup_stop(&sup);
    return 0;
}
