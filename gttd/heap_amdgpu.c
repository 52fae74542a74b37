/* SPDX-License-Identifier: MIT */
/*
 * The heap this daemon is for: system memory that an AMD GPU's driver hands out as GTT, which CPU,
 * GPU and NPU reach alike. Each chunk is a buffer object of the driver, exported as dma-buf, and
 * pinned by the anchor if there is one. The only file that includes amdgpu.h.
 *
 * The driver populates and zeroes all of a buffer when it makes it, so a chunk is one slice. Once
 * exported, the dma-buf alone holds the object: it needs neither the handle nor our render node.
 */
#include <amdgpu.h>
#include <amdgpu_drm.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <xf86drm.h>

#include "anchor.h"
#include "device.h"
#include "dmabuf.h"
#include "gttd_util.h"
#include "gttd_wire.h"
#include "heap.h"
#include "log.h"

#define DEVICES_MAX 64

struct amdgpu {
    amdgpu_device_handle device;
    struct anchor anchor;
};

static struct amdgpu *driver(struct heap *heap)
{
    return heap->driver;
}

/* ---- finding the device ---- */

/* True if amdgpu drives it, found out without opening it: others may be asleep. */
static bool is_amdgpu(const drmDevice *drm)
{
    struct stat node;
    char link[64], path[PATH_MAX];
    if (!(drm->available_nodes & 1 << DRM_NODE_RENDER) ||
        stat(drm->nodes[DRM_NODE_RENDER], &node) < 0) {
        return false;
    }
    snprintf(link, sizeof link, "/sys/dev/char/%u:%u/device/driver", major(node.st_rdev),
             minor(node.st_rdev));
    return realpath(link, path) && !strcmp(strrchr(path, '/'), "/amdgpu");
}

static int open_device(const char *path, amdgpu_device_handle *ret)
{
    uint32_t major_version, minor_version;
    AUTO_FD fd = open(path, O_RDWR | O_CLOEXEC); /* libdrm makes a copy */
    return fd < 0 ? -errno : amdgpu_device_initialize(fd, &major_version, &minor_version, ret);
}

static void describe(const drmDevice *drm, struct device *ret)
{
    amdgpu_device_handle device;
    struct amdgpu_gpu_info info;
    *ret = (struct device){.name = "AMD GPU"};
    snprintf(ret->path, sizeof ret->path, "%s", drm->nodes[DRM_NODE_RENDER]);
    if (drm->bustype == DRM_BUS_PCI) {
        snprintf(ret->bus, sizeof ret->bus, "%04x:%02x:%02x.%u", drm->businfo.pci->domain,
                 drm->businfo.pci->bus, drm->businfo.pci->dev, drm->businfo.pci->func);
    } else if (drm->bustype == DRM_BUS_PLATFORM) {
        snprintf(ret->bus, sizeof ret->bus, "%.*s", (int)sizeof ret->bus - 1,
                 drm->businfo.platform->fullname);
    }
    ret->error = open_device(ret->path, &device);
    if (ret->error) {
        return;
    }
    const char *name = amdgpu_get_marketing_name(device);
    snprintf(ret->name, sizeof ret->name, "%s", name ? name : "AMD GPU");
    ret->error = amdgpu_query_gpu_info(device, &info);
    ret->is_apu = !ret->error && (info.ids_flags & AMDGPU_IDS_FLAGS_FUSION);
    amdgpu_device_deinitialize(device);
}

/* Returns how many. */
static size_t find_devices(struct device ret[static DEVICES_MAX])
{
    drmDevicePtr list[DEVICES_MAX];
    size_t n = 0;
    int n_drm = drmGetDevices2(0, list, DEVICES_MAX);
    for (int i = 0; i < n_drm; i++) {
        if (is_amdgpu(list[i])) {
            describe(list[i], &ret[n++]);
        }
    }
    if (n_drm > 0) {
        drmFreeDevices(list, n_drm);
    }
    return n;
}

static int choose_device(const char *wanted, struct device *ret, struct reason *why)
{
    struct device devices[DEVICES_MAX];
    char path[PATH_MAX]; /* wanted may be one of the links in /dev/dri/by-path */
    size_t n = find_devices(devices);
    int chosen = device_choose(devices, n, wanted && realpath(wanted, path) ? path : wanted, why);
    if (chosen < 0) {
        return chosen;
    }
    *ret = devices[chosen];
    log_line(LOG_INFO, "GTT of %s (%s%s%s): %s", ret->name, ret->path, ret->bus[0] ? ", " : "",
             ret->bus, why->text);
    return 0;
}

/* ---- limits ---- */

/* What all GPUs' drivers together keep in RAM without swapping; UINT64_MAX if it is not known. */
static uint64_t ttm_limit_bytes(void)
{
    static const char *const files[] = {"/sys/module/ttm/parameters/pages_limit",
                                        "/sys/module/amdttm/parameters/pages_limit"};
    uint64_t pages = 0;
    for (size_t i = 0; i < ARRAY_SIZE(files) && !pages; i++) {
        FILE *f = fopen(files[i], "re");
        if (f && fscanf(f, "%" SCNu64, &pages) != 1) {
            pages = 0;
        }
        if (f) {
            fclose(f);
        }
    }
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    return pages && pages < UINT64_MAX / page ? pages * page : UINT64_MAX;
}

/* Not amdgpu_query_heap_info(), whose max_allocation for GTT is that of VRAM. */
static int gtt_info(struct amdgpu *amdgpu, struct drm_amdgpu_heap_info *ret)
{
    struct drm_amdgpu_memory_info info = {0};
    int r = amdgpu_query_info(amdgpu->device, AMDGPU_INFO_MEMORY, sizeof info, &info);
    if (r < 0) {
        return r;
    }
    *ret = info.gtt;
    return 0;
}

static int room(struct heap *heap, struct heap_room *ret)
{
    struct drm_amdgpu_heap_info gtt = {0};
    int r = gtt_info(driver(heap), &gtt);
    if (r < 0) {
        return r;
    }
    /* Linux 6.1 lets GTT be larger than what it then keeps in RAM */
    uint64_t limit = ttm_limit_bytes();
    uint64_t total = gtt.total_heap_size < limit ? gtt.total_heap_size : limit;
    uint64_t pinned = gtt.total_heap_size - gtt.usable_heap_size;
    *ret = (struct heap_room){.total_bytes = total,
                              .usable_bytes = total > pinned ? total - pinned : 0,
                              .used_bytes = gtt.heap_usage};
    return 0;
}

static int count_pinned(void *data, uint64_t *ret_bytes)
{
    struct drm_amdgpu_heap_info gtt = {0};
    int r = gtt_info(data, &gtt);
    if (r == 0) {
        *ret_bytes = gtt.total_heap_size - gtt.usable_heap_size;
    }
    return r;
}

/* The driver wants a buffer to be smaller than GTT. 0: GTT is too small for any. */
static uint64_t chunk_max(uint64_t total_bytes)
{
    if (total_bytes <= GTTD_ALIGN_BYTES) {
        return 0;
    }
    uint64_t most = (total_bytes - 1) / GTTD_ALIGN_BYTES * GTTD_ALIGN_BYTES;
    return most < GTTD_CHUNK_MAX ? most : GTTD_CHUNK_MAX;
}

/* ---- open, close ---- */

static void close_heap(struct heap *heap)
{
    struct amdgpu *amdgpu = driver(heap);
    if (amdgpu) {
        anchor_close(&amdgpu->anchor);
        amdgpu_device_deinitialize(amdgpu->device);
        free(amdgpu);
        heap->driver = NULL;
        heap->anchor = NULL;
    }
}

static int set_up(struct heap *heap, const struct device *device, struct reason *why)
{
    struct heap_room now;
    struct reason text;
    char size[SIZE_TEXT_MAX], pin[GTTD_TEXT_SIZE];
    int r = room(heap, &now);
    if (r < 0) {
        return reason_set(why, r, "%s: AMDGPU_INFO_MEMORY: %s", device->path, strerror(-r));
    }
    heap->chunk_max_bytes = heap->slice_bytes = chunk_max(now.total_bytes);
    heap->has_wc = true;
    if (!heap->chunk_max_bytes) {
        return reason_set(why, -ENODEV, "%s has a GTT of %s", device->path,
                          size_text(now.total_bytes, size));
    }
    reason_set(&text, 0, "%s (%s)", device->name, device->path); /* and nothing but ASCII */
    gttd_set_text(heap->device, sizeof heap->device, text.text);
    anchor_text(heap->anchor, pin);
    log_line(LOG_INFO, "GTT: %s in all; memory is %s", size_text(now.total_bytes, size), pin);
    return 0;
}

static int open_heap(struct heap *heap, const struct heap_choice *choice, struct reason *why)
{
    struct device device;
    int r = choose_device(choice->device, &device, why);
    if (r < 0) {
        return r;
    }
    struct amdgpu *amdgpu = calloc(1, sizeof *amdgpu);
    if (!amdgpu) {
        return reason_set(why, -ENOMEM, "gttd itself is out of memory");
    }
    r = open_device(device.path, &amdgpu->device);
    if (r < 0) {
        free(amdgpu);
        return reason_set(why, r, "%s: %s", device.path, strerror(-r));
    }
    r = anchor_open(&amdgpu->anchor, choice->anchor, why);
    if (r < 0) {
        amdgpu_device_deinitialize(amdgpu->device);
        free(amdgpu);
        return r;
    }
    heap->driver = amdgpu;
    heap->anchor = &amdgpu->anchor;
    r = set_up(heap, &device, why);
    if (r < 0) {
        close_heap(heap);
    }
    return r;
}

/* ---- chunks ---- */

static int begin(struct heap *heap, struct heap_chunk *chunk, struct reason *why)
{
    (void)heap;
    (void)chunk;
    (void)why;
    return 0;
}

/* In the GTT domain alone, so that the kernel populates it here and now. EXPLICIT_SYNC: without it
 * every submission that lists a shared buffer waits for every other, and all weights are shared. */
static int populate(struct heap *heap, struct heap_chunk *chunk, uint64_t offset,
                    uint64_t size_bytes, struct reason *why)
{
    bool wc = chunk->memory_class == GTTD_MEMORY_WC;
    struct amdgpu_bo_alloc_request request = {.alloc_size = size_bytes,
                                              .preferred_heap = AMDGPU_GEM_DOMAIN_GTT,
                                              .flags = AMDGPU_GEM_CREATE_EXPLICIT_SYNC |
                                                       (wc ? AMDGPU_GEM_CREATE_CPU_GTT_USWC : 0)};
    amdgpu_bo_handle bo;
    (void)offset;
    int r = amdgpu_bo_alloc(driver(heap)->device, &request, &bo);
    if (r < 0) {
        char size[SIZE_TEXT_MAX];
        return reason_set(why, r == -ENOSPC ? -ENOMEM : r, "GTT, GEM_CREATE of %s: %s",
                          size_text(size_bytes, size), strerror(-r));
    }
    chunk->object = bo;
    return 0;
}

static void hold(struct heap *heap, struct heap_chunk *chunk, bool was_pinned)
{
    struct amdgpu *amdgpu = driver(heap);
    bool pinned = anchor_pin(&amdgpu->anchor, chunk->fd, chunk->size_bytes, was_pinned,
                             count_pinned, amdgpu, &chunk->anchor_handle);
    chunk->hold = pinned ? HEAP_PINNED : HEAP_RESIDENT;
}

static int export_fd(struct heap *heap, struct heap_chunk *chunk, struct reason *why)
{
    uint32_t fd;
    /* on failure this one returns the ioctl's -1, not an errno */
    int r = amdgpu_bo_export(chunk->object, amdgpu_bo_handle_type_dma_buf_fd, &fd) ? -errno : 0;
    if (r < 0) {
        return reason_set(why, r, "exporting GTT memory as a dma-buf: %s", strerror(-r));
    }
    chunk->fd = (int)fd;
    amdgpu_bo_free(chunk->object);
    chunk->object = NULL;
    dmabuf_set_name(chunk->fd, chunk->label);
    hold(heap, chunk, false);
    return 0;
}

static bool seal(struct heap *heap, struct heap_chunk *chunk)
{
    (void)heap;
    (void)chunk;
    return false;
}

static int adopt(struct heap *heap, struct heap_chunk *chunk, int fd_consume, struct reason *why)
{
    bool was_pinned = chunk->hold == HEAP_PINNED;
    chunk->hold = HEAP_SWAPPABLE;
    int r = dmabuf_check(fd_consume, chunk->size_bytes, why);
    if (r < 0) {
        close_fdp(&fd_consume);
        return r;
    }
    chunk->fd = fd_consume;
    hold(heap, chunk, was_pinned);
    return 0;
}

static void pin_text(struct heap *heap, char ret[static GTTD_TEXT_SIZE])
{
    anchor_text(&driver(heap)->anchor, ret);
}

static void free_chunk(struct heap *heap, struct heap_chunk *chunk)
{
    if (chunk->hold == HEAP_PINNED) {
        anchor_release(&driver(heap)->anchor, chunk->anchor_handle);
    }
    chunk->hold = HEAP_SWAPPABLE;
    if (chunk->object) {
        amdgpu_bo_free(chunk->object);
        chunk->object = NULL;
    }
    close_fdp(&chunk->fd);
}

const struct heap_ops heap_amdgpu = {
    .name = "amdgpu",
    .is_dmabuf = true,
    .open = open_heap,
    .close = close_heap,
    .chunk_begin = begin,
    .chunk_populate = populate,
    .chunk_export = export_fd,
    .chunk_seal = seal,
    .chunk_adopt = adopt,
    .chunk_free = free_chunk,
    .room = room,
    .pin_text = pin_text,
};
