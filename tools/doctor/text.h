/* SPDX-License-Identifier: MIT */
/* Taking apart the texts of /proc, /sys and /etc: lines, words, numbers. Pure functions. */
#ifndef DOCTOR_TEXT_H
#define DOCTOR_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The next line of *text, which is cut out of it (its newline becomes a NUL) and *text set behind
 * it. NULL: there is no more.
 */
char *text_line(char **text);

/* The next word of *text, ended by blanks; cut out the same way. NULL: there is no more. */
char *text_word(char **text);

/* All of text is a number: decimal, 0x..., perhaps with a sign and a newline behind. -EINVAL. */
int text_number(const char *text, int64_t *ret);

/* "KEY: 123 kB" or "KEY 123": the number after key at the start of a line of text. */
bool text_field(const char *text, const char *key, uint64_t *ret);

/* "KEY=value" as a word among those of line: the value, cut to size. The last one counts. */
bool text_option(const char *line, const char *key, char *ret, size_t size);

/* Whether word is one of those of line. */
bool text_has_word(const char *line, const char *word);

/* What a line of text "KEY=value" says, quotes removed; the first one counts. */
bool text_setting(const char *text, const char *key, char *ret, size_t size);

/* Copy a text from outside, cut to size, what is not printable ASCII as '?', without what is white
 * at its end. */
void text_clean(char *ret, size_t size, const char *text);

#endif
