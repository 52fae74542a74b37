/* SPDX-License-Identifier: MIT */
/*
 * The normalizer, the pre-tokenizer and the decoder of a tokenizer.json: each a step with a type,
 * or a Sequence of steps. With the helpers that tokenizer_parse.c uses too.
 */
#include <stdio.h>

#include "gttd_util.h"
#include "tokenizer_parse.h"
#include "unicode.h"

struct quoted quote(struct span s)
{
    struct quoted q;
    size_t at = 0;
    for (size_t i = 0; i < s.size; i++) {
        uint8_t c = (uint8_t)s.bytes[i];
        if (at > sizeof q.text - 8) {
            memcpy(q.text + at, "...", 3);
            at += 3;
            break;
        }
        if (c < 0x20 || c >= 0x7f) {
            at += (size_t)snprintf(q.text + at, sizeof q.text - at, "\\x%02x", c);
        } else {
            q.text[at++] = (char)c;
        }
    }
    q.text[at] = '\0';
    return q;
}

int known_key(struct jscan *scan, const char *const *keys, size_t n, uint32_t *seen,
              struct span key, int *ret)
{
    *ret = -1;
    for (size_t i = 0; i < n; i++) {
        if (keys[i] && span_is(key, keys[i])) {
            if (*seen & 1u << i) {
                return jscan_fail(scan, "\"%s\" is there twice", keys[i]);
            }
            *seen |= 1u << i;
            *ret = (int)i;
            return 0;
        }
    }
    return 0;
}

int copy_string(struct jscan *scan, const char *what, struct buf *out)
{
    struct span s;
    int r = jscan_string(scan, what, &s);
    if (r < 0) {
        return r;
    }
    out->size = 0;
    return buf_add(out, s.bytes, s.size);
}

enum step_key {
    STEP_TYPE,
    STEP_PATTERN,
    STEP_CONTENT,
    STEP_PREPEND,
    STEP_LIST,
    STEP_BEHAVIOR,
    STEP_INVERT,
    STEP_START,
    STEP_STOP
};

static const char *const step_keys[] = {"type",     "pattern", "content", "prepend", NULL,
                                        "behavior", "invert",  "start",   "stop"};

/* One step as written, values not yet read. */
struct step {
    struct quoted type;
    bool has[ARRAY_SIZE(step_keys)];
    struct jscan value[ARRAY_SIZE(step_keys)];
};

/* Consume an object; where names it, list_key is the key of a Sequence's steps. */
static int read_step(struct jscan *scan, const char *where, const char *list_key, struct step *step)
{
    const char *keys[ARRAY_SIZE(step_keys)];
    memcpy(keys, step_keys, sizeof step_keys);
    keys[STEP_LIST] = list_key;
    uint32_t seen = 0;
    struct span key;
    int r = jscan_object(scan, where);
    memset(step, 0, sizeof *step);
    while (r == 0 && (r = jscan_key(scan, &key)) > 0) {
        int which;
        r = known_key(scan, keys, ARRAY_SIZE(step_keys), &seen, key, &which);
        if (r == 0 && which >= 0) {
            step->has[which] = true;
            step->value[which] = *scan;
        }
        if (r == 0) {
            r = jscan_skip(scan);
        }
    }
    if (r < 0) {
        return r;
    }
    if (!step->has[STEP_TYPE]) {
        return jscan_fail(scan, "%s has no \"type\"", where);
    }
    struct span type;
    r = jscan_string(&step->value[STEP_TYPE], "type", &type);
    if (r == 0) {
        step->type = quote(type);
    }
    return r;
}

static int step_needs(struct jscan *scan, const struct step *step, enum step_key key)
{
    return step->has[key] ? 0
                          : jscan_fail(scan, "%s has no \"%s\"", step->type.text, step_keys[key]);
}

/* {"String": "..."}, not empty. */
static int read_pattern(struct jscan *scan, const struct step *step, struct buf *out)
{
    int r = step_needs(scan, step, STEP_PATTERN);
    if (r < 0) {
        return r;
    }
    struct jscan value = step->value[STEP_PATTERN];
    struct span key;
    r = jscan_object(&value, "pattern");
    if (r == 0) {
        r = jscan_key(&value, &key);
    }
    if (r < 0) {
        return r;
    }
    if (r == 0 || !span_is(key, "String")) {
        return jscan_fail(&value, "%s: only patterns of the form {\"String\": ...} are supported",
                          step->type.text);
    }
    r = copy_string(&value, "pattern", out);
    if (r == 0 && out->size == 0) {
        r = jscan_fail(&value, "%s: the pattern is empty", step->type.text);
    }
    return r;
}

static int read_replace(struct parser *p, struct jscan *scan, struct step *step,
                        struct rewrites *ret)
{
    int r = read_pattern(scan, step, &p->a);
    if (r == 0) {
        r = step_needs(scan, step, STEP_CONTENT);
    }
    if (r == 0) {
        r = copy_string(&step->value[STEP_CONTENT], "content", &p->b);
    }
    return r < 0 ? r : rewrites_add(ret, span_of(&p->a), span_of(&p->b));
}

/* Call use() for the step, or for each step of a Sequence of them (which may nest). */
static int each_step(struct parser *p, struct jscan *scan, const char *where, const char *list_key,
                     int (*use)(struct parser *, struct jscan *, struct step *))
{
    struct step step;
    int r = read_step(scan, where, list_key, &step);
    if (r < 0 || strcmp(step.type.text, "Sequence") != 0) {
        return r < 0 ? r : use(p, scan, &step);
    }
    if (!step.has[STEP_LIST]) {
        return jscan_fail(scan, "Sequence has no \"%s\"", list_key);
    }
    struct jscan *list = &step.value[STEP_LIST];
    r = jscan_array(list, list_key);
    while (r == 0 && (r = jscan_element(list)) > 0) {
        r = each_step(p, list, where, list_key, use);
    }
    return r;
}

static int use_normalizer(struct parser *p, struct jscan *scan, struct step *step)
{
    if (strcmp(step->type.text, "Replace") == 0) {
        return read_replace(p, scan, step, &p->tok->normalizer);
    }
    if (strcmp(step->type.text, "Prepend") == 0) {
        int r = step_needs(scan, step, STEP_PREPEND);
        if (r == 0) {
            r = copy_string(&step->value[STEP_PREPEND], "prepend", &p->a);
        }
        return r < 0 ? r : rewrites_add(&p->tok->normalizer, SPAN(""), span_of(&p->a));
    }
    return jscan_fail(scan, "normalizer %s is not supported", step->type.text);
}

static int use_pre_tokenizer(struct parser *p, struct jscan *scan, struct step *step)
{
    bool invert = false;
    if (strcmp(step->type.text, "Split") != 0) {
        return jscan_fail(scan, "pre_tokenizer %s is not supported", step->type.text);
    }
    if (p->tok->split_behind.size) {
        return jscan_fail(scan, "more than one pre_tokenizer is not supported");
    }
    int r = read_pattern(scan, step, &p->tok->split_behind);
    if (r == 0) {
        r = step_needs(scan, step, STEP_BEHAVIOR);
    }
    if (r == 0) {
        r = copy_string(&step->value[STEP_BEHAVIOR], "behavior", &p->a);
    }
    if (r == 0 && step->has[STEP_INVERT]) {
        r = jscan_bool(&step->value[STEP_INVERT], "invert", &invert);
    }
    if (r == 0 && (invert || !span_is(span_of(&p->a), "MergedWithPrevious"))) {
        r = jscan_fail(scan,
                       "pre_tokenizer Split: only MergedWithPrevious, not inverted, is supported");
    }
    return r;
}

static int read_strip(struct jscan *scan, struct step *step, struct tokenizer_strip *ret)
{
    struct span content;
    int64_t n[2] = {0, 0};
    int r = 0;
    for (enum step_key key = STEP_START; key <= STEP_STOP && r == 0; key++) {
        r = step_needs(scan, step, key);
        if (r == 0) {
            r = jscan_integer(&step->value[key], step_keys[key], 0, INT32_MAX,
                              &n[key - STEP_START]);
        }
    }
    if (r == 0) {
        r = step_needs(scan, step, STEP_CONTENT);
    }
    if (r == 0) {
        r = jscan_string(&step->value[STEP_CONTENT], "content", &content);
    }
    if (r < 0) {
        return r;
    }
    if (content.size == 0 || utf8_get(content.bytes, content.size, NULL) != content.size) {
        return jscan_fail(scan, "Strip: \"content\" is not one character");
    }
    *ret = (struct tokenizer_strip){.size = (uint32_t)content.size,
                                    .n_start = (size_t)n[0],
                                    .n_end = (size_t)n[1]};
    memcpy(ret->utf8, content.bytes, content.size);
    return 0;
}

/* First each token's content is rewritten, then bytes are bytes, then it is one text: in this order
 * each token stands for the same bytes wherever it is. */
static int use_decoder(struct parser *p, struct jscan *scan, struct step *step)
{
    struct tokenizer *tok = p->tok;
    if (strcmp(step->type.text, "Replace") == 0 && !tok->decode_bytes && !p->decoder_fuses) {
        return read_replace(p, scan, step, &tok->decoder);
    }
    if (strcmp(step->type.text, "ByteFallback") == 0 && !tok->decode_bytes && !p->decoder_fuses) {
        tok->decode_bytes = true;
        return 0;
    }
    if (strcmp(step->type.text, "Fuse") == 0) {
        p->decoder_fuses = true;
        return 0;
    }
    if (strcmp(step->type.text, "Strip") == 0 && p->decoder_fuses &&
        tok->n_strips < TOKENIZER_MAX_STRIPS) {
        return read_strip(scan, step, &tok->strips[tok->n_strips++]);
    }
    return jscan_fail(scan, "decoder %s is not supported%s", step->type.text,
                      tok->decode_bytes || p->decoder_fuses ? " in this place" : "");
}

int read_normalizer(struct parser *p, struct jscan *scan)
{
    return each_step(p, scan, "normalizer", "normalizers", use_normalizer);
}

int read_pre_tokenizer(struct parser *p, struct jscan *scan)
{
    return each_step(p, scan, "pre_tokenizer", "pretokenizers", use_pre_tokenizer);
}

int read_decoder(struct parser *p, struct jscan *scan)
{
    return each_step(p, scan, "decoder", "decoders", use_decoder);
}
