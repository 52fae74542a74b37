/* SPDX-License-Identifier: MIT */
/* Reading files of a tree and noting what is odd: see reader.h. */
#include "reader.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text.h"

void reader_note_odd(struct reader *reader, const char *path, int r)
{
    struct facts *facts = reader->facts;
    const char *why = r == -EFBIG     ? "is far too large"
                      : r == -EBADMSG ? "is not text"
                      : r == -EINVAL  ? "is not a file"
                      : r == -E2BIG   ? "has too many entries"
                                      : strerror(-r);
    /* not there, not ours to read, not answered by its driver: nothing odd */
    if (r == -ENOENT || r == -EACCES || r == -EPERM || r == -ENOTDIR || r == -ENODEV ||
        r == -ENODATA || r == -EOPNOTSUPP || facts->n_odd == FACTS_ODD_MAX) {
        return;
    }
    char text[sizeof facts->odd[0]];
    snprintf(text, sizeof text, "/%.*s %s", FACTS_PATH_SIZE, path, why);
    text_clean(facts->odd[facts->n_odd++], sizeof facts->odd[0], text);
}

static bool read_path(struct reader *reader, const char *path)
{
    int r = tree_read_text(reader->tree, path, reader->text, sizeof reader->text);
    if (r < 0) {
        reader_note_odd(reader, path, r);
    }
    return r == 0;
}

/* A path that does not fit is not one that exists. */
static bool make_path(char *path, size_t size, const char *fmt, va_list ap)
{
    int n = vsnprintf(path, size, fmt, ap);
    return n > 0 && (size_t)n < size;
}

bool reader_text(struct reader *reader, const char *fmt, ...)
{
    char path[512];
    va_list ap;
    va_start(ap, fmt);
    bool ok = make_path(path, sizeof path, fmt, ap);
    va_end(ap);
    reader->text[0] = '\0';
    return ok && read_path(reader, path);
}

bool reader_word(struct reader *reader, char *ret, size_t size, const char *fmt, ...)
{
    char path[512];
    va_list ap;
    va_start(ap, fmt);
    bool ok = make_path(path, sizeof path, fmt, ap) && read_path(reader, path);
    va_end(ap);
    ret[0] = '\0';
    if (ok) {
        reader->text[strcspn(reader->text, "\n")] = '\0';
        text_clean(ret, size, reader->text);
    }
    return ok && ret[0];
}

bool reader_number(struct reader *reader, int64_t *ret, const char *fmt, ...)
{
    char path[512];
    va_list ap;
    va_start(ap, fmt);
    bool ok = make_path(path, sizeof path, fmt, ap) && read_path(reader, path);
    va_end(ap);
    return ok && text_number(reader->text, ret) == 0;
}

bool reader_has(struct reader *reader, const char *fmt, ...)
{
    char path[512];
    va_list ap;
    va_start(ap, fmt);
    bool ok = make_path(path, sizeof path, fmt, ap);
    va_end(ap);
    return ok && tree_has(reader->tree, path);
}

void reader_list(struct reader *reader, const char *path, struct tree_names *ret)
{
    *ret = (struct tree_names){0};
    int r = tree_list(reader->tree, path, ret);
    if (r < 0) {
        reader_note_odd(reader, path, r);
    }
}
