/* SPDX-License-Identifier: MIT */
/*
 * Text to token ids and back, exactly as Hugging Face's tokenizers does for Gemma-style
 * tokenizer.json files: added tokens found in the raw text, spaces replaced, BPE with byte
 * fallback. Owns the vocabulary; knows nothing of models or chats. Immutable after creation: any
 * number of threads may use one.
 */
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct tokenizer;

/* Read DIR/tokenizer.json, or the file itself if path is no directory. Errors: -ENOENT, -EACCES,
 * -EINVAL (named key). */
int tokenizer_load(const char *path, struct err *err, struct tokenizer **ret);
/* The same from memory; name is used in messages. This is what is fuzzed. */
int tokenizer_parse(const char *name, const void *json, size_t size, struct err *err,
                    struct tokenizer **ret);
void tokenizer_destroy(struct tokenizer *tok);

/* One more than the largest id. */
uint32_t tokenizer_vocab_size(const struct tokenizer *tok);
/* The id of a token by its exact content ("<start_of_turn>"), or -1. */
int32_t tokenizer_find(const struct tokenizer *tok, const char *content);

/*
 * Encode size bytes (any bytes: ill-formed UTF-8 is byte-fallen-back). parse_special: added tokens
 * marked special in the text ("<start_of_turn>") become their ids; if false they are ordinary text,
 * so that what a user typed cannot open a turn. (Added tokens that are not special are always
 * recognised, as Hugging Face does.) No BOS is added. *ret_ids is malloc'ed, the caller's.
 */
int tokenizer_encode(const struct tokenizer *tok, const char *text, size_t size, bool parse_special,
                     int32_t **ret_ids, size_t *ret_n);

/* Decode ids to bytes (malloc'ed, NUL-terminated, may hold partial UTF-8 at its end). skip_special
 * leaves special tokens out. Ids out of range are -EINVAL. */
int tokenizer_decode(const struct tokenizer *tok, const int32_t *ids, size_t n, bool skip_special,
                     char **ret_text, size_t *ret_size);

/* The bytes one token stands for (borrowed, until the tokenizer is destroyed): for streaming.
 * Special tokens give their content and *ret_special = true. */
int tokenizer_piece(const struct tokenizer *tok, int32_t id, const char **ret_bytes,
                    size_t *ret_size, bool *ret_special);

#endif
