/* SPDX-License-Identifier: MIT */
/* Replacements: see rewrite.h. */
#include "rewrite.h"

void rewrites_finish(struct rewrites *rewrites)
{
    for (size_t i = 0; i < rewrites->n; i++) {
        buf_finish(&rewrites->v[i].from);
        buf_finish(&rewrites->v[i].to);
    }
    free(rewrites->v);
    *rewrites = (struct rewrites){0};
}

int rewrites_add(struct rewrites *rewrites, struct span from, struct span to)
{
    struct rewrite *v = reallocarray(rewrites->v, rewrites->n + 1, sizeof *v);
    if (!v) {
        return -ENOMEM;
    }
    rewrites->v = v;
    struct rewrite *step = &v[rewrites->n++];
    *step = (struct rewrite){0};
    int r = buf_add(&step->from, from.bytes, from.size);
    return r < 0 ? r : buf_add(&step->to, to.bytes, to.size);
}

static int replace(const struct rewrite *step, struct span text, struct buf *out)
{
    const char *p = text.bytes, *end = text.bytes + text.size;
    while (p < end) {
        const char *found = memmem(p, (size_t)(end - p), step->from.bytes, step->from.size);
        int r = buf_add(out, p, (size_t)((found ? found : end) - p));
        if (r == 0 && found) {
            r = buf_add(out, step->to.bytes, step->to.size);
        }
        if (r < 0) {
            return r;
        }
        p = found ? found + step->from.size : end;
    }
    return 0;
}

static int put_in_front(const struct rewrite *step, struct span text, struct buf *out)
{
    if (text.size == 0) {
        return 0;
    }
    int r = buf_add(out, step->to.bytes, step->to.size);
    return r < 0 ? r : buf_add(out, text.bytes, text.size);
}

int rewrites_apply(const struct rewrites *rewrites, struct span text, struct buf *out,
                   struct buf *spare)
{
    if (rewrites->n == 0) {
        out->size = 0;
        return buf_add(out, text.bytes, text.size);
    }
    for (size_t i = 0; i < rewrites->n; i++) {
        const struct rewrite *step = &rewrites->v[i];
        spare->size = 0;
        int r = step->from.size ? replace(step, text, spare) : put_in_front(step, text, spare);
        if (r < 0) {
            return r;
        }
        struct buf swap = *out;
        *out = *spare;
        *spare = swap;
        text = (struct span){out->bytes, out->size};
    }
    return 0;
}
