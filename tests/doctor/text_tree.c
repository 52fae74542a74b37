/* SPDX-License-Identifier: MIT */
/* Trees of one text: see text_tree.h. */
#include "text_tree.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

static const char *data_of(const struct text_entry *e)
{
    return e->data ? e->data : e->bytes;
}

static const struct text_entry *find(struct tree *tree, const char *path)
{
    struct text_tree *t = (struct text_tree *)tree; /* its first field */
    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(t->entries[i].path, path) == 0) {
            return &t->entries[i];
        }
    }
    return NULL;
}

/* What of an entry's path is behind "path/", or NULL. */
static const char *below(const struct text_entry *e, const char *path)
{
    size_t n = strlen(path);
    return strncmp(e->path, path, n) == 0 && e->path[n] == '/' ? e->path + n + 1 : NULL;
}

static int text_read(struct tree *tree, const char *path, char *buf, size_t size, size_t *ret_size)
{
    const struct text_entry *e = find(tree, path);
    if (!e) {
        return -ENOENT;
    }
    if (!S_ISREG(e->st.mode)) {
        return -EINVAL;
    }
    if (e->size > size) {
        return -EFBIG;
    }
    memcpy(buf, data_of(e), e->size);
    *ret_size = e->size;
    return 0;
}

static int text_list(struct tree *tree, const char *path,
                     bool (*each)(void *data, const char *name), void *data)
{
    struct text_tree *t = (struct text_tree *)tree;
    char last[160] = "";
    bool there = false;
    for (size_t i = 0; i < t->n; i++) {
        const char *name = below(&t->entries[i], path);
        char first[160];
        if (!name) {
            continue;
        }
        there = true;
        snprintf(first, sizeof first, "%.*s", (int)strcspn(name, "/"), name);
        if (strcmp(first, last) != 0 && !each(data, first)) { /* entries of one are together */
            return 0;
        }
        strcpy(last, first);
    }
    return there ? 0 : -ENOENT;
}

static int text_stat(struct tree *tree, const char *path, struct tree_stat *ret)
{
    struct text_tree *t = (struct text_tree *)tree;
    const struct text_entry *e = find(tree, path);
    if (e) {
        *ret = e->st;
        return 0;
    }
    for (size_t i = 0; i < t->n; i++) {
        if (below(&t->entries[i], path)) {
            *ret = (struct tree_stat){.mode = S_IFDIR | 0755};
            return 0;
        }
    }
    return -ENOENT;
}

static const struct tree_ops text_ops = {.read = text_read, .list = text_list, .stat = text_stat};

/* "=== PATH ...": true if it makes sense. */
static bool parse_heading(const char *line, size_t n, struct text_entry *e)
{
    char text[256], kind[8] = "";
    unsigned mode, uid, gid, bytes[sizeof e->bytes];
    snprintf(text, sizeof text, "%.*s", (int)(n < 255 ? n : 255), line);
    *e = (struct text_entry){.st.mode = S_IFREG | 0644};
    int words = sscanf(text, "=== %159s %7s", e->path, kind);
    if (words < 1) {
        return false;
    }
    if (words == 2 && strcmp(kind, "node") == 0) {
        if (sscanf(text, "=== %*s node %o %u %u", &mode, &uid, &gid) != 3) {
            return false;
        }
        e->st = (struct tree_stat){.mode = S_IFCHR | (mode & 07777), .uid = uid, .gid = gid};
    } else if (words == 2 && strcmp(kind, "bytes") == 0) {
        int k =
            sscanf(text, "=== %*s bytes %x %x %x %x", &bytes[0], &bytes[1], &bytes[2], &bytes[3]);
        for (int i = 0; i < k; i++) {
            e->bytes[i] = (char)bytes[i];
        }
        e->size = k > 0 ? (size_t)k : 0;
    }
    return words == 1 || e->size || S_ISCHR(e->st.mode);
}

void text_tree_init(struct text_tree *tree, const char *text, size_t size)
{
    const char *at = text, *end = text + size;
    struct text_entry *file = NULL;
    *tree = (struct text_tree){.tree = {.ops = &text_ops, .root_fd = -1}};
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *next = newline ? newline + 1 : end;
        size_t n = (size_t)(newline ? newline - at : end - at);
        if (n >= 4 && memcmp(at, "=== ", 4) == 0) {
            struct text_entry *e = &tree->entries[tree->n];
            file = NULL;
            if (tree->n < TEXT_TREE_MAX && parse_heading(at, n, e)) {
                tree->n++;
                file = S_ISREG(e->st.mode) && !e->size ? e : NULL;
            }
        } else if (file) {
            file->data = file->data ? file->data : at;
            file->size = (size_t)(next - file->data);
        }
        at = next;
    }
}

static void make_dirs(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        CHECK(mkdir(path, 0755) == 0 || errno == EEXIST);
        *slash = '/';
    }
}

bool text_tree_unpack(const struct text_tree *tree, const char *dir)
{
    bool owned = true;
    for (size_t i = 0; i < tree->n; i++) {
        const struct text_entry *e = &tree->entries[i];
        char path[320];
        snprintf(path, sizeof path, "%s/%s", dir, e->path);
        make_dirs(path);
        FILE *f = fopen(path, "we");
        CHECK(f);
        CHECK(fwrite(data_of(e), 1, e->size, f) == e->size);
        CHECK(fclose(f) == 0);
        if (S_ISCHR(e->st.mode)) {
            owned &= chown(path, e->st.uid, e->st.gid) == 0;
            CHECK(chmod(path, e->st.mode & 07777) == 0);
        }
    }
    return owned;
}
