/* SPDX-License-Identifier: MIT */
/* RLIMIT_MEMLOCK, which the NPU's library needs. GTT itself is not locked memory. */
#include "finding.h"
#include "size.h"

void topic_memlock(struct findings *findings, const struct facts *facts, const struct plan *plan)
{
    if (!facts->npu.there || !facts->memlock_known) {
        return;
    }
    if (facts->memlock_bytes == UINT64_MAX) {
        finding_add(findings, "memlock", LEVEL_OK, "Locked memory: no limit");
        return;
    }
    struct finding *f =
        finding_add(findings, "memlock", LEVEL_WARN, "Locked memory: %s may lock %s",
                    facts->who.name, SIZE_TEXT(facts->memlock_bytes));
    finding_means(f, "The NPU's library (XRT) locks what it maps, whole chunks of up to 2 GiB. "
                     "gttd and the GPU need no locked memory.");
    if (plan_writes(plan, OWN_LIMITS_FILE)) {
        finding_todo(f, "`gttctl doctor --fix` lifts the limit for group render, from the next "
                        "log-in on.");
        f->fixable = true;
    } else if (facts->memlock_unlimited_set) {
        f->level = LEVEL_NOTE;
        finding_todo(f, "The limit is lifted already, from the next log-in on.");
    } else {
        finding_todo(f, "/" OWN_LIMITS_FILE " lifts the limit for group render: be in it, and log "
                        "out and in again.");
    }
}
