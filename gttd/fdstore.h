/* SPDX-License-Identifier: MIT */
/*
 * The service manager's fd store: what is put there outlives this process, and the next gttd gets
 * it back. It knows names, fds and how many there is room for; what is in them is restore.h's.
 *
 * Names: "gttd-s-ID" the record (record.h) of segment ID, "gttd-c-ID" its chunks, all under one
 * name; "gttd-a-ID-INDEX" a chunk of an adopted segment; "gttd-h-WHAT" an fd of the heap's. The
 * record is put last and removed first: chunks without one belong to nothing.
 *
 * Threads: put and barrier on any; everything else on the main thread.
 */
#ifndef GTTD_FDSTORE_H
#define GTTD_FDSTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "reason.h"

/* One fd that was handed back to us and that nobody has taken yet. */
struct stored_fd {
    char kind;      /* 's', 'c', 'a', 'h'; 0: not one of ours */
    uint64_t id;    /* of 's', 'c' and 'a' */
    uint32_t index; /* of 'a' */
    dev_t dev;      /* of fstat() */
    ino_t ino;
    int fd;     /* -1: taken */
    char *name; /* the store's */
};

struct fdstore {
    bool there;                 /* a manager that will keep what it is given */
    const char *why_not;        /* if not */
    uint32_t fds_max;           /* what it takes; only if there */
    uint32_t n_in_use;          /* put, or about to be, and not removed */
    struct stored_fd *returned; /* [n_returned], by id, kind, index and inode; owned */
    size_t n_returned;
};

/*
 * Take over what the manager has passed: stored fds go to store->returned, any others, which are
 * sockets, are the caller's: *ret_socket the first (-1: none), *ret_n_sockets how many. -ENOMEM.
 * All are CLOEXEC.
 */
int fdstore_open(struct fdstore *store, int *ret_socket, int *ret_n_sockets, struct reason *why);
/* Close what was not taken; the manager keeps what it has. */
void fdstore_close(struct fdstore *store);

/* Count n_fds as used, if the manager has room for them. -ENOSPC with *why. */
int fdstore_reserve(struct fdstore *store, uint32_t n_fds, struct reason *why);
/* They are not used after all. */
void fdstore_release(struct fdstore *store, uint32_t n_fds);

/* Give the manager copies of fds, reserved before. An error of sendmsg(). */
int fdstore_put(char kind, uint64_t id, const int *fds, size_t n_fds);
/* The same for the chunk index of an adopted segment. */
int fdstore_put_adopted(uint64_t id, uint32_t index, int fd);

/* Wait until the manager has done all that it was told before; -ETIMEDOUT after some seconds. */
int fdstore_barrier(void);

/* Have the manager forget all fds of a segment, of which n_fds were counted; n_adopted of them are
 * chunks of an adopted one, from index 0 on. */
void fdstore_remove(struct fdstore *store, uint64_t id, uint32_t n_fds, uint32_t n_adopted);
/* The same for what was handed back of a segment, and cannot be used. */
void fdstore_remove_returned(struct fdstore *store, struct stored_fd *fds, size_t n_fds);

/* The same for an fd of the heap's: reserve and put one; have it forgotten; take over the one that
 * was handed back, -1: there is none. */
int fdstore_put_heap(struct fdstore *store, const char *what, int fd, struct reason *why);
void fdstore_remove_heap(struct fdstore *store, const char *what);
int fdstore_take_heap(struct fdstore *store, const char *what);

#endif
