/* SPDX-License-Identifier: MIT */
/* Lines on stderr: see log.h. */
#include "log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static bool to_journal;

void log_init(void)
{
    const char *stream = secure_getenv("JOURNAL_STREAM");
    uintmax_t dev, ino;
    struct stat st;
    to_journal = stream && sscanf(stream, "%ju:%ju", &dev, &ino) == 2 &&
                 fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

void log_line(int level, const char *fmt, ...)
{
    int saved_errno = errno;
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    /* one write, so that lines of two processes on one terminal do not mix */
    char line[sizeof text + 8];
    int n = to_journal ? snprintf(line, sizeof line, "<%d>%s\n", level, text)
                       : snprintf(line, sizeof line, "gttd: %s\n", text);
    ssize_t written = write(STDERR_FILENO, line, (size_t)n);
    (void)written; /* nowhere left to say it */
    errno = saved_errno;
}
