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
};

struct llm_engine *session_engine(struct llm_session *session);

#endif
