/* SPDX-License-Identifier: MIT */
/* Sizes and durations: see quantity.h. */
#include "quantity.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DAY_MS 86400000ull

int size_parse(const char *text, uint64_t *ret_bytes)
{
    static const char units[] = "KMGT";
    if (*text < '0' || *text > '9') { /* strtod would also take signs, "inf" and blanks */
        return -EINVAL;
    }
    char *end;
    double value = strtod(text, &end);
    const char *unit = *end ? strchr(units, *end) : NULL;
    if (unit) {
        value = ldexp(value, 10 * (int)(unit - units + 1));
        end++;
        end += !strcmp(end, "iB") ? 2 : !strcmp(end, "B") ? 1 : 0;
    }
    if (*end) {
        return -EINVAL;
    }
    if (!(value < 0x1p62)) {
        return -ERANGE;
    }
    *ret_bytes = (uint64_t)value;
    return 0;
}

int duration_parse(const char *text, uint32_t *ret_ms)
{
    if (*text < '0' || *text > '9') {
        return -EINVAL;
    }
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    uint64_t factor = !strcmp(end, "ms") ? 1 : !strcmp(end, "s") ? 1000 : 0;
    if (!factor) {
        return -EINVAL;
    }
    if (errno || value >= DAY_MS / factor) {
        return -ERANGE;
    }
    *ret_ms = (uint32_t)(value * factor);
    return 0;
}
