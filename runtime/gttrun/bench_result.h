/* SPDX-License-Identifier: MIT */
/* What gttrun bench has measured, how it is told, and how it compares with an earlier run. */
#ifndef GTTRUN_BENCH_RESULT_H
#define GTTRUN_BENCH_RESULT_H

#include <jansson.h>

#include "llm.h"

#define BENCH_KERNELS_MAX 32

/* Tokens per second over the repetitions. */
struct bench_speed {
    uint32_t n_tokens; /* 0: not measured */
    double tps;        /* the median */
    double min, max;
};

/* One pass's kernels, longest first. */
struct bench_profile {
    struct kernel_time kernels[BENCH_KERNELS_MAX];
    size_t n;
    uint32_t n_tokens; /* 0: not measured */
};

struct bench_result {
    struct llm_engine_info info;
    uint32_t depth, reps;
    bool sampled;     /* tokens were drawn, not just the best taken */
    uint32_t n_ahead; /* tokens in flight on a device that draws them; 0: drawn on the host */
    uint64_t first_token_ns; /* see llm_result; of the first repetition; 0: none */
    struct bench_speed prefill, decode;
    struct bench_speed batch; /* n_tokens for each of n_sequences; tokens per second of all */
    uint32_t n_sequences;
    double cpu_per_s;     /* CPU seconds per second while decoding, user and system */
    double cpu_per_token; /* CPU seconds */
    double read_bps;      /* bytes per second at which the device reads the weights; 0: unknown */
    struct bench_profile prefill_kernels, decode_kernels, batch_kernels;
};

/* What an earlier run printed with --json, as far as it is compared. */
struct bench_earlier {
    json_t *json; /* owns the strings below */
    const char *version, *model, *device;
    uint32_t depth;
    struct bench_speed prefill, decode; /* only n_tokens and tps */
    float cpu_ms_per_token;             /* negative: not measured */
};

/* Read FILE. On success bench_earlier_finish() frees what *ret holds. Errors: those of open(2),
 * -EINVAL it is nothing that bench has printed. */
int bench_earlier_load(const char *path, struct bench_earlier *ret, struct err *err);
/* The same from memory; name is for messages. */
int bench_earlier_parse(const char *name, const void *text, size_t size, struct bench_earlier *ret,
                        struct err *err);
void bench_earlier_finish(struct bench_earlier *earlier);

/* Sequences that decode n_decode tokens each, together, from a depth on. */
struct bench_batch {
    uint32_t n_sequences; /* at most LLM_MAX_SEQUENCES */
    uint32_t depth, n_decode, vocab;
    struct llm_sampling sampling;
    /* Steps in flight where the device draws; 0: nothing is drawn, but every step's logits go to
     * the host. */
    uint32_t n_ahead;
};

/* *ret_tps: tokens per second of all sequences, for each of reps repetitions. *ret_profile: one
 * step's kernels; NULL: they are not timed. */
int bench_batch(struct llm_engine *engine, const struct bench_batch *plan, uint32_t reps,
                double *ret_tps, struct bench_profile *ret_profile, struct err *err);

/* earlier: NULL, or what to compare with. */
void bench_print_text(const struct bench_result *result, const struct bench_earlier *earlier);
int bench_print_json(const struct bench_result *result, const struct bench_earlier *earlier,
                     struct err *err);

#endif
