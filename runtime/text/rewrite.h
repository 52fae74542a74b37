/* SPDX-License-Identifier: MIT */
/* What normalizers and decoders do to a text: replace one string by another, put one in front.
 * Owns its strings; does not know where they came from. */
#ifndef TEXT_REWRITE_H
#define TEXT_REWRITE_H

#include "buf.h"

struct rewrite {
    struct buf from; /* empty: put to in front, unless the text is empty */
    struct buf to;
};

struct rewrites {
    struct rewrite *v;
    size_t n;
};

void rewrites_finish(struct rewrites *rewrites);
/* Add a step; both strings are copied. -ENOMEM. */
int rewrites_add(struct rewrites *rewrites, struct span from, struct span to);

/* Set out to text after all steps. out and spare are overwritten, and may change places. */
int rewrites_apply(const struct rewrites *rewrites, struct span text, struct buf *out,
                   struct buf *spare);

#endif
