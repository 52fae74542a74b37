/* SPDX-License-Identifier: MIT */
/* A string of bytes someone else owns, and a growing one. Knows nothing of what is in it. */
#ifndef TEXT_BUF_H
#define TEXT_BUF_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct span {
    const char *bytes;
    size_t size;
};

#define SPAN(literal) ((struct span){(literal), sizeof(literal) - 1})

static inline bool span_is(struct span a, const char *text)
{
    return a.size == strlen(text) && memcmp(a.bytes, text, a.size) == 0;
}

struct buf {
    char *bytes;
    size_t size, cap;
};

static inline void buf_finish(struct buf *buf)
{
    free(buf->bytes);
    *buf = (struct buf){0};
}

/* Room for n more bytes. */
static inline int buf_reserve(struct buf *buf, size_t n)
{
    if (n <= buf->cap - buf->size) {
        return 0;
    }
    if (n > SIZE_MAX / 4 - buf->size) {
        return -ENOMEM;
    }
    size_t cap = 2 * (buf->size + n) + 64;
    char *bytes = realloc(buf->bytes, cap);
    if (!bytes) {
        return -ENOMEM;
    }
    buf->bytes = bytes;
    buf->cap = cap;
    return 0;
}

static inline int buf_add(struct buf *buf, const char *bytes, size_t n)
{
    int r = buf_reserve(buf, n);
    if (r == 0 && n) {
        memcpy(buf->bytes + buf->size, bytes, n);
        buf->size += n;
    }
    return r;
}

#define AUTO_BUF __attribute__((cleanup(buf_finish))) struct buf

/* A growing list of token ids. */
struct ids {
    int32_t *v;
    size_t n, cap;
};

static inline int ids_add(struct ids *ids, int32_t id)
{
    if (ids->n == ids->cap) {
        size_t cap = 2 * ids->cap + 32;
        int32_t *v = reallocarray(ids->v, cap, sizeof *v);
        if (!v) {
            return -ENOMEM;
        }
        ids->v = v;
        ids->cap = cap;
    }
    ids->v[ids->n++] = id;
    return 0;
}

#endif
