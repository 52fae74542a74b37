/* SPDX-License-Identifier: MIT */
/* Directories of *.conf files, as modprobe, PAM and systemd read them: several, merged by name. */
#ifndef DOCTOR_CONF_H
#define DOCTOR_CONF_H

#include "reader.h"

struct conf_file {
    char name[TREE_NAME_SIZE];
    const char *dir;
};

struct conf_files {
    struct conf_file *files; /* free() it */
    size_t n;
};

/* The *.conf of these directories in the order in which they are read, by name. A file hides those
 * of the same name in the directories after its own. None if out of memory. */
struct conf_files conf_find(struct reader *reader, const char *const *dirs, size_t n_dirs);

/* Read the next file into reader->text; ret_path (with a slash in front) is what it is called. */
void conf_read(struct reader *reader, const struct conf_file *file, char ret_path[FACTS_PATH_SIZE]);

#endif
