/* SPDX-License-Identifier: MIT */
/* Numbers and names as people read them, in few columns. */
#ifndef GTTCTL_FORMAT_H
#define GTTCTL_FORMAT_H

#include <stdint.h>

#include "gtt.h"
#include "size.h"

#define TEXT_MAX 48 /* at least SIZE_TEXT_MAX */

/* "5 s", "12 min", "3 h", "41 d". Returns buf, as the others do. */
char *age_text(uint64_t ms, char buf[static TEXT_MAX]);
/* The user's name, or the number. */
char *user_text(uint32_t uid, char buf[static TEXT_MAX]);
/* The first n bytes of a digest as hexadecimal digits; n < TEXT_MAX / 2. */
char *hex_text(const uint8_t *digest, int n, char buf[static TEXT_MAX]);
/* text in at most width columns, marked with ".." where it was cut. */
char *cut_text(const char *text, int width, char buf[static GTT_NAME_MAX + 1]);

const char *state_text(enum gtt_state state);
const char *event_text(enum gtt_event_kind kind);
/* "pinned", "resident" (a driver's, which keeps it in RAM as long as its limits do not overflow),
 * "swappable", or how much of it is pinned. */
char *hold_text(const struct gtt_info *info, const struct gtt_entry *entry,
                char buf[static TEXT_MAX]);

#endif
