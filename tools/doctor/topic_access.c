/* SPDX-License-Identifier: MIT */
/* Who may open the GPU and the NPU: the user, and gttd's own. */
#include <string.h>

#include "finding.h"

static void judge_node(struct findings *findings, const struct facts *facts, const char *id,
                       const char *what, const struct node_facts *node)
{
    if (!node->there) {
        struct finding *f =
            finding_add(findings, id, LEVEL_BAD, "%s: there is no %s", what, node->path);
        finding_means(f, "The driver has the device, but nobody can open it: in a container, pass "
                         "it in.");
        return;
    }
    if (node->usable) {
        finding_add(findings, id, LEVEL_OK, "%s: %s may open %s", what, facts->who.name,
                    node->path);
        return;
    }
    struct finding *f = finding_add(findings, id, node->usable_after_login ? LEVEL_WARN : LEVEL_BAD,
                                    "%s: %s may not open %s (mode %04o, group %s)", what,
                                    facts->who.name, node->path, node->mode, node->group);
    if (node->usable_after_login) {
        finding_means(f, "The group database has them in the group, this session is from before.");
        finding_todo(f, "Log out and in again.");
    } else if (strcmp(node->group, "root") == 0 || (node->mode & 060) != 060) {
        finding_todo(f, "See udev's rules: the node should have mode 0660 and group render.");
    } else {
        finding_todo(f, "sudo usermod -aG %s %s, then log out and in again.", node->group,
                     facts->who.name);
    }
}

static void judge_service(struct findings *findings, const struct facts *facts,
                          const struct gpu_facts *gpu)
{
    if (!facts->has_service_user || !gpu->node.there) {
        return;
    }
    if (gpu->node.service_usable) {
        finding_add(findings, "access-service", LEVEL_OK, "Service: user gttd may open %s",
                    gpu->node.path);
        return;
    }
    struct finding *f = finding_add(findings, "access-service", LEVEL_BAD,
                                    "Service: user gttd may not open %s (group %s)", gpu->node.path,
                                    gpu->node.group);
    finding_means(f, "The system's gttd has no GPU's memory to give.");
    finding_todo(f, "sudo usermod -aG %s gttd, then restart gttd.service.", gpu->node.group);
}

void topic_access(struct findings *findings, const struct facts *facts)
{
    const struct gpu_facts *gpu = facts_gpu(facts);
    if (gpu) {
        judge_node(findings, facts, "access-gpu", "GPU", &gpu->node);
        judge_service(findings, facts, gpu);
    }
    if (facts->npu.node.path[0]) {
        judge_node(findings, facts, "access-npu", "NPU", &facts->npu.node);
    }
}
