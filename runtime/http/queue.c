/* SPDX-License-Identifier: MIT */
/* Jobs, one after another: see queue.h. */
#include "queue.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct queue {
    void (*run)(void *data, struct job *job);
    void *data;
    size_t max_waiting;
    pthread_t thread;

    pthread_mutex_t lock; /* over all below and every job's state and next */
    pthread_cond_t changed;
    struct job *first; /* waiting jobs, oldest first */
    size_t n_waiting;
    struct job *running;
    bool closed;
    bool stop;
};

static void *work(void *arg)
{
    struct queue *queue = arg;
    pthread_mutex_lock(&queue->lock);
    for (;;) {
        while (!queue->first && !queue->stop) {
            pthread_cond_wait(&queue->changed, &queue->lock);
        }
        struct job *job = queue->first;
        if (!job) {
            break;
        }
        queue->first = job->next;
        queue->n_waiting--;
        queue->running = job;
        job->state = JOB_RUNNING;
        pthread_mutex_unlock(&queue->lock);
        queue->run(queue->data, job);
        pthread_mutex_lock(&queue->lock);
        job->state = JOB_DONE;
        queue->running = NULL;
        pthread_cond_broadcast(&queue->changed);
    }
    pthread_mutex_unlock(&queue->lock);
    return NULL;
}

int queue_create(size_t max_waiting, void (*run)(void *data, struct job *job), void *data,
                 struct err *err, struct queue **ret)
{
    struct queue *queue = calloc(1, sizeof *queue);
    if (!queue) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    queue->run = run;
    queue->data = data;
    queue->max_waiting = max_waiting;
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->changed, NULL);
    int r = -pthread_create(&queue->thread, NULL, work, queue);
    if (r < 0) {
        pthread_cond_destroy(&queue->changed);
        pthread_mutex_destroy(&queue->lock);
        free(queue);
        return err_set(err, r, "cannot start the inference thread: %s", strerror(-r));
    }
    *ret = queue;
    return 0;
}

void queue_destroy(struct queue *queue)
{
    if (!queue) {
        return;
    }
    queue_close(queue);
    queue_cancel_all(queue);
    pthread_mutex_lock(&queue->lock);
    queue->stop = true;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
    pthread_join(queue->thread, NULL);
    pthread_cond_destroy(&queue->changed);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}

int queue_submit(struct queue *queue, struct job *job)
{
    int r = 0;
    pthread_mutex_lock(&queue->lock);
    assert(job->state == JOB_NEW);
    if (queue->closed) {
        r = -ESHUTDOWN;
    } else if (queue->n_waiting >= queue->max_waiting) {
        r = -EAGAIN;
    } else {
        struct job **last = &queue->first;
        while (*last) {
            last = &(*last)->next;
        }
        *last = job;
        job->next = NULL;
        job->state = JOB_WAITING;
        queue->n_waiting++;
        pthread_cond_broadcast(&queue->changed);
    }
    pthread_mutex_unlock(&queue->lock);
    return r;
}

void queue_leave(struct queue *queue, struct job *job)
{
    pthread_mutex_lock(&queue->lock);
    if (job->state != JOB_DONE) {
        atomic_store(&job->cancelled, true);
    }
    if (job->state == JOB_WAITING) {
        struct job **link = &queue->first;
        while (*link != job) {
            link = &(*link)->next;
        }
        *link = job->next;
        queue->n_waiting--;
        job->state = JOB_DONE;
    }
    while (job->state == JOB_RUNNING) {
        pthread_cond_wait(&queue->changed, &queue->lock);
    }
    pthread_mutex_unlock(&queue->lock);
}

void queue_close(struct queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->closed = true;
    pthread_mutex_unlock(&queue->lock);
}

void queue_cancel_all(struct queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    for (struct job *job = queue->first; job; job = job->next) {
        atomic_store(&job->cancelled, true);
    }
    if (queue->running) {
        atomic_store(&queue->running->cancelled, true);
    }
    pthread_mutex_unlock(&queue->lock);
}

struct queue_load queue_load(struct queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    struct queue_load load = {queue->n_waiting, queue->running != NULL};
    pthread_mutex_unlock(&queue->lock);
    return load;
}
