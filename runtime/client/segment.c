/* SPDX-License-Identifier: MIT */
/* libgtt: segments as handles; open, create, seal, close. How they are mapped is mapping.h's. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "connection.h"
#include "gttd_util.h"
#include "mapping.h"
#include "segment.h"

#define CANCEL_TIMEOUT_MS 5000

static_assert((int)GTT_OPEN_WAIT == (int)GTTD_OPEN_WAIT, "");
static_assert((int)GTT_OPEN_FILL == (int)GTTD_OPEN_FILL, "");
static_assert((int)GTT_OPEN_OWN == (int)GTTD_OPEN_OWN, "");
static_assert(GTT_METADATA_MAX == GTTD_METADATA_MAX && GTT_DIGEST_SIZE == GTTD_DIGEST_SIZE, "");

static void forget_segment(struct gtt_segment *segment)
{
    struct gtt_segment **at = &segment->gtt->segments;
    while (*at != segment) {
        at = &(*at)->next;
    }
    *at = segment->next;
    mapping_finish(&segment->mapping);
    free(segment);
}

/* The end of a connection says so, too. */
int gtt_close_id(struct gtt *gtt, uint64_t id, const char *what)
{
    struct gttd_close_req req = {.id = id};
    union gttd_msg msg;
    int r = gtt_call_once(gtt, &req.hdr, sizeof req, GTTD_OP_CLOSE, what, &msg, NULL);
    return r == -ECONNRESET ? 0 : r;
}

int gtt_new_segment(struct gtt *gtt, const char *name, uint64_t id, uint64_t size_bytes,
                    uint64_t chunk_bytes, uint32_t n_chunks, struct gtt_segment **ret)
{
    struct gtt_segment *segment = calloc(1, sizeof *segment);
    int r = segment ? mapping_init(&segment->mapping, size_bytes, chunk_bytes, n_chunks) : -ENOMEM;
    if (r < 0) {
        free(segment);
        gtt_close_id(gtt, id, "close");
        return gtt_fail(gtt, r, "out of memory");
    }
    segment->gtt = gtt;
    segment->id = id;
    segment->uid = geteuid(); /* unless OPEN says otherwise */
    segment->held = true;
    strcpy(segment->name, name);
    segment->next = gtt->segments;
    gtt->segments = segment;
    *ret = segment;
    return 0;
}

/* ---- claims ---- */

static int add_claim(struct gtt *gtt, uint64_t id, const char *name)
{
    struct claim *claim = calloc(1, sizeof *claim);
    if (!claim) {
        gtt_close_id(gtt, id, "close");
        return gtt_fail(gtt, -ENOMEM, "out of memory");
    }
    claim->id = id;
    strcpy(claim->name, name);
    claim->next = gtt->claims;
    gtt->claims = claim;
    return 1;
}

/* False: there is none. *ret_id is 0 if gttd does not know of it any more. */
static bool remove_claim(struct gtt *gtt, const char *name, uint64_t *ret_id)
{
    for (struct claim **at = &gtt->claims; *at; at = &(*at)->next) {
        struct claim *claim = *at;
        if (!strcmp(claim->name, name)) {
            *ret_id = claim->id;
            *at = claim->next;
            free(claim);
            return true;
        }
    }
    return false;
}

void gtt_claim_used(struct gtt *gtt, const char *name)
{
    uint64_t id;
    remove_claim(gtt, name, &id);
}

int gtt_abandon(struct gtt *gtt, const char *name)
{
    uint64_t id;
    if (!name || !remove_claim(gtt, name, &id)) {
        return gtt_fail(gtt, -ENOENT, "%s: not claimed by this connection", name ? name : "");
    }
    return id ? gtt_close_id(gtt, id, name) : 0;
}

/* ---- open, create, close ---- */

/* The wait was long enough. What happened instead at the last moment is as good: 0 and *msg. */
static int cancel_open(struct gtt *gtt, uint32_t serial, const char *name, union gttd_msg *msg)
{
    struct gttd_close_req req = {.wait_serial = serial};
    union gttd_msg closed;
    uint32_t close_serial;
    int r = gtt_request(gtt, &req.hdr, sizeof req, GTTD_OP_CLOSE, -1, &close_serial);
    if (r < 0) {
        return r;
    }
    int r_open = gtt_reply(gtt, GTTD_OP_OPEN, serial, CANCEL_TIMEOUT_MS, name, msg, NULL);
    r = r_open;
    if (r_open != -ETIMEDOUT && gtt->link == LINK_UP) {
        char open_error[sizeof gtt->error];
        memcpy(open_error, gtt->error, sizeof open_error);
        r = gtt_reply(gtt, GTTD_OP_CLOSE, close_serial, CANCEL_TIMEOUT_MS, name, &closed, NULL);
        r = r == -ENOENT || r == 0 ? r_open : r;
        memcpy(gtt->error, open_error, sizeof open_error);
    }
    if (r == -ETIMEDOUT) { /* replies would be out of step from here on */
        return gtt_lost(gtt, r, "no answer in time");
    }
    if (r == -ECANCELED) {
        return gtt_fail(gtt, -ETIMEDOUT, "%s: still being filled by another process", name);
    }
    return r;
}

/* timeout_ms -1: for ever. */
static int open_once(struct gtt *gtt, struct gttd_open_req *req, int timeout_ms,
                     union gttd_msg *msg)
{
    uint32_t serial;
    int r = gtt_request(gtt, &req->hdr, sizeof *req, GTTD_OP_OPEN, -1, &serial);
    if (r == 0) {
        r = gtt_reply(gtt, GTTD_OP_OPEN, serial, timeout_ms, req->name, msg, NULL);
    }
    return r == -ETIMEDOUT ? cancel_open(gtt, serial, req->name, msg) : r;
}

int gtt_open_as(struct gtt *gtt, struct gttd_open_req *req, int timeout_ms,
                struct gtt_segment **ret_segment)
{
    union gttd_msg msg;
    struct gtt_segment *segment;
    bool waits = (req->flags & GTTD_OPEN_WAIT) && timeout_ms >= 0;
    int64_t deadline_ms = gtt_now_ms() + timeout_ms;
    int r;
    do {
        int64_t left_ms = deadline_ms - gtt_now_ms();
        r = open_once(gtt, req, !waits ? -1 : left_ms > 0 ? (int)left_ms : 0, &msg);
        r = gtt_after(gtt, r);
    } while (r == -ERESTART);
    if (r < 0) {
        return r;
    }
    const struct gttd_open_rsp *rsp = &msg.open_rsp;
    if (rsp->role == GTTD_ROLE_FILLER) {
        return add_claim(gtt, rsp->id, req->name);
    }
    r = gtt_new_segment(gtt, req->name, rsp->id, rsp->size_bytes, rsp->chunk_bytes, rsp->n_chunks,
                        &segment);
    if (r < 0) {
        return r;
    }
    segment->sealed = true;
    segment->immutable = rsp->flags & GTTD_SEGMENT_IMMUTABLE;
    segment->write_combined = rsp->flags & GTTD_SEGMENT_WC;
    segment->metadata_size = rsp->metadata_size;
    segment->uid = rsp->uid;
    segment->memory = rsp->memory;
    memcpy(segment->digest, rsp->digest, sizeof segment->digest);
    memcpy(segment->metadata, rsp->metadata, sizeof segment->metadata);
    *ret_segment = segment;
    return 0;
}

int gtt_open(struct gtt *gtt, const char *name, uint32_t flags, int timeout_ms,
             struct gtt_segment **ret_segment)
{
    const uint32_t known = GTT_OPEN_WAIT | GTT_OPEN_FILL | GTT_OPEN_OWN;
    struct gttd_open_req req = {.flags = flags};
    int r = gtt_copy_name(gtt, name, req.name);
    if (r == 0 && (flags & ~known)) {
        r = gtt_fail(gtt, -EINVAL, "open: unknown flags");
    }
    return r < 0 ? r : gtt_open_as(gtt, &req, timeout_ms, ret_segment);
}

int gtt_create(struct gtt *gtt, const struct gtt_create_params *params,
               struct gtt_segment **ret_segment)
{
    struct gttd_create_req req = {.size_bytes = params->size_bytes,
                                  .chunk_bytes = params->chunk_bytes,
                                  .memory_class = params->write_combined ? GTTD_MEMORY_WC
                                                                         : GTTD_MEMORY_DEFAULT};
    union gttd_msg msg;
    int r = params->name ? gtt_copy_name(gtt, params->name, req.name) : 0;
    if (r < 0) {
        return r;
    }
    do {
        r = gtt_call(gtt, &req.hdr, sizeof req, GTTD_OP_CREATE,
                     params->name ? params->name : "an anonymous segment", &msg, NULL);
    } while (r == -ERESTART);
    if (r < 0) {
        return r;
    }
    const struct gttd_create_rsp *rsp = &msg.create_rsp;
    gtt_claim_used(gtt, req.name);
    return gtt_new_segment(gtt, req.name, rsp->id, rsp->size_bytes, rsp->chunk_bytes, rsp->n_chunks,
                           ret_segment);
}

void gtt_segment_close(struct gtt_segment *segment)
{
    if (segment) {
        if (segment->held) {
            gtt_close_id(segment->gtt, segment->id, "close");
        }
        forget_segment(segment);
    }
}

void gtt_segment_get_info(const struct gtt_segment *segment, struct gtt_segment_info *ret)
{
    *ret = (struct gtt_segment_info){.id = segment->id,
                                     .size_bytes = segment->mapping.size_bytes,
                                     .chunk_bytes = segment->mapping.chunk_bytes,
                                     .n_chunks = segment->mapping.n_chunks,
                                     .metadata_size = segment->metadata_size,
                                     .uid = segment->uid,
                                     .sealed = segment->sealed,
                                     .held = segment->held,
                                     .immutable = segment->immutable,
                                     .write_combined = segment->write_combined,
                                     .adopted = segment->memory.handle,
                                     .digest = segment->digest,
                                     .metadata = segment->metadata};
    if (segment->memory.handle) {
        gtt_memory_info(&segment->memory, &ret->memory);
    }
}

/* ---- after a restart ---- */

int gtt_lease_again(struct gtt_segment *segment)
{
    struct gtt *gtt = segment->gtt;
    struct gttd_open_req req = {.flags = (segment->uid == geteuid() ? GTTD_OPEN_OWN : 0) |
                                         (segment->memory.handle ? GTTD_OPEN_DEVICE : 0),
                                .device = segment->memory.device};
    union gttd_msg msg;
    memcpy(req.name, segment->name, sizeof req.name);
    segment->held = false;
    int r = gtt_call_once(gtt, &req.hdr, sizeof req, GTTD_OP_OPEN, segment->name, &msg, NULL);
    if (r < 0) {
        return r;
    }
    const struct gttd_open_rsp *rsp = &msg.open_rsp;
    if (rsp->size_bytes != segment->mapping.size_bytes ||
        rsp->chunk_bytes != segment->mapping.chunk_bytes || rsp->uid != segment->uid ||
        memcmp(&rsp->memory, &segment->memory, sizeof rsp->memory) != 0 ||
        memcmp(rsp->digest, segment->digest, sizeof segment->digest) != 0) {
        r = gtt_close_id(gtt, rsp->id, segment->name);
        return r < 0 ? r : gtt_fail(gtt, -ESTALE, "%s: it is another one now", segment->name);
    }
    segment->id = rsp->id;
    segment->immutable = rsp->flags & GTTD_SEGMENT_IMMUTABLE;
    segment->held = true;
    return 0;
}

int gtt_renew_segments(struct gtt *gtt)
{
    for (struct gtt_segment *segment = gtt->segments; segment; segment = segment->next) {
        segment->held = false;
    }
    for (struct gtt_segment *segment = gtt->segments; segment; segment = segment->next) {
        if (segment->sealed) {
            gtt_lease_again(segment);
        }
        if (gtt->link != LINK_UP) {
            return -ECONNRESET;
        }
    }
    return 0;
}

static int say_not_held(const struct gtt_segment *segment)
{
    return segment->sealed
               ? gtt_fail(segment->gtt, -ESTALE,
                          "%s: gttd has restarted and does not have it any more", segment->name)
               : gtt_fail(segment->gtt, -ECONNRESET,
                          "%s: gttd has restarted while it was being filled: create it again",
                          segment->name[0] ? segment->name : "an anonymous segment");
}

int gtt_check_held(struct gtt *gtt)
{
    for (const struct gtt_segment *segment = gtt->segments; segment; segment = segment->next) {
        if (segment->sealed && !segment->held) {
            return say_not_held(segment);
        }
    }
    return 0;
}

/* ---- chunks and mapping ---- */

int gtt_segment_chunk_fd(struct gtt_segment *segment, uint32_t index, int *ret_fd)
{
    struct gtt *gtt = segment->gtt;
    struct mapping *mapping = &segment->mapping;
    if (index >= mapping->n_chunks) {
        return gtt_fail(gtt, -EINVAL, "chunk %u of %u", index, mapping->n_chunks);
    }
    if (mapping->fds[index] < 0) {
        union gttd_msg msg;
        AUTO_FD fd = -1;
        int r;
        do {
            struct gttd_chunk_req req = {.id = segment->id, .index = index};
            r = segment->held
                    ? gtt_call(gtt, &req.hdr, sizeof req, GTTD_OP_CHUNK, "chunk", &msg, &fd)
                    : say_not_held(segment);
        } while (r == -ERESTART);
        if (r < 0) {
            return r;
        }
        if (msg.chunk_rsp.id != segment->id || msg.chunk_rsp.index != index ||
            (!segment->memory.handle && !mapping_fits(mapping, index, fd))) {
            return gtt_lost(gtt, -EPROTO, "a chunk that is not the one asked for");
        }
        mapping->fds[index] = take_fd(&fd);
    }
    *ret_fd = mapping->fds[index];
    return 0;
}

static int fetch_chunks(struct gtt_segment *segment)
{
    int fd, r = 0;
    for (uint32_t i = 0; i < segment->mapping.n_chunks && r == 0; i++) {
        r = gtt_segment_chunk_fd(segment, i, &fd);
    }
    return r;
}

int gtt_segment_map(struct gtt_segment *segment, bool writable, void **ret_base)
{
    struct gtt *gtt = segment->gtt;
    struct mapping *mapping = &segment->mapping;
    if (segment->memory.handle) {
        return gtt_fail(gtt, -ENODEV, "%s: memory of a device, which cannot be mapped",
                        segment->name);
    }
    if (writable && segment->sealed) {
        return gtt_fail(gtt, -EACCES, "a sealed segment cannot be mapped writable");
    }
    if (!mapping->mapped || (writable && !mapping->writable)) {
        int r = fetch_chunks(segment);
        if (r < 0) {
            return r;
        }
        r = mapping_map(mapping, writable);
        if (r < 0) {
            return gtt_fail(gtt, r, "mapping a segment: %s", strerror(-r));
        }
    }
    *ret_base = mapping->base;
    return 0;
}

/* ---- seal and verify ---- */

static int digest_of(struct gtt_segment *segment, uint8_t ret_digest[static GTTD_DIGEST_SIZE])
{
    void *base;
    int r = gtt_segment_map(segment, false, &base);
    if (r == 0) {
        r = gtt_digest(base, segment->mapping.size_bytes, ret_digest);
        if (r < 0) {
            gtt_fail(segment->gtt, r, "out of memory");
        }
    }
    return r;
}

/* The wire part of a seal, while nothing of the segment is mapped here. */
static int call_seal(struct gtt_segment *segment, const struct gttd_seal_req *filled)
{
    struct gttd_seal_req req = *filled;
    union gttd_msg msg;
    memcpy(segment->digest, req.digest, sizeof segment->digest);
    int r = segment->held
                ? gtt_call(segment->gtt, &req.hdr, sizeof req, GTTD_OP_SEAL, "seal", &msg, NULL)
                : say_not_held(segment);
    if (r == 0) {
        segment->immutable = msg.seal_rsp.flags & GTTD_SEGMENT_IMMUTABLE;
    }
    /* a gttd that ended meanwhile may have sealed and stored it and only not said so */
    if (r == -ERESTART && (r = gtt_lease_again(segment)) < 0) {
        r = say_not_held(segment);
    }
    if (r == 0) {
        segment->sealed = true;
        segment->metadata_size = req.metadata_size;
        memcpy(segment->metadata, req.metadata, sizeof segment->metadata);
    }
    return r;
}

/*
 * Since the seal gttd has other fds, read-only ones where there is such a thing. For a mapping they
 * are fetched at once; if they cannot be had, the old ones are of the same memory.
 */
static void renew_fds(struct gtt_segment *segment, bool for_mapping)
{
    struct mapping *mapping = &segment->mapping;
    int *old = mapping_swap_fds(mapping, NULL);
    if (old && for_mapping && fetch_chunks(segment) < 0) {
        old = mapping_swap_fds(mapping, old);
    }
    mapping_free_fds(mapping, old);
}

int gtt_segment_seal(struct gtt_segment *segment, const uint8_t *digest, const void *metadata,
                     size_t metadata_size)
{
    struct gtt *gtt = segment->gtt;
    struct mapping *mapping = &segment->mapping;
    struct gttd_seal_req req = {.id = segment->id, .metadata_size = (uint32_t)metadata_size};
    int r = 0;
    if (metadata_size > GTT_METADATA_MAX) {
        return gtt_fail(gtt, -EINVAL, "metadata has at most %d bytes", GTT_METADATA_MAX);
    }
    if (segment->sealed) {
        return gtt_fail(gtt, -EINVAL, "it is sealed already");
    }
    if (!segment->name[0]) {
        return gtt_fail(gtt, -EINVAL, "seal: an anonymous segment cannot be sealed");
    }
    if (metadata_size) {
        memcpy(req.metadata, metadata, metadata_size);
    }
    if (digest) {
        memcpy(req.digest, digest, sizeof req.digest);
    } else {
        r = digest_of(segment, req.digest);
    }
    if (r < 0) {
        return r;
    }
    bool was_mapped = mapping->mapped, was_writable = mapping->writable;
    if (was_mapped) { /* the kernel seals nothing that somebody could write to */
        r = mapping_unmap(mapping);
        if (r < 0) {
            return gtt_fail(gtt, r, "unmapping a segment: %s", strerror(-r));
        }
    }
    mapping_seal(mapping); /* gttd does not: see heap_memfd.c */
    r = call_seal(segment, &req);
    if (r == 0) {
        renew_fds(segment, was_mapped);
    }
    int r_map = was_mapped ? mapping_map(mapping, r < 0 && was_writable) : 0;
    if (r_map == -EPERM) { /* it did not come to the end, but the kernel has sealed the memory */
        r_map = mapping_map(mapping, false);
    }
    if (r_map < 0) {
        gtt_fail(gtt, r_map, "mapping a segment again: %s", strerror(-r_map));
    }
    return r < 0 ? r : r_map;
}

int gtt_segment_verify(struct gtt_segment *segment)
{
    uint8_t digest[GTTD_DIGEST_SIZE];
    if (!segment->sealed) {
        return gtt_fail(segment->gtt, -EINVAL, "it is not sealed");
    }
    int r = digest_of(segment, digest);
    if (r == 0 && memcmp(digest, segment->digest, sizeof digest)) {
        r = gtt_fail(segment->gtt, -EBADMSG, "the segment is not what was sealed: digest differs");
    }
    return r;
}
