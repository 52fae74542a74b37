/* SPDX-License-Identifier: MIT */
/* UTF-8, and the two classes of characters that added tokens ask about. No normal forms. */
#ifndef TEXT_UNICODE_H
#define TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at the front of p[0..n), its code point in *ret (may be NULL); 0 if those
 * bytes are not well-formed UTF-8 (overlong, surrogate, beyond U+10FFFF, cut off, n is 0). */
size_t utf8_get(const char *p, size_t n, uint32_t *ret);
/* The same for the character that ends at p + n. */
size_t utf8_get_last(const char *p, size_t n, uint32_t *ret);
/* Write code (a scalar value) to out; returns the bytes written, 1 to 4. */
size_t utf8_put(uint32_t code, char out[static 4]);

/* \s and \w of a Unicode regular expression. */
bool unicode_is_space(uint32_t code);
bool unicode_is_word(uint32_t code);

#endif
