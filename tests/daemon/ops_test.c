/* SPDX-License-Identifier: MIT */
/* Every operation against a real gttd: what works, and each refusal with its reason. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "gttd_util.h"
#include "rig.h"

static struct rig rig;

#define CHECK_ERROR(gtt, x, r, text)                                        \
    do {                                                                    \
        CHECK_EQ(x, r);                                                     \
        if (!strstr(gtt_last_error(gtt), text)) {                           \
            fprintf(stderr, "last error is \"%s\"\n", gtt_last_error(gtt)); \
            CHECK(!"the reason is there: " text);                           \
        }                                                                   \
    } while (0)

static void test_hello_and_status(void)
{
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_info info;
    struct gtt_status status;
    gtt_get_info(gtt, &info);
    CHECK(!strcmp(info.heap, "memfd"));
    CHECK(info.daemon_version[0]);
    CHECK(!info.is_dmabuf && info.restart_loses_pool);
    CHECK_EQ(info.chunk_max_bytes, 2048 * MIB);
    CHECK(!strcmp(info.socket_path, rig.socket));
    CHECK_EQ(gtt_status(gtt, &status), 0);
    CHECK_EQ(status.n_clients, 1);
    CHECK_EQ(status.used_bytes, 0);
    CHECK_EQ(status.floor_bytes, 16 * MIB);
    CHECK_EQ(status.capacity_bytes, 512 * MIB);
    CHECK(status.free_ram_bytes > 0);
    CHECK_EQ(status.gtt_total_bytes, 0);
    CHECK_EQ(status.pinned_bytes, 0);
    CHECK(!status.device[0] && strstr(status.pin, "memfd"));
    gtt_disconnect(gtt);
}

static void test_connect_fails(void)
{
    struct gtt *gtt;
    CHECK_ERROR(NULL, gtt_connect("/nonexistent/sock", NULL, &gtt), -ENOENT, "/nonexistent/sock");
    CHECK_ERROR(NULL, gtt_connect(rig.socket, "a label that is longer than allowed", &gtt), -EINVAL,
                "label");
    CHECK_ERROR(NULL, gtt_connect(rig.socket, "tab\t", &gtt), -EINVAL, "label");
    setenv("GTTD_SOCKET", rig.socket, 1);
    CHECK_EQ(gtt_connect(NULL, NULL, &gtt), 0);
    gtt_disconnect(gtt);
    unsetenv("GTTD_SOCKET");
    char link_path[160];
    snprintf(link_path, sizeof link_path, "%s/gttd.sock", rig.dir);
    CHECK_EQ(symlink(rig.socket, link_path), 0);
    setenv("XDG_RUNTIME_DIR", rig.dir, 1);
    CHECK_EQ(gtt_connect(NULL, NULL, &gtt), 0);
    gtt_disconnect(gtt);
    unlink(link_path);
}

/* Several chunks, the last one shorter, with data in all of them. */
static void test_fill_and_open(void)
{
    struct gtt *a = rig_connect(&rig), *b = rig_connect(&rig);
    struct gtt_segment *filled, *opened;
    struct gtt_segment_info info;
    uint8_t *base, *again;
    CHECK_EQ(gtt_open(a, "weights", GTT_OPEN_FILL, 0, &filled), 1);
    CHECK_ERROR(b, gtt_open(b, "weights", GTT_OPEN_FILL, 0, &opened), -EAGAIN, "pid");
    struct gtt_create_params params = {.name = "weights",
                                       .size_bytes = 10 * MIB,
                                       .chunk_bytes = 4 * MIB};
    CHECK_ERROR(b, gtt_create(b, &params, &opened), -EEXIST, "pid");
    CHECK_EQ(gtt_create(a, &params, &filled), 0);
    gtt_segment_get_info(filled, &info);
    CHECK_EQ(info.n_chunks, 3);
    CHECK(!info.sealed);
    CHECK_EQ(gtt_segment_map(filled, true, (void **)&base), 0);
    CHECK_EQ((uintptr_t)base % GTT_ALIGN_BYTES, 0);
    for (uint64_t i = 0; i < info.size_bytes; i += 4096) {
        CHECK_EQ(base[i], 0);
        base[i] = (uint8_t)(i / 4096 * 7);
    }
    CHECK_EQ(gtt_segment_seal(filled, NULL, "meta", 4), 0);
    CHECK_EQ(gtt_segment_map(filled, false, (void **)&again), 0);
    CHECK(again == base);
    CHECK_EQ(base[9 * MIB], (uint8_t)(9 * MIB / 4096 * 7));
    CHECK_ERROR(a, gtt_segment_seal(filled, NULL, NULL, 0), -EINVAL, "sealed");
    CHECK_ERROR(a, gtt_segment_map(filled, true, (void **)&again), -EACCES, "sealed");

    CHECK_EQ(gtt_open(b, "weights", GTT_OPEN_WAIT | GTT_OPEN_FILL, -1, &opened), 0);
    gtt_segment_get_info(opened, &info);
    CHECK(info.sealed && info.immutable);
    CHECK_EQ(info.size_bytes, 10 * MIB);
    CHECK_EQ(info.chunk_bytes, 4 * MIB);
    CHECK(info.metadata_size == 4 && !memcmp(info.metadata, "meta", 4));
    CHECK_EQ(gtt_segment_verify(opened), 0);
    CHECK_EQ(gtt_segment_map(opened, false, (void **)&again), 0);
    CHECK(!memcmp(base, again, 10 * MIB));
    CHECK_ERROR(b, gtt_create(b, &params, &filled), -EEXIST, "sealed");
    gtt_segment_close(opened);
    gtt_segment_close(filled);
    gtt_disconnect(b);
    gtt_disconnect(a);
}

/* No way to write to sealed memory: not through the fd, not through one opened again. */
static void test_sealed_is_immutable(void)
{
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_segment *segment;
    int fd;
    char path[64];
    CHECK_EQ(gtt_open(gtt, "weights", 0, 0, &segment), 0);
    CHECK_EQ(gtt_segment_chunk_fd(segment, 0, &fd), 0);
    CHECK(write(fd, "x", 1) < 0);
    CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    CHECK(ftruncate(fd, 0) < 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDWR | O_CLOEXEC);
    CHECK(again >= 0);
    CHECK(write(again, "x", 1) < 0);
    CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0) == MAP_FAILED);
    CHECK(fallocate(again, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) < 0);
    CHECK(ftruncate(again, 0) < 0);
    CHECK_EQ(fcntl(again, F_GET_SEALS) & F_SEAL_WRITE, F_SEAL_WRITE);
    close(again);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    CHECK_ERROR(gtt, gtt_segment_chunk_fd(segment, 3, &fd), -EINVAL, "chunk 3 of 3");
    gtt_segment_close(segment);
    gtt_disconnect(gtt);
}

/* A filler that keeps a writable mapping gets its seal, but is not called immutable. */
static void test_seal_with_writer(void)
{
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_create_params params = {.name = "kept", .size_bytes = 2 * MIB};
    struct gtt_segment *segment;
    struct gtt_segment_info info;
    int fd;
    CHECK_EQ(gtt_create(gtt, &params, &segment), 0);
    CHECK_EQ(gtt_segment_chunk_fd(segment, 0, &fd), 0);
    void *kept = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(kept != MAP_FAILED);
    CHECK_EQ(gtt_segment_seal(segment, NULL, NULL, 0), 0);
    gtt_segment_get_info(segment, &info);
    CHECK(info.sealed && !info.immutable);
    CHECK_EQ(gtt_segment_verify(segment), 0);
    *(char *)kept = 1;
    CHECK_ERROR(gtt, gtt_segment_verify(segment), -EBADMSG, "digest");
    munmap(kept, 4096);
    gtt_segment_close(segment);
    CHECK_EQ(gtt_drop(gtt, "kept", 0), 0);
    gtt_disconnect(gtt);
}

static void test_list(void)
{
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_entry entry;
    char name[32];
    size_t n = 0;
    uint64_t last = 0, cursor = 0;
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "list-%02d", i);
        gtt_segment_close(rig_fill(gtt, name, 2 * MIB, i));
    }
    while (gtt_list(gtt, &cursor, &entry) == 1) {
        CHECK(entry.id > last);
        CHECK_EQ(entry.state, GTT_SEALED);
        CHECK(entry.immutable);
        CHECK_EQ(entry.n_leases, 0);
        CHECK(!strcmp(entry.label, "test"));
        CHECK_EQ(entry.uid, getuid());
        last = entry.id;
        n++;
    }
    CHECK_EQ(n, 41);
    cursor = 0; /* from the start again, and dropped by id */
    while (gtt_list(gtt, &cursor, &entry) == 1) {
        if (!strncmp(entry.name, "list-", 5)) {
            CHECK_EQ(gtt_drop_id(gtt, entry.id, 0), 0);
        }
    }
    cursor = 0;
    CHECK_EQ(gtt_list(gtt, &cursor, &entry), 1);
    CHECK(!strcmp(entry.name, "weights"));
    CHECK_EQ(gtt_list(gtt, &cursor, &entry), 0);
    gtt_disconnect(gtt);
}

static void test_drop(void)
{
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_segment *segment, *other;
    void *base;
    CHECK_ERROR(gtt, gtt_drop(gtt, "nothing", 0), -ENOENT, "nothing");
    CHECK_ERROR(gtt, gtt_drop_id(gtt, 999999, 0), -ENOENT, "999999");
    CHECK_EQ(gtt_open(gtt, "weights", 0, 0, &segment), 0);
    CHECK_EQ(gtt_open(gtt, "weights", 0, 0, &other), 0);
    CHECK_ERROR(gtt, gtt_drop(gtt, "weights", 0), -EBUSY, "2 times");
    CHECK_EQ(gtt_drop(gtt, "weights", GTT_DROP_FORCE), 0);
    CHECK_ERROR(gtt, gtt_open(gtt, "weights", 0, 0, &other), -ENOENT, "weights");
    gtt_segment_close(other);
    CHECK_EQ(rig_count(&rig).used_bytes, 10 * MIB); /* the lease keeps it */
    CHECK_EQ(gtt_segment_map(segment, false, &base), 0);
    gtt_segment_close(segment);
    CHECK_EQ(rig_count(&rig).used_bytes, 0);

    struct gtt_create_params params = {.name = "doomed", .size_bytes = 2 * MIB};
    CHECK_EQ(gtt_create(gtt, &params, &segment), 0);
    CHECK_ERROR(gtt, gtt_drop(gtt, "doomed", 0), -EBUSY, "filling");
    CHECK_EQ(gtt_drop(gtt, "doomed", GTT_DROP_FORCE), 0);
    CHECK_ERROR(gtt, gtt_segment_seal(segment, NULL, NULL, 0), -ESTALE, "dropped");
    gtt_segment_close(segment);
    gtt_disconnect(gtt);
}

static void test_create_refusals(void)
{
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_segment *segment;
    struct gtt_create_params p = {.size_bytes = 3 * MIB};
    CHECK_ERROR(gtt, gtt_create(gtt, &p, &segment), -EINVAL, "2 MiB");
    p.size_bytes = 0;
    CHECK_ERROR(gtt, gtt_create(gtt, &p, &segment), -EINVAL, "2 MiB");
    p = (struct gtt_create_params){.size_bytes = 4 * MIB, .chunk_bytes = MIB};
    CHECK_ERROR(gtt, gtt_create(gtt, &p, &segment), -EINVAL, "2 MiB");
    p = (struct gtt_create_params){.size_bytes = 4 * MIB, .chunk_bytes = 4096 * MIB};
    CHECK_ERROR(gtt, gtt_create(gtt, &p, &segment), -EINVAL, "at most 2048 MiB");
    p = (struct gtt_create_params){.size_bytes = 4096 * MIB, .chunk_bytes = 2 * MIB};
    CHECK_ERROR(gtt, gtt_create(gtt, &p, &segment), -EINVAL, "1024 chunks");
    p = (struct gtt_create_params){.size_bytes = UINT64_MAX - 2 * MIB + 1};
    CHECK_ERROR(gtt, gtt_create(gtt, &p, &segment), -EINVAL, "1024 chunks");
    p = (struct gtt_create_params){.size_bytes = 2 * MIB, .write_combined = true};
    CHECK_ERROR(gtt, gtt_create(gtt, &p, &segment), -EOPNOTSUPP, "memfd");
    p = (struct gtt_create_params){.size_bytes = 2 * MIB, .name = "with space"};
    CHECK_ERROR(gtt, gtt_create(gtt, &p, &segment), -EINVAL, "name");
    p = (struct gtt_create_params){.size_bytes = 2 * MIB};
    CHECK_EQ(gtt_create(gtt, &p, &segment), 0);
    CHECK_ERROR(gtt, gtt_segment_seal(segment, NULL, NULL, 0), -EINVAL, "anonymous");
    CHECK_EQ(rig_count(&rig).used_bytes, 2 * MIB);
    gtt_segment_close(segment);
    gtt_disconnect(gtt);
}

static void test_open_refusals(void)
{
    struct gtt *gtt = rig_connect(&rig), *other = rig_connect(&rig);
    struct gtt_segment *segment;
    char long_name[200];
    memset(long_name, 'n', sizeof long_name);
    long_name[GTT_NAME_MAX + 1] = '\0';
    CHECK_ERROR(gtt, gtt_open(gtt, long_name, 0, 0, &segment), -EINVAL, "name");
    CHECK_ERROR(gtt, gtt_open(gtt, "", 0, 0, &segment), -EINVAL, "name");
    CHECK_ERROR(gtt, gtt_open(gtt, "x", 64, 0, &segment), -EINVAL, "flags");
    long_name[GTT_NAME_MAX] = '\0';
    CHECK_ERROR(gtt, gtt_open(gtt, long_name, 0, 0, &segment), -ENOENT, "no such segment");
    CHECK_ERROR(gtt, gtt_open(gtt, long_name, GTT_OPEN_WAIT, -1, &segment), -ENOENT,
                "no such segment");
    CHECK_EQ(gtt_open(gtt, long_name, GTT_OPEN_FILL, 0, &segment), 1);
    CHECK_ERROR(gtt, gtt_open(gtt, long_name, GTT_OPEN_FILL | GTT_OPEN_WAIT, -1, &segment),
                -EDEADLK, "itself");
    CHECK_ERROR(other, gtt_open(other, long_name, GTT_OPEN_WAIT, 50, &segment), -ETIMEDOUT,
                "filled");
    CHECK_EQ(rig_count(&rig).n_waiters, 0);
    CHECK_ERROR(other, gtt_abandon(other, long_name), -ENOENT, "not claimed");
    CHECK_EQ(gtt_abandon(gtt, long_name), 0);
    CHECK_ERROR(gtt, gtt_abandon(gtt, long_name), -ENOENT, "not claimed");
    CHECK_ERROR(other, gtt_open(other, long_name, 0, 0, &segment), -ENOENT, "no such segment");
    gtt_disconnect(other);
    gtt_disconnect(gtt);
}

static void expect_event(struct gtt *gtt, enum gtt_event_kind kind, const char *name)
{
    struct gtt_event event;
    CHECK_EQ(gtt_next_event(gtt, 5000, &event), 0);
    CHECK_EQ(event.kind, kind);
    CHECK(!strcmp(event.name, name));
    CHECK_EQ(event.uid, getuid());
}

static void test_watch(void)
{
    struct gtt *watcher = rig_connect(&rig), *gtt = rig_connect(&rig);
    struct gtt_event event;
    struct gtt_segment *segment;
    CHECK_ERROR(watcher, gtt_next_event(watcher, 0, &event), -EINVAL, "gtt_watch");
    CHECK_EQ(gtt_watch(watcher), 0);
    CHECK_EQ(gtt_next_event(watcher, 0, &event), -ETIMEDOUT);
    gtt_segment_close(rig_fill(gtt, "seen", 2 * MIB, 1));
    CHECK_EQ(gtt_open(gtt, "seen", 0, 0, &segment), 0);
    gtt_segment_close(segment);
    CHECK_EQ(gtt_drop(gtt, "seen", 0), 0);
    gtt_disconnect(gtt);
    struct gtt_status status; /* events that come before a reply are kept */
    CHECK_EQ(gtt_status(watcher, &status), 0);
    expect_event(watcher, GTT_EVENT_CREATED, "seen");
    expect_event(watcher, GTT_EVENT_SEALED, "seen");
    expect_event(watcher, GTT_EVENT_CLOSED, "seen");
    expect_event(watcher, GTT_EVENT_OPENED, "seen");
    expect_event(watcher, GTT_EVENT_CLOSED, "seen");
    expect_event(watcher, GTT_EVENT_DROPPED, "seen");
    expect_event(watcher, GTT_EVENT_CLIENT_GONE, "");
    gtt_disconnect(watcher);
}

/* Requests that libgtt does not send, over a raw connection. */
static void test_raw(void)
{
    union gttd_msg msg;
    int sock = rig_raw_greeted(&rig), fd;
    struct gttd_chunk_req chunk = {.id = 12345};
    raw_send(sock, &chunk, sizeof chunk, GTTD_OP_CHUNK, 7);
    CHECK_EQ(raw_recv(sock, &msg, NULL), -ENOENT);
    CHECK_EQ(msg.hdr.serial, 7);
    struct gttd_close_req close_req = {.wait_serial = 3};
    raw_send(sock, &close_req, sizeof close_req, GTTD_OP_CLOSE, 8);
    CHECK_EQ(raw_recv(sock, &msg, NULL), -ENOENT);
    struct gttd_seal_req seal = {.id = 4};
    raw_send(sock, &seal, sizeof seal, GTTD_OP_SEAL, 9);
    CHECK_EQ(raw_recv(sock, &msg, NULL), -ENOENT);
    /* a claim closed while its CREATE is on the way: both answered, nothing left */
    struct gttd_open_req open_req = {.flags = GTTD_OPEN_FILL, .name = "raw"};
    raw_send(sock, &open_req, sizeof open_req, GTTD_OP_OPEN, 10);
    CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
    CHECK_EQ(msg.open_rsp.role, GTTD_ROLE_FILLER);
    close_req = (struct gttd_close_req){.id = msg.open_rsp.id};
    struct gttd_create_req create = {.size_bytes = 256 * MIB, .name = "raw"};
    raw_send(sock, &create, sizeof create, GTTD_OP_CREATE, 11);
    raw_send(sock, &close_req, sizeof close_req, GTTD_OP_CLOSE, 12);
    CHECK_EQ(raw_recv(sock, &msg, NULL), -ECANCELED);
    CHECK_EQ(msg.hdr.serial, 11);
    CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
    CHECK_EQ(msg.hdr.serial, 12);
    /* pipelined: create, chunk and seal without waiting need the id, so: create, then both */
    create.size_bytes = 4 * MIB;
    raw_send(sock, &create, sizeof create, GTTD_OP_CREATE, 13);
    CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
    chunk.id = seal.id = msg.create_rsp.id;
    raw_send(sock, &chunk, sizeof chunk, GTTD_OP_CHUNK, 14);
    raw_send(sock, &seal, sizeof seal, GTTD_OP_SEAL, 15);
    CHECK_EQ(raw_recv(sock, &msg, &fd), 0);
    CHECK_EQ(msg.chunk_rsp.size_bytes, 4 * MIB);
    close(fd);
    CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
    CHECK_EQ(msg.hdr.serial, 15);
    raw_send(sock, &seal, sizeof seal, GTTD_OP_SEAL, 16);
    CHECK_EQ(raw_recv(sock, &msg, NULL), -EINVAL);
    struct gttd_drop_req drop = {.flags = GTTD_DROP_FORCE, .name = "raw"};
    raw_send(sock, &drop, sizeof drop, GTTD_OP_DROP, 17);
    CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
    close(sock);
}

int main(void)
{
    int n_fds = count_fds(NULL);
    rig_start(&rig, (const char *[]){"--pool=512M", NULL});
    struct rig_count before = rig_count(&rig);
    test_hello_and_status();
    test_connect_fails();
    test_fill_and_open();
    test_sealed_is_immutable();
    test_seal_with_writer();
    test_list();
    test_drop();
    test_create_refusals();
    test_open_refusals();
    test_watch();
    test_raw();
    rig_expect_count(&rig, &before);
    rig_stop(&rig);
    CHECK_EQ(count_fds(NULL), n_fds);
    return 0;
}
