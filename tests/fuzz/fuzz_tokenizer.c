/* SPDX-License-Identifier: MIT */
/*
 * Input: a tokenizer.json, a zero byte (which JSON cannot have), a text. The text is encoded by the
 * bundled model's tokenizer, which must give its bytes back, and by the one from the JSON if it is
 * one, which must give ids of its own.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "fuzz_tokenizer: %s\n", what);
        abort();
    }
}

static const struct tokenizer *bundled(void)
{
    static struct tokenizer *tok;
    struct err err;
    if (!tok) {
        require(tokenizer_load("models/wordbook-22m", &err, &tok) == 0, err.text);
    }
    return tok;
}

static void encode(const struct tokenizer *tok, const char *text, size_t size, bool with_special,
                   bool comes_back)
{
    int32_t *ids;
    size_t n, back_size;
    char *back;
    require(tokenizer_encode(tok, text, size, with_special, &ids, &n) == 0, "encode failed");
    require(tokenizer_decode(tok, ids, n, false, &back, &back_size) == 0, "an id out of range");
    if (comes_back) {
        require(back_size == size && memcmp(back, text, size) == 0, "other bytes came back");
    }
    free(back);
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    size_t json_size = zero ? (size_t)(zero - data) : size;
    const char *text = zero ? (const char *)zero + 1 : "";
    size_t text_size = zero ? size - json_size - 1 : 0;

    /* U+2581 decodes to a space */
    bool plain = text_size == 0 || !memmem(text, text_size, "\xe2\x96\x81", 3);
    encode(bundled(), text, text_size, true, plain);
    encode(bundled(), text, text_size, false, plain);

    struct err err = {0};
    struct tokenizer *tok;
    int r = tokenizer_parse("json", data, json_size, &err, &tok);
    require(r == 0 || (r < 0 && err.text[0]), "a failure without a reason");
    if (r == 0) {
        encode(tok, text, text_size, true, false);
        encode(tok, text, text_size, false, false);
        tokenizer_destroy(tok);
    }
    return 0;
}
