/* SPDX-License-Identifier: MIT */
/* A bounded text buffer between two threads: see pipe.h. */
#include "pipe.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* eventfd's counter cannot overflow here: it is set only while it is clear. */
static void wake(struct pipe *pipe)
{
    eventfd_write(pipe->fd, 1);
}

int pipe_init(struct pipe *pipe, size_t max_bytes)
{
    *pipe = (struct pipe){.max_bytes = max_bytes};
    pipe->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pipe->fd < 0) {
        return -errno;
    }
    pthread_mutex_init(&pipe->lock, NULL);
    return 0;
}

void pipe_finish(struct pipe *pipe)
{
    pthread_mutex_destroy(&pipe->lock);
    close(pipe->fd);
    free(pipe->text);
}

static int reserve(struct pipe *pipe, size_t size)
{
    if (size > pipe->max_bytes - pipe->size) {
        return -ENOBUFS;
    }
    if (pipe->size + size <= pipe->capacity) {
        return 0;
    }
    size_t capacity = pipe->capacity ? pipe->capacity : 64;
    while (capacity < pipe->size + size) {
        capacity *= 2;
    }
    char *text = realloc(pipe->text, capacity);
    if (!text) {
        return -ENOMEM;
    }
    pipe->text = text;
    pipe->capacity = capacity;
    return 0;
}

int pipe_write(struct pipe *pipe, const char *text, size_t size)
{
    pthread_mutex_lock(&pipe->lock);
    int r = reserve(pipe, size);
    if (r == 0 && size > 0) {
        memcpy(pipe->text + pipe->size, text, size);
        if (pipe->size == 0) {
            wake(pipe);
        }
        pipe->size += size;
    }
    pthread_mutex_unlock(&pipe->lock);
    return r;
}

void pipe_close(struct pipe *pipe)
{
    pthread_mutex_lock(&pipe->lock);
    pipe->closed = true;
    wake(pipe);
    pthread_mutex_unlock(&pipe->lock);
}

void pipe_take(struct pipe *pipe, char **ret_text, size_t *ret_size, bool *ret_closed)
{
    pthread_mutex_lock(&pipe->lock);
    *ret_text = pipe->size ? pipe->text : NULL;
    *ret_size = pipe->size;
    *ret_closed = pipe->closed;
    if (pipe->size) {
        pipe->text = NULL;
        pipe->size = pipe->capacity = 0;
    }
    if (!pipe->closed) {
        eventfd_t count;
        eventfd_read(pipe->fd, &count);
    }
    pthread_mutex_unlock(&pipe->lock);
}
