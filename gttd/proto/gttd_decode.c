/* SPDX-License-Identifier: MIT */
/*
 * The decoder of gttd_wire.h: decides whether bytes from a socket are a message of gttd_proto.h.
 * Pure functions over the bytes; no I/O, no state. This is what tests/fuzz/fuzz_wire.c feeds.
 */
#include <errno.h>
#include <string.h>

#include "gttd_util.h"
#include "gttd_wire.h"

typedef const char *(*check_fn)(const union gttd_msg *msg); /* NULL: good; else what is wrong */

static bool is_zero(const void *p, size_t size)
{
    const uint8_t *bytes = p;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i]) {
            return false;
        }
    }
    return true;
}

/* A NUL-terminated string of bytes from lowest to '~', and nothing but zeros behind the NUL. */
static bool is_text(const char *s, size_t size, char lowest)
{
    size_t len = strnlen(s, size);
    if (len == size) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (s[i] < lowest || s[i] > '~') {
            return false;
        }
    }
    return is_zero(s + len, size - len);
}

/* A segment's name or nothing. */
static bool is_name(const char name[static GTTD_NAME_SIZE])
{
    return is_text(name, GTTD_NAME_SIZE, '!');
}

static bool is_label(const char label[static GTTD_LABEL_SIZE])
{
    return is_text(label, GTTD_LABEL_SIZE, ' ');
}

bool gttd_name_valid(const char *name)
{
    size_t len = strnlen(name, GTTD_NAME_SIZE);
    return len > 0 && len < GTTD_NAME_SIZE && is_text(name, len + 1, '!');
}

uint32_t gttd_chunk_count(uint64_t size_bytes, uint64_t chunk_bytes)
{
    if (!size_bytes || size_bytes % GTTD_ALIGN_BYTES || !chunk_bytes ||
        chunk_bytes % GTTD_ALIGN_BYTES || chunk_bytes > GTTD_CHUNK_MAX) {
        return 0;
    }
    uint64_t n = size_bytes / chunk_bytes + (size_bytes % chunk_bytes != 0);
    return n <= GTTD_CHUNKS_MAX ? (uint32_t)n : 0;
}

uint64_t gttd_chunk_size(uint64_t size_bytes, uint64_t chunk_bytes, uint32_t index)
{
    uint64_t start = (uint64_t)index * chunk_bytes;
    return size_bytes - start < chunk_bytes ? size_bytes - start : chunk_bytes;
}

/* What a daemon says of a segment must be something that can be mapped. */
static bool sizes_agree(uint64_t size_bytes, uint64_t chunk_bytes, uint32_t n_chunks)
{
    return n_chunks && gttd_chunk_count(size_bytes, chunk_bytes) == n_chunks;
}

static bool is_metadata(const uint8_t metadata[static GTTD_METADATA_MAX], uint32_t size)
{
    return size <= GTTD_METADATA_MAX && is_zero(metadata + size, GTTD_METADATA_MAX - size);
}

bool gttd_device_memory_valid(const struct gttd_device_memory *memory, uint64_t size_bytes,
                              uint64_t chunk_bytes)
{
    uint32_t n_chunks = gttd_chunk_count(size_bytes, chunk_bytes);
    if (!n_chunks || memory->handle != GTTD_HANDLE_OPAQUE_FD || memory->memory_type >= 32 ||
        (memory->flags & ~GTTD_MEMORY_FLAGS) || memory->pad ||
        !is_text(memory->device_name, sizeof memory->device_name, ' ')) {
        return false;
    }
    uint64_t last_bytes = gttd_chunk_size(size_bytes, chunk_bytes, n_chunks - 1);
    return memory->last_alloc_bytes >= last_bytes && memory->last_alloc_bytes <= GTTD_ALLOC_MAX &&
           memory->alloc_bytes <= GTTD_ALLOC_MAX &&
           (n_chunks == 1 ? memory->alloc_bytes == memory->last_alloc_bytes
                          : memory->alloc_bytes >= chunk_bytes);
}

/* A sentence or nothing. */
static bool is_sentence(const char text[static GTTD_TEXT_SIZE])
{
    return is_text(text, GTTD_TEXT_SIZE, ' ');
}

static const char *check_nothing(const union gttd_msg *msg)
{
    (void)msg;
    return NULL;
}

static const char *check_hello_req(const union gttd_msg *msg)
{
    if (msg->hdr.serial != 1) {
        return "HELLO: serial is not 1";
    }
    return is_label(msg->hello_req.label) ? NULL : "HELLO: label is not text";
}

static const char *check_hello_rsp(const union gttd_msg *msg)
{
    const struct gttd_hello_rsp *m = &msg->hello_rsp;
    if (m->pad || (m->flags & ~GTTD_DAEMON_FLAGS)) {
        return "HELLO reply: unknown flags or padding";
    }
    if (!m->chunk_max_bytes || m->chunk_max_bytes % GTTD_ALIGN_BYTES ||
        m->chunk_max_bytes > GTTD_CHUNK_MAX) {
        return "HELLO reply: chunk limit out of range";
    }
    return is_label(m->version) && is_label(m->heap) ? NULL : "HELLO reply: text";
}

static const char *check_status_rsp(const union gttd_msg *msg)
{
    const struct gttd_status_rsp *m = &msg->status_rsp;
    if ((m->flags & ~GTTD_DAEMON_FLAGS) || m->adopts > 1) {
        return "STATUS reply: unknown flags";
    }
    return is_label(m->heap) && is_sentence(m->device) && is_sentence(m->pin)
               ? NULL
               : "STATUS reply: text";
}

static bool is_list_entry(const struct gttd_list_entry *e)
{
    return e->id && e->state >= GTTD_CLAIMED && e->state <= GTTD_SEALED &&
           !(e->flags & ~GTTD_SEGMENT_FLAGS) && e->pinned_bytes <= e->size_bytes &&
           is_name(e->name) && is_label(e->label) &&
           is_text(e->device_name, sizeof e->device_name, ' ') &&
           ((e->flags & GTTD_SEGMENT_ADOPTED) ||
            is_zero(&e->device, sizeof *e - offsetof(struct gttd_list_entry, device)));
}

static const char *check_list_rsp(const union gttd_msg *msg)
{
    const struct gttd_list_rsp *m = &msg->list_rsp;
    if (m->n_entries > GTTD_LIST_MAX || m->more > 1 || (m->more && !m->n_entries)) {
        return "LIST reply: counts out of range";
    }
    uint64_t last_id = 0;
    for (uint32_t i = 0; i < m->n_entries; i++) {
        if (!is_list_entry(&m->entries[i])) {
            return "LIST reply: bad entry";
        }
        if (m->entries[i].id <= last_id) { /* a list that does not advance would never end */
            return "LIST reply: ids do not ascend";
        }
        last_id = m->entries[i].id;
    }
    return is_zero(&m->entries[m->n_entries], (GTTD_LIST_MAX - m->n_entries) * sizeof m->entries[0])
               ? NULL
               : "LIST reply: unused entries are not zero";
}

static const char *check_create_req(const union gttd_msg *msg)
{
    const struct gttd_create_req *m = &msg->create_req;
    if (m->flags || m->memory_class > GTTD_MEMORY_WC) {
        return "CREATE: unknown flags or memory class";
    }
    return is_name(m->name) ? NULL : "CREATE: name is not printable text";
}

static const char *check_create_rsp(const union gttd_msg *msg)
{
    const struct gttd_create_rsp *m = &msg->create_rsp;
    if (m->pad || !m->id) {
        return "CREATE reply: padding or id";
    }
    return sizes_agree(m->size_bytes, m->chunk_bytes, m->n_chunks) ? NULL : "CREATE reply: sizes";
}

static const char *check_adopt_req(const union gttd_msg *msg)
{
    const struct gttd_adopt_req *m = &msg->adopt_req;
    if (!m->name[0] || !is_name(m->name)) {
        return "ADOPT: name is not printable text";
    }
    return gttd_device_memory_valid(&m->memory, m->size_bytes, m->chunk_bytes)
               ? NULL
               : "ADOPT: sizes, handle, memory type, flags, padding or device";
}

static const char *check_give_req(const union gttd_msg *msg)
{
    const struct gttd_give_req *m = &msg->give_req;
    return m->pad || m->index >= GTTD_CHUNKS_MAX ? "GIVE: padding or index" : NULL;
}

static const char *check_chunk_req(const union gttd_msg *msg)
{
    return msg->chunk_req.pad ? "CHUNK: padding is not zero" : NULL;
}

static const char *check_chunk_rsp(const union gttd_msg *msg)
{
    const struct gttd_chunk_rsp *m = &msg->chunk_rsp;
    if (m->pad || !m->id || m->index >= GTTD_CHUNKS_MAX) {
        return "CHUNK reply: padding, id or index";
    }
    return gttd_chunk_count(m->size_bytes, m->size_bytes) == 1 ? NULL : "CHUNK reply: size";
}

static const char *check_seal_req(const union gttd_msg *msg)
{
    const struct gttd_seal_req *m = &msg->seal_req;
    if (m->pad) {
        return "SEAL: padding is not zero";
    }
    return is_metadata(m->metadata, m->metadata_size) ? NULL : "SEAL: metadata size";
}

static const char *check_seal_rsp(const union gttd_msg *msg)
{
    const struct gttd_seal_rsp *m = &msg->seal_rsp;
    return m->pad || !m->id || (m->flags & ~GTTD_SEGMENT_FLAGS) ? "SEAL reply: padding or flags"
                                                                : NULL;
}

static const char *check_open_req(const union gttd_msg *msg)
{
    const struct gttd_open_req *m = &msg->open_req;
    if (m->pad || (m->flags & ~GTTD_OPEN_FLAGS)) {
        return "OPEN: unknown flags or padding";
    }
    if (!(m->flags & GTTD_OPEN_DEVICE) && !is_zero(&m->device, sizeof m->device)) {
        return "OPEN: a device without its flag";
    }
    return m->name[0] && is_name(m->name) ? NULL : "OPEN: name is not printable text";
}

static const char *check_open_rsp(const union gttd_msg *msg)
{
    const struct gttd_open_rsp *m = &msg->open_rsp;
    if (!m->id || (m->flags & ~GTTD_SEGMENT_FLAGS)) {
        return "OPEN reply: id or flags";
    }
    if (m->role == GTTD_ROLE_FILLER) {
        return is_zero(&m->flags, sizeof *m - offsetof(struct gttd_open_rsp, flags))
                   ? NULL
                   : "OPEN reply: a claim has no memory";
    }
    if (m->role != GTTD_ROLE_LEASE) {
        return "OPEN reply: unknown role";
    }
    if (m->pad || !sizes_agree(m->size_bytes, m->chunk_bytes, m->n_chunks)) {
        return m->pad ? "OPEN reply: padding is not zero" : "OPEN reply: sizes";
    }
    if (m->flags & GTTD_SEGMENT_ADOPTED
            ? !gttd_device_memory_valid(&m->memory, m->size_bytes, m->chunk_bytes)
            : !is_zero(&m->memory, sizeof m->memory)) {
        return "OPEN reply: device memory";
    }
    return is_metadata(m->metadata, m->metadata_size) ? NULL : "OPEN reply: metadata size";
}

static const char *check_close_req(const union gttd_msg *msg)
{
    const struct gttd_close_req *m = &msg->close_req;
    if (m->pad) {
        return "CLOSE: padding is not zero";
    }
    return !m->id != !m->wait_serial ? NULL : "CLOSE: needs an id or a serial, not both";
}

static const char *check_drop_req(const union gttd_msg *msg)
{
    const struct gttd_drop_req *m = &msg->drop_req;
    if (m->pad || (m->flags & ~GTTD_DROP_FLAGS)) {
        return "DROP: unknown flags or padding";
    }
    if (!is_name(m->name)) {
        return "DROP: name is not printable text";
    }
    return !m->id != !m->name[0] ? NULL : "DROP: needs an id or a name, not both";
}

static const char *check_event(const union gttd_msg *msg)
{
    const struct gttd_event *m = &msg->event;
    if (m->kind < GTTD_EVENT_CREATED || m->kind > GTTD_EVENT_KIND_MAX) {
        return "EVENT: unknown kind";
    }
    return is_name(m->name) && is_label(m->label) ? NULL : "EVENT: text";
}

/* Size 0: no such message in this direction. */
static const struct shape {
    const char *name;
    uint32_t req_size, rsp_size;
    check_fn check_req, check_rsp;
} shapes[] = {
    [GTTD_OP_HELLO] = {"HELLO", sizeof(struct gttd_hello_req), sizeof(struct gttd_hello_rsp),
                       check_hello_req, check_hello_rsp},
    [GTTD_OP_STATUS] = {"STATUS", sizeof(struct gttd_plain), sizeof(struct gttd_status_rsp),
                        check_nothing, check_status_rsp},
    [GTTD_OP_LIST] = {"LIST", sizeof(struct gttd_list_req), sizeof(struct gttd_list_rsp),
                      check_nothing, check_list_rsp},
    [GTTD_OP_CREATE] = {"CREATE", sizeof(struct gttd_create_req), sizeof(struct gttd_create_rsp),
                        check_create_req, check_create_rsp},
    [GTTD_OP_CHUNK] = {"CHUNK", sizeof(struct gttd_chunk_req), sizeof(struct gttd_chunk_rsp),
                       check_chunk_req, check_chunk_rsp},
    [GTTD_OP_SEAL] = {"SEAL", sizeof(struct gttd_seal_req), sizeof(struct gttd_seal_rsp),
                      check_seal_req, check_seal_rsp},
    [GTTD_OP_OPEN] = {"OPEN", sizeof(struct gttd_open_req), sizeof(struct gttd_open_rsp),
                      check_open_req, check_open_rsp},
    [GTTD_OP_CLOSE] = {"CLOSE", sizeof(struct gttd_close_req), sizeof(struct gttd_plain),
                       check_close_req, check_nothing},
    [GTTD_OP_DROP] = {"DROP", sizeof(struct gttd_drop_req), sizeof(struct gttd_plain),
                      check_drop_req, check_nothing},
    [GTTD_OP_WATCH] = {"WATCH", sizeof(struct gttd_plain), sizeof(struct gttd_plain), check_nothing,
                       check_nothing},
    [GTTD_OP_EVENT] = {"EVENT", 0, sizeof(struct gttd_event), NULL, check_event},
    [GTTD_OP_ADOPT] = {"ADOPT", sizeof(struct gttd_adopt_req), sizeof(struct gttd_create_rsp),
                       check_adopt_req, check_create_rsp},
    [GTTD_OP_GIVE] = {"GIVE", sizeof(struct gttd_give_req), sizeof(struct gttd_plain),
                      check_give_req, check_nothing},
};

const char *gttd_op_name(unsigned op)
{
    return op < ARRAY_SIZE(shapes) && shapes[op].name ? shapes[op].name : "?";
}

/* Everything that does not depend on the op's own fields; *ret_check is what is left to do. */
static const char *check_frame(enum gttd_sender sender, const struct gttd_hdr *hdr,
                               check_fn *ret_check)
{
    if (hdr->op >= ARRAY_SIZE(shapes) || !shapes[hdr->op].name) {
        return "unknown op";
    }
    const struct shape *shape = &shapes[hdr->op];
    bool is_event = hdr->op == GTTD_OP_EVENT;
    uint32_t want = sender == GTTD_FROM_CLIENT ? shape->req_size : shape->rsp_size;
    *ret_check = sender == GTTD_FROM_CLIENT ? shape->check_req : shape->check_rsp;
    if (!want) {
        return "op is for the other direction";
    }
    if (!hdr->serial != is_event) {
        return is_event ? "event with a serial" : "serial is 0";
    }
    if (hdr->status) {
        if (sender == GTTD_FROM_CLIENT || is_event || hdr->status > 0 || hdr->status < -4095) {
            return "status out of range";
        }
        want = sizeof(struct gttd_error);
        *ret_check = NULL;
    }
    return hdr->size == want ? NULL : "wrong size for this op";
}

int gttd_decode(enum gttd_sender sender, const void *data, size_t size, const char **ret_why)
{
    const union gttd_msg *msg = data;
    const char *why = NULL;
    check_fn check = NULL;
    int r = -EPROTO;
    if (size < sizeof msg->hdr || size != msg->hdr.size) {
        why = "length and header disagree";
    } else if (msg->hdr.version != GTTD_PROTO_VERSION) {
        why = "another version of the protocol";
        r = -EPROTONOSUPPORT;
    } else {
        why = check_frame(sender, &msg->hdr, &check);
        if (!why && check) {
            why = check(msg);
        } else if (!why) {
            why = is_text(msg->error.reason, GTTD_REASON_SIZE, ' ') ? NULL : "reason is not text";
        }
    }
    if (ret_why && why) {
        *ret_why = why;
    }
    return why ? r : 0;
}

bool gttd_wants_fd(enum gttd_sender sender, const struct gttd_hdr *hdr)
{
    return sender == GTTD_FROM_DAEMON ? hdr->op == GTTD_OP_CHUNK && hdr->status == 0
                                      : hdr->op == GTTD_OP_GIVE;
}
