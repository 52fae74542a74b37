/* SPDX-License-Identifier: MIT */
/*
 * The CPU backend's thread pool: every item exactly once, results visible, idle means no CPU time,
 * and no collapse when other processes want the cores.
 */
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "pool.h"

enum { MAX_ITEMS = 1000 };

struct job {
    uint32_t n_threads;
    atomic_int threads_inside[8];
    int done[MAX_ITEMS]; /* plain: pool_run() must order these */
};

static void count_item(void *arg, uint32_t item, uint32_t thread)
{
    struct job *job = arg;
    CHECK(thread < job->n_threads);
    CHECK_EQ(atomic_fetch_add(&job->threads_inside[thread], 1), 0);
    job->done[item]++;
    atomic_fetch_sub(&job->threads_inside[thread], 1);
}

static struct pool *make_pool(uint32_t n_threads)
{
    struct err err;
    struct pool *pool;
    CHECK_EQ(pool_create(n_threads, &err, &pool), 0);
    return pool;
}

static void test_every_item_once(uint32_t n_threads)
{
    static struct job job;
    struct pool *pool = make_pool(n_threads);
    CHECK_EQ(pool_n_threads(pool), n_threads);
    job.n_threads = n_threads;
    for (uint32_t round = 0; round < 3000; round++) {
        uint32_t n = round % 7 == 0 ? round % MAX_ITEMS : round % 13;
        memset(job.done, 0, sizeof job.done);
        pool_run(pool, count_item, &job, n);
        for (uint32_t i = 0; i < MAX_ITEMS; i++) {
            CHECK_EQ(job.done[i], i < n);
        }
        if (round % 500 == 0) {
            usleep(2000); /* until the workers sleep */
        }
    }
    pool_destroy(pool);
}

static double seconds(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static void test_idle(void)
{
    static struct job job = {.n_threads = 4};
    struct pool *pool = make_pool(4);
    pool_run(pool, count_item, &job, 100);
    usleep(50000);
    double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    usleep(300000);
    CHECK(seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu < 0.01);
    pool_destroy(pool);
}

static void spin_item(void *arg, uint32_t item, uint32_t thread)
{
    (void)item;
    (void)thread;
    for (volatile int i = 0; i < *(int *)arg; i++) {
    }
}

/* Time of n small jobs on two threads. */
static double time_jobs(struct pool *pool, int n)
{
    int work = 2000; /* about a microsecond an item */
    double start = seconds(CLOCK_MONOTONIC);
    for (int i = 0; i < n; i++) {
        pool_run(pool, spin_item, &work, 16);
    }
    return seconds(CLOCK_MONOTONIC) - start;
}

/*
 * Two busy processes per core leave us a third of the CPU at best. Barriers that spin until every
 * thread has come fall to a hundredth there, as each waits for a descheduled one's next time slice
 * thousands of times. The limit is generous: other things run on a test machine.
 */
static void test_busy_machine(void)
{
    enum { N_BUSY = 4, N_JOBS = 4000 };
    pid_t pids[N_BUSY];
    struct pool *pool = make_pool(2);
    time_jobs(pool, 100);
    double quiet = time_jobs(pool, N_JOBS);
    for (int i = 0; i < N_BUSY; i++) {
        pids[i] = fork();
        CHECK(pids[i] >= 0);
        if (pids[i] == 0) {
            for (volatile int j = 0;; j++) {
            }
        }
    }
    double busy = time_jobs(pool, N_JOBS);
    for (int i = 0; i < N_BUSY; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    pool_destroy(pool);
    printf("%d jobs: %.0f ms alone, %.0f ms beside %d busy processes (%.1f times)\n", N_JOBS,
           quiet * 1e3, busy * 1e3, N_BUSY, busy / quiet);
    CHECK(busy / quiet < 20);
}

int main(void)
{
    test_every_item_once(1);
    test_every_item_once(2);
    test_every_item_once(5);
    test_idle();
    test_busy_machine();
    return 0;
}
