/* SPDX-License-Identifier: MIT */
/* What gttrun tells about a finished answer: for people on stderr, for machines as JSON. */
#ifndef GTTRUN_REPORT_H
#define GTTRUN_REPORT_H

#include <jansson.h>

#include "gttrun.h"

/* The object of `gttrun chat --json` on stdout: text, ids, prompt_ids, finish, timings, weights,
 * backend, device, start_ms. */
int report_chat(const struct llm_engine *engine, const int32_t *prompt, size_t n_prompt,
                const struct llm_result *result, struct err *err);

/* One line on stderr if it is a terminal. n_prefill: prompt tokens that were computed. */
void report_speed(size_t n_prefill, const struct llm_result *result, bool quiet);

/* {"source":…, "memory":…, "bytes":…}. A new reference, NULL out of memory. */
json_t *report_weights(const struct llm_engine_info *info);

/* {"begun":…}: for each step of the start that was done, and the first token (0: there is none),
 * the ms after the process's start. A new reference, NULL out of memory. */
json_t *report_start(const struct start *start, uint64_t first_token_ns);

/* Print and free; -EIO if stdout cannot be written, -ENOMEM if json is NULL. */
int report_print(json_t *json, struct err *err);

#endif
