/* SPDX-License-Identifier: MIT */
/*
 * systemd's watchdog: says at half of WatchdogSec that the event loop still turns. It does not
 * speak for the worker thread: a step of that may last as long as the kernel takes to find and zero
 * memory, and to kill gttd for it would not end the wait in the kernel but would end what still
 * works, opening segments. A worker that keeps a lock the loop needs stops the loop, and is
 * noticed.
 */
#ifndef GTTD_WATCHDOG_H
#define GTTD_WATCHDOG_H

#include "loop.h"

struct watchdog {
    struct source source; /* a timerfd; fd -1: no watchdog is asked for */
};

/* Start if $WATCHDOG_USEC asks this process for it. */
int watchdog_start(struct watchdog *watchdog, struct loop *loop);
/* Accepts one whose fd is -1. */
void watchdog_stop(struct watchdog *watchdog);

#endif
