/* SPDX-License-Identifier: MIT */
/*
 * A bounded queue of jobs and the one thread that runs them, in order, one after another. Knows
 * nothing of what a job does: run() is given at creation. Jobs belong to those who submit them.
 */
#ifndef HTTP_QUEUE_H
#define HTTP_QUEUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct queue;

enum job_state { JOB_NEW, JOB_WAITING, JOB_RUNNING, JOB_DONE };

/* Embedded in what its owner wants run; zero-initialised. Only cancelled is for others to read. */
struct job {
    struct job *next; /* queue::first */
    enum job_state state;
    atomic_bool cancelled; /* run() looks at it and returns soon when set */
};

/*
 * run is called on the queue's thread with each job, also with one that queue_cancel_all()
 * cancelled while it waited: whoever waits for the job's outcome hears of it in one way only.
 */
int queue_create(size_t max_waiting, void (*run)(void *data, struct job *job), void *data,
                 struct err *err, struct queue **ret);
/* Cancels what is left and joins the thread. Accepts NULL. */
void queue_destroy(struct queue *queue);

/* Borrow job until queue_leave(). Errors: -EAGAIN max_waiting jobs wait already, -ESHUTDOWN after
 * queue_close(). */
int queue_submit(struct queue *queue, struct job *job);

/* Cancel a submitted job if it is not done, wait until run() has let go of it, and give it back.
 * Any thread but the queue's. */
void queue_leave(struct queue *queue, struct job *job);

void queue_close(struct queue *queue);
void queue_cancel_all(struct queue *queue);

struct queue_load {
    size_t n_waiting;
    bool running;
};
struct queue_load queue_load(struct queue *queue);

#endif
