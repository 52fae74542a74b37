/* SPDX-License-Identifier: MIT */
/* The name of a directory's image in a pool: see load_identity() in load.h. Reads no weights. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "gttd_util.h"
#include "json_file.h"
#include "load.h"
#include "weight_files.h"

/* Each part with its length before it, so that no two lists of parts look alike. */
static void add(struct sha256_ctx *sha, const void *part, size_t size)
{
    uint64_t n = size;
    sha256_update(sha, sizeof n, (const uint8_t *)&n);
    sha256_update(sha, size, part);
}

static void add_number(struct sha256_ctx *sha, uint64_t n)
{
    add(sha, &n, sizeof n);
}

static int add_file(struct sha256_ctx *sha, int dir_fd, const char *dir, const char *name,
                    struct err *err)
{
    struct stat st;
    if (fstatat(dir_fd, name, &st, 0) < 0) {
        int r = -errno;
        return err_set(err, r, "%s/%s: %s", dir, name, strerror(-r));
    }
    add(sha, name, strlen(name));
    add_number(sha, st.st_dev);
    add_number(sha, st.st_ino);
    add_number(sha, (uint64_t)st.st_size);
    add_number(sha, (uint64_t)st.st_mtim.tv_sec);
    add_number(sha, (uint64_t)st.st_mtim.tv_nsec);
    return 0;
}

int load_identity(const char *dir, char ret_name[static LOAD_NAME_MAX], struct err *err)
{
    struct weight_files files = {0};
    struct sha256_ctx sha;
    char path[4096];
    AUTO_FREE char *config = NULL;
    size_t config_bytes;

    AUTO_FD dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0) {
        int r = -errno;
        return err_set(err, r, "%s: cannot open: %s", dir, strerror(-r));
    }
    snprintf(path, sizeof path, "%s/config.json", dir);
    int r = json_read_file(dir_fd, "config.json", path, &config, &config_bytes, err);
    if (r == 0) {
        r = weight_files_find(dir_fd, dir, &files, err);
    }
    if (r < 0) {
        return r;
    }
    sha256_init(&sha);
    add_number(&sha, IMAGE_VERSION);
    add_number(&sha, IMAGE_CHUNK_MAX);
    add(&sha, config, config_bytes);
    add(&sha, files.index_text ? files.index_text : "", files.index_bytes);
    for (size_t i = 0; r == 0 && i < files.n; i++) {
        r = add_file(&sha, dir_fd, dir, files.names[i], err);
    }
    weight_files_finish(&files);
    if (r < 0) {
        return r;
    }
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_digest(&sha, sizeof digest, digest);
    size_t n = (size_t)snprintf(ret_name, LOAD_NAME_MAX, "gemma3-");
    for (size_t i = 0; i < sizeof digest; i++) {
        snprintf(ret_name + n + 2 * i, 3, "%02x", digest[i]);
    }
    return 0;
}
