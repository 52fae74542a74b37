/* SPDX-License-Identifier: MIT */
/* Which files of a directory hold its weights: see weight_files.h. */
#include "weight_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "gttd_util.h"
#include "json_file.h"

#define SINGLE_FILE "model.safetensors"
#define INDEX_FILE  "model.safetensors.index.json"
#define FILES_MAX   4096

static int add_name(struct weight_files *files, const char *dir, const char *name, struct err *err)
{
    if (files->n == FILES_MAX) {
        return err_set(err, -E2BIG, "%s: more than %d weight files", dir, FILES_MAX);
    }
    char **names = realloc(files->names, (files->n + 1) * sizeof *names);
    char *copy = strdup(name);
    files->names = names ? names : files->names;
    if (!names || !copy) {
        free(copy);
        return err_set(err, -ENOMEM, "%s: out of memory", dir);
    }
    files->names[files->n++] = copy;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void sort_unique(struct weight_files *files)
{
    size_t n = 0;
    if (files->n > 1) {
        qsort(files->names, files->n, sizeof *files->names, by_name);
    }
    for (size_t i = 0; i < files->n; i++) {
        if (n && strcmp(files->names[n - 1], files->names[i]) == 0) {
            free(files->names[i]);
        } else {
            files->names[n++] = files->names[i];
        }
    }
    files->n = n;
}

/* An index names files of its own directory, nothing else. */
static bool is_plain_file_name(const char *name)
{
    return name[0] && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, "..") &&
           strlen(name) <= 200 && json_is_printable(name);
}

static int read_index(int dir_fd, const char *dir, struct weight_files *files, struct err *err)
{
    char path[4096];
    json_auto_t *root = NULL;
    json_t *map = NULL, *value;
    const char *tensor;

    snprintf(path, sizeof path, "%s/" INDEX_FILE, dir);
    int r = json_read_file(dir_fd, INDEX_FILE, path, &files->index_text, &files->index_bytes, err);
    if (r == 0) {
        r = json_parse_object(path, files->index_text, files->index_bytes, &root, err);
    }
    if (r == 0) {
        r = json_get_object(path, root, "weight_map", &map, err);
    }
    if (r < 0) {
        return r;
    }
    if (!map || json_object_size(map) == 0) {
        return err_set(err, -EINVAL, "%s: has no weight_map", path);
    }
    const char *last = "";
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (!json_is_printable(tensor) || !name || !is_plain_file_name(name)) {
            return err_set(err, -EINVAL, "%s: tensor %.150s: is not in a file of this directory",
                           path, json_is_printable(tensor) ? tensor : "(unprintable)");
        }
        /* files come in runs: this keeps the list short before it is sorted */
        if (strcmp(name, last) != 0) {
            last = name;
            bool known = false;
            for (size_t i = 0; i < files->n && !known; i++) {
                known = strcmp(files->names[i], name) == 0;
            }
            r = known ? 0 : add_name(files, dir, name, err);
            if (r < 0) {
                return r;
            }
        }
    }
    files->index = json_incref(map);
    return 0;
}

/* Five digits. */
static bool take_number(const char **s, uint32_t *ret)
{
    uint32_t n = 0;
    for (int i = 0; i < 5; i++, (*s)++) {
        if (**s < '0' || **s > '9') {
            return false;
        }
        n = n * 10 + (uint32_t)(**s - '0');
    }
    *ret = n;
    return true;
}

static bool take_text(const char **s, const char *text)
{
    size_t n = strlen(text);
    if (strncmp(*s, text, n) != 0) {
        return false;
    }
    *s += n;
    return true;
}

/* model-0000N-of-000MM[_shared|_layer_K].safetensors */
static bool parse_shard_name(const char *s, uint32_t *ret_n, uint32_t *ret_total)
{
    if (!take_text(&s, "model-") || !take_number(&s, ret_n) || !take_text(&s, "-of-") ||
        !take_number(&s, ret_total)) {
        return false;
    }
    if (take_text(&s, "_layer_")) {
        size_t digits = strspn(s, "0123456789");
        s += digits;
        if (digits == 0) {
            return false;
        }
    } else {
        take_text(&s, "_shared");
    }
    return strcmp(s, ".safetensors") == 0;
}

/* Every shard 1..total once, all of the same total. names are sorted, so numbers ascend. */
static int check_shards(const char *dir, const struct weight_files *files, struct err *err)
{
    uint32_t n, total, first_total = 0;
    for (size_t i = 0; i < files->n; i++) {
        parse_shard_name(files->names[i], &n, &total);
        first_total = i ? first_total : total;
        if (total != first_total) {
            return err_set(err, -EINVAL, "%s: %s and %s belong to different sets", dir,
                           files->names[0], files->names[i]);
        }
        if (n == 0 || n > total || n < i + 1) {
            return err_set(err, -EINVAL, "%s: %s is one shard too many", dir, files->names[i]);
        }
        if (n != i + 1) {
            break;
        }
        if (n == total && i + 1 == files->n) {
            return 0;
        }
    }
    n = 1;
    for (size_t i = 0; i < files->n; i++) {
        uint32_t have;
        parse_shard_name(files->names[i], &have, &total);
        if (have != n) {
            break;
        }
        n++;
    }
    return err_set(err, -ENOENT,
                   "%s: shard model-%05" PRIu32 "-of-%05" PRIu32 "*.safetensors is missing", dir, n,
                   first_total);
}

static int scan_shards(int dir_fd, const char *dir, struct weight_files *files, struct err *err)
{
    int r = 0;
    AUTO_FD fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (!stream) {
        r = -errno;
        return err_set(err, r, "%s: cannot list: %s", dir, strerror(-r));
    }
    take_fd(&fd); /* closedir() closes it */
    struct dirent *entry;
    while (r == 0 && (entry = readdir(stream))) {
        uint32_t n, total;
        if (parse_shard_name(entry->d_name, &n, &total)) {
            r = add_name(files, dir, entry->d_name, err);
        }
    }
    closedir(stream);
    if (r < 0) {
        return r;
    }
    if (files->n == 0) {
        return err_set(err, -ENOENT,
                       "%s: has neither model.safetensors nor model-*-of-*.safetensors", dir);
    }
    sort_unique(files);
    return check_shards(dir, files, err);
}

static bool exists(int dir_fd, const char *name)
{
    struct stat st;
    return fstatat(dir_fd, name, &st, 0) == 0;
}

int weight_files_find(int dir_fd, const char *dir, struct weight_files *ret, struct err *err)
{
    struct weight_files files = {0};
    int r;
    if (exists(dir_fd, SINGLE_FILE)) {
        r = add_name(&files, dir, SINGLE_FILE, err);
    } else if (exists(dir_fd, INDEX_FILE)) {
        r = read_index(dir_fd, dir, &files, err);
        sort_unique(&files);
    } else {
        r = scan_shards(dir_fd, dir, &files, err);
    }
    if (r < 0) {
        weight_files_finish(&files);
        return r;
    }
    *ret = files;
    return 0;
}

void weight_files_finish(struct weight_files *files)
{
    for (size_t i = 0; i < files->n; i++) {
        free(files->names[i]);
    }
    free(files->names);
    free(files->index_text);
    json_decref(files->index);
    *files = (struct weight_files){0};
}
