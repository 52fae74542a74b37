/* SPDX-License-Identifier: MIT */
/* Pressure stall information, by which gttd sees that memory gets tight. */
#include "finding.h"

void topic_pressure(struct findings *findings, const struct facts *facts)
{
    if (facts->has_psi) {
        finding_add(findings, "psi", LEVEL_OK, "Memory pressure (PSI): there");
        return;
    }
    struct finding *f =
        finding_add(findings, "psi", LEVEL_NOTE, "Memory pressure (PSI): the kernel does not say");
    finding_means(f, "gttd does not see others run short of memory, and evicts only when it is "
                     "asked for more itself.");
    finding_todo(f, "Add psi=1 to the kernel command line.");
}
