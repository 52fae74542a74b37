/* SPDX-License-Identifier: MIT */
/*
 * A service manager for one gttd, as far as its fd store goes: it passes a listening socket and the
 * stored fds, takes FDSTORE, FDSTOREREMOVE and BARRIER messages, and can be told to kill gttd in
 * the middle. It is a second implementation of the protocol that sd_notify(3) and
 * sd_listen_fds(3) document, written for these tests; that systemd's own does the same is what the
 * guest tests are for.
 */
#ifndef TESTS_SUPERVISOR_H
#define TESTS_SUPERVISOR_H

#include <pthread.h>

#include "rig.h"

#define SUP_FDS_MAX 2048

struct sup_fd {
    char name[256];
    int fd;
};

struct supervisor {
    struct rig rig; /* of the gttd that runs; its functions work on it */
    const char *const *args;
    int listen_fd;
    int notify_fd;
    char notify_path[96];
    pthread_t thread;
    pthread_mutex_t lock; /* of the fields below */
    unsigned fds_max;     /* FDSTORE=; 0: there is none */
    struct sup_fd fds[SUP_FDS_MAX];
    unsigned n_fds;
    unsigned n_refused;  /* the store was full */
    unsigned n_messages; /* about fds, from the gttd that runs */
    pid_t pid;           /* as in rig */
    int kill_at;         /* SIGKILL when so many have been processed; -1: never */
    bool deaf;           /* it has been killed: what it still sends was never sent */
    bool ready;
    bool end;
};

/* Start gttd --heap=memfd with args (kept; NULL: none) and wait until it is ready. */
void sup_start(struct supervisor *sup, unsigned fds_max, const char *const *args);
/* SIGKILL (or SIGTERM, and CHECK that it ends well), and start the next one with what is stored. */
void sup_restart(struct supervisor *sup, int signal);
/* The two halves of it. */
void sup_end(struct supervisor *sup, int signal);
void sup_launch(struct supervisor *sup);
/* A listening socket in place of one that the test has closed. */
void sup_listen(struct supervisor *sup);
/* SIGTERM and clean up; what was stored is gone. */
void sup_stop(struct supervisor *sup);

/* SIGKILL gttd when it has sent so many more messages about fds; -1: not any more. */
void sup_kill_at(struct supervisor *sup, int n_messages);
/* From the next start on the store takes so many. */
void sup_set_max(struct supervisor *sup, unsigned fds_max);
/* How many it did not take. */
unsigned sup_refused(struct supervisor *sup);

/* The number of fds stored under this name; NULL: under any. */
unsigned sup_count(struct supervisor *sup, const char *name);
/* The index-th fd stored under this name, still the store's. */
int sup_get(struct supervisor *sup, const char *name, unsigned index);
/* Put another in its place, consumed; -1: take it out. */
void sup_replace(struct supervisor *sup, const char *name, unsigned index, int fd_consume);
void sup_add(struct supervisor *sup, const char *name, int fd_consume);

#endif
