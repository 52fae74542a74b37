/* SPDX-License-Identifier: MIT */
/*
 * The decoder that gttd and libgtt run, on anything: it must read nothing but what it was given,
 * and what it lets through must be safe to use as its struct says. The first byte picks the
 * direction.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gttd_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int x)
{
    if (!x) {
        abort();
    }
}

static void use_reply(const union gttd_msg *msg)
{
    if (msg->hdr.status < 0) {
        require(strlen(msg->error.reason) < GTTD_REASON_SIZE);
    } else if (msg->hdr.op == GTTD_OP_OPEN && msg->open_rsp.role == GTTD_ROLE_LEASE) {
        const struct gttd_open_rsp *rsp = &msg->open_rsp;
        uint64_t end = (uint64_t)(rsp->n_chunks - 1) * rsp->chunk_bytes +
                       gttd_chunk_size(rsp->size_bytes, rsp->chunk_bytes, rsp->n_chunks - 1);
        require(end == rsp->size_bytes && rsp->metadata_size <= GTTD_METADATA_MAX);
        require(!(rsp->flags & GTTD_SEGMENT_ADOPTED) == !rsp->memory.handle);
        require(strlen(rsp->memory.device_name) < GTTD_DEVICE_SIZE);
    } else if (msg->hdr.op == GTTD_OP_LIST) {
        for (uint32_t i = 0; i < msg->list_rsp.n_entries; i++) {
            require(strlen(msg->list_rsp.entries[i].name) < GTTD_NAME_SIZE);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    enum gttd_sender sender = data[0] & 1 ? GTTD_FROM_DAEMON : GTTD_FROM_CLIENT;
    void *msg = malloc(size - 1); /* aligned, and exactly as long as what came */
    if (!msg) {
        return 0;
    }
    memcpy(msg, data + 1, size - 1);
    const char *why = NULL;
    int r = gttd_decode(sender, msg, size - 1, &why);
    require(r == 0 ? !why : why && *why);
    if (r == 0) {
        const union gttd_msg *good = msg;
        require(good->hdr.size == size - 1 && *gttd_op_name(good->hdr.op) != '?');
        gttd_wants_fd(sender, &good->hdr);
        if (sender == GTTD_FROM_DAEMON) {
            use_reply(good);
        } else if (good->hdr.op == GTTD_OP_OPEN) {
            require(gttd_name_valid(good->open_req.name));
        } else if (good->hdr.op == GTTD_OP_ADOPT) {
            const struct gttd_adopt_req *req = &good->adopt_req;
            uint32_t n_chunks = gttd_chunk_count(req->size_bytes, req->chunk_bytes);
            require(gttd_name_valid(req->name) && n_chunks);
            require(req->memory.last_alloc_bytes >=
                    gttd_chunk_size(req->size_bytes, req->chunk_bytes, n_chunks - 1));
        }
    }
    free(msg);
    return 0;
}
