/* SPDX-License-Identifier: MIT */
/*
 * What pins a GPU driver's memory. There is no call for that, but a driver pins what another device
 * imports statically, for as long as the import lasts: the anchor is an open device that imports
 * each chunk and does nothing with it. Whether that pins depends on the kernel, so it is measured,
 * chunk by chunk: pinned is only what the exporting driver has counted as pinned.
 *
 * It knows dma-bufs and how to ask for a count; not heaps, not chunks.
 *
 * Threads: open, adopt and close on the main thread; the rest on any.
 */
#ifndef GTTD_ANCHOR_H
#define GTTD_ANCHOR_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gttd_proto.h"
#include "reason.h"

struct anchor {
    int fd;               /* of the device; -1: nothing to pin with. It is what holds the pins */
    char path[64];        /* of the device */
    char driver[32];      /* its name */
    bool kept;            /* it was open before us: imports made through it still hold */
    pthread_mutex_t turn; /* held while the count is changed or compared: milliseconds */
    pthread_mutex_t lock; /* of the fields below */
    bool proven;          /* it has pinned something */
    struct reason why;    /* why nothing, or the last import, is not pinned; empty: it is */
};

/* Bytes that the exporting driver counts as pinned, by anyone. -errno: it does not say. */
typedef int (*anchor_count_fn)(void *data, uint64_t *ret_bytes);

/*
 * Find and open the device called choice: a path, "off" for none, or with "auto" or NULL an NPU of
 * the driver amdxdna, else a vgem device. That "auto" finds nothing is no error, but anchor->why
 * says so. Errors: those of opening what was named, -ENODEV it is not a DRM device.
 */
int anchor_open(struct anchor *anchor, const char *choice, struct reason *why);
/* Use the fd that a gttd before us had in its anchor, so that its pins stay. Consumes fd also on
 * failure. -EBADMSG: it is not the same device. */
int anchor_adopt(struct anchor *anchor, int fd_consume, struct reason *why);
void anchor_close(struct anchor *anchor); /* one that was opened */

/*
 * Import dmabuf_fd. True: it is pinned, proven by the count having grown by exactly size_bytes, and
 * *ret_handle is for anchor_release(). was_pinned: an earlier gttd has proven it through the fd
 * that was adopted; then it still is if the import succeeds. False: it is not, and anchor->why says
 * why.
 */
bool anchor_pin(struct anchor *anchor, int dmabuf_fd, uint64_t size_bytes, bool was_pinned,
                anchor_count_fn count, void *data, uint32_t *ret_handle);
void anchor_release(struct anchor *anchor, uint32_t handle);
/*
 * Of an adopted device, release every import but those in handles, which may be put into another
 * order: what the gttd before had under way when it was killed would be pinned for ever. There were
 * never more than n_max at a time.
 */
void anchor_release_others(struct anchor *anchor, uint32_t *handles, size_t n_handles,
                           size_t n_max);

/* By what memory is pinned, or why it is not. */
void anchor_text(struct anchor *anchor, char ret[static GTTD_TEXT_SIZE]);

/* The three things the proof is made of; in tests something else than ioctls. */
struct anchor_hand {
    int (*import)(void *data, uint32_t *ret_handle);
    void (*release)(void *data, uint32_t handle);
    anchor_count_fn count;
    void *data;
};

/* Import until one has provably pinned size_bytes, a few times at most: others pin and unpin
 * meanwhile. 0: done, the import stays. Errors, with the import undone: -EOPNOTSUPP it does not
 * pin, -EAGAIN others' pins moved every time, and those of import and count. */
int anchor_prove(const struct anchor_hand *hand, uint64_t size_bytes, uint32_t *ret_handle);

#endif
