/* SPDX-License-Identifier: MIT */
/* The error sentence: see err.h. */
#include "err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, int code, const char *fmt, ...)
{
    if (err) {
        char text[ERR_TEXT_MAX];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(text, sizeof text, fmt, ap);
        va_end(ap);
        memcpy(err->text, text, sizeof text);
    }
    return code;
}

int err_prefix(struct err *err, int code, const char *fmt, ...)
{
    if (err) {
        char what[ERR_TEXT_MAX];
        char text[2 * ERR_TEXT_MAX + 2];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(what, sizeof what, fmt, ap);
        va_end(ap);
        snprintf(text, sizeof text, "%s: %s", what, err->text);
        text[ERR_TEXT_MAX - 1] = '\0';
        memcpy(err->text, text, ERR_TEXT_MAX);
    }
    return code;
}
