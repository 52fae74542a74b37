/* SPDX-License-Identifier: MIT */
/* The NPU, and with it what can pin gttd's memory. */
#include <string.h>

#include "finding.h"

static void judge_npu(struct findings *findings, const struct facts *facts)
{
    const struct npu_facts *npu = &facts->npu;
    struct finding *f;
    if (strcmp(npu->driver, "amdxdna") == 0) {
        finding_add(findings, "npu", LEVEL_OK, "NPU: %s, driver amdxdna%s%s", npu->pci,
                    npu->fw_version[0] ? ", firmware " : "", npu->fw_version);
        return;
    }
    f = finding_add(findings, "npu", LEVEL_NOTE, "NPU: %s, without a driver", npu->pci);
    if (!facts->can_have_amdxdna) {
        finding_means(f, "This kernel has no amdxdna: Linux 6.14 and later do.");
        finding_todo(f, "Use a newer kernel (Debian: from backports) if you want to use the NPU.");
    } else if (!npu->has_firmware) {
        f->level = LEVEL_WARN;
        finding_means(f, "amdxdna is there, but there is no firmware for it in /%s.",
                      npu->firmware_dir);
        finding_todo(f, "Install a linux-firmware that has amdnpu/.");
    } else {
        f->level = LEVEL_WARN;
        finding_means(f, "amdxdna and firmware are there.");
        finding_todo(f, "sudo modprobe amdxdna; if that changes nothing, dmesg says why.");
    }
}

/* Static importers of dma-bufs pin them: amdxdna does, vgem did until Linux 6.16. */
static void judge_anchor(struct findings *findings, const struct facts *facts)
{
    bool vgem_pins =
        facts->kernel_major &&
        (facts->kernel_major < 6 || (facts->kernel_major == 6 && facts->kernel_minor < 17));
    if (facts->npu.node.there) {
        finding_add(findings, "anchor", LEVEL_OK, "Pinning: possible through %s",
                    facts->npu.node.path);
    } else if (vgem_pins && facts->has_vgem) {
        finding_add(findings, "anchor", LEVEL_OK, "Pinning: possible through vgem");
    } else {
        struct finding *f = finding_add(findings, "anchor", LEVEL_NOTE, "Pinning: nothing can pin");
        finding_means(f, "GTT memory is resident all the same: it is moved only if GTT or "
                         "ttm.pages_limit overflow, or on hibernation.");
        if (vgem_pins && facts->can_have_vgem) {
            finding_todo(f, "To have it pinned: load the module vgem (echo vgem | sudo tee "
                            "/etc/modules-load.d/vgem.conf).");
        }
    }
}

void topic_npu(struct findings *findings, const struct facts *facts)
{
    if (facts->npu.there) {
        judge_npu(findings, facts);
    }
    if (facts_gpu(facts)) {
        judge_anchor(findings, facts);
    }
}
