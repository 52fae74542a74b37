/* SPDX-License-Identifier: MIT */
/* The thread that closes what nobody wants: see unwanted.h. */
#include "unwanted.h"

#include <time.h>
#include <unistd.h>

#define STOP_WAIT_S 1

static void *unwanted_main(void *data)
{
    struct unwanted *unwanted = data;
    pthread_mutex_lock(&unwanted->lock);
    for (;;) {
        if (unwanted->n) {
            int fd = unwanted->fds[unwanted->first];
            pthread_mutex_unlock(&unwanted->lock);
            close(fd);
            pthread_mutex_lock(&unwanted->lock);
            unwanted->first = (unwanted->first + 1) % UNWANTED_MAX;
            unwanted->n--;
        } else if (unwanted->stop) {
            break;
        } else {
            pthread_cond_wait(&unwanted->wake, &unwanted->lock);
        }
    }
    pthread_mutex_unlock(&unwanted->lock);
    return NULL;
}

int unwanted_start(struct unwanted *unwanted)
{
    *unwanted = (struct unwanted){0};
    pthread_mutex_init(&unwanted->lock, NULL);
    pthread_cond_init(&unwanted->wake, NULL);
    int r = -pthread_create(&unwanted->thread, NULL, unwanted_main, unwanted);
    unwanted->started = r == 0;
    return r;
}

void unwanted_stop(struct unwanted *unwanted)
{
    struct timespec deadline;
    if (!unwanted->started) {
        return;
    }
    pthread_mutex_lock(&unwanted->lock);
    unwanted->stop = true;
    pthread_cond_signal(&unwanted->wake);
    pthread_mutex_unlock(&unwanted->lock);
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += STOP_WAIT_S;
    if (pthread_timedjoin_np(unwanted->thread, NULL, &deadline) == 0) {
        pthread_cond_destroy(&unwanted->wake);
        pthread_mutex_destroy(&unwanted->lock);
        unwanted->started = false;
    }
}

bool unwanted_has_room(struct unwanted *unwanted)
{
    pthread_mutex_lock(&unwanted->lock);
    bool room = unwanted->n < UNWANTED_MAX;
    pthread_mutex_unlock(&unwanted->lock);
    return room;
}

void unwanted_close(struct unwanted *unwanted, int fd_consume)
{
    if (fd_consume < 0) {
        return;
    }
    pthread_mutex_lock(&unwanted->lock);
    unwanted->fds[(unwanted->first + unwanted->n++) % UNWANTED_MAX] = fd_consume;
    pthread_cond_signal(&unwanted->wake);
    pthread_mutex_unlock(&unwanted->lock);
}
