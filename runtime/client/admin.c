/* SPDX-License-Identifier: MIT */
/* libgtt: looking at the pool and dropping from it; status, list, drop, watch. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "connection.h"

/* The public numbers are the wire's, so that nothing needs translating. */
static_assert((int)GTT_SEALED == (int)GTTD_SEALED && (int)GTT_CLAIMED == (int)GTTD_CLAIMED, "");
static_assert((int)GTT_EVENT_LOST == (int)GTTD_EVENT_LOST, "");
static_assert((int)GTT_DROP_FORCE == (int)GTTD_DROP_FORCE, "");
static_assert(GTT_TEXT_SIZE == GTTD_TEXT_SIZE, "");
static_assert(GTT_NAME_MAX == GTTD_NAME_SIZE - 1, "");
static_assert(GTT_ALIGN_BYTES == GTTD_ALIGN_BYTES, "");

int gtt_status(struct gtt *gtt, struct gtt_status *ret)
{
    struct gttd_plain req;
    union gttd_msg msg;
    int r;
    do {
        r = gtt_call(gtt, &req.hdr, sizeof req, GTTD_OP_STATUS, "status", &msg, NULL);
    } while (r == -ERESTART);
    if (r == 0) {
        const struct gttd_status_rsp *rsp = &msg.status_rsp;
        *ret = (struct gtt_status){.capacity_bytes = rsp->capacity_bytes,
                                   .used_bytes = rsp->used_bytes,
                                   .free_ram_bytes = rsp->free_ram_bytes,
                                   .floor_bytes = rsp->floor_bytes,
                                   .quota_bytes = rsp->quota_bytes,
                                   .user_bytes = rsp->user_bytes,
                                   .n_evictions = rsp->n_evictions,
                                   .gtt_total_bytes = rsp->gtt_total_bytes,
                                   .gtt_usable_bytes = rsp->gtt_usable_bytes,
                                   .gtt_used_bytes = rsp->gtt_used_bytes,
                                   .ballast_bytes = rsp->ballast_bytes,
                                   .pinned_bytes = rsp->pinned_bytes,
                                   .adopted_bytes = rsp->adopted_bytes,
                                   .adopted_user_bytes = rsp->adopted_user_bytes,
                                   .adopted_quota_bytes = rsp->adopted_quota_bytes,
                                   .n_adopted = rsp->n_adopted,
                                   .adopts = rsp->adopts,
                                   .n_clients = rsp->n_clients,
                                   .n_segments = rsp->n_segments,
                                   .n_sealed = rsp->n_sealed,
                                   .n_leases = rsp->n_leases,
                                   .n_waiters = rsp->n_waiters,
                                   .pressure_watched = rsp->flags & GTTD_PRESSURE_WATCHED,
                                   .share_group = rsp->flags & GTTD_SHARE_GROUP};
        memcpy(ret->device, rsp->device, sizeof ret->device);
        memcpy(ret->pin, rsp->pin, sizeof ret->pin);
    }
    return r;
}

static int next_page(struct gtt *gtt, uint64_t cursor)
{
    struct gttd_list_req req = {.cursor = cursor};
    union gttd_msg msg;
    int r;
    do {
        r = gtt_call(gtt, &req.hdr, sizeof req, GTTD_OP_LIST, "list", &msg, NULL);
    } while (r == -ERESTART);
    if (r == 0) {
        gtt->list = msg.list_rsp;
        gtt->list_at = 0;
    }
    return r;
}

int gtt_list(struct gtt *gtt, uint64_t *cursor, struct gtt_entry *ret_entry)
{
    /* the page we have is the one to go on with only if the caller comes from its last entry */
    bool goes_on = *cursor && gtt->list_at > 0 && gtt->list.entries[gtt->list_at - 1].id == *cursor;
    if (goes_on && gtt->list_at == gtt->list.n_entries && !gtt->list.more) {
        return 0;
    }
    if (!goes_on || gtt->list_at == gtt->list.n_entries) {
        int r = next_page(gtt, *cursor);
        if (r < 0) {
            return r;
        }
        if (!gtt->list.n_entries) {
            return 0;
        }
    }
    const struct gttd_list_entry *entry = &gtt->list.entries[gtt->list_at++];
    *ret_entry = (struct gtt_entry){.id = entry->id,
                                    .size_bytes = entry->size_bytes,
                                    .chunk_bytes = entry->chunk_bytes,
                                    .pinned_bytes = entry->pinned_bytes,
                                    .idle_ms = entry->idle_ms,
                                    .uid = entry->uid,
                                    .pid = entry->pid,
                                    .state = (enum gtt_state)entry->state,
                                    .immutable = entry->flags & GTTD_SEGMENT_IMMUTABLE,
                                    .write_combined = entry->flags & GTTD_SEGMENT_WC,
                                    .kept = entry->flags & GTTD_SEGMENT_KEPT,
                                    .adopted = entry->flags & GTTD_SEGMENT_ADOPTED,
                                    .n_leases = entry->n_leases,
                                    .n_waiters = entry->n_waiters};
    memcpy(ret_entry->device.device_uuid, entry->device.device_uuid, GTT_UUID_SIZE);
    memcpy(ret_entry->device.driver_uuid, entry->device.driver_uuid, GTT_UUID_SIZE);
    memcpy(ret_entry->device.name, entry->device_name, sizeof ret_entry->device.name);
    memcpy(ret_entry->name, entry->name, sizeof ret_entry->name);
    memcpy(ret_entry->label, entry->label, sizeof ret_entry->label);
    memcpy(ret_entry->digest, entry->digest, sizeof ret_entry->digest);
    *cursor = entry->id;
    return 1;
}

int gtt_drop(struct gtt *gtt, const char *name, uint32_t flags)
{
    struct gttd_drop_req req = {.flags = flags};
    union gttd_msg msg;
    int r = gtt_copy_name(gtt, name, req.name);
    if (r < 0) {
        return r;
    }
    do {
        r = gtt_call(gtt, &req.hdr, sizeof req, GTTD_OP_DROP, name, &msg, NULL);
    } while (r == -ERESTART);
    return r;
}

int gtt_drop_id(struct gtt *gtt, uint64_t id, uint32_t flags)
{
    struct gttd_drop_req req = {.id = id, .flags = flags};
    union gttd_msg msg;
    int r = gtt_call(gtt, &req.hdr, sizeof req, GTTD_OP_DROP, "drop", &msg, NULL);
    return r == -ERESTART /* and the id may be another's now */
               ? gtt_fail(gtt, -ECONNRESET, "drop: gttd has restarted; look again what there is")
               : r;
}

int gtt_watch(struct gtt *gtt)
{
    struct gttd_plain req;
    union gttd_msg msg;
    if (!gtt->events) {
        gtt->events = calloc(GTT_EVENTS_MAX, sizeof gtt->events[0]);
        if (!gtt->events) {
            return gtt_fail(gtt, -ENOMEM, "out of memory");
        }
    }
    int r;
    do {
        r = gtt_call(gtt, &req.hdr, sizeof req, GTTD_OP_WATCH, "watch", &msg, NULL);
    } while (r == -ERESTART);
    gtt->watching = gtt->watching || r == 0;
    return r;
}

int gtt_renew_watch(struct gtt *gtt)
{
    struct gttd_plain req;
    union gttd_msg msg;
    if (!gtt->watching) {
        return 0;
    }
    const struct gttd_event lost = {.kind = GTTD_EVENT_LOST};
    gtt_keep_event(gtt, &lost); /* before what is new */
    return gtt_call_once(gtt, &req.hdr, sizeof req, GTTD_OP_WATCH, "watch", &msg, NULL);
}

int gtt_next_event(struct gtt *gtt, int timeout_ms, struct gtt_event *ret_event)
{
    if (!gtt->events) {
        return gtt_fail(gtt, -EINVAL, "gtt_watch() was not called");
    }
    if (!gtt->n_events && gtt->n_events_lost) {
        *ret_event = (struct gtt_event){.kind = GTT_EVENT_LOST, .n_lost = gtt->n_events_lost};
        gtt->n_events_lost = 0;
        return 0;
    }
    while (!gtt->n_events) {
        int r = gtt_receive_event(gtt, timeout_ms);
        if (r == -ECONNRESET && gtt->link == LINK_BROKEN) {
            r = gtt_restore(gtt, timeout_ms); /* which leaves an event */
        }
        if (r < 0) {
            return r;
        }
    }
    const struct gttd_event *event = &gtt->events[gtt->events_first];
    *ret_event = (struct gtt_event){.kind = (enum gtt_event_kind)event->kind,
                                    .uid = event->uid,
                                    .pid = event->pid,
                                    .n_lost = event->n_lost,
                                    .id = event->id,
                                    .size_bytes = event->size_bytes};
    memcpy(ret_event->name, event->name, sizeof ret_event->name);
    memcpy(ret_event->label, event->label, sizeof ret_event->label);
    gtt->events_first = (gtt->events_first + 1) % GTT_EVENTS_MAX;
    gtt->n_events--;
    return 0;
}
