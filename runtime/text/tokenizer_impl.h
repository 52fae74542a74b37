/* SPDX-License-Identifier: MIT */
/* What a tokenizer is made of: filled in by tokenizer_parse.c, used by tokenizer.c. */
#ifndef TEXT_TOKENIZER_IMPL_H
#define TEXT_TOKENIZER_IMPL_H

#include "added.h"
#include "bpe.h"
#include "rewrite.h"
#include "tokenizer.h"
#include "vocab.h"

/* Take up to n of one character away from an end of the decoded text. */
struct tokenizer_strip {
    char utf8[4];
    uint32_t size;
    size_t n_start, n_end;
};

#define TOKENIZER_MAX_STRIPS 4

struct tokenizer {
    struct vocab vocab;
    struct bpe bpe;
    struct added_set raw;        /* added tokens that are searched in the text as it is */
    struct added_set normalized; /* ... in the normalized text */
    struct rewrites normalizer;
    struct buf split_behind; /* words end behind this string; empty: a text is one word */

    struct rewrites decoder; /* of each token */
    bool decode_bytes;       /* "<0x41>" is a byte */
    struct tokenizer_strip strips[TOKENIZER_MAX_STRIPS];
    size_t n_strips;

    struct buf pieces;  /* what each token decodes to, back to back */
    uint32_t *piece_at; /* [vocab.n_ids + 1] */
};

#endif
