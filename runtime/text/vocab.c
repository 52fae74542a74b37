/* SPDX-License-Identifier: MIT */
/* The vocabulary: see vocab.h. */
#include "vocab.h"

#define NO_TOKEN UINT32_MAX

void vocab_finish(struct vocab *vocab)
{
    buf_finish(&vocab->contents);
    free(vocab->tokens);
    free(vocab->slots);
    *vocab = (struct vocab){0};
}

static uint32_t hash_of(struct span s)
{
    const uint64_t k = 0x9e3779b97f4a7c15;
    uint64_t h = s.size * k;
    while (s.size >= 8) {
        uint64_t word;
        memcpy(&word, s.bytes, 8);
        h = (h ^ word) * k;
        h ^= h >> 32;
        s.bytes += 8;
        s.size -= 8;
    }
    uint64_t tail = 0;
    for (size_t i = 0; i < s.size; i++) {
        tail = tail << 8 | (uint8_t)s.bytes[i];
    }
    h = (h ^ tail) * k;
    return (uint32_t)(h >> 32);
}

/* The slot that holds content, or the free one where it belongs. */
static struct vocab_slot *slot_of(const struct vocab *vocab, struct span content, uint32_t hash)
{
    uint32_t mask = vocab->n_slots - 1;
    struct vocab_slot *slot = &vocab->slots[hash & mask];
    while (slot->id >= 0 &&
           (slot->hash != hash || slot->size != content.size ||
            (slot->size && memcmp(vocab->contents.bytes + slot->at, content.bytes, slot->size)))) {
        slot = &vocab->slots[(uint32_t)(slot - vocab->slots + 1) & mask];
    }
    return slot;
}

static int grow_slots(struct vocab *vocab)
{
    if (vocab->n_tokens < vocab->n_slots / 3 * 2) {
        return 0;
    }
    uint32_t n = vocab->n_slots ? vocab->n_slots * 2 : 1024;
    struct vocab_slot *slots = reallocarray(NULL, n, sizeof *slots);
    if (!slots) {
        return -ENOMEM;
    }
    memset(slots, 0xff, n * sizeof *slots);
    for (uint32_t i = 0; i < vocab->n_slots; i++) {
        const struct vocab_slot *old = &vocab->slots[i];
        if (old->id >= 0) {
            uint32_t at = old->hash & (n - 1);
            while (slots[at].id >= 0) {
                at = (at + 1) & (n - 1);
            }
            slots[at] = *old;
        }
    }
    free(vocab->slots);
    vocab->slots = slots;
    vocab->n_slots = n;
    return 0;
}

static int grow_tokens(struct vocab *vocab, uint32_t n_ids)
{
    if (n_ids > vocab->cap_tokens) {
        uint32_t cap = n_ids > 2 * vocab->cap_tokens ? n_ids : 2 * vocab->cap_tokens;
        struct vocab_token *tokens = reallocarray(vocab->tokens, cap, sizeof *tokens);
        if (!tokens) {
            return -ENOMEM;
        }
        vocab->tokens = tokens;
        vocab->cap_tokens = cap;
    }
    for (; vocab->n_ids < n_ids; vocab->n_ids++) {
        vocab->tokens[vocab->n_ids] = (struct vocab_token){.size = NO_TOKEN};
    }
    return 0;
}

int vocab_add(struct vocab *vocab, struct span content, int64_t id)
{
    if (id < 0 || id > VOCAB_MAX_ID || content.size >= UINT32_MAX - vocab->contents.size) {
        return -ERANGE;
    }
    int r = grow_slots(vocab);
    if (r < 0) {
        return r;
    }
    uint32_t hash = hash_of(content);
    struct vocab_slot *slot = slot_of(vocab, content, hash);
    if (slot->id >= 0) {
        return -EEXIST;
    }
    if (vocab_has(vocab, (int32_t)id)) {
        return -EBUSY;
    }
    r = grow_tokens(vocab, (uint32_t)id + 1 > vocab->n_ids ? (uint32_t)id + 1 : vocab->n_ids);
    if (r < 0) {
        return r;
    }
    struct vocab_token token = {.at = (uint32_t)vocab->contents.size,
                                .size = (uint32_t)content.size};
    r = buf_add(&vocab->contents, content.bytes, content.size);
    if (r < 0) {
        return r;
    }
    vocab->tokens[id] = token;
    *slot = (struct vocab_slot){hash, (int32_t)id, token.at, token.size};
    vocab->n_tokens++;
    return 0;
}

int32_t vocab_find(const struct vocab *vocab, struct span content)
{
    return vocab->n_slots ? slot_of(vocab, content, hash_of(content))->id : -1;
}

bool vocab_has(const struct vocab *vocab, int32_t id)
{
    return id >= 0 && (uint32_t)id < vocab->n_ids && vocab->tokens[id].size != NO_TOKEN;
}

struct span vocab_content(const struct vocab *vocab, int32_t id)
{
    if (!vocab_has(vocab, id) || vocab->tokens[id].size == 0) {
        return SPAN("");
    }
    return (struct span){vocab->contents.bytes + vocab->tokens[id].at, vocab->tokens[id].size};
}
