/* SPDX-License-Identifier: MIT */
/*
 * /v1/chat/completions: from a complete body to a whole or a streamed reply. Watches the client's
 * socket while the engine works: who leaves takes the request along.
 */
#ifndef HTTP_COMPLETION_H
#define HTTP_COMPLETION_H

#include "call.h"

/* Waits for the answer unless it is streamed. */
enum MHD_Result completion_answer(struct call *call);

#endif
