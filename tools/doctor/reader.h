/* SPDX-License-Identifier: MIT */
/* What the parts of facts_read() share: a buffer, and reading that notes what is odd. */
#ifndef DOCTOR_READER_H
#define DOCTOR_READER_H

#include "facts.h"

struct reader {
    struct tree *tree;
    struct facts *facts;
    char text[TREE_FILE_MAX]; /* of the file read last */
};

/* The file into reader->text, which is empty if false. What is there but is no text is noted. */
bool reader_text(struct reader *reader, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same for one word or number. */
bool reader_word(struct reader *reader, char *ret, size_t size, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
bool reader_number(struct reader *reader, int64_t *ret, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool reader_has(struct reader *reader, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A directory that is not there has no names. Free them. */
void reader_list(struct reader *reader, const char *path, struct tree_names *ret);
void reader_note_odd(struct reader *reader, const char *path, int r);

/* The parts. Each fills in its group of facts. */
void read_system(struct reader *reader);
void read_users(struct reader *reader);
void read_gpus(struct reader *reader);
void read_npu(struct reader *reader);
void read_modules(struct reader *reader);
void read_limits(struct reader *reader);
void read_hibernation(struct reader *reader);

/* A user of the tree's /etc/passwd with their groups; name NULL: the first ordinary one, or root.
 * False: there is none. */
bool read_who(struct reader *reader, const char *name, struct who *ret);
/* Whether who is in the group of that name, by /etc/group. */
bool who_in_group(struct reader *reader, const struct who *who, const char *name);
/* Whether who may open it, and who else may. */
void read_node(struct reader *reader, const char *path, struct node_facts *ret);

#endif
