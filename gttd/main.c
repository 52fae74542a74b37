/* SPDX-License-Identifier: MIT */
/* gttd: puts the parts together, from the command line to the orderly end on SIGTERM. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "gttd_util.h"
#include "listen.h"
#include "log.h"
#include "options.h"
#include "restore.h"
#include "server.h"
#include "watchdog.h"

#define DRAIN_MS 2000

struct daemon {
    struct options options;
    struct config config;
    struct loop loop;
    struct source signals;
    struct watchdog watchdog;
    struct fdstore store;
    struct heap heap;
    struct worker worker;
    struct listen_socket listener;
    struct server server;
    struct pressure pressure;
};

static int fail(const char *what, int r, const char *why)
{
    log_line(LOG_ERR, "%s: %s", what, why ? why : strerror(-r));
    return r;
}

/* Every chunk and every connection is an fd: take all the system lets us have and share it out. */
static struct limits choose_limits(const struct config *config)
{
    struct rlimit nofile = {1024, 1024};
    if (getrlimit(RLIMIT_NOFILE, &nofile) == 0) {
        nofile.rlim_cur = nofile.rlim_max;
        setrlimit(RLIMIT_NOFILE, &nofile);
    }
    uint32_t n_fds = nofile.rlim_cur < 1u << 20 ? (uint32_t)nofile.rlim_cur : 1u << 20;
    struct limits limits = {
        .capacity_bytes = config->pool_bytes,
        .quota_bytes = config->quota_bytes,
        .n_user_quotas = config->n_user_quotas,
        .floor_bytes = config->floor_bytes,
        .share_group = config->share_group,
        .adopts = config->adopts,
        .adopted_quota_bytes = config->adopted_quota_bytes,
        .chunks_max = n_fds / 4, /* two fds each in some heaps */
        .chunks_per_user = n_fds / 8,
        .segments_per_user = 4096,
        .clients_max = n_fds / 8 < 4096 ? n_fds / 8 : 4096,
        .clients_per_user = n_fds / 16 < 1024 ? n_fds / 16 : 1024,
    };
    memcpy(limits.user_quotas, config->user_quotas, sizeof limits.user_quotas);
    return limits;
}

static void log_limits(const char *intro, const struct limits *limits)
{
    char pool[SIZE_TEXT_MAX] = "unlimited", quota[SIZE_TEXT_MAX] = "unlimited";
    char floor[SIZE_TEXT_MAX], adopt[SIZE_TEXT_MAX] = "unlimited", users[64] = "";
    if (limits->capacity_bytes) {
        size_text(limits->capacity_bytes, pool);
    }
    if (limits->quota_bytes) {
        size_text(limits->quota_bytes, quota);
    }
    if (limits->adopts && limits->adopted_quota_bytes) {
        size_text(limits->adopted_quota_bytes, adopt);
    }
    if (limits->n_user_quotas) {
        snprintf(users, sizeof users, " (%u with their own)", limits->n_user_quotas);
    }
    log_line(LOG_INFO, "%s: pool %s, quota %s%s, floor %s, share %s, adopt %s", intro, pool, quota,
             users, size_text(limits->floor_bytes, floor), limits->share_group ? "group" : "user",
             limits->adopts ? adopt : "off");
}

/* Keys that only count at the start keep the value they had there. */
static void keep_fixed(const struct config *now, struct config *fresh)
{
    const struct {
        const char *key, *now;
        char *fresh;
    } fixed[] = {{"heap", now->heap, fresh->heap},
                 {"device", now->device, fresh->device},
                 {"anchor", now->anchor, fresh->anchor}};
    for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
        if (strcmp(fixed[i].now, fixed[i].fresh) != 0) {
            log_line(LOG_WARNING, "%s = %s: only from the next start on; it stays %s", fixed[i].key,
                     fixed[i].fresh, fixed[i].now);
            strcpy(fixed[i].fresh, fixed[i].now);
        }
    }
}

/* SIGHUP. Lower limits take nothing away from anybody: they refuse more, and evict for it. */
static void reload(struct daemon *d)
{
    struct config fresh;
    struct reason why;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRId64,
               (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    if (options_configure(&d->options, &fresh, &why) < 0) {
        log_line(LOG_ERR, "%s; nothing of it is used, what was in force stays", why.text);
        sd_notifyf(0, "READY=1\nSTATUS=Not reloaded: %s", why.text);
        return;
    }
    keep_fixed(&d->config, &fresh);
    d->config = fresh;
    struct limits limits = choose_limits(&fresh);
    pool_set_limits(&d->server.pool, &limits);
    pressure_stop(&d->pressure);
    pressure_start(&d->pressure, &d->loop, &d->server.pool, &fresh.pressure);
    log_limits("reloaded", &limits);
    sd_notify(0, "READY=1\nSTATUS=");
}

static void on_signal(struct source *source, uint32_t events)
{
    struct daemon *d = list_entry(source, struct daemon, signals);
    struct signalfd_siginfo info;
    (void)events;
    if (read(source->fd, &info, sizeof info) != sizeof info || d->server.draining) {
        return;
    }
    if (info.ssi_signo == SIGHUP) {
        reload(d);
        return;
    }
    log_line(LOG_INFO, "%s: ending", info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
    sd_notify(0, "STOPPING=1");
    server_drain(&d->server, DRAIN_MS);
}

/* Before any thread: they inherit the mask, so that only the signalfd gets these. */
static int catch_signals(struct daemon *d)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN); /* stderr may be one */
    d->signals =
        (struct source){.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), .ready = on_signal};
    return d->signals.fd < 0 ? -errno : loop_add(&d->loop, &d->signals, EPOLLIN);
}

static void log_start(const struct daemon *d, const struct limits *limits)
{
    log_line(LOG_INFO, "%s: heap %s", d->listener.path, d->heap.ops->name);
    log_limits("limits", limits);
    if (d->store.there) {
        log_line(LOG_INFO,
                 "sealed segments outlive a restart: the service manager keeps up to %u fds",
                 d->store.fds_max);
    } else {
        log_line(LOG_NOTICE, "a restart loses the pool: %s", d->store.why_not);
    }
}

/* What of the pool the next gttd will find, and what not. */
static void log_end(const struct pool *pool)
{
    uint64_t kept_bytes = 0, lost_bytes = 0;
    uint32_t n_kept = 0, n_lost = 0;
    list_for_each(pos, &pool->segments)
    {
        const struct segment *segment = list_entry(pos, struct segment, link);
        if (segment->state != GTTD_SEALED) {
            continue;
        }
        bool kept = segment->memory->keep.record_fd >= 0;
        *(kept ? &kept_bytes : &lost_bytes) += segment->memory->size_bytes;
        *(kept ? &n_kept : &n_lost) += 1;
    }
    char kept_size[SIZE_TEXT_MAX], lost_size[SIZE_TEXT_MAX];
    log_line(LOG_INFO,
             "ended; %u sealed segments stay with the service manager (%s), %u sealed segments are "
             "lost (%s)",
             n_kept, size_text(kept_bytes, kept_size), n_lost, size_text(lost_bytes, lost_size));
}

static int open_heap(struct daemon *d, struct reason *why)
{
    bool any = !strcmp(d->config.device, "auto");
    struct heap_choice choice = {.heap = d->config.heap,
                                 .device = any ? NULL : d->config.device,
                                 .anchor = d->config.anchor};
    return heap_open(&d->heap, &choice, why);
}

static int set_up(struct daemon *d)
{
    struct reason why;
    int passed_fd, n_passed;
    int r = options_configure(&d->options, &d->config, &why);
    if (r < 0) {
        return fail("configuration", r, why.text);
    }
    struct limits limits = choose_limits(&d->config);
    r = loop_init(&d->loop);
    if (r == 0) {
        r = catch_signals(d);
    }
    if (r < 0) {
        return fail("event loop", r, NULL);
    }
    r = fdstore_open(&d->store, &passed_fd, &n_passed, &why);
    if (r < 0) {
        return fail("fd store", r, why.text);
    }
    r = listen_open(&d->listener, passed_fd, n_passed, d->options.socket_path, &why);
    if (r < 0) {
        return fail("socket", r, why.text);
    }
    r = open_heap(d, &why);
    if (r < 0) {
        return fail("heap", r, why.text);
    }
    restore_anchor(&d->heap, &d->store);
    r = worker_start(&d->worker, &d->loop);
    if (r < 0) {
        return fail("worker thread", r, NULL);
    }
    r = server_init(&d->server, &d->loop, d->listener.fd, &d->heap, &d->worker, &limits);
    if (r < 0) {
        return fail("server", r, NULL);
    }
    r = watchdog_start(&d->watchdog, &d->loop);
    if (r < 0) {
        return fail("watchdog timer", r, NULL);
    }
    log_start(d, &limits);
    d->server.pool.store = &d->store;
    restore_pool(&d->server.pool);
    pool_trim(&d->server.pool); /* now that it is known what there is */
    pressure_start(&d->pressure, &d->loop, &d->server.pool, &d->config.pressure);
    return 0;
}

/* Accepts what set_up() has left half done. */
static void tear_down(struct daemon *d)
{
    if (d->server.loop) {
        log_end(&d->server.pool);
        server_disconnect_all(&d->server);
    }
    worker_stop(&d->worker);
    pressure_stop(&d->pressure);
    if (d->server.loop) {
        server_finish(&d->server);
    }
    heap_close(&d->heap);
    watchdog_stop(&d->watchdog);
    fdstore_close(&d->store);
    listen_close(&d->listener);
    close_fdp(&d->signals.fd);
    loop_finish(&d->loop);
}

int main(int argc, char **argv)
{
    struct daemon d = {.signals.fd = -1,
                       .watchdog.source.fd = -1,
                       .listener = {.fd = -1, .lock_fd = -1},
                       .loop.epoll_fd = -1,
                       .heap.device_fd = -1};
    if (hold_standard_fds() < 0) {
        return 1;
    }
    options_parse(argc, argv, &d.options);
    log_init();
    int r = set_up(&d);
    if (r == 0) {
        sd_notify(0, "READY=1");
        r = loop_run(&d.loop);
        if (r < 0) {
            fail("event loop", r, NULL);
        }
    }
    tear_down(&d);
    return r < 0 ? 1 : 0;
}
