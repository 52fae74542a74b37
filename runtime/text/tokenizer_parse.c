/* SPDX-License-Identifier: MIT */
/*
 * From tokenizer.json to a tokenizer. What Gemma-style files use is taken over, what they do not
 * use is refused by name: a tokenizer that is nearly right gives answers that are nearly right. The
 * normalizer, the pre-tokenizer and the decoder are read in tokenizer_steps.c.
 * "truncation", "padding" and "post_processor" are for training and batches; they are left alone.
 */
#include "tokenizer_parse.h"
#include "gttd_util.h"

/* ---- the model ---- */

static int add_vocab(struct jscan *scan, struct vocab *vocab, struct span content, int64_t id)
{
    switch (vocab_add(vocab, content, id)) {
    case 0:
        return 0;
    case -EEXIST:
        return jscan_fail(scan, "token \"%s\" is there twice", quote(content).text);
    case -EBUSY:
        return jscan_fail(scan, "token \"%s\": id %lld is taken by \"%s\"", quote(content).text,
                          (long long)id, quote(vocab_content(vocab, (int32_t)id)).text);
    case -ERANGE:
        return jscan_fail(scan, "token \"%s\": id %lld is out of range", quote(content).text,
                          (long long)id);
    default:
        return -ENOMEM;
    }
}

static int read_vocab(struct parser *p, struct jscan *scan)
{
    struct span key;
    int r = jscan_object(scan, "model.vocab");
    while (r == 0 && (r = jscan_key(scan, &key)) > 0) {
        int64_t id = 0;
        r = jscan_integer(scan, "a token's id", 0, VOCAB_MAX_ID, &id);
        if (r == 0) {
            r = add_vocab(scan, &p->tok->vocab, key, id);
        }
    }
    return r;
}

/* "a b" */
static int read_merge_string(struct parser *p, struct jscan *scan, int32_t ids[2])
{
    int r = copy_string(scan, "a merge", &p->a);
    if (r < 0) {
        return r;
    }
    struct span all = span_of(&p->a);
    const char *space = all.size ? memchr(all.bytes, ' ', all.size) : NULL;
    size_t left = space ? (size_t)(space - all.bytes) : 0;
    if (!space || memchr(space + 1, ' ', all.size - left - 1)) {
        return jscan_fail(scan, "merge \"%s\" is not two tokens with a space between",
                          quote(all).text);
    }
    struct span parts[2] = {{all.bytes, left}, {space + 1, all.size - left - 1}};
    for (int i = 0; i < 2; i++) {
        ids[i] = vocab_find(&p->tok->vocab, parts[i]);
        if (ids[i] < 0) {
            return jscan_fail(scan, "a merge names \"%s\", which is not in the vocabulary",
                              quote(parts[i]).text);
        }
    }
    return 0;
}

/* ["a", "b"] */
static int read_merge_pair(struct parser *p, struct jscan *scan, int32_t ids[2])
{
    int r = jscan_array(scan, "a merge");
    for (int i = 0; i < 2 && r == 0; i++) {
        struct span part;
        r = jscan_element(scan);
        if (r <= 0) {
            return r < 0 ? r : jscan_fail(scan, "a merge of fewer than two tokens");
        }
        r = jscan_string(scan, "a token of a merge", &part);
        if (r == 0) {
            ids[i] = vocab_find(&p->tok->vocab, part);
            if (ids[i] < 0) {
                r = jscan_fail(scan, "a merge names \"%s\", which is not in the vocabulary",
                               quote(part).text);
            }
        }
    }
    if (r == 0) {
        r = jscan_element(scan);
    }
    return r > 0 ? jscan_fail(scan, "a merge of more than two tokens") : r;
}

static int add_merge(struct parser *p, struct jscan *scan, const int32_t ids[2], uint32_t rank)
{
    struct tokenizer *tok = p->tok;
    struct span left = vocab_content(&tok->vocab, ids[0]);
    struct span right = vocab_content(&tok->vocab, ids[1]);
    p->b.size = 0;
    int r = buf_add(&p->b, left.bytes, left.size);
    if (r == 0) {
        r = buf_add(&p->b, right.bytes, right.size);
    }
    if (r < 0) {
        return r;
    }
    int32_t merged = vocab_find(&tok->vocab, span_of(&p->b));
    if (merged < 0) {
        return jscan_fail(scan, "a merge makes \"%s\", which is not in the vocabulary",
                          quote(span_of(&p->b)).text);
    }
    return bpe_add_merge(&tok->bpe, ids[0], ids[1], rank, merged);
}

static int read_merges(struct parser *p, struct jscan *scan)
{
    int r = jscan_array(scan, "model.merges");
    for (uint32_t rank = 0; r == 0 && (r = jscan_element(scan)) > 0; rank++) {
        int32_t ids[2];
        r = jscan_peek(scan) == '"' ? read_merge_string(p, scan, ids)
                                    : read_merge_pair(p, scan, ids);
        if (r == 0) {
            r = add_merge(p, scan, ids, rank);
        }
    }
    return r;
}

enum model_key {
    MODEL_TYPE,
    MODEL_VOCAB,
    MODEL_MERGES,
    MODEL_UNK,
    MODEL_DROPOUT,
    MODEL_PREFIX,
    MODEL_SUFFIX,
    MODEL_FUSE_UNK,
    MODEL_BYTE_FALLBACK,
    MODEL_IGNORE_MERGES
};

static const char *const model_keys[] = {"type",
                                         "vocab",
                                         "merges",
                                         "unk_token",
                                         "dropout",
                                         "continuing_subword_prefix",
                                         "end_of_word_suffix",
                                         "fuse_unk",
                                         "byte_fallback",
                                         "ignore_merges"};

/* A flag that may be missing or null. */
static int read_flag(struct jscan *scan, const char *what, bool *ret)
{
    return jscan_null(scan) ? 0 : jscan_bool(scan, what, ret);
}

/* Everything of the model but its tables and its type. */
static int read_model_value(struct parser *p, struct jscan *scan, enum model_key key)
{
    struct bpe *bpe = &p->tok->bpe;
    switch (key) {
    case MODEL_FUSE_UNK:
        return read_flag(scan, "model.fuse_unk", &bpe->fuse_unk);
    case MODEL_BYTE_FALLBACK:
        return read_flag(scan, "model.byte_fallback", &bpe->byte_fallback);
    case MODEL_IGNORE_MERGES:
        return read_flag(scan, "model.ignore_merges", &bpe->ignore_merges);
    case MODEL_DROPOUT:
        return jscan_null(scan) ? 0 : jscan_fail(scan, "model.dropout is not supported");
    default: /* MODEL_PREFIX, MODEL_SUFFIX */
        if (jscan_null(scan)) {
            return 0;
        }
        int r = copy_string(scan, model_keys[key], &p->a);
        return r == 0 && p->a.size ? jscan_fail(scan, "model.%s is not supported", model_keys[key])
                                   : r;
    }
}

static int read_model_type(struct parser *p, struct jscan *scan)
{
    int r = copy_string(scan, "model.type", &p->a);
    if (r == 0 && !span_is(span_of(&p->a), "BPE")) {
        r = jscan_fail(scan, "model.type is %s: a tokenizer that is no BPE is not supported",
                       quote(span_of(&p->a)).text);
    }
    return r;
}

static int read_unk(struct parser *p, struct jscan *scan)
{
    struct span unk;
    if (jscan_null(scan)) {
        return 0;
    }
    int r = jscan_string(scan, "model.unk_token", &unk);
    if (r < 0) {
        return r;
    }
    p->tok->bpe.unk = vocab_find(&p->tok->vocab, unk);
    if (p->tok->bpe.unk < 0) {
        r = jscan_fail(scan, "model.unk_token \"%s\" is not in the vocabulary", quote(unk).text);
    }
    return r;
}

/* The tables are read last, in the order they need each other, wherever they stand. */
static int read_model(struct parser *p, struct jscan *scan)
{
    struct jscan value[ARRAY_SIZE(model_keys)];
    struct span key;
    uint32_t seen = 0;
    int r = jscan_object(scan, "model");
    while (r == 0 && (r = jscan_key(scan, &key)) > 0) {
        int which;
        r = known_key(scan, model_keys, ARRAY_SIZE(model_keys), &seen, key, &which);
        if (r < 0) {
            return r;
        }
        if (which >= 0) {
            value[which] = *scan;
        }
        r = which > MODEL_UNK ? read_model_value(p, scan, (enum model_key)which) : jscan_skip(scan);
    }
    if (r < 0) {
        return r;
    }
    for (int i = MODEL_TYPE; i <= MODEL_MERGES; i++) {
        if (!(seen & 1u << i)) {
            return jscan_fail(scan, "model has no \"%s\"", model_keys[i]);
        }
    }
    r = read_model_type(p, &value[MODEL_TYPE]);
    if (r == 0) {
        r = read_vocab(p, &value[MODEL_VOCAB]);
    }
    if (r == 0) {
        r = read_merges(p, &value[MODEL_MERGES]);
    }
    if (r == 0 && (seen & 1u << MODEL_UNK)) {
        r = read_unk(p, &value[MODEL_UNK]);
    }
    return r;
}

/* ---- added tokens ---- */

enum added_key {
    ADDED_ID,
    ADDED_CONTENT,
    ADDED_SPECIAL,
    ADDED_NORMALIZED,
    ADDED_SINGLE_WORD,
    ADDED_LSTRIP,
    ADDED_RSTRIP
};

static const char *const added_keys[] = {"id",          "content", "special", "normalized",
                                         "single_word", "lstrip",  "rstrip"};

/* Consume one object; its content goes to p->a. */
static int read_added_token(struct parser *p, struct jscan *scan, struct added_token *ret)
{
    struct span key;
    uint32_t seen = 0;
    int64_t id = 0;
    int r = jscan_object(scan, "an added token");
    while (r == 0 && (r = jscan_key(scan, &key)) > 0) {
        bool *flags[] = {[ADDED_SPECIAL] = &ret->special,
                         [ADDED_NORMALIZED] = &ret->normalized,
                         [ADDED_SINGLE_WORD] = &ret->single_word,
                         [ADDED_LSTRIP] = &ret->lstrip,
                         [ADDED_RSTRIP] = &ret->rstrip};
        int which;
        r = known_key(scan, added_keys, ARRAY_SIZE(added_keys), &seen, key, &which);
        if (r < 0) {
            return r;
        }
        if (which < 0) {
            r = jscan_skip(scan);
        } else if (which == ADDED_ID) {
            r = jscan_integer(scan, "an added token's id", 0, VOCAB_MAX_ID, &id);
        } else if (which == ADDED_CONTENT) {
            r = copy_string(scan, "an added token's content", &p->a);
        } else {
            r = jscan_bool(scan, added_keys[which], flags[which]);
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(added_keys) && r == 0; i++) {
        if (!(seen & 1u << i)) {
            r = jscan_fail(scan, "an added token has no \"%s\"", added_keys[i]);
        }
    }
    if (r == 0 && p->a.size == 0) {
        r = jscan_fail(scan, "an added token is empty");
    }
    ret->id = (int32_t)id;
    return r;
}

/* Enter it into the vocabulary, where it may be already. */
static int register_added(struct parser *p, struct jscan *scan, const struct added_token *token)
{
    struct vocab *vocab = &p->tok->vocab;
    struct span content = span_of(&p->a);
    int32_t there = vocab_find(vocab, content);
    if (there < 0) {
        int r = add_vocab(scan, vocab, content, token->id);
        if (r < 0) {
            return r;
        }
        vocab->tokens[token->id].outside_bpe = true;
    } else if (there != token->id) {
        return jscan_fail(scan, "added token \"%s\" has id %d, in the vocabulary it has %d",
                          quote(content).text, token->id, there);
    } else if (vocab->tokens[there].added) {
        return jscan_fail(scan, "added token \"%s\" is there twice", quote(content).text);
    }
    vocab->tokens[token->id].added = true;
    vocab->tokens[token->id].special = token->special;
    vocab->tokens[token->id].normalized = token->normalized;
    return 0;
}

static int add_pattern(struct parser *p, struct jscan *scan, const struct added_token *token)
{
    if (!token->normalized) {
        return added_add(&p->tok->raw, span_of(&p->a), *token);
    }
    AUTO_BUF pattern = {0};
    int r = rewrites_apply(&p->tok->normalizer, span_of(&p->a), &pattern, &p->b);
    if (r < 0) {
        return r;
    }
    if (pattern.size == 0) {
        return jscan_fail(scan, "added token \"%s\" is empty once normalized",
                          quote(span_of(&p->a)).text);
    }
    return added_add(&p->tok->normalized, span_of(&pattern), *token);
}

static int read_added_tokens(struct parser *p, struct jscan *scan)
{
    int r = jscan_array(scan, "added_tokens");
    while (r == 0 && (r = jscan_element(scan)) > 0) {
        struct added_token token = {0};
        r = read_added_token(p, scan, &token);
        if (r == 0) {
            r = register_added(p, scan, &token);
        }
        if (r == 0) {
            r = add_pattern(p, scan, &token);
        }
    }
    return r;
}

/* ---- the whole ---- */

static int check_holes(struct parser *p)
{
    const struct vocab *vocab = &p->tok->vocab;
    if (vocab->n_ids == 0) {
        return jscan_fail(&p->scan, "the vocabulary is empty");
    }
    for (uint32_t id = 0; vocab->n_tokens < vocab->n_ids && id < vocab->n_ids; id++) {
        if (!vocab_has(vocab, (int32_t)id)) {
            return jscan_fail(&p->scan, "the vocabulary has no token with id %u, but one with %u",
                              id, vocab->n_ids - 1);
        }
    }
    return 0;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

/* The byte that "<0x41>" stands for, or -1. */
static int byte_of(struct span content)
{
    if (content.size != 6 || memcmp(content.bytes, "<0x", 3) != 0 || content.bytes[5] != '>') {
        return -1;
    }
    int high = hex_digit(content.bytes[3]), low = hex_digit(content.bytes[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* What a token decodes to, in p->a. One that is searched in normalized text decodes to what was
 * found there: "<x>" behind a normalizer that prepends a space is " <x>". */
static int decode_token(struct parser *p, int32_t id)
{
    const struct tokenizer *tok = p->tok;
    struct span content = vocab_content(&tok->vocab, id);
    AUTO_BUF normalized = {0};
    if (tok->vocab.tokens[id].normalized) {
        int r = rewrites_apply(&tok->normalizer, content, &normalized, &p->b);
        if (r < 0) {
            return r;
        }
        content = span_of(&normalized);
    }
    return rewrites_apply(&tok->decoder, content, &p->a, &p->b);
}

static int make_pieces(struct parser *p)
{
    struct tokenizer *tok = p->tok;
    uint32_t n = tok->vocab.n_ids;
    tok->piece_at = reallocarray(NULL, (size_t)n + 1, sizeof *tok->piece_at);
    if (!tok->piece_at) {
        return -ENOMEM;
    }
    tok->piece_at[0] = 0;
    for (uint32_t id = 0; id < n; id++) {
        int r = decode_token(p, (int32_t)id);
        if (r < 0) {
            return r;
        }
        int byte = tok->decode_bytes ? byte_of(span_of(&p->a)) : -1;
        char c = (char)byte;
        r = byte >= 0 ? buf_add(&tok->pieces, &c, 1) : buf_add(&tok->pieces, p->a.bytes, p->a.size);
        if (r < 0) {
            return r;
        }
        if (tok->pieces.size > UINT32_MAX) {
            return jscan_fail(&p->scan, "the tokens decode to more than 4 GiB");
        }
        tok->piece_at[id + 1] = (uint32_t)tok->pieces.size;
    }
    return 0;
}

enum top_key { TOP_VERSION, TOP_NORMALIZER, TOP_PRE_TOKENIZER, TOP_DECODER, TOP_ADDED, TOP_MODEL };

static const char *const top_keys[] = {"version", "normalizer",   "pre_tokenizer",
                                       "decoder", "added_tokens", "model"};

static int read_version(struct parser *p, struct jscan *scan)
{
    int r = copy_string(scan, "version", &p->a);
    return r == 0 && !span_is(span_of(&p->a), "1.0")
               ? jscan_fail(scan, "version is %s, not 1.0", quote(span_of(&p->a)).text)
               : r;
}

/* Added tokens need the model's ids and the normalizer: they wait. */
static int read_top(struct parser *p, struct jscan *added, uint32_t *seen)
{
    struct jscan *scan = &p->scan;
    struct span key;
    int r = jscan_object(scan, "the tokenizer");
    while (r == 0 && (r = jscan_key(scan, &key)) > 0) {
        int which;
        r = known_key(scan, top_keys, ARRAY_SIZE(top_keys), seen, key, &which);
        if (r < 0) {
            return r;
        }
        if (which == TOP_VERSION) {
            r = read_version(p, scan);
        } else if (which == TOP_MODEL) {
            r = read_model(p, scan);
        } else if (which == TOP_ADDED || which < 0) {
            *added = which == TOP_ADDED ? *scan : *added;
            r = jscan_skip(scan);
        } else if (which == TOP_DECODER) {
            r = jscan_null(scan) ? jscan_fail(scan, "decoder is null, which is not supported")
                                 : read_decoder(p, scan);
        } else if (jscan_null(scan)) {
            r = 0;
        } else if (which == TOP_NORMALIZER) {
            r = read_normalizer(p, scan);
        } else {
            r = read_pre_tokenizer(p, scan);
        }
    }
    return r < 0 ? r : jscan_finish(scan);
}

static int read_all(struct parser *p)
{
    struct jscan added;
    uint32_t seen = 0;
    int r = read_top(p, &added, &seen);
    if (r == 0 && !(seen & 1u << TOP_MODEL)) {
        r = jscan_fail(&p->scan, "there is no \"model\"");
    }
    if (r == 0 && !(seen & 1u << TOP_DECODER)) {
        r = jscan_fail(&p->scan, "there is no \"decoder\"");
    }
    if (r < 0) {
        return r;
    }
    if (seen & 1u << TOP_ADDED) {
        r = read_added_tokens(p, &added);
    }
    if (r == 0) {
        r = check_holes(p);
    }
    if (r == 0) {
        added_index(&p->tok->raw);
        added_index(&p->tok->normalized);
        bpe_index(&p->tok->bpe);
        r = make_pieces(p);
    }
    return r;
}

int tokenizer_parse(const char *name, const void *json, size_t size, struct err *err,
                    struct tokenizer **ret)
{
    struct tokenizer *tok = calloc(1, sizeof *tok);
    AUTO_BUF scratch = {0};
    struct parser p = {.tok = tok};
    int r = -ENOMEM;
    if (tok) {
        tok->bpe.vocab = &tok->vocab;
        tok->bpe.unk = -1;
        jscan_init(&p.scan, name, json, size, &scratch, err);
        r = read_all(&p);
    }
    buf_finish(&p.a);
    buf_finish(&p.b);
    if (r == -ENOMEM) {
        err_set(err, r, "%s: %s", name, strerror(ENOMEM));
    }
    if (r < 0) {
        tokenizer_destroy(tok);
        return r;
    }
    *ret = tok;
    return 0;
}
