/* SPDX-License-Identifier: MIT */
/* Hibernation, which wants to write GTT memory to swap. */
#include "finding.h"
#include "size.h"

void topic_sleep(struct findings *findings, const struct facts *facts)
{
    const struct gpu_facts *gpu = facts_gpu(facts);
    if (!gpu) {
        return;
    }
    if (!facts->can_hibernate || !facts->has_resume || !facts->swap_bytes) {
        finding_add(findings, "hibernation", LEVEL_OK, "Hibernation: not set up");
        return;
    }
    uint64_t gtt = plan_next_gtt_bytes(facts);
    bool small = facts->swap_bytes < facts->ram_bytes;
    struct finding *f =
        finding_add(findings, "hibernation", small ? LEVEL_WARN : LEVEL_NOTE,
                    "Hibernation: set up, with %s of swap", SIZE_TEXT(facts->swap_bytes));
    finding_means(f,
                  "Hibernating first copies GTT memory that is not pinned, up to %s, into RAM "
                  "and swap, and then writes the RAM.%s",
                  SIZE_TEXT(gtt), small ? " A full pool does not fit there." : "");
    finding_todo(f, "Before hibernating give the pool back: systemctl stop gttd.socket gttd, "
                    "systemctl clean --what=fdstore gttd. Suspending to RAM moves nothing.");
}
