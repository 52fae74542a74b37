/* SPDX-License-Identifier: MIT */
/* gttctl watch: what happens in the pool, a line each, until somebody ends it. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "format.h"
#include "gttctl.h"
#include "gttd_util.h"

/* How long a gttd may be away that keeps its pool over a restart, and one that does not. */
#define KEEPS_PATIENCE_MS 10000
#define LOSES_PATIENCE_MS 1000
#define SLICE_MS          200

/* Not an exit code: gttd is gone, perhaps for a moment. */
enum { GONE = -1 };

/* A loss of none is how libgtt says that gttd has been away. */
static const char *kind_text(const struct gtt_event *e)
{
    return e->kind == GTT_EVENT_LOST && e->n_lost == 0 ? "restarted" : event_text(e->kind);
}

static json_t *event_json(const struct gtt_event *e, const struct timespec *now)
{
    return json_pack("{s:I, s:s, s:I, s:s, s:I, s:I, s:I, s:s, s:I}", "time_ms",
                     (json_int_t)now->tv_sec * 1000 + now->tv_nsec / 1000000, "event", kind_text(e),
                     "id", (json_int_t)e->id, "name", e->name, "size_bytes",
                     (json_int_t)e->size_bytes, "uid", (json_int_t)e->uid, "pid",
                     (json_int_t)e->pid, "label", e->label, "lost", (json_int_t)e->n_lost);
}

static void print_event(const struct gtt_event *e, const struct timespec *now)
{
    char size[TEXT_MAX], user[TEXT_MAX], clock[16];
    struct tm tm;
    localtime_r(&now->tv_sec, &tm);
    strftime(clock, sizeof clock, "%H:%M:%S", &tm);
    printf("%s %-11s", clock, kind_text(e));
    if (e->kind == GTT_EVENT_LOST) {
        printf(e->n_lost ? " %u events: read too slowly" : " what happened meanwhile is missing",
               e->n_lost);
    }
    if (e->id) {
        printf(" %llu %s %s", (unsigned long long)e->id, e->name[0] ? e->name : "-",
               size_text(e->size_bytes, size));
    }
    if (e->pid) {
        printf(" by %s %d of %s", e->label[0] ? e->label : "process", e->pid,
               user_text(e->uid, user));
    }
    putchar('\n');
}

static int show(const struct gtt_event *event, bool json)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (json) {
        return print_json(event_json(event, &now));
    }
    print_event(event, &now);
    if (fflush(stdout) != 0) {
        return complain("stdout: cannot be written");
    }
    return EXIT_OK;
}

/* Everything that has arrived. */
static int show_all(struct gtt *gtt, bool json)
{
    for (;;) {
        struct gtt_event event;
        int r = gtt_next_event(gtt, 0, &event);
        if (r == -ETIMEDOUT) {
            return EXIT_OK;
        }
        if (r < 0) {
            return r == -ECONNRESET ? GONE : complain("watch: %s", gtt_last_error(gtt));
        }
        int code = show(&event, json);
        if (code != EXIT_OK) {
            return code;
        }
    }
}

/* Wait for a signal: whether there is one. */
static bool is_interrupted(int signal_fd, int timeout_ms)
{
    struct pollfd p = {.fd = signal_fd, .events = POLLIN};
    return poll(&p, 1, timeout_ms) > 0;
}

/* Whether gttd is there again; if not, after as long as its kind may take, or because of a signal.
 */
static bool wait_for_gttd(struct gtt *gtt, int signal_fd)
{
    struct gtt_info info;
    gtt_get_info(gtt, &info);
    int patience_ms = info.restart_loses_pool ? LOSES_PATIENCE_MS : KEEPS_PATIENCE_MS;
    for (int ms = 0; ms < patience_ms; ms += SLICE_MS) {
        if (gtt_reconnect(gtt, 0) != -ECONNRESET) {
            return true;
        }
        if (is_interrupted(signal_fd, SLICE_MS)) {
            return false;
        }
    }
    return false;
}

/* Until there is something: EXIT_OK events, GONE, or EXIT_FAILED the reader has left. Signals are
 * for the caller to look at. */
static int wait_for_event(struct gtt *gtt, int signal_fd)
{
    struct pollfd fds[] = {{.fd = gtt_fd(gtt), .events = POLLIN},
                           {.fd = signal_fd, .events = POLLIN},
                           {.fd = STDOUT_FILENO}}; /* POLLERR: the reader has left */
    if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR) {
        return complain("poll: %s", strerror(errno));
    }
    if (fds[2].revents & (POLLERR | POLLNVAL)) {
        return complain("stdout: nobody reads it any more");
    }
    return EXIT_OK;
}

static int watch(struct gtt *gtt, int signal_fd, bool json)
{
    if (gtt_watch(gtt) < 0) {
        return complain("watch: %s", gtt_last_error(gtt));
    }
    for (;;) {
        int code = show_all(gtt, json);
        if (code == GONE && wait_for_gttd(gtt, signal_fd)) {
            continue;
        }
        if (is_interrupted(signal_fd, 0)) {
            return EXIT_OK;
        }
        if (code == GONE) {
            return complain("watch: %s", gtt_last_error(gtt));
        }
        code = code == EXIT_OK ? wait_for_event(gtt, signal_fd) : code;
        if (code != EXIT_OK) {
            return code;
        }
    }
}

int cmd_watch(int argc, char **argv)
{
    struct common_options options;
    sigset_t set;
    parse_common("Print what happens to your segments (root: everybody's) until Ctrl-C.", argc,
                 argv, &options);
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    AUTO_FD signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    if (signal_fd < 0) {
        return complain("signalfd: %s", strerror(errno));
    }
    struct gtt *gtt = connect_gttd(&options);
    if (!gtt) {
        return EXIT_FAILED;
    }
    int code = watch(gtt, signal_fd, options.json);
    gtt_disconnect(gtt);
    return code;
}
