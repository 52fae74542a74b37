/* SPDX-License-Identifier: MIT */
/* Lines on stderr: see log.h. */
#include "log.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "gttd_util.h"

#define LINE_MAX_BYTES 1024

/* How to write without waiting for whoever reads. */
enum sink {
    SINK_FILE,   /* which never waits for a reader */
    SINK_SOCKET, /* the journal's: MSG_DONTWAIT */
    SINK_OPENED, /* a pipe or terminal, opened again without the others who have it: O_NONBLOCK */
    SINK_POLLED, /* one that cannot be: only when there is room */
};

static bool to_journal;
static enum sink sink = SINK_FILE;
static int sink_fd = STDERR_FILENO;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* never held while anything waits */
static uint64_t n_lost;                                  /* lines since the last that got through */

/* O_NONBLOCK belongs to the open file, which we share with whoever gave it to us: setting it on
 * stderr would change theirs. */
static void choose_sink(const struct stat *st)
{
    if (S_ISSOCK(st->st_mode)) {
        sink = SINK_SOCKET;
    } else if (S_ISFIFO(st->st_mode) || S_ISCHR(st->st_mode)) {
        int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        sink = fd < 0 ? SINK_POLLED : SINK_OPENED;
        sink_fd = fd < 0 ? STDERR_FILENO : fd;
    }
}

void log_init(void)
{
    const char *stream = secure_getenv("JOURNAL_STREAM");
    uintmax_t dev, ino;
    struct stat st;
    if (fstat(STDERR_FILENO, &st) < 0) {
        return;
    }
    to_journal = stream && sscanf(stream, "%ju:%ju", &dev, &ino) == 2 && st.st_dev == dev &&
                 st.st_ino == ino;
    choose_sink(&st);
}

/* All of it or nothing: lines are shorter than what a pipe or socket takes in one piece. */
static bool put(const char *line, size_t size)
{
    struct pollfd room = {.fd = sink_fd, .events = POLLOUT};
    if (sink == SINK_SOCKET) {
        return send(sink_fd, line, size, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
    }
    if (sink == SINK_POLLED && poll(&room, 1, 0) != 1) {
        return false;
    }
    return write(sink_fd, line, size) >= 0;
}

/* One write, so that lines of two processes on one terminal do not mix. */
static bool put_line(int level, const char *text)
{
    char line[LINE_MAX_BYTES + 16];
    int n = to_journal ? snprintf(line, sizeof line, "<%d>%s\n", level, text)
                       : snprintf(line, sizeof line, "gttd: %s\n", text);
    return put(line, (size_t)n);
}

void log_line(int level, const char *fmt, ...)
{
    int saved_errno = errno;
    char text[LINE_MAX_BYTES], lost[64];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&lock);
    if (n_lost) {
        snprintf(lost, sizeof lost, "%" PRIu64 " lines could not be written", n_lost);
        n_lost = put_line(LOG_WARNING, lost) ? 0 : n_lost;
    }
    if (n_lost || !put_line(level, text)) {
        n_lost++;
    }
    pthread_mutex_unlock(&lock);
    errno = saved_errno;
}
