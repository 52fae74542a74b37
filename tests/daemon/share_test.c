/* SPDX-License-Identifier: MIT */
/*
 * share = group: users open each other's sealed segments and wait for each other's fillings; whose
 * they are, who pays and who may drop stays as it is; memory never changes hands.
 */
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>

#include "gttd_util.h"
#include "rig.h"

#define ALICE 65533u
#define BOB   65532u
#define CAROL 65531u

static struct rig rig;
static struct rig_count idle;

static void start(void)
{
    rig_start(&rig, NULL);
    rig_configure(&rig, "floor = 16M\nshare = group\n");
    CHECK_EQ(kill(rig.pid, SIGHUP), 0);
    CHECK_EQ(chmod(rig.dir, 0755), 0);
    CHECK_EQ(chmod(rig.socket, 0666), 0);
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_status status = {0};
    while (!status.share_group) {
        CHECK_EQ(gtt_status(gtt, &status), 0);
    }
    gtt_disconnect(gtt);
    idle = rig_count(&rig);
}

static void stop(void)
{
    rig_expect_count(&rig, &idle);
    rig_stop(&rig);
}

/* Connections of other users: gttd takes the effective uid at connect(). */
static struct gtt *connect_as(uid_t uid)
{
    CHECK_EQ(seteuid(uid), 0);
    struct gtt *gtt = rig_connect(&rig);
    CHECK_EQ(seteuid(0), 0);
    return gtt;
}

static int raw_as(uid_t uid)
{
    CHECK_EQ(seteuid(uid), 0);
    int sock = rig_raw_greeted(&rig);
    CHECK_EQ(seteuid(0), 0);
    return sock;
}

static void send_open(int sock, uint32_t flags, uint32_t serial)
{
    struct gttd_open_req req = {.flags = flags, .name = "m"};
    raw_send(sock, &req, sizeof req, GTTD_OP_OPEN, serial);
}

/* OPEN of "m" that must be left waiting, of which there are n then. */
static void open_waits(int sock, uint32_t flags, uint32_t n)
{
    send_open(sock, GTTD_OPEN_WAIT | flags, 2);
    for (int ms = 0; rig_count(&rig).n_waiters != n; ms += 10) {
        CHECK(ms < 5000);
        sleep_ms(10);
    }
}

/* The role that an OPEN is answered with, and whose the segment is; or the error. */
static int opened(int sock, uid_t *ret_uid)
{
    union gttd_msg msg;
    int r = raw_recv(sock, &msg, NULL);
    CHECK(msg.hdr.op == GTTD_OP_OPEN);
    *ret_uid = r < 0 ? 0 : msg.open_rsp.uid;
    return r < 0 ? r : (int)msg.open_rsp.role;
}

static void create(int sock, uint64_t *ret_id)
{
    struct gttd_create_req req = {.size_bytes = 2 * MIB, .name = "m"};
    union gttd_msg msg;
    raw_send(sock, &req, sizeof req, GTTD_OP_CREATE, 3);
    CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
    *ret_id = msg.create_rsp.id;
}

static void seal(int sock, uint64_t id)
{
    struct gttd_seal_req req = {.id = id};
    union gttd_msg msg;
    raw_send(sock, &req, sizeof req, GTTD_OP_SEAL, 4);
    CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
}

/* The first chunk: its inode; and its bytes are all of a value, and then of another. */
static ino_t overwrite(int sock, uint64_t id, int was, int is)
{
    struct gttd_chunk_req req = {.id = id};
    static uint8_t data[2 * MIB];
    union gttd_msg msg;
    struct stat st;
    int fd;
    raw_send(sock, &req, sizeof req, GTTD_OP_CHUNK, 5);
    CHECK_EQ(raw_recv(sock, &msg, &fd), 0);
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK_EQ(pread(fd, data, sizeof data, 0), sizeof data);
    for (size_t i = 0; i < sizeof data; i++) {
        CHECK_EQ(data[i], was);
    }
    memset(data, is, sizeof data);
    CHECK_EQ(pwrite(fd, data, sizeof data, 0), sizeof data);
    close(fd);
    return st.st_ino;
}

static uint64_t charged(uid_t uid)
{
    struct gtt_status status;
    struct gtt *gtt = connect_as(uid);
    CHECK_EQ(gtt_status(gtt, &status), 0);
    gtt_disconnect(gtt);
    return status.user_bytes;
}

/* Open "m", expect whose it is and what is in it, close it. */
static void expect_content(struct gtt *gtt, uid_t uid, int byte)
{
    struct gtt_segment *segment;
    struct gtt_segment_info info;
    void *base;
    CHECK_EQ(gtt_open(gtt, "m", 0, 0, &segment), 0);
    gtt_segment_get_info(segment, &info);
    CHECK_EQ(info.uid, uid);
    CHECK_EQ(gtt_segment_map(segment, false, &base), 0);
    CHECK_EQ(*(const uint8_t *)base, byte);
    gtt_segment_close(segment);
}

/* This user's "m", which somebody may still have open. */
static void drop_named(uid_t uid)
{
    struct gtt *gtt = connect_as(uid);
    CHECK_EQ(gtt_drop(gtt, "m", GTT_DROP_FORCE), 0);
    gtt_disconnect(gtt);
}

static void test_open(void)
{
    struct gtt_segment *segment;
    struct gtt_entry entry;
    uint64_t cursor = 0;
    start();
    struct gtt *alice = connect_as(ALICE), *bob = connect_as(BOB), *carol = connect_as(CAROL);
    gtt_segment_close(rig_fill(alice, "m", 2 * MIB, 0xa1));
    expect_content(bob, ALICE, 0xa1);
    CHECK_EQ(gtt_open(bob, "m", GTT_OPEN_OWN, 0, &segment), -ENOENT);
    CHECK_EQ(gtt_list(bob, &cursor, &entry), 1);
    CHECK_EQ(entry.uid, ALICE);
    /* whose it is pays, also while another has it open, and only that one may drop it */
    CHECK_EQ(gtt_open(bob, "m", 0, 0, &segment), 0);
    CHECK_EQ(gtt_segment_verify(segment), 0);
    CHECK_EQ(charged(BOB), 0);
    CHECK_EQ(charged(ALICE), 2 * MIB);
    CHECK_EQ(gtt_drop(alice, "m", 0), -EBUSY);
    CHECK_EQ(gtt_drop(bob, "m", GTT_DROP_FORCE), -ENOENT);
    CHECK_EQ(gtt_drop_id(bob, entry.id, GTT_DROP_FORCE), -EPERM);
    CHECK(strstr(gtt_last_error(bob), "it belongs to uid 65533"));
    gtt_segment_close(segment);
    /* the same name of another user's is another segment; one's own comes first */
    gtt_segment_close(rig_fill(bob, "m", 2 * MIB, 0xb2));
    expect_content(bob, BOB, 0xb2);
    expect_content(alice, ALICE, 0xa1);
    expect_content(carol, ALICE, 0xa1); /* the oldest */
    CHECK_EQ(gtt_drop(alice, "m", 0), 0);
    expect_content(carol, BOB, 0xb2);
    expect_content(alice, BOB, 0xb2);
    struct gtt *root = rig_connect(&rig);
    cursor = 0;
    CHECK_EQ(gtt_list(root, &cursor, &entry), 1);
    CHECK_EQ(gtt_drop_id(root, entry.id, 0), 0);
    CHECK_EQ(gtt_open(carol, "m", 0, 0, &segment), -ENOENT);
    gtt_disconnect(root);
    gtt_disconnect(alice);
    gtt_disconnect(bob);
    gtt_disconnect(carol);
    stop();
}

/* Two users start the same model: one loads it, the other waits and gets that. */
static void test_single_flight(void)
{
    uint64_t id;
    uid_t uid;
    start();
    int alice = raw_as(ALICE), bob = raw_as(BOB);
    send_open(alice, GTTD_OPEN_FILL | GTTD_OPEN_WAIT, 2);
    CHECK_EQ(opened(alice, &uid), GTTD_ROLE_FILLER);
    send_open(bob, 0, 9);
    CHECK_EQ(opened(bob, &uid), -EAGAIN);
    open_waits(bob, GTTD_OPEN_FILL, 1);
    create(alice, &id);
    overwrite(alice, id, 0, 0xaa);
    seal(alice, id);
    CHECK_EQ(opened(bob, &uid), GTTD_ROLE_LEASE);
    CHECK_EQ(uid, ALICE);
    close(alice);
    close(bob);
    drop_named(ALICE);
    stop();
}

/* The filler dies: another user's waiter fills, in memory of its own that it pays for. */
static void test_takeover(void)
{
    uint64_t id;
    uid_t uid;
    start();
    int alice = raw_as(ALICE), bob = raw_as(BOB);
    send_open(alice, GTTD_OPEN_FILL, 2);
    CHECK_EQ(opened(alice, &uid), GTTD_ROLE_FILLER);
    create(alice, &id);
    ino_t alices = overwrite(alice, id, 0, 0xaa);
    open_waits(bob, GTTD_OPEN_FILL, 1);
    int carol = raw_as(CAROL);
    open_waits(carol, 0, 2);
    close(alice);
    CHECK_EQ(opened(bob, &uid), GTTD_ROLE_FILLER);
    CHECK_EQ(charged(ALICE), 0);
    create(bob, &id);
    ino_t bobs = overwrite(bob, id, 0, 0xbb); /* which checks that it is zeros */
    CHECK(alices != bobs);
    CHECK_EQ(charged(BOB), 2 * MIB);
    seal(bob, id);
    CHECK_EQ(opened(carol, &uid), GTTD_ROLE_LEASE);
    CHECK_EQ(uid, BOB);
    close(bob);
    close(carol);
    struct gtt *gtt = connect_as(ALICE);
    expect_content(gtt, BOB, 0xbb);
    gtt_disconnect(gtt);
    drop_named(BOB);
    stop();
}

/* Among waiters, those of the user whose segment it is come first. */
static void test_heirs(void)
{
    uid_t uid;
    start();
    int first = raw_as(ALICE), bob = raw_as(BOB), second = raw_as(ALICE), third = raw_as(ALICE);
    send_open(first, GTTD_OPEN_FILL, 2);
    CHECK_EQ(opened(first, &uid), GTTD_ROLE_FILLER);
    open_waits(bob, GTTD_OPEN_FILL, 1);
    open_waits(second, GTTD_OPEN_FILL, 2);
    open_waits(third, GTTD_OPEN_OWN, 3);
    close(first);
    CHECK_EQ(opened(second, &uid), GTTD_ROLE_FILLER);
    close(second);
    CHECK_EQ(opened(bob, &uid), GTTD_ROLE_FILLER);
    CHECK_EQ(opened(third, &uid), -ENOENT); /* it is not Alice's any more */
    close(bob);
    close(third);
    stop();
}

/* A waiter for another's segment, whose own user makes one of that name meanwhile. */
static void test_own_meanwhile(void)
{
    uint64_t id;
    uid_t uid;
    start();
    int alice = raw_as(ALICE), bob = raw_as(BOB), filler = raw_as(BOB), late = raw_as(CAROL);
    send_open(alice, GTTD_OPEN_FILL, 2);
    CHECK_EQ(opened(alice, &uid), GTTD_ROLE_FILLER);
    open_waits(bob, GTTD_OPEN_FILL, 1);
    create(filler, &id);
    close(alice); /* now bob waits for its own user's */
    sleep_ms(50);
    CHECK_EQ(rig_count(&rig).n_waiters, 1);
    open_waits(late, 0, 2);
    seal(filler, id);
    CHECK_EQ(opened(bob, &uid), GTTD_ROLE_LEASE);
    CHECK_EQ(uid, BOB);
    CHECK_EQ(opened(late, &uid), GTTD_ROLE_LEASE);
    close(bob);
    close(late);
    close(filler);
    /* the same when that one is sealed already */
    int carol = raw_as(CAROL);
    alice = raw_as(ALICE);
    send_open(carol, GTTD_OPEN_OWN | GTTD_OPEN_FILL, 2);
    CHECK_EQ(opened(carol, &uid), GTTD_ROLE_FILLER);
    drop_named(BOB);
    open_waits(alice, GTTD_OPEN_FILL, 1);
    struct gtt *gtt = connect_as(ALICE);
    gtt_segment_close(rig_fill(gtt, "m", 2 * MIB, 1));
    gtt_disconnect(gtt);
    close(carol);
    CHECK_EQ(opened(alice, &uid), GTTD_ROLE_LEASE);
    CHECK_EQ(uid, ALICE);
    close(alice);
    drop_named(ALICE);
    stop();
}

/* No longer shared: who waits for another's is told, who has one open keeps it. */
static void test_unshare(void)
{
    struct gtt_segment *held, *segment;
    uid_t uid;
    start();
    struct gtt *alice = connect_as(ALICE), *carol = connect_as(CAROL);
    gtt_segment_close(rig_fill(alice, "other", 2 * MIB, 7));
    CHECK_EQ(gtt_open(carol, "other", 0, 0, &held), 0);
    int filler = raw_as(ALICE), bob = raw_as(BOB);
    send_open(filler, GTTD_OPEN_FILL, 2);
    CHECK_EQ(opened(filler, &uid), GTTD_ROLE_FILLER);
    open_waits(bob, GTTD_OPEN_FILL, 1);
    rig_configure(&rig, "floor = 16M\nshare = user\n");
    CHECK_EQ(kill(rig.pid, SIGHUP), 0);
    CHECK_EQ(opened(bob, &uid), -ENOENT);
    CHECK_EQ(gtt_open(carol, "other", 0, 0, &segment), -ENOENT);
    CHECK_EQ(gtt_segment_verify(held), 0);
    gtt_segment_close(held);
    CHECK_EQ(gtt_drop(alice, "other", 0), 0);
    gtt_disconnect(alice);
    gtt_disconnect(carol);
    close(filler);
    close(bob);
    stop();
}

int main(void)
{
    if (geteuid() != 0) {
        printf("needs root, to be several users\n");
        return SKIP;
    }
    test_open();
    test_single_flight();
    test_takeover();
    test_heirs();
    test_own_meanwhile();
    test_unshare();
    return 0;
}
