/* SPDX-License-Identifier: MIT */
/* What the files of the engine share: the loaded model itself. Private to runtime/engine/. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "backend.h"
#include "llm.h"
#include "model.h"
#include "weights.h"

struct llm_engine {
    struct model model;
    struct weights weights;
    struct tokenizer *tokenizer; /* NULL: random weights */
    const struct backend_ops *ops;
    struct backend *backend;
    struct backend_model *bound;
    struct backend_info info;
    enum weight_path path;
    uint32_t max_batch;
    char model_id[128];
    struct start start;
};

struct llm_session {
    struct llm_engine *engine;
    struct backend_state *state;
    uint32_t max_pos;
    uint32_t rewind_max; /* see backend_ops.state_create */
    uint64_t kv_bytes;
    int32_t *ids;     /* [max_pos], the tokens whose keys are in the cache */
    uint32_t pos;     /* how many of them */
    uint32_t high;    /* the highest pos since the cache was last started over */
    bool is_decoding; /* a decoder has it: nobody else may */
};

/* What a step of several sessions is made of; *ret_states is what the backend calls them. */
int sessions_check(struct llm_session *const *sessions, uint32_t n, struct err *err,
                   struct backend_state **ret_states);

#endif
