/* SPDX-License-Identifier: MIT */
/*
 * Single flight: of many that want a missing segment one fills it and the others wait; when the
 * filler is killed, at whatever stage, a waiter takes over and nothing of the dead one stays.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>

#include "gttd_util.h"
#include "rig.h"

static struct rig rig;

enum stage { CLAIMED, POPULATING, CREATED, GOT_CHUNK, MAPPED, DIGESTED, N_STAGES };

/* In a child: be the filler of "w" up to a stage, say so, and wait for death. */
static void filler(void *data, int pipe_fd)
{
    enum stage stage = *(enum stage *)data;
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_segment *segment;
    uint8_t digest[GTT_DIGEST_SIZE];
    void *base;
    int fd;
    struct gtt_create_params params = {.name = "w", .size_bytes = 64 * MIB};
    CHECK_EQ(gtt_open(gtt, "w", GTT_OPEN_FILL, 0, &segment), 1);
    if (stage == POPULATING) { /* sent, and not waited for */
        struct gttd_create_req req = {.size_bytes = 1024 * MIB, .name = "w"};
        raw_send(gtt_fd(gtt), &req, sizeof req, GTTD_OP_CREATE, 100);
    } else if (stage > CLAIMED) {
        CHECK_EQ(gtt_create(gtt, &params, &segment), 0);
        if (stage >= GOT_CHUNK) {
            CHECK_EQ(gtt_segment_chunk_fd(segment, 0, &fd), 0);
        }
        if (stage >= MAPPED) {
            CHECK_EQ(gtt_segment_map(segment, true, &base), 0);
            memset(base, 1, params.size_bytes);
        }
        if (stage >= DIGESTED) {
            CHECK_EQ(gtt_digest(base, params.size_bytes, digest), 0);
        }
    }
    CHECK_EQ(write(pipe_fd, "x", 1), 1);
    pause();
}

static int send_open(uint32_t flags)
{
    int sock = rig_raw_greeted(&rig);
    struct gttd_open_req req = {.flags = flags, .name = "w"};
    raw_send(sock, &req, sizeof req, GTTD_OP_OPEN, 2);
    return sock;
}

static bool is_quiet(int sock)
{
    struct pollfd pfd = {.fd = sock, .events = POLLIN};
    return poll(&pfd, 1, 50) == 0;
}

/* Over a raw connection that has the claim: make it and seal it. */
static void fill_raw(int sock)
{
    union gttd_msg msg;
    struct gttd_create_req create = {.size_bytes = 4 * MIB, .name = "w"};
    raw_send(sock, &create, sizeof create, GTTD_OP_CREATE, 3);
    CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
    struct gttd_seal_req seal = {.id = msg.create_rsp.id, .metadata_size = 1, .metadata = {42}};
    raw_send(sock, &seal, sizeof seal, GTTD_OP_SEAL, 4);
    CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
}

static void expect_role(int sock, enum gttd_role role)
{
    union gttd_msg msg;
    CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
    CHECK_EQ(msg.hdr.op, GTTD_OP_OPEN);
    CHECK_EQ(msg.open_rsp.role, role);
    if (role == GTTD_ROLE_LEASE) {
        CHECK_EQ(msg.open_rsp.size_bytes, 4 * MIB);
        CHECK_EQ(msg.open_rsp.metadata[0], 42);
    }
}

static void drop(void)
{
    struct gtt *gtt = rig_connect(&rig);
    CHECK_EQ(gtt_drop(gtt, "w", 0), 0);
    gtt_disconnect(gtt);
}

static void test_takeover(enum stage stage)
{
    struct rig_count before = rig_count(&rig);
    int pipe_fd;
    pid_t pid = rig_fork(filler, &stage, &pipe_fd);
    rig_pipe_byte(pipe_fd);
    int first = send_open(GTTD_OPEN_WAIT | GTTD_OPEN_FILL);
    int second = send_open(GTTD_OPEN_WAIT | GTTD_OPEN_FILL);
    int reader = send_open(GTTD_OPEN_WAIT);
    if (stage != POPULATING) {
        CHECK(is_quiet(first) && is_quiet(second) && is_quiet(reader));
        CHECK_EQ(rig_count(&rig).n_waiters, 3);
    }
    rig_kill(pid);
    close(pipe_fd);
    expect_role(first, GTTD_ROLE_FILLER);
    CHECK(is_quiet(second) && is_quiet(reader));
    fill_raw(first); /* at once, while the dead one's memory may still be on its way back */
    expect_role(second, GTTD_ROLE_LEASE);
    expect_role(reader, GTTD_ROLE_LEASE);
    close(first);
    close(second);
    close(reader);
    while (rig_count(&rig).n_leases) {
        sleep_ms(5);
    }
    drop();
    rig_expect_count(&rig, &before);
}

/* Fillers die one after the other; the last waiter does not want to fill. */
static void test_all_fillers_die(void)
{
    struct rig_count before = rig_count(&rig);
    union gttd_msg msg;
    int first = send_open(GTTD_OPEN_FILL);
    expect_role(first, GTTD_ROLE_FILLER);
    int reader = send_open(GTTD_OPEN_WAIT);
    int second = send_open(GTTD_OPEN_WAIT | GTTD_OPEN_FILL);
    CHECK(is_quiet(reader) && is_quiet(second));
    close(first);
    expect_role(second, GTTD_ROLE_FILLER);
    CHECK(is_quiet(reader));
    close(second);
    CHECK_EQ(raw_recv(reader, &msg, NULL), -ENOENT);
    CHECK(strstr(msg.error.reason, "given up"));
    close(reader);
    rig_expect_count(&rig, &before);
}

/* A waiter that leaves or cancels is not the one that takes over. */
static void test_waiters_leave(void)
{
    struct rig_count before = rig_count(&rig);
    union gttd_msg msg;
    int first = send_open(GTTD_OPEN_FILL);
    expect_role(first, GTTD_ROLE_FILLER);
    int gone = send_open(GTTD_OPEN_WAIT | GTTD_OPEN_FILL);
    int cancels = send_open(GTTD_OPEN_WAIT | GTTD_OPEN_FILL);
    int heir = send_open(GTTD_OPEN_WAIT | GTTD_OPEN_FILL);
    CHECK(is_quiet(heir));
    close(gone);
    struct gttd_close_req cancel = {.wait_serial = 2};
    raw_send(cancels, &cancel, sizeof cancel, GTTD_OP_CLOSE, 3);
    CHECK_EQ(raw_recv(cancels, &msg, NULL), -ECANCELED);
    CHECK_EQ(msg.hdr.serial, 2);
    CHECK_EQ(raw_recv(cancels, &msg, NULL), 0);
    CHECK_EQ(msg.hdr.serial, 3);
    close(first);
    expect_role(heir, GTTD_ROLE_FILLER);
    close(heir);
    close(cancels);
    rig_expect_count(&rig, &before);
}

/* A filler that dies with the SEAL sent: all of it was there, so it is sealed. */
static void test_death_after_seal(void)
{
    struct gtt *gtt = rig_connect(&rig);
    int sock = rig_raw_greeted(&rig), waiter;
    union gttd_msg msg;
    struct gttd_create_req create = {.size_bytes = 4 * MIB, .name = "w"};
    raw_send(sock, &create, sizeof create, GTTD_OP_CREATE, 3);
    CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
    waiter = send_open(GTTD_OPEN_WAIT | GTTD_OPEN_FILL);
    CHECK(is_quiet(waiter));
    struct gttd_seal_req seal = {.id = msg.create_rsp.id, .metadata_size = 1, .metadata = {42}};
    raw_send(sock, &seal, sizeof seal, GTTD_OP_SEAL, 4);
    close(sock);
    expect_role(waiter, GTTD_ROLE_LEASE);
    close(waiter);
    while (gtt_drop(gtt, "w", 0) == -EBUSY) {
        sleep_ms(5);
    }
    gtt_disconnect(gtt);
}

/* Many at once through libgtt: exactly one fills, all see what it wrote. */
static void racer(void *data, int pipe_fd)
{
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_segment *segment;
    uint8_t *base;
    (void)data;
    int r = gtt_open(gtt, "w", GTT_OPEN_WAIT | GTT_OPEN_FILL, -1, &segment);
    if (r == 1) {
        segment = rig_fill(gtt, "w", 8 * MIB, 99);
        CHECK_EQ(write(pipe_fd, "f", 1), 1);
    } else {
        CHECK_EQ(r, 0);
    }
    CHECK_EQ(gtt_segment_map(segment, false, (void **)&base), 0);
    CHECK_EQ(base[5 * MIB], 99);
    gtt_segment_close(segment);
    gtt_disconnect(gtt);
}

static void test_race(void)
{
    struct rig_count before = rig_count(&rig);
    pid_t pids[12];
    int pipes[ARRAY_SIZE(pids)];
    size_t n_fillers = 0;
    for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
        pids[i] = rig_fork(racer, NULL, &pipes[i]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
        char c;
        rig_join(pids[i]);
        n_fillers += read(pipes[i], &c, 1) == 1;
        close(pipes[i]);
    }
    CHECK_EQ(n_fillers, 1);
    while (rig_count(&rig).n_leases) {
        sleep_ms(5);
    }
    drop();
    rig_expect_count(&rig, &before);
}

int main(void)
{
    /* the capacity holds the dead filler's memory or the heir's, not both */
    rig_start(&rig, (const char *[]){"--pool=256M", NULL});
    struct rig_count before = rig_count(&rig);
    for (enum stage stage = 0; stage < N_STAGES; stage++) {
        test_takeover(stage);
    }
    test_all_fillers_die();
    test_waiters_leave();
    test_death_after_seal();
    test_race();
    rig_expect_count(&rig, &before);
    rig_stop(&rig);
    return 0;
}
