/* SPDX-License-Identifier: MIT */
/*
 * Byte pair encoding of one word: characters to ids, then merges by rank. Owns the merge table;
 * borrows the vocabulary. Knows nothing of spaces, added tokens or files.
 */
#ifndef TEXT_BPE_H
#define TEXT_BPE_H

#include "vocab.h"

struct bpe_merge {
    int32_t left, right; /* left is -1 in a free slot */
    uint32_t rank;       /* lower goes first */
    int32_t merged;
};

struct bpe {
    const struct vocab *vocab;
    struct bpe_merge *merges; /* [n_slots] hash table by (left, right); a power of two */
    uint32_t n_slots, n_merges;
    int32_t unk;        /* for what is not in the vocabulary, or -1: it disappears */
    bool fuse_unk;      /* neighbours become one */
    bool byte_fallback; /* a character that is not in the vocabulary becomes its bytes' tokens */
    bool ignore_merges; /* a word that is in the vocabulary is its token */
    int32_t bytes[256]; /* "<0x00>" .. "<0xFF>", or -1 */
    int32_t ascii[128]; /* one-character tokens, or -1 */
};

/* Memory that words of one text share. Zero it; bpe_work_finish() frees it. */
struct bpe_work {
    struct bpe_symbol *symbols;
    struct bpe_candidate *heap;
    size_t n_symbols, cap_symbols, n_heap, cap_heap;
};

void bpe_finish(struct bpe *bpe);

/* After the vocabulary is complete: look up the byte and ASCII tokens. */
void bpe_index(struct bpe *bpe);

/* A pair that is there already gets the new rank. -ENOMEM. */
int bpe_add_merge(struct bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t merged);

/*
 * Append the ids of a word. The lowest rank merges first, of equals the leftmost; O(n log n).
 * A byte that is not part of well-formed UTF-8 counts as a character that is not in the vocabulary.
 * Errors: -ENOMEM, -E2BIG more than INT32_MAX bytes.
 */
int bpe_encode(const struct bpe *bpe, struct span word, struct bpe_work *work, struct ids *ids);
void bpe_work_finish(struct bpe_work *work);

#endif
