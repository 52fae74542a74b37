/* SPDX-License-Identifier: MIT */
/* JSON files read with care: see json_file.h. Knows no schema. */
#include "json_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "gttd_util.h"

bool json_is_printable(const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            return false;
        }
    }
    return true;
}

int json_parse_object(const char *file, const void *text, size_t size, json_t **ret,
                      struct err *err)
{
    json_error_t error;
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!json) {
        return err_set(err, -EINVAL, "%s: line %d: %s", file, error.line, error.text);
    }
    if (!json_is_object(json)) {
        json_decref(json);
        return err_set(err, -EINVAL, "%s: is not a JSON object", file);
    }
    *ret = json;
    return 0;
}

int json_read_file(int dir_fd, const char *file, const char *path, char **ret_text,
                   size_t *ret_size, struct err *err)
{
    /* O_NONBLOCK: a FIFO of that name must not hang us */
    AUTO_FD fd = openat(dir_fd, file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        int r = -errno;
        return err_set(err, r, "%s: cannot open: %s", path, strerror(-r));
    }
    if (!S_ISREG(st.st_mode)) {
        return err_set(err, -EINVAL, "%s: is not a regular file", path);
    }
    if (st.st_size > JSON_FILE_MAX) {
        return err_set(err, -EFBIG, "%s: %" PRIu64 " bytes are too many", path,
                       (uint64_t)st.st_size);
    }
    size_t size = (size_t)st.st_size, done = 0;
    AUTO_FREE char *text = malloc(size + 1);
    if (!text) {
        return err_set(err, -ENOMEM, "%s: out of memory", path);
    }
    while (done < size) {
        ssize_t n = read(fd, text + done, size - done);
        if (n < 0 && errno != EINTR) {
            int r = -errno;
            return err_set(err, r, "%s: cannot read: %s", path, strerror(-r));
        }
        if (n == 0) {
            break;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    text[done] = '\0';
    *ret_text = take_ptr(&text);
    *ret_size = done;
    return 0;
}

/* The value of a key; NULL if it is absent or null. */
static json_t *get(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static int wrong_type(const char *file, const char *key, const char *want, struct err *err)
{
    return err_set(err, -EINVAL, "%s: %s is not %s", file, key, want);
}

int json_get_u32(const char *file, const json_t *object, const char *key, uint32_t min,
                 uint32_t max, uint32_t *ret, struct err *err)
{
    const json_t *value = get(object, key);
    if (!value) {
        return 0;
    }
    if (!json_is_integer(value)) {
        return wrong_type(file, key, "an integer", err);
    }
    json_int_t n = json_integer_value(value);
    if (n < min || n > max) {
        return err_set(err, -EINVAL,
                       "%s: %s is %" JSON_INTEGER_FORMAT ", not between %" PRIu32 " and %" PRIu32,
                       file, key, n, min, max);
    }
    *ret = (uint32_t)n;
    return 0;
}

int json_get_float(const char *file, const json_t *object, const char *key, double min, double max,
                   float *ret, struct err *err)
{
    const json_t *value = get(object, key);
    if (!value) {
        return 0;
    }
    if (!json_is_number(value)) {
        return wrong_type(file, key, "a number", err);
    }
    double x = json_number_value(value);
    if (!(x >= min && x <= max)) {
        return err_set(err, -EINVAL, "%s: %s is %g, not between %g and %g", file, key, x, min, max);
    }
    *ret = (float)x;
    return 0;
}

int json_get_bool(const char *file, const json_t *object, const char *key, bool *ret,
                  struct err *err)
{
    const json_t *value = get(object, key);
    if (value && !json_is_boolean(value)) {
        return wrong_type(file, key, "true or false", err);
    }
    *ret = value ? json_boolean_value(value) : *ret;
    return 0;
}

int json_get_string(const char *file, const json_t *object, const char *key, const char **ret,
                    struct err *err)
{
    const json_t *value = get(object, key);
    if (value && (!json_is_string(value) || !json_is_printable(json_string_value(value)))) {
        return wrong_type(file, key, "a printable string", err);
    }
    *ret = value ? json_string_value(value) : *ret;
    return 0;
}

int json_get_object(const char *file, const json_t *object, const char *key, json_t **ret,
                    struct err *err)
{
    json_t *value = get(object, key);
    if (value && !json_is_object(value)) {
        return wrong_type(file, key, "an object", err);
    }
    *ret = value ? value : *ret;
    return 0;
}
