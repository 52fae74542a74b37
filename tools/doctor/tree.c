/* SPDX-License-Identifier: MIT */
/* Trees, and the one that is a directory: see tree.h. */
#include "tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gttd_util.h"

/* Open inside the root, whatever links lead out of it. */
static int open_in(int root_fd, const char *path, int flags, mode_t mode)
{
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC),
                           .mode = mode,
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    int fd = (int)syscall(SYS_openat2, root_fd, path, &how, sizeof how);
    return fd < 0 ? -errno : fd;
}

static int dir_read(struct tree *tree, const char *path, char *buf, size_t size, size_t *ret_size)
{
    struct stat st;
    size_t n = 0;
    AUTO_FD fd = open_in(tree->root_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0) {
        return fd;
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return -EINVAL;
    }
    for (;;) {
        char more;
        ssize_t got = n < size ? read(fd, buf + n, size - n) : read(fd, &more, 1);
        if (got < 0 && errno != EINTR) {
            return -errno;
        }
        if (got == 0) {
            *ret_size = n;
            return 0;
        }
        if (got > 0 && n == size) {
            return -EFBIG;
        }
        n += got > 0 ? (size_t)got : 0;
    }
}

static int dir_list(struct tree *tree, const char *path, bool (*each)(void *data, const char *name),
                    void *data)
{
    int fd = open_in(tree->root_fd, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) {
        return fd;
    }
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return -ENOMEM;
    }
    const struct dirent *entry;
    bool more = true;
    while (more && (entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            more = each(data, entry->d_name);
        }
    }
    closedir(dir);
    return 0;
}

static int dir_stat(struct tree *tree, const char *path, struct tree_stat *ret)
{
    struct stat st;
    AUTO_FD fd = open_in(tree->root_fd, path, O_PATH, 0);
    if (fd < 0) {
        return fd;
    }
    if (fstat(fd, &st) < 0) {
        return -errno;
    }
    *ret = (struct tree_stat){.mode = st.st_mode, .uid = st.st_uid, .gid = st.st_gid};
    return 0;
}

static const struct tree_ops dir_ops = {.read = dir_read, .list = dir_list, .stat = dir_stat};

int tree_open(struct tree *tree, const char *root, struct err *err)
{
    *tree =
        (struct tree){.ops = &dir_ops, .root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (tree->root_fd < 0) {
        return err_set(err, -errno, "%s: %s", root, strerror(errno));
    }
    AUTO_FD fd = open_in(tree->root_fd, ".", O_PATH, 0);
    if (fd < 0) {
        tree_close(tree);
        return err_set(err, fd, "%s: openat2, which needs Linux 5.6: %s", root, strerror(-fd));
    }
    return 0;
}

void tree_close(struct tree *tree)
{
    close_fdp(&tree->root_fd);
}

int tree_read(struct tree *tree, const char *path, char *buf, size_t size, size_t *ret_size)
{
    return tree->ops->read(tree, path, buf, size, ret_size);
}

int tree_read_text(struct tree *tree, const char *path, char *buf, size_t size)
{
    size_t n;
    int r = tree->ops->read(tree, path, buf, size - 1, &n);
    if (r < 0) {
        buf[0] = '\0';
        return r;
    }
    buf[n] = '\0';
    if (memchr(buf, '\0', n)) {
        buf[0] = '\0';
        return -EBADMSG;
    }
    return 0;
}

int tree_stat(struct tree *tree, const char *path, struct tree_stat *ret)
{
    return tree->ops->stat(tree, path, ret);
}

bool tree_has(struct tree *tree, const char *path)
{
    struct tree_stat st;
    return tree->ops->stat(tree, path, &st) == 0;
}

/* Names as they come: how many there were, also those without room. */
struct collection {
    struct tree_names names;
    size_t n_seen;
};

static bool collect(void *data, const char *name)
{
    struct collection *c = data;
    if (strlen(name) >= TREE_NAME_SIZE) {
        return true;
    }
    if (c->n_seen++ == TREE_NAMES_MAX) {
        return false;
    }
    strcpy(c->names.names[c->names.n++], name);
    return true;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

int tree_list(struct tree *tree, const char *path, struct tree_names *ret)
{
    struct collection c = {.names.names = malloc(TREE_NAMES_MAX * sizeof *c.names.names)};
    if (!c.names.names) {
        return -ENOMEM;
    }
    int r = tree->ops->list(tree, path, collect, &c);
    if (r == 0 && c.n_seen > TREE_NAMES_MAX) {
        r = -E2BIG;
    }
    if (r < 0) {
        tree_names_free(&c.names);
        return r;
    }
    qsort(c.names.names, c.names.n, sizeof *c.names.names, compare_names);
    *ret = c.names;
    return 0;
}

void tree_names_free(struct tree_names *names)
{
    free(names->names);
    *names = (struct tree_names){0};
}

/* The directory of path, made with its parents if missing; its fd or an error. */
static int make_parent(struct tree *tree, const char *path)
{
    char part[256];
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        size_t n = (size_t)(slash - path);
        if (n >= sizeof part) {
            return -ENAMETOOLONG;
        }
        memcpy(part, path, n);
        part[n] = '\0';
        /* through the parent's fd, as mkdirat() itself would follow links out of the root */
        char *last = strrchr(part, '/');
        if (last) {
            *last = '\0';
        }
        AUTO_FD parent = open_in(tree->root_fd, last ? part : ".", O_PATH | O_DIRECTORY, 0);
        if (parent < 0) {
            return parent;
        }
        if (mkdirat(parent, last ? last + 1 : part, 0755) < 0 && errno != EEXIST) {
            return -errno;
        }
    }
    const char *end = strrchr(path, '/');
    snprintf(part, sizeof part, "%.*s", end ? (int)(end - path) : 1, end ? path : ".");
    return open_in(tree->root_fd, part, O_RDONLY | O_DIRECTORY, 0);
}

static int write_all(int fd, const char *text)
{
    size_t left = strlen(text);
    while (left) {
        ssize_t n = write(fd, text, left);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        text += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

static int write_in(int dir_fd, const char *name, const char *text)
{
    char temp[TREE_NAME_SIZE + 32];
    snprintf(temp, sizeof temp, ".%s.%d.tmp", name, (int)getpid());
    AUTO_FD fd = openat(dir_fd, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0) {
        return -errno;
    }
    int r = fchmod(fd, 0644) < 0 ? -errno : write_all(fd, text); /* whatever the umask */
    if (r == 0 && renameat(dir_fd, temp, dir_fd, name) < 0) {
        r = -errno;
    }
    if (r < 0) {
        unlinkat(dir_fd, temp, 0);
    }
    return r < 0 ? r : fsync(dir_fd) < 0 ? -errno : 0;
}

int tree_write(struct tree *tree, const char *path, const char *text, struct err *err)
{
    const char *slash = strrchr(path, '/');
    AUTO_FD dir_fd = make_parent(tree, path);
    int r = dir_fd < 0 ? dir_fd : write_in(dir_fd, slash ? slash + 1 : path, text);
    return r < 0 ? err_set(err, r, "/%s: %s", path, strerror(-r)) : 0;
}
