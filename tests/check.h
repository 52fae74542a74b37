/* SPDX-License-Identifier: MIT */
/*
 * The whole test framework: CHECK prints file, line and the failed expression and ends the program.
 * A test program returns 0; exit SKIP (77) when what it needs is absent, after saying what.
 */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SKIP 77

#define CHECK(x)                                                            \
    do {                                                                    \
        if (!(x)) {                                                         \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #x); \
            exit(1);                                                        \
        }                                                                   \
    } while (0)

/* CHECK that an int expression has a value, and print what it was instead. */
#define CHECK_EQ(x, want)                                                                        \
    do {                                                                                         \
        long long got_ = (long long)(x), want_ = (long long)(want);                              \
        if (got_ != want_) {                                                                     \
            fprintf(stderr, "%s:%d: %s is %lld, want %s (%lld)\n", __FILE__, __LINE__, #x, got_, \
                    #want, want_);                                                               \
            exit(1);                                                                             \
        }                                                                                        \
    } while (0)

/* Open fds of this process (or of /proc/PID/fd), not counting the one used to count. */
static inline int count_fds(const char *proc_fd_dir)
{
    int n = 0;
    DIR *dir = opendir(proc_fd_dir ? proc_fd_dir : "/proc/self/fd");
    if (!dir) {
        return -1;
    }
    while (readdir(dir)) {
        n++;
    }
    closedir(dir);
    return n - 2 - (proc_fd_dir ? 0 : 1);
}

#endif
