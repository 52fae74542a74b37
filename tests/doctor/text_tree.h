/* SPDX-License-Identifier: MIT */
/*
 * Recorded trees for doctor as one text: in memory, with whatever owners and modes it says, or
 * unpacked into a directory.
 *
 *     # a comment, before the first entry
 *     === PATH                       a file; what follows, up to the next entry, is in it
 *     === PATH node MODE UID GID     a device node (unpacked: an empty file)
 *     === PATH bytes HEX HEX ...     a binary file
 */
#ifndef TESTS_TEXT_TREE_H
#define TESTS_TEXT_TREE_H

#include "tree.h"

#define TEXT_TREE_MAX 256 /* entries */

struct text_entry {
    char path[160];
    const char *data; /* in text_tree::text; of a file */
    size_t size;
    char bytes[16];
    struct tree_stat st;
};

struct text_tree {
    struct tree tree;
    struct text_entry entries[TEXT_TREE_MAX];
    size_t n;
};

/* text [size] is borrowed. Lines that make no sense are left out. */
void text_tree_init(struct text_tree *tree, const char *text, size_t size);

/* Make its files below dir, an empty directory. False: owners could not be set, for want of root.
 */
bool text_tree_unpack(const struct text_tree *tree, const char *dir);

#endif
