/* SPDX-License-Identifier: MIT */
/* A segment's way into the fd store and out of it: see keep.h. */
#include "keep.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "gttd_util.h"

int keep_plan(struct keep *keep, struct fdstore *store, uint64_t id, uint32_t n_chunks,
              struct reason *why)
{
    struct record *record = record_create(n_chunks);
    if (!record) {
        return reason_set(why, -ENOMEM, "gttd itself is out of memory");
    }
    int r = fdstore_reserve(store, n_chunks + 1, why);
    if (r < 0) {
        free(record);
        return r;
    }
    record->id = id;
    *keep = (struct keep){.store = store,
                          .id = id,
                          .record = record,
                          .record_fd = -1,
                          .n_fds = n_chunks + 1};
    return 0;
}

/* Device memory's fds may all be of one file: each has a name that tells it from the others. */
static int put_chunks(struct keep *keep, const int *fds)
{
    const struct record *record = keep->record;
    if (!record->device.handle) {
        return fdstore_put('c', record->id, fds, record->n_chunks);
    }
    int r = 0;
    keep->n_adopted = record->n_chunks;
    for (uint32_t i = 0; i < record->n_chunks && r == 0; i++) {
        r = fdstore_put_adopted(record->id, i, fds[i]);
    }
    return r;
}

static int store_all(struct keep *keep, const struct heap_chunk *chunks)
{
    struct record *record = keep->record;
    AUTO_FREE int *fds = malloc(record->n_chunks * sizeof fds[0]);
    AUTO_FD record_fd = -1;
    if (!fds) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < record->n_chunks; i++) {
        struct stat st;
        if (fstat(chunks[i].fd, &st) < 0) {
            return -errno;
        }
        record->chunks[i] =
            (struct record_chunk){.dev = st.st_dev, .ino = st.st_ino, .hold = chunks[i].hold};
        fds[i] = chunks[i].fd;
    }
    int r = record_write(record, &record_fd);
    if (r == 0) {
        keep->was_stored = true;
        r = put_chunks(keep, fds);
    }
    if (r == 0) {
        r = fdstore_put('s', record->id, &record_fd, 1);
    }
    if (r == 0) {
        r = fdstore_barrier();
    }
    if (r == 0) {
        keep->record_fd = take_fd(&record_fd);
    }
    return r;
}

void keep_store(struct keep *keep, const struct heap_chunk *chunks)
{
    if (keep->record) {
        keep->result = store_all(keep, chunks);
    }
}

void keep_note_use(const struct keep *keep, uint64_t last_use, int64_t last_use_ms)
{
    if (keep->record_fd >= 0) {
        record_write_use(keep->record_fd, last_use, last_use_ms);
    }
}

void keep_remove(struct keep *keep)
{
    if (keep->n_fds) {
        fdstore_remove(keep->store, keep->id, keep->n_fds, keep->n_adopted);
        keep->n_fds = 0;
    }
    close_fdp(&keep->record_fd);
}

void keep_finish(struct keep *keep)
{
    close_fdp(&keep->record_fd);
    free(keep->record);
    keep->record = NULL;
}
