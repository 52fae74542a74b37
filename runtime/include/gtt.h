/* SPDX-License-Identifier: MIT */
/*
 * libgtt: the client of gttd, the memory service. A segment is memory that gttd holds: one process
 * creates it, fills it and seals it under a name; from then on any process of the same user opens
 * it by name and maps the same physical pages, also when the one that filled it has died.
 *
 *     struct gtt *gtt;
 *     struct gtt_segment *segment;
 *     void *base;
 *     gtt_connect(NULL, "demo", &gtt);
 *     int r = gtt_open(gtt, "weights", GTT_OPEN_WAIT | GTT_OPEN_FILL, -1, &segment);
 *     if (r == 1) {
 *         struct gtt_create_params params = {.name = "weights", .size_bytes = 64 << 20};
 *         gtt_create(gtt, &params, &segment);
 *         gtt_segment_map(segment, true, &base);
 *         ... fill base ...
 *         gtt_segment_seal(segment, NULL, NULL, 0);
 *     } else if (r == 0) {
 *         gtt_segment_map(segment, false, &base);
 *     }
 *
 * Errors: functions return 0 (some also a positive number) or a negative errno; gtt_last_error()
 * then has a sentence. -ECONNRESET: gttd is gone and has not come back; every later call tries
 * again, but does not wait. -EPROTO: gttd answered nonsense; the connection is ended.
 *
 * When gttd restarts, the call that notices connects again, waiting some seconds for gttd (10 if
 * its service manager keeps the pool, see gtt_info, else 1; longer while it is starting), takes a
 * new lease of every sealed segment it held, goes on watching, and is then made anew. Mappings and
 * chunk fds never change. A segment that gttd does not have any more, or not with the same digest,
 * is no longer held (gtt_segment_info): its mapping stays what it was, and calls that would need
 * gttd for it return -ESTALE. One that was being filled is lost: sealing it returns -ECONNRESET,
 * and it can be created again. Claims are given up.
 *
 * Threads: distinct connections may be used at the same time; one connection, with its segments, by
 * one thread at a time. Blocking: unless said otherwise, a call lasts one round trip. After fork(),
 * only the parent may use a connection; a child may go on reading existing mappings.
 */
#ifndef GTT_H
#define GTT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GTT_NAME_MAX     127  /* bytes of a segment's name: printable ASCII without space */
#define GTT_METADATA_MAX 1024 /* bytes of metadata */
#define GTT_DIGEST_SIZE  32
#define GTT_UUID_SIZE    16         /* VK_UUID_SIZE */
#define GTT_DEVICE_SIZE  64         /* with the NUL; a device's name for people */
#define GTT_TEXT_SIZE    128        /* with the NUL; a sentence for people */
#define GTT_ALIGN_BYTES  (2u << 20) /* sizes of segments and chunks are multiples */

#if defined(__GNUC__)
#define GTT_PUBLIC __attribute__((visibility("default")))
#else
#define GTT_PUBLIC
#endif

struct gtt;         /* a connection */
struct gtt_segment; /* a lease of a sealed segment, or one that is being filled */

/* ---- connection ---- */

/*
 * Connect to gttd. socket_path NULL: $GTTD_SOCKET if set (and then nothing else), else
 * $XDG_RUNTIME_DIR/gttd.sock, else /run/gttd/gttd.sock, whichever answers first. label: who calls,
 * for gttd's log and lists; at most 31 bytes of printable ASCII; may be NULL. Blocks until gttd has
 * answered, at most a minute: systemd may have to start it, and then it reserves its pool first. On
 * success *ret is the caller's. On failure gtt_last_error(NULL) has the sentence. Errors: -ENOENT,
 * -ECONNREFUSED no gttd there, -EACCES, -EUSERS too many connections, -EPROTONOSUPPORT other
 * version, -ETIMEDOUT.
 */
GTT_PUBLIC int gtt_connect(const char *socket_path, const char *label, struct gtt **ret);

/* Close the connection. Segments must have been closed; unsealed ones and claims are given up, and
 * watches end. Accepts NULL. */
GTT_PUBLIC void gtt_disconnect(struct gtt *gtt);

/* Why the last failed call on this connection failed; valid until the next call. With NULL: why
 * this thread's last gtt_connect() failed. Never NULL. */
GTT_PUBLIC const char *gtt_last_error(const struct gtt *gtt);

/* The socket, for poll(): readable means that gtt_next_event() has something, or, with a hang-up,
 * that gttd is gone and gtt_reconnect() is due. The number stays when the connection is made again.
 * Borrowed; -1 once the connection has ended for good. */
GTT_PUBLIC int gtt_fd(const struct gtt *gtt);

/*
 * If gttd has gone, connect again, as every call does; for whoever makes no calls but wants to go
 * on holding what it has open. Does not block unless gttd is gone, and then for at most timeout_ms
 * (-1: as a call would; 0: a quarter of a second if gttd is just starting). -ECONNRESET: it is not
 * there; -ESTALE: it is, but does not have a segment any more that this connection had a lease of.
 */
GTT_PUBLIC int gtt_reconnect(struct gtt *gtt, int timeout_ms);

struct gtt_info {
    char daemon_version[32];
    char heap[32];            /* where memory comes from: "memfd", "udmabuf", "amdgpu" */
    bool is_dmabuf;           /* chunk fds are dma-bufs */
    bool restart_loses_pool;  /* no sealed segment outlives the daemon */
    uint64_t chunk_max_bytes; /* largest chunk of this heap */
    const char *socket_path;  /* borrowed until gtt_disconnect() */
};

/* What gttd said when the connection was made, or made again. Does not block. */
GTT_PUBLIC void gtt_get_info(const struct gtt *gtt, struct gtt_info *ret);

struct gtt_status {
    uint64_t capacity_bytes; /* of the pool; 0: no limit of its own */
    uint64_t used_bytes;     /* by everyone */
    uint64_t free_ram_bytes; /* what the machine has left, less what is promised */
    uint64_t floor_bytes;    /* what must stay free */
    uint64_t quota_bytes;    /* of the caller's user; 0: none */
    uint64_t user_bytes;     /* used by the caller's user */
    uint64_t n_evictions;    /* since gttd started */
    /* what the device's driver says of all who use it; 0: the heap has no device with a limit */
    uint64_t gtt_total_bytes;
    uint64_t gtt_usable_bytes; /* total less what anyone has pinned */
    uint64_t gtt_used_bytes;
    uint64_t ballast_bytes; /* reserved for the pool and in no segment; not in used_bytes */
    uint64_t pinned_bytes;  /* of all segments: proven to be pinned */
    /* devices' own memory that gttd keeps (gtt_adopt()); in none of the numbers above */
    uint64_t adopted_bytes;
    uint64_t adopted_user_bytes;
    uint64_t adopted_quota_bytes; /* what one user may have kept; 0: no limit */
    uint32_t n_adopted;           /* segments, which are in n_segments, too */
    bool adopts;                  /* gttd is to keep such memory */
    uint32_t n_clients;
    uint32_t n_segments;
    uint32_t n_sealed;
    uint32_t n_leases;
    uint32_t n_waiters;         /* clients waiting for a segment to be sealed */
    bool pressure_watched;      /* memory pressure evicts; else it cannot, or is not to */
    bool share_group;           /* users may open each other's segments */
    char device[GTT_TEXT_SIZE]; /* where memory comes from; empty: no device */
    char pin[GTT_TEXT_SIZE];    /* by what memory is pinned, or why it is not */
};

GTT_PUBLIC int gtt_status(struct gtt *gtt, struct gtt_status *ret);

/* ---- devices ---- */

/* A device under a driver, as VkPhysicalDeviceIDProperties has it: memory of one cannot be imported
 * into another. */
struct gtt_device {
    uint8_t device_uuid[GTT_UUID_SIZE];
    uint8_t driver_uuid[GTT_UUID_SIZE];
    char name[GTT_DEVICE_SIZE]; /* for people: printable ASCII; may be empty; not compared */
};

enum gtt_handle {
    GTT_HANDLE_OPAQUE_FD = 1, /* VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT */
};

/* What whoever imports device memory must know besides the fds. */
struct gtt_device_memory {
    struct gtt_device device;
    enum gtt_handle handle;
    uint32_t memory_type; /* its index, below 32 */
    bool dedicated;       /* each chunk was allocated for one buffer */
    uint64_t alloc_bytes; /* allocated for each chunk but the last: at least its size */
    uint64_t last_alloc_bytes;
};

/* ---- what is there ---- */

enum gtt_state {
    GTT_CLAIMED = 1, /* a name that somebody is about to create */
    GTT_POPULATING = 2,
    GTT_FILLING = 3,
    GTT_SEALING = 4,
    GTT_SEALED = 5,
};

struct gtt_entry {
    uint64_t id;
    uint64_t size_bytes;
    uint64_t chunk_bytes;
    uint64_t pinned_bytes; /* of size_bytes: proven to be pinned */
    uint64_t idle_ms;      /* since it was last opened, sealed or closed */
    uint32_t uid;
    int32_t pid; /* who fills or filled it */
    enum gtt_state state;
    bool immutable;           /* sealed, and the kernel refuses every write */
    bool write_combined;      /* not CPU-cached: slow to read */
    bool kept;                /* outlives a restart of gttd */
    bool adopted;             /* memory of device: neither RAM nor the pool's */
    struct gtt_device device; /* zero if it is not */
    uint32_t n_leases;
    uint32_t n_waiters;
    char name[GTT_NAME_MAX + 1]; /* empty: anonymous, or dropped and still leased */
    char label[32];              /* of who fills or filled it */
    uint8_t digest[GTT_DIGEST_SIZE];
};

/*
 * List this user's segments (root, and where users share: everyone's) in ascending order of id:
 * call with *cursor = 0 and again until it returns 0. Returns 1 with *ret_entry filled in, 0 at the
 * end, or an error. Blocks for a round trip every 16th time.
 */
GTT_PUBLIC int gtt_list(struct gtt *gtt, uint64_t *cursor, struct gtt_entry *ret_entry);

enum { GTT_DROP_FORCE = 1 };

/*
 * Forget a segment: its name is free at once, its memory when nobody leases it. Errors: -ENOENT,
 * -EBUSY leased or being filled (GTT_DROP_FORCE drops it all the same). -ECONNRESET from
 * gtt_drop_id(): gttd restarted, and it may not have been done.
 */
GTT_PUBLIC int gtt_drop(struct gtt *gtt, const char *name, uint32_t flags);
GTT_PUBLIC int gtt_drop_id(struct gtt *gtt, uint64_t id,
                           uint32_t flags); /* root: anyone's; else -EPERM */

/* ---- segments ---- */

enum { GTT_OPEN_WAIT = 1, GTT_OPEN_FILL = 2, GTT_OPEN_OWN = 4 };

/*
 * Open a segment by name.
 *   0: it is sealed and now leased; *ret_segment is the caller's.
 *   1: (with GTT_OPEN_FILL) there is none, and this connection is to make it: gtt_create() it under
 *      this name, or gtt_abandon() it. Others who open it with GTT_OPEN_WAIT wait for that.
 * Where the administrator lets users share (struct gtt_status), it may be another user's, if this
 * one has none of that name; GTT_OPEN_OWN rules that out. Their contents are as good as that user:
 * see gttd.conf(5), and struct gtt_segment_info for whose it is.
 * Errors: -ENOENT there is none, -EAGAIN (without GTT_OPEN_WAIT) another process is filling it,
 * -ETIMEDOUT it still was after timeout_ms (-1: for ever), -EDEADLK this connection is filling it,
 * -ESHUTDOWN gttd was ending, and is not back, -ENODEV it is device memory (gtt_open_adopted()).
 */
GTT_PUBLIC int gtt_open(struct gtt *gtt, const char *name, uint32_t flags, int timeout_ms,
                        struct gtt_segment **ret_segment);

/* Give back the right to create name that gtt_open() returned 1 for; the next waiter gets it.
 * -ENOENT: this connection has no such claim. */
GTT_PUBLIC int gtt_abandon(struct gtt *gtt, const char *name);

struct gtt_create_params {
    const char *name;     /* NULL: anonymous; dies with the connection and cannot be sealed */
    uint64_t size_bytes;  /* a multiple of GTT_ALIGN_BYTES */
    uint64_t chunk_bytes; /* the same, at most gtt_info's chunk_max_bytes; 0: the largest */
    bool write_combined;  /* not CPU-cached; only where the heap has it */
};

/*
 * Make zeroed memory of which this connection is the only writer. Blocks until it is populated (a
 * second per several GB). On success *ret_segment is the caller's. Errors: -EEXIST the name is
 * taken, -EDQUOT over the user's quota, -ENOSPC over the pool's capacity or the device's
 * GTT, -ENOMEM below the free-RAM floor or the kernel refused, -EINVAL sizes, -EOPNOTSUPP
 * write_combined.
 */
GTT_PUBLIC int gtt_create(struct gtt *gtt, const struct gtt_create_params *params,
                          struct gtt_segment **ret_segment);

/* Give the segment back and unmap it; one that is not sealed is gone. Accepts NULL. Also right
 * after the connection was lost, and required before gtt_disconnect(). */
GTT_PUBLIC void gtt_segment_close(struct gtt_segment *segment);

struct gtt_segment_info {
    uint64_t id;
    uint64_t size_bytes;
    uint64_t chunk_bytes; /* of every chunk but perhaps the last */
    uint32_t n_chunks;
    uint32_t metadata_size;
    uint32_t uid; /* whose it is */
    bool sealed;
    bool held;           /* gttd counts this hold; false: a restarted gttd does not have it */
    bool immutable;      /* sealed, and the kernel refuses every write */
    bool write_combined; /* not CPU-cached: slow to read */
    bool adopted;        /* device memory: it cannot be mapped or verified */
    struct gtt_device_memory memory; /* zero if it is not */
    const uint8_t *digest;           /* [GTT_DIGEST_SIZE]; borrowed like metadata until the close */
    const uint8_t *metadata;         /* [metadata_size] */
};

/* Does not block. */
GTT_PUBLIC void gtt_segment_get_info(const struct gtt_segment *segment,
                                     struct gtt_segment_info *ret);

/*
 * All chunks, one after the other, in one 2 MiB-aligned piece of address space; mapped once and
 * kept until the close. writable only while the segment is not sealed (-EACCES). Blocks for one
 * round trip per chunk the first time. Errors also those of mmap; -ENODEV it is device memory.
 */
GTT_PUBLIC int gtt_segment_map(struct gtt_segment *segment, bool writable, void **ret_base);

/* The fd of a chunk, to import it elsewhere: a dma-buf or a memfd, see gtt_info; of an adopted
 * segment what was handed over, for an import as the same kind of handle. Borrowed until the
 * segment is sealed or closed; dup() it to keep it. Blocks for one round trip the first time. */
GTT_PUBLIC int gtt_segment_chunk_fd(struct gtt_segment *segment, uint32_t index, int *ret_fd);

/*
 * The segment is complete: from now on nobody writes to it, and whoever opens its name gets it.
 * The mapping becomes read-only and keeps its address (no thread may touch it during the call);
 * chunk fds handed out before are closed. digest NULL: computed here, which reads all of it.
 * metadata: up to GTT_METADATA_MAX bytes that openers get with it; NULL if metadata_size is 0.
 * Errors: -EINVAL anonymous or sealed already, -ESTALE its name was dropped meanwhile: close it;
 * its mapping may be read-only by now. -ECONNRESET: gttd restarted before it was sealed, and it
 * cannot be any more: close it and create it again; its mapping may be read-only by now.
 */
GTT_PUBLIC int gtt_segment_seal(struct gtt_segment *segment, const uint8_t *digest,
                                const void *metadata, size_t metadata_size);

/* Read all of a sealed segment and compare with its digest; maps it if it is not. -EBADMSG: it is
 * not what was sealed; -ENODEV it is device memory. */
GTT_PUBLIC int gtt_segment_verify(struct gtt_segment *segment);

/*
 * The digest of memory, as used for segments: SHA-256 of the concatenated SHA-256 digests of each
 * 64 MiB of it (the last block may be short). Uses several threads when there is much of it.
 * -ENOMEM.
 */
GTT_PUBLIC int gtt_digest(const void *data, uint64_t size_bytes,
                          uint8_t ret_digest[GTT_DIGEST_SIZE]);

/* ---- device memory ---- */

struct gtt_adopt_params {
    const char *name;
    uint64_t size_bytes;  /* as for gtt_create() */
    uint64_t chunk_bytes; /* the same; not 0 */
    struct gtt_device_memory memory;
    const int *fds;        /* [chunks], borrowed: what the driver has exported, in order */
    const uint8_t *digest; /* [GTT_DIGEST_SIZE] of what it is a copy of */
    const void *metadata;  /* up to GTT_METADATA_MAX bytes; NULL if metadata_size is 0 */
    size_t metadata_size;
};

/*
 * Have gttd keep memory of a device, so that it outlives this process: a sealed segment, of which
 * this connection has a lease. gttd keeps the fds and can neither map nor check what is behind
 * them: whoever opens it should look whether it is what it is said to be. It counts against a quota
 * of its own, is never evicted, and stays until somebody drops it. Only its own user can open it,
 * also where users share. Blocks for two round trips and one per chunk. On success *ret_segment is
 * the caller's.
 * Errors: -EEXIST the name is taken, -EDQUOT over what one user may have kept, -EOPNOTSUPP gttd is
 * not to keep any, -EBADF an fd that no device memory can be behind, -ENOMEM it is RAM (of a driver
 * that runs on the CPU) and there is too little of that, -EINVAL.
 */
GTT_PUBLIC int gtt_adopt(struct gtt *gtt, const struct gtt_adopt_params *params,
                         struct gtt_segment **ret_segment);

/*
 * gtt_open() for such a segment: flags, waiting and claiming are the same, and gtt_adopt() makes
 * what was claimed. gtt_segment_chunk_fd() then gives the fds and gtt_segment_get_info() the rest.
 * Errors also: -ENODEV it is memory of another device, -ESTALE of this one under another driver,
 * -EINVAL it is no device memory.
 */
GTT_PUBLIC int gtt_open_adopted(struct gtt *gtt, const char *name, const struct gtt_device *device,
                                uint32_t flags, int timeout_ms, struct gtt_segment **ret_segment);

/* ---- watching ---- */

enum gtt_event_kind {
    GTT_EVENT_CREATED = 1,
    GTT_EVENT_SEALED = 2,
    GTT_EVENT_OPENED = 3,
    GTT_EVENT_CLOSED = 4,
    GTT_EVENT_DROPPED = 5, /* by gtt_drop(), or not sealed and its filler is gone */
    GTT_EVENT_EVICTED = 6,
    GTT_EVENT_CLIENT_GONE = 7,
    GTT_EVENT_LOST = 8, /* read too slowly: n_lost events are missing; 0: gttd restarted, and what
                           happened meanwhile is not known */
};

struct gtt_event {
    enum gtt_event_kind kind;
    uint32_t uid;
    int32_t pid; /* who did it; 0: gttd itself */
    uint32_t n_lost;
    uint64_t id; /* of the segment; 0: none */
    uint64_t size_bytes;
    char name[GTT_NAME_MAX + 1];
    char label[32];
};

/* Ask for events from now on, about this user's segments and clients (root, and where users share:
 * everyone's). */
GTT_PUBLIC int gtt_watch(struct gtt *gtt);

/* The next event; waits up to timeout_ms (0: not at all, -1: for ever), and as long again for a
 * gttd that is gone. -ETIMEDOUT: none came. */
GTT_PUBLIC int gtt_next_event(struct gtt *gtt, int timeout_ms, struct gtt_event *ret_event);

#ifdef __cplusplus
}
#endif

#endif
