/* SPDX-License-Identifier: MIT */
/* Users, their groups, and which device nodes they may open. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "gttd_util.h"
#include "reader.h"
#include "text.h"

/* Cut "a:b:c" into fields; how many there are, at most n. */
static size_t split(char *line, char **fields, size_t n)
{
    size_t found = 0;
    while (line && found < n) {
        fields[found++] = line;
        line = strchr(line, ':');
        if (line) {
            *line++ = '\0';
        }
    }
    return found;
}

static bool is_id(int64_t id)
{
    return id >= 0 && id < UINT32_MAX;
}

/* A line of /etc/passwd: whose it is. */
static bool parse_user(char *line, struct who *ret)
{
    char *fields[7];
    int64_t uid, gid;
    if (split(line, fields, ARRAY_SIZE(fields)) < 4 || text_number(fields[2], &uid) < 0 ||
        text_number(fields[3], &gid) < 0 || !is_id(uid) || !is_id(gid)) {
        return false;
    }
    *ret = (struct who){.uid = (uid_t)uid, .groups = {(gid_t)gid}, .n_groups = 1};
    text_clean(ret->name, sizeof ret->name, fields[0]);
    return ret->name[0] != '\0';
}

/* The user asked for, or the first that a person would log in as, or else root. */
static bool find_user(char *text, const char *name, struct who *ret)
{
    struct who user;
    bool found = false;
    for (char *line; (line = text_line(&text));) {
        if (!parse_user(line, &user)) {
            continue;
        }
        if (name ? strcmp(user.name, name) == 0 : user.uid >= 1000 && user.uid < 60000) {
            *ret = user;
            return true;
        }
        if (!name && user.uid == 0 && !found) {
            *ret = user;
            found = true;
        }
    }
    return found;
}

static bool is_member(char *members, const char *name)
{
    for (char *member = strtok(members, ",\n"); member; member = strtok(NULL, ",\n")) {
        if (strcmp(member, name) == 0) {
            return true;
        }
    }
    return false;
}

bool read_who(struct reader *reader, const char *name, struct who *ret)
{
    if (!reader_text(reader, "etc/passwd") || !find_user(reader->text, name, ret)) {
        return false;
    }
    reader_text(reader, "etc/group");
    char *text = reader->text;
    for (char *line; (line = text_line(&text));) {
        char *fields[4];
        int64_t gid;
        if (split(line, fields, 4) == 4 && text_number(fields[2], &gid) == 0 && is_id(gid) &&
            ret->n_groups < FACTS_GROUPS_MAX && is_member(fields[3], ret->name)) {
            ret->groups[ret->n_groups++] = (gid_t)gid;
        }
    }
    return true;
}

static void group_name(struct reader *reader, gid_t gid, char ret[FACTS_WORD_SIZE])
{
    snprintf(ret, FACTS_WORD_SIZE, "%u", gid);
    reader_text(reader, "etc/group");
    char *text = reader->text;
    for (char *line; (line = text_line(&text));) {
        char *fields[4];
        int64_t id;
        if (split(line, fields, 4) >= 3 && text_number(fields[2], &id) == 0 && id == gid) {
            text_clean(ret, FACTS_WORD_SIZE, fields[0]);
            return;
        }
    }
}

static bool has_group(const gid_t *groups, size_t n, gid_t gid)
{
    for (size_t i = 0; i < n; i++) {
        if (groups[i] == gid) {
            return true;
        }
    }
    return false;
}

bool who_in_group(struct reader *reader, const struct who *who, const char *name)
{
    reader_text(reader, "etc/group");
    char *text = reader->text;
    for (char *line; (line = text_line(&text));) {
        char *fields[4];
        int64_t id;
        if (split(line, fields, 4) >= 3 && strcmp(fields[0], name) == 0 &&
            text_number(fields[2], &id) == 0 && is_id(id) &&
            has_group(who->groups, who->n_groups, (gid_t)id)) {
            return true;
        }
    }
    return false;
}

static bool may_open(const struct tree_stat *st, uid_t uid, const gid_t *groups, size_t n_groups)
{
    mode_t want = uid == st->uid                         ? S_IRUSR | S_IWUSR
                  : has_group(groups, n_groups, st->gid) ? S_IRGRP | S_IWGRP
                                                         : S_IROTH | S_IWOTH;
    return uid == 0 || (st->mode & want) == want;
}

void read_node(struct reader *reader, const char *path, struct node_facts *ret)
{
    const struct who *who = &reader->facts->who;
    struct tree_stat st;
    *ret = (struct node_facts){0};
    ret->path[0] = '/';
    text_clean(ret->path + 1, sizeof ret->path - 1, path);
    if (tree_stat(reader->tree, path, &st) < 0) {
        return;
    }
    bool by_database = may_open(&st, who->uid, who->groups, who->n_groups);
    ret->there = true;
    ret->usable = who->has_session
                      ? may_open(&st, who->uid, who->session_groups, who->n_session_groups)
                      : by_database;
    ret->usable_after_login = by_database;
    const struct who *service = &reader->facts->service;
    ret->service_usable = reader->facts->has_service_user &&
                          may_open(&st, service->uid, service->groups, service->n_groups);
    ret->mode = st.mode & 07777;
    group_name(reader, st.gid, ret->group);
}
