/* SPDX-License-Identifier: MIT */
/*
 * Added tokens: contents that are cut out of the text before BPE sees it. Owns the patterns and the
 * search; borrows nothing. There are two sets, one searched in the raw text and one in the
 * normalized text; this file knows one of them at a time.
 */
#ifndef TEXT_ADDED_H
#define TEXT_ADDED_H

#include "buf.h"

struct added_token {
    int32_t id;
    bool special;
    bool normalized;  /* matched in normalized text */
    bool single_word; /* only where no word character touches it */
    bool lstrip;      /* takes the white space in front with it */
    bool rstrip;
};

struct added_pattern {
    uint32_t at, size; /* in bytes */
    struct added_token token;
};

struct added_set {
    struct buf bytes;
    struct added_pattern *patterns; /* [n], sorted by their bytes once indexed */
    uint32_t n, cap;
    uint32_t first[257]; /* patterns that start with byte b: first[b] .. first[b + 1] */
};

/* A part of the text: an added token, or text between them. */
struct added_piece {
    int32_t id; /* -1: text */
    size_t start, end;
};

struct added_pieces {
    struct added_piece *v;
    size_t n, cap;
};

void added_finish(struct added_set *set);
/* content must not be empty. -ENOMEM. */
int added_add(struct added_set *set, struct span content, struct added_token token);
/* After the last one was added. Of equal patterns the first special one stays, else the first. */
void added_index(struct added_set *set);

/* Set *pieces to the parts of text, in order, empty ones left out. with_special: also look for
 * special tokens. -ENOMEM. */
int added_split(const struct added_set *set, struct span text, bool with_special,
                struct added_pieces *pieces);
void added_pieces_finish(struct added_pieces *pieces);

#endif
