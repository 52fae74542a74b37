/* SPDX-License-Identifier: MIT */
/*
 * The seam by which a device's own copy of the weights outlives the process that made it: a backend
 * that has to copy asks whether somebody keeps a copy already, and offers the one it makes. Who
 * keeps it (gttd, see kept.h) it does not know.
 *
 * Calls block, and come from one thread at a time.
 */
#ifndef ENGINE_KEEPER_H
#define ENGINE_KEEPER_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"

#define KEEPER_UUID_SIZE 16

/* The device, and how the memory was allocated that a copy is in: one allocation per chunk of the
 * weights, exported as an opaque fd. */
struct device_memory {
    uint8_t device_uuid[KEEPER_UUID_SIZE];
    uint8_t driver_uuid[KEEPER_UUID_SIZE];
    char device[64]; /* for people */
    uint32_t memory_type;
    bool dedicated;
    uint64_t alloc_bytes; /* of each chunk but the last */
    uint64_t last_alloc_bytes;
};

struct weight_keeper {
    void *data;
    /*
     * Look for a copy of these weights on this device (its UUIDs and name). 0: there is one, *ret
     * says what an importer must know, and fds [n_chunks] are borrowed until the weights are
     * closed; it is for the caller to see whether it is what it should be. 1: there is none, and
     * the caller is to make it, which ends with keep() or forgo(). Negative: none can be had, and
     * none will be kept. Waits while another process makes one.
     */
    int (*find)(void *data, const struct device_memory *device, struct device_memory *ret, int *fds,
                struct err *err);
    /* Have this copy kept; fds [n_chunks] are borrowed. Failing does the copy no harm. */
    int (*keep)(void *data, const struct device_memory *memory, const int *fds, struct err *err);
    /* It is not made after all. */
    void (*forgo)(void *data);
    /* What find() gave is not the weights, or cannot be used: have it forgotten. 1: the caller is
     * to make another, as with find(). */
    int (*reject)(void *data, const struct device_memory *device, struct err *err);
    /* The device is out of memory: give up a copy that is kept there and that nobody uses. False:
     * there is none. */
    bool (*reclaim)(void *data, const struct device_memory *device);
};

/* What becoming ready took of a start, where the device has a copy; 0 for what was not done. */
struct weight_start {
    bool kept;         /* the copy outlives this process */
    double find_ms;    /* asking, and waiting for another process */
    double import_ms;  /* making the kept memory the device's again */
    double compare_ms; /* samples of it with the weights */
    double copy_ms;
    double keep_ms; /* exporting and handing over */
};

#endif
