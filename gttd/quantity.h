/* SPDX-License-Identifier: MIT */
/* Amounts as people write them: sizes and durations, on the command line and in gttd.conf. */
#ifndef GTTD_QUANTITY_H
#define GTTD_QUANTITY_H

#include <stdint.h>

/* "512M", "20G", "1.5G", "1048576": bytes, or K, M, G, T of 1024, also with iB or B behind.
 * -EINVAL, -ERANGE. */
int size_parse(const char *text, uint64_t *ret_bytes);

/* "150ms", "2s", whole numbers; below a day. -EINVAL, -ERANGE. */
int duration_parse(const char *text, uint32_t *ret_ms);

#endif
