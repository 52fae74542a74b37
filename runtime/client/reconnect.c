/* SPDX-License-Identifier: MIT */
/* libgtt: connections that come back when gttd does: see reconnect.h. */
#include "reconnect.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "connection.h"

/* A gttd that is restarted by a manager that keeps its pool is waited for; of any other nobody
 * knows whether it comes back. */
#define PATIENCE_MS       10000
#define SHORT_PATIENCE_MS 1000
#define HELLO_TIMEOUT_MS  30000 /* it is there, and may be reserving memory */
#define HELLO_MIN_MS      250   /* for who does not want to wait */
#define PAUSE_MIN_MS      10
#define PAUSE_MAX_MS      500

/* More restarts than these are a gttd that dies of what we ask. */
#define RESTORES_MAX       10
#define RESTORES_WITHIN_MS 10000

static void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

static bool too_often(struct reconnecting *reconnecting)
{
    int64_t now_ms = gtt_now_ms();
    if (now_ms - reconnecting->since_ms > RESTORES_WITHIN_MS) {
        reconnecting->since_ms = now_ms;
        reconnecting->n_restores = 0;
    }
    return reconnecting->n_restores++ >= RESTORES_MAX;
}

/* What a gttd answers that is about to come, or full for a moment. */
static bool may_pass(int r)
{
    return r == -ENOENT || r == -ECONNREFUSED || r == -ECONNRESET || r == -ETIMEDOUT ||
           r == -EUSERS || r == -ESHUTDOWN;
}

/* A new connection under the old number, so that whoever polls it goes on doing so. */
static int dial_again(struct gtt *gtt, int hello_timeout_ms)
{
    int number = gtt->fd;
    gtt->fd = -1;
    int r = gtt_dial(gtt, hello_timeout_ms);
    if (r == 0 && dup3(gtt->fd, number, O_CLOEXEC) < 0) {
        r = gtt_fail(gtt, -errno, "dup3: %s", strerror(errno));
    }
    if (gtt->fd >= 0) {
        close(gtt->fd);
    }
    gtt->fd = number;
    gtt->link = r == 0 ? LINK_UP : LINK_BROKEN;
    return r;
}

static int dial_until(struct gtt *gtt, int64_t deadline_ms, int hello_timeout_ms)
{
    int pause_ms = PAUSE_MIN_MS;
    for (;;) {
        int r = dial_again(gtt, hello_timeout_ms);
        if (r == 0 || !may_pass(r) || gtt_now_ms() + pause_ms > deadline_ms) {
            return r;
        }
        sleep_ms(pause_ms);
        pause_ms = pause_ms * 2 < PAUSE_MAX_MS ? pause_ms * 2 : PAUSE_MAX_MS;
    }
}

/* Everything that the connection was. */
static int renew(struct gtt *gtt)
{
    for (struct claim *claim = gtt->claims; claim; claim = claim->next) {
        claim->id = 0; /* went with the connection */
    }
    gtt->list.n_entries = gtt->list_at = 0;
    int r = gtt_renew_segments(gtt);
    return r < 0 ? r : gtt_renew_watch(gtt);
}

static int patience_ms(const struct gtt *gtt, int limit_ms)
{
    bool loses_pool = gtt->hello.flags & GTTD_RESTART_LOSES_POOL;
    int ms = gtt->reconnecting.gave_up ? 0 : loses_pool ? SHORT_PATIENCE_MS : PATIENCE_MS;
    return limit_ms >= 0 && limit_ms < ms ? limit_ms : ms;
}

int gtt_restore(struct gtt *gtt, int limit_ms)
{
    int64_t deadline_ms = gtt_now_ms() + patience_ms(gtt, limit_ms);
    int hello_timeout_ms = limit_ms < 0              ? HELLO_TIMEOUT_MS
                           : limit_ms < HELLO_MIN_MS ? HELLO_MIN_MS
                                                     : limit_ms;
    int r;
    do {
        r = dial_until(gtt, deadline_ms, hello_timeout_ms);
        if (r == 0 && too_often(&gtt->reconnecting)) {
            gtt->link = LINK_BROKEN;
            return gtt_fail(gtt, -ECONNRESET, "gttd at %s ends the connection again and again",
                            gtt->path);
        }
        if (r == 0) {
            r = renew(gtt);
        }
    } while (r == -ECONNRESET && gtt->link == LINK_BROKEN && gtt_now_ms() < deadline_ms);
    if (r == 0) {
        gtt->reconnecting.gave_up = false;
        return 0;
    }
    if (gtt->link == LINK_ENDED) {
        return r;
    }
    if (r == -EPROTONOSUPPORT) {
        return gtt_lost(gtt, r, "since its restart it speaks another version of the protocol");
    }
    gtt->reconnecting.gave_up = gtt->reconnecting.gave_up || limit_ms < 0;
    return gtt_fail(gtt, -ECONNRESET, "gttd has ended the connection and is not back: %.400s",
                    gtt->error);
}

/* Whether the other end is gone, which nobody has noticed yet. */
static bool hung_up(const struct gtt *gtt)
{
    struct pollfd pfd = {.fd = gtt->fd, .events = POLLRDHUP};
    return gtt->link == LINK_UP && poll(&pfd, 1, 0) == 1;
}

int gtt_reconnect(struct gtt *gtt, int timeout_ms)
{
    if (hung_up(gtt)) {
        gtt->link = LINK_BROKEN;
    }
    if (gtt->link == LINK_ENDED) {
        return gtt_fail(gtt, gtt->lost_errno, "gttd at %s: the connection was lost", gtt->path);
    }
    int r = gtt->link == LINK_BROKEN ? gtt_restore(gtt, timeout_ms) : 0;
    return r < 0 ? r : gtt_check_held(gtt);
}
