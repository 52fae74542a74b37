/* SPDX-License-Identifier: MIT */
/* Pinning by importing: see anchor.h. */
#include "anchor.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <xf86drm.h>

#include "gttd_util.h"
#include "gttd_wire.h"

#define TRIES    8
#define PAUSE_NS 1000000

/* ---- which device ---- */

static int open_device(struct anchor *anchor, const char *path, struct reason *why)
{
    AUTO_FD fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return reason_set(why, -errno, "%s: %s", path, strerror(errno));
    }
    drmVersionPtr version = drmGetVersion(fd);
    if (!version) {
        return reason_set(why, -ENODEV, "%s is not a DRM device", path);
    }
    snprintf(anchor->driver, sizeof anchor->driver, "%.*s", version->name_len, version->name);
    drmFreeVersion(version);
    snprintf(anchor->path, sizeof anchor->path, "%s", path);
    anchor->fd = take_fd(&fd);
    return 0;
}

/* Whether a render node is vgem's, without opening it: that may wake up a sleeping GPU. */
static bool is_vgem(const char *node)
{
    char link[128], path[PATH_MAX];
    snprintf(link, sizeof link, "/sys/class/drm/%s/device", strrchr(node, '/') + 1);
    return realpath(link, path) && !strcmp(strrchr(path, '/'), "/vgem");
}

/* The first that matches and can be opened as a device of this driver. *why: why the last that
 * might have been it could not be. */
static int open_first(struct anchor *anchor, const char *pattern, const char *driver,
                      struct reason *why)
{
    glob_t found;
    int r = -ENODEV;
    if (glob(pattern, 0, NULL, &found) != 0) {
        return r;
    }
    for (size_t i = 0; i < found.gl_pathc && r < 0; i++) {
        const char *path = found.gl_pathv[i];
        if (!strcmp(driver, "vgem") && !is_vgem(path)) {
            continue;
        }
        r = open_device(anchor, path, why);
        if (r == 0 && strcmp(anchor->driver, driver) != 0) {
            r = reason_set(why, -ENODEV, "%s has the driver %s, not %s", path, anchor->driver,
                           driver);
            close_fdp(&anchor->fd);
        }
    }
    globfree(&found);
    return r;
}

static void open_auto(struct anchor *anchor)
{
    struct reason vgem_why = {0};
    reason_set(&anchor->why, -ENODEV, "there is no /dev/accel device");
    if (open_first(anchor, "/dev/accel/accel*", "amdxdna_accel_driver", &anchor->why) == 0 ||
        open_first(anchor, "/dev/dri/renderD*", "vgem", &vgem_why) == 0) {
        anchor->why.text[0] = '\0';
    } else if (vgem_why.text[0]) {
        anchor->why = vgem_why;
    }
}

int anchor_open(struct anchor *anchor, const char *choice, struct reason *why)
{
    *anchor = (struct anchor){.fd = -1};
    int r = 0;
    if (!choice || !strcmp(choice, "auto")) {
        open_auto(anchor);
    } else if (!strcmp(choice, "off")) {
        reason_set(&anchor->why, 0, "pinning is turned off");
    } else {
        r = open_device(anchor, choice, why);
    }
    if (r == 0) {
        pthread_mutex_init(&anchor->turn, NULL);
        pthread_mutex_init(&anchor->lock, NULL);
    }
    return r;
}

int anchor_adopt(struct anchor *anchor, int fd_consume, struct reason *why)
{
    AUTO_FD fd = fd_consume;
    struct stat ours, theirs;
    if (anchor->fd < 0) {
        return reason_set(why, -EBADMSG, "there is no device to pin with any more");
    }
    if (fstat(fd, &theirs) < 0 || fstat(anchor->fd, &ours) < 0 || !S_ISCHR(theirs.st_mode) ||
        ours.st_rdev != theirs.st_rdev) {
        return reason_set(why, -EBADMSG, "it is not %s", anchor->path);
    }
    close(anchor->fd);
    anchor->fd = take_fd(&fd);
    anchor->kept = true;
    return 0;
}

void anchor_close(struct anchor *anchor)
{
    close_fdp(&anchor->fd);
    pthread_mutex_destroy(&anchor->turn);
    pthread_mutex_destroy(&anchor->lock);
}

/* ---- the proof ---- */

int anchor_prove(const struct anchor_hand *hand, uint64_t size_bytes, uint32_t *ret_handle)
{
    int n_unmoved = 0; /* in a row; one is also what an import that existed before looks like */
    for (int i = 0; i < TRIES && n_unmoved < 2; i++) {
        uint64_t before, after;
        uint32_t handle;
        int r = hand->count(hand->data, &before);
        if (r == 0) {
            r = hand->import(hand->data, &handle);
        }
        if (r < 0) {
            return r;
        }
        r = hand->count(hand->data, &after);
        if (r == 0 && after - before == size_bytes) {
            *ret_handle = handle;
            return 0;
        }
        hand->release(hand->data, handle);
        if (r < 0) {
            return r;
        }
        n_unmoved = after == before ? n_unmoved + 1 : 0;
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
    }
    return n_unmoved == 2 ? -EOPNOTSUPP : -EAGAIN;
}

struct import {
    struct anchor *anchor;
    int dmabuf_fd;
    anchor_count_fn count;
    void *count_data;
};

static int do_import(void *data, uint32_t *ret_handle)
{
    const struct import *import = data;
    return drmPrimeFDToHandle(import->anchor->fd, import->dmabuf_fd, ret_handle) ? -errno : 0;
}

static void do_release(void *data, uint32_t handle)
{
    const struct import *import = data;
    drmCloseBufferHandle(import->anchor->fd, handle);
}

static int do_count(void *data, uint64_t *ret_bytes)
{
    const struct import *import = data;
    return import->count(import->count_data, ret_bytes);
}

static void explain(struct anchor *anchor, int r)
{
    if (r == -EOPNOTSUPP) {
        reason_set(&anchor->why, r, "an import into %s (%s) pins nothing on this kernel",
                   anchor->path, anchor->driver);
    } else if (r == -EAGAIN) {
        reason_set(&anchor->why, r, "other pins came and went while this one was to be proven");
    } else {
        reason_set(&anchor->why, r, "importing into %s (%s): %s", anchor->path, anchor->driver,
                   strerror(-r));
    }
}

bool anchor_pin(struct anchor *anchor, int dmabuf_fd, uint64_t size_bytes, bool was_pinned,
                anchor_count_fn count, void *data, uint32_t *ret_handle)
{
    struct import import = {anchor, dmabuf_fd, count, data};
    const struct anchor_hand hand = {do_import, do_release, do_count, &import};
    if (anchor->fd < 0) {
        return false;
    }
    pthread_mutex_lock(&anchor->turn);
    /* what was proven through this very fd needs no second proof, for which it would have to be
     * unpinned for a moment */
    int r = was_pinned && anchor->kept ? do_import(&import, ret_handle)
                                       : anchor_prove(&hand, size_bytes, ret_handle);
    pthread_mutex_unlock(&anchor->turn);
    pthread_mutex_lock(&anchor->lock);
    if (r < 0) {
        explain(anchor, r);
    } else {
        anchor->why.text[0] = '\0';
        anchor->proven = true;
    }
    pthread_mutex_unlock(&anchor->lock);
    return r == 0;
}

void anchor_release(struct anchor *anchor, uint32_t handle)
{
    pthread_mutex_lock(&anchor->turn);
    drmCloseBufferHandle(anchor->fd, handle);
    pthread_mutex_unlock(&anchor->turn);
}

static int compare(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* The kernel gives out the lowest number that is free. */
void anchor_release_others(struct anchor *anchor, uint32_t *handles, size_t n_handles, size_t n_max)
{
    size_t at = 0;
    if (n_handles) {
        qsort(handles, n_handles, sizeof handles[0], compare);
    }
    pthread_mutex_lock(&anchor->turn);
    for (uint32_t handle = 1; handle <= n_max; handle++) {
        while (at < n_handles && handles[at] < handle) {
            at++;
        }
        if (at == n_handles || handles[at] != handle) {
            drmCloseBufferHandle(anchor->fd, handle);
        }
    }
    pthread_mutex_unlock(&anchor->turn);
}

void anchor_text(struct anchor *anchor, char ret[static GTTD_TEXT_SIZE])
{
    struct reason text;
    pthread_mutex_lock(&anchor->lock);
    if (anchor->why.text[0]) {
        reason_set(&text, 0, "resident, not pinned: %s", anchor->why.text);
    } else {
        reason_set(&text, 0, "%s by %s (%s)", anchor->proven ? "pinned" : "to be pinned",
                   anchor->path, anchor->driver);
    }
    pthread_mutex_unlock(&anchor->lock);
    gttd_set_text(ret, GTTD_TEXT_SIZE, text.text);
}
