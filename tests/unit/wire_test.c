/* SPDX-License-Identifier: MIT */
/* gttd_wire over a socketpair, and the decoder on each rule that it has. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "check.h"
#include "gttd_util.h"
#include "gttd_wire.h"

static int sv[2];

static void test_round_trip(void)
{
    int mem = memfd_create("x", MFD_CLOEXEC), got = -1;
    struct gttd_chunk_rsp rsp = {gttd_header(sizeof rsp, GTTD_OP_CHUNK, 3), 7, 2 << 20, 0, 0};
    union gttd_msg in;
    size_t size;
    CHECK_EQ(gttd_send(sv[0], &rsp.hdr, mem), 0);
    CHECK_EQ(gttd_recv(sv[1], 0, &in, &size, &got), 0);
    CHECK(size == sizeof rsp && !memcmp(&in, &rsp, size));
    CHECK(got >= 0 && (fcntl(got, F_GETFD) & FD_CLOEXEC));
    CHECK_EQ(gttd_decode(GTTD_FROM_DAEMON, &in, size, NULL), 0);
    CHECK(gttd_wants_fd(GTTD_FROM_DAEMON, &in.hdr));
    CHECK(!gttd_wants_fd(GTTD_FROM_CLIENT, &in.hdr));
    close(got);
    CHECK_EQ(gttd_send(sv[0], &rsp.hdr, -1), 0);
    CHECK_EQ(gttd_recv(sv[1], 0, &in, &size, &got), 0);
    CHECK_EQ(got, -1);
    CHECK_EQ(gttd_recv(sv[1], MSG_DONTWAIT, &in, &size, &got), -EAGAIN);
    close(mem);
}

static void send_fds(size_t n_fds, size_t size)
{
    static char data[8192];
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(64 * sizeof(int))];
    } control = {0};
    int fds[64];
    for (size_t i = 0; i < n_fds; i++) {
        fds[i] = sv[0];
    }
    struct iovec iov = {.iov_base = data, .iov_len = size};
    struct msghdr mh = {.msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = control.buf,
                        .msg_controllen = CMSG_SPACE(n_fds * sizeof(int))};
    struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
    memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    CHECK_EQ(sendmsg(sv[0], &mh, 0), size);
}

/* Refused messages leave at most one fd behind, which is the caller's, however many came. */
static void test_refused(void)
{
    static const size_t counts[] = {2, 3, 4, 5, 6, 17, 64};
    union gttd_msg in;
    size_t size;
    int got = -1, n_fds = count_fds(NULL);
    for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
        send_fds(counts[i], 32);
        CHECK_EQ(gttd_recv(sv[1], 0, &in, &size, &got), -EPROTO);
        close_fdp(&got);
        CHECK_EQ(count_fds(NULL), n_fds);
    }
    for (size_t i = 1; i < 3; i++) { /* none is wanted */
        send_fds(i, 32);
        CHECK_EQ(gttd_recv(sv[1], 0, &in, &size, NULL), -EPROTO);
        CHECK_EQ(count_fds(NULL), n_fds);
    }
    send_fds(1, sizeof in + 1); /* too long */
    CHECK_EQ(gttd_recv(sv[1], 0, &in, &size, &got), -EPROTO);
    close_fdp(&got);
    send_fds(1, 0); /* nothing but an fd: the caller gets it, and a message too short */
    CHECK_EQ(gttd_recv(sv[1], 0, &in, &size, &got), 0);
    CHECK_EQ(size, 0);
    close(got);
    CHECK_EQ(gttd_decode(GTTD_FROM_CLIENT, &in, size, NULL), -EPROTO);
    CHECK_EQ(count_fds(NULL), n_fds);
}

#define EXPECT(sender, msg, r)                                       \
    do {                                                             \
        (msg).hdr.size = sizeof(msg);                                \
        union gttd_msg copy_ = {0};                                  \
        memcpy(&copy_, &(msg), sizeof(msg));                         \
        CHECK_EQ(gttd_decode(sender, &copy_, sizeof(msg), NULL), r); \
    } while (0)

/* The message is good; with each of these it is not. */
#define BREAK(sender, msg, change)    \
    do {                              \
        EXPECT(sender, msg, 0);       \
        __typeof__(msg) keep_ = msg;  \
        change;                       \
        EXPECT(sender, msg, -EPROTO); \
        msg = keep_;                  \
    } while (0)

#define C GTTD_FROM_CLIENT
#define D GTTD_FROM_DAEMON

static void test_frame(void)
{
    struct gttd_plain m = {gttd_header(sizeof m, GTTD_OP_STATUS, 9)};
    const char *why = NULL;
    BREAK(C, m, m.hdr.op = 0);
    BREAK(C, m, m.hdr.op = 14);
    BREAK(C, m, m.hdr.op = UINT16_MAX);
    BREAK(C, m, m.hdr.op = GTTD_OP_EVENT);
    BREAK(C, m, m.hdr.op = GTTD_OP_LIST); /* another size */
    BREAK(C, m, m.hdr.serial = 0);
    BREAK(C, m, m.hdr.status = -1);
    BREAK(C, m, m.hdr.status = 1);
    m.hdr.version = GTTD_PROTO_VERSION - 1;
    EXPECT(C, m, -EPROTONOSUPPORT);
    m.hdr.version = GTTD_PROTO_VERSION;
    CHECK_EQ(gttd_decode(C, &m, sizeof m - 1, &why), -EPROTO);
    CHECK(why && strstr(why, "length"));
    m.hdr.size = 15;
    CHECK_EQ(gttd_decode(C, &m, sizeof m, NULL), -EPROTO);
    CHECK_EQ(gttd_decode(C, &m, 0, NULL), -EPROTO);
}

/* Of a segment of 4 and 2 MiB. */
static const struct gttd_device_memory some_memory = {.device_name = "a GPU",
                                                      .alloc_bytes = 4 << 20,
                                                      .last_alloc_bytes = 3 << 20,
                                                      .handle = GTTD_HANDLE_OPAQUE_FD,
                                                      .memory_type = 31,
                                                      .flags = GTTD_MEMORY_DEDICATED};

static void test_adopt(void)
{
    struct gttd_adopt_req adopt = {.hdr = gttd_header(sizeof adopt, GTTD_OP_ADOPT, 2),
                                   .size_bytes = 6 << 20,
                                   .chunk_bytes = 4 << 20,
                                   .memory = some_memory,
                                   .name = "n"};
    BREAK(C, adopt, adopt.name[0] = 0);
    BREAK(C, adopt, adopt.name[5] = 'x');
    BREAK(C, adopt, adopt.size_bytes++);
    BREAK(C, adopt, adopt.chunk_bytes = 0);
    BREAK(C, adopt, adopt.chunk_bytes = 4ull << 30);
    BREAK(C, adopt, adopt.size_bytes = 1025ull * (4 << 20));
    BREAK(C, adopt, adopt.memory.handle = 0);
    BREAK(C, adopt, adopt.memory.handle = 2);
    BREAK(C, adopt, adopt.memory.memory_type = 32);
    BREAK(C, adopt, adopt.memory.flags = 2);
    BREAK(C, adopt, adopt.memory.pad = 1);
    BREAK(C, adopt, adopt.memory.alloc_bytes = (4 << 20) - 1);
    BREAK(C, adopt, adopt.memory.alloc_bytes = GTTD_ALLOC_MAX + 1);
    BREAK(C, adopt, adopt.memory.last_alloc_bytes = (2 << 20) - 1);
    BREAK(C, adopt, adopt.memory.device_name[0] = '\n');
    BREAK(C, adopt, memset(adopt.memory.device_name, 'x', GTTD_DEVICE_SIZE));
    adopt.size_bytes = 2 << 20; /* one chunk: one size */
    EXPECT(C, adopt, -EPROTO);
    adopt.memory.alloc_bytes = adopt.memory.last_alloc_bytes;
    EXPECT(C, adopt, 0);
    struct gttd_give_req give = {.hdr = gttd_header(sizeof give, GTTD_OP_GIVE, 2), .id = 1};
    BREAK(C, give, give.pad = 1);
    BREAK(C, give, give.index = GTTD_CHUNKS_MAX);
    CHECK(gttd_wants_fd(C, &give.hdr));
    CHECK(!gttd_wants_fd(D, &give.hdr));
    CHECK(!gttd_wants_fd(C, &adopt.hdr));
}

static void test_requests(void)
{
    struct gttd_hello_req hello = {gttd_header(sizeof hello, GTTD_OP_HELLO, 1), "me"};
    BREAK(C, hello, hello.hdr.serial = 2);
    BREAK(C, hello, memset(hello.label, 'x', sizeof hello.label));
    BREAK(C, hello, hello.label[5] = 'x'); /* behind the NUL */
    BREAK(C, hello, hello.label[0] = '\n');
    BREAK(C, hello, hello.label[0] = (char)0xc3);
    struct gttd_create_req create = {.hdr = gttd_header(sizeof create, GTTD_OP_CREATE, 2)};
    BREAK(C, create, create.flags = 1);
    BREAK(C, create, create.memory_class = 2);
    BREAK(C, create, create.name[0] = ' ');
    BREAK(C, create, create.name[GTTD_NAME_SIZE - 1] = 'x');
    struct gttd_open_req open_req = {.hdr = gttd_header(sizeof open_req, GTTD_OP_OPEN, 2),
                                     .name = "n"};
    BREAK(C, open_req, open_req.name[0] = 0);
    BREAK(C, open_req, open_req.flags = 16);
    BREAK(C, open_req, open_req.device.driver_uuid[15] = 1); /* without its flag */
    open_req.flags = GTTD_OPEN_DEVICE;
    open_req.device.driver_uuid[15] = 1;
    EXPECT(C, open_req, 0);
    BREAK(C, open_req, open_req.flags = 0);
    BREAK(C, open_req, open_req.pad = 1);
    struct gttd_seal_req seal = {.hdr = gttd_header(sizeof seal, GTTD_OP_SEAL, 2),
                                 .metadata_size = GTTD_METADATA_MAX - 1};
    BREAK(C, seal, seal.metadata_size += 2);
    BREAK(C, seal, seal.metadata[GTTD_METADATA_MAX - 1] = 1);
    BREAK(C, seal, seal.pad = 1);
    struct gttd_close_req close_req = {.hdr = gttd_header(sizeof close_req, GTTD_OP_CLOSE, 2),
                                       .id = 1};
    BREAK(C, close_req, close_req.wait_serial = 1);
    BREAK(C, close_req, close_req.id = 0);
    BREAK(C, close_req, close_req.pad = 1);
    struct gttd_drop_req drop = {.hdr = gttd_header(sizeof drop, GTTD_OP_DROP, 2), .id = 1};
    BREAK(C, drop, drop.name[0] = 'x');
    BREAK(C, drop, drop.id = 0);
    BREAK(C, drop, drop.flags = 2);
    struct gttd_chunk_req chunk = {.hdr = gttd_header(sizeof chunk, GTTD_OP_CHUNK, 2)};
    BREAK(C, chunk, chunk.pad = 1);
}

static void test_replies(void)
{
    struct gttd_error error = gttd_error_reply(GTTD_OP_OPEN, 2, -ENOENT, "no");
    BREAK(D, error, error.hdr.status = 1);
    BREAK(D, error, error.hdr.status = -5000);
    BREAK(D, error, error.hdr.status = 0);
    BREAK(D, error, error.reason[0] = 7);
    BREAK(D, error, memset(error.reason, 'x', sizeof error.reason));
    struct gttd_open_rsp open_rsp = {.hdr = gttd_header(sizeof open_rsp, GTTD_OP_OPEN, 2),
                                     .id = 1,
                                     .role = GTTD_ROLE_LEASE,
                                     .size_bytes = 6 << 20,
                                     .chunk_bytes = 4 << 20,
                                     .n_chunks = 2};
    BREAK(D, open_rsp, open_rsp.id = 0);
    BREAK(D, open_rsp, open_rsp.role = 3);
    BREAK(D, open_rsp, open_rsp.role = GTTD_ROLE_FILLER);
    BREAK(D, open_rsp, open_rsp.n_chunks = 3);
    BREAK(D, open_rsp, open_rsp.size_bytes++);
    BREAK(D, open_rsp, open_rsp.chunk_bytes = 0);
    BREAK(D, open_rsp, open_rsp.chunk_bytes = 4ull << 30);
    BREAK(D, open_rsp, open_rsp.metadata[0] = 1);
    BREAK(D, open_rsp, open_rsp.flags = 16);
    BREAK(D, open_rsp, open_rsp.flags = GTTD_SEGMENT_ADOPTED); /* and no device */
    BREAK(D, open_rsp, open_rsp.memory = some_memory);
    open_rsp.flags = GTTD_SEGMENT_ADOPTED;
    open_rsp.memory = some_memory;
    EXPECT(D, open_rsp, 0);
    BREAK(D, open_rsp, open_rsp.memory.alloc_bytes--);
    BREAK(D, open_rsp, open_rsp.pad = 1);
    struct gttd_list_rsp list = {.hdr = gttd_header(sizeof list, GTTD_OP_LIST, 2), .n_entries = 2};
    list.entries[0] = (struct gttd_list_entry){.id = 1, .state = GTTD_SEALED};
    list.entries[1] = (struct gttd_list_entry){.id = 2, .state = GTTD_CLAIMED};
    BREAK(D, list, list.entries[1].id = 1);
    BREAK(D, list, list.entries[1].state = 0);
    BREAK(D, list, list.entries[1].state = 6);
    BREAK(D, list, list.n_entries = 1);
    BREAK(D, list, list.n_entries = 17);
    BREAK(D, list, list.more = 2);
    BREAK(D, list, list.entries[0].pinned_bytes = 1);
    BREAK(D, list, list.entries[0].device.device_uuid[0] = 1); /* of none that is adopted */
    BREAK(D, list, list.entries[0].device_name[0] = 'x');
    list.entries[0].flags = GTTD_SEGMENT_ADOPTED;
    list.entries[0].device_name[0] = 'x';
    BREAK(D, list, list.entries[0].device_name[0] = '\t');
    struct gttd_status_rsp status = {.hdr = gttd_header(sizeof status, GTTD_OP_STATUS, 2),
                                     .heap = "amdgpu",
                                     .device = "a device",
                                     .pin = "pinned"};
    BREAK(D, status, status.flags = 16);
    BREAK(D, status, status.adopts = 2);
    BREAK(D, status, status.device[0] = '\n');
    BREAK(D, status, memset(status.device, 'x', sizeof status.device));
    BREAK(D, status, status.pin[GTTD_TEXT_SIZE - 1] = 'x');
    struct gttd_event event = {.hdr = gttd_header(sizeof event, GTTD_OP_EVENT, 0), .kind = 1};
    BREAK(D, event, event.hdr.serial = 1);
    BREAK(D, event, event.hdr.status = -1);
    BREAK(D, event, event.kind = 9);
    struct gttd_chunk_rsp chunk = {gttd_header(sizeof chunk, GTTD_OP_CHUNK, 3), 7, 2 << 20, 0, 0};
    BREAK(D, chunk, chunk.size_bytes = 4ull << 30);
    BREAK(D, chunk, chunk.index = GTTD_CHUNKS_MAX);
}

static void test_sizes(void)
{
    CHECK_EQ(gttd_chunk_count(2 << 20, 2 << 20), 1);
    CHECK_EQ(gttd_chunk_count(10 << 20, 4 << 20), 3);
    CHECK_EQ(gttd_chunk_size(10 << 20, 4 << 20, 0), 4 << 20);
    CHECK_EQ(gttd_chunk_size(10 << 20, 4 << 20, 2), 2 << 20);
    CHECK_EQ(gttd_chunk_count(0, 2 << 20), 0);
    CHECK_EQ(gttd_chunk_count(1024ull * (2 << 20), 2 << 20), 1024);
    CHECK_EQ(gttd_chunk_count(1025ull * (2 << 20), 2 << 20), 0);
    CHECK_EQ(gttd_chunk_count(UINT64_MAX - (2 << 20) + 1, 2 << 20), 0);
}

int main(void)
{
    CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
    int n_fds = count_fds(NULL);
    test_round_trip();
    test_refused();
    test_frame();
    test_requests();
    test_adopt();
    test_replies();
    test_sizes();
    CHECK_EQ(count_fds(NULL), n_fds);
    union gttd_msg in;
    size_t size;
    int got;
    close(sv[0]);
    CHECK_EQ(gttd_recv(sv[1], 0, &in, &size, &got), -ECONNRESET);
    struct gttd_plain m = {gttd_header(sizeof m, GTTD_OP_STATUS, 9)};
    CHECK_EQ(gttd_send(sv[1], &m.hdr, -1), -EPIPE);
    return 0;
}
