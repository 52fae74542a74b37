/* SPDX-License-Identifier: MIT */
/* What the two files that read tokenizer.json share. */
#ifndef TEXT_TOKENIZER_PARSE_H
#define TEXT_TOKENIZER_PARSE_H

#include "jscan.h"
#include "tokenizer_impl.h"

struct parser {
    struct jscan scan;
    struct tokenizer *tok;
    struct buf a, b;    /* strings that must outlive the next one */
    bool decoder_fuses; /* a Fuse came: what follows is about the whole text */
};

/* A token's content for a message: on one line, not too long. */
struct quoted {
    char text[48];
};
struct quoted quote(struct span s);

/* What a key is in a list of known ones (-1: unknown), each of which may come once. The list ends
 * at n; a NULL in it matches nothing. */
int known_key(struct jscan *scan, const char *const *keys, size_t n, uint32_t *seen,
              struct span key, int *ret);

/* Read a string into out. */
int copy_string(struct jscan *scan, const char *what, struct buf *out);

static inline struct span span_of(const struct buf *buf)
{
    return (struct span){buf->bytes, buf->size};
}

/* Each consumes its value (not null). */
int read_normalizer(struct parser *p, struct jscan *scan);
int read_pre_tokenizer(struct parser *p, struct jscan *scan);
int read_decoder(struct parser *p, struct jscan *scan);

#endif
