/* SPDX-License-Identifier: MIT */
/* Added tokens: see added.h. */
#include "added.h"

#include "unicode.h"

void added_finish(struct added_set *set)
{
    buf_finish(&set->bytes);
    free(set->patterns);
    *set = (struct added_set){0};
}

void added_pieces_finish(struct added_pieces *pieces)
{
    free(pieces->v);
    *pieces = (struct added_pieces){0};
}

int added_add(struct added_set *set, struct span content, struct added_token token)
{
    if (content.size > UINT32_MAX - set->bytes.size) {
        return -ENOMEM;
    }
    if (set->n == set->cap) {
        uint32_t cap = 2 * set->cap + 64;
        struct added_pattern *patterns = reallocarray(set->patterns, cap, sizeof *patterns);
        if (!patterns) {
            return -ENOMEM;
        }
        set->patterns = patterns;
        set->cap = cap;
    }
    set->patterns[set->n] =
        (struct added_pattern){(uint32_t)set->bytes.size, (uint32_t)content.size, token};
    int r = buf_add(&set->bytes, content.bytes, content.size);
    set->n += r == 0;
    return r;
}

static struct span text_of(const struct added_set *set, uint32_t i)
{
    return (struct span){set->bytes.bytes + set->patterns[i].at, set->patterns[i].size};
}

static int compare_spans(struct span a, struct span b)
{
    int order = memcmp(a.bytes, b.bytes, a.size < b.size ? a.size : b.size);
    return order ? order : (a.size > b.size) - (a.size < b.size);
}

/* By bytes; of equals the special one, then the one that was added first. */
static int compare(const void *a, const void *b, void *data)
{
    const struct added_pattern *x = a, *y = b;
    const char *bytes = data;
    int order =
        compare_spans((struct span){bytes + x->at, x->size}, (struct span){bytes + y->at, y->size});
    if (order == 0) {
        order = (int)y->token.special - (int)x->token.special;
    }
    return order ? order : (x->at > y->at) - (x->at < y->at);
}

void added_index(struct added_set *set)
{
    if (set->n) {
        qsort_r(set->patterns, set->n, sizeof *set->patterns, compare, set->bytes.bytes);
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < set->n; i++) {
        if (kept == 0 || compare_spans(text_of(set, i), text_of(set, kept - 1)) != 0) {
            set->patterns[kept++] = set->patterns[i];
        }
    }
    set->n = kept;
    uint32_t i = 0;
    for (int b = 0; b < 256; b++) {
        set->first[b] = i;
        while (i < set->n && (uint8_t)*text_of(set, i).bytes == b) {
            i++;
        }
    }
    set->first[256] = set->n;
}

/* The first pattern in [lo, hi), which agree on all bytes before depth, whose byte there is at
 * least byte. All are longer than depth. */
static uint32_t lower_bound(const struct added_set *set, uint32_t lo, uint32_t hi, size_t depth,
                            int byte)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if ((uint8_t)text_of(set, mid).bytes[depth] < byte) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

/* The longest pattern at the front of text, or NULL. */
static const struct added_pattern *longest_at(const struct added_set *set, struct span text)
{
    const struct added_pattern *best = NULL;
    uint8_t byte = (uint8_t)text.bytes[0];
    uint32_t lo = set->first[byte], hi = set->first[byte + 1];
    for (size_t depth = 1; lo < hi; depth++) {
        if (set->patterns[lo].size == depth) { /* the shortest sorts first */
            best = &set->patterns[lo++];
        }
        if (depth == text.size) {
            break;
        }
        byte = (uint8_t)text.bytes[depth];
        lo = lower_bound(set, lo, hi, depth, byte);
        hi = lower_bound(set, lo, hi, depth, byte + 1);
    }
    return best;
}

static bool word_touches(struct span text, size_t start, size_t end)
{
    uint32_t code;
    return (utf8_get_last(text.bytes, start, &code) && unicode_is_word(code)) ||
           (utf8_get(text.bytes + end, text.size - end, &code) && unicode_is_word(code));
}

/* Where the white space that ends at start begins, but not before floor. */
static size_t spaces_before(struct span text, size_t floor, size_t start)
{
    uint32_t code;
    size_t n;
    while (start > floor && (n = utf8_get_last(text.bytes + floor, start - floor, &code)) &&
           unicode_is_space(code)) {
        start -= n;
    }
    return start > floor ? start : floor;
}

static size_t spaces_after(struct span text, size_t end)
{
    uint32_t code;
    size_t n;
    while ((n = utf8_get(text.bytes + end, text.size - end, &code)) && unicode_is_space(code)) {
        end += n;
    }
    return end;
}

static int add_piece(struct added_pieces *pieces, int32_t id, size_t start, size_t end)
{
    if (pieces->n == pieces->cap) {
        size_t cap = 2 * pieces->cap + 16;
        struct added_piece *v = reallocarray(pieces->v, cap, sizeof *v);
        if (!v) {
            return -ENOMEM;
        }
        pieces->v = v;
        pieces->cap = cap;
    }
    pieces->v[pieces->n++] = (struct added_piece){id, start, end};
    return 0;
}

/*
 * The search goes on behind the pattern, not behind the white space it took along: so a second
 * added token inside that white space is found too, and text after it may start before text that
 * was covered already. That is what Hugging Face's tokenizers does, and ids must be the same.
 */
int added_split(const struct added_set *set, struct span text, bool with_special,
                struct added_pieces *pieces)
{
    size_t covered = 0; /* text up to here is in a piece */
    int r = 0;
    pieces->n = 0;
    for (size_t at = 0; at < text.size && set->n && r == 0;) {
        const struct added_pattern *pattern =
            longest_at(set, (struct span){text.bytes + at, text.size - at});
        if (!pattern) {
            at++;
            continue;
        }
        size_t start = at, end = at + pattern->size;
        at = end;
        if ((pattern->token.special && !with_special) ||
            (pattern->token.single_word && word_touches(text, start, end))) {
            continue;
        }
        if (pattern->token.lstrip) {
            start = spaces_before(text, covered, start);
        }
        if (pattern->token.rstrip) {
            end = spaces_after(text, end);
        }
        if (covered < start) {
            r = add_piece(pieces, -1, covered, start);
        }
        if (r == 0) {
            r = add_piece(pieces, pattern->token.id, start, end);
        }
        covered = end;
    }
    if (r == 0 && covered < text.size) {
        r = add_piece(pieces, -1, covered, text.size);
    }
    return r;
}
