/* SPDX-License-Identifier: MIT */
/* Telling the caller of llm_engine_open() what is going on, through its log function. */
#ifndef ENGINE_LOG_H
#define ENGINE_LOG_H

#include "llm.h"

/* One line, printf-style; nothing if params has no log function. */
void engine_log(const struct llm_engine_params *params, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
