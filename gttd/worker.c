/* SPDX-License-Identifier: MIT */
/* The worker threads: see worker.h. */
#include "worker.h"

#include <errno.h>
#include <sched.h>
#include <sys/eventfd.h>

#include "gttd_util.h"

static void announce(struct worker *worker)
{
    uint64_t one = 1;
    ssize_t n = write(worker->source.fd, &one, sizeof one);
    (void)n; /* fails only when the counter is full, and then it is readable */
}

static void *worker_main(void *data)
{
    struct worker *worker = data;
    pthread_mutex_lock(&worker->lock);
    while (!worker->stop) {
        if (list_empty(&worker->queue)) {
            pthread_cond_wait(&worker->wake, &worker->lock);
            continue;
        }
        struct job *job = list_entry(worker->queue.next, struct job, link);
        list_remove(&job->link);
        pthread_mutex_unlock(&worker->lock);
        bool again = job->step(job);
        pthread_mutex_lock(&worker->lock);
        list_append(again ? &worker->queue : &worker->finished, &job->link);
        if (!again) {
            announce(worker);
        }
    }
    pthread_mutex_unlock(&worker->lock);
    return NULL;
}

static void on_finished(struct source *source, uint32_t events)
{
    struct worker *worker = list_entry(source, struct worker, source);
    uint64_t count;
    (void)events;
    if (read(source->fd, &count, sizeof count) < 0) {
        return;
    }
    for (;;) {
        struct job *job = NULL;
        pthread_mutex_lock(&worker->lock);
        if (!list_empty(&worker->finished)) {
            job = list_entry(worker->finished.next, struct job, link);
            list_remove(&job->link);
        }
        pthread_mutex_unlock(&worker->lock);
        if (!job) {
            return;
        }
        job->done(job);
    }
}

/* As many as there are CPUs for us. One is enough to go on with. */
static int start_threads(struct worker *worker)
{
    cpu_set_t cpus;
    int n_cpus = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
    int r = 0;
    while (r == 0 && worker->n_threads < WORKER_THREADS_MAX && (int)worker->n_threads < n_cpus) {
        r = -pthread_create(&worker->threads[worker->n_threads], NULL, worker_main, worker);
        worker->n_threads += r == 0;
    }
    return worker->n_threads ? 0 : r;
}

int worker_start(struct worker *worker, struct loop *loop)
{
    *worker = (struct worker){.loop = loop,
                              .source = {.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                                         .ready = on_finished}};
    list_init(&worker->queue);
    list_init(&worker->finished);
    if (worker->source.fd < 0) {
        return -errno;
    }
    pthread_mutex_init(&worker->lock, NULL);
    pthread_cond_init(&worker->wake, NULL);
    int r = loop_add(loop, &worker->source, EPOLLIN);
    if (r == 0) {
        r = start_threads(worker);
    }
    if (r < 0) {
        close_fdp(&worker->source.fd);
    }
    return r;
}

void worker_stop(struct worker *worker)
{
    if (!worker->n_threads) {
        return;
    }
    pthread_mutex_lock(&worker->lock);
    worker->stop = true;
    pthread_cond_broadcast(&worker->wake);
    pthread_mutex_unlock(&worker->lock);
    while (worker->n_threads) {
        pthread_join(worker->threads[--worker->n_threads], NULL);
    }
    pthread_cond_destroy(&worker->wake);
    pthread_mutex_destroy(&worker->lock);
    close_fdp(&worker->source.fd);
}

void worker_submit(struct worker *worker, struct job *job)
{
    pthread_mutex_lock(&worker->lock);
    list_append(&worker->queue, &job->link);
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&worker->lock);
}
