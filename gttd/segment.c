/* SPDX-License-Identifier: MIT */
/* Segments, leases, pendings: see segment.h. */
#include "segment.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "gttd_wire.h"

struct segment *segment_create(struct account *account, const char *name)
{
    struct segment *segment = calloc(1, sizeof *segment);
    if (!segment) {
        return NULL;
    }
    list_init(&segment->link);
    list_init(&segment->leases);
    list_init(&segment->waiters);
    gttd_set_text(segment->name, sizeof segment->name, name);
    segment->was_named = name[0] != '\0';
    segment->state = GTTD_CLAIMED;
    segment->account = account;
    account->n_refs++;
    account->n_segments++;
    return segment;
}

void segment_destroy(struct segment *segment)
{
    assert(!segment->n_leases && !segment->n_waiters && !segment->request && !segment->memory);
    list_remove(&segment->link);
    segment->account->n_segments--;
    quota_put(segment->account);
    free(segment);
}

bool segment_is_adopted(const struct segment *segment)
{
    return segment->device.handle != 0;
}

void segment_give(struct segment *segment, struct account *account)
{
    assert(!segment->memory);
    account->n_refs++;
    account->n_segments++;
    segment->account->n_segments--;
    quota_put(segment->account);
    segment->account = account;
}

int lease_create(struct owner *owner, struct segment *segment, struct lease **ret)
{
    struct lease *lease = calloc(1, sizeof *lease);
    if (!lease) {
        return -ENOMEM;
    }
    lease->owner = owner;
    lease->segment = segment;
    list_append(&owner->leases, &lease->owner_link);
    list_append(&segment->leases, &lease->segment_link);
    owner->n_leases++;
    segment->n_leases++;
    *ret = lease;
    return 0;
}

void lease_destroy(struct lease *lease)
{
    list_remove(&lease->owner_link);
    list_remove(&lease->segment_link);
    lease->owner->n_leases--;
    lease->segment->n_leases--;
    if (lease->segment->writer == lease) {
        lease->segment->writer = NULL;
    }
    free(lease);
}

int pending_create(struct owner *owner, struct segment *segment, enum gttd_op op, uint32_t serial,
                   bool waits, struct pending **ret)
{
    struct pending *pending = calloc(1, sizeof *pending);
    if (!pending) {
        return -ENOMEM;
    }
    pending->owner = owner;
    pending->segment = segment;
    pending->op = op;
    pending->serial = serial;
    list_append(&owner->pendings, &pending->owner_link);
    owner->n_pendings++;
    list_init(&pending->segment_link);
    if (waits) {
        list_append(&segment->waiters, &pending->segment_link);
        segment->n_waiters++;
    } else {
        segment->request = pending;
    }
    *ret = pending;
    return 0;
}

void pending_destroy(struct pending *pending)
{
    list_remove(&pending->owner_link);
    pending->owner->n_pendings--;
    if (pending->segment->request == pending) {
        pending->segment->request = NULL;
    } else {
        list_remove(&pending->segment_link);
        pending->segment->n_waiters--;
    }
    free(pending);
}

void pending_move(struct pending *pending, struct segment *segment)
{
    list_remove(&pending->segment_link);
    pending->segment->n_waiters--;
    pending->segment = segment;
    list_append(&segment->waiters, &pending->segment_link);
    segment->n_waiters++;
}

struct lease *owner_find_lease(struct owner *owner, uint64_t segment_id)
{
    list_for_each(pos, &owner->leases)
    {
        struct lease *lease = list_entry(pos, struct lease, owner_link);
        if (lease->segment->id == segment_id) {
            return lease;
        }
    }
    return NULL;
}

struct pending *owner_find_pending(struct owner *owner, uint32_t serial)
{
    list_for_each(pos, &owner->pendings)
    {
        struct pending *pending = list_entry(pos, struct pending, owner_link);
        if (pending->serial == serial) {
            return pending;
        }
    }
    return NULL;
}
