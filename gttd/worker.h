/* SPDX-License-Identifier: MIT */
/*
 * A few threads for what would block the event loop. Jobs are done in turns, a step of each at a
 * time, so that a small one never waits for all of a big one; each is on one thread at a time.
 * Finished ones come back to the main thread through an eventfd. It does not know what the jobs do.
 */
#ifndef GTTD_WORKER_H
#define GTTD_WORKER_H

#include <pthread.h>

#include "list.h"
#include "loop.h"

/* Zeroing memory is limited by its bandwidth, which about four cores use up. */
#define WORKER_THREADS_MAX 4

/* Embed it in what is worked on. While submitted it is the worker's. */
struct job {
    struct list link;              /* worker::queue, worker::finished or none */
    bool (*step)(struct job *job); /* on a worker thread; true: call again */
    void (*done)(struct job *job); /* on the main thread; may submit it again or free it */
};

struct worker {
    struct loop *loop;
    struct source source; /* the eventfd */
    pthread_t threads[WORKER_THREADS_MAX];
    uint32_t n_threads;   /* that run */
    pthread_mutex_t lock; /* of the fields below */
    pthread_cond_t wake;
    struct list queue;    /* struct job */
    struct list finished; /* struct job */
    bool stop;
};

/* Start up to WORKER_THREADS_MAX threads, one per CPU, and listen for finished jobs on the loop. */
int worker_start(struct worker *worker, struct loop *loop);
/* End the threads after the steps they are in. Jobs not finished by then never are: their done is
 * not called. Accepts a worker that is all zero. */
void worker_stop(struct worker *worker);

void worker_submit(struct worker *worker, struct job *job);

#endif
