/* SPDX-License-Identifier: MIT */
/*
 * Gemma's turn format, as code. Owns the template; does not tokenize beyond calling the tokenizer.
 *   <bos><start_of_turn>user\n[system\n\n]TEXT<end_of_turn>\n<start_of_turn>model\n
 * There is no system role: a leading system message goes in front of the first user turn, as it is.
 * Other texts are trimmed like the template's `| trim`. Roles must alternate user/assistant after
 * an optional system message, and end with the user's.
 */
#ifndef TEXT_CHAT_H
#define TEXT_CHAT_H

#include "tokenizer.h"

enum chat_role { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT };

struct chat_message {
    enum chat_role role;
    const char *text;
    size_t size;
};

/*
 * Ids of a whole conversation, BOS first, open at the model's turn. User text cannot forge turns:
 * special tokens in it stay text. Errors: -EINVAL with the reason (roles do not alternate, no
 * messages, tokenizer lacks the turn tokens).
 */
int chat_encode(const struct tokenizer *tok, const struct chat_message *messages, size_t n,
                struct err *err, int32_t **ret_ids, size_t *ret_n);

#endif
