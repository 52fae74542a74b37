/* SPDX-License-Identifier: MIT */
/*
 * Device memory that gttd keeps is there again after a restart, as a whole or not at all: what the
 * service manager keeps of it, and what must not come back.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include "adopting.h"
#include "gttd_util.h"
#include "supervisor.h"

static struct supervisor sup;

static void expect_stored(unsigned n)
{
    for (int ms = 0; sup_count(&sup, NULL) != n && ms < 5000; ms++) {
        sleep_ms(1);
    }
    CHECK_EQ(sup_count(&sup, NULL), n);
}

static void test_restart(int signal)
{
    struct gtt_segment *segment;
    struct gtt_segment_info info;
    struct gtt_entry entry;
    struct copy copy;
    sup_start(&sup, 64, NULL);
    struct gtt *gtt = rig_connect(&sup.rig);
    copy_init(&copy, "copy");
    CHECK_EQ(gtt_adopt(gtt, &copy.params, &segment), 0);
    struct gtt_segment *plain = rig_fill(gtt, "plain", 2 * MIB, 5);
    CHECK(find(gtt, "copy", &entry) && entry.kept);
    expect_stored(N_CHUNKS + 1 + 2);
    CHECK_EQ(sup_count(&sup, "gttd-a-1-0"), 1);
    CHECK_EQ(sup_count(&sup, "gttd-a-1-2"), 1);
    sup_restart(&sup, signal);
    struct gtt *other = rig_connect(&sup.rig);
    expect_copy(other, "copy", &copy);
    CHECK(find(other, "copy", &entry) && entry.kept && entry.adopted && entry.id == 1);
    CHECK_EQ(status_of(other).adopted_user_bytes, entry.size_bytes);
    CHECK_EQ(status_of(other).user_bytes, 2 * MIB);
    CHECK_EQ(open_as(other, "copy", "device 0", "driver 1.3"), -ESTALE);
    CHECK_EQ(gtt_segment_verify(plain), 0);
    CHECK_EQ(gtt_reconnect(gtt, -1), 0); /* and has the lease again */
    gtt_segment_get_info(segment, &info);
    CHECK(info.held && info.adopted);
    CHECK_EQ(gtt_drop(other, "copy", 0), -EBUSY);
    gtt_segment_close(segment);
    gtt_segment_close(plain);
    CHECK_EQ(gtt_drop(other, "copy", 0), 0);
    expect_stored(2);
    gtt_disconnect(other);
    gtt_disconnect(gtt);
    copy_finish(&copy);
    sup_stop(&sup);
}

/* All chunks may be files of one device: what tells them apart is where they were stored. */
static void test_one_file(void)
{
    struct gtt_segment *segment;
    struct copy copy;
    sup_start(&sup, 64, NULL);
    struct gtt *gtt = rig_connect(&sup.rig);
    copy_init(&copy, "copy");
    for (int i = 1; i < N_CHUNKS; i++) {
        close(copy.fds[i]);
        copy.fds[i] = fcntl(copy.fds[0], F_DUPFD_CLOEXEC, 0);
    }
    CHECK_EQ(gtt_adopt(gtt, &copy.params, &segment), 0);
    gtt_segment_close(segment);
    gtt_disconnect(gtt);
    expect_stored(N_CHUNKS + 1);
    sup_restart(&sup, SIGKILL);
    gtt = rig_connect(&sup.rig);
    expect_copy(gtt, "copy", &copy);
    gtt_disconnect(gtt);
    copy_finish(&copy);
    sup_stop(&sup);
}

static void expect_lost(const char *why)
{
    struct gtt *gtt = rig_connect(&sup.rig);
    CHECK_EQ(open_as(gtt, "copy", "device 0", "driver 1.2"), -ENOENT);
    CHECK(rig_logged(&sup.rig, why));
    CHECK_EQ(status_of(gtt).adopted_bytes, 0);
    gtt_disconnect(gtt);
    expect_stored(0);
}

static void test_damaged_store(void)
{
    sup_start(&sup, 64, NULL);
    for (int i = 0; i < 3; i++) {
        char name[32];
        struct gtt *gtt = rig_connect(&sup.rig);
        struct gtt_entry entry;
        adopt(gtt, "copy");
        CHECK(find(gtt, "copy", &entry));
        gtt_disconnect(gtt);
        expect_stored(N_CHUNKS + 1);
        sup_end(&sup, SIGKILL);
        snprintf(name, sizeof name, i == 2 ? "gttd-s-%d" : "gttd-a-%d-1", (int)entry.id);
        sup_replace(&sup, name, 0, i == 0 ? -1 : i == 1 ? device_fd(2 * MIB) : -1);
        sup_launch(&sup);
        expect_lost(i == 0   ? "3 fds were stored of it, not 4"
                    : i == 1 ? "its chunks are not those that its record names"
                             : "it was not completely stored");
    }
    sup_stop(&sup);
}

/* Killed at any of the messages by which it is stored: it is there as a whole, or not at all. */
static void test_killed_while_storing(void)
{
    for (int at = 1; at <= N_CHUNKS + 1; at++) {
        struct gtt_entry entry;
        struct copy copy;
        sup_start(&sup, 64, NULL);
        int sock = rig_raw_greeted(&sup.rig);
        uint64_t id = raw_adopt(sock, "copy", 0);
        copy_init(&copy, "copy");
        for (uint32_t i = 0; i < N_CHUNKS; i++) {
            CHECK_EQ(raw_give(sock, id, i, copy.fds[i]), 0);
        }
        sup_kill_at(&sup, at);
        struct gttd_seal_req seal = {.id = id};
        raw_send(sock, &seal, sizeof seal, GTTD_OP_SEAL, 4);
        raw_expect_end(sock);
        close(sock);
        sup_kill_at(&sup, -1);
        sup_end(&sup, SIGKILL);
        sup_launch(&sup);
        struct gtt *gtt = rig_connect(&sup.rig);
        bool found = find(gtt, "copy", &entry);
        CHECK_EQ(found, at == N_CHUNKS + 1); /* the last is the record */
        expect_stored(found ? N_CHUNKS + 1 : 0);
        gtt_disconnect(gtt);
        copy_finish(&copy);
        sup_stop(&sup);
    }
}

static void test_full_store(void)
{
    struct gtt_entry entry;
    sup_start(&sup, N_CHUNKS, NULL); /* one too few */
    struct gtt *gtt = rig_connect(&sup.rig);
    adopt(gtt, "copy");
    CHECK(find(gtt, "copy", &entry) && !entry.kept);
    CHECK(rig_logged(&sup.rig, "a restart of gttd will lose it"));
    gtt_disconnect(gtt);
    expect_stored(0);
    sup_stop(&sup);
}

int main(void)
{
    int n_fds = count_fds(NULL);
    test_restart(SIGKILL);
    test_restart(SIGTERM);
    test_one_file();
    test_damaged_store();
    test_killed_while_storing();
    test_full_store();
    CHECK_EQ(count_fds(NULL), n_fds);
    return 0;
}
