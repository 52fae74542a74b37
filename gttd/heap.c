/* SPDX-License-Identifier: MIT */
/* The choice of a heap: see heap.h. */
#include "heap.h"

#include <errno.h>
#include <string.h>

#include "gttd_util.h"
#include "log.h"

static int try_open(struct heap *heap, const struct heap_ops *ops, struct reason *why)
{
    *heap = (struct heap){.ops = ops, .device_fd = -1};
    return ops->open(heap, why);
}

static int open_auto(struct heap *heap, struct reason *why)
{
    if (try_open(heap, &heap_udmabuf, why) == 0) {
        return 0;
    }
    log_line(LOG_NOTICE, "no dma-bufs: %s; using memfd, which GPUs cannot import", why->text);
    return try_open(heap, &heap_memfd, why);
}

static const struct heap_ops *const heaps[] = {&heap_udmabuf, &heap_memfd};

bool heap_choice_exists(const char *choice)
{
    for (size_t i = 0; i < ARRAY_SIZE(heaps); i++) {
        if (!strcmp(choice, heaps[i]->name)) {
            return true;
        }
    }
    return !strcmp(choice, "auto") || !strcmp(choice, "amdgpu");
}

int heap_open(struct heap *heap, const char *choice, struct reason *why)
{
    if (!strcmp(choice, "auto")) {
        return open_auto(heap, why);
    }
    for (size_t i = 0; i < ARRAY_SIZE(heaps); i++) {
        if (!strcmp(choice, heaps[i]->name)) {
            return try_open(heap, heaps[i], why);
        }
    }
    return reason_set(why, -EOPNOTSUPP, "the %s heap is not built into this gttd yet", choice);
}

void heap_close(struct heap *heap)
{
    if (heap->ops) {
        heap->ops->close(heap);
        heap->ops = NULL;
    }
}
