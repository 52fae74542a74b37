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
#include "reconnect.h"

#define GTT_EVENTS_MAX 256 /* received while waiting for something else */

struct claim { /* a name this connection is to CREATE */
    struct claim *next;
    uint64_t id;
    char name[GTTD_NAME_SIZE];
};

enum link_state {
    LINK_UP,
    LINK_BROKEN, /* gttd has ended it: reconnect.h may bring it back; fd keeps the number */
    LINK_ENDED,  /* for good, with lost_errno */
};

struct gtt {
    int fd; /* -1 when ended */
    enum link_state link;
    int lost_errno;
    char label[GTTD_LABEL_SIZE];
    struct reconnecting reconnecting;
    struct gtt_segment *segments; /* all that this connection has */
    uint32_t last_serial;
    struct gttd_hello_rsp hello;
    char path[sizeof((struct sockaddr_un *)0)->sun_path];
    char error[512];
    struct claim *claims;
    struct gttd_list_rsp list; /* the page gtt_list() is at */
    uint32_t list_at;
    bool watching;
    struct gttd_event *events; /* [GTT_EVENTS_MAX], a ring; NULL: never watched */
    uint32_t events_first, n_events, n_events_lost;
};

/* Write the sentence for gtt_last_error(); return r. */
int gtt_fail(struct gtt *gtt, int r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Connect to gtt->path and greet; gtt->link is up on success. */
int gtt_dial(struct gtt *gtt, int hello_timeout_ms);

/* Send a request, whose header this fills in, with fd (borrowed) or -1; *ret_serial is what the
 * reply will repeat. */
int gtt_request(struct gtt *gtt, struct gttd_hdr *req, size_t size, enum gttd_op op, int fd,
                uint32_t *ret_serial);

/*
 * Wait for the reply with this op and serial; events that come first are kept. timeout_ms -1: for
 * ever. The status of the reply, with its reason as last error, prefixed by what; -ETIMEDOUT.
 * ret_fd may be NULL if no fd can come.
 */
int gtt_reply(struct gtt *gtt, enum gttd_op op, uint32_t serial, int timeout_ms, const char *what,
              union gttd_msg *ret, int *ret_fd);

/* Both, for as long as it takes. -ECONNRESET: the connection has broken. */
int gtt_call_once(struct gtt *gtt, struct gttd_hdr *req, size_t size, enum gttd_op op,
                  const char *what, union gttd_msg *ret, int *ret_fd);

/*
 * The same over a connection that is brought back if it has broken or breaks. -ERESTART: it was,
 * and nobody has answered this request; the caller makes it again, with the ids of now, or sees
 * what has become of it. That ends: too many in a row are an error.
 */
int gtt_call(struct gtt *gtt, struct gttd_hdr *req, size_t size, enum gttd_op op, const char *what,
             union gttd_msg *ret, int *ret_fd);

/* What gtt_call() does after a request has failed with r: r, or -ERESTART. */
int gtt_after(struct gtt *gtt, int r);

/* Receive until an event is in the ring. -ETIMEDOUT. */
int gtt_receive_event(struct gtt *gtt, int timeout_ms);

/* Put an event into the ring, for gtt_next_event(). */
void gtt_keep_event(struct gtt *gtt, const struct gttd_event *event);

/* End the connection for good; r and the sentence are what it ended with. Returns r. */
int gtt_lost(struct gtt *gtt, int r, const char *why);

/* The parts of bringing a connection back, each in its own file. -ECONNRESET: it broke again. */
int gtt_renew_segments(struct gtt *gtt);
int gtt_renew_watch(struct gtt *gtt);

/* -ESTALE with the sentence if a sealed segment of this connection is not in gttd any more. */
int gtt_check_held(struct gtt *gtt);

/* CLOCK_MONOTONIC. */
int64_t gtt_now_ms(void);

/* Copy a name of the caller's into a request. -EINVAL with a sentence. */
int gtt_copy_name(struct gtt *gtt, const char *name, char ret[static GTTD_NAME_SIZE]);

#endif
