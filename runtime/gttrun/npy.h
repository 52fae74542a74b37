/* SPDX-License-Identifier: MIT */
/* numpy's .npy files, version 1.0, float32 only. Format: numpy/lib/format.py's docstring. */
#ifndef GTTRUN_NPY_H
#define GTTRUN_NPY_H

#include <stddef.h>

#include "err.h"

/* Write float32 [rows, cols] (or [cols] if rows is 0) to path: a file is replaced whole or not at
 * all, a pipe or a device just written to. */
int npy_write(const char *path, const float *data, size_t rows, size_t cols, struct err *err);

#endif
