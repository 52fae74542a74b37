/* SPDX-License-Identifier: MIT */
/*
 * The rules of the pool about device memory that clients hand over: who may, how much, whose it is
 * then. What its fds look like is adopted.h's; sealing, closing and dropping is as of any segment.
 */
#include <errno.h>
#include <string.h>

#include "adopted.h"
#include "evict.h"
#include "gttd_wire.h"
#include "pool.h"

/* Of the numbers of fds that chunks of the pool may be. */
#define CHUNKS_SHARE 4

static int refuse_bytes(const struct limits *limits, const struct account *account, uint64_t bytes,
                        struct reason *why)
{
    char want[SIZE_TEXT_MAX], limit[SIZE_TEXT_MAX], used[SIZE_TEXT_MAX];
    if (!limits->adopted_quota_bytes || (bytes <= limits->adopted_quota_bytes &&
                                         account->bytes <= limits->adopted_quota_bytes - bytes)) {
        return 0;
    }
    return reason_set(why, -EDQUOT,
                      "%s of device memory are over what a user may have kept, %s, of which %s are "
                      "in use",
                      size_text(bytes, want), size_text(limits->adopted_quota_bytes, limit),
                      size_text(account->bytes, used));
}

static int admit(const struct pool *pool, const struct account *account,
                 const struct gttd_adopt_req *req, struct reason *why)
{
    const struct limits *limits = &pool->limits;
    uint32_t n_chunks = gttd_chunk_count(req->size_bytes, req->chunk_bytes);
    if (!limits->adopts) {
        return reason_set(why, -EOPNOTSUPP, "gttd is not to keep device memory (adopt = off)");
    }
    if (account->n_chunks + n_chunks > limits->chunks_per_user / CHUNKS_SHARE ||
        pool->adopted.n_chunks + n_chunks > limits->chunks_max / CHUNKS_SHARE) {
        return reason_set(why, -EDQUOT,
                          "%u chunks of device memory are too many: %u per user, %u in all",
                          n_chunks, limits->chunks_per_user / CHUNKS_SHARE,
                          limits->chunks_max / CHUNKS_SHARE);
    }
    return refuse_bytes(limits, account, req->size_bytes, why);
}

/* Its memory, of which no chunk is there yet. */
static int make_memory(struct pool *pool, struct account *account, struct segment *segment,
                       const struct gttd_adopt_req *req, struct reason *why)
{
    const struct memory_shape shape = {segment->id, req->size_bytes, req->chunk_bytes,
                                       GTTD_MEMORY_DEFAULT};
    int r = admit(pool, account, req, why);
    if (r < 0) {
        return r;
    }
    if (memory_create_adopted(&pool->adopted_heap, pool->worker, &pool->adopted_debt,
                              &pool->adopted, account, &shape, &segment->memory) < 0) {
        return reason_set(why, -ENOMEM, "gttd itself is out of memory");
    }
    segment->memory->segment = segment;
    list_append(&pool->memories, &segment->memory->link);
    segment->device = req->memory;
    segment->state = GTTD_FILLING;
    return 0;
}

int pool_adopt(struct pool *pool, struct owner *owner, const struct gttd_adopt_req *req,
               struct segment **ret, struct reason *why)
{
    struct segment *segment;
    int r = pool_create_target(pool, owner, req->name, &segment, why);
    if (r < 0) {
        return r;
    }
    struct account *account = quota_get(&pool->adopted, owner->uid);
    r = account ? make_memory(pool, account, segment, req, why)
                : reason_set(why, -ENOMEM, "gttd itself is out of memory");
    quota_put(account);
    if (r < 0) {
        if (!segment->was_claimed) {
            pool_release(pool, segment->writer);
        }
        return r;
    }
    pool->notify(pool->data, GTTD_EVENT_CREATED, segment, owner);
    *ret = segment;
    return 0;
}

/* The segment that this owner is handing over. */
static struct segment *being_given(const struct lease *lease)
{
    struct segment *segment = lease->segment;
    return segment->writer == lease && segment->state == GTTD_FILLING && segment_is_adopted(segment)
               ? segment
               : NULL;
}

bool pool_expects_fd(const struct owner *owner)
{
    list_for_each(pos, &owner->leases)
    {
        if (being_given(list_entry(pos, struct lease, owner_link))) {
            return true;
        }
    }
    return false;
}

/* The fd is RAM all the same: of a driver that runs on the CPU. It is there already, so what is
 * free has gone down by it, or will. */
static int check_ram(const struct pool *pool, struct reason *why)
{
    char free_ram[SIZE_TEXT_MAX], floor[SIZE_TEXT_MAX];
    if (!pool_below_floor(pool)) {
        return 0;
    }
    return reason_set(why, -ENOMEM, "it is RAM, of which %s are free, below the floor of %s",
                      size_text(admission_free_ram(&pool->debt), free_ram),
                      size_text(pool->limits.floor_bytes, floor));
}

int pool_give(struct owner *owner, const struct gttd_give_req *req, int *fd, struct reason *why)
{
    struct lease *lease = owner_find_lease(owner, req->id);
    struct segment *segment = lease ? being_given(lease) : NULL;
    if (!segment) {
        return reason_set(why, lease ? -EINVAL : -ENOENT,
                          "this client is handing over no such segment");
    }
    struct memory *memory = segment->memory;
    if (req->index >= memory->n_chunks) {
        return reason_set(why, -EINVAL, "chunk %u of %u", req->index, memory->n_chunks);
    }
    if (memory->chunks[req->index].fd >= 0) {
        return reason_set(why, -EEXIST, "chunk %u has been given", req->index);
    }
    bool is_ram, is_last = req->index == memory->n_chunks - 1;
    int r =
        adopted_check(*fd, is_last ? segment->device.last_alloc_bytes : segment->device.alloc_bytes,
                      &is_ram, why);
    if (r == 0 && is_ram) {
        r = check_ram(segment->pool, why);
    }
    if (r == 0) {
        memory->chunks[req->index].fd = *fd;
        *fd = -1;
    }
    return r;
}

int pool_check_given(const struct segment *segment, struct reason *why)
{
    for (uint32_t i = 0; i < segment->memory->n_chunks && segment_is_adopted(segment); i++) {
        if (segment->memory->chunks[i].fd < 0) {
            return reason_set(why, -EINVAL, "chunk %u has not been given", i);
        }
    }
    return 0;
}

int pool_check_device(const struct segment *segment, const struct owner *owner,
                      const struct gttd_device_id *device, struct reason *why)
{
    const struct gttd_device_id *its = &segment->device.device;
    const char *name = segment->device.device_name;
    name = name[0] ? name : "a device";
    if (!segment_is_adopted(segment)) {
        return device ? reason_set(why, -EINVAL, "it is no device memory") : 0;
    }
    if (segment->account->uid != owner->uid) {
        return reason_set(why, -ENOENT, "it is device memory, which is never another user's");
    }
    if (!device) {
        return reason_set(why, -ENODEV, "it is memory of %s, for who names that device", name);
    }
    if (memcmp(its->device_uuid, device->device_uuid, sizeof its->device_uuid) != 0) {
        return reason_set(why, -ENODEV, "it is memory of %s, which is another device", name);
    }
    if (memcmp(its->driver_uuid, device->driver_uuid, sizeof its->driver_uuid) != 0) {
        return reason_set(why, -ESTALE, "it is memory of %s under another driver", name);
    }
    return 0;
}
