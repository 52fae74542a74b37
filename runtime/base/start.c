/* SPDX-License-Identifier: MIT */
/* The steps of a start: see start.h. */
#include "start.h"

#include "clock.h"

void start_done(struct start *start, enum start_step step)
{
    if (start && start->done_ns[step] == 0) {
        start->done_ns[step] = now_ns();
    }
}

const char *start_step_text(enum start_step step)
{
    static const char *const text[] = {
        [START_BEGUN] = "begun",       [START_TEXT] = "text",   [START_INSTANCE] = "instance",
        [START_DEVICE] = "device",     [START_POOL] = "pool",   [START_PIPELINES] = "pipelines",
        [START_WEIGHTS] = "weights",   [START_TUNED] = "tuned", [START_STATE] = "state",
        [START_RECORDED] = "recorded",
    };
    return text[step];
}
