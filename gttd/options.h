/* SPDX-License-Identifier: MIT */
/* gttd's command line. */
#ifndef GTTD_OPTIONS_H
#define GTTD_OPTIONS_H

#include "config.h"

#define OPTIONS_MAX 16

struct options {
    const char *socket_path; /* NULL: choose */
    const char *config_path; /* NULL: CONFIG_PATH, if it is there */
    struct setting {
        const char *key, *value; /* of gttd.conf, and has been checked */
    } settings[OPTIONS_MAX];
    size_t n_settings;
};

/* Exits with 2 and a message on a wrong command line, with 0 after --help or --version. */
void options_parse(int argc, char **argv, struct options *ret);

/* What is to be done: the configuration file as it is now, and over it the command line. Errors as
 * of config_read(); *ret is written only on success. */
int options_configure(const struct options *options, struct config *ret, struct reason *why);

#endif
