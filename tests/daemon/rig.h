/* SPDX-License-Identifier: MIT */
/*
 * The rig of the daemon tests: a real gttd in a directory of its own, raw connections to it, and
 * counts of what it holds. Everything that goes wrong ends the test program; the gttds it started
 * end with it.
 */
#ifndef TESTS_RIG_H
#define TESTS_RIG_H

#include <stdbool.h>
#include <sys/types.h>

#include "check.h"
#include "gtt.h"
#include "gttd_wire.h"

#define MIB (1ull << 20)

struct rig {
    char dir[64];
    char socket[96];
    char log[96];  /* its stderr */
    int log_fd;    /* this instead; 0: not */
    char conf[96]; /* its gttd.conf */
    pid_t pid;     /* of gttd */
    bool borrowed; /* somebody else started it */
};

/* Use the gttd that $GTTD_RIG_SOCKET and $GTTD_RIG_PID name, which rig_stop() then leaves alone.
 * False: they name none. */
bool rig_borrow(struct rig *rig);

/* Write gttd.conf of one that has been started before; at first it says floor = 16M. */
void rig_configure(const struct rig *rig, const char *text);

/* Start gttd --heap=memfd on a socket of its own, with more arguments (NULL-terminated; may be
 * NULL), and wait until it answers. */
void rig_start(struct rig *rig, const char *const *args);
/* SIGTERM, CHECK that it exits with 0, remove the directory. */
void rig_stop(struct rig *rig);
/* The same without the signal: for one that has been killed or ends by itself. Returns the status
 * of waitpid(). */
int rig_wait(struct rig *rig);
void rig_clean(struct rig *rig); /* remove the directory */

/* True if the log has this text by now. */
bool rig_logged(const struct rig *rig, const char *text);

/* libgtt, connected or the test fails. */
struct gtt *rig_connect(const struct rig *rig);

/* A raw connection, not greeted, and one that is. */
int rig_raw(const struct rig *rig);
int rig_raw_greeted(const struct rig *rig);

/* Over a raw connection: fill in the header and send; receive anything well-formed within 5 s. */
void raw_send(int sock, void *msg, size_t size, enum gttd_op op, uint32_t serial);
/* Returns the status; *ret_fd may be NULL if none is expected. */
int raw_recv(int sock, union gttd_msg *msg, int *ret_fd);
/* CHECK that the daemon has hung up (reads off what it sent before). */
void raw_expect_end(int sock);

/* What gttd holds: open fds (but for ballast, which is in more or fewer pieces at times), bytes
 * charged, bytes of the pool that are neither charged nor reserved, clients besides the one used to
 * ask. */
struct rig_count {
    int n_fds;
    uint64_t used_bytes;
    uint64_t loose_bytes;
    uint32_t n_clients, n_segments, n_leases, n_waiters;
};
struct rig_count rig_count(const struct rig *rig);
/* CHECK that it comes back to what it was, within 5 s. */
void rig_expect_count(const struct rig *rig, const struct rig_count *want);

/* Create, fill with byte, seal; through libgtt. Returns the lease. */
struct gtt_segment *rig_fill(struct gtt *gtt, const char *name, uint64_t size_bytes, int byte);

/* fork() with a pipe: the child runs body(data, pipe to the parent) and exits 0. */
pid_t rig_fork(void (*body)(void *data, int pipe_fd), void *data, int *ret_pipe_fd);
/* Wait for a child that must have exited with 0. */
void rig_join(pid_t pid);
/* SIGKILL and wait. */
void rig_kill(pid_t pid);
/* Wait for one byte from the pipe, at most 5 s; returns it. */
int rig_pipe_byte(int pipe_fd);

void sleep_ms(int ms);

#endif
