/* SPDX-License-Identifier: MIT */
/* Inside libgtt: what a segment's handle is, for the files that make them. */
#ifndef GTT_SEGMENT_H
#define GTT_SEGMENT_H

#include "connection.h"
#include "mapping.h"

struct gtt_segment {
    struct gtt *gtt;
    struct gtt_segment *next; /* gtt::segments */
    char name[GTTD_NAME_SIZE];
    bool held; /* gttd knows of this hold; not so if it restarted and does not have it any more */
    uint64_t id;
    bool sealed;
    bool immutable;
    bool write_combined;
    uint32_t uid;                     /* whose it is */
    struct gttd_device_memory memory; /* handle 0: it is not adopted */
    uint8_t digest[GTTD_DIGEST_SIZE];
    uint32_t metadata_size;
    uint8_t metadata[GTTD_METADATA_MAX];
    struct mapping mapping; /* of an adopted one only sizes and fds */
};

/* A handle for what gttd has just given this connection; on failure it is given back. -ENOMEM. */
int gtt_new_segment(struct gtt *gtt, const char *name, uint64_t id, uint64_t size_bytes,
                    uint64_t chunk_bytes, uint32_t n_chunks, struct gtt_segment **ret);

/* gtt_open() with a request of the caller's, whose name is checked. */
int gtt_open_as(struct gtt *gtt, struct gttd_open_req *req, int timeout_ms,
                struct gtt_segment **ret_segment);

/* Tell gttd that this connection does not want id any more. */
int gtt_close_id(struct gtt *gtt, uint64_t id, const char *what);

/* What was claimed under this name, if anything was, is made. */
void gtt_claim_used(struct gtt *gtt, const char *name);

/* Get a lease of the sealed segment of this name if it is the same as ours. */
int gtt_lease_again(struct gtt_segment *segment);

/* adopt.c: the wire's form of device memory in the public one. */
void gtt_memory_info(const struct gttd_device_memory *memory, struct gtt_device_memory *ret);

#endif
