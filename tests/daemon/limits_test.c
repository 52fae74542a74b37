/* SPDX-License-Identifier: MIT */
/* Quota, capacity, floor, eviction in order of use, and users that do not see each other. */
#include <errno.h>
#include <grp.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "gttd_util.h"
#include "rig.h"

static struct rig rig;

static int try_create(struct gtt *gtt, uint64_t size_bytes, struct gtt_segment **ret)
{
    struct gtt_create_params params = {.size_bytes = size_bytes};
    return gtt_create(gtt, &params, ret);
}

static void expect_refusal(struct gtt *gtt, uint64_t size_bytes, int r, const char *limit,
                           const char *by)
{
    struct gtt_segment *segment;
    CHECK_EQ(try_create(gtt, size_bytes, &segment), r);
    if (!strstr(gtt_last_error(gtt), limit) || !strstr(gtt_last_error(gtt), by)) {
        fprintf(stderr, "last error is \"%s\"\n", gtt_last_error(gtt));
        CHECK(!"the limit and by how much");
    }
}

static bool exists(struct gtt *gtt, const char *name)
{
    struct gtt_entry entry;
    uint64_t cursor = 0;
    while (gtt_list(gtt, &cursor, &entry) == 1) {
        if (!strcmp(entry.name, name)) {
            return true;
        }
    }
    return false;
}

static void test_quota(void)
{
    struct gtt_segment *segment, *more;
    rig_start(&rig, (const char *[]){"--quota=16M", "--pool=1G", NULL});
    struct gtt *gtt = rig_connect(&rig);
    expect_refusal(gtt, 20 * MIB, -EDQUOT, "quota of 16 MiB", "by 4 MiB");
    CHECK_EQ(try_create(gtt, 12 * MIB, &segment), 0);
    expect_refusal(gtt, 6 * MIB, -EDQUOT, "quota of 16 MiB", "by 2 MiB");
    CHECK_EQ(try_create(gtt, 4 * MIB, &more), 0);
    gtt_segment_close(segment);
    CHECK_EQ(try_create(gtt, 12 * MIB, &segment), 0); /* a charge given back is there at once */
    gtt_segment_close(segment);
    gtt_segment_close(more);
    gtt_disconnect(gtt);
    rig_stop(&rig);
}

static void test_floor(void)
{
    rig_start(&rig, (const char *[]){"--floor=1000T", NULL});
    struct gtt *gtt = rig_connect(&rig);
    expect_refusal(gtt, 2 * MIB, -ENOMEM, "floor of", "free RAM");
    gtt_disconnect(gtt);
    rig_stop(&rig);
    /* what is promised counts before it is taken: two that fit alone do not fit together */
    struct gtt_status status;
    char floor[64];
    rig_start(&rig, NULL);
    gtt = rig_connect(&rig);
    CHECK_EQ(gtt_status(gtt, &status), 0);
    gtt_disconnect(gtt);
    rig_stop(&rig);
    if (status.free_ram_bytes < 4096 * MIB) {
        return;
    }
    snprintf(floor, sizeof floor, "--floor=%llu",
             (unsigned long long)(status.free_ram_bytes - 3072 * MIB));
    rig_start(&rig, (const char *[]){floor, NULL});
    int sock = rig_raw_greeted(&rig);
    union gttd_msg msg;
    struct gttd_create_req req = {.size_bytes = 2048 * MIB};
    raw_send(sock, &req, sizeof req, GTTD_OP_CREATE, 2);
    raw_send(sock, &req, sizeof req, GTTD_OP_CREATE, 3);
    CHECK_EQ(raw_recv(sock, &msg, NULL), -ENOMEM); /* the second, while the first is populated */
    CHECK_EQ(msg.hdr.serial, 3);
    close(sock); /* cancels the first */
    rig_stop(&rig);
}

static void test_eviction(void)
{
    struct gtt_segment *leased, *segment;
    struct gtt_status status;
    rig_start(&rig, (const char *[]){"--pool=32M", NULL});
    struct gtt *gtt = rig_connect(&rig);
    gtt_segment_close(rig_fill(gtt, "a", 8 * MIB, 1));
    gtt_segment_close(rig_fill(gtt, "b", 8 * MIB, 2));
    gtt_segment_close(rig_fill(gtt, "c", 8 * MIB, 3));
    gtt_segment_close(rig_fill(gtt, "d", 8 * MIB, 4));
    CHECK_EQ(gtt_open(gtt, "b", 0, 0, &leased), 0); /* used last, and leased */
    CHECK_EQ(gtt_open(gtt, "a", 0, 0, &segment), 0);
    gtt_segment_close(segment); /* a is newer than c and d now */
    /* more than evicting could give: refused, and nothing is evicted for it */
    expect_refusal(gtt, 26 * MIB, -ENOSPC, "capacity of 32 MiB", "by 2 MiB");
    CHECK(exists(gtt, "a") && exists(gtt, "c") && exists(gtt, "d"));
    CHECK_EQ(try_create(gtt, 2 * MIB, &segment), 0);
    gtt_segment_close(segment);
    CHECK(exists(gtt, "a") && exists(gtt, "b") && !exists(gtt, "c") && exists(gtt, "d"));
    CHECK_EQ(try_create(gtt, 16 * MIB, &segment), 0);
    gtt_segment_close(segment);
    CHECK(exists(gtt, "a") && !exists(gtt, "d"));
    CHECK_EQ(try_create(gtt, 24 * MIB, &segment), 0);
    gtt_segment_close(segment);
    CHECK(!exists(gtt, "a") && exists(gtt, "b"));
    CHECK_EQ(gtt_status(gtt, &status), 0);
    CHECK_EQ(status.n_evictions, 3);
    CHECK_EQ(status.used_bytes, 8 * MIB);
    CHECK_EQ(gtt_segment_verify(leased), 0);
    gtt_segment_close(leased);
    CHECK(rig_logged(&rig, "segment c (uid "));
    gtt_disconnect(gtt);
    rig_stop(&rig);
}

static void expect_ballast(struct gtt *gtt, uint64_t want)
{
    struct gtt_status status = {0};
    for (int ms = 0; ms < 10000; ms += 10) {
        CHECK_EQ(gtt_status(gtt, &status), 0);
        if (status.ballast_bytes == want) {
            break;
        }
        sleep_ms(10);
    }
    CHECK_EQ(status.ballast_bytes, want);
}

/* The pool is really there from the start, is traded for segments, and comes back. */
static void test_ballast(void)
{
    struct gtt_segment *a, *b;
    struct gtt_status status;
    rig_start(&rig, (const char *[]){"--pool=200M", NULL});
    struct gtt *gtt = rig_connect(&rig);
    expect_ballast(gtt, 200 * MIB);
    CHECK(rig_logged(&rig, "pool: 200 MiB are reserved"));
    CHECK_EQ(gtt_status(gtt, &status), 0);
    CHECK_EQ(status.used_bytes, 0);
    a = rig_fill(gtt, "a", 50 * MIB, 1);
    expect_ballast(gtt, 150 * MIB);
    CHECK_EQ(try_create(gtt, 150 * MIB, &b), 0);
    expect_ballast(gtt, 0);
    gtt_segment_close(b);
    expect_ballast(gtt, 150 * MIB);
    CHECK_EQ(gtt_segment_verify(a), 0);
    gtt_segment_close(a);
    CHECK_EQ(gtt_drop(gtt, "a", 0), 0);
    expect_ballast(gtt, 200 * MIB);
    gtt_disconnect(gtt);
    rig_stop(&rig);
}

/* Chunks are fds: with 256 of those a user may have 32. Unused segments make way for more of them.
 * Last, for it takes fds from the tests too. */
static void test_counts(void)
{
    struct gtt_segment *held[8], *segment;
    struct gtt_status status;
    char name[16];
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &(struct rlimit){256, 256}), 0);
    rig_start(&rig, NULL);
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_create_params params = {.size_bytes = 60 * MIB, .chunk_bytes = 2 * MIB};
    for (int i = 0; i < 32; i++) {
        snprintf(name, sizeof name, "s%d", i);
        segment = rig_fill(gtt, name, 2 * MIB, i);
        if (i < 8) {
            held[i] = segment;
        } else {
            gtt_segment_close(segment);
        }
    }
    CHECK_EQ(gtt_create(gtt, &params, &segment), -EDQUOT); /* 24 can go */
    CHECK(strstr(gtt_last_error(gtt), "30 chunks are over this user's limit of 32 by 6"));
    CHECK(exists(gtt, "s8"));
    gtt_segment_close(rig_fill(gtt, "more", 2 * MIB, 1));
    CHECK(!exists(gtt, "s8") && exists(gtt, "s9") && exists(gtt, "s0"));
    params.size_bytes = 48 * MIB;
    CHECK_EQ(gtt_create(gtt, &params, &segment), 0);
    CHECK(!exists(gtt, "more") && !exists(gtt, "s31") && exists(gtt, "s7"));
    CHECK_EQ(gtt_status(gtt, &status), 0);
    CHECK_EQ(status.n_evictions, 25);
    CHECK_EQ(status.n_segments, 9);
    gtt_segment_close(segment);
    for (int i = 0; i < 8; i++) {
        CHECK_EQ(gtt_segment_verify(held[i]), 0);
        gtt_segment_close(held[i]);
    }
    gtt_disconnect(gtt);
    rig_stop(&rig);
}

/* In a child: another user. */
static void as_user(uid_t uid)
{
    CHECK_EQ(setgroups(0, NULL), 0);
    CHECK_EQ(setgid(uid), 0);
    CHECK_EQ(setuid(uid), 0);
}

static void first_user(void *data, int pipe_fd)
{
    as_user(*(uid_t *)data);
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_segment *segment = rig_fill(gtt, "mine", 2 * MIB, 1);
    CHECK_EQ(write(pipe_fd, "x", 1), 1);
    char c;
    CHECK_EQ(read(STDIN_FILENO, &c, 1), 0); /* /dev/null: do not wait, the lease ends here */
    gtt_segment_close(segment);
    gtt_disconnect(gtt);
}

static void second_user(void *data, int pipe_fd)
{
    (void)pipe_fd;
    as_user(*(uid_t *)data);
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_segment *segment;
    struct gtt_entry entry;
    uint64_t cursor = 0;
    CHECK_EQ(gtt_open(gtt, "mine", 0, 0, &segment), -ENOENT);
    CHECK_EQ(gtt_list(gtt, &cursor, &entry), 0);
    CHECK_EQ(gtt_drop(gtt, "mine", GTT_DROP_FORCE), -ENOENT);
    for (uint64_t id = 1; id < 10; id++) {
        CHECK_EQ(gtt_drop_id(gtt, id, GTT_DROP_FORCE), -ENOENT);
    }
    /* the same name is free for this one, and so is its own quota */
    segment = rig_fill(gtt, "mine", 8 * MIB, 2);
    CHECK_EQ(gtt_list(gtt, &cursor, &entry), 1);
    CHECK_EQ(entry.size_bytes, 8 * MIB);
    gtt_segment_close(segment);
    gtt_disconnect(gtt);
}

/* Root sees all, opens only its own, and may drop any by id. */
static void test_users(void)
{
    uid_t users[] = {65533, 65532};
    int pipe_fd;
    if (getuid() != 0) {
        printf("users: not root, left out\n");
        return;
    }
    rig_start(&rig, (const char *[]){"--quota=8M", NULL});
    CHECK_EQ(chmod(rig.dir, 0755), 0);
    CHECK_EQ(chmod(rig.socket, 0666), 0);
    pid_t pid = rig_fork(first_user, &users[0], &pipe_fd);
    rig_pipe_byte(pipe_fd);
    close(pipe_fd);
    rig_join(pid);
    pid = rig_fork(second_user, &users[1], &pipe_fd);
    rig_join(pid);
    close(pipe_fd);

    struct gtt *gtt = rig_connect(&rig);
    struct gtt_segment *segment;
    struct gtt_entry entry;
    uint64_t cursor = 0;
    CHECK_EQ(gtt_open(gtt, "mine", 0, 0, &segment), -ENOENT);
    CHECK_EQ(gtt_list(gtt, &cursor, &entry), 1);
    CHECK_EQ(entry.uid, users[0]);
    CHECK_EQ(gtt_drop_id(gtt, entry.id, 0), 0);
    CHECK_EQ(gtt_list(gtt, &cursor, &entry), 1);
    CHECK_EQ(entry.uid, users[1]);
    CHECK_EQ(gtt_list(gtt, &cursor, &entry), 0);
    gtt_disconnect(gtt);
    rig_stop(&rig);
}

int main(void)
{
    CHECK(freopen("/dev/null", "re", stdin));
    test_quota();
    test_floor();
    test_eviction();
    test_ballast();
    test_users();
    test_counts();
    return 0;
}
