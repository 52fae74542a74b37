/* SPDX-License-Identifier: MIT */
/* libgtt: device memory handed over to gttd, and opened again. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "segment.h"

static_assert(GTT_UUID_SIZE == GTTD_UUID_SIZE && GTT_DEVICE_SIZE == GTTD_DEVICE_SIZE, "");
static_assert((int)GTT_HANDLE_OPAQUE_FD == (int)GTTD_HANDLE_OPAQUE_FD, "");

static struct gttd_device_id wire_id(const struct gtt_device *device)
{
    struct gttd_device_id id;
    memcpy(id.device_uuid, device->device_uuid, sizeof id.device_uuid);
    memcpy(id.driver_uuid, device->driver_uuid, sizeof id.driver_uuid);
    return id;
}

static struct gttd_device_memory wire_memory(const struct gtt_device_memory *memory)
{
    struct gttd_device_memory wire = {.device = wire_id(&memory->device),
                                      .alloc_bytes = memory->alloc_bytes,
                                      .last_alloc_bytes = memory->last_alloc_bytes,
                                      .handle = memory->handle,
                                      .memory_type = memory->memory_type,
                                      .flags = memory->dedicated ? GTTD_MEMORY_DEDICATED : 0};
    gttd_set_text(wire.device_name, sizeof wire.device_name, memory->device.name);
    return wire;
}

void gtt_memory_info(const struct gttd_device_memory *memory, struct gtt_device_memory *ret)
{
    *ret = (struct gtt_device_memory){.handle = (enum gtt_handle)memory->handle,
                                      .memory_type = memory->memory_type,
                                      .dedicated = memory->flags & GTTD_MEMORY_DEDICATED,
                                      .alloc_bytes = memory->alloc_bytes,
                                      .last_alloc_bytes = memory->last_alloc_bytes};
    memcpy(ret->device.device_uuid, memory->device.device_uuid, sizeof ret->device.device_uuid);
    memcpy(ret->device.driver_uuid, memory->device.driver_uuid, sizeof ret->device.driver_uuid);
    memcpy(ret->device.name, memory->device_name, sizeof ret->device.name);
}

int gtt_open_adopted(struct gtt *gtt, const char *name, const struct gtt_device *device,
                     uint32_t flags, int timeout_ms, struct gtt_segment **ret_segment)
{
    const uint32_t known = GTT_OPEN_WAIT | GTT_OPEN_FILL | GTT_OPEN_OWN;
    struct gttd_open_req req = {.flags = flags | GTTD_OPEN_DEVICE | GTTD_OPEN_OWN,
                                .device = wire_id(device)};
    int r = gtt_copy_name(gtt, name, req.name);
    if (r == 0 && (flags & ~known)) {
        r = gtt_fail(gtt, -EINVAL, "open: unknown flags");
    }
    return r < 0 ? r : gtt_open_as(gtt, &req, timeout_ms, ret_segment);
}

static int give_chunk(struct gtt *gtt, uint64_t id, uint32_t index, int fd)
{
    struct gttd_give_req req = {.id = id, .index = index};
    union gttd_msg msg;
    uint32_t serial;
    if (fd < 0) {
        return gtt_fail(gtt, -EBADF, "adopt: chunk %u has no fd", index);
    }
    int r = gtt_request(gtt, &req.hdr, sizeof req, GTTD_OP_GIVE, fd, &serial);
    return r < 0 ? r : gtt_reply(gtt, GTTD_OP_GIVE, serial, -1, "adopt", &msg, NULL);
}

static int seal(struct gtt *gtt, uint64_t id, const struct gtt_adopt_params *params)
{
    struct gttd_seal_req req = {.id = id, .metadata_size = (uint32_t)params->metadata_size};
    union gttd_msg msg;
    memcpy(req.digest, params->digest, sizeof req.digest);
    if (params->metadata_size) {
        memcpy(req.metadata, params->metadata, params->metadata_size);
    }
    return gtt_call_once(gtt, &req.hdr, sizeof req, GTTD_OP_SEAL, "adopt", &msg, NULL);
}

/* All of it over one connection. Of what goes wrong behind the first request gttd is told that it
 * is not wanted. */
static int adopt_once(struct gtt *gtt, struct gttd_adopt_req *req,
                      const struct gtt_adopt_params *params, uint64_t *ret_id)
{
    union gttd_msg msg;
    int r = gtt_call_once(gtt, &req->hdr, sizeof *req, GTTD_OP_ADOPT, req->name, &msg, NULL);
    if (r < 0) {
        return r;
    }
    const uint64_t id = *ret_id = msg.create_rsp.id;
    uint32_t n_chunks = gttd_chunk_count(req->size_bytes, req->chunk_bytes);
    for (uint32_t i = 0; i < n_chunks && r == 0; i++) {
        r = give_chunk(gtt, id, i, params->fds[i]);
    }
    if (r == 0) {
        r = seal(gtt, id, params);
    }
    if (r < 0 && gtt->link == LINK_UP) {
        char said[sizeof gtt->error];
        memcpy(said, gtt->error, sizeof said);
        gtt_close_id(gtt, id, req->name);
        memcpy(gtt->error, said, sizeof said);
    }
    return r;
}

/* A handle for it, which is sealed. */
static int make_handle(struct gtt *gtt, const struct gttd_adopt_req *req, uint64_t id,
                       const struct gtt_adopt_params *params, struct gtt_segment **ret)
{
    struct gtt_segment *segment;
    int r = gtt_new_segment(gtt, req->name, id, req->size_bytes, req->chunk_bytes,
                            gttd_chunk_count(req->size_bytes, req->chunk_bytes), &segment);
    if (r < 0) {
        return r;
    }
    segment->sealed = true;
    segment->memory = req->memory;
    segment->metadata_size = (uint32_t)params->metadata_size;
    memcpy(segment->digest, params->digest, sizeof segment->digest);
    if (params->metadata_size) {
        memcpy(segment->metadata, params->metadata, params->metadata_size);
    }
    *ret = segment;
    return 0;
}

/* A gttd that ended meanwhile may have sealed and stored it, and only not said so. */
static int find_adopted(struct gtt *gtt, const struct gttd_adopt_req *req,
                        const struct gtt_adopt_params *params, struct gtt_segment **ret)
{
    struct gtt_segment *segment;
    int r = gtt_open_adopted(gtt, req->name, &params->memory.device, 0, 0, &segment);
    if (r < 0) {
        return r;
    }
    if (memcmp(segment->digest, params->digest, sizeof segment->digest) != 0 ||
        memcmp(&segment->memory, &req->memory, sizeof req->memory) != 0) {
        gtt_segment_close(segment);
        return gtt_fail(gtt, -EEXIST, "%s: another one was adopted meanwhile", req->name);
    }
    *ret = segment;
    return 0;
}

int gtt_adopt(struct gtt *gtt, const struct gtt_adopt_params *params,
              struct gtt_segment **ret_segment)
{
    struct gttd_adopt_req req = {.size_bytes = params->size_bytes,
                                 .chunk_bytes = params->chunk_bytes,
                                 .memory = wire_memory(&params->memory)};
    uint64_t id = 0;
    bool again = false;
    int r = gtt_copy_name(gtt, params->name, req.name);
    if (r == 0 && (!params->digest || params->metadata_size > GTT_METADATA_MAX)) {
        r = gtt_fail(gtt, -EINVAL, "adopt: no digest, or more than %d bytes of metadata",
                     GTT_METADATA_MAX);
    }
    if (r < 0) {
        return r;
    }
    do {
        r = adopt_once(gtt, &req, params, &id);
        if (r == -EEXIST && again) {
            return find_adopted(gtt, &req, params, ret_segment);
        }
        r = gtt_after(gtt, r);
        again = true;
    } while (r == -ERESTART);
    if (id) { /* a claim that gttd has refused to make anything of stays one */
        gtt_claim_used(gtt, req.name);
    }
    return r < 0 ? r : make_handle(gtt, &req, id, params, ret_segment);
}
