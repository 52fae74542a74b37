/* SPDX-License-Identifier: MIT */
/* The engine's log line: see log.h. */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>

void engine_log(const struct llm_engine_params *params, const char *fmt, ...)
{
    char text[ERR_TEXT_MAX];
    if (!params->log) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    params->log(params->data, text);
}
