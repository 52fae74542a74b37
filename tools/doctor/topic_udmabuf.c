/* SPDX-License-Identifier: MIT */
/* /dev/udmabuf: dma-bufs without an AMD GPU. */
#include <inttypes.h>

#include "finding.h"

static void judge_limit(struct findings *findings, const struct facts *facts,
                        const struct plan *plan)
{
    if (!facts->udmabuf_limit_known || facts->udmabuf_limit_mb >= 2048) {
        return;
    }
    struct finding *f =
        finding_add(findings, "udmabuf-limit", LEVEL_NOTE,
                    "udmabuf: at most %" PRIi64 " MiB in one dma-buf", facts->udmabuf_limit_mb);
    finding_means(f, "gttd makes more and smaller chunks then.");
    if (plan_writes(plan, OWN_TMPFILES_FILE)) {
        finding_todo(f, "`gttctl doctor --fix` raises it to 2048.");
        f->fixable = true;
    } else {
        finding_todo(f, "Raise /sys/module/udmabuf/parameters/size_limit_mb to 2048.");
    }
}

void topic_udmabuf(struct findings *findings, const struct facts *facts, const struct plan *plan)
{
    const struct node_facts *node = &facts->udmabuf;
    struct finding *f;
    if (facts_gpu(facts)) {
        return; /* GTT is better */
    }
    if (!node->there) {
        f = finding_add(findings, "udmabuf", LEVEL_NOTE, "udmabuf: there is no /dev/udmabuf");
        finding_means(f, "gttd holds plain shared memory then: programs share it, but a GPU cannot "
                         "import it.");
        finding_todo(f, "Use a kernel with CONFIG_UDMABUF, or sudo modprobe udmabuf.");
        return;
    }
    if (node->usable) {
        finding_add(findings, "udmabuf", LEVEL_OK, "udmabuf: %s may open /dev/udmabuf",
                    facts->who.name);
    } else {
        f = finding_add(findings, "udmabuf", LEVEL_NOTE,
                        "udmabuf: %s may not open /dev/udmabuf (mode %04o, group %s)",
                        facts->who.name, node->mode, node->group);
        finding_means(f, "A gttd that this user starts holds plain shared memory. The system's "
                         "gttd has access of its own.");
        finding_todo(f,
                     node->usable_after_login ? "Log out and in again."
                                              : "sudo usermod -aG %s %s, then log out and in "
                                                "again; or use the system's gttd.",
                     node->group, facts->who.name);
    }
    judge_limit(findings, facts, plan);
}
