/* SPDX-License-Identifier: MIT */
/*
 * Clients that misbehave are disconnected, keep nothing, and never make another one wait: after
 * each of them a well-behaved client still gets its answers at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include "gttd_util.h"
#include "rig.h"

static struct rig rig;
static struct gtt *good; /* connected all the time */

/* The good client's round trip stays short. */
static void expect_service(void)
{
    struct gtt_status status;
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(gtt_status(good, &status), 0);
    }
    clock_gettime(CLOCK_MONOTONIC, &b);
    double ms = (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
    CHECK(ms < 2000);
}

/* Send bytes, with any number of fds, and expect to be hung up on. */
static void expect_refused(int sock, const void *data, size_t size, const int *fds, size_t n_fds)
{
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(16 * sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = (void *)data, .iov_len = size};
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n_fds) {
        mh.msg_control = control.buf;
        mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    CHECK_EQ(sendmsg(sock, &mh, MSG_NOSIGNAL), size);
    raw_expect_end(sock);
    close(sock);
    expect_service();
}

static void test_garbage(void)
{
    char bytes[20000];
    unsigned seed = 1;
    for (size_t i = 0; i < sizeof bytes; i++) {
        seed = seed * 1103515245 + 12345;
        bytes[i] = (char)(seed >> 16);
    }
    static const size_t sizes[] = {1, 15, 16, 17, 48, 4000, 20000};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        expect_refused(rig_raw(&rig), bytes, sizes[i], NULL, 0);
        expect_refused(rig_raw_greeted(&rig), bytes, sizes[i], NULL, 0);
    }
    expect_refused(rig_raw(&rig), bytes, 0, NULL, 0);
}

static void test_malformed(void)
{
    struct gttd_plain status = {gttd_header(sizeof status, GTTD_OP_STATUS, 5)};
    struct gttd_hello_req hello = {gttd_header(sizeof hello, GTTD_OP_HELLO, 1), "twice"};
    struct gttd_event event = {gttd_header(sizeof event, GTTD_OP_EVENT, 0), .kind = 1};
    expect_refused(rig_raw(&rig), &status, sizeof status, NULL, 0); /* no HELLO */
    expect_refused(rig_raw_greeted(&rig), &hello, sizeof hello, NULL, 0);
    expect_refused(rig_raw_greeted(&rig), &status, sizeof status - 1, NULL, 0);
    expect_refused(rig_raw_greeted(&rig), &event, sizeof event, NULL, 0);
    status.hdr.serial = 0;
    expect_refused(rig_raw_greeted(&rig), &status, sizeof status, NULL, 0);
    status.hdr.serial = 5;
    status.hdr.version = GTTD_PROTO_VERSION + 1;
    expect_refused(rig_raw_greeted(&rig), &status, sizeof status, NULL, 0);
    status.hdr.version = GTTD_PROTO_VERSION;
    status.hdr.op = 99;
    expect_refused(rig_raw_greeted(&rig), &status, sizeof status, NULL, 0);
    memset(hello.label, 'x', sizeof hello.label); /* no NUL */
    expect_refused(rig_raw(&rig), &hello, sizeof hello, NULL, 0);
}

/* Another version at the start gets an answer that says so. */
static void test_other_version(void)
{
    struct gttd_hello_req hello = {gttd_header(sizeof hello, GTTD_OP_HELLO, 1), "new"};
    union gttd_msg msg;
    int sock = rig_raw(&rig);
    hello.hdr.version = 9;
    CHECK_EQ(gttd_send(sock, &hello.hdr, -1), 0);
    CHECK_EQ(raw_recv(sock, &msg, NULL), -EPROTONOSUPPORT);
    CHECK(strstr(msg.error.reason, "version 3"));
    raw_expect_end(sock);
    close(sock);
}

static void test_unwanted_fds(void)
{
    struct gttd_plain status = {gttd_header(sizeof status, GTTD_OP_STATUS, 5)};
    int fds[16];
    struct rig_count before = rig_count(&rig);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        fds[i] = memfd_create("unwanted", MFD_CLOEXEC);
    }
    expect_refused(rig_raw_greeted(&rig), &status, sizeof status, fds, 1);
    expect_refused(rig_raw_greeted(&rig), &status, sizeof status, fds, 2);
    expect_refused(rig_raw_greeted(&rig), &status, sizeof status, fds, 16);
    expect_refused(rig_raw(&rig), &status, sizeof status - 2, fds, 3);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        close(fds[i]);
    }
    rig_expect_count(&rig, &before);
}

static void test_serial_in_use(void)
{
    struct gtt_segment *segment;
    struct gttd_open_req req = {.flags = GTTD_OPEN_WAIT, .name = "slow"};
    int sock = rig_raw_greeted(&rig);
    CHECK_EQ(gtt_open(good, "slow", GTT_OPEN_FILL, 0, &segment), 1);
    raw_send(sock, &req, sizeof req, GTTD_OP_OPEN, 6);
    expect_refused(sock, &req, sizeof req, NULL, 0);
    CHECK_EQ(gtt_abandon(good, "slow"), 0);
}

/* Send requests without reading a reply until the socket takes no more; stay connected. */
static int flood(const void *req, size_t size)
{
    int sock = rig_raw_greeted(&rig);
    fcntl(sock, F_SETFL, O_NONBLOCK);
    for (int i = 0, blocked = 0; i < 200000 && blocked < 50; i++) {
        if (send(sock, req, size, MSG_NOSIGNAL) < 0) {
            CHECK(errno == EAGAIN);
            sleep_ms(1);
            blocked++;
        }
    }
    return sock;
}

static void test_flood(void)
{
    struct gttd_list_req req = {gttd_header(sizeof req, GTTD_OP_LIST, 5), 0};
    int socks[4];
    for (size_t i = 0; i < ARRAY_SIZE(socks); i++) {
        socks[i] = flood(&req, sizeof req);
        expect_service();
    }
    for (size_t i = 0; i < ARRAY_SIZE(socks); i++) {
        close(socks[i]);
    }
}

/* CHUNK over and over, never received: fds in flight are bounded by the socket's buffer. */
static void test_unread_fds(void)
{
    struct gtt_segment *segment = rig_fill(good, "chunks", 2 * MIB, 1);
    struct gttd_open_req open_req = {.name = "chunks"};
    union gttd_msg msg;
    int sock = rig_raw_greeted(&rig);
    raw_send(sock, &open_req, sizeof open_req, GTTD_OP_OPEN, 2);
    CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
    struct gttd_chunk_req req = {gttd_header(sizeof req, GTTD_OP_CHUNK, 5), msg.open_rsp.id, 0, 0};
    fcntl(sock, F_SETFL, O_NONBLOCK);
    for (int blocked = 0; blocked < 50;) {
        if (send(sock, &req, sizeof req, MSG_NOSIGNAL) < 0) {
            sleep_ms(1);
            blocked++;
        }
    }
    expect_service();
    int fd;
    CHECK_EQ(gtt_segment_chunk_fd(segment, 0, &fd), 0);
    close(sock);
    gtt_segment_close(segment);
    while (gtt_drop(good, "chunks", 0) == -EBUSY) {
        sleep_ms(5);
    }
}

/* A watcher that does not read loses events and is told how many; the others are not held up. */
static void test_slow_watcher(void)
{
    struct gttd_plain watch;
    union gttd_msg msg;
    uint32_t n_events = 0, n_lost = 0;
    int sock = rig_raw_greeted(&rig);
    raw_send(sock, &watch, sizeof watch, GTTD_OP_WATCH, 2);
    CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
    struct gtt_segment *segment = rig_fill(good, "noise", 2 * MIB, 1);
    gtt_segment_close(segment);
    for (int i = 0; i < 2000; i++) {
        CHECK_EQ(gtt_open(good, "noise", 0, 0, &segment), 0);
        gtt_segment_close(segment);
    }
    expect_service();
    bool quiet = false;
    while (!quiet) {
        struct pollfd pfd = {.fd = sock, .events = POLLIN};
        quiet = poll(&pfd, 1, 100) == 0;
        if (!quiet) {
            raw_recv(sock, &msg, NULL);
            n_lost += msg.event.n_lost;
            n_events += msg.event.kind != GTTD_EVENT_LOST;
        }
    }
    CHECK_EQ(gtt_drop(good, "noise", 0), 0); /* the next event brings the count */
    CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
    CHECK_EQ(msg.event.kind, GTTD_EVENT_LOST);
    n_lost += msg.event.n_lost;
    CHECK_EQ(n_events + n_lost, 3 + 2 * 2000);
    CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
    CHECK_EQ(msg.event.kind, GTTD_EVENT_DROPPED);
    close(sock);
}

static void test_half_open(void)
{
    int silent = rig_raw(&rig);       /* never says anything */
    int half = rig_raw_greeted(&rig); /* says that it will not say anything more */
    CHECK_EQ(shutdown(half, SHUT_WR), 0);
    raw_expect_end(half);
    int deaf = rig_raw_greeted(&rig); /* will not listen any more */
    CHECK_EQ(shutdown(deaf, SHUT_RD), 0);
    struct gttd_plain status = {gttd_header(sizeof status, GTTD_OP_STATUS, 5)};
    for (int i = 0; i < 100 && send(deaf, &status, sizeof status, MSG_NOSIGNAL) > 0; i++) {
    }
    expect_service();
    close(silent);
    close(half);
    close(deaf);
}

/* One user's connections are bounded, and the refusal says so; so are the daemon's fds. */
static void test_too_many(void)
{
    static int socks[1200];
    size_t n = 0;
    struct gtt *gtt;
    int r = 0;
    struct gtt_status status;
    CHECK_EQ(gtt_status(good, &status), 0);
    while (n < ARRAY_SIZE(socks)) {
        socks[n++] = rig_raw(&rig);
        if (n % 50 == 0) {
            r = gtt_connect(rig.socket, "late", &gtt);
            if (r < 0) {
                break;
            }
            gtt_disconnect(gtt);
        }
    }
    CHECK_EQ(r, -EUSERS);
    CHECK(strstr(gtt_last_error(NULL), "connections"));
    expect_service();
    while (n) {
        close(socks[--n]);
    }
}

/* A gttd with hardly any fds: connections beyond are refused, no spinning, and it recovers. */
static void test_out_of_fds(void)
{
    struct rig poor = {0};
    struct rlimit old, tight;
    int socks[40];
    getrlimit(RLIMIT_NOFILE, &old);
    rig_start(&poor, NULL);
    tight = (struct rlimit){.rlim_cur = 16, .rlim_max = old.rlim_max};
    CHECK_EQ(prlimit(poor.pid, RLIMIT_NOFILE, &tight, NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(socks); i++) {
        socks[i] = rig_raw(&poor);
    }
    struct gtt *gtt;
    CHECK_EQ(gtt_connect(poor.socket, NULL, &gtt), -EUSERS);
    CHECK(strstr(gtt_last_error(NULL), "file descriptors"));
    CHECK(rig_logged(&poor, "out of file descriptors"));
    for (size_t i = 0; i < ARRAY_SIZE(socks); i++) {
        close(socks[i]);
    }
    int r = -1;
    for (int i = 0; i < 200 && r < 0; i++) {
        r = gtt_connect(poor.socket, NULL, &gtt);
        sleep_ms(5);
    }
    CHECK_EQ(r, 0);
    gtt_disconnect(gtt);
    rig_stop(&poor);
}

/* The source of a write() that does not come to an end: memory whose pages nobody brings. */
static void *endless_source(int *ret_fd)
{
    struct uffdio_api api = {.api = UFFD_API};
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    if (fd < 0) {
        return NULL;
    }
    void *map = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register reg = {.range = {(uintptr_t)map, MIB},
                                  .mode = UFFDIO_REGISTER_MODE_MISSING};
    CHECK(map != MAP_FAILED);
    CHECK_EQ(ioctl(fd, UFFDIO_API, &api), 0);
    CHECK_EQ(ioctl(fd, UFFDIO_REGISTER, &reg), 0);
    *ret_fd = fd;
    return map;
}

struct writer {
    pthread_t thread;
    int fd; /* of a chunk */
    void *source;
};

static void *write_endlessly(void *data)
{
    const struct writer *writer = data;
    CHECK_EQ(pwrite(writer->fd, writer->source, 4096, 0), 4096);
    return NULL;
}

/*
 * During a write() to a memfd the kernel holds its inode's lock, and a client can make one last for
 * ever: that must not keep gttd from sealing, not even the very memory, or others from anything.
 */
static void test_lock_holders(void)
{
    struct writer writers[8];
    union gttd_msg msg;
    int uffd;
    void *source = endless_source(&uffd);
    if (!source) {
        printf("lock holders: no userfaultfd, left out\n");
        return;
    }
    int sock = rig_raw_greeted(&rig);
    for (uint32_t i = 0; i < ARRAY_SIZE(writers); i++) {
        struct gttd_create_req create = {.size_bytes = 2 * MIB};
        snprintf(create.name, sizeof create.name, "locked%u", i);
        raw_send(sock, &create, sizeof create, GTTD_OP_CREATE, 10 + i);
        CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
        struct gttd_chunk_req chunk = {.id = msg.create_rsp.id};
        struct gttd_seal_req seal = {.id = msg.create_rsp.id};
        raw_send(sock, &chunk, sizeof chunk, GTTD_OP_CHUNK, 10 + i);
        CHECK_EQ(raw_recv(sock, &msg, &writers[i].fd), 0);
        writers[i].source = source;
        CHECK_EQ(pthread_create(&writers[i].thread, NULL, write_endlessly, &writers[i]), 0);
        sleep_ms(20); /* to be in the middle of it */
        raw_send(sock, &seal, sizeof seal, GTTD_OP_SEAL, 10 + i);
        CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
        CHECK_EQ(msg.seal_rsp.flags & GTTD_SEGMENT_IMMUTABLE, 0);
    }
    gtt_segment_close(rig_fill(good, "unlocked", 4 * MIB, 1));
    CHECK_EQ(gtt_drop(good, "unlocked", 0), 0);
    close(sock);
    for (uint32_t i = 0; i < ARRAY_SIZE(writers); i++) {
        char name[16];
        snprintf(name, sizeof name, "locked%u", i);
        CHECK_EQ(gtt_drop(good, name, GTT_DROP_FORCE), 0);
    }
    expect_service();
    close(uffd); /* the pages are zeros now */
    for (uint32_t i = 0; i < ARRAY_SIZE(writers); i++) {
        CHECK_EQ(pthread_join(writers[i].thread, NULL), 0);
        close(writers[i].fd);
    }
    munmap(source, MIB);
}

/* One that connects and says nothing, and one that is turned away and keeps the line. */
static void test_silence(void)
{
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    int silent = rig_raw(&rig);
    raw_expect_end(silent);
    clock_gettime(CLOCK_MONOTONIC, &b);
    CHECK(b.tv_sec - a.tv_sec >= 4);
    CHECK(rig_logged(&rig, "disconnected: it has not said HELLO in time"));
    close(silent);
    expect_service(); /* the good one has been silent as long, but had said HELLO */
}

/*
 * Whoever reads gttd's stderr stops: that is a full pipe, or the journal's socket, soon. Clients
 * that misbehave write a line each; the good one must not wait for any.
 */
static void test_full_log(bool is_socket)
{
    struct rig deaf = {0};
    int fds[2];
    CHECK_EQ(is_socket ? socketpair(AF_UNIX, SOCK_STREAM, 0, fds) : pipe(fds), 0);
    deaf.log_fd = fds[1];
    rig_start(&deaf, NULL);
    close(fds[1]);
    struct gtt *gtt = rig_connect(&deaf);
    struct rig_count before = rig_count(&deaf);
    for (int i = 0; i < 3000; i++) {
        struct gttd_plain twice = {gttd_header(sizeof twice, GTTD_OP_STATUS, 1)};
        int sock = rig_raw(&deaf);
        CHECK_EQ(gttd_send(sock, &twice.hdr, -1), 0);
        raw_expect_end(sock);
        close(sock);
    }
    struct gtt_status status;
    CHECK_EQ(gtt_status(gtt, &status), 0);
    rig_expect_count(&deaf, &before);
    gtt_disconnect(gtt);
    /* read again: the rest is there, and how much is not */
    static char text[1 << 20];
    size_t n = 0;
    ssize_t got = read(fds[0], text, sizeof text - 1);
    CHECK(got > 0);
    n += (size_t)got;
    CHECK_EQ(kill(deaf.pid, SIGTERM), 0);
    while ((got = read(fds[0], text + n, sizeof text - 1 - n)) > 0) {
        n += (size_t)got;
    }
    close(fds[0]);
    CHECK_EQ(rig_wait(&deaf), 0);
    CHECK(strstr(text, "no HELLO at the start"));
    CHECK(strstr(text, " lines could not be written\n"));
    CHECK(strstr(text, "SIGTERM: ending\n"));
    rig_clean(&deaf);
}

int main(void)
{
    rig_start(&rig, NULL);
    good = rig_connect(&rig);
    struct rig_count before = rig_count(&rig);
    test_garbage();
    test_malformed();
    test_other_version();
    test_unwanted_fds();
    test_serial_in_use();
    test_flood();
    test_unread_fds();
    test_slow_watcher();
    test_half_open();
    test_too_many();
    test_lock_holders();
    test_silence();
    rig_expect_count(&rig, &before);
    CHECK(rig_logged(&rig, "disconnected: a second HELLO"));
    gtt_disconnect(good);
    rig_stop(&rig);
    test_out_of_fds();
    test_full_log(false);
    test_full_log(true);
    return 0;
}
