/* SPDX-License-Identifier: MIT */
/* The choice of a heap: see heap.h. */
#include "heap.h"

#include <errno.h>
#include <string.h>

#include "gttd_util.h"
#include "log.h"

static int try_open(struct heap *heap, const struct heap_ops *ops, const struct heap_choice *choice,
                    struct reason *why)
{
    *heap = (struct heap){.ops = ops, .device_fd = -1};
    return ops->open(heap, choice, why);
}

static int open_auto(struct heap *heap, const struct heap_choice *choice, struct reason *why)
{
    if (choice->device) {
        return reason_set(why, -EOPNOTSUPP, "no heap of this gttd has a device to choose yet");
    }
    if (try_open(heap, &heap_udmabuf, choice, why) == 0) {
        return 0;
    }
    log_line(LOG_NOTICE, "no dma-bufs: %s; using memfd, which GPUs cannot import", why->text);
    return try_open(heap, &heap_memfd, choice, why);
}

static const struct heap_ops *const heaps[] = {&heap_udmabuf, &heap_memfd};

bool heap_choice_exists(const char *heap)
{
    for (size_t i = 0; i < ARRAY_SIZE(heaps); i++) {
        if (!strcmp(heap, heaps[i]->name)) {
            return true;
        }
    }
    return !strcmp(heap, "auto") || !strcmp(heap, "amdgpu");
}

int heap_open(struct heap *heap, const struct heap_choice *choice, struct reason *why)
{
    if (!strcmp(choice->heap, "auto")) {
        return open_auto(heap, choice, why);
    }
    for (size_t i = 0; i < ARRAY_SIZE(heaps); i++) {
        if (!strcmp(choice->heap, heaps[i]->name)) {
            return choice->device ? reason_set(why, -EINVAL, "the %s heap has no devices to choose",
                                               choice->heap)
                                  : try_open(heap, heaps[i], choice, why);
        }
    }
    return reason_set(why, -EOPNOTSUPP, "the %s heap is not built into this gttd yet",
                      choice->heap);
}

struct heap_room heap_room(struct heap *heap)
{
    struct heap_room room = {0};
    if (heap->ops->room && heap->ops->room(heap, &room) < 0) {
        room = (struct heap_room){0};
    }
    return room;
}

void heap_close(struct heap *heap)
{
    if (heap->ops) {
        heap->ops->close(heap);
        heap->ops = NULL;
    }
}
