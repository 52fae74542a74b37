/* SPDX-License-Identifier: MIT */
/* Writing files whole: every byte, synced, with the file's name in the message. */
#ifndef FORMATS_WRITE_FILE_H
#define FORMATS_WRITE_FILE_H

#include <jansson.h>
#include <stdint.h>

#include "err.h"

int write_all_at(int fd, const char *name, uint64_t off, const void *data, uint64_t size,
                 struct err *err);

/* Create dir_fd/name (which must not exist) from a JSON value. */
int write_json_file(int dir_fd, const char *name, const json_t *json, struct err *err);

/* Copy from_fd/name to to_fd/name; a source that does not exist is no error. */
int copy_file(int from_fd, int to_fd, const char *name, struct err *err);

#endif
