/* SPDX-License-Identifier: MIT */
/*
 * The text of an answer while it grows: token bytes go in, final text comes out. Owns the holding
 * back of unfinished UTF-8 characters and of text that may yet turn into a stop string. No tokens,
 * no model.
 */
#ifndef ENGINE_STREAM_H
#define ENGINE_STREAM_H

#include <stdbool.h>
#include <stddef.h>

struct stream {
    const char *const *stops; /* borrowed */
    size_t n_stops;
    char *text; /* valid UTF-8, NUL-terminated; malloc'ed */
    size_t size, cap;
    size_t n_final; /* bytes of text that no stop string can take back */
    unsigned char partial[4];
    size_t n_partial; /* bytes of an unfinished character */
    bool stopped;     /* a stop string was met; text ends before it */
};

void stream_init(struct stream *stream, const char *const *stops, size_t n_stops);
void stream_finish(struct stream *stream);

/* Add the bytes of one token. Ill-formed UTF-8 becomes U+FFFD. Does nothing once stopped. -ENOMEM.
 */
int stream_add(struct stream *stream, const char *bytes, size_t size);

/* No more tokens: an unfinished character becomes U+FFFD, all text is final. -ENOMEM. */
int stream_end(struct stream *stream);

#endif
