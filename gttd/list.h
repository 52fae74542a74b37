/* SPDX-License-Identifier: MIT */
/*
 * Doubly linked lists through a field of the listed struct. A link that is in no list points to
 * itself, so that removing it twice does no harm.
 */
#ifndef GTTD_LIST_H
#define GTTD_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *prev, *next;
};

#define list_entry(link, type, field) ((type *)(void *)((char *)(link)-offsetof(type, field)))

/* The entry under the cursor may be removed from the list and freed. */
#define list_for_each(pos, head)                                                  \
    for (struct list *pos = (head)->next, *pos##_next = pos->next; pos != (head); \
         pos = pos##_next, pos##_next = pos->next)

static inline void list_init(struct list *head)
{
    head->prev = head->next = head;
}

static inline bool list_empty(const struct list *head)
{
    return head->next == head;
}

static inline void list_append(struct list *head, struct list *link)
{
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

static inline void list_remove(struct list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

#endif
