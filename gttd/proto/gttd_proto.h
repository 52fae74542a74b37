/* SPDX-License-Identifier: MIT */
/*
 * The whole wire protocol between gttd and its clients: limits, operations, structs. Nothing else
 * defines what travels; gttd_wire.h moves and checks it.
 *
 * AF_UNIX SOCK_SEQPACKET: one packet is one message, which starts with struct gttd_hdr. Integers
 * are little-endian. Fields called pad or reserved are zero; char arrays are NUL-terminated and
 * zero behind the NUL. No message carries an fd except a successful CHUNK reply and a GIVE request,
 * which carry one.
 *
 * A request has a serial of the client's choice that is not 0 and not that of a request still
 * unanswered; the reply repeats op and serial. Replies to OPEN with WAIT, CREATE and SEAL may come
 * after replies to later requests. A failed operation is answered with struct gttd_error (status
 * < 0); a malformed message, or one with an fd too many or too few, ends the connection.
 *
 * The first request is HELLO, with serial 1 and once. gttd answers with serial 1 also when it
 * refuses a connection before it has read anything from it.
 */
#ifndef GTTD_PROTO_H
#define GTTD_PROTO_H

#include <assert.h>
#include <stdint.h>

#define GTTD_PROTO_VERSION 3

#define GTTD_NAME_SIZE    128           /* with the NUL; printable ASCII without space */
#define GTTD_LABEL_SIZE   32            /* with the NUL */
#define GTTD_REASON_SIZE  240           /* with the NUL */
#define GTTD_TEXT_SIZE    128           /* with the NUL; a short sentence for people */
#define GTTD_METADATA_MAX 1024          /* bytes of a segment's metadata */
#define GTTD_DIGEST_SIZE  32            /* SHA-256 */
#define GTTD_UUID_SIZE    16            /* VK_UUID_SIZE */
#define GTTD_DEVICE_SIZE  64            /* with the NUL; a device's name for people */
#define GTTD_LIST_MAX     16            /* entries in one LIST reply */
#define GTTD_ALIGN_BYTES  (2ull << 20)  /* sizes of segments and chunks are multiples */
#define GTTD_CHUNK_MAX    (2ull << 30)  /* largest chunk */
#define GTTD_CHUNKS_MAX   1024u         /* chunks of one segment */
#define GTTD_DIGEST_BLOCK (64ull << 20) /* see struct gttd_seal_req */

enum gttd_op {
    GTTD_OP_HELLO = 1,
    GTTD_OP_STATUS = 2,
    GTTD_OP_LIST = 3,
    GTTD_OP_CREATE = 4,
    GTTD_OP_CHUNK = 5,
    GTTD_OP_SEAL = 6,
    GTTD_OP_OPEN = 7,
    GTTD_OP_CLOSE = 8,
    GTTD_OP_DROP = 9,
    GTTD_OP_WATCH = 10,
    GTTD_OP_EVENT = 11, /* from gttd only, serial 0 */
    GTTD_OP_ADOPT = 12,
    GTTD_OP_GIVE = 13,
};

struct gttd_hdr {
    uint32_t size;    /* of the whole message */
    uint16_t op;      /* enum gttd_op */
    uint16_t version; /* GTTD_PROTO_VERSION */
    uint32_t serial;
    int32_t status; /* 0 in requests and events; replies: 0 or a negative errno */
};
static_assert(sizeof(struct gttd_hdr) == 16, "wire ABI");

/* The reply to any request that failed. */
struct gttd_error {
    struct gttd_hdr hdr; /* status < 0 */
    char reason[GTTD_REASON_SIZE];
};
static_assert(sizeof(struct gttd_error) == 256, "wire ABI");

/* Requests and replies without a body: STATUS and WATCH requests; CLOSE, DROP, WATCH, GIVE
 * replies. */
struct gttd_plain {
    struct gttd_hdr hdr;
};
static_assert(sizeof(struct gttd_plain) == 16, "wire ABI");

/* HELLO */
struct gttd_hello_req {
    struct gttd_hdr hdr;
    char label[GTTD_LABEL_SIZE]; /* who calls, for log and LIST: printable ASCII, may be empty */
};
static_assert(sizeof(struct gttd_hello_req) == 48, "wire ABI");

#define GTTD_HEAP_DMABUF        (1u << 0) /* chunk fds are dma-bufs, which a GPU can import */
#define GTTD_RESTART_LOSES_POOL (1u << 1) /* no sealed segment outlives the daemon */
#define GTTD_PRESSURE_WATCHED   (1u << 2) /* memory pressure evicts; not set: cannot or must not */
#define GTTD_SHARE_GROUP        (1u << 3) /* users may open each other's segments */
#define GTTD_DAEMON_FLAGS \
    (GTTD_HEAP_DMABUF | GTTD_RESTART_LOSES_POOL | GTTD_PRESSURE_WATCHED | GTTD_SHARE_GROUP)

struct gttd_hello_rsp {
    struct gttd_hdr hdr;
    uint32_t flags; /* GTTD_HEAP_DMABUF ... */
    uint32_t pad;
    uint64_t chunk_max_bytes; /* what this heap can do; at most GTTD_CHUNK_MAX */
    char version[GTTD_LABEL_SIZE];
    char heap[GTTD_LABEL_SIZE]; /* "memfd", "udmabuf", "amdgpu" */
};
static_assert(sizeof(struct gttd_hello_rsp) == 96, "wire ABI");

/* STATUS. Bytes are of memory; 0 as a limit means that there is none. The three gtt_ fields are
 * what the device's driver says of all its users, and 0 where the heap has no device with a limit.
 * What is adopted is in the adopted_ fields only: it is neither RAM nor GTT nor the pool's.
 */
struct gttd_status_rsp {
    struct gttd_hdr hdr;
    uint32_t flags; /* as in HELLO, but as of now */
    uint32_t n_clients;
    uint32_t n_segments; /* of all states */
    uint32_t n_sealed;
    uint32_t n_leases;
    uint32_t n_waiters;
    uint64_t capacity_bytes;
    uint64_t used_bytes;     /* charged: admitted or allocated, all users */
    uint64_t free_ram_bytes; /* MemAvailable less what is admitted but not yet populated */
    uint64_t floor_bytes;    /* free RAM that no CREATE may go below */
    uint64_t quota_bytes;    /* of the caller's uid */
    uint64_t user_bytes;     /* charged to the caller's uid */
    uint64_t n_evictions;    /* since start */
    uint64_t gtt_total_bytes;
    uint64_t gtt_usable_bytes;    /* total less what anyone has pinned */
    uint64_t gtt_used_bytes;      /* by anyone */
    uint64_t ballast_bytes;       /* reserved for the pool and in no segment; not in used_bytes */
    uint64_t pinned_bytes;        /* of the segments: proven to be pinned */
    uint64_t adopted_bytes;       /* of devices' own memory, kept for all users */
    uint64_t adopted_user_bytes;  /* for the caller's uid */
    uint64_t adopted_quota_bytes; /* what one uid may have kept; 0: no limit */
    uint32_t n_adopted;           /* segments */
    uint32_t adopts;              /* 1: ADOPT is allowed */
    char heap[GTTD_LABEL_SIZE];
    char device[GTTD_TEXT_SIZE]; /* which one, for people; empty: none */
    char pin[GTTD_TEXT_SIZE];    /* by what memory is pinned, or why it is not */
};
static_assert(sizeof(struct gttd_status_rsp) == 456, "wire ABI");

/* Whose memory an adopted segment is, as VkPhysicalDeviceIDProperties has it. */
struct gttd_device_id {
    uint8_t device_uuid[GTTD_UUID_SIZE];
    uint8_t driver_uuid[GTTD_UUID_SIZE];
};
static_assert(sizeof(struct gttd_device_id) == 32, "wire ABI");

/* LIST: segments of the caller's uid (of every uid for root and with GTTD_SHARE_GROUP) with an id
 * above cursor, ascending. */
struct gttd_list_req {
    struct gttd_hdr hdr;
    uint64_t cursor; /* 0 to start; then the last id received */
};
static_assert(sizeof(struct gttd_list_req) == 24, "wire ABI");

enum gttd_state {
    GTTD_CLAIMED = 1, /* a name that somebody is about to CREATE; no memory */
    GTTD_POPULATING = 2,
    GTTD_FILLING = 3,
    GTTD_SEALING = 4,
    GTTD_SEALED = 5,
};

#define GTTD_SEGMENT_IMMUTABLE (1u << 0) /* sealed, and the kernel refuses every write */
#define GTTD_SEGMENT_WC        (1u << 1) /* write-combined: slow for a CPU to read */
#define GTTD_SEGMENT_KEPT      (1u << 2) /* outlives a restart of gttd */
#define GTTD_SEGMENT_ADOPTED   (1u << 3) /* a device's own memory, which ADOPT had gttd keep */
#define GTTD_SEGMENT_FLAGS \
    (GTTD_SEGMENT_IMMUTABLE | GTTD_SEGMENT_WC | GTTD_SEGMENT_KEPT | GTTD_SEGMENT_ADOPTED)

struct gttd_list_entry {
    uint64_t id;
    uint64_t size_bytes;
    uint64_t chunk_bytes;
    uint64_t pinned_bytes; /* of size_bytes: proven to be pinned */
    uint64_t idle_ms;      /* since it was last opened, sealed or closed */
    uint32_t uid;
    int32_t pid;    /* who fills or filled it */
    uint32_t state; /* enum gttd_state; 0 in unused entries */
    uint32_t flags; /* GTTD_SEGMENT_IMMUTABLE ... */
    uint32_t n_leases;
    uint32_t n_waiters;
    char name[GTTD_NAME_SIZE]; /* empty: anonymous, or dropped and still leased */
    char label[GTTD_LABEL_SIZE];
    uint8_t digest[GTTD_DIGEST_SIZE];
    struct gttd_device_id device;       /* ADOPTED only, else zero; so is the next */
    char device_name[GTTD_DEVICE_SIZE]; /* for people */
};
static_assert(sizeof(struct gttd_list_entry) == 352, "wire ABI");

struct gttd_list_rsp {
    struct gttd_hdr hdr;
    uint32_t n_entries;
    uint32_t more;                                 /* 1: ask again with cursor = the last id */
    struct gttd_list_entry entries[GTTD_LIST_MAX]; /* zero from n_entries on */
};
static_assert(sizeof(struct gttd_list_rsp) == 24 + 352 * GTTD_LIST_MAX, "wire ABI");

/*
 * CREATE: zeroed memory, for this client to fill. Answered when the memory is there. A named one
 * can be sealed and then outlives its client; an anonymous one dies with the connection. Errors:
 * -EEXIST name taken, -EDQUOT over the user's quota, -ENOSPC over the pool's capacity or the
 * device's GTT, -ENOMEM below the free-RAM floor or the kernel refused, -EINVAL size, -EOPNOTSUPP
 * memory class.
 */
enum gttd_memory_class {
    GTTD_MEMORY_DEFAULT = 0, /* CPU-cached */
    GTTD_MEMORY_WC = 1,      /* write-combined: only heaps of a GPU driver have it */
};

struct gttd_create_req {
    struct gttd_hdr hdr;
    uint64_t size_bytes;       /* a multiple of GTTD_ALIGN_BYTES */
    uint64_t chunk_bytes;      /* the same; of every chunk but the last; 0: the largest there is */
    uint32_t memory_class;     /* enum gttd_memory_class */
    uint32_t flags;            /* 0 */
    char name[GTTD_NAME_SIZE]; /* may be empty */
};
static_assert(sizeof(struct gttd_create_req) == 168, "wire ABI");

struct gttd_create_rsp {
    struct gttd_hdr hdr;
    uint64_t id;
    uint64_t size_bytes;
    uint64_t chunk_bytes;
    uint32_t n_chunks;
    uint32_t pad;
};
static_assert(sizeof(struct gttd_create_rsp) == 48, "wire ABI");

/* What an importer of device memory must know; gttd only passes it on. */
enum gttd_handle {
    GTTD_HANDLE_OPAQUE_FD = 1, /* VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT */
};

#define GTTD_MEMORY_DEDICATED (1u << 0) /* each chunk was allocated for one buffer */
#define GTTD_MEMORY_FLAGS     GTTD_MEMORY_DEDICATED
#define GTTD_ALLOC_MAX        (2 * GTTD_CHUNK_MAX)

struct gttd_device_memory {
    struct gttd_device_id device;
    char device_name[GTTD_DEVICE_SIZE]; /* for people; may be empty */
    uint64_t alloc_bytes; /* allocated for each chunk but the last: at least its size; the same as
                             last_alloc_bytes if there is only one */
    uint64_t last_alloc_bytes;
    uint32_t handle;      /* enum gttd_handle */
    uint32_t memory_type; /* its index in VkPhysicalDeviceMemoryProperties, below 32 */
    uint32_t flags;       /* GTTD_MEMORY_DEDICATED */
    uint32_t pad;
};
static_assert(sizeof(struct gttd_device_memory) == 128, "wire ABI");

/*
 * ADOPT: have gttd keep memory of a device, which this client has filled and exported: one fd per
 * chunk, each handed over by a GIVE, and then SEAL, with the digest of what it is a copy of. gttd
 * keeps the fds and can neither map nor check what is behind them: so such a segment is never
 * another user's to open, is not RAM nor the pool's, and is never evicted. The reply is a struct
 * gttd_create_rsp. Errors: -EEXIST, -EINVAL sizes, -EDQUOT over what this user may have kept, or
 * over a number, -EOPNOTSUPP gttd is not to adopt anything.
 */
struct gttd_adopt_req {
    struct gttd_hdr hdr;
    uint64_t size_bytes;  /* as for CREATE */
    uint64_t chunk_bytes; /* not 0 */
    struct gttd_device_memory memory;
    char name[GTTD_NAME_SIZE]; /* not empty */
};
static_assert(sizeof(struct gttd_adopt_req) == 288, "wire ABI");

/* GIVE: the fd of one chunk, which comes with this. Errors: -EBADF not what device memory can be
 * behind, -EEXIST it has been given, -EINVAL, -ENOMEM it is RAM, and there is too little of it. */
struct gttd_give_req { /* and one fd */
    struct gttd_hdr hdr;
    uint64_t id;
    uint32_t index;
    uint32_t pad;
};
static_assert(sizeof(struct gttd_give_req) == 32, "wire ABI");

/* CHUNK: one fd of a segment this client fills or leases. Of a sealed memfd it is read-only. */
struct gttd_chunk_req {
    struct gttd_hdr hdr;
    uint64_t id;
    uint32_t index;
    uint32_t pad;
};
static_assert(sizeof(struct gttd_chunk_req) == 32, "wire ABI");

struct gttd_chunk_rsp { /* and one fd */
    struct gttd_hdr hdr;
    uint64_t id;
    uint64_t size_bytes;
    uint32_t index;
    uint32_t pad;
};
static_assert(sizeof(struct gttd_chunk_rsp) == 40, "wire ABI");

/*
 * SEAL: what was filled is complete; the filler's hold becomes a lease. digest is the SHA-256 of
 * the concatenated SHA-256 digests of each GTTD_DIGEST_BLOCK bytes of the segment (the last block
 * may be short). Errors: -EINVAL anonymous or not being filled, -ESTALE its name was dropped.
 */
struct gttd_seal_req {
    struct gttd_hdr hdr;
    uint64_t id;
    uint32_t metadata_size;
    uint32_t pad;
    uint8_t digest[GTTD_DIGEST_SIZE];
    uint8_t metadata[GTTD_METADATA_MAX]; /* zero behind metadata_size */
};
static_assert(sizeof(struct gttd_seal_req) == 1088, "wire ABI");

struct gttd_seal_rsp {
    struct gttd_hdr hdr;
    uint64_t id;
    uint32_t flags; /* GTTD_SEGMENT_IMMUTABLE ... */
    uint32_t pad;
};
static_assert(sizeof(struct gttd_seal_rsp) == 32, "wire ABI");

/*
 * OPEN: a lease of a sealed segment of the caller's uid, or, with GTTD_SHARE_GROUP and without OWN,
 * of another's if the caller's uid has none of that name in any state. Missing: -ENOENT, or with
 * FILL the name is claimed for this client, which CREATEs it next. Claimed or being filled by
 * another: -EAGAIN, or with WAIT the reply comes when it is sealed, or when the filler is gone: the
 * first waiter with FILL becomes filler and the others go on waiting; if there is none, all get
 * -ENOENT. An adopted segment is opened with DEVICE and the device it is memory of, and only by its
 * own user: -ENODEV no or another device, -ESTALE another driver; with DEVICE, any other segment is
 * -EINVAL.
 */
#define GTTD_OPEN_WAIT   (1u << 0)
#define GTTD_OPEN_FILL   (1u << 1)
#define GTTD_OPEN_OWN    (1u << 2)
#define GTTD_OPEN_DEVICE (1u << 3) /* device says which; else it is zero */
#define GTTD_OPEN_FLAGS  (GTTD_OPEN_WAIT | GTTD_OPEN_FILL | GTTD_OPEN_OWN | GTTD_OPEN_DEVICE)

struct gttd_open_req {
    struct gttd_hdr hdr;
    uint32_t flags;
    uint32_t pad;
    char name[GTTD_NAME_SIZE]; /* not empty */
    struct gttd_device_id device;
};
static_assert(sizeof(struct gttd_open_req) == 184, "wire ABI");

enum gttd_role {
    GTTD_ROLE_LEASE = 1,
    GTTD_ROLE_FILLER = 2, /* only id is set: CLOSE it to give the claim back */
};

struct gttd_open_rsp {
    struct gttd_hdr hdr;
    uint64_t id;
    uint32_t role;  /* enum gttd_role */
    uint32_t flags; /* GTTD_SEGMENT_IMMUTABLE ... */
    uint64_t size_bytes;
    uint64_t chunk_bytes;
    uint32_t n_chunks;
    uint32_t metadata_size;
    uint32_t uid; /* whose segment it is */
    uint32_t pad;
    uint8_t digest[GTTD_DIGEST_SIZE];
    uint8_t metadata[GTTD_METADATA_MAX];
    struct gttd_device_memory memory; /* ADOPTED only, else zero */
};
static_assert(sizeof(struct gttd_open_rsp) == 1248, "wire ABI");

/*
 * CLOSE: give back a lease, an unsealed segment or a claim (id), or cancel a waiting OPEN (serial),
 * which is then answered with -ECANCELED. Exactly one of id and wait_serial is not 0. -ENOENT: this
 * client has no such thing, for wait_serial also that the OPEN has been answered already.
 */
struct gttd_close_req {
    struct gttd_hdr hdr;
    uint64_t id;
    uint32_t wait_serial;
    uint32_t pad;
};
static_assert(sizeof(struct gttd_close_req) == 32, "wire ABI");

/*
 * DROP: forget a segment, by name (id 0) or by id (name empty; root may drop anyone's). -EPERM: it
 * is another user's. -EBUSY when it is leased or being filled, unless FORCE: then the name is gone
 * at once and the memory goes with the last CLOSE.
 */
#define GTTD_DROP_FORCE (1u << 0)
#define GTTD_DROP_FLAGS GTTD_DROP_FORCE

struct gttd_drop_req {
    struct gttd_hdr hdr;
    uint64_t id;
    uint32_t flags;
    uint32_t pad;
    char name[GTTD_NAME_SIZE];
};
static_assert(sizeof(struct gttd_drop_req) == 160, "wire ABI");

/* WATCH: from the reply on, EVENTs about segments and clients of this uid (of all uids for root and
 * with GTTD_SHARE_GROUP). */
enum gttd_event_kind {
    GTTD_EVENT_CREATED = 1,
    GTTD_EVENT_SEALED = 2,
    GTTD_EVENT_OPENED = 3,
    GTTD_EVENT_CLOSED = 4,
    GTTD_EVENT_DROPPED = 5, /* by DROP, or unsealed and its filler is gone */
    GTTD_EVENT_EVICTED = 6,
    GTTD_EVENT_CLIENT_GONE = 7,
    GTTD_EVENT_LOST = 8, /* this watcher reads too slowly: n_lost events are missing here */
    GTTD_EVENT_KIND_MAX = GTTD_EVENT_LOST,
};

struct gttd_event {
    struct gttd_hdr hdr; /* op EVENT, serial 0 */
    uint32_t kind;       /* enum gttd_event_kind */
    uint32_t uid;        /* whose segment or client */
    int32_t pid;         /* who did it; 0: gttd itself */
    uint32_t n_lost;     /* LOST only */
    uint64_t id;         /* of the segment; 0 if there is none */
    uint64_t size_bytes;
    char name[GTTD_NAME_SIZE];
    char label[GTTD_LABEL_SIZE]; /* of the client */
};
static_assert(sizeof(struct gttd_event) == 208, "wire ABI");

/* Room for any message. */
union gttd_msg {
    struct gttd_hdr hdr;
    struct gttd_plain plain;
    struct gttd_error error;
    struct gttd_hello_req hello_req;
    struct gttd_hello_rsp hello_rsp;
    struct gttd_status_rsp status_rsp;
    struct gttd_list_req list_req;
    struct gttd_list_rsp list_rsp;
    struct gttd_create_req create_req;
    struct gttd_create_rsp create_rsp;
    struct gttd_adopt_req adopt_req;
    struct gttd_give_req give_req;
    struct gttd_chunk_req chunk_req;
    struct gttd_chunk_rsp chunk_rsp;
    struct gttd_seal_req seal_req;
    struct gttd_seal_rsp seal_rsp;
    struct gttd_open_req open_req;
    struct gttd_open_rsp open_rsp;
    struct gttd_close_req close_req;
    struct gttd_drop_req drop_req;
    struct gttd_event event;
};

#endif
