/* SPDX-License-Identifier: MIT */
/* PSI and what to do about it: see pressure.h. */
#include "pressure.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "evict.h"
#include "gttd_util.h"
#include "log.h"

#define PSI_PATH    "/proc/pressure/memory"
#define COMPLAIN_MS 60000
#define CALM_MS     60000 /* without pressure, before memory is reserved again */

char *pressure_trigger(const struct pressure_settings *settings,
                       char buf[static PRESSURE_TRIGGER_MAX])
{
    snprintf(buf, PRESSURE_TRIGGER_MAX, "%s %u %u",
             settings->kind == PRESSURE_FULL ? "full" : "some", settings->stall_ms * 1000,
             settings->window_ms * 1000);
    return buf;
}

/* Pressure that we cannot help: say so, but not every two seconds. */
static void complain(struct pressure *pressure)
{
    const struct pool *pool = pressure->pool;
    char free_ram[SIZE_TEXT_MAX], floor[SIZE_TEXT_MAX], used[SIZE_TEXT_MAX];
    int64_t now_ms = loop_now_ms();
    if (pressure->complained_ms && now_ms - pressure->complained_ms < COMPLAIN_MS) {
        return;
    }
    pressure->complained_ms = now_ms;
    log_line(LOG_WARNING,
             "memory pressure: free RAM of %s is below the floor of %s, and none of the %s held is "
             "sealed and unused",
             size_text(admission_free_ram(&pool->debt), free_ram),
             size_text(pool->limits.floor_bytes, floor), size_text(pool->quota.bytes, used));
}

/*
 * Stalls also come from a cgroup at its own limit, or from a slow disk, and giving up segments
 * would not help those: so only as long as free RAM is below the floor. What is reserved goes
 * first, for nobody misses what is in it.
 */
static void on_pressure(struct source *source, uint32_t events)
{
    struct pressure *pressure = list_entry(source, struct pressure, source);
    struct pool *pool = pressure->pool;
    if (events & (EPOLLERR | EPOLLHUP)) {
        log_line(LOG_WARNING, "%s: the kernel has ended the watch; no eviction under pressure",
                 PSI_PATH);
        pressure_stop(pressure);
        return;
    }
    if (!pool_below_floor(pool)) {
        return;
    }
    if (pool_yield(pool, pressure->settings.step_bytes)) {
        loop_arm(pressure->loop, &pressure->calm, loop_now_ms() + CALM_MS);
        return;
    }
    if (!pool_relieve(pool, pressure->settings.step_bytes)) {
        complain(pressure);
    }
}

/* The pool may grow again, as far as the floor lets it. */
static void on_calm(struct timer *timer)
{
    struct pressure *pressure = list_entry(timer, struct pressure, calm);
    pressure->pool->yielded_bytes = 0;
}

/* A trigger is an open file with the condition written to it; it ends with the close. */
static int open_trigger(const struct pressure_settings *settings)
{
    char text[PRESSURE_TRIGGER_MAX];
    AUTO_FD fd = open(PSI_PATH, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return -errno;
    }
    pressure_trigger(settings, text);
    if (write(fd, text, strlen(text) + 1) < 0) {
        return -errno;
    }
    return take_fd(&fd);
}

/* Why the kernel might say so. */
static const char *explain(int r)
{
    switch (r) {
    case -ENOENT:
        return "this kernel has no PSI (CONFIG_PSI)";
    case -EOPNOTSUPP:
        return "PSI is off (boot with psi=1)";
    case -EPERM:
    case -EACCES:
        return "not permitted (before Linux 6.4 it takes CAP_SYS_RESOURCE)";
    default:
        return strerror(-r);
    }
}

void pressure_start(struct pressure *pressure, struct loop *loop, struct pool *pool,
                    const struct pressure_settings *settings)
{
    *pressure = (struct pressure){.source = {.fd = -1, .ready = on_pressure},
                                  .loop = loop,
                                  .pool = pool,
                                  .settings = *settings};
    list_init(&pressure->calm.link);
    pressure->calm.expired = on_calm;
    if (settings->kind == PRESSURE_OFF) {
        return;
    }
    int r = open_trigger(settings);
    if (r >= 0) {
        pressure->source.fd = r;
        r = loop_add(loop, &pressure->source, EPOLLPRI);
    }
    if (r < 0) {
        close_fdp(&pressure->source.fd);
        log_line(LOG_WARNING, "%s: %s; no eviction under pressure", PSI_PATH, explain(r));
    }
    pool->pressure_watched = pressure->source.fd >= 0;
}

void pressure_stop(struct pressure *pressure)
{
    if (!pressure->loop) {
        return;
    }
    loop_disarm(&pressure->calm);
    pressure->pool->yielded_bytes = 0;
    if (pressure->source.fd >= 0) {
        loop_remove(pressure->loop, &pressure->source);
        close_fdp(&pressure->source.fd);
        pressure->pool->pressure_watched = false;
    }
}
