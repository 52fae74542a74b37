/* SPDX-License-Identifier: MIT */
/*
 * What outlives gttd: kill -9, SIGTERM and starting again with what the fd store holds; and what
 * must not come back: half of a segment, a damaged record, memory that is not what it is said to
 * be.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "gttd_util.h"
#include "record.h"
#include "supervisor.h"

static struct supervisor sup;

static int64_t now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* Of several chunks of 2 MiB, the first byte of each its number and the rest byte. */
static void fill(const char *name, unsigned n_chunks, int byte)
{
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_create_params params = {.name = name,
                                       .size_bytes = n_chunks * 2 * MIB,
                                       .chunk_bytes = 2 * MIB};
    struct gtt_segment *segment;
    uint8_t *base;
    CHECK_EQ(gtt_create(gtt, &params, &segment), 0);
    CHECK_EQ(gtt_segment_map(segment, true, (void **)&base), 0);
    memset(base, byte, params.size_bytes);
    for (unsigned i = 0; i < n_chunks; i++) {
        base[i * 2 * MIB] = (uint8_t)i;
    }
    CHECK_EQ(gtt_segment_seal(segment, NULL, "about", 5), 0);
    gtt_segment_close(segment);
    gtt_disconnect(gtt);
}

/* Open it and look at all of it. */
static void expect_filled(const char *name, unsigned n_chunks, int byte)
{
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_segment *segment;
    struct gtt_segment_info info;
    uint8_t *base;
    CHECK_EQ(gtt_open(gtt, name, 0, 0, &segment), 0);
    gtt_segment_get_info(segment, &info);
    CHECK_EQ(info.size_bytes, n_chunks * 2 * MIB);
    CHECK(info.metadata_size == 5 && !memcmp(info.metadata, "about", 5));
    CHECK(info.immutable);
    CHECK_EQ(gtt_segment_map(segment, false, (void **)&base), 0);
    CHECK_EQ(gtt_segment_verify(segment), 0);
    for (uint64_t i = 0; i < info.size_bytes; i++) {
        CHECK_EQ(base[i], i % (2 * MIB) ? byte : (int)(uint8_t)(i / (2 * MIB)));
    }
    gtt_segment_close(segment);
    gtt_disconnect(gtt);
}

static void expect_missing(const char *name)
{
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_segment *segment;
    CHECK_EQ(gtt_open(gtt, name, 0, 0, &segment), -ENOENT);
    gtt_disconnect(gtt);
}

static void drop(const char *name)
{
    struct gtt *gtt = rig_connect(&sup.rig);
    CHECK_EQ(gtt_drop(gtt, name, GTT_DROP_FORCE), 0);
    gtt_disconnect(gtt);
}

static struct gtt_entry entry_of(const char *name)
{
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_entry entry;
    uint64_t cursor = 0;
    do {
        CHECK_EQ(gtt_list(gtt, &cursor, &entry), 1);
    } while (strcmp(entry.name, name) != 0);
    gtt_disconnect(gtt);
    return entry;
}

static void expect_stored(unsigned n)
{
    for (int ms = 0; sup_count(&sup, NULL) != n && ms < 5000; ms++) {
        sleep_ms(1); /* what was sent is on its way */
    }
    CHECK_EQ(sup_count(&sup, NULL), n);
}

/* ---- what comes back ---- */

static void test_same_memory(int signal)
{
    sup_start(&sup, 64, NULL);
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_info daemon;
    struct gtt_segment *segment = rig_fill(gtt, "weights", 64 * MIB, 7);
    gtt_get_info(gtt, &daemon);
    CHECK(!daemon.restart_loses_pool);
    struct gtt_status before, after;
    CHECK_EQ(gtt_status(gtt, &before), 0);
    struct gtt_entry entry = entry_of("weights");
    CHECK(entry.kept && entry.immutable);
    uint8_t *base;
    int fd;
    struct stat st, again;
    CHECK_EQ(gtt_segment_map(segment, false, (void **)&base), 0);
    CHECK_EQ(gtt_segment_chunk_fd(segment, 0, &fd), 0);
    CHECK_EQ(fstat(fd, &st), 0);
    expect_stored(2);

    int64_t start_us = now_us();
    sup_restart(&sup, signal);
    struct gtt *other = rig_connect(&sup.rig);
    struct gtt_segment *reopened;
    CHECK_EQ(gtt_open(other, "weights", 0, 0, &reopened), 0);
    printf("%s: OPEN works %.1f ms after the signal\n", strsignal(signal),
           (double)(now_us() - start_us) / 1000);
    CHECK_EQ(gtt_segment_chunk_fd(reopened, 0, &fd), 0);
    CHECK_EQ(fstat(fd, &again), 0);
    CHECK(st.st_ino == again.st_ino && st.st_dev == again.st_dev);
    CHECK_EQ(gtt_segment_verify(reopened), 0);
    CHECK_EQ(gtt_segment_verify(segment), 0); /* whose mapping has not noticed anything */
    CHECK(base[0] == 7 && base[64 * MIB - 1] == 7);
    CHECK_EQ(gtt_status(other, &after), 0);
    CHECK_EQ(after.user_bytes, before.user_bytes);
    CHECK_EQ(after.used_bytes, before.used_bytes);
    struct gtt_entry later = entry_of("weights");
    CHECK_EQ(later.id, entry.id);
    CHECK_EQ(later.pid, entry.pid);
    CHECK(!strcmp(later.label, entry.label) && later.kept && later.immutable);
    CHECK(!memcmp(later.digest, entry.digest, sizeof entry.digest));
    gtt_segment_close(rig_fill(other, "next", 2 * MIB, 1));
    CHECK(entry_of("next").id > entry.id);
    expect_stored(4);
    gtt_segment_close(reopened);
    gtt_disconnect(other);
    gtt_segment_close(segment);
    gtt_disconnect(gtt);
    drop("next");
    drop("weights");
    expect_stored(0);
    sup_restart(&sup, signal);
    expect_missing("weights");
    sup_stop(&sup);
}

/* What is not sealed goes with gttd; what is dropped and still leased does not come back. */
static void test_not_kept(void)
{
    sup_start(&sup, 64, NULL);
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_create_params params = {.name = "filling", .size_bytes = 2 * MIB};
    struct gtt_segment *filling, *anonymous, *leased;
    CHECK_EQ(gtt_create(gtt, &params, &filling), 0);
    params.name = NULL;
    CHECK_EQ(gtt_create(gtt, &params, &anonymous), 0);
    leased = rig_fill(gtt, "leased", 2 * MIB, 1);
    CHECK_EQ(gtt_drop(gtt, "leased", GTT_DROP_FORCE), 0);
    expect_stored(0);
    sup_restart(&sup, SIGKILL);
    gtt_segment_close(filling);
    gtt_segment_close(anonymous);
    gtt_segment_close(leased);
    gtt_disconnect(gtt);
    expect_missing("filling");
    expect_missing("leased");
    CHECK_EQ(rig_count(&sup.rig).used_bytes, 0);
    sup_stop(&sup);
}

/* Many chunks need several messages. */
static void test_many_chunks(void)
{
    sup_start(&sup, 512, NULL);
    fill("many", 210, 3);
    expect_stored(211);
    sup_restart(&sup, SIGKILL);
    expect_filled("many", 210, 3);
    drop("many");
    expect_stored(0);
    sup_stop(&sup);
}

/* The order of use is that of the gttd before, up to its last moment. */
static void test_order_of_use(void)
{
    static const char *const args[] = {"--pool=6M", NULL};
    sup_start(&sup, 64, args);
    fill("a", 1, 1);
    fill("b", 1, 2);
    fill("c", 1, 3);
    expect_filled("a", 1, 1);
    sup_restart(&sup, SIGKILL);
    fill("d", 1, 4); /* evicts b */
    CHECK(rig_logged(&sup.rig, "segment b (uid"));
    expect_missing("b");
    expect_filled("a", 1, 1);
    expect_filled("c", 1, 3);
    expect_stored(6);
    sup_restart(&sup, SIGTERM);
    CHECK(rig_logged(&sup.rig, "3 sealed segments stay with the service manager (6 MiB)"));
    CHECK(rig_logged(&sup.rig, "took over 3 sealed segments (6 MiB)"));
    expect_filled("d", 1, 4);
    expect_missing("b");
    sup_stop(&sup);
}

/* ---- what does not ---- */

/* Seal over a raw connection, so that nothing but the seal is under way when gttd is killed. */
static void seal_and_die(int kill_at)
{
    int sock = rig_raw_greeted(&sup.rig);
    union gttd_msg msg;
    struct gttd_create_req create = {.size_bytes = 6 * MIB,
                                     .chunk_bytes = 2 * MIB,
                                     .name = "dying"};
    raw_send(sock, &create, sizeof create, GTTD_OP_CREATE, 2);
    CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
    struct gttd_seal_req seal = {.id = msg.create_rsp.id};
    sup_kill_at(&sup, kill_at);
    raw_send(sock, &seal, sizeof seal, GTTD_OP_SEAL, 3);
    raw_expect_end(sock);
    close(sock);
    sup_end(&sup, 0);
    sup_kill_at(&sup, -1);
    sup_launch(&sup);
}

/* Storing is: the chunks, the record, the barrier. */
static void test_killed_while_storing(void)
{
    sup_start(&sup, 64, NULL);
    fill("before", 2, 9);
    static const bool complete[] = {false, false, true};
    for (int at = 0; at < 3; at++) {
        seal_and_die(at);
        struct gtt *gtt = rig_connect(&sup.rig);
        struct gtt_segment *segment;
        CHECK_EQ(gtt_open(gtt, "dying", 0, 0, &segment), complete[at] ? 0 : -ENOENT);
        if (complete[at]) {
            gtt_segment_close(segment);
            CHECK_EQ(gtt_drop(gtt, "dying", 0), 0);
        }
        gtt_disconnect(gtt);
        expect_filled("before", 2, 9);
        expect_stored(3);
    }
    CHECK(rig_logged(&sup.rig, "it was not completely stored"));
    sup_stop(&sup);
}

/* Every part of a record, and what is checked only when the checksum is right. */
static void test_damaged_records(void)
{
    enum { N = 24 };
    char name[32], key[32];
    sup_start(&sup, 1024, NULL);
    fill("good", 1, 5);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "bad-%d", i);
        fill(name, 1, i);
    }
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "bad-%d", i);
        snprintf(key, sizeof key, "gttd-s-%llu", (unsigned long long)entry_of(name).id);
        int fd = sup_get(&sup, key, 0);
        struct stat st;
        CHECK_EQ(fstat(fd, &st), 0);
        bool in_use_words = i == 1; /* a count out of range instead */
        off_t at = in_use_words ? (off_t)offsetof(struct record, last_use)
                                : (off_t)i * (st.st_size - 1) / (N - 1);
        at = i == 2 ? (off_t)offsetof(struct record, version) : at;
        uint8_t bytes[8] = {0};
        CHECK_EQ(pread(fd, bytes, sizeof bytes, at) > 0, 1);
        memset(bytes + 1, in_use_words ? 0xff : bytes[1], in_use_words ? 7 : 0);
        bytes[0] ^= 0x41;
        CHECK(pwrite(fd, bytes, in_use_words ? 8 : 1, at) > 0);
    }
    sup_restart(&sup, SIGKILL);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "bad-%d", i);
        expect_missing(name);
    }
    expect_filled("good", 1, 5);
    CHECK(rig_logged(&sup.rig, "a damaged record"));
    CHECK(rig_logged(&sup.rig, "not a record"));
    CHECK(rig_logged(&sup.rig, "a record of version"));
    CHECK(rig_logged(&sup.rig, "its id or use count is out of range"));
    expect_stored(2);
    CHECK_EQ(rig_count(&sup.rig).used_bytes, 2 * MIB);
    sup_stop(&sup);
}

static int memfd_of(off_t size, int seals)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0 && ftruncate(fd, size) == 0);
    CHECK_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static int dup_of(const char *name, unsigned index)
{
    int fd = fcntl(sup_get(&sup, name, index), F_DUPFD_CLOEXEC, 0);
    CHECK(fd >= 0);
    return fd;
}

/* A record like that of name, changed by edit and with a good checksum, in place of the old. */
static void forge(const char *key, void (*edit)(struct record *record))
{
    struct record *record;
    struct reason why;
    int fd;
    CHECK_EQ(record_read(sup_get(&sup, key, 0), &record, &why), 0);
    edit(record);
    CHECK_EQ(record_write(record, &fd), 0);
    free(record);
    sup_replace(&sup, key, 0, fd);
}

static void other_heap(struct record *record)
{
    memset(record->heap, 0, sizeof record->heap);
    strcpy(record->heap, "amdgpu");
}

static void name_of_first(struct record *record)
{
    memset(record->name, 0, sizeof record->name);
    strcpy(record->name, "s1");
}

static void larger(struct record *record)
{
    record->size_bytes = record->chunk_bytes = 4 * MIB;
}

static void bad_name(struct record *record)
{
    record->name[0] = ' ';
}

static void chunk_of_first(struct record *record)
{
    struct stat st;
    CHECK_EQ(fstat(sup_get(&sup, "gttd-c-1", 0), &st), 0);
    record->chunks[0].ino = st.st_ino;
}

/* Segments s1... in a fresh gttd have the ids 1... */
static void test_wrong_fds(void)
{
    enum { N = 20 };
    char name[32];
    int pipe_fds[2];
    sup_start(&sup, 1024, NULL);
    for (int i = 1; i <= N; i++) {
        snprintf(name, sizeof name, "s%d", i);
        fill(name, 1, i);
        CHECK_EQ(entry_of(name).id, i);
    }
    CHECK_EQ(pipe(pipe_fds), 0);
    close(pipe_fds[1]);
    sup_replace(&sup, "gttd-c-2", 0, pipe_fds[0]);
    sup_replace(&sup, "gttd-c-3", 0, memfd_of(2 * MIB, F_SEAL_SHRINK | F_SEAL_GROW));
    sup_replace(&sup, "gttd-c-4", 0, dup_of("gttd-c-1", 0)); /* somebody else's memory */
    sup_replace(&sup, "gttd-c-5", 0, -1);
    sup_replace(&sup, "gttd-s-6", 0, -1);
    sup_add(&sup, "gttd-c-7", memfd_of(2 * MIB, F_SEAL_SHRINK | F_SEAL_GROW));
    sup_add(&sup, "gttd-s-8", dup_of("gttd-s-8", 0));
    sup_replace(&sup, "gttd-s-9", 0, dup_of("gttd-s-1", 0));
    sup_replace(&sup, "gttd-s-10", 0, open("/", O_RDONLY | O_CLOEXEC));
    sup_replace(&sup, "gttd-s-11", 0, memfd_of(0, F_SEAL_SHRINK));
    sup_replace(&sup, "gttd-s-12", 0, memfd_of(1ll << 40, F_SEAL_SHRINK));
    sup_replace(&sup, "gttd-s-13", 0, memfd_of(4096, F_SEAL_SHRINK));
    forge("gttd-s-14", other_heap);
    forge("gttd-s-15", name_of_first);
    forge("gttd-s-16", larger);
    forge("gttd-s-17", bad_name);
    forge("gttd-s-18", chunk_of_first);
    sup_replace(&sup, "gttd-s-19", 0, dup_of("gttd-c-19", 0));
    sup_add(&sup, "gttd-c-99", dup_of("gttd-c-1", 0)); /* nobody's */
    sup_add(&sup, "gttd-z-1", open("/dev/null", O_RDONLY | O_CLOEXEC));
    sup_add(&sup, "gttd-s-", open("/dev/null", O_RDONLY | O_CLOEXEC));
    sup_add(&sup, "gttd-s-99999999999999999999999", open("/dev/null", O_RDONLY | O_CLOEXEC));
    sup_add(&sup, "gttd-", open("/dev/null", O_RDONLY | O_CLOEXEC));
    sup_restart(&sup, SIGKILL);
    expect_filled("s1", 1, 1);
    expect_filled("s20", 1, 20);
    for (int i = 2; i < N; i++) {
        snprintf(name, sizeof name, "s%d", i);
        expect_missing(name);
    }
    static const char *const said[] = {
        "segment s2 (uid",
        "its chunks are not those that its record names",
        "segment s4 (uid",
        "it was not completely stored",
        "it has several records",
        "its record is that of segment 1",
        "not the memfd of a record",
        "it is of the amdgpu heap, and this gttd uses memfd",
        "there are two of that name",
        "a memfd of 2097152 bytes, not of a fixed 4194304",
        "its name is no segment's",
        "the fd store has gttd-z-1, which this gttd does not know",
    };
    for (size_t i = 0; i < ARRAY_SIZE(said); i++) {
        if (!rig_logged(&sup.rig, said[i])) {
            fprintf(stderr, "not in the log: %s\n", said[i]);
            CHECK(!"said");
        }
    }
    expect_stored(4);
    CHECK_EQ(rig_count(&sup.rig).used_bytes, 4 * MIB);
    CHECK_EQ(rig_count(&sup.rig).n_segments, 2);
    sup_stop(&sup);
}

/* What does not fit into the store works, is said to be lost with a restart, and is. */
static void test_store_full(void)
{
    sup_start(&sup, 5, NULL);
    fill("one", 1, 1);
    fill("two", 1, 2);
    fill("three", 1, 3);
    CHECK(entry_of("one").kept && entry_of("two").kept && !entry_of("three").kept);
    CHECK(rig_logged(&sup.rig, "segment three (uid"));
    CHECK(rig_logged(&sup.rig, "the fd store has 4 of 5 fds, and it would take 2 more"));
    expect_filled("three", 1, 3);
    drop("one");
    fill("four", 1, 4);
    CHECK(entry_of("four").kept);
    expect_stored(4);
    CHECK_EQ(sup_refused(&sup), 0);
    sup_restart(&sup, SIGKILL);
    expect_filled("two", 1, 2);
    expect_filled("four", 1, 4);
    expect_missing("three");
    fill("five", 1, 5);
    CHECK(!entry_of("five").kept);
    sup_stop(&sup);
}

/* A manager without a store, and one whose store has become too small. */
static void test_no_store(void)
{
    struct gtt_info daemon;
    sup_start(&sup, 0, NULL);
    struct gtt *gtt = rig_connect(&sup.rig);
    gtt_get_info(gtt, &daemon);
    CHECK(daemon.restart_loses_pool);
    gtt_disconnect(gtt);
    CHECK(
        rig_logged(&sup.rig, "a restart loses the pool: its unit has no FileDescriptorStoreMax="));
    fill("lost", 1, 1);
    CHECK(!entry_of("lost").kept);
    CHECK_EQ(sup_count(&sup, NULL), 0);
    sup_restart(&sup, SIGTERM);
    expect_missing("lost");
    CHECK(rig_logged(&sup.rig, "1 sealed segments are lost (2 MiB)"));
    sup_stop(&sup);
    sup_start(&sup, 8, NULL);
    fill("one", 1, 1);
    fill("two", 1, 2);
    sup_set_max(&sup, 2);
    sup_restart(&sup, SIGKILL);
    expect_filled("one", 1, 1);
    expect_filled("two", 1, 2);
    fill("three", 1, 3);
    CHECK(!entry_of("three").kept);
    sup_stop(&sup);
}

/* Nothing is left over in the daemon, however often. */
static void test_no_leak(void)
{
    sup_start(&sup, 64, NULL);
    fill("kept", 2, 1);
    sup_restart(&sup, SIGKILL);
    struct rig_count before = rig_count(&sup.rig);
    for (int i = 0; i < 10; i++) {
        fill("temporary", 2, 2);
        drop("temporary");
    }
    rig_expect_count(&sup.rig, &before);
    expect_stored(3);
    for (int i = 0; i < 5; i++) {
        sup_restart(&sup, i % 2 ? SIGTERM : SIGKILL);
    }
    rig_expect_count(&sup.rig, &before);
    expect_stored(3);
    sup_stop(&sup);
}

int main(void)
{
    test_same_memory(SIGKILL);
    test_same_memory(SIGTERM);
    test_not_kept();
    test_many_chunks();
    test_order_of_use();
    test_killed_while_storing();
    test_damaged_records();
    test_wrong_fds();
    test_store_full();
    test_no_store();
    test_no_leak();
    return 0;
}
