/* SPDX-License-Identifier: MIT */
/* Device memory for tests: see adopting.h. */
#include "adopting.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "gttd_util.h"

const struct gtt_device gpu = {.device_uuid = "device 0",
                               .driver_uuid = "driver 1.2",
                               .name = "Test GPU"};
static const uint8_t digest[GTT_DIGEST_SIZE] = {1, 2, 3};

int device_fd(uint64_t size_bytes)
{
    int fd = memfd_create("device", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0);
    CHECK_EQ(ftruncate(fd, (off_t)size_bytes), 0);
    CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK), 0);
    return fd;
}

void copy_init(struct copy *copy, const char *name)
{
    *copy = (struct copy){.params = {.name = name,
                                     .size_bytes = N_CHUNKS * 2 * MIB,
                                     .chunk_bytes = 2 * MIB,
                                     .memory = {.device = gpu,
                                                .handle = GTT_HANDLE_OPAQUE_FD,
                                                .memory_type = 7,
                                                .dedicated = true,
                                                .alloc_bytes = 2 * MIB + 4096,
                                                .last_alloc_bytes = 2 * MIB},
                                     .digest = digest,
                                     .metadata = "about",
                                     .metadata_size = 5}};
    for (int i = 0; i < N_CHUNKS; i++) {
        copy->fds[i] = device_fd(2 * MIB);
    }
    copy->params.fds = copy->fds;
}

void copy_finish(struct copy *copy)
{
    for (int i = 0; i < N_CHUNKS; i++) {
        close_fdp(&copy->fds[i]);
    }
}

void adopt(struct gtt *gtt, const char *name)
{
    struct gtt_segment *segment;
    struct copy copy;
    copy_init(&copy, name);
    CHECK_EQ(gtt_adopt(gtt, &copy.params, &segment), 0);
    gtt_segment_close(segment);
    copy_finish(&copy);
}

struct gtt_status status_of(struct gtt *gtt)
{
    struct gtt_status status;
    CHECK_EQ(gtt_status(gtt, &status), 0);
    return status;
}

bool find(struct gtt *gtt, const char *name, struct gtt_entry *ret)
{
    uint64_t cursor = 0;
    while (gtt_list(gtt, &cursor, ret) == 1) {
        if (!strcmp(ret->name, name)) {
            return true;
        }
    }
    return false;
}

int open_as(struct gtt *gtt, const char *name, const char *device, const char *driver)
{
    struct gtt_device other = gpu;
    struct gtt_segment *segment;
    memset(other.device_uuid, 0, sizeof other.device_uuid);
    memset(other.driver_uuid, 0, sizeof other.driver_uuid);
    memcpy(other.device_uuid, device, strlen(device));
    memcpy(other.driver_uuid, driver, strlen(driver));
    int r = gtt_open_adopted(gtt, name, &other, 0, 0, &segment);
    if (r == 0) {
        gtt_segment_close(segment);
    }
    return r;
}

/* It is there, with everything that was said of it, and its chunks are these files in this order.
 */
void expect_copy(struct gtt *gtt, const char *name, const struct copy *copy)
{
    struct gtt_segment *segment;
    struct gtt_segment_info info;
    struct stat want, got;
    void *base;
    int fd;
    CHECK_EQ(gtt_open_adopted(gtt, name, &gpu, 0, 0, &segment), 0);
    gtt_segment_get_info(segment, &info);
    CHECK(info.adopted && info.sealed && info.held && !info.immutable);
    CHECK_EQ(info.size_bytes, N_CHUNKS * 2 * MIB);
    CHECK_EQ(info.chunk_bytes, 2 * MIB);
    CHECK(!memcmp(info.digest, digest, sizeof digest));
    CHECK(info.metadata_size == 5 && !memcmp(info.metadata, "about", 5));
    CHECK(!memcmp(&info.memory.device, &gpu, sizeof gpu));
    CHECK(info.memory.handle == GTT_HANDLE_OPAQUE_FD && info.memory.memory_type == 7);
    CHECK(info.memory.dedicated && info.memory.alloc_bytes == 2 * MIB + 4096);
    CHECK_EQ(info.memory.last_alloc_bytes, 2 * MIB);
    for (uint32_t i = 0; i < N_CHUNKS; i++) {
        CHECK_EQ(gtt_segment_chunk_fd(segment, i, &fd), 0);
        CHECK(fstat(fd, &got) == 0 && fstat(copy->fds[i], &want) == 0);
        CHECK(got.st_ino == want.st_ino && got.st_dev == want.st_dev);
    }
    CHECK_EQ(gtt_segment_map(segment, false, &base), -ENODEV);
    CHECK_EQ(gtt_segment_verify(segment), -ENODEV);
    gtt_segment_close(segment);
}

uint64_t raw_adopt(int sock, const char *name, int want)
{
    struct gttd_adopt_req req = {.size_bytes = N_CHUNKS * 2 * MIB,
                                 .chunk_bytes = 2 * MIB,
                                 .memory = {.alloc_bytes = 2 * MIB,
                                            .last_alloc_bytes = 2 * MIB,
                                            .handle = GTTD_HANDLE_OPAQUE_FD}};
    union gttd_msg msg;
    gttd_set_text(req.name, sizeof req.name, name);
    raw_send(sock, &req, sizeof req, GTTD_OP_ADOPT, 2);
    CHECK_EQ(raw_recv(sock, &msg, NULL), want);
    CHECK(want < 0 || msg.create_rsp.n_chunks == N_CHUNKS);
    return want < 0 ? 0 : msg.create_rsp.id;
}

int raw_give(int sock, uint64_t id, uint32_t index, int fd)
{
    struct gttd_give_req req = {gttd_header(sizeof req, GTTD_OP_GIVE, 3), id, index, 0};
    union gttd_msg msg;
    CHECK_EQ(gttd_send(sock, &req.hdr, fd), 0);
    return raw_recv(sock, &msg, NULL);
}
