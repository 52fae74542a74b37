/* SPDX-License-Identifier: MIT */
/*
 * Device memory that clients hand over: kept, given back to who names the same device, refused,
 * limited, dropped.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "adopting.h"
#include "gttd_util.h"

#define ALICE 65533u
#define BOB   65532u

static struct rig rig;

static void expect_text(const struct gtt *gtt, const char *text)
{
    if (!strstr(gtt_last_error(gtt), text)) {
        fprintf(stderr, "last error is \"%s\", without \"%s\"\n", gtt_last_error(gtt), text);
        CHECK(!"the reason");
    }
}

static void test_keep(void)
{
    struct gtt_segment *segment;
    struct gtt_entry entry;
    struct copy copy;
    rig_start(&rig, NULL);
    struct rig_count idle = rig_count(&rig);
    struct gtt *gtt = rig_connect(&rig), *other = rig_connect(&rig);
    copy_init(&copy, "copy");
    CHECK_EQ(gtt_adopt(gtt, &copy.params, &segment), 0);
    CHECK(find(other, "copy", &entry));
    CHECK(entry.adopted && entry.state == GTT_SEALED && entry.n_leases == 1 && !entry.pinned_bytes);
    CHECK(!memcmp(&entry.device, &gpu, sizeof gpu) && entry.size_bytes == N_CHUNKS * 2 * MIB);
    struct gtt_status status = status_of(other);
    CHECK(status.adopts && status.n_adopted == 1 && status.n_sealed == 1);
    CHECK(status.adopted_bytes == entry.size_bytes &&
          status.adopted_user_bytes == entry.size_bytes);
    CHECK(status.adopted_quota_bytes == 256ull << 30);
    CHECK(!status.used_bytes && !status.user_bytes); /* it is neither RAM nor the pool's */
    CHECK_EQ(gtt_segment_seal(segment, NULL, NULL, 0), -EINVAL);
    expect_copy(other, "copy", &copy);
    gtt_segment_close(segment);
    gtt_disconnect(gtt); /* it outlives who has handed it over */
    expect_copy(other, "copy", &copy);

    CHECK_EQ(gtt_open(other, "copy", 0, 0, &segment), -ENODEV);
    expect_text(other, "memory of Test GPU");
    CHECK_EQ(open_as(other, "copy", "device 1", "driver 1.2"), -ENODEV);
    expect_text(other, "another device");
    CHECK_EQ(open_as(other, "copy", "device 0", "driver 1.3"), -ESTALE);
    expect_text(other, "under another driver");
    CHECK_EQ(open_as(other, "copy", "device 0", "driver 1.2"), 0);
    CHECK_EQ(open_as(other, "none", "device 0", "driver 1.2"), -ENOENT);
    segment = rig_fill(other, "plain", 2 * MIB, 1);
    gtt_segment_close(segment);
    CHECK_EQ(open_as(other, "plain", "device 0", "driver 1.2"), -EINVAL);
    CHECK_EQ(gtt_adopt(other, &copy.params, &segment), -EEXIST);
    CHECK_EQ(gtt_drop(other, "plain", 0), 0);
    CHECK_EQ(gtt_drop(other, "copy", 0), 0);
    gtt_disconnect(other);
    copy_finish(&copy);
    rig_expect_count(&rig, &idle);
    rig_stop(&rig);
}

/* ---- what cannot be device memory ---- */

static void expect_refused(struct gtt *gtt, int fd, int r, const char *text)
{
    struct gtt_segment *segment;
    struct copy copy;
    copy_init(&copy, "no");
    int good = copy.fds[1];
    copy.fds[1] = fd;
    CHECK_EQ(gtt_adopt(gtt, &copy.params, &segment), r);
    expect_text(gtt, text);
    copy.fds[1] = good;
    copy_finish(&copy);
    close(fd);
}

static void test_refusals(void)
{
    int pair[2];
    rig_start(&rig, NULL);
    struct gtt *gtt = rig_connect(&rig);
    adopt(gtt, "yes");
    struct rig_count before = rig_count(&rig);
    expect_refused(gtt, open("/", O_RDONLY | O_DIRECTORY), -EBADF, "a directory");
    expect_refused(gtt, open("/dev/null", O_RDWR), -EBADF, "character device 1:3");
    expect_refused(gtt, open("/dev/null", O_PATH), -EBADF, "not open for anything");
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    expect_refused(gtt, pair[0], -EBADF, "a socket");
    close(pair[1]);
    CHECK_EQ(pipe(pair), 0);
    expect_refused(gtt, pair[0], -EBADF, "a pipe");
    close(pair[1]);
    expect_refused(gtt, memfd_create("grows", MFD_CLOEXEC | MFD_ALLOW_SEALING), -EBADF,
                   "can still grow");
    expect_refused(gtt, device_fd(3 * MIB), -EBADF, "a memfd of 3145728 bytes");
    expect_refused(gtt, open("/proc/self/status", O_RDONLY), -EBADF,
                   "neither a dma-buf nor a memfd (/proc/");
    rig_expect_count(&rig, &before);

    struct gtt_segment *segment;
    struct copy copy;
    copy_init(&copy, "no");
    copy.params.size_bytes++;
    CHECK_EQ(gtt_adopt(gtt, &copy.params, &segment), -EINVAL);
    copy.params.size_bytes--;
    copy.params.memory.memory_type = 32;
    CHECK_EQ(gtt_adopt(gtt, &copy.params, &segment), -EINVAL);
    copy.params.memory.memory_type = 7;
    copy.params.memory.alloc_bytes = 2 * MIB - 1;
    CHECK_EQ(gtt_adopt(gtt, &copy.params, &segment), -EINVAL);
    copy_finish(&copy);
    expect_refused(gtt, -1, -EBADF, "has no fd");
    rig_expect_count(&rig, &before);
    gtt_disconnect(gtt);
    rig_stop(&rig);
}

/* ---- message by message ---- */

static int raw_seal(int sock, uint64_t id)
{
    struct gttd_seal_req req = {.id = id};
    union gttd_msg msg;
    raw_send(sock, &req, sizeof req, GTTD_OP_SEAL, 4);
    return raw_recv(sock, &msg, NULL);
}

static int raw_chunk(int sock, uint64_t id, uint32_t index)
{
    struct gttd_chunk_req req = {.id = id, .index = index};
    union gttd_msg msg;
    int fd = -1;
    raw_send(sock, &req, sizeof req, GTTD_OP_CHUNK, 5);
    int r = raw_recv(sock, &msg, &fd);
    close_fdp(&fd);
    return r;
}

static void send_two_fds(int sock, uint64_t id, int fd)
{
    struct gttd_give_req req = {gttd_header(sizeof req, GTTD_OP_GIVE, 3), id, 0, 0};
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(2 * sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = &req, .iov_len = sizeof req};
    struct msghdr mh = {.msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = control.buf,
                        .msg_controllen = sizeof control.buf};
    const int fds[2] = {fd, fd};
    struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(c), fds, sizeof fds);
    CHECK_EQ(sendmsg(sock, &mh, MSG_NOSIGNAL), sizeof req);
}

static void test_messages(void)
{
    struct gttd_plain status = {gttd_header(sizeof status, GTTD_OP_STATUS, 9)};
    int fd = device_fd(2 * MIB);
    rig_start(&rig, NULL);
    struct rig_count idle = rig_count(&rig);
    int sock = rig_raw_greeted(&rig);
    uint64_t id = raw_adopt(sock, "a", 0);
    raw_adopt(sock, "a", -EEXIST);
    CHECK_EQ(raw_seal(sock, id), -EINVAL);
    CHECK_EQ(raw_chunk(sock, id, 0), -EBUSY);
    CHECK_EQ(raw_give(sock, id, 0, fd), 0);
    CHECK_EQ(raw_give(sock, id, 0, fd), -EEXIST);
    CHECK_EQ(raw_give(sock, id, N_CHUNKS, fd), -EINVAL);
    CHECK_EQ(raw_give(sock, id + 1, 1, fd), -ENOENT);
    CHECK_EQ(raw_chunk(sock, id, 0), 0);
    CHECK_EQ(raw_chunk(sock, id, 1), -EBUSY);
    CHECK_EQ(raw_give(sock, id, 1, fd), 0);
    CHECK_EQ(raw_seal(sock, id), -EINVAL);
    CHECK_EQ(raw_give(sock, id, 2, fd), 0);
    CHECK_EQ(raw_seal(sock, id), 0);
    CHECK_EQ(raw_seal(sock, id), -EINVAL);
    CHECK_EQ(gttd_send(sock, &status.hdr, fd), 0);
    raw_expect_end(sock);
    close(sock);
    struct gtt *gtt = rig_connect(&rig);
    CHECK_EQ(gtt_drop(gtt, "a", 0), 0);
    gtt_disconnect(gtt);
    rig_expect_count(&rig, &idle);

    /* each of these ends the connection, and what was given goes with it */
    for (int i = 0; i < 5; i++) {
        struct gttd_give_req give = {gttd_header(sizeof give, GTTD_OP_GIVE, 3), 0, 1, 0};
        sock = rig_raw_greeted(&rig);
        id = raw_adopt(sock, "b", 0);
        CHECK_EQ(raw_give(sock, id, 0, fd), 0);
        give.id = id;
        if (i == 0) {
            CHECK_EQ(gttd_send(sock, &give.hdr, -1), 0);
        } else if (i == 1) {
            send_two_fds(sock, id, fd);
        } else if (i == 2) {
            CHECK_EQ(gttd_send(sock, &status.hdr, fd), 0);
        } else if (i == 3) {
            give.pad = 1;
            CHECK_EQ(gttd_send(sock, &give.hdr, fd), 0);
        } else {
            CHECK_EQ(shutdown(sock, SHUT_RDWR), 0);
        }
        raw_expect_end(sock);
        close(sock);
        rig_expect_count(&rig, &idle);
    }
    /* and GIVE where nothing is handed over */
    struct gttd_give_req give = {gttd_header(sizeof give, GTTD_OP_GIVE, 3), 1, 0, 0};
    sock = rig_raw_greeted(&rig);
    CHECK_EQ(gttd_send(sock, &give.hdr, fd), 0);
    raw_expect_end(sock);
    close(sock);
    rig_expect_count(&rig, &idle);
    close(fd);
    rig_stop(&rig);
}

/* ---- who makes it, who waits ---- */

/* Says whether it got a lease or is to make it. */
static void waiter(void *data, int pipe_fd)
{
    struct gtt *gtt = rig_connect(data);
    struct gtt_segment *segment;
    int r = gtt_open_adopted(gtt, "copy", &gpu, GTT_OPEN_WAIT | GTT_OPEN_FILL, -1, &segment);
    CHECK(r == 0 || r == 1);
    CHECK_EQ(write(pipe_fd, r ? "f" : "l", 1), 1);
    if (r == 0) {
        gtt_segment_close(segment);
    } else {
        CHECK_EQ(gtt_abandon(gtt, "copy"), 0);
    }
    gtt_disconnect(gtt);
}

static void stranger(void *data, int pipe_fd)
{
    (void)pipe_fd;
    struct gtt *gtt = rig_connect(data);
    struct gtt_segment *segment;
    struct gtt_device other = gpu;
    other.device_uuid[0]++;
    CHECK_EQ(gtt_open_adopted(gtt, "copy", &other, GTT_OPEN_WAIT, -1, &segment), -ENODEV);
    CHECK_EQ(gtt_open(gtt, "copy", GTT_OPEN_WAIT, -1, &segment), -ENODEV);
    gtt_disconnect(gtt);
}

static void test_claims(void)
{
    struct gtt_segment *segment;
    struct copy copy;
    int pipes[2];
    rig_start(&rig, NULL);
    struct rig_count idle = rig_count(&rig);
    struct gtt *gtt = rig_connect(&rig);
    copy_init(&copy, "copy");
    CHECK_EQ(gtt_open_adopted(gtt, "copy", &gpu, GTT_OPEN_FILL, 0, &segment), 1);
    CHECK_EQ(gtt_abandon(gtt, "copy"), 0);
    CHECK_EQ(gtt_open_adopted(gtt, "copy", &gpu, GTT_OPEN_FILL, 0, &segment), 1);
    pid_t pids[2] = {rig_fork(waiter, &rig, &pipes[0])};
    while (rig_count(&rig).n_waiters != 1) {
        sleep_ms(10);
    }
    int good = copy.fds[2];
    copy.fds[2] = open("/dev/null", O_RDWR);
    CHECK_EQ(gtt_adopt(gtt, &copy.params, &segment), -EBADF); /* and who waits is to make it now */
    close(copy.fds[2]);
    copy.fds[2] = good;
    CHECK_EQ(gtt_abandon(gtt, "copy"), -ENOENT);
    CHECK_EQ(rig_pipe_byte(pipes[0]), 'f');
    rig_join(pids[0]);
    close(pipes[0]);

    CHECK_EQ(gtt_open_adopted(gtt, "copy", &gpu, GTT_OPEN_FILL | GTT_OPEN_WAIT, -1, &segment), 1);
    pids[0] = rig_fork(waiter, &rig, &pipes[0]);
    pids[1] = rig_fork(stranger, &rig, &pipes[1]);
    while (rig_count(&rig).n_waiters != 2) {
        sleep_ms(10);
    }
    CHECK_EQ(gtt_adopt(gtt, &copy.params, &segment), 0);
    CHECK_EQ(rig_pipe_byte(pipes[0]), 'l');
    for (int i = 0; i < 2; i++) {
        rig_join(pids[i]);
        close(pipes[i]);
    }
    gtt_segment_close(segment);
    CHECK_EQ(gtt_drop(gtt, "copy", 0), 0);
    copy_finish(&copy);
    gtt_disconnect(gtt);
    rig_expect_count(&rig, &idle);
    rig_stop(&rig);
}

/* ---- limits ---- */

static void reconfigure(struct gtt *gtt, const char *text, bool adopts, uint64_t quota_bytes)
{
    rig_configure(&rig, text);
    CHECK_EQ(kill(rig.pid, SIGHUP), 0);
    for (int ms = 0;; ms++) {
        struct gtt_status status = status_of(gtt);
        if (status.adopts == adopts && status.adopted_quota_bytes == quota_bytes) {
            return;
        }
        CHECK(ms < 5000);
        sleep_ms(1);
    }
}

static void test_limits(void)
{
    struct gtt_segment *segment;
    struct gtt_entry entry;
    struct copy copy;
    rig_start(&rig, (const char *[]){"--quota=4M", "--pool=4M", NULL});
    struct gtt *gtt = rig_connect(&rig);
    copy_init(&copy, "b");
    reconfigure(gtt, "floor = 16M\nadopt = 10M\n", true, 10 * MIB);
    adopt(gtt, "a"); /* of 6 MiB, which neither pool nor quota would have room for */
    CHECK_EQ(gtt_adopt(gtt, &copy.params, &segment), -EDQUOT);
    expect_text(gtt, "6 MiB of device memory are over what a user may have kept, 10 MiB");
    reconfigure(gtt, "floor = 16M\nadopt = off\n", false, 256ull << 30);
    CHECK_EQ(gtt_adopt(gtt, &copy.params, &segment), -EOPNOTSUPP);
    CHECK_EQ(open_as(gtt, "a", "device 0", "driver 1.2"), 0); /* what is held stays */
    CHECK_EQ(gtt_open_adopted(gtt, "b", &gpu, GTT_OPEN_FILL, 0, &segment), 1);
    CHECK_EQ(gtt_adopt(gtt, &copy.params, &segment), -EOPNOTSUPP);
    CHECK_EQ(gtt_abandon(gtt, "b"), 0); /* the claim was still there */
    reconfigure(gtt, "floor = 16M\nadopt = none\n", true, 0);
    adopt(gtt, "b");
    /* memory that is RAM after all */
    reconfigure(gtt, "floor = 100T\nadopt = 1G\n", true, 1024 * MIB);
    CHECK_EQ(gtt_drop(gtt, "b", 0), 0);
    CHECK_EQ(gtt_adopt(gtt, &copy.params, &segment), -ENOMEM);
    expect_text(gtt, "it is RAM");
    reconfigure(gtt, "floor = 16M\n", true, 256ull << 30);
    /* nothing of it is evicted for RAM, whatever goes for that */
    for (int i = 0; i < 4; i++) {
        char name[8];
        snprintf(name, sizeof name, "s%d", i);
        gtt_segment_close(rig_fill(gtt, name, 4 * MIB, 1));
    }
    CHECK_EQ(status_of(gtt).n_evictions, 3);
    CHECK(find(gtt, "a", &entry) && entry.adopted);
    gtt_disconnect(gtt);
    copy_finish(&copy);
    rig_stop(&rig);
}

/* ---- users ---- */

static struct gtt *connect_as(uid_t uid)
{
    CHECK_EQ(seteuid(uid), 0);
    struct gtt *gtt = rig_connect(&rig);
    CHECK_EQ(seteuid(0), 0);
    return gtt;
}

/* It is never another user's, also where all else is shared. */
static void test_users(void)
{
    struct gtt_segment *segment;
    struct gtt_entry entry;
    if (geteuid() != 0) {
        printf("left out: other users cannot be had without root\n");
        return;
    }
    rig_start(&rig, (const char *[]){"--share=group", NULL});
    CHECK_EQ(chmod(rig.dir, 0755), 0);
    CHECK_EQ(chmod(rig.socket, 0666), 0);
    struct gtt *alice = connect_as(ALICE), *bob = connect_as(BOB), *root = rig_connect(&rig);
    adopt(alice, "copy");
    CHECK(find(bob, "copy", &entry) && entry.uid == ALICE && entry.adopted);
    CHECK_EQ(open_as(bob, "copy", "device 0", "driver 1.2"), -ENOENT);
    CHECK_EQ(open_as(root, "copy", "device 0", "driver 1.2"), -ENOENT);
    CHECK_EQ(gtt_open(bob, "copy", 0, 0, &segment), -ENOENT);
    CHECK_EQ(gtt_open(bob, "copy", GTT_OPEN_FILL, 0, &segment), 1); /* to make one of his own */
    CHECK_EQ(gtt_abandon(bob, "copy"), 0);
    CHECK_EQ(gtt_drop_id(bob, entry.id, 0), -EPERM);
    CHECK_EQ(status_of(bob).adopted_user_bytes, 0);
    CHECK_EQ(status_of(bob).adopted_bytes, entry.size_bytes);

    /* who waits for a shared one that becomes device memory gets nothing */
    int sock = rig_raw_greeted(&rig);
    CHECK_EQ(gtt_open_adopted(alice, "late", &gpu, GTT_OPEN_FILL, 0, &segment), 1);
    struct gttd_open_req req = {.flags = GTTD_OPEN_WAIT, .name = "late"};
    union gttd_msg msg;
    raw_send(sock, &req, sizeof req, GTTD_OP_OPEN, 2);
    while (rig_count(&rig).n_waiters != 1) {
        sleep_ms(10);
    }
    adopt(alice, "late");
    CHECK_EQ(raw_recv(sock, &msg, NULL), -ENOENT);
    CHECK(strstr(msg.error.reason, "never another user's"));
    close(sock);

    CHECK_EQ(gtt_drop_id(root, entry.id, 0), 0);
    CHECK_EQ(gtt_drop(alice, "late", 0), 0);
    gtt_disconnect(alice);
    gtt_disconnect(bob);
    gtt_disconnect(root);
    rig_stop(&rig);
}

int main(void)
{
    int n_fds = count_fds(NULL);
    test_keep();
    test_refusals();
    test_messages();
    test_claims();
    test_limits();
    test_users();
    CHECK_EQ(count_fds(NULL), n_fds);
    return 0;
}
