/* SPDX-License-Identifier: MIT */
/* Which of several GPUs to take memory from. It only compares what it is told; it opens nothing. */
#ifndef GTTD_DEVICE_H
#define GTTD_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

#include "reason.h"

struct device {
    char path[64]; /* its render node */
    char bus[32];  /* where it is, as in 0000:c5:00.0 */
    char name[64]; /* what is printed on the box */
    bool is_apu;   /* its GTT is the memory that it shares with the CPU and an NPU */
    int error;     /* 0: it can be used; else the negative errno of trying */
};

/*
 * The index of the one to use, with *why saying why that one: wanted, if that is not NULL; else the
 * first APU that can be used, else the first other. Errors, with *why: -ENODEV there is none, or
 * none called wanted; the device's own error if it is why none can be used.
 */
int device_choose(const struct device *devices, size_t n_devices, const char *wanted,
                  struct reason *why);

#endif
