/* SPDX-License-Identifier: MIT */
/* Encoding and decoding with a tokenizer that is there: see tokenizer.h. Reading one from JSON is
 * tokenizer_parse.c. */
#include "tokenizer.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "gttd_util.h"
#include "tokenizer_impl.h"

#define FILE_MAX (512 << 20)

void tokenizer_destroy(struct tokenizer *tok)
{
    if (!tok) {
        return;
    }
    vocab_finish(&tok->vocab);
    bpe_finish(&tok->bpe);
    added_finish(&tok->raw);
    added_finish(&tok->normalized);
    rewrites_finish(&tok->normalizer);
    rewrites_finish(&tok->decoder);
    buf_finish(&tok->split_behind);
    buf_finish(&tok->pieces);
    free(tok->piece_at);
    free(tok);
}

static int read_file(const char *path, struct err *err, struct buf *ret)
{
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        int r = -errno;
        return err_set(err, r, "%s: %s", path, strerror(-r));
    }
    if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
        return err_set(err, -EINVAL, "%s: %s", path,
                       S_ISREG(st.st_mode) ? "larger than 512 MiB" : "not a regular file");
    }
    int r = buf_reserve(ret, (size_t)st.st_size + 1);
    if (r < 0) {
        return err_set(err, r, "%s: %s", path, strerror(-r));
    }
    while (ret->size < (size_t)st.st_size) {
        ssize_t n = read(fd, ret->bytes + ret->size, (size_t)st.st_size - ret->size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            r = -errno;
            return err_set(err, r, "%s: %s", path, strerror(-r));
        }
        if (n == 0) {
            break; /* shrank meanwhile: what is missing will not parse */
        }
        ret->size += (size_t)n;
    }
    return 0;
}

int tokenizer_load(const char *path, struct err *err, struct tokenizer **ret)
{
    AUTO_FREE char *inside = NULL;
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        if (asprintf(&inside, "%s/tokenizer.json", path) < 0) {
            inside = NULL;
            return err_set(err, -ENOMEM, "%s: %s", path, strerror(ENOMEM));
        }
        path = inside;
    }
    AUTO_BUF text = {0};
    int r = read_file(path, err, &text);
    return r < 0 ? r : tokenizer_parse(path, text.bytes, text.size, err, ret);
}

uint32_t tokenizer_vocab_size(const struct tokenizer *tok)
{
    return tok->vocab.n_ids;
}

int32_t tokenizer_find(const struct tokenizer *tok, const char *content)
{
    return vocab_find(&tok->vocab, (struct span){content, strlen(content)});
}

/* ---- encoding ---- */

struct encoder {
    const struct tokenizer *tok;
    bool with_special;
    struct ids ids;
    struct bpe_work work;
    struct added_pieces raw, normalized;
    struct buf text, spare;
};

static void encoder_finish(struct encoder *enc)
{
    free(enc->ids.v);
    bpe_work_finish(&enc->work);
    added_pieces_finish(&enc->raw);
    added_pieces_finish(&enc->normalized);
    buf_finish(&enc->text);
    buf_finish(&enc->spare);
}

/* The first word's size. A separator belongs to the word in front of it, unless that is a separator
 * itself: "a  b" is "a ", " ", "b". */
static size_t word_size(const struct tokenizer *tok, struct span text)
{
    const struct buf *sep = &tok->split_behind;
    if (sep->size == 0) {
        return text.size;
    }
    const char *found = memmem(text.bytes, text.size, sep->bytes, sep->size);
    return found ? (size_t)(found - text.bytes) + sep->size : text.size;
}

static int encode_words(struct encoder *enc, struct span text)
{
    int r = 0;
    while (text.size && r == 0) {
        size_t n = word_size(enc->tok, text);
        r = bpe_encode(&enc->tok->bpe, (struct span){text.bytes, n}, &enc->work, &enc->ids);
        text.bytes += n;
        text.size -= n;
    }
    return r;
}

/* Text between the added tokens that were found as it was written. */
static int encode_text(struct encoder *enc, struct span text)
{
    const struct tokenizer *tok = enc->tok;
    int r = 0;
    if (tok->normalizer.n) {
        r = rewrites_apply(&tok->normalizer, text, &enc->text, &enc->spare);
        text = (struct span){enc->text.bytes, enc->text.size};
    }
    if (r == 0) {
        r = added_split(&tok->normalized, text, enc->with_special, &enc->normalized);
    }
    for (size_t i = 0; i < enc->normalized.n && r == 0; i++) {
        struct added_piece piece = enc->normalized.v[i];
        r = piece.id >= 0 ? ids_add(&enc->ids, piece.id)
                          : encode_words(enc, (struct span){text.bytes + piece.start,
                                                            piece.end - piece.start});
    }
    return r;
}

int tokenizer_encode(const struct tokenizer *tok, const char *text, size_t size, bool parse_special,
                     int32_t **ret_ids, size_t *ret_n)
{
    struct encoder enc = {.tok = tok, .with_special = parse_special};
    struct span all = {text, size};
    int r = ids_add(&enc.ids, 0); /* so that there is something to return for an empty text */
    enc.ids.n = 0;
    if (r == 0) {
        r = added_split(&tok->raw, all, parse_special, &enc.raw);
    }
    for (size_t i = 0; i < enc.raw.n && r == 0; i++) {
        struct added_piece piece = enc.raw.v[i];
        r = piece.id >= 0
                ? ids_add(&enc.ids, piece.id)
                : encode_text(&enc, (struct span){text + piece.start, piece.end - piece.start});
    }
    if (r == 0) {
        *ret_ids = take_ptr(&enc.ids.v);
        *ret_n = enc.ids.n;
    }
    encoder_finish(&enc);
    return r;
}

/* ---- decoding ---- */

int tokenizer_piece(const struct tokenizer *tok, int32_t id, const char **ret_bytes,
                    size_t *ret_size, bool *ret_special)
{
    if (!vocab_has(&tok->vocab, id)) {
        return -EINVAL;
    }
    *ret_bytes = tok->pieces.bytes + tok->piece_at[id];
    *ret_size = tok->piece_at[id + 1] - tok->piece_at[id];
    *ret_special = tok->vocab.tokens[id].special;
    return 0;
}

static void apply_strip(const struct tokenizer_strip *strip, struct span *text)
{
    size_t n = strip->size;
    for (size_t i = 0; i < strip->n_start && text->size >= n; i++) {
        if (memcmp(text->bytes, strip->utf8, n) != 0) {
            break;
        }
        text->bytes += n;
        text->size -= n;
    }
    for (size_t i = 0; i < strip->n_end && text->size >= n; i++) {
        if (memcmp(text->bytes + text->size - n, strip->utf8, n) != 0) {
            break;
        }
        text->size -= n;
    }
}

int tokenizer_decode(const struct tokenizer *tok, const int32_t *ids, size_t n, bool skip_special,
                     char **ret_text, size_t *ret_size)
{
    AUTO_BUF out = {0};
    for (size_t i = 0; i < n; i++) {
        const char *bytes;
        size_t size;
        bool special;
        int r = tokenizer_piece(tok, ids[i], &bytes, &size, &special);
        if (r == 0 && !(special && skip_special)) {
            r = buf_add(&out, bytes, size);
        }
        if (r < 0) {
            return r;
        }
    }
    struct span text = {out.bytes, out.size};
    for (size_t i = 0; i < tok->n_strips; i++) {
        apply_strip(&tok->strips[i], &text);
    }
    size_t cut = out.size ? (size_t)(text.bytes - out.bytes) : 0;
    int r = buf_add(&out, "", 1);
    if (r < 0) {
        return r;
    }
    memmove(out.bytes, out.bytes + cut, text.size);
    out.bytes[text.size] = '\0';
    *ret_text = take_ptr(&out.bytes);
    *ret_size = text.size;
    return 0;
}
