/* SPDX-License-Identifier: MIT */
/*
 * The kernel's word that the machine runs short of memory (PSI, /proc/pressure/memory), upon which
 * what is reserved and sealed segments that nobody uses are given up. GPU memory is invisible to
 * the OOM killer: nobody else can give it back.
 */
#ifndef GTTD_PRESSURE_H
#define GTTD_PRESSURE_H

#include <stdbool.h>
#include <stddef.h>

#include "loop.h"

enum pressure_kind {
    PRESSURE_OFF,
    PRESSURE_SOME, /* some task was stalled */
    PRESSURE_FULL, /* all were */
};

/* Stalls of this much within a window are pressure; step_bytes is what one window may evict. */
struct pressure_settings {
    enum pressure_kind kind;
    uint32_t stall_ms;
    uint32_t window_ms;
    uint64_t step_bytes;
};

#define PRESSURE_DEFAULT                                                                    \
    {                                                                                       \
        .kind = PRESSURE_SOME, .stall_ms = 150, .window_ms = 2000, .step_bytes = 4ull << 30 \
    }

struct pool;

struct pressure {
    struct source source; /* the trigger; fd -1: not watching */
    struct loop *loop;
    struct pool *pool;
    struct pressure_settings settings;
    struct timer calm;     /* armed while the pool has given back what it had reserved */
    int64_t complained_ms; /* when it was last said that nothing can be evicted; 0: never */
};

/* What the kernel is asked for, as it is written to its file. Returns buf. */
#define PRESSURE_TRIGGER_MAX 64
char *pressure_trigger(const struct pressure_settings *settings,
                       char buf[static PRESSURE_TRIGGER_MAX]);

/* Watch, unless the settings say no; log if that is not possible here. For a new start after new
 * settings, stop first. */
void pressure_start(struct pressure *pressure, struct loop *loop, struct pool *pool,
                    const struct pressure_settings *settings);
/* Accepts one that is all zero. */
void pressure_stop(struct pressure *pressure);

#endif
