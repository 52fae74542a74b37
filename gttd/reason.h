/* SPDX-License-Identifier: MIT */
/*
 * The sentence that goes with a negative errno, sized and cleaned for the wire: functions that can
 * refuse something take a struct reason as their last input argument and fill it in on failure.
 */
#ifndef GTTD_REASON_H
#define GTTD_REASON_H

#include "gttd_proto.h"

struct reason {
    char text[GTTD_REASON_SIZE]; /* printable ASCII, zero behind the NUL */
};

/* Write the sentence, cut to what fits; return code unchanged. */
int reason_set(struct reason *why, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Enough of a size for a person: "64 MiB", "20.0 GiB". Returns buf. */
#define SIZE_TEXT_MAX 32
char *size_text(uint64_t size_bytes, char buf[static SIZE_TEXT_MAX]);

#endif
