/* SPDX-License-Identifier: MIT */
/*
 * A copy of the weights in the device's own memory: taken over where somebody keeps one (keeper.h),
 * else made through staging buffers, and offered to be kept. How other devices reach weights is
 * weights.c's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

#include "gttd_util.h"
#include "parallel.h"
#include "vk.h"

#define STAGING_BYTES (64ull << 20)
#define PART_BYTES    (2ull << 20) /* of a staging buffer, that one thread fills at a time */
#define THREADS_MAX   8            /* a link takes more than one thread copies */

/* What a copy that was kept is compared by before it is believed. */
#define SAMPLE_BYTES          (64ull << 10)
#define SAMPLES_MAX           256 /* in all, but for */
#define SAMPLES_PER_CHUNK_MIN 2
#define SAMPLES_PER_CHUNK_MAX 16

static double now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec * 1e-6;
}

/* ---- making one ---- */

/* A staging buffer being filled. */
struct filling {
    uint8_t *dst;
    const uint8_t *src;
    uint64_t size_bytes;
};

static void fill_part(void *data, size_t i)
{
    const struct filling *f = data;
    uint64_t off = i * PART_BYTES;
    uint64_t size = f->size_bytes - off < PART_BYTES ? f->size_bytes - off : PART_BYTES;
    /* A mapping of the pool has pages of 4 KiB, and faulting them in by the dozen takes longer than
     * copying them. It is a hint: older kernels do without. */
    madvise((void *)(f->src + off), size, MADV_POPULATE_READ);
    memcpy(f->dst + off, f->src + off, size);
}

static void fill(struct filling *f)
{
    uint32_t cores = parallel_cores();
    parallel_for(cores < THREADS_MAX ? cores : THREADS_MAX,
                 (f->size_bytes + PART_BYTES - 1) / PART_BYTES, fill_part, f);
}

/* Two staging buffers: the CPU fills one while the device empties the other. */
struct staging {
    struct vkc_buffer buffer[2];
    VkCommandBuffer cmd[2];
    uint64_t done[2]; /* timeline value of the slot's last copy; 0: none */
};

static int stage(struct backend *backend, struct staging *staging, uint32_t slot,
                 const uint8_t *src, uint64_t size_bytes, const struct vkc_buffer *dst,
                 uint64_t dst_off, struct err *err)
{
    struct vkc_device *device = backend->device;
    int r = vkc_wait(device, staging->done[slot], err);
    if (r < 0) {
        return r;
    }
    vkc_cmd_free(device, staging->cmd[slot]);
    staging->cmd[slot] = NULL;
    fill(&(struct filling){staging->buffer[slot].map, src, size_bytes});
    r = vkc_cmd_begin(device, err, &staging->cmd[slot]);
    if (r < 0) {
        return r;
    }
    vkc_copy(device, staging->cmd[slot], &staging->buffer[slot], 0, dst, dst_off, size_bytes);
    vkc_barrier(device, staging->cmd[slot], VKC_COPY_TO_SHADER);
    r = vkc_cmd_end(device, staging->cmd[slot], err);
    if (r < 0) {
        return r;
    }
    return vkc_submit(device, &staging->cmd[slot], 1, err, &staging->done[slot]);
}

static int copy_through(struct backend *backend, const struct weight_memory *memory,
                        bool exportable, struct staging *staging, struct err *err,
                        struct vk_weights *weights)
{
    uint32_t slot = 0;
    for (uint32_t i = 0; i < memory->n_chunks; i++) {
        struct vkc_buffer *chunk = &weights->chunks[i];
        uint64_t size = vk_chunk_bytes(memory, i);
        int r = exportable
                    ? vkc_buffer_init_exportable(backend->device, size, "weights", err, chunk)
                    : vkc_buffer_init(backend->device, VKC_DEVICE, size, "weights", err, chunk);
        if (r < 0) {
            return r;
        }
        for (uint64_t off = 0; off < size; off += STAGING_BYTES, slot ^= 1) {
            uint64_t part = size - off < STAGING_BYTES ? size - off : STAGING_BYTES;
            r = stage(backend, staging, slot, memory->base + i * memory->chunk_bytes + off, part,
                      chunk, off, err);
            if (r < 0) {
                return r;
            }
        }
    }
    return vkc_wait(backend->device, backend->device->submitted, err);
}

static int copy_chunks(struct backend *backend, const struct weight_memory *memory, bool exportable,
                       struct err *err, struct vk_weights *weights)
{
    struct vkc_device *device = backend->device;
    struct staging staging = {0};
    uint64_t size = memory->size_bytes < STAGING_BYTES ? memory->size_bytes : STAGING_BYTES;
    int r = 0;
    double start_ms = now_ms();
    for (int s = 0; s < 2 && r == 0; s++) {
        r = vkc_buffer_init(device, VKC_UPLOAD, size, "staging", err, &staging.buffer[s]);
    }
    if (r == 0) {
        r = copy_through(backend, memory, exportable, &staging, err, weights);
    }
    if (r < 0) {
        vkc_wait(device, device->submitted, NULL);
        vk_weights_drop(backend, weights);
    }
    for (int s = 0; s < 2; s++) {
        vkc_cmd_free(device, staging.cmd[s]);
        vkc_buffer_finish(device, &staging.buffer[s]);
    }
    weights->start.copy_ms = now_ms() - start_ms;
    return r;
}

/* ---- taking one over ---- */

static int import_chunks(struct backend *backend, const struct weight_memory *memory,
                         const struct device_memory *kept, const int *fds, struct err *err,
                         struct vk_weights *weights)
{
    for (uint32_t i = 0; i < memory->n_chunks; i++) {
        bool is_last = i == memory->n_chunks - 1;
        int r = vkc_buffer_import_opaque(backend->device, fds[i], vk_chunk_bytes(memory, i),
                                         is_last ? kept->last_alloc_bytes : kept->alloc_bytes,
                                         kept->memory_type, kept->dedicated, "weights (kept)", err,
                                         &weights->chunks[i]);
        if (r < 0) {
            vk_weights_drop(backend, weights);
            return err_prefix(err, r, "importing chunk %u", i);
        }
    }
    return 0;
}

/* Where sample s of n_samples is in a chunk: the first at its start, the last at its end, others
 * anywhere in their part of it, other places at every start. */
static uint64_t sample_offset(uint64_t size, uint32_t s, uint32_t n_samples)
{
    uint32_t random = 0;
    uint64_t stride = size / n_samples;
    if (s == 0 || stride <= SAMPLE_BYTES || getrandom(&random, sizeof random, GRND_NONBLOCK) < 0) {
        random = 0;
    }
    uint64_t off = s == n_samples - 1 ? size - SAMPLE_BYTES
                   : stride <= SAMPLE_BYTES
                       ? s * stride
                       : s * stride + random % ((stride - SAMPLE_BYTES) / 256 + 1) * 256;
    return off;
}

/* Samples of one chunk, from offset *at of the readback buffer on; where they are from goes to
 * ret_offs. */
static void record_samples(struct backend *backend, VkCommandBuffer cmd,
                           const struct vkc_buffer *chunk, uint32_t n_samples,
                           const struct vkc_buffer *readback, uint64_t *at, uint64_t *ret_offs)
{
    for (uint32_t s = 0; s < n_samples; s++, *at += SAMPLE_BYTES) {
        ret_offs[s] = sample_offset(chunk->size_bytes, s, n_samples);
        vkc_copy(backend->device, cmd, chunk, ret_offs[s], readback, *at, SAMPLE_BYTES);
    }
}

static int run_samples(struct backend *backend, const struct vk_weights *weights,
                       uint32_t n_samples, const struct vkc_buffer *readback, uint64_t *ret_offs,
                       struct err *err)
{
    struct vkc_device *device = backend->device;
    VkCommandBuffer cmd;
    uint64_t done, at = 0;
    int r = vkc_cmd_begin(device, err, &cmd);
    if (r < 0) {
        return r;
    }
    for (uint32_t i = 0; i < weights->n_chunks; i++) {
        record_samples(backend, cmd, &weights->chunks[i], n_samples, readback, &at,
                       &ret_offs[(size_t)i * n_samples]);
    }
    vkc_barrier(device, cmd, VKC_COPY_TO_HOST);
    r = vkc_cmd_end(device, cmd, err);
    if (r == 0) {
        r = vkc_submit(device, &cmd, 1, err, &done);
    }
    if (r == 0) {
        r = vkc_wait(device, done, err);
    }
    vkc_cmd_free(device, cmd);
    return r;
}

/* Samples of what was imported against the weights themselves. -EBADMSG: it is something else. */
static int compare(struct backend *backend, const struct weight_memory *memory,
                   const struct vk_weights *weights, struct err *err)
{
    uint32_t n_samples = SAMPLES_MAX / memory->n_chunks;
    n_samples = n_samples < SAMPLES_PER_CHUNK_MIN   ? SAMPLES_PER_CHUNK_MIN
                : n_samples > SAMPLES_PER_CHUNK_MAX ? SAMPLES_PER_CHUNK_MAX
                                                    : n_samples;
    size_t n = (size_t)n_samples * memory->n_chunks;
    AUTO_FREE uint64_t *offs = malloc(n * sizeof *offs); /* [n_chunks, n_samples], in the chunk */
    struct vkc_buffer readback = {0};
    if (!offs) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    int r =
        vkc_buffer_init(backend->device, VKC_READBACK, n * SAMPLE_BYTES, "samples", err, &readback);
    if (r == 0) {
        r = run_samples(backend, weights, n_samples, &readback, offs, err);
    }
    for (size_t s = 0; s < n && r == 0; s++) {
        uint64_t off = s / n_samples * memory->chunk_bytes + offs[s];
        if (memcmp((const uint8_t *)readback.map + s * SAMPLE_BYTES, memory->base + off,
                   SAMPLE_BYTES) != 0) {
            r = err_set(err, -EBADMSG, "it differs from the weights at byte %llu",
                        (unsigned long long)off);
        }
    }
    vkc_buffer_finish(backend->device, &readback);
    return r;
}

static int take_over(struct backend *backend, const struct weight_memory *memory,
                     const struct device_memory *kept, const int *fds, struct err *err,
                     struct vk_weights *weights)
{
    double start_ms = now_ms();
    int r = import_chunks(backend, memory, kept, fds, err, weights);
    double imported_ms = now_ms();
    weights->start.import_ms = imported_ms - start_ms;
    if (r < 0) {
        return r;
    }
    r = compare(backend, memory, weights, err);
    weights->start.compare_ms = now_ms() - imported_ms;
    if (r < 0) {
        vk_weights_drop(backend, weights);
    }
    return r;
}

/* ---- having it kept ---- */

static struct device_memory describe_device(const struct backend *backend)
{
    const struct vkc_physical *physical = &backend->device->physical;
    struct device_memory device = {0};
    memcpy(device.device_uuid, physical->uuid, sizeof device.device_uuid);
    memcpy(device.driver_uuid, physical->driver_uuid, sizeof device.driver_uuid);
    memcpy(device.device, physical->props.deviceName, sizeof device.device - 1);
    return device;
}

/* vkc_device::reclaim */
static bool reclaim(void *data)
{
    const struct backend *backend = data;
    const struct device_memory device = describe_device(backend);
    return backend->keeper->reclaim(backend->keeper->data, &device);
}

static void set_keeper(struct backend *backend, const struct weight_keeper *keeper)
{
    backend->keeper = keeper;
    backend->device->reclaim = keeper ? reclaim : NULL;
    backend->device->reclaim_data = backend;
}

/* One number for all chunks but the last, which is all that is kept of it. */
static int describe_copy(const struct backend *backend, const struct vk_weights *weights,
                         struct device_memory *ret, struct err *err)
{
    const struct vkc_buffer *first = &weights->chunks[0];
    const struct vkc_buffer *last = &weights->chunks[weights->n_chunks - 1];
    *ret = describe_device(backend);
    ret->memory_type = first->memory_type;
    ret->dedicated = backend->device->physical.opaque_fd_dedicated;
    ret->alloc_bytes = first->alloc_bytes;
    ret->last_alloc_bytes = last->alloc_bytes;
    for (const struct vkc_buffer *chunk = first; chunk <= last; chunk++) {
        if (chunk->memory_type != first->memory_type ||
            (chunk != last && chunk->alloc_bytes != first->alloc_bytes)) {
            return err_set(err, -ENOTSUP, "the driver has not allocated all chunks alike");
        }
    }
    return 0;
}

static int offer(struct backend *backend, const struct weight_memory *memory,
                 struct vk_weights *weights, int *fds, struct err *err)
{
    struct device_memory copy;
    uint32_t n = 0;
    int r = describe_copy(backend, weights, &copy, err);
    for (; n < weights->n_chunks && r == 0; n++) {
        fds[n] = -1;
        r = vkc_buffer_export_fd(backend->device, &weights->chunks[n], err, &fds[n]);
    }
    if (r == 0) {
        r = memory->keeper->keep(memory->keeper->data, &copy, fds, err);
    } else {
        memory->keeper->forgo(memory->keeper->data);
    }
    while (n > 0) {
        close_fdp(&fds[--n]);
    }
    return r;
}

const char *vk_copy_dies_because(const struct vkc_physical *physical, bool forced)
{
    if (vkc_is_unified(physical) && !forced) {
        return "the device has no memory of its own that could be kept";
    }
    return physical->has_opaque_fd ? NULL : "the driver cannot export memory as an opaque fd";
}

/* Why nobody can keep a copy; NULL: somebody may. */
static const char *why_not_kept(const struct backend *backend, const struct weight_memory *memory)
{
    const char *why = vk_copy_dies_because(&backend->device->physical, backend->copy_weights);
    return why ? why : memory->keeper ? NULL : "there is no gttd to keep it";
}

/* 0: there is a copy now, which was kept. 1: it is to be made, and will be kept. */
static int find_kept(struct backend *backend, const struct weight_memory *memory, int *fds,
                     struct err *err, struct vk_weights *weights)
{
    const struct weight_keeper *keeper = memory->keeper;
    const struct device_memory device = describe_device(backend);
    struct device_memory kept;
    double start_ms = now_ms();
    int r = keeper->find(keeper->data, &device, &kept, fds, err);
    weights->start.find_ms = now_ms() - start_ms;
    if (r != 0) {
        return r;
    }
    struct err why;
    r = take_over(backend, memory, &kept, fds, &why, weights);
    if (r < 0) {
        vkc_log(backend->instance, "weights: the copy that gttd keeps is replaced: %s", why.text);
        return keeper->reject(keeper->data, &device, err);
    }
    weights->start.kept = true;
    vkc_log(backend->instance,
            "weights: taken over from gttd, not copied: asked %.1f ms, imported %.1f ms, compared "
            "%.1f ms",
            weights->start.find_ms, weights->start.import_ms, weights->start.compare_ms);
    return 0;
}

static int make_copy(struct backend *backend, const struct weight_memory *memory, bool to_keep,
                     int *fds, struct err *err, struct vk_weights *weights)
{
    struct err why = {{0}};
    int r = copy_chunks(backend, memory, to_keep, err, weights);
    if (r < 0) {
        if (to_keep) {
            memory->keeper->forgo(memory->keeper->data);
        }
        return r;
    }
    if (!to_keep) {
        return 0;
    }
    double start_ms = now_ms();
    weights->start.kept = offer(backend, memory, weights, fds, &why) == 0;
    weights->start.keep_ms = now_ms() - start_ms;
    if (weights->start.kept) {
        vkc_log(backend->instance,
                "weights: copied in %.1f ms and handed over to gttd in %.1f ms: the next start "
                "finds them on the device",
                weights->start.copy_ms, weights->start.keep_ms);
    } else {
        vkc_log(backend->instance, "weights: copied in %.1f ms; the next start copies again: %s",
                weights->start.copy_ms, why.text);
    }
    return 0;
}

int vk_device_copy(struct backend *backend, const struct weight_memory *memory, struct err *err,
                   struct vk_weights *weights, enum weight_path *ret_path)
{
    struct err why = {{0}};
    const char *why_not = why_not_kept(backend, memory);
    AUTO_FREE int *fds = malloc(memory->n_chunks * sizeof *fds);
    int r = -ENOTSUP;
    if (!fds) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    weights->start = (struct weight_start){0};
    if (!why_not) {
        set_keeper(backend, memory->keeper);
        r = find_kept(backend, memory, fds, &why, weights);
    }
    if (r == 0) {
        *ret_path = WEIGHT_PATH_ADOPTED;
        return 0;
    }
    *ret_path = WEIGHT_PATH_DEVICE_COPY;
    bool to_keep = r > 0;
    r = make_copy(backend, memory, to_keep, fds, err, weights);
    if (r == 0 && !to_keep) {
        vkc_log(backend->instance, "weights: copied in %.1f ms; the next start copies again: %s",
                weights->start.copy_ms, why_not ? why_not : why.text);
    }
    return r;
}

void vk_device_copy_finish(struct backend *backend, struct vk_weights *weights)
{
    vk_weights_drop(backend, weights);
    set_keeper(backend, NULL);
}
