/* SPDX-License-Identifier: MIT */
/* Deadlines of open connections: see conns.h. */
#include "conns.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

struct conn {
    struct conn *prev, *next; /* conns::first */
    int fd;
    bool busy;
    int64_t deadline_ms; /* when the request must be complete; ignored while busy */
};

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void conns_init(struct conns *conns, uint32_t receive_timeout_ms)
{
    *conns = (struct conns){.receive_timeout_ms = receive_timeout_ms};
    pthread_mutex_init(&conns->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&conns->idle, &attr);
    pthread_condattr_destroy(&attr);
}

void conns_finish(struct conns *conns)
{
    pthread_cond_destroy(&conns->idle);
    pthread_mutex_destroy(&conns->lock);
}

struct conn *conns_add(struct conns *conns, int fd)
{
    struct conn *conn = calloc(1, sizeof *conn);
    if (!conn) {
        return NULL;
    }
    conn->fd = fd;
    conn->deadline_ms = now_ms() + conns->receive_timeout_ms;
    pthread_mutex_lock(&conns->lock);
    conn->next = conns->first;
    if (conn->next) {
        conn->next->prev = conn;
    }
    conns->first = conn;
    pthread_mutex_unlock(&conns->lock);
    return conn;
}

static void set_busy(struct conns *conns, struct conn *conn, bool busy)
{
    if (busy == conn->busy) {
        return;
    }
    conn->busy = busy;
    conn->deadline_ms = now_ms() + conns->receive_timeout_ms;
    conns->n_busy += busy ? 1 : -1;
    if (conns->n_busy == 0) {
        pthread_cond_broadcast(&conns->idle);
    }
}

void conns_set_busy(struct conns *conns, struct conn *conn, bool busy)
{
    pthread_mutex_lock(&conns->lock);
    set_busy(conns, conn, busy);
    pthread_mutex_unlock(&conns->lock);
}

void conns_remove(struct conns *conns, struct conn *conn)
{
    if (!conn) {
        return;
    }
    pthread_mutex_lock(&conns->lock);
    set_busy(conns, conn, false);
    *(conn->prev ? &conn->prev->next : &conns->first) = conn->next;
    if (conn->next) {
        conn->next->prev = conn->prev;
    }
    pthread_mutex_unlock(&conns->lock);
    free(conn);
}

void conns_reap(struct conns *conns)
{
    int64_t now = now_ms();
    pthread_mutex_lock(&conns->lock);
    for (struct conn *conn = conns->first; conn; conn = conn->next) {
        if (!conn->busy && conn->deadline_ms <= now) {
            shutdown(conn->fd, SHUT_RDWR);
        }
    }
    pthread_mutex_unlock(&conns->lock);
}

int conns_wait_idle(struct conns *conns, uint32_t timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    int r = 0;
    pthread_mutex_lock(&conns->lock);
    while (conns->n_busy > 0 && r == 0) {
        r = -pthread_cond_timedwait(&conns->idle, &conns->lock, &until);
    }
    pthread_mutex_unlock(&conns->lock);
    return r;
}
