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
    int r = ops->open(heap, choice, why);
    if (r < 0) {
        heap->ops = NULL;
    }
    return r;
}

/* Best first. */
static const struct heap_ops *const heaps[] = {&heap_amdgpu, &heap_udmabuf, &heap_memfd};

/* Something was named that only the amdgpu heap has. */
static bool names_device(const struct heap_choice *choice)
{
    return choice->device ||
           (choice->anchor && strcmp(choice->anchor, "auto") != 0 && strcmp(choice->anchor, "off"));
}

static int open_auto(struct heap *heap, const struct heap_choice *choice, struct reason *why)
{
    int r = -ENODEV;
    for (size_t i = 0; i < ARRAY_SIZE(heaps) && r < 0; i++) {
        r = try_open(heap, heaps[i], choice, why);
        if (r < 0) {
            log_line(LOG_NOTICE, "no %s heap: %s", heaps[i]->name, why->text);
        }
    }
    if (r == 0 && !heap->ops->is_dmabuf) {
        log_line(LOG_NOTICE, "memory comes from %s, which GPUs cannot import", heap->ops->name);
    }
    return r;
}

bool heap_choice_exists(const char *heap)
{
    for (size_t i = 0; i < ARRAY_SIZE(heaps); i++) {
        if (!strcmp(heap, heaps[i]->name)) {
            return true;
        }
    }
    return !strcmp(heap, "auto");
}

int heap_open(struct heap *heap, const struct heap_choice *choice, struct reason *why)
{
    bool is_auto = !strcmp(choice->heap, "auto");
    if (is_auto && !names_device(choice)) {
        return open_auto(heap, choice, why);
    }
    for (size_t i = 0; i < ARRAY_SIZE(heaps); i++) {
        const struct heap_ops *ops = heaps[i];
        if (is_auto || !strcmp(choice->heap, ops->name)) {
            return names_device(choice) && ops != &heap_amdgpu
                       ? reason_set(why, -EINVAL, "the %s heap has no device and no anchor",
                                    ops->name)
                       : try_open(heap, ops, choice, why);
        }
    }
    return reason_set(why, -EINVAL, "there is no %s heap", choice->heap);
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
