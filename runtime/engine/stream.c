/* SPDX-License-Identifier: MIT */
/* Growing text: see stream.h. */
#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void stream_init(struct stream *stream, const char *const *stops, size_t n_stops)
{
    *stream = (struct stream){.stops = stops, .n_stops = n_stops};
}

void stream_finish(struct stream *stream)
{
    free(stream->text);
    stream->text = NULL;
}

static int append(struct stream *s, const void *bytes, size_t size)
{
    if (s->size + size + 1 > s->cap) {
        size_t cap = s->cap ? s->cap : 256;
        while (cap < s->size + size + 1) {
            cap *= 2;
        }
        char *text = realloc(s->text, cap);
        if (!text) {
            return -ENOMEM;
        }
        s->text = text;
        s->cap = cap;
    }
    memcpy(s->text + s->size, bytes, size);
    s->size += size;
    s->text[s->size] = '\0';
    return 0;
}

static int append_replacement(struct stream *s)
{
    return append(s, "\xef\xbf\xbd", 3);
}

/* Bytes that a well-formed character starting with this byte has; 0: none does. Unicode 15, table
 * 3-7. */
static size_t character_size(unsigned char c)
{
    return c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
}

/* Whether byte c may follow the n bytes of p in a well-formed character. */
static bool may_follow(const unsigned char *p, size_t n, unsigned char c)
{
    if (n == 1) {
        switch (p[0]) {
        case 0xe0:
            return c >= 0xa0 && c <= 0xbf;
        case 0xed:
            return c >= 0x80 && c <= 0x9f;
        case 0xf0:
            return c >= 0x90 && c <= 0xbf;
        case 0xf4:
            return c >= 0x80 && c <= 0x8f;
        }
    }
    return c >= 0x80 && c <= 0xbf;
}

static int add_byte(struct stream *s, unsigned char c)
{
    if (s->n_partial && !may_follow(s->partial, s->n_partial, c)) {
        s->n_partial = 0;
        int r = append_replacement(s);
        if (r < 0) {
            return r;
        }
    }
    if (!s->n_partial && !character_size(c)) {
        return append_replacement(s);
    }
    s->partial[s->n_partial++] = c;
    if (s->n_partial < character_size(s->partial[0])) {
        return 0;
    }
    size_t n = s->n_partial;
    s->n_partial = 0;
    return append(s, s->partial, n);
}

/* Cut at the first stop string that starts at or after `from`. */
static bool cut_at_stop(struct stream *s, size_t from)
{
    char *first = NULL;
    for (size_t i = 0; i < s->n_stops; i++) {
        size_t n = strlen(s->stops[i]);
        char *hit = n ? memmem(s->text + from, s->size - from, s->stops[i], n) : NULL;
        if (hit && (!first || hit < first)) {
            first = hit;
        }
    }
    if (!first) {
        return false;
    }
    s->size = (size_t)(first - s->text);
    *first = '\0';
    return true;
}

/* Length of the longest end of text that is the beginning of a stop string. */
static size_t held_back(const struct stream *s)
{
    size_t longest = 0;
    for (size_t i = 0; i < s->n_stops; i++) {
        size_t n = strlen(s->stops[i]);
        size_t k = n ? n - 1 : 0;
        if (k > s->size - s->n_final) {
            k = s->size - s->n_final;
        }
        while (k > longest && memcmp(s->text + s->size - k, s->stops[i], k) != 0) {
            k--;
        }
        if (k > longest) {
            longest = k;
        }
    }
    return longest;
}

static void settle(struct stream *s)
{
    if (s->size == 0) {
        return;
    }
    if (cut_at_stop(s, s->n_final)) {
        s->stopped = true;
        s->n_final = s->size;
        return;
    }
    s->n_final = s->size - held_back(s);
}

int stream_add(struct stream *stream, const char *bytes, size_t size)
{
    if (stream->stopped) {
        return 0;
    }
    for (size_t i = 0; i < size; i++) {
        int r = add_byte(stream, (unsigned char)bytes[i]);
        if (r < 0) {
            return r;
        }
    }
    settle(stream);
    return 0;
}

int stream_end(struct stream *stream)
{
    if (!stream->stopped && stream->n_partial) {
        stream->n_partial = 0;
        int r = append_replacement(stream);
        if (r < 0) {
            return r;
        }
        settle(stream);
    }
    stream->n_final = stream->size;
    return stream->text ? 0 : append(stream, "", 0);
}
