/* SPDX-License-Identifier: MIT */
/* Sizes as people read them. */
#ifndef DOCTOR_SIZE_H
#define DOCTOR_SIZE_H

#include <stdint.h>

#define SIZE_TEXT_MAX 32

/* "512 MiB", "20.0 GiB", "0". Returns buf. */
char *size_text(uint64_t size_bytes, char buf[static SIZE_TEXT_MAX]);

/* The same in a buffer that lasts until the end of the expression's block. */
#define SIZE_TEXT(bytes) size_text(bytes, (char[SIZE_TEXT_MAX]){0})

#endif
