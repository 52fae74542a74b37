/* SPDX-License-Identifier: MIT */
/*
 * The files doctor looks at, below some root: those of this machine, of a copy of another one's, or
 * of a test. Whatever is in a tree, nothing outside of it is read or written: symbolic links are
 * followed as if the root were /. It does not know what the files mean.
 *
 * Paths are relative to the root, without a slash in front: "proc/meminfo".
 */
#ifndef DOCTOR_TREE_H
#define DOCTOR_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "err.h"

#define TREE_FILE_MAX  65536 /* bytes; nothing doctor reads is nearly as large */
#define TREE_NAMES_MAX 1024  /* entries of a directory */
#define TREE_NAME_SIZE 128   /* longer names are left out */

struct tree_stat {
    mode_t mode;
    uid_t uid;
    gid_t gid;
};

struct tree_names {
    char (*names)[TREE_NAME_SIZE]; /* sorted; [n] */
    size_t n;
};

struct tree;

struct tree_ops {
    /* Up to size bytes; -EFBIG there are more, -EINVAL not a regular file. */
    int (*read)(struct tree *tree, const char *path, char *buf, size_t size, size_t *ret_size);
    /* each() for every name but . and .., until it returns false. */
    int (*list)(struct tree *tree, const char *path, bool (*each)(void *data, const char *name),
                void *data);
    int (*stat)(struct tree *tree, const char *path, struct tree_stat *ret);
};

/* Embedded in what the ops work on. */
struct tree {
    const struct tree_ops *ops;
    int root_fd; /* of a directory; -1: another kind of tree */
};

/* A directory, "/" for this machine. */
int tree_open(struct tree *tree, const char *root, struct err *err);
void tree_close(struct tree *tree);

/* All of a file into buf. -ENOENT, -EACCES, -EFBIG, -EINVAL not a regular file. */
int tree_read(struct tree *tree, const char *path, char *buf, size_t size, size_t *ret_size);
/* The same for text: buf is NUL-terminated. -EBADMSG: there is a NUL in it. */
int tree_read_text(struct tree *tree, const char *path, char *buf, size_t size);
int tree_stat(struct tree *tree, const char *path, struct tree_stat *ret);
bool tree_has(struct tree *tree, const char *path);

/* The names in a directory; free with tree_names_free(). -E2BIG: more than TREE_NAMES_MAX. */
int tree_list(struct tree *tree, const char *path, struct tree_names *ret);
void tree_names_free(struct tree_names *names);

/*
 * Write a file of a directory tree, with its directories, so that it is there whole or not at all.
 * Mode 0644.
 */
int tree_write(struct tree *tree, const char *path, const char *text, struct err *err);

#endif
