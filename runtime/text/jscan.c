/* SPDX-License-Identifier: MIT */
/* JSON as a stream: see jscan.h. */
#include "jscan.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "unicode.h"

void jscan_init(struct jscan *scan, const char *name, const void *json, size_t size,
                struct buf *scratch, struct err *err)
{
    *scan = (struct jscan){.name = name,
                           .start = json,
                           .at = json,
                           .end = (const uint8_t *)json + size,
                           .scratch = scratch,
                           .err = err};
}

int jscan_fail(const struct jscan *scan, const char *fmt, ...)
{
    char text[ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    size_t line = 1;
    for (const uint8_t *p = scan->start; p < scan->at; p++) {
        line += *p == '\n';
    }
    return err_set(scan->err, -EINVAL, "%s: line %zu: %s", scan->name, line, text);
}

char jscan_peek(struct jscan *scan)
{
    const uint8_t *p = scan->at;
    while (p < scan->end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) {
        p++;
    }
    scan->at = p;
    return p < scan->end ? (char)*p : 0;
}

static int not_a(struct jscan *scan, const char *what, const char *kind)
{
    if (jscan_peek(scan) == 0) {
        return jscan_fail(scan, "%s: the text ends here", what);
    }
    return jscan_fail(scan, "%s is not %s", what, kind);
}

static bool literal(struct jscan *scan, const char *word)
{
    size_t n = strlen(word);
    jscan_peek(scan);
    if ((size_t)(scan->end - scan->at) < n || memcmp(scan->at, word, n) != 0) {
        return false;
    }
    scan->at += n;
    return true;
}

bool jscan_null(struct jscan *scan)
{
    return literal(scan, "null");
}

int jscan_bool(struct jscan *scan, const char *what, bool *ret)
{
    bool is = literal(scan, "true");
    if (!is && !literal(scan, "false")) {
        return not_a(scan, what, "true or false");
    }
    *ret = is;
    return 0;
}

static int hex4(const uint8_t *p, uint32_t *ret)
{
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t c = p[i], d;
        if (c >= '0' && c <= '9') {
            d = c - '0';
        } else if ((c | 32) >= 'a' && (c | 32) <= 'f') {
            d = (c | 32) - 'a' + 10;
        } else {
            return -EINVAL;
        }
        v = v << 4 | d;
    }
    *ret = v;
    return 0;
}

/* at is behind "\u": one or, for a surrogate pair, two escapes. */
static int unicode_escape(struct jscan *scan, uint32_t *ret)
{
    const uint8_t *p = scan->at;
    uint32_t high, low;
    if (scan->end - p < 4 || hex4(p, &high) < 0) {
        return jscan_fail(scan, "a \\u escape needs four hexadecimal digits");
    }
    scan->at = p + 4;
    if (high < 0xd800 || high > 0xdfff) {
        *ret = high;
        return 0;
    }
    if (high > 0xdbff || scan->end - p < 10 || p[4] != '\\' || p[5] != 'u' ||
        hex4(p + 6, &low) < 0 || low < 0xdc00 || low > 0xdfff) {
        return jscan_fail(scan, "half a surrogate pair");
    }
    scan->at = p + 10;
    *ret = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    return 0;
}

/* at is behind a backslash. */
static int escape(struct jscan *scan)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (scan->at == scan->end) {
        return jscan_fail(scan, "the text ends inside a string");
    }
    char c = (char)*scan->at++;
    if (c == 'u') {
        uint32_t code = 0;
        int r = unicode_escape(scan, &code);
        if (r < 0) {
            return r;
        }
        char utf8[4];
        return buf_add(scan->scratch, utf8, utf8_put(code, utf8));
    }
    const char *found = c ? strchr(from, c) : NULL;
    if (!found) {
        return jscan_fail(scan, "an unknown escape in a string");
    }
    return buf_add(scan->scratch, &to[found - from], 1);
}

/* at is behind the opening quote. Without escapes the string is where it is; with them, in scratch.
 */
static int string_body(struct jscan *scan, struct span *ret)
{
    const uint8_t *piece = scan->at;
    bool copied = false;
    for (;;) {
        const uint8_t *p = scan->at;
        while (p < scan->end && *p >= 0x20 && *p < 0x80 && *p != '"' && *p != '\\') {
            p++;
        }
        scan->at = p;
        if (p == scan->end) {
            return jscan_fail(scan, "the text ends inside a string");
        }
        if (*p >= 0x80) {
            size_t n = utf8_get((const char *)p, (size_t)(scan->end - p), NULL);
            if (n == 0) {
                return jscan_fail(scan, "a string that is not UTF-8");
            }
            scan->at += n;
            continue;
        }
        if (*p < 0x20) {
            return jscan_fail(scan, "a bare control character in a string");
        }
        if (*p == '"' && !copied) {
            *ret = (struct span){(const char *)piece, (size_t)(p - piece)};
            scan->at++;
            return 0;
        }
        if (!copied) {
            copied = true;
            scan->scratch->size = 0;
        }
        int r = buf_add(scan->scratch, (const char *)piece, (size_t)(p - piece));
        if (r < 0) {
            return r;
        }
        scan->at++;
        if (*p == '"') {
            *ret = (struct span){scan->scratch->bytes, scan->scratch->size};
            return 0;
        }
        r = escape(scan);
        if (r < 0) {
            return r;
        }
        piece = scan->at;
    }
}

int jscan_string(struct jscan *scan, const char *what, struct span *ret)
{
    if (jscan_peek(scan) != '"') {
        return not_a(scan, what, "a string");
    }
    scan->at++;
    return string_body(scan, ret);
}

static bool is_digit(const struct jscan *scan)
{
    return scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9';
}

/* -?(0|[1-9][0-9]*); *ret_big when it does not fit. */
static int whole_part(struct jscan *scan, int64_t *ret, bool *ret_big)
{
    bool negative = *scan->at == '-', big = false;
    int64_t v = 0;
    scan->at += negative;
    if (!is_digit(scan) || (*scan->at == '0' && scan->end - scan->at > 1 && scan->at[1] >= '0' &&
                            scan->at[1] <= '9')) {
        return jscan_fail(scan, "not a number");
    }
    for (; is_digit(scan); scan->at++) {
        big |= __builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *scan->at - '0', &v);
    }
    *ret = negative ? -v : v;
    *ret_big = big;
    return 0;
}

int jscan_integer(struct jscan *scan, const char *what, int64_t min, int64_t max, int64_t *ret)
{
    char c = jscan_peek(scan);
    if (c != '-' && (c < '0' || c > '9')) {
        return not_a(scan, what, "a number");
    }
    int64_t v = 0;
    bool big = false;
    int r = whole_part(scan, &v, &big);
    if (r < 0) {
        return r;
    }
    if (scan->at < scan->end && (*scan->at == '.' || (*scan->at | 32) == 'e')) {
        return jscan_fail(scan, "%s is not a whole number", what);
    }
    if (big || v < min || v > max) {
        return jscan_fail(scan, "%s is not between %" PRId64 " and %" PRId64, what, min, max);
    }
    *ret = v;
    return 0;
}

static int skip_number(struct jscan *scan)
{
    int64_t v;
    bool big;
    int r = whole_part(scan, &v, &big);
    if (r < 0) {
        return r;
    }
    if (scan->at < scan->end && *scan->at == '.') {
        scan->at++;
        if (!is_digit(scan)) {
            return jscan_fail(scan, "not a number");
        }
        while (is_digit(scan)) {
            scan->at++;
        }
    }
    if (scan->at < scan->end && (*scan->at | 32) == 'e') {
        scan->at++;
        scan->at += scan->at < scan->end && (*scan->at == '+' || *scan->at == '-');
        if (!is_digit(scan)) {
            return jscan_fail(scan, "not a number");
        }
        while (is_digit(scan)) {
            scan->at++;
        }
    }
    return 0;
}

static int open_nested(struct jscan *scan)
{
    if (scan->depth == JSCAN_MAX_DEPTH) {
        return jscan_fail(scan, "nested deeper than %d", JSCAN_MAX_DEPTH);
    }
    scan->at++;
    scan->first[scan->depth++] = true;
    return 0;
}

/* To the next member: 1, or 0 when the object or array closes. */
static int next_member(struct jscan *scan, char closer)
{
    char c = jscan_peek(scan);
    bool first = scan->first[scan->depth - 1];
    if (c == closer) {
        scan->at++;
        scan->depth--;
        return 0;
    }
    scan->first[scan->depth - 1] = false;
    if (first) {
        return 1;
    }
    if (c != ',') {
        return jscan_fail(scan, c ? "',' or '%c' expected" : "the text ends before its '%c'",
                          closer);
    }
    scan->at++;
    return 1;
}

int jscan_object(struct jscan *scan, const char *what)
{
    return jscan_peek(scan) == '{' ? open_nested(scan) : not_a(scan, what, "an object");
}

int jscan_key(struct jscan *scan, struct span *ret)
{
    int r = next_member(scan, '}');
    if (r <= 0) {
        return r;
    }
    r = jscan_string(scan, "a key", ret);
    if (r < 0) {
        return r;
    }
    if (jscan_peek(scan) != ':') {
        return jscan_fail(scan, "':' expected");
    }
    scan->at++;
    return 1;
}

int jscan_array(struct jscan *scan, const char *what)
{
    return jscan_peek(scan) == '[' ? open_nested(scan) : not_a(scan, what, "an array");
}

int jscan_element(struct jscan *scan)
{
    return next_member(scan, ']');
}

/* One value that is no object and no array. */
static int skip_scalar(struct jscan *scan)
{
    struct span ignored;
    char c = jscan_peek(scan);
    if (c == '"') {
        scan->at++;
        return string_body(scan, &ignored);
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        return skip_number(scan);
    }
    if (literal(scan, "null") || literal(scan, "true") || literal(scan, "false")) {
        return 0;
    }
    return jscan_fail(scan, c ? "not JSON" : "the text ends here");
}

int jscan_skip(struct jscan *scan)
{
    uint32_t base = scan->depth;
    char closers[JSCAN_MAX_DEPTH];
    do {
        char c = jscan_peek(scan);
        int r;
        if (c == '{' || c == '[') {
            r = open_nested(scan);
            if (r == 0) {
                closers[scan->depth - 1] = c == '{' ? '}' : ']';
            }
        } else {
            r = skip_scalar(scan);
        }
        /* close what ends here, and go to the next member of what does not */
        while (r == 0 && scan->depth > base) {
            struct span key;
            r = closers[scan->depth - 1] == '}' ? jscan_key(scan, &key) : jscan_element(scan);
        }
        if (r < 0) {
            return r;
        }
    } while (scan->depth > base);
    return 0;
}

int jscan_finish(struct jscan *scan)
{
    return jscan_peek(scan) || scan->at != scan->end ? jscan_fail(scan, "more than one JSON value")
                                                     : 0;
}
