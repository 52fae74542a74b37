/* SPDX-License-Identifier: MIT */
/*
 * The table of segments and the rules: who may create, seal, open, close and drop what; single
 * flight and its takeover; admission and eviction. It does not know sockets: whoever asks is a
 * struct owner, late answers and news go out through callbacks.
 *
 * Functions that take *why fill it in when they fail. POOL_LATER means that pool::answer follows.
 */
#ifndef GTTD_POOL_H
#define GTTD_POOL_H

#include "admission.h"
#include "segment.h"

#define POOL_LATER 1

struct pool {
    struct heap *heap;
    struct worker *worker;
    struct fdstore *store; /* where sealed segments are kept; NULL: nowhere */
    struct limits limits;
    struct quota quota;
    struct quota adopted; /* accounts of their own: what is adopted is neither RAM nor the pool's */
    struct memory_debt debt;
    struct heap adopted_heap;
    struct memory_debt adopted_debt; /* nobody asks it */
    struct ballast ballast;
    struct list segments; /* struct segment */
    struct list memories; /* struct memory, also such as no segment has any more */
    uint64_t next_id;
    uint64_t use_clock;
    uint64_t n_evictions;
    bool pressure_watched;  /* see pressure.h */
    uint64_t yielded_bytes; /* of what should be reserved: given back under pressure, for a while */
    /*
     * The late answer to a request: status 0, or negative with *why. For an OPEN, role says what
     * the owner got of pending->segment. pending is freed when this returns. It must not call the
     * pool.
     */
    void (*answer)(void *data, const struct pending *pending, int status, enum gttd_role role,
                   const struct reason *why);
    /* Something happened to a segment; owner is who did it, NULL for the pool itself. Same rule. */
    void (*notify)(void *data, enum gttd_event_kind kind, const struct segment *segment,
                   const struct owner *owner);
    void *data; /* for both */
};

void pool_init(struct pool *pool, struct heap *heap, struct worker *worker,
               const struct limits *limits);
/* Let the ballast follow what is charged and what the limits are. Call it now and then. */
void pool_trim(struct pool *pool);
/* After worker_stop(), with no owner left. */
void pool_finish(struct pool *pool);

int pool_open(struct pool *pool, struct owner *owner, const struct gttd_open_req *req,
              struct segment **ret, enum gttd_role *ret_role, struct reason *why);
int pool_create(struct pool *pool, struct owner *owner, uint32_t serial,
                const struct gttd_create_req *req, struct reason *why);
int pool_seal(struct owner *owner, const struct gttd_seal_req *req, struct reason *why);
/* The fd stays the segment's. */
int pool_chunk(struct owner *owner, uint64_t id, uint32_t index, int *ret_fd, uint64_t *ret_bytes,
               struct reason *why);
int pool_close(struct pool *pool, struct owner *owner, uint64_t id, struct reason *why);
/* End the OPEN with this serial; it is answered with -ECANCELED. */
int pool_cancel(struct pool *pool, struct owner *owner, uint32_t serial, struct reason *why);
int pool_drop(struct pool *pool, struct owner *owner, uint64_t id, const char *name, uint32_t flags,
              struct reason *why);
/* The first visible segment with an id above cursor, or NULL. */
struct segment *pool_next(struct pool *pool, const struct owner *owner, uint64_t cursor);

/* Forget an owner: its requests are not answered any more, its holds are given back. */
void pool_owner_gone(struct pool *pool, struct owner *owner);
/* Answer every request that waits with -ESHUTDOWN. */
void pool_shut_down(struct pool *pool);

/* True if what concerns uid is this owner's business: its own, and everything for root and where
 * users share. */
bool pool_shows(const struct pool *pool, const struct owner *owner, uid_t uid);

/* ---- adopt.c: memory that clients hand over ---- */

/* Begin a segment of this owner that consists of device memory. */
int pool_adopt(struct pool *pool, struct owner *owner, const struct gttd_adopt_req *req,
               struct segment **ret, struct reason *why);
/* One chunk of it; *fd is taken (and -1 then) only on success. */
int pool_give(struct owner *owner, const struct gttd_give_req *req, int *fd, struct reason *why);
/* Whether this owner may be about to give one. */
bool pool_expects_fd(const struct owner *owner);
/* An adopted segment can be sealed when all its chunks have been given. */
int pool_check_given(const struct segment *segment, struct reason *why);
/* Whether this owner may have this segment's memory, naming device (NULL: none). */
int pool_check_device(const struct segment *segment, const struct owner *owner,
                      const struct gttd_device_id *device, struct reason *why);

/* ---- for adopt.c ---- */

/* The segment that a CREATE or ADOPT of this owner is about: what it has claimed, or a new one. */
int pool_create_target(struct pool *pool, struct owner *owner, const char *name,
                       struct segment **ret, struct reason *why);
/* Give back a hold. */
void pool_release(struct pool *pool, struct lease *lease);

/* From now on these limits hold; nobody loses what they have. */
void pool_set_limits(struct pool *pool, const struct limits *limits);

#endif
