/* SPDX-License-Identifier: MIT */
/*
 * The conformance suite: one backend against the C reference, on small random models that have all
 * of Gemma 3's quirks. Every operation alone, then whole forward passes. The same source runs for
 * every backend; only the tolerances differ.
 */
#ifndef TESTS_CONFORMANCE_H
#define TESTS_CONFORMANCE_H

#include <stdbool.h>

#include "backend.h"

/*
 * How far a result may be from the reference: root mean square of the difference over root mean
 * square of the reference (over one operation's whole output). A single element may be off by
 * CONFORMANCE_PEAK times that, which catches one wrong element in a large right output. Whoever
 * fills these in writes the reason beside each.
 */
#define CONFORMANCE_PEAK 8.0

struct conformance_tolerances {
    double vector;       /* norms, RoPE, GeGLU, embedding */
    double attention;    /* includes reading back what the KV cache rounds to */
    double matmul_float; /* f32, f16 and bf16 weights */
    double matmul_quant; /* q4 and q8 weights: rounding of activations, if the backend does that */
    double logits_float; /* a whole forward pass, float weights */
    double logits_quant; /* a whole forward pass, quantized weights */
    double repeat_float; /* the same tokens in another batching, on the same backend */
    double repeat_quant;
};

/*
 * Run the suite; prints a line per model and, for a failure, operation, model and difference.
 * quick: a few models only, for slow set-ups (sanitizers). n_sequences: that decode
 * together, 16 to 32, or 0 for none. Returns the number of failures, or a
 * negative errno if the backend could not be opened (-ENODEV: the caller may skip).
 */
int conformance_run(const struct backend_ops *ops, const struct backend_params *params,
                    const struct conformance_tolerances *tol, bool quick, uint32_t n_sequences);

#endif
