/* SPDX-License-Identifier: MIT */
/*
 * JSON files read with care: bounded in size, duplicate keys refused, every value type- and
 * range-checked with the file and the key in the message. A thin layer over jansson.
 */
#ifndef FORMATS_JSON_FILE_H
#define FORMATS_JSON_FILE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define JSON_FILE_MAX (16u << 20)

/* No control characters: what goes into messages must not write to the terminal. */
bool json_is_printable(const char *text);

/* The text of an object; anything else is refused. On success *ret is the caller's. */
int json_parse_object(const char *file, const void *text, size_t size, json_t **ret,
                      struct err *err);

/* Read dir_fd/file into memory, at most JSON_FILE_MAX bytes; *ret_text is malloc'ed. path is for
 * messages. Errors: as open(2), -EFBIG, -EINVAL not a regular file. */
int json_read_file(int dir_fd, const char *file, const char *path, char **ret_text,
                   size_t *ret_size, struct err *err);

/*
 * Typed values of an object. An absent key, or one that is null, leaves *ret as it is, so that the
 * default stands there before. A value of another type or outside [min, max] is -EINVAL, as is a
 * string with control characters. Strings and objects are borrowed from object.
 */
int json_get_u32(const char *file, const json_t *object, const char *key, uint32_t min,
                 uint32_t max, uint32_t *ret, struct err *err);
int json_get_float(const char *file, const json_t *object, const char *key, double min, double max,
                   float *ret, struct err *err);
int json_get_bool(const char *file, const json_t *object, const char *key, bool *ret,
                  struct err *err);
int json_get_string(const char *file, const json_t *object, const char *key, const char **ret,
                    struct err *err);
int json_get_object(const char *file, const json_t *object, const char *key, json_t **ret,
                    struct err *err);

#endif
