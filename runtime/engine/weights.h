/* SPDX-License-Identifier: MIT */
/*
 * Where a model's weights live: a gttd segment found (pool-hit) or filled now (pool-fill), or
 * private memory. Owns the mapping and the lease, and the one of a device's copy. Asks formats/ for
 * the bytes; knows no backend.
 */
#ifndef ENGINE_WEIGHTS_H
#define ENGINE_WEIGHTS_H

#include "kept.h"
#include "llm.h"
#include "model.h"

struct gtt;
struct gtt_segment;

struct weights {
    enum llm_source source;
    struct gtt *gtt;             /* NULL: private */
    pthread_mutex_t lock;        /* of gtt, once the weights are open */
    struct gtt_segment *segment; /* our lease */
    struct kept kept;            /* a device's copy of it */
    int *dmabuf_fds;       /* [n_chunks] of the segment, borrowed from it; NULL if no dma-bufs */
    uint8_t *private_base; /* our own anonymous memory, or NULL */
    uint64_t private_bytes;
};

/*
 * *weights must stay where it is. Get the weights of params->model_dir (or random ones) and bind
 * them: *ret_model is complete, its memory mapped read-only. Uses log, progress and the pool
 * options of params. The pool is asked first; if no gttd answers that is logged and private memory
 * is used; if gttd refuses (quota, floor, capacity) that is an error.
 */
int weights_open(struct weights *weights, const struct llm_engine_params *params,
                 const struct model_config *config, struct err *err, struct model *ret_model);
/* See llm_engine_hold(). */
int weights_hold(struct weights *weights, struct err *err);
void weights_close(struct weights *weights); /* accepts a zeroed struct */

#endif
