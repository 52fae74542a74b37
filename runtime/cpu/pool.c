/* SPDX-License-Identifier: MIT */
/*
 * The thread pool: see pool.h.
 *
 * A job is published in one 64-bit word, the ticket: how many items it has and which is next.
 * Taking an item is a compare-and-swap of the whole word, so it succeeds only on the job that is
 * current at that moment; that job cannot end before the item is done, which makes it safe to read
 * fn and arg after the swap and not before. A stale value that happens to match is no danger: it is
 * then the current job's value too.
 */
#include "pool.h"

#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "parallel.h"

/*
 * How long to spin before sleeping: a few times what a futex wake-up takes (5 us on bare metal,
 * more in a guest), so that a wait costs at most a few times what it would have with foresight.
 */
#define SPIN_NS       30000
#define CACHE_LINE    64
#define ITEM_BITS     24
#define ITEM_MASK     ((1u << ITEM_BITS) - 1)
#define STOP_ITEMS    ITEM_MASK /* a ticket with this many items ends the workers */
#define SPINS_A_CHECK 16        /* pauses between two looks at the clock */

static_assert(POOL_MAX_ITEMS < STOP_ITEMS, "items fit their bits");

/*
 * On a busy machine the kernel may put a worker on the caller's core. Then a wait by spinning keeps
 * the very thread from running that is waited for, and every wake-up preempts the waker. So threads
 * note where they run: who shares a core sleeps at once, and such workers are woken no more often
 * than this. The caller does the items meanwhile.
 */
#define SHARED_WAKE_NS 1000000

struct worker {
    struct pool *pool;
    pthread_t thread;
    uint32_t index;
    _Alignas(CACHE_LINE) _Atomic int cpu; /* where it last ran */
};

struct pool {
    /* Written by every taker. bits 0..23: next item, 24..47: items of the job, 48..63: serial. */
    _Alignas(CACHE_LINE) _Atomic uint64_t ticket;

    /* Written by every finisher: items done of the current job. The caller sleeps on it. */
    _Alignas(CACHE_LINE) _Atomic uint32_t done;
    _Atomic uint32_t caller_sleeps;

    /* Written by the caller. */
    _Alignas(CACHE_LINE) pool_fn fn;
    void *arg;
    uint32_t serial;
    uint64_t last_wake_ns;
    _Atomic int caller_cpu; /* where the job was published */
    _Atomic uint32_t wakes; /* sleeping workers wait for it to change */

    _Alignas(CACHE_LINE) _Atomic uint32_t n_sleeping;

    uint32_t n_threads;
    uint32_t n_started;
    struct worker *workers; /* [n_threads - 1] */
};

static void cpu_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, uint32_t n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static uint32_t ticket_items(uint64_t ticket)
{
    return (uint32_t)(ticket >> ITEM_BITS) & ITEM_MASK;
}

static uint32_t ticket_next(uint64_t ticket)
{
    return (uint32_t)ticket & ITEM_MASK;
}

static bool has_item(uint64_t ticket)
{
    return ticket_next(ticket) < ticket_items(ticket);
}

/* Take and run items of the current job until none is left. */
static void run_items(struct pool *pool, uint32_t thread)
{
    uint64_t ticket = atomic_load(&pool->ticket);
    while (has_item(ticket) && ticket_items(ticket) != STOP_ITEMS) {
        if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket + 1)) {
            continue;
        }
        uint32_t n_items = ticket_items(ticket);
        pool->fn(pool->arg, ticket_next(ticket), thread);
        /*
         * Sequentially consistent, as is the caller's store to caller_sleeps before it looks at
         * done again: one of the two sees the other, so no wake-up is lost.
         */
        if (atomic_fetch_add(&pool->done, 1) + 1 == n_items && atomic_load(&pool->caller_sleeps)) {
            futex_wake(&pool->done, 1);
        }
        ticket = atomic_load(&pool->ticket);
    }
}

/* A worker notes where it runs; true if that is where the caller was. */
static bool beside_caller(struct worker *worker)
{
    int cpu = sched_getcpu();
    atomic_store_explicit(&worker->cpu, cpu, memory_order_relaxed);
    return cpu == atomic_load_explicit(&worker->pool->caller_cpu, memory_order_relaxed);
}

/* Spin until the ticket has items; false if it is time to sleep. */
static bool spin_for_item(struct worker *worker)
{
    struct pool *pool = worker->pool;
    uint64_t start = now_ns();
    do {
        for (int i = 0; i < SPINS_A_CHECK; i++) {
            if (has_item(atomic_load_explicit(&pool->ticket, memory_order_relaxed))) {
                return true;
            }
            cpu_pause();
        }
    } while (!beside_caller(worker) && now_ns() - start < SPIN_NS);
    return false;
}

static void sleep_for_item(struct pool *pool)
{
    uint32_t wakes = atomic_load(&pool->wakes);
    atomic_fetch_add(&pool->n_sleeping, 1);
    if (!has_item(atomic_load(&pool->ticket))) {
        futex_wait(&pool->wakes, wakes);
    }
    atomic_fetch_sub(&pool->n_sleeping, 1);
}

static void *worker_main(void *data)
{
    struct worker *worker = data;
    struct pool *pool = worker->pool;
    while (ticket_items(atomic_load(&pool->ticket)) != STOP_ITEMS) {
        if (spin_for_item(worker)) {
            beside_caller(worker);
            run_items(pool, worker->index);
        } else {
            sleep_for_item(pool);
        }
    }
    return NULL;
}

/* Whether a worker last ran on this core. */
static bool beside_worker(const struct pool *pool)
{
    int cpu = sched_getcpu();
    for (uint32_t i = 0; i < pool->n_started; i++) {
        if (atomic_load_explicit(&pool->workers[i].cpu, memory_order_relaxed) == cpu) {
            return true;
        }
    }
    return false;
}

/* Wake up to n sleeping workers, unless that would only take the core from us. */
static void wake_workers(struct pool *pool, uint32_t n)
{
    uint64_t now = now_ns();
    if (now - pool->last_wake_ns < SHARED_WAKE_NS && beside_worker(pool)) {
        return;
    }
    pool->last_wake_ns = now;
    atomic_fetch_add(&pool->wakes, 1);
    futex_wake(&pool->wakes, n);
}

/* Make a job current and wake as many sleepers as it can use. */
static void publish(struct pool *pool, uint32_t n_items, uint32_t n_wanted)
{
    pool->serial++;
    atomic_store_explicit(&pool->caller_cpu, sched_getcpu(), memory_order_relaxed);
    atomic_store(&pool->ticket,
                 (uint64_t)pool->serial << 2 * ITEM_BITS | (uint64_t)n_items << ITEM_BITS);
    if (atomic_load(&pool->n_sleeping)) {
        wake_workers(pool, n_wanted);
    }
}

static void wait_done(struct pool *pool, uint32_t n_items)
{
    uint64_t start = now_ns();
    do {
        for (int i = 0; i < SPINS_A_CHECK; i++) {
            if (atomic_load(&pool->done) == n_items) {
                return;
            }
            cpu_pause();
        }
    } while (now_ns() - start < SPIN_NS && !beside_worker(pool));

    atomic_store(&pool->caller_sleeps, 1);
    for (;;) {
        uint32_t done = atomic_load(&pool->done);
        if (done == n_items) {
            break;
        }
        futex_wait(&pool->done, done);
    }
    atomic_store(&pool->caller_sleeps, 0);
}

void pool_run(struct pool *pool, pool_fn fn, void *arg, uint32_t n_items)
{
    assert(n_items <= POOL_MAX_ITEMS);
    if (n_items <= 1 || pool->n_threads == 1) {
        for (uint32_t i = 0; i < n_items; i++) {
            fn(arg, i, 0);
        }
        return;
    }
    pool->fn = fn;
    pool->arg = arg;
    atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
    publish(pool, n_items, n_items - 1);
    run_items(pool, 0);
    wait_done(pool, n_items);
}

/* Start the workers with every signal blocked: signals are the program's business, not ours. */
static int start_workers(struct pool *pool)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = 0;
    for (uint32_t i = 0; i + 1 < pool->n_threads && r == 0; i++) {
        struct worker *worker = &pool->workers[i];
        worker->pool = pool;
        worker->index = i + 1;
        atomic_init(&worker->cpu, -1);
        r = -pthread_create(&worker->thread, NULL, worker_main, worker);
        if (r == 0) {
            pthread_setname_np(worker->thread, "gtt-cpu");
            pool->n_started++;
        }
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}

int pool_create(uint32_t n_threads, struct err *err, struct pool **ret)
{
    struct pool *pool = aligned_alloc(CACHE_LINE, sizeof *pool);
    if (!pool) {
        return err_set(err, -ENOMEM, "thread pool: out of memory");
    }
    memset(pool, 0, sizeof *pool);
    pool->n_threads = n_threads ? n_threads : parallel_cores();
    pool->workers = aligned_alloc(CACHE_LINE, pool->n_threads * sizeof *pool->workers);
    if (!pool->workers) {
        free(pool);
        return err_set(err, -ENOMEM, "thread pool: no memory for %u threads", n_threads);
    }
    int r = start_workers(pool);
    if (r < 0) {
        err_set(err, r, "thread pool: cannot start thread %u of %u: %s", pool->n_started + 2,
                pool->n_threads, strerror(-r));
        pool_destroy(pool);
        return r;
    }
    *ret = pool;
    return 0;
}

void pool_destroy(struct pool *pool)
{
    if (!pool) {
        return;
    }
    pool->last_wake_ns = 0; /* this one must come through */
    publish(pool, STOP_ITEMS, pool->n_threads);
    for (uint32_t i = 0; i < pool->n_started; i++) {
        pthread_join(pool->workers[i].thread, NULL);
    }
    free(pool->workers);
    free(pool);
}

uint32_t pool_n_threads(const struct pool *pool)
{
    return pool->n_threads;
}
