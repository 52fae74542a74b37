/* SPDX-License-Identifier: MIT */
/* The steps from a process's start to its first token, and when each was done. */
#ifndef BASE_START_H
#define BASE_START_H

#include <stdint.h>

/* In no order: some are done next to each other. */
enum start_step {
    START_BEGUN,     /* options are read */
    START_TEXT,      /* config and tokenizer are there */
    START_INSTANCE,  /* Vulkan's loader and drivers are loaded, the device is chosen */
    START_DEVICE,    /* it is open, with what is kept on disk for it */
    START_POOL,      /* the weights are mapped: found in the pool, or filled in */
    START_PIPELINES, /* the shaders are compiled, or found compiled */
    START_WEIGHTS,   /* the device can read the weights */
    START_TUNED,     /* what was new to the tuner is measured */
    START_STATE,     /* the first sequence has its memory */
    START_RECORDED,  /* its first pass is recorded */
    START_STEPS,
};

/* CLOCK_MONOTONIC in ns; 0: not done. Each step is one thread's. */
struct start {
    uint64_t done_ns[START_STEPS];
};

/* The step is done now, if it was not before. start may be NULL. */
void start_done(struct start *start, enum start_step step);

/* "begun", "text", ... */
const char *start_step_text(enum start_step step);

#endif
