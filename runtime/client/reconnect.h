/* SPDX-License-Identifier: MIT */
/*
 * Inside libgtt: what becomes of a connection when gttd restarts. It is made again, with patience
 * but not for ever, and everything it held is asked for again.
 */
#ifndef GTT_RECONNECT_H
#define GTT_RECONNECT_H

#include <stdbool.h>
#include <stdint.h>

struct gtt;

struct reconnecting {
    bool gave_up;     /* gttd did not come back: from now on only a look */
    int64_t since_ms; /* start of the time in which restores are counted */
    unsigned n_restores;
};

/* Bring a broken connection back, waiting for gttd as long as is sensible or for limit_ms, unless
 * that is -1: 0, -ECONNRESET with the sentence, or what it has ended with. */
int gtt_restore(struct gtt *gtt, int limit_ms);

#endif
