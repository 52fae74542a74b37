/* SPDX-License-Identifier: MIT */
/* Sizes as text: see size.h. */
#include "size.h"

#include <stdio.h>

char *size_text(uint64_t size_bytes, char buf[static SIZE_TEXT_MAX])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)size_bytes;
    int i = 0;
    while (value >= 1024 && i < 4) {
        value /= 1024;
        i++;
    }
    if (size_bytes == 0) {
        snprintf(buf, SIZE_TEXT_MAX, "0");
    } else {
        snprintf(buf, SIZE_TEXT_MAX, i < 3 ? "%.0f %s" : "%.1f %s", value, units[i]);
    }
    return buf;
}
