/* SPDX-License-Identifier: MIT */
/* The IOMMU, which the NPU needs and the GPU of an APU does not. */
#include <string.h>

#include "finding.h"
#include "text.h"

/* The word on the command line that turns it off, or NULL. */
static const char *off_word(const char *cmdline)
{
    static const char *const words[] = {"amd_iommu=off", "iommu=off"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (text_has_word(cmdline, words[i])) {
            return words[i];
        }
    }
    return NULL;
}

static bool is_passthrough(const char *cmdline)
{
    char value[FACTS_WORD_SIZE];
    return (text_option(cmdline, "iommu", value, sizeof value) && strcmp(value, "pt") == 0) ||
           (text_option(cmdline, "iommu.passthrough", value, sizeof value) &&
            strcmp(value, "1") == 0);
}

void topic_iommu(struct findings *findings, const struct facts *facts)
{
    const char *off = off_word(facts->cmdline);
    bool has_npu = facts->npu.there;
    struct finding *f;
    if (off) {
        f = finding_add(findings, "iommu", has_npu ? LEVEL_BAD : LEVEL_OK, "IOMMU: off, by %s",
                        off);
        if (has_npu) {
            finding_means(f, "The NPU's driver shares address spaces with programs through it and "
                             "cannot be opened without; nor can gttd pin memory through it.");
            finding_todo(f, "Remove %s from the kernel command line.", off);
        }
    } else if (!facts->has_iommu) {
        if (has_npu) {
            f = finding_add(findings, "iommu", LEVEL_WARN, "IOMMU: none in use");
            finding_means(f, "The NPU's driver needs it.");
            finding_todo(f, "Turn it on in the firmware's setup (IOMMU, AMD-Vi).");
        }
    } else if (is_passthrough(facts->cmdline)) {
        f = finding_add(findings, "iommu", has_npu ? LEVEL_NOTE : LEVEL_OK,
                        "IOMMU: on, passing through (iommu=pt)");
        if (has_npu) {
            finding_means(f, "NPU drivers from before June 2026 cannot be opened in this mode "
                             "(dmesg: SVA bind device failed); later ones can.");
            finding_todo(f, "If the NPU does not open, remove iommu=pt from the kernel command "
                            "line.");
        }
    } else {
        finding_add(findings, "iommu", LEVEL_OK, "IOMMU: on");
    }
}
