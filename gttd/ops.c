/* SPDX-License-Identifier: MIT */
/* Requests in, replies out: see ops.h. */
#include "ops.h"

#include <errno.h>
#include <string.h>

#include "gttd_util.h"
#include "server.h"

static uint32_t daemon_flags(const struct pool *pool)
{
    return (pool->heap->ops->is_dmabuf ? GTTD_HEAP_DMABUF : 0) |
           (pool->store && pool->store->there ? 0 : GTTD_RESTART_LOSES_POOL) |
           (pool->pressure_watched ? GTTD_PRESSURE_WATCHED : 0) |
           (pool->limits.share_group ? GTTD_SHARE_GROUP : 0);
}

static uint32_t segment_flags(const struct segment *segment)
{
    bool immutable = segment->state == GTTD_SEALED && segment->memory->immutable;
    bool kept = segment->state == GTTD_SEALED && segment->memory->keep.record_fd >= 0;
    bool wc = segment->memory && segment->memory->memory_class == GTTD_MEMORY_WC;
    return (immutable ? GTTD_SEGMENT_IMMUTABLE : 0) | (wc ? GTTD_SEGMENT_WC : 0) |
           (kept ? GTTD_SEGMENT_KEPT : 0) |
           (segment_is_adopted(segment) ? GTTD_SEGMENT_ADOPTED : 0);
}

static void send_plain(struct client *client, enum gttd_op op, uint32_t serial)
{
    struct gttd_plain rsp = {gttd_header(sizeof rsp, op, serial)};
    client_send(client, &rsp.hdr, -1);
}

static void send_open(struct client *client, uint32_t serial, const struct segment *segment,
                      enum gttd_role role)
{
    struct gttd_open_rsp rsp = {.hdr = gttd_header(sizeof rsp, GTTD_OP_OPEN, serial),
                                .id = segment->id,
                                .role = role};
    if (role == GTTD_ROLE_LEASE) {
        rsp.flags = segment_flags(segment);
        rsp.size_bytes = segment->memory->size_bytes;
        rsp.chunk_bytes = segment->memory->chunk_bytes;
        rsp.n_chunks = segment->memory->n_chunks;
        rsp.metadata_size = segment->metadata_size;
        rsp.uid = segment->account->uid;
        rsp.memory = segment->device;
        memcpy(rsp.digest, segment->digest, sizeof rsp.digest);
        memcpy(rsp.metadata, segment->metadata, sizeof rsp.metadata);
    }
    client_send(client, &rsp.hdr, -1);
}

static void send_create(struct client *client, enum gttd_op op, uint32_t serial,
                        const struct segment *segment)
{
    struct gttd_create_rsp rsp = {.hdr = gttd_header(sizeof rsp, op, serial),
                                  .id = segment->id,
                                  .size_bytes = segment->memory->size_bytes,
                                  .chunk_bytes = segment->memory->chunk_bytes,
                                  .n_chunks = segment->memory->n_chunks};
    client_send(client, &rsp.hdr, -1);
}

static void send_seal(struct client *client, uint32_t serial, const struct segment *segment)
{
    struct gttd_seal_rsp rsp = {.hdr = gttd_header(sizeof rsp, GTTD_OP_SEAL, serial),
                                .id = segment->id,
                                .flags = segment_flags(segment)};
    client_send(client, &rsp.hdr, -1);
}

void ops_answer(void *data, const struct pending *pending, int status, enum gttd_role role,
                const struct reason *why)
{
    struct client *client = list_entry(pending->owner, struct client, owner);
    (void)data;
    if (status < 0) {
        client_refuse(client, pending->op, pending->serial, status, why->text);
    } else if (pending->op == GTTD_OP_OPEN) {
        send_open(client, pending->serial, pending->segment, role);
    } else if (pending->op == GTTD_OP_CREATE) {
        send_create(client, pending->op, pending->serial, pending->segment);
    } else {
        send_seal(client, pending->serial, pending->segment);
    }
}

static int do_hello(struct client *client, const union gttd_msg *msg, struct reason *why)
{
    const struct pool *pool = &client->server->pool;
    (void)why;
    memcpy(client->owner.label, msg->hello_req.label, sizeof client->owner.label);
    struct gttd_hello_rsp rsp = {.hdr = gttd_header(sizeof rsp, GTTD_OP_HELLO, msg->hdr.serial),
                                 .flags = daemon_flags(pool),
                                 .chunk_max_bytes = pool->heap->chunk_max_bytes,
                                 .version = GTTD_VERSION};
    gttd_set_text(rsp.heap, sizeof rsp.heap, pool->heap->ops->name);
    client->greeted = true;
    loop_disarm(&client->hello);
    client_send(client, &rsp.hdr, -1);
    return 0;
}

/* While the chunks are the worker's, nothing is said of them. */
static uint64_t pinned_bytes(const struct segment *segment)
{
    bool ours = segment->state == GTTD_FILLING || segment->state == GTTD_SEALED;
    return ours ? memory_pinned_bytes(segment->memory) : 0;
}

static int do_status(struct client *client, const union gttd_msg *msg, struct reason *why)
{
    const struct server *server = client->server;
    const struct pool *pool = &server->pool;
    const struct heap_room room = heap_room(pool->heap);
    const struct account *adopted = quota_find(&pool->adopted, client->owner.uid);
    (void)why;
    struct gttd_status_rsp rsp = {.hdr = gttd_header(sizeof rsp, GTTD_OP_STATUS, msg->hdr.serial),
                                  .flags = daemon_flags(pool),
                                  .n_clients = server->n_clients,
                                  .capacity_bytes = pool->limits.capacity_bytes,
                                  .used_bytes = pool->quota.bytes,
                                  .free_ram_bytes = admission_free_ram(&pool->debt),
                                  .floor_bytes = pool->limits.floor_bytes,
                                  .quota_bytes = limits_quota(&pool->limits, client->owner.uid),
                                  .user_bytes = client->owner.account->bytes,
                                  .n_evictions = pool->n_evictions,
                                  .gtt_total_bytes = room.total_bytes,
                                  .gtt_usable_bytes = room.usable_bytes,
                                  .gtt_used_bytes = room.used_bytes,
                                  .ballast_bytes = pool->debt.ballast_bytes,
                                  .adopted_bytes = pool->adopted.bytes,
                                  .adopted_user_bytes = adopted ? adopted->bytes : 0,
                                  .adopted_quota_bytes = pool->limits.adopted_quota_bytes,
                                  .adopts = pool->limits.adopts};
    list_for_each(pos, &pool->segments)
    {
        const struct segment *segment = list_entry(pos, struct segment, link);
        rsp.n_segments++;
        rsp.n_sealed += segment->state == GTTD_SEALED;
        rsp.n_adopted += segment_is_adopted(segment);
        rsp.n_leases += segment->n_leases;
        rsp.n_waiters += segment->n_waiters;
        rsp.pinned_bytes += pinned_bytes(segment);
    }
    gttd_set_text(rsp.heap, sizeof rsp.heap, pool->heap->ops->name);
    gttd_set_text(rsp.device, sizeof rsp.device, pool->heap->device);
    pool->heap->ops->pin_text(pool->heap, rsp.pin);
    client_send(client, &rsp.hdr, -1);
    return 0;
}

static void list_segment(const struct segment *segment, struct gttd_list_entry *ret)
{
    *ret = (struct gttd_list_entry){.id = segment->id,
                                    .idle_ms = (uint64_t)(loop_now_ms() - segment->last_use_ms),
                                    .uid = segment->account->uid,
                                    .pid = segment->writer_pid,
                                    .state = segment->state,
                                    .flags = segment_flags(segment),
                                    .n_leases = segment->n_leases,
                                    .n_waiters = segment->n_waiters};
    if (segment->memory) {
        ret->size_bytes = segment->memory->size_bytes;
        ret->chunk_bytes = segment->memory->chunk_bytes;
        ret->pinned_bytes = pinned_bytes(segment);
    }
    ret->device = segment->device.device;
    memcpy(ret->device_name, segment->device.device_name, sizeof ret->device_name);
    memcpy(ret->name, segment->name, sizeof ret->name);
    memcpy(ret->label, segment->writer_label, sizeof ret->label);
    if (segment->state == GTTD_SEALED) {
        memcpy(ret->digest, segment->digest, sizeof ret->digest);
    }
}

static int do_list(struct client *client, const union gttd_msg *msg, struct reason *why)
{
    struct pool *pool = &client->server->pool;
    struct gttd_list_rsp rsp = {.hdr = gttd_header(sizeof rsp, GTTD_OP_LIST, msg->hdr.serial)};
    uint64_t cursor = msg->list_req.cursor;
    const struct segment *segment;
    (void)why;
    while ((segment = pool_next(pool, &client->owner, cursor))) {
        if (rsp.n_entries == GTTD_LIST_MAX) {
            rsp.more = 1;
            break;
        }
        list_segment(segment, &rsp.entries[rsp.n_entries++]);
        cursor = segment->id;
    }
    client_send(client, &rsp.hdr, -1);
    return 0;
}

static int do_create(struct client *client, const union gttd_msg *msg, struct reason *why)
{
    int r =
        pool_create(&client->server->pool, &client->owner, msg->hdr.serial, &msg->create_req, why);
    return r == POOL_LATER ? 0 : r;
}

static int do_adopt(struct client *client, const union gttd_msg *msg, struct reason *why)
{
    struct segment *segment;
    int r = pool_adopt(&client->server->pool, &client->owner, &msg->adopt_req, &segment, why);
    if (r == 0) {
        send_create(client, GTTD_OP_ADOPT, msg->hdr.serial, segment);
    }
    return r;
}

static int do_give(struct client *client, const union gttd_msg *msg, struct reason *why)
{
    int r = pool_give(&client->owner, &msg->give_req, &client->received_fd, why);
    if (r == 0) {
        send_plain(client, GTTD_OP_GIVE, msg->hdr.serial);
    }
    return r;
}

static int do_chunk(struct client *client, const union gttd_msg *msg, struct reason *why)
{
    const struct gttd_chunk_req *req = &msg->chunk_req;
    struct gttd_chunk_rsp rsp = {.hdr = gttd_header(sizeof rsp, GTTD_OP_CHUNK, req->hdr.serial),
                                 .id = req->id,
                                 .index = req->index};
    int fd;
    int r = pool_chunk(&client->owner, req->id, req->index, &fd, &rsp.size_bytes, why);
    if (r == 0) {
        client_send(client, &rsp.hdr, fd);
    }
    return r;
}

static int do_seal(struct client *client, const union gttd_msg *msg, struct reason *why)
{
    int r = pool_seal(&client->owner, &msg->seal_req, why);
    return r == POOL_LATER ? 0 : r;
}

static int do_open(struct client *client, const union gttd_msg *msg, struct reason *why)
{
    struct segment *segment;
    enum gttd_role role;
    int r = pool_open(&client->server->pool, &client->owner, &msg->open_req, &segment, &role, why);
    if (r == 0) {
        send_open(client, msg->hdr.serial, segment, role);
    }
    return r == POOL_LATER ? 0 : r;
}

static int do_close(struct client *client, const union gttd_msg *msg, struct reason *why)
{
    struct pool *pool = &client->server->pool;
    const struct gttd_close_req *req = &msg->close_req;
    int r = req->id ? pool_close(pool, &client->owner, req->id, why)
                    : pool_cancel(pool, &client->owner, req->wait_serial, why);
    if (r == 0) {
        send_plain(client, GTTD_OP_CLOSE, req->hdr.serial);
    }
    return r;
}

static int do_drop(struct client *client, const union gttd_msg *msg, struct reason *why)
{
    const struct gttd_drop_req *req = &msg->drop_req;
    int r = pool_drop(&client->server->pool, &client->owner, req->id, req->name, req->flags, why);
    if (r == 0) {
        send_plain(client, GTTD_OP_DROP, req->hdr.serial);
    }
    return r;
}

static int do_watch(struct client *client, const union gttd_msg *msg, struct reason *why)
{
    (void)why;
    if (!client->watching) {
        client->watching = true;
        client->server->n_watchers++;
    }
    send_plain(client, GTTD_OP_WATCH, msg->hdr.serial);
    return 0;
}

static int (*const handlers[])(struct client *client, const union gttd_msg *msg,
                               struct reason *why) = {
    [GTTD_OP_HELLO] = do_hello,   [GTTD_OP_STATUS] = do_status, [GTTD_OP_LIST] = do_list,
    [GTTD_OP_CREATE] = do_create, [GTTD_OP_CHUNK] = do_chunk,   [GTTD_OP_SEAL] = do_seal,
    [GTTD_OP_OPEN] = do_open,     [GTTD_OP_CLOSE] = do_close,   [GTTD_OP_DROP] = do_drop,
    [GTTD_OP_WATCH] = do_watch,   [GTTD_OP_ADOPT] = do_adopt,   [GTTD_OP_GIVE] = do_give,
};

void ops_handle(struct client *client, const union gttd_msg *msg)
{
    struct reason why;
    if (client->greeted == (msg->hdr.op == GTTD_OP_HELLO)) {
        client_kill(client, client->greeted ? "a second HELLO" : "no HELLO at the start");
        return;
    }
    if (owner_find_pending(&client->owner, msg->hdr.serial)) {
        client_kill(client, "a serial that is in use");
        return;
    }
    int r = handlers[msg->hdr.op](client, msg, &why);
    if (r < 0) {
        client_refuse(client, msg->hdr.op, msg->hdr.serial, r, why.text);
    }
}
