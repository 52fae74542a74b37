/* SPDX-License-Identifier: MIT */
/* Starting real programs from tests: a gttd of our own, gttrun with its output caught. */
#ifndef TESTS_SPAWN_H
#define TESTS_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct process {
    pid_t pid;
    int stdin_fd;  /* -1 once closed */
    int stdout_fd; /* both streams end in files, so that nobody blocks on a full pipe */
    int stderr_fd;
};

/* Where this test's files live: a fresh directory, removed by spawn_clean_up(). */
const char *spawn_dir(void);
void spawn_clean_up(void);

/* Start program (a path) with arguments, NULL-terminated; stdin is a pipe. */
struct process spawn(const char *program, const char *const *args);

/* Everything the program has written so far; NUL-terminated, malloc'ed. */
char *spawn_output(const struct process *p);
char *spawn_errors(const struct process *p);

/* Wait until `text` appears in the program's output (or errors); fails the test after 60 s or if
 * the program ends first. */
void spawn_expect(const struct process *p, bool in_errors, const char *text);

/* Wait for the end: the exit code, or 128 + signal. Closes stdin first. Output stays readable. */
int spawn_wait(struct process *p);
void spawn_close(struct process *p);

/* The programs under test, as the build gives them. */
struct process spawn_gttd(const char *socket, const char *const *more_args);
struct process spawn_gttrun(const char *const *args);

/* gttrun to its end: exit code; *ret_out and *ret_err (may be NULL) are malloc'ed. */
int run_gttrun(const char *const *args, char **ret_out, char **ret_err);

#endif
