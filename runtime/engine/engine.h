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

struct llm_engine *session_engine(struct llm_session *session);

/* Decoding ahead, where the backend can (backend_ops.decode_start). */
bool session_can_decode(const struct llm_session *session);
/* The timeline holds ids[0..n - 1); ids[n - 1] is run first, and the token drawn then is that of
 * `step`. Until session_decode_stop(), no other function may be called but these. */
int session_decode_start(struct llm_session *session, const struct backend_sampling *sampling,
                         const int32_t *ids, size_t n, uint32_t step, struct err *err);
/* Submit steps until n are in flight, and wait for the oldest of them. */
int session_decode_next(struct llm_session *session, uint32_t n, struct err *err, int32_t *ret_id);
/* Wait for what is in flight; it is not part of the timeline. */
void session_decode_stop(struct llm_session *session);

#endif
