/* SPDX-License-Identifier: MIT */
/* Byte pair encoding: see bpe.h. */
#include "bpe.h"

#include <stdio.h>

#include "unicode.h"

struct bpe_symbol {
    int32_t id; /* -1: merged into its left neighbour */
    int32_t prev, next;
};

/* A pair that could merge. It may be out of date when its turn comes. */
struct bpe_candidate {
    uint32_t rank;
    int32_t pos; /* of the left symbol */
    int32_t merged;
};

void bpe_finish(struct bpe *bpe)
{
    free(bpe->merges);
    bpe->merges = NULL;
    bpe->n_slots = bpe->n_merges = 0;
}

void bpe_work_finish(struct bpe_work *work)
{
    free(work->symbols);
    free(work->heap);
    *work = (struct bpe_work){0};
}

static int32_t find_token(const struct bpe *bpe, struct span content)
{
    int32_t id = vocab_find(bpe->vocab, content);
    return id >= 0 && bpe->vocab->tokens[id].outside_bpe ? -1 : id;
}

void bpe_index(struct bpe *bpe)
{
    for (int c = 0; c < 128; c++) {
        char byte = (char)c;
        bpe->ascii[c] = find_token(bpe, (struct span){&byte, 1});
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", byte);
        bpe->bytes[byte] = find_token(bpe, (struct span){name, 6});
    }
}

static struct bpe_merge *slot_of(const struct bpe *bpe, int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15;
    uint32_t mask = bpe->n_slots - 1;
    uint32_t slot = (uint32_t)(h >> 32) & mask;
    while (bpe->merges[slot].left >= 0 &&
           (bpe->merges[slot].left != left || bpe->merges[slot].right != right)) {
        slot = (slot + 1) & mask;
    }
    return &bpe->merges[slot];
}

static int grow(struct bpe *bpe)
{
    struct bpe old = *bpe;
    uint32_t n = old.n_slots ? old.n_slots * 2 : 1024;
    struct bpe_merge *merges = reallocarray(NULL, n, sizeof *merges);
    if (!merges) {
        return -ENOMEM;
    }
    memset(merges, 0xff, n * sizeof *merges);
    bpe->merges = merges;
    bpe->n_slots = n;
    for (uint32_t i = 0; i < old.n_slots; i++) {
        if (old.merges[i].left >= 0) {
            *slot_of(bpe, old.merges[i].left, old.merges[i].right) = old.merges[i];
        }
    }
    free(old.merges);
    return 0;
}

int bpe_add_merge(struct bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t merged)
{
    if (bpe->n_merges >= bpe->n_slots / 3 * 2) {
        int r = grow(bpe);
        if (r < 0) {
            return r;
        }
    }
    struct bpe_merge *slot = slot_of(bpe, left, right);
    bpe->n_merges += slot->left < 0;
    *slot = (struct bpe_merge){left, right, rank, merged};
    return 0;
}

static const struct bpe_merge *find_merge(const struct bpe *bpe, int32_t left, int32_t right)
{
    if (bpe->n_slots == 0) {
        return NULL;
    }
    const struct bpe_merge *slot = slot_of(bpe, left, right);
    return slot->left < 0 ? NULL : slot;
}

static void push_symbol(struct bpe_work *work, int32_t id)
{
    int32_t pos = (int32_t)work->n_symbols++;
    work->symbols[pos] = (struct bpe_symbol){id, pos - 1, pos + 1};
}

/* The bytes' tokens, or false if one of them is missing. */
static bool push_bytes(const struct bpe *bpe, struct bpe_work *work, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bpe->bytes[(uint8_t)p[i]] < 0) {
            return false;
        }
    }
    for (size_t i = 0; i < n; i++) {
        push_symbol(work, bpe->bytes[(uint8_t)p[i]]);
    }
    return true;
}

/* One symbol per character (at most one per byte, which is what work has room for). */
static void split_word(const struct bpe *bpe, struct span word, struct bpe_work *work)
{
    bool unk_waits = false; /* fused ones are one symbol, known when something else follows */
    work->n_symbols = 0;
    for (size_t i = 0, n; i < word.size; i += n) {
        const char *p = word.bytes + i;
        int32_t id = -1;
        if ((uint8_t)*p < 0x80) {
            n = 1;
            id = bpe->ascii[(uint8_t)*p];
        } else {
            n = utf8_get(p, word.size - i, NULL);
            if (n) {
                id = find_token(bpe, (struct span){p, n});
            } else {
                n = 1;
            }
        }
        if (id >= 0) {
            if (unk_waits) {
                push_symbol(work, bpe->unk);
                unk_waits = false;
            }
            push_symbol(work, id);
        } else if (bpe->byte_fallback && push_bytes(bpe, work, p, n)) {
            /* Hugging Face lets bytes overtake an unknown character that waits: so do we. */
        } else if (bpe->unk >= 0) {
            if (unk_waits && !bpe->fuse_unk) {
                push_symbol(work, bpe->unk);
            }
            unk_waits = true;
        }
    }
    if (unk_waits) {
        push_symbol(work, bpe->unk);
    }
    if (work->n_symbols) {
        work->symbols[work->n_symbols - 1].next = -1;
    }
}

static bool goes_first(struct bpe_candidate a, struct bpe_candidate b)
{
    return a.rank < b.rank || (a.rank == b.rank && a.pos < b.pos);
}

static void sift_down(struct bpe_work *work, size_t i)
{
    struct bpe_candidate c = work->heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= work->n_heap) {
            break;
        }
        if (child + 1 < work->n_heap && goes_first(work->heap[child + 1], work->heap[child])) {
            child++;
        }
        if (!goes_first(work->heap[child], c)) {
            break;
        }
        work->heap[i] = work->heap[child];
        i = child;
    }
    work->heap[i] = c;
}

static void sift_up(struct bpe_work *work, size_t i)
{
    struct bpe_candidate c = work->heap[i];
    while (i > 0 && goes_first(c, work->heap[(i - 1) / 2])) {
        work->heap[i] = work->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    work->heap[i] = c;
}

/* Put the pair that starts at pos on the heap's end if it can merge; true if so. There is room: a
 * merge takes one candidate off and puts at most two on, and there are fewer merges than symbols.
 */
static bool append_candidate(const struct bpe *bpe, struct bpe_work *work, int32_t pos)
{
    if (pos < 0 || work->symbols[pos].next < 0) {
        return false;
    }
    const struct bpe_merge *merge =
        find_merge(bpe, work->symbols[pos].id, work->symbols[work->symbols[pos].next].id);
    if (!merge) {
        return false;
    }
    work->heap[work->n_heap++] = (struct bpe_candidate){merge->rank, pos, merge->merged};
    return true;
}

static void push_candidate(const struct bpe *bpe, struct bpe_work *work, int32_t pos)
{
    if (append_candidate(bpe, work, pos)) {
        sift_up(work, work->n_heap - 1);
    }
}

static struct bpe_candidate pop_candidate(struct bpe_work *work)
{
    struct bpe_candidate top = work->heap[0];
    work->heap[0] = work->heap[--work->n_heap];
    if (work->n_heap) {
        sift_down(work, 0);
    }
    return top;
}

static void merge_symbols(const struct bpe *bpe, struct bpe_work *work)
{
    struct bpe_symbol *s = work->symbols;
    work->n_heap = 0;
    for (size_t i = 0; i < work->n_symbols; i++) {
        append_candidate(bpe, work, (int32_t)i);
    }
    for (size_t i = work->n_heap / 2; i-- > 0;) {
        sift_down(work, i);
    }
    while (work->n_heap) {
        struct bpe_candidate top = pop_candidate(work);
        int32_t pos = top.pos, right = s[pos].next;
        if (s[pos].id < 0 || right < 0) {
            continue;
        }
        const struct bpe_merge *merge = find_merge(bpe, s[pos].id, s[right].id);
        if (!merge || merge->merged != top.merged) {
            continue; /* out of date: one of the two has become something else */
        }
        s[pos].id = top.merged;
        s[pos].next = s[right].next;
        s[right].id = -1;
        if (s[pos].next >= 0) {
            s[s[pos].next].prev = pos;
        }
        push_candidate(bpe, work, s[pos].prev);
        push_candidate(bpe, work, pos);
    }
}

/* Room for n symbols, and for the candidates they can give: n - 1 at first, one more per merge. */
static int reserve(struct bpe_work *work, size_t n)
{
    if (n <= work->cap_symbols) {
        return 0;
    }
    bpe_work_finish(work);
    work->symbols = reallocarray(NULL, n, sizeof *work->symbols);
    work->heap = reallocarray(NULL, n, 2 * sizeof *work->heap);
    if (!work->symbols || !work->heap) {
        bpe_work_finish(work);
        return -ENOMEM;
    }
    work->cap_symbols = n;
    work->cap_heap = 2 * n;
    return 0;
}

int bpe_encode(const struct bpe *bpe, struct span word, struct bpe_work *work, struct ids *ids)
{
    if (word.size > INT32_MAX) {
        return -E2BIG;
    }
    if (bpe->ignore_merges) {
        int32_t id = find_token(bpe, word);
        if (id >= 0) {
            return ids_add(ids, id);
        }
    }
    int r = reserve(work, word.size);
    if (r < 0) {
        return r;
    }
    split_word(bpe, word, work);
    merge_symbols(bpe, work);
    for (size_t i = 0; i < work->n_symbols && r == 0; i++) {
        if (work->symbols[i].id >= 0) {
            r = ids_add(ids, work->symbols[i].id);
        }
    }
    return r;
}
