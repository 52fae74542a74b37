/* SPDX-License-Identifier: MIT */
/* The device's copy in gttd: see kept.h. */
#include "kept.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gtt.h"
#include "log.h"

/* What memory is laid out like; changes when another layout gets the same sizes. */
#define LAYOUT 1

/* A driver takes a moment to free what the last fd of it was closed of. */
#define RECLAIM_PAUSE_NS 200000000

static int fail(const struct kept *kept, int r, struct err *err)
{
    return err_set(err, r, "gttd: %s", gtt_last_error(kept->gtt));
}

static struct gtt_device gtt_device(const struct device_memory *memory)
{
    struct gtt_device device = {0};
    memcpy(device.device_uuid, memory->device_uuid, sizeof device.device_uuid);
    memcpy(device.driver_uuid, memory->driver_uuid, sizeof device.driver_uuid);
    for (size_t i = 0; i + 1 < sizeof device.name && memory->device[i]; i++) {
        char c = memory->device[i];
        device.name[i] = c >= ' ' && c <= '~' ? c : '?';
    }
    return device;
}

/* The pool's name, and what tells this copy from others of it. */
static int make_name(struct kept *kept, const struct device_memory *device,
                     const struct gtt_segment_info *of, struct err *err)
{
    struct {
        char of_name[sizeof kept->of_name];
        uint8_t device_uuid[KEEPER_UUID_SIZE];
        uint8_t driver_uuid[KEEPER_UUID_SIZE];
        uint64_t layout, chunk_bytes;
    } key = {.layout = LAYOUT, .chunk_bytes = of->chunk_bytes};
    uint8_t digest[GTT_DIGEST_SIZE];
    memcpy(key.of_name, kept->of_name, sizeof key.of_name);
    memcpy(key.device_uuid, device->device_uuid, sizeof key.device_uuid);
    memcpy(key.driver_uuid, device->driver_uuid, sizeof key.driver_uuid);
    int r = gtt_digest(&key, sizeof key, digest);
    if (r < 0) {
        return err_set(err, r, "out of memory");
    }
    int n = snprintf(kept->name, sizeof kept->name, "%.100s.on-", kept->of_name);
    for (int i = 0; i < 8; i++) {
        n += snprintf(kept->name + n, sizeof kept->name - (size_t)n, "%02x", digest[i]);
    }
    return 0;
}

static int open_copy(struct kept *kept, const struct device_memory *device, struct err *err)
{
    const struct gtt_device id = gtt_device(device);
    int r = gtt_open_adopted(kept->gtt, kept->name, &id, GTT_OPEN_FILL, 0, &kept->segment);
    if (r == -EAGAIN) {
        if (kept->params) {
            engine_log(kept->params, "waiting for another process to copy the weights: %s",
                       gtt_last_error(kept->gtt));
        }
        r = gtt_open_adopted(kept->gtt, kept->name, &id, GTT_OPEN_FILL | GTT_OPEN_WAIT, -1,
                             &kept->segment);
    }
    return r < 0 ? fail(kept, r, err) : r;
}

/* What gttd says of it: whether it is of the same weights, and how to import it. */
static int describe(struct kept *kept, const struct gtt_segment_info *of, struct device_memory *ret,
                    int *fds, struct err *err)
{
    struct gtt_segment_info info;
    gtt_segment_get_info(kept->segment, &info);
    if (info.size_bytes != of->size_bytes || info.chunk_bytes != of->chunk_bytes ||
        memcmp(info.digest, of->digest, GTT_DIGEST_SIZE) != 0) {
        return err_set(err, -EBADMSG, "it is a copy of other weights");
    }
    *ret = (struct device_memory){.memory_type = info.memory.memory_type,
                                  .dedicated = info.memory.dedicated,
                                  .alloc_bytes = info.memory.alloc_bytes,
                                  .last_alloc_bytes = info.memory.last_alloc_bytes};
    for (uint32_t i = 0; i < info.n_chunks; i++) {
        int r = gtt_segment_chunk_fd(kept->segment, i, &fds[i]);
        if (r < 0) {
            return fail(kept, r, err);
        }
    }
    return 0;
}

static void close_copy(struct kept *kept)
{
    gtt_segment_close(kept->segment);
    kept->segment = NULL;
}

/* Drop what is under the name, and claim it. */
static int replace(struct kept *kept, const struct device_memory *device, struct err *err)
{
    close_copy(kept);
    int r = gtt_drop(kept->gtt, kept->name, GTT_DROP_FORCE);
    if (r < 0 && r != -ENOENT) {
        return fail(kept, r, err);
    }
    r = open_copy(kept, device, err);
    if (r == 0) { /* another process was faster; what it made we do not look at any more */
        close_copy(kept);
        return err_set(err, -EAGAIN, "another process has made one meanwhile");
    }
    return r;
}

/* It is ours to make; but would gttd take it? */
static int check_wanted(struct kept *kept, struct err *err)
{
    struct gtt_status status;
    int r = gtt_status(kept->gtt, &status);
    if (r < 0) {
        fail(kept, r, err);
    } else if (!status.adopts) {
        r = err_set(err, -EOPNOTSUPP, "gttd is not to keep device memory (adopt = off)");
    }
    if (r < 0) {
        gtt_abandon(kept->gtt, kept->name);
    }
    return r < 0 ? r : 1;
}

static int find(void *data, const struct device_memory *device, struct device_memory *ret, int *fds,
                struct err *err)
{
    struct kept *kept = data;
    struct gtt_segment_info of;
    struct err why;
    pthread_mutex_lock(kept->lock);
    gtt_segment_get_info(kept->of, &of);
    int r = make_name(kept, device, &of, err);
    if (r == 0) {
        r = open_copy(kept, device, err);
    }
    if (r == 0) {
        r = describe(kept, &of, ret, fds, &why);
        if (r < 0 && kept->params) {
            engine_log(kept->params, "weights: the copy that gttd keeps is replaced: %s", why.text);
        }
        r = r < 0 ? replace(kept, device, err) : 0;
    }
    if (r == 1) {
        r = check_wanted(kept, err);
    }
    pthread_mutex_unlock(kept->lock);
    return r;
}

static int keep(void *data, const struct device_memory *memory, const int *fds, struct err *err)
{
    struct kept *kept = data;
    struct gtt_segment_info of;
    gtt_segment_get_info(kept->of, &of);
    struct gtt_adopt_params params = {.name = kept->name,
                                      .size_bytes = of.size_bytes,
                                      .chunk_bytes = of.chunk_bytes,
                                      .memory = {.device = gtt_device(memory),
                                                 .handle = GTT_HANDLE_OPAQUE_FD,
                                                 .memory_type = memory->memory_type,
                                                 .dedicated = memory->dedicated,
                                                 .alloc_bytes = memory->alloc_bytes,
                                                 .last_alloc_bytes = memory->last_alloc_bytes},
                                      .fds = fds,
                                      .digest = of.digest};
    pthread_mutex_lock(kept->lock);
    int r = gtt_adopt(kept->gtt, &params, &kept->segment);
    if (r < 0) {
        fail(kept, r, err);
        gtt_abandon(kept->gtt, kept->name); /* of a claim that is left */
    }
    pthread_mutex_unlock(kept->lock);
    return r;
}

static void forgo(void *data)
{
    struct kept *kept = data;
    pthread_mutex_lock(kept->lock);
    gtt_abandon(kept->gtt, kept->name);
    pthread_mutex_unlock(kept->lock);
}

static int reject(void *data, const struct device_memory *device, struct err *err)
{
    struct kept *kept = data;
    pthread_mutex_lock(kept->lock);
    int r = replace(kept, device, err);
    pthread_mutex_unlock(kept->lock);
    return r;
}

/* Of this user's copies on the device that nobody has open, the one idle for longest. */
static bool find_idle(struct kept *kept, const struct device_memory *device, struct gtt_entry *ret)
{
    struct gtt_entry entry;
    uint64_t cursor = 0;
    bool found = false;
    while (gtt_list(kept->gtt, &cursor, &entry) == 1) {
        if (entry.adopted && entry.state == GTT_SEALED && !entry.n_leases &&
            entry.uid == geteuid() &&
            !memcmp(entry.device.device_uuid, device->device_uuid, GTT_UUID_SIZE) &&
            (!found || entry.idle_ms > ret->idle_ms)) {
            *ret = entry;
            found = true;
        }
    }
    return found;
}

static bool reclaim(void *data, const struct device_memory *device)
{
    struct kept *kept = data;
    struct gtt_entry entry;
    pthread_mutex_lock(kept->lock);
    bool dropped = find_idle(kept, device, &entry) && gtt_drop_id(kept->gtt, entry.id, 0) == 0;
    pthread_mutex_unlock(kept->lock);
    if (dropped) {
        if (kept->params) {
            engine_log(kept->params,
                       "the device is out of memory: what gttd kept there of %s, %.1f MB, is given "
                       "up",
                       entry.name, (double)entry.size_bytes * 1e-6);
        }
        nanosleep(&(struct timespec){.tv_nsec = RECLAIM_PAUSE_NS}, NULL);
    }
    return dropped;
}

void kept_init(struct kept *kept, const struct llm_engine_params *params, struct gtt *gtt,
               const struct gtt_segment *of, const char *name, pthread_mutex_t *lock)
{
    *kept = (struct kept){.params = params,
                          .gtt = gtt,
                          .of = of,
                          .lock = lock,
                          .keeper = {.data = kept,
                                     .find = find,
                                     .keep = keep,
                                     .forgo = forgo,
                                     .reject = reject,
                                     .reclaim = reclaim}};
    snprintf(kept->of_name, sizeof kept->of_name, "%s", name);
}

void kept_quiet(struct kept *kept)
{
    kept->params = NULL;
}

void kept_finish(struct kept *kept)
{
    if (kept->segment) {
        close_copy(kept);
    }
}
