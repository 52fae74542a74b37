/* SPDX-License-Identifier: MIT */
/* Finding *.conf files: see conf.h. */
#include "conf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool has_suffix(const char *name, const char *suffix)
{
    size_t n = strlen(name), n_suffix = strlen(suffix);
    return n > n_suffix && strcmp(name + n - n_suffix, suffix) == 0;
}

static int compare_files(const void *a, const void *b)
{
    return strcmp(((const struct conf_file *)a)->name, ((const struct conf_file *)b)->name);
}

/* The *.conf of a list of directories, in the order in which they are read. */
struct conf_files conf_find(struct reader *reader, const char *const *dirs, size_t n_dirs)
{
    struct conf_files found = {.files = malloc(n_dirs * TREE_NAMES_MAX * sizeof *found.files)};
    for (size_t d = 0; found.files && d < n_dirs; d++) {
        struct tree_names names;
        size_t n_before = found.n;
        reader_list(reader, dirs[d], &names);
        for (size_t i = 0; i < names.n; i++) {
            bool hidden = !has_suffix(names.names[i], ".conf");
            for (size_t k = 0; k < n_before && !hidden; k++) {
                hidden = strcmp(found.files[k].name, names.names[i]) == 0;
            }
            if (!hidden) {
                struct conf_file *file = &found.files[found.n++];
                strcpy(file->name, names.names[i]);
                file->dir = dirs[d];
            }
        }
        tree_names_free(&names);
    }
    if (found.n) {
        qsort(found.files, found.n, sizeof *found.files, compare_files);
    }
    return found;
}

void conf_read(struct reader *reader, const struct conf_file *file, char ret_path[FACTS_PATH_SIZE])
{
    snprintf(ret_path, FACTS_PATH_SIZE, "/%s/%s", file->dir, file->name);
    reader_text(reader, "%s", ret_path + 1);
}
