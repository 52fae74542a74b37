/* SPDX-License-Identifier: MIT */
/* Who may ask: see guard.h. */
#include "guard.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gttd_util.h"

static int read_all(int fd, char *buf, size_t capacity, size_t *ret_size)
{
    size_t size = 0;
    while (size < capacity) {
        ssize_t n = read(fd, buf + size, capacity - size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        if (n == 0) {
            break;
        }
        size += (size_t)n;
    }
    *ret_size = size;
    return 0;
}

int guard_read_key(const char *path, struct err *err, char ret_key[static GUARD_MAX_KEY_BYTES + 1],
                   bool *ret_others)
{
    char text[GUARD_MAX_KEY_BYTES + 64];
    size_t size = 0;
    struct stat st;
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
    int r = fd < 0 ? -errno : read_all(fd, text, sizeof text, &size);
    if (r == 0 && fstat(fd, &st) < 0) {
        r = -errno;
    }
    if (r < 0) {
        return err_set(err, r, "%s: %s", path, strerror(-r));
    }
    size_t start = 0;
    while (start < size && isspace((unsigned char)text[start])) {
        start++;
    }
    while (size > start && isspace((unsigned char)text[size - 1])) {
        size--;
    }
    if (size == start) {
        return err_set(err, -EINVAL, "%s: holds no key", path);
    }
    if (size - start > GUARD_MAX_KEY_BYTES) {
        return err_set(err, -EINVAL, "%s: the key exceeds %d bytes", path, GUARD_MAX_KEY_BYTES);
    }
    for (size_t i = start; i < size; i++) {
        if (!isgraph((unsigned char)text[i])) {
            return err_set(err, -EINVAL, "%s: the key must be one word of printable ASCII", path);
        }
    }
    memcpy(ret_key, text + start, size - start);
    ret_key[size - start] = '\0';
    explicit_bzero(text, sizeof text);
    *ret_others = st.st_mode & (S_IRGRP | S_IROTH);
    return 0;
}

bool guard_has_key(const char *authorization, const char *key)
{
    if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0) {
        return false;
    }
    const char *given = authorization + 7;
    given += strspn(given, " ");
    size_t n_given = strlen(given), n_key = strlen(key);
    volatile unsigned char differ = n_given != n_key;
    for (size_t i = 0; i < n_given; i++) {
        differ |= (unsigned char)(given[i] ^ key[i % n_key]);
    }
    return !differ;
}

/* After a host name: nothing, or a port. */
static bool is_port_or_end(const char *s)
{
    if (*s == '\0') {
        return true;
    }
    size_t n = *s == ':' ? strspn(s + 1, "0123456789") : 0;
    return n > 0 && n <= 5 && s[1 + n] == '\0';
}

bool guard_host_is_local(const char *host)
{
    static const char *const LOCAL[] = {"localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; i < ARRAY_SIZE(LOCAL); i++) {
        size_t n = strlen(LOCAL[i]);
        if (strncasecmp(host, LOCAL[i], n) == 0 && is_port_or_end(host + n)) {
            return true;
        }
    }
    return false;
}

bool guard_origin_allowed(const char *origin, const char *host)
{
    static const char *const SCHEMES[] = {"http://", "https://"};
    for (size_t i = 0; i < ARRAY_SIZE(SCHEMES); i++) {
        size_t n = strlen(SCHEMES[i]);
        if (strncasecmp(origin, SCHEMES[i], n) == 0) {
            const char *page = origin + n;
            return guard_host_is_local(page) || (host && strcasecmp(page, host) == 0);
        }
    }
    return false;
}
