/* SPDX-License-Identifier: MIT */
/*
 * From logits to a token. Owns the scratch for one vocabulary; knows nothing of models or text. The
 * random number is a function of (seed, step) alone, so a run can be repeated from any step.
 */
#ifndef ENGINE_SAMPLER_H
#define ENGINE_SAMPLER_H

#include "backend.h"
#include "llm.h"

struct sampler;

/* Errors: -EINVAL with the parameter's name and range, -ENOMEM. */
int sampler_create(uint32_t vocab, const struct llm_sampling *sampling, struct err *err,
                   struct sampler **ret);
void sampler_destroy(struct sampler *sampler);

/* What a backend needs to draw the same tokens. ret->adjust is borrowed from the sampler. */
void sampler_describe(const struct sampler *sampler, struct backend_sampling *ret);

/*
 * Draw the token of this step from logits[vocab] (overwritten). Order, as in transformers: logit
 * bias, repetition penalty over history[0..n), allowed tokens, temperature, top-k, top-p, min-p.
 * Temperature 0 takes the largest (the lowest id of equals). Errors: -EDOM the logits hold a NaN or
 * an infinity at the top, -ENOMEM.
 */
int sampler_draw(struct sampler *sampler, float *logits, const int32_t *history, size_t n,
                 uint64_t step, struct err *err, int32_t *ret_id);

#endif
