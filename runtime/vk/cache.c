/* SPDX-License-Identifier: MIT */
/*
 * Compiled pipelines on disk: one file per device, driver version and set of shaders, written
 * whole under another name and renamed. Drivers trust the data they are given, so it is handed to
 * one only if our own header and checksum fit.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "gttd_util.h"
#include "vkc.h"

#define CACHE_MAGIC     "GTTVKC2"
#define CACHE_MAX_BYTES (256u << 20)

struct cache_header {
    char magic[8];
    uint8_t uuid[VK_UUID_SIZE];
    uint8_t cache_uuid[VK_UUID_SIZE];
    uint32_t vendor, device, driver_version, reserved;
    uint64_t shaders_hash;
    uint64_t data_bytes;
    uint64_t data_hash;
};

/* FNV-1a over words of 64 bits, the last one filled up with zeros: against damage, not against an
 * enemy. A file is some MB, and every start waits for this. */
static uint64_t hash_bytes(uint64_t hash, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i += sizeof hash) {
        uint64_t word = 0;
        memcpy(&word, bytes + i, size - i < sizeof word ? size - i : sizeof word);
        hash = (hash ^ word) * 0x100000001b3ull;
    }
    return hash;
}
#define HASH_START 0xcbf29ce484222325ull

static struct cache_header expected_header(const struct vkc_device *device)
{
    const struct vkc_physical *physical = &device->physical;
    struct cache_header header = {
        .magic = CACHE_MAGIC,
        .vendor = physical->props.vendorID,
        .device = physical->props.deviceID,
        .driver_version = physical->props.driverVersion,
        .shaders_hash = HASH_START,
    };
    memcpy(header.uuid, physical->uuid, VK_UUID_SIZE);
    memcpy(header.cache_uuid, physical->props.pipelineCacheUUID, VK_UUID_SIZE);
    for (size_t i = 0; i < SHADER_COUNT; i++) {
        header.shaders_hash =
            hash_bytes(header.shaders_hash, shaders[i].words, shaders[i].size_bytes);
    }
    return header;
}

static int make_path(struct vkc_device *device, const char *cache_dir)
{
    struct cache_header header = expected_header(device);
    char uuid[2 * VK_UUID_SIZE + 1];
    for (size_t i = 0; i < VK_UUID_SIZE; i++) {
        snprintf(uuid + 2 * i, 3, "%02x", header.uuid[i]);
    }
    if (asprintf(&device->cache_path, "%s/vulkan-%s-%08x-%016" PRIx64 ".cache", cache_dir, uuid,
                 header.driver_version, header.shaders_hash) < 0) {
        device->cache_path = NULL;
        return -ENOMEM;
    }
    return 0;
}

static bool read_all(int fd, void *buf, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = read(fd, (char *)buf + done, size - done);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        done += (size_t)n;
    }
    return true;
}

static bool write_all(int fd, const void *buf, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = write(fd, (const char *)buf + done, size - done);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return false;
        }
        done += (size_t)n;
    }
    return true;
}

/* NULL if there is no file or it is not to be trusted; the latter is logged. */
static void *read_file(struct vkc_device *device, size_t *ret_size, uint64_t *ret_hash)
{
    AUTO_FD fd = open(device->cache_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        if (errno != ENOENT) {
            vkc_log(device->instance, "%s: %s", device->cache_path, strerror(errno));
        }
        return NULL;
    }
    struct cache_header want = expected_header(device), got;
    struct stat st;
    const char *why = "is damaged";
    AUTO_FREE void *data = NULL;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !read_all(fd, &got, sizeof got)) {
        goto bad;
    }
    want.data_bytes = got.data_bytes;
    want.data_hash = got.data_hash;
    if (memcmp(&want, &got, sizeof got) != 0) {
        why = "belongs to another device, driver or build";
        goto bad;
    }
    if (got.data_bytes > CACHE_MAX_BYTES || (uint64_t)st.st_size != sizeof got + got.data_bytes) {
        goto bad;
    }
    data = malloc(got.data_bytes + 1);
    if (!data || !read_all(fd, data, got.data_bytes) ||
        hash_bytes(HASH_START, data, got.data_bytes) != got.data_hash) {
        goto bad;
    }
    *ret_size = got.data_bytes;
    *ret_hash = got.data_hash;
    return take_ptr(&data);
bad:
    vkc_log(device->instance, "%s %s: ignored", device->cache_path, why);
    return NULL;
}

int vkc_cache_load(struct vkc_device *device, const char *cache_dir, struct err *err)
{
    AUTO_FREE void *data = NULL;
    size_t size = 0;
    if (cache_dir) {
        if (make_path(device, cache_dir) < 0) {
            return err_set(err, -ENOMEM, "no memory for the pipeline cache");
        }
        data = read_file(device, &size, &device->cache_hash);
    }
    VkPipelineCacheCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO,
        .initialDataSize = size,
        .pInitialData = size ? data : NULL,
    };
    return vkc_err(err, device->vk.CreatePipelineCache(device->handle, &info, NULL, &device->cache),
                   "vkCreatePipelineCache");
}

static int write_file(const char *path, const struct cache_header *header, const void *data,
                      size_t size)
{
    AUTO_FREE char *temp = NULL;
    if (asprintf(&temp, "%s.XXXXXX", path) < 0) {
        temp = NULL;
        return -ENOMEM;
    }
    AUTO_FD fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    int r = 0;
    if (!write_all(fd, header, sizeof *header) || !write_all(fd, data, size) ||
        rename(temp, path) < 0) {
        r = errno ? -errno : -EIO;
        unlink(temp);
    }
    return r;
}

void vkc_cache_save(struct vkc_device *device)
{
    if (!device->cache_path || !device->cache_grew) {
        return;
    }
    size_t size = 0;
    if (device->vk.GetPipelineCacheData(device->handle, device->cache, &size, NULL) != VK_SUCCESS ||
        size > CACHE_MAX_BYTES) {
        return;
    }
    AUTO_FREE void *data = malloc(size + 1);
    if (!data ||
        device->vk.GetPipelineCacheData(device->handle, device->cache, &size, data) != VK_SUCCESS) {
        return;
    }
    struct cache_header header = expected_header(device);
    header.data_bytes = size;
    header.data_hash = hash_bytes(HASH_START, data, size);
    device->cache_grew = false;
    if (header.data_hash == device->cache_hash) {
        return;
    }
    int r = write_file(device->cache_path, &header, data, size);
    if (r < 0) {
        vkc_log(device->instance, "%s: cannot write: %s", device->cache_path, strerror(-r));
        return;
    }
    device->cache_hash = header.data_hash;
}
