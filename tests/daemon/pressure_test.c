/* SPDX-License-Identifier: MIT */
/*
 * Eviction under memory pressure, with the kernel's own word for it: a process that reads a file
 * larger than its cgroup may hold waits for memory most of the time.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "gttd_util.h"
#include "rig.h"

#define HOG_BYTES   (96 * MIB)
#define HOG_LIMIT   "16777216"
#define SEGMENT     (4 * MIB)
#define BELOW_FLOOR "floor = 1000T\npressure.stall = 20ms\npressure.step = 4M\n"
#define ABOVE_FLOOR "floor = 16M\npressure.stall = 20ms\npressure.step = 4M\n"

static struct rig rig;
static char cgroup[128];

static int write_text(const char *dir, const char *file, const char *text)
{
    char path[192];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    AUTO_FD fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && write(fd, text, strlen(text)) > 0 ? 0 : -errno;
}

/* A cgroup of ours with a limit, of version 2 or 1. */
static bool make_cgroup(void)
{
    bool v2 = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
    snprintf(cgroup, sizeof cgroup, "/sys/fs/cgroup/%sgttd-test-%d", v2 ? "" : "memory/",
             (int)getpid());
    if (v2) {
        write_text("/sys/fs/cgroup", "cgroup.subtree_control", "+memory");
    }
    if (mkdir(cgroup, 0755) < 0) {
        return false;
    }
    if (write_text(cgroup, v2 ? "memory.max" : "memory.limit_in_bytes", HOG_LIMIT) < 0) {
        rmdir(cgroup);
        return false;
    }
    return true;
}

/*
 * Not instrumented: TSan keeps four bytes for each one touched, in memory that the kernel cannot
 * take back, and the cgroup's limit would have the OOM killer end the hog.
 */
__attribute__((no_sanitize("thread"), noinline)) static void touch_for_ever(volatile uint8_t *map)
{
    uint32_t seed = 1;
    for (;;) {
        seed = seed * 1664525 + 1013904223;
        map[(seed >> 5) % HOG_BYTES]++;
    }
}

/* In a child, for ever. */
static void hog(void *data, int pipe_fd)
{
    static uint8_t block[1 << 16];
    (void)data;
    CHECK_EQ(write_text(cgroup, "cgroup.procs", "0"), 0);
    int fd = open("/var/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    for (uint64_t i = 0; i < HOG_BYTES; i += sizeof block) {
        CHECK_EQ(pwrite(fd, block, sizeof block, (off_t)i), sizeof block);
    }
    volatile uint8_t *map = mmap(NULL, HOG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    CHECK_EQ(write(pipe_fd, "x", 1), 1);
    touch_for_ever(map);
}

static void reconfigure(struct gtt *gtt, const char *text, bool large_floor)
{
    struct gtt_status status;
    rig_configure(&rig, text);
    CHECK_EQ(kill(rig.pid, SIGHUP), 0);
    do {
        CHECK_EQ(gtt_status(gtt, &status), 0);
    } while ((status.floor_bytes > 1ull << 40) != large_floor);
}

static uint32_t n_evictions(struct gtt *gtt)
{
    struct gtt_status status;
    CHECK_EQ(gtt_status(gtt, &status), 0);
    return (uint32_t)status.n_evictions;
}

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* The next eviction, within 20 s; when it came. */
static double expect_evicted(struct gtt *watch, const char *name)
{
    struct gtt_event event;
    do {
        CHECK_EQ(gtt_next_event(watch, 20000, &event), 0);
    } while (event.kind != GTT_EVENT_EVICTED);
    CHECK(!strcmp(event.name, name));
    CHECK_EQ(event.pid, 0);
    CHECK_EQ(event.size_bytes, SEGMENT);
    return now();
}

static uint64_t ballast(struct gtt *gtt)
{
    struct gtt_status status;
    CHECK_EQ(gtt_status(gtt, &status), 0);
    return status.ballast_bytes;
}

/* Until all of the pool that no segment has is reserved. */
static void wait_reserved(struct gtt *gtt)
{
    struct gtt_status status;
    for (int ms = 0; ms < 20000; ms += 50) {
        CHECK_EQ(gtt_status(gtt, &status), 0);
        if (status.ballast_bytes + status.used_bytes == 192 * MIB) {
            return;
        }
        sleep_ms(50);
    }
    CHECK(!"the pool is whole");
}

/* What is reserved goes before what somebody may want again, and comes back when it is over. */
static void test_ballast(struct gtt *gtt, pid_t hog_pid)
{
    uint32_t before = n_evictions(gtt);
    reconfigure(gtt, "pool = 192M\n" ABOVE_FLOOR, false);
    gtt_segment_close(rig_fill(gtt, "warm", SEGMENT, 4));
    wait_reserved(gtt);
    reconfigure(gtt, "pool = 192M\n" BELOW_FLOOR, true);
    uint64_t reserved = 192 * MIB;
    for (int ms = 0; n_evictions(gtt) == before; ms += 50) {
        uint64_t now_reserved = ballast(gtt);
        CHECK(now_reserved <= reserved && ms < 60000);
        CHECK_EQ(waitpid(hog_pid, NULL, WNOHANG), 0); /* without it there is no pressure */
        reserved = now_reserved;
        sleep_ms(50);
    }
    CHECK_EQ(reserved, 0);
    CHECK(rig_logged(&rig, "giving back 4 MiB of what was reserved, for a while"));
    reconfigure(gtt, "floor = 16M\npool = 192M\npressure = off\n", false);
    wait_reserved(gtt);
}

static void test_evictions(struct gtt *gtt)
{
    int pipe_fd;
    struct gtt *watch = rig_connect(&rig);
    struct gtt_segment *leased = rig_fill(gtt, "leased", SEGMENT, 0);
    gtt_segment_close(rig_fill(gtt, "a", SEGMENT, 1));
    gtt_segment_close(rig_fill(gtt, "b", SEGMENT, 2));
    gtt_segment_close(rig_fill(gtt, "c", SEGMENT, 3));
    pid_t pid = rig_fork(hog, NULL, &pipe_fd);
    CHECK_EQ(rig_pipe_byte(pipe_fd), 'x');
    sleep_ms(5000); /* two windows: others' pressure, while there is RAM, is not ours to relieve */
    CHECK_EQ(n_evictions(gtt), 0);
    CHECK_EQ(gtt_watch(watch), 0);
    reconfigure(gtt, BELOW_FLOOR, true);
    double first = expect_evicted(watch, "a"); /* a step each, the one used least recently */
    double second = expect_evicted(watch, "b");
    CHECK(second - first > 1.5); /* once per window */
    expect_evicted(watch, "c");
    for (int ms = 0; !rig_logged(&rig, "none of the 4 MiB held is sealed and unused"); ms += 50) {
        CHECK(ms < 20000);
        sleep_ms(50);
    }
    CHECK_EQ(n_evictions(gtt), 3);
    CHECK(rig_logged(&rig, "4 MiB): evicted: memory pressure, free RAM of "));
    CHECK_EQ(gtt_segment_verify(leased), 0);
    /* and when it is switched off, nothing more */
    reconfigure(gtt, "floor = 16M\npressure = off\n", false);
    gtt_segment_close(leased);
    reconfigure(gtt, "floor = 1000T\npressure = off\n", true);
    sleep_ms(3000);
    CHECK_EQ(n_evictions(gtt), 3);
    test_ballast(gtt, pid);
    rig_kill(pid);
    close(pipe_fd);
    gtt_disconnect(watch);
}

int main(void)
{
    struct gtt_status status;
    rig_start(&rig, NULL);
    struct gtt *gtt = rig_connect(&rig);
    CHECK_EQ(gtt_status(gtt, &status), 0);
    if (!status.pressure_watched) {
        CHECK(rig_logged(&rig, "/proc/pressure/memory: "));
        CHECK(rig_logged(&rig, "; no eviction under pressure"));
    }
    bool able = status.pressure_watched && make_cgroup();
    if (able) {
        reconfigure(gtt, ABOVE_FLOOR, false);
        test_evictions(gtt);
        for (int i = 0; rmdir(cgroup) < 0; i++) { /* the hog may still be on its way out */
            CHECK(errno == EBUSY && i < 500);
            sleep_ms(10);
        }
    } else {
        printf("%s\n", status.pressure_watched ? "no memory cgroup can be made"
                                               : "no pressure can be watched here");
    }
    gtt_disconnect(gtt);
    rig_stop(&rig);
    return able ? 0 : SKIP;
}
