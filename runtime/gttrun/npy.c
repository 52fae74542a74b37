/* SPDX-License-Identifier: MIT */
/* Writing .npy: see npy.h. */
#include "npy.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int npy_write(const char *path, const float *data, size_t rows, size_t cols, struct err *err)
{
    char shape[64], header[128], temp[4096];
    size_t n = (rows ? rows : 1) * cols;
    if (rows) {
        snprintf(shape, sizeof shape, "(%zu, %zu)", rows, cols);
    } else {
        snprintf(shape, sizeof shape, "(%zu,)", cols);
    }
    /* magic 6, version 2, length 2; the text is padded with spaces to 128 in all, newline last */
    memset(header, ' ', sizeof header);
    memcpy(header, "\x93NUMPY\x01\x00\x76\x00", 10);
    int len = snprintf(header + 10, sizeof header - 10,
                       "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }", shape);
    header[10 + len] = ' ';
    header[127] = '\n';

    /* a pipe or a device is written to; only a file is replaced whole */
    struct stat st;
    bool in_place = stat(path, &st) == 0 && !S_ISREG(st.st_mode);
    int n_name = in_place ? snprintf(temp, sizeof temp, "%s", path)
                          : snprintf(temp, sizeof temp, "%s.tmp%d", path, (int)getpid());
    if (n_name >= (int)sizeof temp) {
        return err_set(err, -ENAMETOOLONG, "%s: the name is too long", path);
    }
    FILE *f = fopen(temp, "wb");
    if (!f) {
        return err_set(err, -errno, "%s: %s", temp, strerror(errno));
    }
    bool ok = fwrite(header, 1, sizeof header, f) == sizeof header &&
              fwrite(data, sizeof *data, n, f) == n;
    int r = 0;
    if (!ok) {
        r = -errno;
    }
    if (fclose(f) != 0 && r == 0) {
        r = -errno;
    }
    if (r == 0 && !in_place && rename(temp, path) < 0) {
        r = -errno;
    }
    if (r < 0 && !in_place) {
        unlink(temp);
    }
    if (r < 0) {
        return err_set(err, r, "%s: %s", path, strerror(-r));
    }
    return 0;
}
