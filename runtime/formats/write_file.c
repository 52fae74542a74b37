/* SPDX-License-Identifier: MIT */
/* Writing files whole: see write_file.h. */
#include "write_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "gttd_util.h"

int write_all_at(int fd, const char *name, uint64_t off, const void *data, uint64_t size,
                 struct err *err)
{
    const uint8_t *p = data;
    while (size > 0) {
        ssize_t n = pwrite(fd, p, size, (off_t)off);
        if (n < 0 && errno != EINTR) {
            int r = -errno;
            return err_set(err, r, "%s: cannot write: %s", name, strerror(-r));
        }
        if (n > 0) {
            p += n;
            off += (uint64_t)n;
            size -= (uint64_t)n;
        }
    }
    return 0;
}

static int create(int dir_fd, const char *name, int *ret_fd, struct err *err)
{
    int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) {
        int r = -errno;
        return err_set(err, r, "%s: cannot create: %s", name, strerror(-r));
    }
    *ret_fd = fd;
    return 0;
}

static int sync_file(int fd, const char *name, struct err *err)
{
    if (fsync(fd) < 0) {
        int r = -errno;
        return err_set(err, r, "%s: cannot sync: %s", name, strerror(-r));
    }
    return 0;
}

int write_json_file(int dir_fd, const char *name, const json_t *json, struct err *err)
{
    AUTO_FD fd = -1;
    /* 15 digits: what was written as a decimal is written as the same decimal */
    AUTO_FREE char *text = json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    if (!text) {
        return err_set(err, -ENOMEM, "%s: out of memory", name);
    }
    size_t size = strlen(text);
    text[size] = '\n'; /* in place of the terminator: the size is known */
    int r = create(dir_fd, name, &fd, err);
    if (r == 0) {
        r = write_all_at(fd, name, 0, text, size + 1, err);
    }
    return r < 0 ? r : sync_file(fd, name, err);
}

int copy_file(int from_fd, int to_fd, const char *name, struct err *err)
{
    AUTO_FD to = -1;
    AUTO_FD from = openat(from_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (from < 0) {
        int r = -errno;
        return r == -ENOENT ? 0 : err_set(err, r, "%s: cannot open: %s", name, strerror(-r));
    }
    size_t size = 1 << 20;
    AUTO_FREE char *buffer = malloc(size);
    if (!buffer) {
        return err_set(err, -ENOMEM, "%s: out of memory", name);
    }
    int r = create(to_fd, name, &to, err);
    uint64_t off = 0;
    while (r == 0) {
        ssize_t n = read(from, buffer, size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            r = -errno;
            return err_set(err, r, "%s: cannot read: %s", name, strerror(-r));
        }
        if (n == 0) {
            return sync_file(to, name, err);
        }
        r = write_all_at(to, name, off, buffer, (uint64_t)n, err);
        off += (uint64_t)n;
    }
    return r;
}
