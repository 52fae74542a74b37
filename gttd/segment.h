/* SPDX-License-Identifier: MIT */
/*
 * The nouns of the pool: segments, who holds them (leases), who waits (pendings). Life cycles of
 * the structs only; what may happen when is pool.h's.
 */
#ifndef GTTD_SEGMENT_H
#define GTTD_SEGMENT_H

#include <sys/types.h>

#include "gttd_proto.h"
#include "list.h"
#include "memory.h"
#include "quota.h"

/* Whoever can hold segments: embedded in a client. */
struct pool;

struct owner {
    uid_t uid;
    pid_t pid;
    char label[GTTD_LABEL_SIZE];
    struct account *account; /* a reference */
    struct list leases;      /* struct lease */
    struct list pendings;    /* struct pending */
    uint32_t n_leases;
    uint32_t n_pendings;
};

struct segment {
    struct pool *pool;
    struct list link; /* pool::segments, in ascending order of id */
    uint64_t id;
    struct account *account;   /* a reference; its uid is the segment's */
    char name[GTTD_NAME_SIZE]; /* empty: anonymous or dropped */
    bool was_named;            /* not anonymous */
    bool was_claimed;          /* by OPEN: a CREATE that fails leaves the claim */
    enum gttd_state state;
    struct lease *writer; /* until sealed; NULL while SEALING if the writer is gone */
    pid_t writer_pid;     /* kept for LIST */
    char writer_label[GTTD_LABEL_SIZE];
    struct memory *memory;            /* NULL while CLAIMED */
    struct gttd_device_memory device; /* handle 0: it is not adopted */
    struct pending *request;          /* the unanswered CREATE or SEAL; NULL: its client is gone */
    uint64_t last_use;                /* pool::use_clock */
    int64_t last_use_ms;              /* loop_now_ms() */
    struct list leases;               /* struct lease, with the writer's */
    struct list waiters;              /* struct pending */
    uint32_t n_leases;
    uint32_t n_waiters;
    uint8_t digest[GTTD_DIGEST_SIZE];
    uint32_t metadata_size;
    uint8_t metadata[GTTD_METADATA_MAX];
};

/* One hold of one owner on one segment. An owner may have several on the same. */
struct lease {
    struct list owner_link;   /* owner::leases */
    struct list segment_link; /* segment::leases */
    struct owner *owner;
    struct segment *segment;
};

/* A request that is answered later. */
struct pending {
    struct list owner_link;   /* owner::pendings */
    struct list segment_link; /* segment::waiters, for an OPEN */
    struct owner *owner;
    struct segment *segment;
    enum gttd_op op; /* OPEN, CREATE or SEAL */
    uint32_t serial;
    bool fill;         /* OPEN with FILL */
    bool own;          /* OPEN with OWN */
    bool names_device; /* OPEN with DEVICE */
    struct gttd_device_id device;
};

/* Takes a reference on account. NULL: no memory. The caller puts it into the pool's list. */
struct segment *segment_create(struct account *account, const char *name);
/* It has no lease, waiter, request or memory any more. */
void segment_destroy(struct segment *segment);

/* Of an adopted segment, once it has memory. */
bool segment_is_adopted(const struct segment *segment);

/* It becomes another user's. It has no memory: that never changes hands. */
void segment_give(struct segment *segment, struct account *account);

int lease_create(struct owner *owner, struct segment *segment, struct lease **ret); /* -ENOMEM */
void lease_destroy(struct lease *lease);

/* waits: put it into segment::waiters. -ENOMEM. */
int pending_create(struct owner *owner, struct segment *segment, enum gttd_op op, uint32_t serial,
                   bool waits, struct pending **ret);
void pending_destroy(struct pending *pending);
/* An OPEN that waits goes on waiting for another segment. */
void pending_move(struct pending *pending, struct segment *segment);

/* NULL: this owner has none on that segment. */
struct lease *owner_find_lease(struct owner *owner, uint64_t segment_id);
struct pending *owner_find_pending(struct owner *owner, uint32_t serial);

#endif
