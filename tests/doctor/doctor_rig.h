/* SPDX-License-Identifier: MIT */
/* What doctor's tests share: recorded trees, in memory and unpacked, and running gttctl on them. */
#ifndef TESTS_DOCTOR_RIG_H
#define TESTS_DOCTOR_RIG_H

#include <jansson.h>

#include "text_tree.h"

#define VECTORS "tests/vectors/doctor/"

extern const char *const tree_names[]; /* NULL-terminated */

/* The whole of a file, malloc'ed and NUL-terminated. */
char *slurp(const char *path, size_t *ret_size);

/* Unpack a recorded tree into a fresh directory, whose path comes back. False: without owners. */
bool unpack(const char *name, char ret_dir[96]);

/* `gttctl doctor --root DIR ARGS...`: exit code; the outputs are the caller's, either may be NULL.
 */
int run_doctor(const char *dir, const char *const *args, char **ret_out, char **ret_err);
/* The same with --json; the exit code must be this. */
json_t *run_doctor_json(const char *dir, const char *const *args, int code);

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* The finding of that id among those of a report, or NULL. */
const json_t *finding(const json_t *report, const char *id);
const char *text_of(const json_t *json, const char *key);

#endif
