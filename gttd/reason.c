/* SPDX-License-Identifier: MIT */
/* Sentences for refusals: see reason.h. */
#include "reason.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int reason_set(struct reason *why, int code, const char *fmt, ...)
{
    va_list ap;
    memset(why->text, 0, sizeof why->text);
    va_start(ap, fmt);
    vsnprintf(why->text, sizeof why->text, fmt, ap);
    va_end(ap);
    for (char *c = why->text; *c; c++) {
        if (*c < ' ' || *c > '~') {
            *c = '?';
        }
    }
    return code;
}

char *size_text(uint64_t size_bytes, char buf[static SIZE_TEXT_MAX])
{
    if (size_bytes >= 10ull << 30) {
        snprintf(buf, SIZE_TEXT_MAX, "%.1f GiB", (double)size_bytes / (double)(1ull << 30));
    } else if (size_bytes % (1ull << 20) == 0) {
        snprintf(buf, SIZE_TEXT_MAX, "%" PRIu64 " MiB", size_bytes >> 20);
    } else {
        snprintf(buf, SIZE_TEXT_MAX, "%.1f MiB", (double)size_bytes / (double)(1ull << 20));
    }
    return buf;
}
