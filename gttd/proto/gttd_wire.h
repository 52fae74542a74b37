/* SPDX-License-Identifier: MIT */
/*
 * Moves and checks the messages of gttd_proto.h: the only sendmsg, recvmsg and decoder in the tree,
 * used by the daemon and by libgtt alike. It knows nothing of what the messages mean.
 */
#ifndef GTTD_WIRE_H
#define GTTD_WIRE_H

#include <stdbool.h>
#include <stddef.h>

#include "gttd_proto.h"

/* Who sent the message that is being decoded. */
enum gttd_sender { GTTD_FROM_CLIENT, GTTD_FROM_DAEMON };

/*
 * Send msg (msg->size bytes) and, unless fd is -1, one borrowed fd with it. Never raises SIGPIPE;
 * whether it blocks is up to the socket. Errors: -EAGAIN, -EPIPE, -ETOOMANYREFS (too many fds on
 * their way to receivers), others of sendmsg.
 */
int gttd_send(int sock, const struct gttd_hdr *msg, int fd);

/*
 * Receive one message into *msg; *ret_size is its length, *ret_fd the fd that came along (CLOEXEC)
 * or -1: the caller's, also with a message that is refused, as closing it may block. ret_fd NULL:
 * none may come. What is too many the kernel drops. flags as for recvmsg (MSG_DONTWAIT). Errors:
 * -EAGAIN, -ECONNRESET the peer is gone, -EPROTO longer than any message or an fd too many.
 */
int gttd_recv(int sock, int flags, union gttd_msg *msg, size_t *ret_size, int *ret_fd);

/*
 * Check every byte of a received message: length, op, version, serial, status, padding, strings,
 * enums, flags and the consistency of sizes. Pure: reads msg[0..size) and nothing else; msg is
 * aligned as a union gttd_msg. Errors: -EPROTO malformed, -EPROTONOSUPPORT a whole header of
 * another version. *ret_why (may be NULL) is then a constant sentence.
 */
int gttd_decode(enum gttd_sender sender, const void *msg, size_t size, const char **ret_why);

/* True if a message that decoded well must come with an fd (otherwise it must not). */
bool gttd_wants_fd(enum gttd_sender sender, const struct gttd_hdr *hdr);

/* A header for a message of this size and op; status 0. */
struct gttd_hdr gttd_header(size_t size, enum gttd_op op, uint32_t serial);

/* The reply to a request that failed. text is cut to what fits. */
struct gttd_error gttd_error_reply(unsigned op, uint32_t serial, int status, const char *text);

/* Copy a string into a field of a message: cut to what fits, zeros behind it. */
void gttd_set_text(char *field, size_t size, const char *text);

/* Printable ASCII without space, 1 to GTTD_NAME_SIZE - 1 bytes. */
bool gttd_name_valid(const char *name);

/* A segment's sizes: both multiples of GTTD_ALIGN_BYTES, chunk_bytes at most GTTD_CHUNK_MAX, at
 * most GTTD_CHUNKS_MAX chunks. Returns the number of chunks, 0 if the sizes are no segment's. */
uint32_t gttd_chunk_count(uint64_t size_bytes, uint64_t chunk_bytes);

/* Bytes of chunk index of such a segment. */
uint64_t gttd_chunk_size(uint64_t size_bytes, uint64_t chunk_bytes, uint32_t index);

/* Whether this can describe the device memory behind a segment of such sizes. */
bool gttd_device_memory_valid(const struct gttd_device_memory *memory, uint64_t size_bytes,
                              uint64_t chunk_bytes);

/* "OPEN" and so on; "?" for no op. */
const char *gttd_op_name(unsigned op);

#endif
