/* SPDX-License-Identifier: MIT */
/* UTF-8 and character classes: see unicode.h. */
#include "unicode.h"

static const uint32_t word_ranges[][2] = {
#include "unicode_word.inc"
};

size_t utf8_get(const char *text, size_t n, uint32_t *ret)
{
    const uint8_t *p = (const uint8_t *)text;
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (n == 0) {
        return 0;
    }
    size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (len == 0 || len > n || p[0] > 0xf4) {
        return 0;
    }
    uint32_t code = len == 1 ? p[0] : p[0] & (0x7f >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | (p[i] & 0x3f);
    }
    if (code < least[len] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
        return 0;
    }
    if (ret) {
        *ret = code;
    }
    return len;
}

size_t utf8_get_last(const char *p, size_t n, uint32_t *ret)
{
    for (size_t len = 1; len <= 4 && len <= n; len++) {
        if (((uint8_t)p[n - len] & 0xc0) != 0x80) {
            return utf8_get(p + n - len, len, ret) == len ? len : 0;
        }
    }
    return 0;
}

size_t utf8_put(uint32_t code, char out[static 4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t len = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = len - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code & 0x3f));
        code >>= 6;
    }
    out[0] = (char)(0xf00 >> len | code);
    return len;
}

bool unicode_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

bool unicode_is_word(uint32_t code)
{
    size_t lo = 0, hi = sizeof word_ranges / sizeof word_ranges[0];
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (code > word_ranges[mid][1]) {
            lo = mid + 1;
        } else if (code < word_ranges[mid][0]) {
            hi = mid;
        } else {
            return true;
        }
    }
    return false;
}
