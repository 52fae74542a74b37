/* SPDX-License-Identifier: MIT */
/*
 * A device's copy of the weights that gttd keeps: an adopted segment beside the one in the pool
 * that it is a copy of, under a name made from that one's and the device's. See keeper.h for whom.
 */
#ifndef ENGINE_KEPT_H
#define ENGINE_KEPT_H

#include <pthread.h>

#include "keeper.h"
#include "llm.h"

struct gtt;
struct gtt_segment;

struct kept {
    const struct llm_engine_params *params;
    struct gtt *gtt;              /* borrowed */
    const struct gtt_segment *of; /* what it is a copy of; borrowed */
    pthread_mutex_t *lock;        /* of gtt; borrowed */
    char of_name[128];
    char name[128];              /* set by find() */
    struct gtt_segment *segment; /* our lease; NULL: none */
    struct weight_keeper keeper;
};

/* of is sealed and stays open; name is its. params only for the log, and only while it is opened:
 * kept_quiet() ends that. */
void kept_init(struct kept *kept, const struct llm_engine_params *params, struct gtt *gtt,
               const struct gtt_segment *of, const char *name, pthread_mutex_t *lock);
void kept_quiet(struct kept *kept);
void kept_finish(struct kept *kept); /* accepts a zeroed struct */

#endif
