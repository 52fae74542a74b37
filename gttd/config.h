/* SPDX-License-Identifier: MIT */
/*
 * What gttd is told to do: the keys of gttd.conf, which are also the options of the command line.
 * It knows how each is written and what it may be; what the values do is others' business.
 */
#ifndef GTTD_CONFIG_H
#define GTTD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "admission.h"
#include "pressure.h"
#include "reason.h"

#define CONFIG_PATH      "/etc/gttd.conf"
#define CONFIG_MAX_BYTES (64u << 10) /* of a file */
#define CONFIG_VALUE_MAX 255

struct config {
    char heap[16];                     /* "auto" ... */
    char device[CONFIG_VALUE_MAX + 1]; /* "auto" or a path */
    char anchor[CONFIG_VALUE_MAX + 1]; /* "auto", "off" or a path */
    uint64_t pool_bytes;               /* 0: no limit */
    uint64_t quota_bytes;              /* per uid; 0: no limit */
    uint64_t floor_bytes;
    bool share_group; /* see struct limits */
    bool adopts;
    uint64_t adopted_quota_bytes;
    struct user_quota user_quotas[USER_QUOTAS_MAX];
    uint32_t n_user_quotas;
    struct pressure_settings pressure;
};

/* What holds for keys that nobody sets. */
void config_default(struct config *ret);

/* Set one key. -EINVAL and why: unknown key, or a value that it cannot have; -ENOENT: no such user.
 * Of quota.NAME, NAME is looked up in the user database, which may block. */
int config_set(struct config *config, const char *key, const char *value, struct reason *why);

/* Set every key in the text of a file. The reason starts with "NAME:LINE: ". On failure config is
 * half set: throw it away. -EINVAL, -ENOENT. */
int config_parse(struct config *config, const char *name, const void *text, size_t size,
                 struct reason *why);

/* The same with a file, which must be there unless optional. Errors also those of open(), read();
 * -EFBIG. */
int config_read(struct config *config, const char *path, bool optional, struct reason *why);

#endif
