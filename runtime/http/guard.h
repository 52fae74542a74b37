/* SPDX-License-Identifier: MIT */
/*
 * Who may ask: the Host header (against DNS rebinding), the Origin header (which web pages may use
 * the server), the API key. Judges strings; knows nothing of sockets.
 */
#ifndef HTTP_GUARD_H
#define HTTP_GUARD_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"

#define GUARD_MAX_KEY_BYTES 1024

/*
 * The key in a file: its text without white space around it. Errors: open()'s, -EINVAL empty, too
 * long, or not one word of printable ASCII. *ret_others: users other than the owner can read it.
 */
int guard_read_key(const char *path, struct err *err, char ret_key[static GUARD_MAX_KEY_BYTES + 1],
                   bool *ret_others);

/* authorization (may be NULL) is "Bearer KEY". Takes the same time wherever the first wrong byte
 * is. */
bool guard_has_key(const char *authorization, const char *key);

/* "localhost", "127.0.0.1" or "[::1]", with or without a port: what a browser on this machine that
 * was not tricked sends to a server on loopback. */
bool guard_host_is_local(const char *host);

/* origin is a page of this machine (http or https, local host, any port), or of this very server as
 * the client calls it (host, may be NULL). */
bool guard_origin_allowed(const char *origin, const char *host);

#endif
