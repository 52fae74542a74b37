/* SPDX-License-Identifier: MIT */
/* A parallel loop over coarse items: see parallel.h. */
#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define THREADS_MAX 64

struct loop {
    void (*fn)(void *data, size_t i);
    void *data;
    size_t n_items;
    atomic_size_t next;
};

uint32_t parallel_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) < 0) {
        return 1;
    }
    int n = CPU_COUNT(&set);
    return n > 0 ? (uint32_t)n : 1;
}

static void *loop_run(void *arg)
{
    struct loop *loop = arg;
    size_t i;
    while ((i = atomic_fetch_add(&loop->next, 1)) < loop->n_items) {
        loop->fn(loop->data, i);
    }
    return NULL;
}

void parallel_for(uint32_t n_threads, size_t n_items, void (*fn)(void *data, size_t i), void *data)
{
    struct loop loop = {.fn = fn, .data = data, .n_items = n_items};
    pthread_t threads[THREADS_MAX];
    size_t n_started = 0;

    if (n_threads == 0) {
        n_threads = parallel_cores();
    }
    size_t n_wanted = n_threads < n_items ? n_threads : n_items;
    while (n_started + 1 < n_wanted && n_started < THREADS_MAX) {
        if (pthread_create(&threads[n_started], NULL, loop_run, &loop) != 0) {
            break;
        }
        n_started++;
    }
    loop_run(&loop);
    for (size_t i = 0; i < n_started; i++) {
        pthread_join(threads[i], NULL);
    }
}
