/* SPDX-License-Identifier: MIT */
/* A timer that tells systemd we are alive: see watchdog.h. */
#include "watchdog.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <systemd/sd-daemon.h>

#include "gttd_util.h"

static void on_timer(struct source *source, uint32_t events)
{
    uint64_t n_expired;
    (void)events;
    if (read(source->fd, &n_expired, sizeof n_expired) == sizeof n_expired) {
        sd_notify(0, "WATCHDOG=1");
    }
}

int watchdog_start(struct watchdog *watchdog, struct loop *loop)
{
    uint64_t timeout_us;
    *watchdog = (struct watchdog){.source = {.fd = -1, .ready = on_timer}};
    if (sd_watchdog_enabled(0, &timeout_us) <= 0) {
        return 0;
    }
    uint64_t us = timeout_us / 2 ? timeout_us / 2 : 1;
    struct timespec half = {.tv_sec = (time_t)(us / 1000000),
                            .tv_nsec = (int64_t)(us % 1000000) * 1000};
    watchdog->source.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (watchdog->source.fd < 0 ||
        timerfd_settime(watchdog->source.fd, 0,
                        &(struct itimerspec){.it_interval = half, .it_value = half}, NULL) < 0) {
        return -errno;
    }
    return loop_add(loop, &watchdog->source, EPOLLIN);
}

void watchdog_stop(struct watchdog *watchdog)
{
    close_fdp(&watchdog->source.fd);
}
