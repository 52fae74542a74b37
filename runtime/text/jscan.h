/* SPDX-License-Identifier: MIT */
/*
 * Reads JSON (RFC 8259, strict, UTF-8) from memory as a stream: the caller asks for what it expects
 * and gets it or an error that names file, line and what was wrong. No tree is built: a Gemma
 * tokenizer.json is 33 MB, and what it says goes straight into the tokenizer's own tables.
 * Duplicate keys are the caller's to find: it knows which keys there are.
 *
 * A struct jscan may be copied to come back to a value later: jscan_skip() the original, read the
 * copy.
 */
#ifndef TEXT_JSCAN_H
#define TEXT_JSCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"

#define JSCAN_MAX_DEPTH 64

struct jscan {
    const char *name; /* in front of every message; borrowed */
    const uint8_t *start, *at, *end;
    struct buf *scratch; /* strings with escapes; shared by copies */
    struct err *err;
    uint32_t depth;
    bool first[JSCAN_MAX_DEPTH]; /* no member read yet, for each open object or array */
};

void jscan_init(struct jscan *scan, const char *name, const void *json, size_t size,
                struct buf *scratch, struct err *err);

/* Write "NAME: line N: ..." to *err; returns -EINVAL. */
int jscan_fail(const struct jscan *scan, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* The first character of the value that comes next ('{', '[', '"', 't', 'f', 'n', '-', a digit), or
 * 0 at the end of the text. Nothing is checked or consumed. */
char jscan_peek(struct jscan *scan);

/* Each of these consumes one value of its kind; what names it in the message when it is something
 * else. All return 0 or -EINVAL. A string is borrowed until the next string or key is read. */
int jscan_string(struct jscan *scan, const char *what, struct span *ret);
int jscan_integer(struct jscan *scan, const char *what, int64_t min, int64_t max, int64_t *ret);
int jscan_bool(struct jscan *scan, const char *what, bool *ret);
int jscan_skip(struct jscan *scan);
/* Consume null if it comes next. */
bool jscan_null(struct jscan *scan);

/* Open an object and walk it: 1 and the key, 0 at its end (which is consumed), -EINVAL. */
int jscan_object(struct jscan *scan, const char *what);
int jscan_key(struct jscan *scan, struct span *ret);
/* Open an array and walk it: 1 a value comes next, 0 at its end (which is consumed), -EINVAL. */
int jscan_array(struct jscan *scan, const char *what);
int jscan_element(struct jscan *scan);

/* After the outermost value: nothing but white space may follow. */
int jscan_finish(struct jscan *scan);

#endif
