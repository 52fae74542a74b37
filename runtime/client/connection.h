/* SPDX-License-Identifier: MIT */
/*
 * Inside libgtt: a connection to gttd, requests and replies over it. What the requests mean is the
 * other files' business.
 */
#ifndef GTT_CONNECTION_H
#define GTT_CONNECTION_H

#include <sys/un.h>

#include "gtt.h"
#include "gttd_wire.h"

#define GTT_EVENTS_MAX 256 /* received while waiting for something else */

struct claim { /* a name this connection is to CREATE */
    struct claim *next;
    uint64_t id;
    char name[GTTD_NAME_SIZE];
};

struct gtt {
    int fd; /* -1 once the connection is lost, with lost_errno */
    int lost_errno;
    uint32_t last_serial;
    struct gttd_hello_rsp hello;
    char path[sizeof((struct sockaddr_un *)0)->sun_path];
    char error[512];
    struct claim *claims;
    struct gttd_list_rsp list; /* the page gtt_list() is at */
    uint32_t list_at;
    struct gttd_event *events; /* [GTT_EVENTS_MAX], a ring; NULL: not watching */
    uint32_t events_first, n_events, n_events_lost;
};

/* Write the sentence for gtt_last_error(); return r. */
int gtt_fail(struct gtt *gtt, int r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Send a request, whose header this fills in; *ret_serial is what the reply will repeat. */
int gtt_request(struct gtt *gtt, struct gttd_hdr *req, size_t size, enum gttd_op op,
                uint32_t *ret_serial);

/*
 * Wait for the reply with this op and serial; events that come first are kept. timeout_ms -1: for
 * ever. The status of the reply, with its reason as last error, prefixed by what; -ETIMEDOUT.
 * ret_fd may be NULL if no fd can come.
 */
int gtt_reply(struct gtt *gtt, enum gttd_op op, uint32_t serial, int timeout_ms, const char *what,
              union gttd_msg *ret, int *ret_fd);

/* Both, for as long as it takes. */
int gtt_call(struct gtt *gtt, struct gttd_hdr *req, size_t size, enum gttd_op op, const char *what,
             union gttd_msg *ret, int *ret_fd);

/* Receive until an event is in the ring. -ETIMEDOUT. */
int gtt_receive_event(struct gtt *gtt, int timeout_ms);

/* End the connection; r and the sentence are what it ended with. Returns r. */
int gtt_lost(struct gtt *gtt, int r, const char *why);

/* Copy a name of the caller's into a request. -EINVAL with a sentence. */
int gtt_copy_name(struct gtt *gtt, const char *name, char ret[static GTTD_NAME_SIZE]);

#endif
