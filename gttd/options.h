/* SPDX-License-Identifier: MIT */
/* gttd's command line. */
#ifndef GTTD_OPTIONS_H
#define GTTD_OPTIONS_H

#include <stdint.h>

#include "heap.h"

struct options {
    struct heap_choice heap; /* "auto" ... */
    const char *socket_path; /* NULL: choose */
    uint64_t pool_bytes;     /* 0: no limit */
    uint64_t quota_bytes;    /* per uid; 0: no limit */
    uint64_t floor_bytes;
};

/* Exits with 2 and a message on a wrong command line, with 0 after --help or --version. */
void options_parse(int argc, char **argv, struct options *ret);

/* "512M", "20G", "1.5G", "1048576": bytes, or K, M, G, T of 1024, also with iB or B behind.
 * -EINVAL, -ERANGE. */
int size_parse(const char *text, uint64_t *ret_bytes);

#endif
