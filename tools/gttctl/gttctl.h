/* SPDX-License-Identifier: MIT */
/*
 * What the commands of gttctl share: their options, the connection, messages, JSON on stdout. Each
 * command is one file with one function cmd_NAME(argc, argv) that returns the exit code: 0 ok, 1
 * failed, 2 usage.
 */
#ifndef GTTCTL_H
#define GTTCTL_H

#include <argp.h>
#include <jansson.h>
#include <stdbool.h>

#include "gtt.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* --socket and --json. */
struct common_options {
    const char *socket;
    bool json;
};

/* A child parser for struct common_options; the parent's parser sets child_inputs[0]. */
extern const struct argp common_argp;

/* Parse a command's arguments; exits with EXIT_USAGE on bad ones, as argp does. */
void parse_args(const struct argp *argp, int argc, char **argv, void *input);

/* For commands that have no options but the common ones. */
void parse_common(const char *doc, int argc, char **argv, struct common_options *ret);

/* "gttctl: text" on stderr; returns EXIT_FAILED. */
int complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Connected, or NULL after complaining. */
struct gtt *connect_gttd(const struct common_options *options);

/* One line on stdout, and free; EXIT_FAILED after complaining if json is NULL or cannot be written.
 */
int print_json(json_t *json);

int cmd_status(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_drop(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_watch(int argc, char **argv);

#endif
