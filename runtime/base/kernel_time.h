/* SPDX-License-Identifier: MIT */
/* What one kind of work on a device took. */
#ifndef BASE_KERNEL_TIME_H
#define BASE_KERNEL_TIME_H

#include <stdint.h>

struct kernel_time {
    const char *name; /* lives as long as the program */
    uint32_t n;       /* how often */
    double seconds;   /* in all, with the wait before each */
};

#endif
