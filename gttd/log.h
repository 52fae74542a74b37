/* SPDX-License-Identifier: MIT */
/*
 * gttd's log: lines on stderr, with <3>-style level prefixes when the journal reads it. It never
 * waits for a reader: lines that there is no room for are counted, and the next that fits says how
 * many are missing.
 */
#ifndef GTTD_LOG_H
#define GTTD_LOG_H

#include <syslog.h> /* LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO */

/* Find out where stderr goes. Call once, before any thread. */
void log_init(void);

/* One line, no newline in it. Any thread. Keeps errno. */
void log_line(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
