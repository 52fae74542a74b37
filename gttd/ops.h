/* SPDX-License-Identifier: MIT */
/* The operations: from a checked message to the pool, and from the pool to a reply. */
#ifndef GTTD_OPS_H
#define GTTD_OPS_H

#include "client.h"
#include "pool.h"

/* Do what a message that decoded well asks for; kills a client that breaks the order of things. */
void ops_handle(struct client *client, const union gttd_msg *msg);

/* pool::answer */
void ops_answer(void *data, const struct pending *pending, int status, enum gttd_role role,
                const struct reason *why);

#endif
