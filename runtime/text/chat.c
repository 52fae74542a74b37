/* SPDX-License-Identifier: MIT */
/* Gemma's turn format: see chat.h. */
#include "chat.h"

#include "buf.h"
#include "gttd_util.h"
#include "unicode.h"

struct turn_tokens {
    int32_t bos, start, end;
};

static int find_turn_tokens(const struct tokenizer *tok, struct err *err, struct turn_tokens *ret)
{
    static const char *const names[] = {"<bos>", "<start_of_turn>", "<end_of_turn>"};
    int32_t *const ids[] = {&ret->bos, &ret->start, &ret->end};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        *ids[i] = tokenizer_find(tok, names[i]);
        if (*ids[i] < 0) {
            return err_set(err, -EINVAL, "the tokenizer has no %s: not a Gemma chat model",
                           names[i]);
        }
    }
    return 0;
}

static int check_roles(const struct chat_message *messages, size_t n, struct err *err)
{
    size_t first = n && messages[0].role == CHAT_SYSTEM;
    if (n == first) {
        return err_set(err, -EINVAL, first ? "there is only a system message" : "no messages");
    }
    for (size_t i = first; i < n; i++) {
        enum chat_role want = (i - first) % 2 ? CHAT_ASSISTANT : CHAT_USER;
        if (messages[i].role == CHAT_SYSTEM) {
            return err_set(err, -EINVAL,
                           "message %zu is a system message: only the first may be one", i + 1);
        }
        if (messages[i].role != want) {
            return err_set(err, -EINVAL,
                           "message %zu is the %s's: user and assistant must alternate, and the "
                           "user begins",
                           i + 1, want == CHAT_USER ? "assistant" : "user");
        }
    }
    return messages[n - 1].role == CHAT_USER
               ? 0
               : err_set(err, -EINVAL, "the last message must be the user's");
}

/* White space as Python's str.strip() has it, which is what the template's `| trim` does. */
static bool is_trimmed(uint32_t code)
{
    return unicode_is_space(code) || (code >= 0x1c && code <= 0x1f);
}

static struct span trim(const char *text, size_t size)
{
    uint32_t code;
    size_t n;
    while ((n = utf8_get(text, size, &code)) && is_trimmed(code)) {
        text += n;
        size -= n;
    }
    while ((n = utf8_get_last(text, size, &code)) && is_trimmed(code)) {
        size -= n;
    }
    return (struct span){text, size};
}

static int add_text(struct ids *ids, const struct tokenizer *tok, struct span text)
{
    AUTO_FREE int32_t *v = NULL;
    size_t n;
    int r = tokenizer_encode(tok, text.bytes, text.size, false, &v, &n);
    for (size_t i = 0; i < n && r == 0; i++) {
        r = ids_add(ids, v[i]);
    }
    return r;
}

/* What stands between <start_of_turn> and <end_of_turn> is one text: a token may span its parts. */
static int add_turn(struct ids *ids, const struct tokenizer *tok, const struct turn_tokens *tokens,
                    const struct chat_message *system, const struct chat_message *message)
{
    struct span parts[] = {message->role == CHAT_USER ? SPAN("user\n") : SPAN("model\n"),
                           system ? (struct span){system->text, system->size} : SPAN(""),
                           system ? SPAN("\n\n") : SPAN(""), trim(message->text, message->size)};
    AUTO_BUF text = {0};
    int r = ids_add(ids, tokens->start);
    for (size_t i = 0; i < ARRAY_SIZE(parts) && r == 0; i++) {
        r = buf_add(&text, parts[i].bytes, parts[i].size);
    }
    if (r == 0) {
        r = add_text(ids, tok, (struct span){text.bytes, text.size});
    }
    if (r == 0) {
        r = ids_add(ids, tokens->end);
    }
    return r < 0 ? r : add_text(ids, tok, SPAN("\n"));
}

int chat_encode(const struct tokenizer *tok, const struct chat_message *messages, size_t n,
                struct err *err, int32_t **ret_ids, size_t *ret_n)
{
    struct turn_tokens tokens;
    int r = find_turn_tokens(tok, err, &tokens);
    if (r == 0) {
        r = check_roles(messages, n, err);
    }
    if (r < 0) {
        return r;
    }
    const struct chat_message *system = NULL;
    if (messages[0].role == CHAT_SYSTEM) {
        system = messages++;
        n--;
    }
    struct ids ids = {0};
    r = ids_add(&ids, tokens.bos);
    for (size_t i = 0; i < n && r == 0; i++) {
        r = add_turn(&ids, tok, &tokens, i == 0 ? system : NULL, &messages[i]);
    }
    if (r == 0) {
        r = ids_add(&ids, tokens.start);
    }
    if (r == 0) {
        r = add_text(&ids, tok, SPAN("model\n"));
    }
    if (r < 0) {
        free(ids.v);
        return err_set(err, r, "chat template: %s", strerror(-r));
    }
    *ret_ids = ids.v;
    *ret_n = ids.n;
    return 0;
}
