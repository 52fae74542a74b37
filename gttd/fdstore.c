/* SPDX-License-Identifier: MIT */
/* What the service manager keeps for us: see fdstore.h. */
#include "fdstore.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "gttd_proto.h"
#include "gttd_util.h"
#include "log.h"

#define FDS_PER_MESSAGE 200 /* the kernel takes 253 */
#define BARRIER_US      (10ull * 1000 * 1000)
#define PREFIX          "gttd-"

/* ---- what was handed back ---- */

/* A number that text starts with, and where it ends. False: there is none. */
static bool parse_number(const char *text, unsigned long long max, unsigned long long *ret,
                         const char **ret_end)
{
    char *end;
    if (*text < '0' || *text > '9') {
        return false;
    }
    errno = 0;
    *ret = strtoull(text, &end, 10);
    *ret_end = end;
    return !errno && *ret <= max;
}

/* "gttd-s-12": kind 's', id 12; "gttd-a-12-3": kind 'a', id 12, index 3. Names that we do not give
 * are kind 0, and then removed. */
static void parse_name(struct stored_fd *stored)
{
    unsigned long long id, index = 0;
    char kind = stored->name[strlen(PREFIX)];
    const char *rest =
        kind && stored->name[strlen(PREFIX) + 1] == '-' ? stored->name + strlen(PREFIX) + 2 : "";
    if (kind == 'h' && *rest) {
        stored->kind = kind;
        return;
    }
    if ((kind != 's' && kind != 'c' && kind != 'a') ||
        !parse_number(rest, UINT64_MAX, &id, &rest) || !id) {
        return;
    }
    if (kind == 'a' &&
        (*rest++ != '-' || !parse_number(rest, GTTD_CHUNKS_MAX - 1, &index, &rest))) {
        return;
    }
    if (!*rest) {
        stored->kind = kind;
        stored->id = id;
        stored->index = (uint32_t)index;
    }
}

static int compare(const void *a, const void *b)
{
    const struct stored_fd *x = a, *y = b;
    if (x->id != y->id) {
        return x->id < y->id ? -1 : 1;
    }
    if (x->kind != y->kind) {
        return x->kind < y->kind ? -1 : 1;
    }
    if (x->index != y->index) {
        return x->index < y->index ? -1 : 1;
    }
    return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static void remove_name(const char *name)
{
    sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}

static void sort_out(struct fdstore *store, int fd, char *name_consume)
{
    struct stored_fd *stored = &store->returned[store->n_returned++];
    struct stat st = {0};
    *stored = (struct stored_fd){.fd = fd, .name = name_consume};
    parse_name(stored);
    if (fstat(fd, &st) == 0) {
        stored->dev = st.st_dev;
        stored->ino = st.st_ino;
    }
    if (!stored->kind) {
        log_line(LOG_WARNING, "the fd store has %s, which this gttd does not know: removed",
                 stored->name);
        remove_name(stored->name);
        close_fdp(&stored->fd);
    }
}

/* A number from the environment; 0: none. */
static unsigned long env_number(const char *name)
{
    const char *text = secure_getenv(name);
    char *end;
    if (!text || *text < '0' || *text > '9') {
        return 0;
    }
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    return *end || errno ? 0 : n;
}

/* systemd 254 and later say how many fds they keep for us. What was meant for a parent of ours, and
 * came to us with its environment, is not for us. */
static void find_manager(struct fdstore *store)
{
    unsigned long max = env_number("FDSTORE"), pid = env_number("SYSTEMD_EXEC_PID");
    if (!secure_getenv("NOTIFY_SOCKET") || (pid && pid != (unsigned long)getpid())) {
        store->why_not = "no service manager watches it";
    } else if (!max) {
        store->why_not = "its unit has no FileDescriptorStoreMax=, or systemd is older than 254";
    } else {
        store->there = true;
        store->fds_max = max < 1u << 20 ? (uint32_t)max : 1u << 20;
    }
}

int fdstore_open(struct fdstore *store, int *ret_socket, int *ret_n_sockets, struct reason *why)
{
    char **names = NULL;
    *store = (struct fdstore){0};
    *ret_socket = -1;
    *ret_n_sockets = 0;
    find_manager(store);
    int n = sd_listen_fds_with_names(1, &names);
    if (n < 0) {
        return reason_set(why, n, "LISTEN_FDS: %s", strerror(-n));
    }
    store->returned = calloc((size_t)n + 1, sizeof store->returned[0]);
    for (int i = 0; i < n; i++) {
        int fd = SD_LISTEN_FDS_START + i;
        if (store->returned && !strncmp(names[i], PREFIX, strlen(PREFIX))) {
            sort_out(store, fd, names[i]);
            continue;
        }
        free(names[i]);
        *ret_socket = (*ret_n_sockets)++ ? *ret_socket : fd;
    }
    free(names);
    if (!store->returned) {
        return reason_set(why, -ENOMEM, "gttd itself is out of memory");
    }
    qsort(store->returned, store->n_returned, sizeof store->returned[0], compare);
    for (size_t i = 0; i < store->n_returned; i++) {
        store->n_in_use += store->returned[i].fd >= 0;
    }
    return 0;
}

void fdstore_close(struct fdstore *store)
{
    for (size_t i = 0; i < store->n_returned; i++) {
        close_fdp(&store->returned[i].fd);
        free(store->returned[i].name);
    }
    free(store->returned);
    *store = (struct fdstore){0};
}

int fdstore_take_heap(struct fdstore *store, const char *what)
{
    for (size_t i = 0; i < store->n_returned; i++) {
        struct stored_fd *stored = &store->returned[i];
        if (stored->kind == 'h' && stored->fd >= 0 &&
            !strcmp(stored->name + strlen(PREFIX) + 2, what)) {
            return take_fd(&stored->fd);
        }
    }
    return -1;
}

/* ---- putting and removing ---- */

int fdstore_reserve(struct fdstore *store, uint32_t n_fds, struct reason *why)
{
    if (n_fds > store->fds_max - store->n_in_use || store->n_in_use > store->fds_max) {
        return reason_set(why, -ENOSPC,
                          "the fd store has %u of %u fds, and it would take %u more: raise "
                          "FileDescriptorStoreMax= of the unit",
                          store->n_in_use, store->fds_max, n_fds);
    }
    store->n_in_use += n_fds;
    return 0;
}

void fdstore_release(struct fdstore *store, uint32_t n_fds)
{
    store->n_in_use -= n_fds < store->n_in_use ? n_fds : store->n_in_use;
}

/* FDPOLL=0: a manager that polls what it keeps would drop what reports an error or a hang-up. */
static int put(const char *name, const int *fds, size_t n_fds)
{
    char text[128];
    snprintf(text, sizeof text, "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
    while (n_fds) {
        unsigned n = n_fds < FDS_PER_MESSAGE ? (unsigned)n_fds : FDS_PER_MESSAGE;
        int r = sd_pid_notify_with_fds(0, 0, text, fds, n);
        if (r <= 0) {
            return r < 0 ? r : -ENOTCONN;
        }
        fds += n;
        n_fds -= n;
    }
    return 0;
}

int fdstore_put(char kind, uint64_t id, const int *fds, size_t n_fds)
{
    char name[64];
    snprintf(name, sizeof name, PREFIX "%c-%" PRIu64, kind, id);
    return put(name, fds, n_fds);
}

static void adopted_name(uint64_t id, uint32_t index, char ret[static 64])
{
    snprintf(ret, 64, PREFIX "a-%" PRIu64 "-%" PRIu32, id, index);
}

int fdstore_put_adopted(uint64_t id, uint32_t index, int fd)
{
    char name[64];
    adopted_name(id, index, name);
    return put(name, &fd, 1);
}

int fdstore_put_heap(struct fdstore *store, const char *what, int fd, struct reason *why)
{
    char name[64];
    int r = fdstore_reserve(store, 1, why);
    if (r < 0) {
        return r;
    }
    snprintf(name, sizeof name, PREFIX "h-%s", what);
    r = put(name, &fd, 1);
    if (r < 0) {
        fdstore_release(store, 1);
        return reason_set(why, r, "giving the service manager an fd: %s", strerror(-r));
    }
    return 0;
}

void fdstore_remove_heap(struct fdstore *store, const char *what)
{
    char name[64];
    snprintf(name, sizeof name, PREFIX "h-%s", what);
    remove_name(name);
    fdstore_release(store, 1);
}

int fdstore_barrier(void)
{
    int r = sd_notify_barrier(0, BARRIER_US);
    return r < 0 ? r : 0;
}

void fdstore_remove(struct fdstore *store, uint64_t id, uint32_t n_fds, uint32_t n_adopted)
{
    char name[64];
    snprintf(name, sizeof name, PREFIX "s-%" PRIu64, id);
    remove_name(name);
    for (uint32_t i = 0; i < n_adopted; i++) {
        adopted_name(id, i, name);
        remove_name(name);
    }
    if (!n_adopted) {
        snprintf(name, sizeof name, PREFIX "c-%" PRIu64, id);
        remove_name(name);
    }
    fdstore_release(store, n_fds);
}

void fdstore_remove_returned(struct fdstore *store, struct stored_fd *fds, size_t n_fds)
{
    for (size_t i = n_fds; i > 0; i--) { /* records come last */
        remove_name(fds[i - 1].name);
        close_fdp(&fds[i - 1].fd);
    }
    fdstore_release(store, (uint32_t)n_fds);
}
