/* SPDX-License-Identifier: MIT */
/*
 * The vocabulary: token content to id and back. Contents live in one block of memory; ids may be
 * added in any order. Does not know what a token means.
 */
#ifndef TEXT_VOCAB_H
#define TEXT_VOCAB_H

#include "buf.h"

#define VOCAB_MAX_ID ((1 << 20) - 1)

struct vocab_token {
    uint32_t at;      /* in contents */
    uint32_t size;    /* UINT32_MAX: no token has this id */
    bool added;       /* listed in added_tokens */
    bool outside_bpe; /* and nowhere else: BPE must not find it */
    bool special;
    bool normalized; /* an added token that is searched in normalized text */
};

/* In the hash table: enough to tell most contents apart without looking at them. */
struct vocab_slot {
    uint32_t hash;
    int32_t id; /* -1: free */
    uint32_t at, size;
};

struct vocab {
    struct buf contents;
    struct vocab_token *tokens; /* [cap_tokens], n_ids of them in use */
    uint32_t n_ids;             /* one more than the largest id */
    uint32_t n_tokens;
    uint32_t cap_tokens;
    struct vocab_slot *slots; /* [n_slots], a power of two */
    uint32_t n_slots;
};

void vocab_finish(struct vocab *vocab);

/* Errors: -EEXIST there is such a content, -EBUSY the id is taken, -ERANGE id too large, -ENOMEM.
 */
int vocab_add(struct vocab *vocab, struct span content, int64_t id);

/* The id of a content, or -1. */
int32_t vocab_find(const struct vocab *vocab, struct span content);

/* The content of an id: 0 bytes if there is no such token. */
struct span vocab_content(const struct vocab *vocab, int32_t id);
bool vocab_has(const struct vocab *vocab, int32_t id);

#endif
