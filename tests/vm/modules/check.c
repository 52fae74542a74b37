/* SPDX-License-Identifier: MIT */
/*
 * Do the simulated drivers behave as gttd needs the real ones to? Run as root in the guest:
 * module_check RENDER-NODE DEBUGFS-DIRECTORY. Real libdrm_amdgpu, real vgem and udmabuf; what
 * differs between kernels 6.12 and 7.3 is expected as the kernel's sources have it.
 */
#define _GNU_SOURCE
#include <amdgpu.h>
#include <amdgpu_drm.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <linux/dma-buf.h>
#include <linux/udmabuf.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xf86drm.h>

#include "check.h"

#define MIB (UINT64_C(1) << 20)
#define BUF (32 * MIB)

static const char size_path[] = "/sys/module/amdgpu/parameters/gtt_mib";

static const char *node, *debugfs;
static char size_before[32];
static amdgpu_device_handle dev;
static int dev_fd;   /* libdrm's file */
static int other_fd; /* another client of the same device */
static bool new_kernel;

/* ---- files ---- */

static void read_text(const char *path, char *buf, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t len = 0;
    ssize_t n;

    if (fd < 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
    while ((n = read(fd, buf + len, size - 1 - len)) > 0) {
        len += (size_t)n;
    }
    CHECK(n == 0);
    buf[len] = '\0';
    close(fd);
}

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

    CHECK(fd >= 0);
    CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static const char *debugfs_path(const char *name)
{
    static char path[256];

    snprintf(path, sizeof path, "%s/%s", debugfs, name);
    return path;
}

/* A value of sim_counters, e.g. counter("bytes"). */
static uint64_t counter(const char *name)
{
    char text[2048], key[64];

    read_text(debugfs_path("sim_counters"), text, sizeof text);
    CHECK(!strstr(text, "below -"));
    for (const char *at = text; (at = strstr(at, "below ")); at++) {
        CHECK_EQ(strncmp(at, "below 0\n", 8), 0);
    }
    snprintf(key, sizeof key, "\n%s ", name);
    char *at = strncmp(text, key + 1, strlen(key) - 1) == 0 ? text : strstr(text, key) + 1;
    return strtoull(at + strlen(name) + 1, NULL, 10);
}

/* ---- buffers ---- */

static struct drm_amdgpu_heap_info gtt(void)
{
    struct drm_amdgpu_memory_info mem;

    CHECK_EQ(amdgpu_query_info(dev, AMDGPU_INFO_MEMORY, sizeof mem, &mem), 0);
    return mem.gtt;
}

static int create_flags(int fd, uint64_t size, uint64_t domains, uint64_t flags, uint32_t *ret)
{
    union drm_amdgpu_gem_create args = {
        .in = {.bo_size = size, .alignment = 4096, .domains = domains, .domain_flags = flags},
    };

    if (drmIoctl(fd, DRM_IOCTL_AMDGPU_GEM_CREATE, &args) < 0) {
        return -errno;
    }
    *ret = args.out.handle;
    return 0;
}

static uint32_t create(uint64_t size)
{
    uint32_t handle = 0;

    CHECK_EQ(create_flags(other_fd, size, AMDGPU_GEM_DOMAIN_GTT, AMDGPU_GEM_CREATE_EXPLICIT_SYNC,
                          &handle),
             0);
    return handle;
}

static int export(uint32_t handle)
{
    int fd = -1;

    CHECK_EQ(drmPrimeHandleToFD(other_fd, handle, DRM_CLOEXEC | DRM_RDWR, &fd), 0);
    return fd;
}

static void gem_close(int fd, uint32_t handle)
{
    CHECK_EQ(drmCloseBufferHandle(fd, handle), 0);
}

static void sync_cpu(int fd, uint64_t flags)
{
    struct dma_buf_sync args = {.flags = flags};

    CHECK_EQ(ioctl(fd, DMA_BUF_IOCTL_SYNC, &args), 0);
}

static uint8_t *map(int fd, uint64_t size)
{
    uint8_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    CHECK(p != MAP_FAILED);
    return p;
}

static void expect_all(const uint8_t *p, uint64_t size, uint8_t value)
{
    for (uint64_t i = 0; i < size; i += 512) {
        CHECK_EQ(p[i], value);
    }
}

/* ---- checks ---- */

static void check_identity(void)
{
    drmVersionPtr version = drmGetVersion(dev_fd);
    struct amdgpu_gpu_info info;

    CHECK(version);
    CHECK(strcmp(version->name, "amdgpu") == 0);
    CHECK(strstr(version->desc, "simulated"));
    CHECK_EQ(version->version_major, 3);
    drmFreeVersion(version);
    CHECK_EQ(amdgpu_query_gpu_info(dev, &info), 0);
    CHECK(info.ids_flags & AMDGPU_IDS_FLAGS_FUSION);
    CHECK(amdgpu_get_marketing_name(dev));
    printf("note: %s\n", amdgpu_get_marketing_name(dev));
}

static void check_sysfs(void)
{
    char path[256], text[64];
    const char *minor = strstr(node, "renderD");

    snprintf(path, sizeof path, "/sys/class/drm/%s/device/mem_info_gtt_total", minor);
    read_text(path, text, sizeof text);
    CHECK_EQ(strtoull(text, NULL, 10), gtt().total_heap_size);
    snprintf(path, sizeof path, "/sys/class/drm/%s/device/mem_info_gtt_used", minor);
    read_text(path, text, sizeof text);
    CHECK_EQ(strtoull(text, NULL, 10), gtt().heap_usage);
}

/* Through libdrm as gttd does it: zeroed, exported, named, the same pages everywhere. */
static void check_buffer(void)
{
    uint64_t used = gtt().heap_usage;
    struct amdgpu_bo_alloc_request request = {
        .alloc_size = BUF,
        .phys_alignment = 2 * MIB,
        .preferred_heap = AMDGPU_GEM_DOMAIN_GTT,
        .flags = AMDGPU_GEM_CREATE_EXPLICIT_SYNC,
    };
    struct amdgpu_bo_info info;
    amdgpu_bo_handle bo;
    uint32_t shared, handle, again;
    void *cpu;
    char text[4096], path[64];

    CHECK_EQ(amdgpu_bo_alloc(dev, &request, &bo), 0);
    CHECK_EQ(gtt().heap_usage, used + BUF);
    CHECK_EQ(amdgpu_bo_query_info(bo, &info), 0);
    CHECK_EQ(info.preferred_heap, AMDGPU_GEM_DOMAIN_GTT);
    CHECK(info.alloc_flags & AMDGPU_GEM_CREATE_EXPLICIT_SYNC);
    CHECK_EQ(amdgpu_bo_cpu_map(bo, &cpu), 0);
    expect_all(cpu, BUF, 0);
    memset(cpu, 0x5a, BUF);
    CHECK_EQ(amdgpu_bo_export(bo, amdgpu_bo_handle_type_dma_buf_fd, &shared), 0);
    int fd = (int)shared;
    CHECK_EQ(lseek(fd, 0, SEEK_END), BUF);
    CHECK_EQ(ioctl(fd, DMA_BUF_SET_NAME_B, "gttd:check"), 0);
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    read_text(path, text, sizeof text);
    CHECK(strstr(text, "gttd:check"));
    CHECK(strstr(text, "exp_name:\tdrm"));
    uint8_t *p = map(fd, BUF);
    sync_cpu(fd, DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW);
    expect_all(p, BUF, 0x5a);
    sync_cpu(fd, DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW);

    /* another client of the same device: one more reference, no attachment, no second buffer */
    uint64_t usable = gtt().usable_heap_size;
    CHECK_EQ(drmPrimeFDToHandle(other_fd, fd, &handle), 0);
    CHECK_EQ(drmPrimeFDToHandle(other_fd, fd, &again), 0);
    CHECK_EQ(handle, again);
    CHECK_EQ(gtt().heap_usage, used + BUF);
    CHECK_EQ(gtt().usable_heap_size, usable);
    CHECK_EQ(counter("attachments"), 0);
    CHECK_EQ(counter("objects"), 1);
    CHECK_EQ(counter("exports"), 1);

    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", other_fd);
    read_text(path, text, sizeof text);
    CHECK(strstr(text, "drm-memory-gtt:\t32768 KiB"));
    CHECK(strstr(text, "drm-shared-gtt:\t32768 KiB") || strstr(text, "drm-shared-gtt:\t32 MiB"));

    /* it lives as long as any of them */
    CHECK_EQ(amdgpu_bo_cpu_unmap(bo), 0);
    CHECK_EQ(amdgpu_bo_free(bo), 0);
    gem_close(other_fd, handle);
    CHECK_EQ(munmap(p, BUF), 0);
    CHECK_EQ(gtt().heap_usage, used + BUF);
    CHECK_EQ(close(fd), 0);
    CHECK_EQ(gtt().heap_usage, used);
}

static void check_refusals(void)
{
    const uint64_t domain = AMDGPU_GEM_DOMAIN_GTT;
    uint64_t total = gtt().total_heap_size;
    uint32_t handle;
    int fd;

    CHECK_EQ(create_flags(other_fd, MIB, domain, UINT64_C(1) << 40, &handle), -EINVAL);
    CHECK_EQ(create_flags(other_fd, MIB, domain, AMDGPU_GEM_CREATE_PREEMPTIBLE, &handle), -EINVAL);
    CHECK_EQ(create_flags(other_fd, MIB, domain, AMDGPU_GEM_CREATE_ENCRYPTED, &handle), -EINVAL);
    CHECK_EQ(create_flags(other_fd, MIB, 1u << 20, 0, &handle), -EINVAL);
    CHECK_EQ(create_flags(other_fd, total, domain, 0, &handle), -ENOMEM); /* strictly smaller */
    int r = create_flags(other_fd, MIB, domain, AMDGPU_GEM_CREATE_UNCACHED, &handle);
    CHECK_EQ(r, new_kernel ? 0 : -EINVAL);
    if (r == 0) {
        gem_close(other_fd, handle);
    }
    CHECK_EQ(create_flags(other_fd, MIB, domain, AMDGPU_GEM_CREATE_VM_ALWAYS_VALID, &handle), 0);
    CHECK_EQ(drmPrimeHandleToFD(other_fd, handle, DRM_CLOEXEC, &fd), -1);
    CHECK_EQ(errno, EPERM);
    gem_close(other_fd, handle);
    CHECK_EQ(create_flags(other_fd, MIB, domain, AMDGPU_GEM_CREATE_CPU_GTT_USWC, &handle), 0);
    gem_close(other_fd, handle);
}

/* ---- pinning: what a static importer does ---- */

/* An importer's node by driver name, -1 if there is none. */
static int importer_open(const char *pattern, const char *driver)
{
    glob_t found;
    int fd = -1;

    if (glob(pattern, 0, NULL, &found) != 0) {
        return -1;
    }
    for (size_t i = 0; i < found.gl_pathc && fd < 0; i++) {
        fd = open(found.gl_pathv[i], O_RDWR | O_CLOEXEC);
        drmVersionPtr version = fd < 0 ? NULL : drmGetVersion(fd);
        if (version && strcmp(version->name, driver) != 0) {
            close(fd);
            fd = -1;
        }
        drmFreeVersion(version);
    }
    globfree(&found);
    return fd;
}

static void check_pin(const char *pattern, const char *driver, bool pins)
{
    int importer = importer_open(pattern, driver);
    if (importer < 0) {
        fprintf(stderr, "no %s here\n", driver);
        exit(1);
    }
    struct drm_amdgpu_heap_info before = gtt();
    uint32_t handle = create(BUF), imported;
    int fd = export(handle);

    CHECK_EQ(drmPrimeFDToHandle(importer, fd, &imported), 0);
    CHECK_EQ(before.usable_heap_size - gtt().usable_heap_size, pins ? BUF : 0);
    CHECK_EQ(counter("pinned_bytes"), pins ? BUF : 0);
    close(fd);
    gem_close(other_fd, handle);
    if (pins) { /* not to be evicted */
        char text[64];

        read_text(debugfs_path("amdgpu_evict_gtt"), text, sizeof text);
        CHECK_EQ(gtt().heap_usage, before.heap_usage + BUF);
    }
    CHECK_EQ(gtt().total_heap_size, before.total_heap_size);
    gem_close(importer, imported);
    CHECK_EQ(gtt().usable_heap_size, before.usable_heap_size);
    CHECK_EQ(gtt().heap_usage, before.heap_usage);

    /* closing the importer's file unpins as well; two importers pin once */
    int second = importer_open(pattern, driver);
    handle = create(BUF);
    fd = export(handle);
    CHECK_EQ(drmPrimeFDToHandle(importer, fd, &imported), 0);
    CHECK_EQ(drmPrimeFDToHandle(second, fd, &imported), 0);
    CHECK_EQ(before.usable_heap_size - gtt().usable_heap_size, pins ? BUF : 0);
    close(importer);
    CHECK_EQ(before.usable_heap_size - gtt().usable_heap_size, pins ? BUF : 0);
    close(second);
    CHECK_EQ(gtt().usable_heap_size, before.usable_heap_size);
    close(fd);
    gem_close(other_fd, handle);
}

/* ---- the limit, and eviction ---- */

static void check_limit(const char *importers, const char *driver)
{
    struct drm_amdgpu_heap_info before = gtt();
    int n = (int)(before.total_heap_size / BUF), importer = importer_open(importers, driver);
    uint32_t handles[256], imported, one_more;

    CHECK(n >= 2 && n + 2 <= 256);
    CHECK(importer >= 0);
    /* not pinned: more than fits is had by evicting others, who stay in RAM */
    for (int i = 0; i < n + 2; i++) {
        handles[i] = create(BUF);
        CHECK(gtt().heap_usage <= before.total_heap_size);
    }
    CHECK_EQ(counter("bytes"), (uint64_t)(n + 2) * BUF);
    for (int i = 0; i < n + 2; i++) {
        gem_close(other_fd, handles[i]);
    }
    CHECK_EQ(gtt().heap_usage, before.heap_usage);
    /* pinned: no more */
    for (int i = 0; i < n; i++) {
        handles[i] = create(BUF);
        int fd = export(handles[i]);
        CHECK_EQ(drmPrimeFDToHandle(importer, fd, &imported), 0);
        close(fd);
    }
    CHECK_EQ(gtt().usable_heap_size, before.usable_heap_size - (uint64_t)n * BUF);
    CHECK_EQ(create_flags(other_fd, BUF, AMDGPU_GEM_DOMAIN_GTT, 0, &one_more), -ENOMEM);
    close(importer);
    CHECK_EQ(create_flags(other_fd, BUF, AMDGPU_GEM_DOMAIN_GTT, 0, &one_more), 0);
    gem_close(other_fd, one_more);
    for (int i = 0; i < n; i++) {
        gem_close(other_fd, handles[i]);
    }
    CHECK_EQ(gtt().heap_usage, before.heap_usage);
}

static bool traced(const char *what)
{
    char text[65536], want[128];

    read_text("/sys/kernel/tracing/trace", text, sizeof text);
    snprintf(want, sizeof want, "%s, size=%" PRIu64, what, BUF);
    return strstr(text, want) != NULL;
}

static void check_eviction(void)
{
    static const char event[] = "/sys/kernel/tracing/events/amdgpu/amdgpu_bo_move/enable";
    uint64_t used = gtt().heap_usage;
    char text[64];

    write_text("/sys/kernel/tracing/trace", "");
    write_text(event, "1");
    uint32_t handle = create(BUF);
    CHECK(traced("from=-1, to=1"));
    int fd = export(handle);
    uint8_t *p = map(fd, BUF);
    memset(p, 0x77, BUF);
    CHECK(!traced("from=1, to=0"));
    read_text(debugfs_path("amdgpu_evict_gtt"), text, sizeof text);
    CHECK(strcmp(text, "0\n") == 0);
    CHECK(traced("from=1, to=0"));
    CHECK_EQ(gtt().heap_usage, used);
    expect_all(p, BUF, 0x77); /* in RAM as before, and still mapped */
    CHECK_EQ(gtt().heap_usage, used);
    sync_cpu(fd, DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ); /* a use: comes back */
    CHECK_EQ(gtt().heap_usage, used + BUF);
    CHECK(traced("from=0, to=1"));
    expect_all(p, BUF, 0x77);
    sync_cpu(fd, DMA_BUF_SYNC_END | DMA_BUF_SYNC_READ);
    munmap(p, BUF);
    close(fd);
    gem_close(other_fd, handle);
    CHECK(traced("from=1, to=-1"));
    write_text(event, "0");
    CHECK_EQ(gtt().heap_usage, used);
}

/* ---- somebody else's memory, GPU addresses, the small ioctls ---- */

static int va_op(uint32_t handle, uint32_t op, uint64_t va, uint64_t size)
{
    struct drm_amdgpu_gem_va args = {
        .handle = handle,
        .operation = op,
        .flags = AMDGPU_VM_PAGE_READABLE,
        .va_address = va,
        .map_size = size,
    };

    return drmIoctl(other_fd, DRM_IOCTL_AMDGPU_GEM_VA, &args) < 0 ? -errno : 0;
}

static void check_foreign(void)
{
    uint64_t used = gtt().heap_usage;
    int memfd = memfd_create("check", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int udmabuf = open("/dev/udmabuf", O_RDWR | O_CLOEXEC);
    uint32_t handle;

    CHECK(memfd >= 0 && udmabuf >= 0);
    CHECK_EQ(ftruncate(memfd, (off_t)BUF), 0);
    CHECK_EQ(fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    struct udmabuf_create args = {.memfd = (uint32_t)memfd,
                                  .flags = UDMABUF_FLAGS_CLOEXEC,
                                  .size = BUF};
    int fd = ioctl(udmabuf, UDMABUF_CREATE, &args);
    CHECK(fd >= 0);
    CHECK_EQ(drmPrimeFDToHandle(other_fd, fd, &handle), 0);
    CHECK_EQ(counter("imports"), 1);
    CHECK_EQ(gtt().heap_usage, used); /* until it is used */
    CHECK_EQ(va_op(handle, AMDGPU_VA_OP_MAP, UINT64_C(1) << 32, BUF), 0);
    CHECK_EQ(gtt().heap_usage, used + BUF);
    gem_close(other_fd, handle);
    CHECK_EQ(counter("imports"), 0);
    CHECK_EQ(gtt().heap_usage, used);
    close(fd);
    close(udmabuf);
    close(memfd);
}

static void check_addresses(void)
{
    const uint64_t va = UINT64_C(1) << 33;
    uint32_t handle = create(BUF);

    CHECK_EQ(va_op(handle, AMDGPU_VA_OP_MAP, va, BUF), 0);
    CHECK_EQ(va_op(handle, AMDGPU_VA_OP_MAP, va + BUF - 4096, 4096), -EINVAL);
    CHECK_EQ(va_op(handle, AMDGPU_VA_OP_MAP, va + BUF, 2 * BUF), -EINVAL);
    CHECK_EQ(va_op(handle, AMDGPU_VA_OP_UNMAP, va + 4096, BUF), -ENOENT);
    CHECK_EQ(va_op(handle, AMDGPU_VA_OP_UNMAP, va, BUF), 0);
    CHECK_EQ(va_op(handle, AMDGPU_VA_OP_MAP, va, BUF), 0);
    CHECK_EQ(counter("va_mappings"), 1);
    gem_close(other_fd, handle);
    CHECK_EQ(counter("va_mappings"), 0);
}

static void check_small(void)
{
    struct amdgpu_bo_alloc_request request = {
        .alloc_size = MIB,
        .preferred_heap = AMDGPU_GEM_DOMAIN_GTT,
    };
    struct amdgpu_bo_metadata metadata = {.size_metadata = 8, .umd_metadata = {1, 2}};
    struct amdgpu_bo_info info;
    amdgpu_context_handle context;
    amdgpu_bo_handle bo;
    uint32_t state, hangs;
    bool busy = true;

    CHECK_EQ(amdgpu_bo_alloc(dev, &request, &bo), 0);
    CHECK_EQ(amdgpu_bo_set_metadata(bo, &metadata), 0);
    CHECK_EQ(amdgpu_bo_query_info(bo, &info), 0);
    CHECK_EQ(info.metadata.size_metadata, 8);
    CHECK_EQ(info.metadata.umd_metadata[1], 2);
    CHECK_EQ(amdgpu_bo_wait_for_idle(bo, 0, &busy), 0);
    CHECK(!busy);
    CHECK_EQ(amdgpu_bo_free(bo), 0);
    CHECK_EQ(amdgpu_cs_ctx_create(dev, &context), 0);
    CHECK_EQ(amdgpu_cs_query_reset_state(context, &state, &hangs), 0);
    CHECK_EQ(counter("contexts"), 1);
    CHECK_EQ(amdgpu_cs_ctx_free(context), 0);
}

static void check_faults(void)
{
    uint32_t handle;
    int fd;

    write_text(debugfs_path("sim_fail_create"), "2");
    gem_close(other_fd, create(MIB));
    CHECK_EQ(create_flags(other_fd, MIB, AMDGPU_GEM_DOMAIN_GTT, 0, &handle), -ENOMEM);
    handle = create(MIB);
    write_text(debugfs_path("sim_fail_export"), "1");
    CHECK_EQ(drmPrimeHandleToFD(other_fd, handle, DRM_CLOEXEC, &fd), -1);
    CHECK_EQ(errno, ENOMEM);
    close(export(handle));
    gem_close(other_fd, handle);
}

/* A fresh machine has 2 MiB pages, and TTM takes them. */
static void check_huge(void)
{
    uint32_t handle = create(BUF);

    printf("note: %d of %d MiB in 2 MiB pages\n", (int)(counter("huge_bytes") / MIB),
           (int)(BUF / MIB));
    CHECK(counter("huge_bytes") > 0);
    gem_close(other_fd, handle);
}

/* ---- many at once, some of them killed ---- */

#define N_CHILDREN 6
#define N_SLOTS    8

struct slot {
    uint32_t handle;
    int fd;
    uint32_t imported;
};

static void slot_empty(struct slot *slot, int own, int importer)
{
    if (slot->imported) {
        gem_close(importer, slot->imported);
    }
    if (slot->fd >= 0) {
        close(slot->fd);
    }
    if (slot->handle) {
        gem_close(own, slot->handle);
    }
    *slot = (struct slot){.fd = -1};
}

static void slot_write(const struct slot *slot, uint8_t value)
{
    uint8_t *p = map(slot->fd, MIB);

    sync_cpu(slot->fd, DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW);
    memset(p, value, 65536);
    CHECK_EQ(p[65535], value);
    munmap(p, MIB);
}

static void child_run(unsigned int seed, int n_ops)
{
    int own = open(node, O_RDWR | O_CLOEXEC);
    int importer = importer_open("/dev/accel/accel*", "amdxdna_accel_driver");
    struct slot slots[N_SLOTS];

    CHECK(own >= 0 && importer >= 0);
    for (int i = 0; i < N_SLOTS; i++) {
        slots[i] = (struct slot){.fd = -1};
    }
    for (int i = 0; i < n_ops; i++) {
        struct slot *slot = &slots[rand_r(&seed) % N_SLOTS];
        int op = rand_r(&seed) % 4;

        if (!slot->handle) {
            uint64_t size = (uint64_t)(1 + rand_r(&seed) % 4) * MIB;

            /* those of the others who are pinned may leave no room */
            if (create_flags(own, size, AMDGPU_GEM_DOMAIN_GTT, 0, &slot->handle) < 0) {
                slot->handle = 0;
                continue;
            }
            CHECK_EQ(drmPrimeHandleToFD(own, slot->handle, DRM_CLOEXEC | DRM_RDWR, &slot->fd), 0);
        } else if (op == 0 && !slot->imported) {
            CHECK_EQ(drmPrimeFDToHandle(importer, slot->fd, &slot->imported), 0);
        } else if (op == 1) {
            slot_empty(slot, own, importer);
        } else {
            slot_write(slot, (uint8_t)i);
        }
    }
    for (int i = 0; i < N_SLOTS; i++) {
        slot_empty(&slots[i], own, importer);
    }
    _exit(0);
}

static void check_storm(void)
{
    pid_t children[N_CHILDREN];
    char text[64];

    for (int i = 0; i < N_CHILDREN; i++) {
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i] == 0) {
            child_run((unsigned int)i, i < N_CHILDREN / 3 ? 1 << 30 : 300);
        }
    }
    for (int i = 0; i < 20; i++) {
        read_text(debugfs_path("amdgpu_evict_gtt"), text, sizeof text);
        CHECK(strcmp(text, "0\n") == 0);
        usleep(50000);
    }
    for (int i = 0; i < N_CHILDREN; i++) {
        int status;

        if (i < N_CHILDREN / 3) { /* these would go on for ever */
            CHECK_EQ(kill(children[i], SIGKILL), 0);
        }
        CHECK_EQ(waitpid(children[i], &status, 0), children[i]);
        CHECK(i < N_CHILDREN / 3 ? WIFSIGNALED(status) : status == 0);
    }
}

static void check_nothing_left(void)
{
    static const char *const names[] = {"objects",     "bytes",    "pinned_bytes", "huge_bytes",
                                        "imports",     "exports",  "attachments",  "mappings",
                                        "va_mappings", "contexts", "gtt_used"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (counter(names[i]) != 0) {
            fprintf(stderr, "%s: %" PRIu64 " left\n", names[i], counter(names[i]));
            exit(1);
        }
    }
}

/* A GTT that can be filled quickly, also in a guest with little memory. */
static void size_restore(void)
{
    write_text(size_path, size_before);
}

static void size_set(void)
{
    read_text(size_path, size_before, sizeof size_before);
    atexit(size_restore);
    write_text(size_path, "256");
    CHECK_EQ(gtt().total_heap_size, 256 * MIB);
}

int main(int argc, char **argv)
{
    struct utsname kernel;
    uint32_t major, minor;

    CHECK_EQ(argc, 3);
    node = argv[1];
    debugfs = argv[2];
    CHECK_EQ(uname(&kernel), 0);
    new_kernel = atoi(kernel.release) >= 7;
    dev_fd = open(node, O_RDWR | O_CLOEXEC);
    other_fd = open(node, O_RDWR | O_CLOEXEC);
    CHECK(dev_fd >= 0 && other_fd >= 0);
    CHECK_EQ(amdgpu_device_initialize(dev_fd, &major, &minor, &dev), 0);
    check_nothing_left();
    size_set();
    int n_fds = count_fds(NULL);

    check_identity();
    check_sysfs();
    check_buffer();
    check_refusals();
    check_eviction();
    check_huge();
    check_foreign();
    check_addresses();
    check_small();
    check_faults();
    check_pin("/dev/dri/card*", "vgem", !new_kernel);
    check_pin("/dev/accel/accel*", "amdxdna_accel_driver", true);
    check_storm();
    check_limit("/dev/accel/accel*", "amdxdna_accel_driver");

    check_nothing_left();
    CHECK_EQ(count_fds(NULL), n_fds);
    CHECK_EQ(amdgpu_device_deinitialize(dev), 0);
    close(dev_fd);
    close(other_fd);
    return 0;
}
