/* SPDX-License-Identifier: MIT */
/* RAM, and what of it the firmware has set aside as video memory. */
#include "finding.h"
#include "size.h"

#define GIB (1ull << 30)

static void judge_apu(struct findings *findings, const struct facts *facts,
                      const struct gpu_facts *gpu)
{
    bool large = gpu->vram_bytes > 8 * GIB;
    struct finding *f =
        finding_add(findings, "carve-out", large ? LEVEL_NOTE : LEVEL_OK,
                    "VRAM: %s, which the firmware has carved out for the GPU: the %s of RAM are "
                    "what is left",
                    SIZE_TEXT(gpu->vram_bytes), SIZE_TEXT(facts->ram_bytes));
    uint64_t gtt = gpu->gtt_bytes < facts->ram_bytes ? gpu->gtt_bytes : facts->ram_bytes;
    if (gtt) {
        finding_means(f,
                      "The GPU reaches %s of the %s there are: the carve-out, and of the RAM what "
                      "GTT may take. On an APU both are equally fast.",
                      SIZE_TEXT(gpu->vram_bytes + gtt),
                      SIZE_TEXT(gpu->vram_bytes + facts->ram_bytes));
    }
    if (large) {
        finding_todo(f, "gttd's pool is in the RAM: in the firmware's setup, make the carve-out "
                        "(UMA frame buffer, dedicated graphics memory) as small as it goes.");
    }
}

static void judge_card(struct findings *findings, const struct gpu_facts *gpu)
{
    struct finding *f = finding_add(findings, "vram", LEVEL_OK, "VRAM: %s on the graphics card",
                                    SIZE_TEXT(gpu->vram_bytes));
    finding_means(f, "What gttd holds is in the RAM (GTT): such a GPU reads it across PCI Express, "
                     "and gttrun copies weights to the card instead.");
}

static void judge_gpu(struct findings *findings, const struct facts *facts)
{
    const struct gpu_facts *gpu = facts_gpu(facts);
    if (!gpu) {
        struct finding *f =
            finding_add(findings, "gpu", LEVEL_NOTE,
                        facts->n_gpus ? "GPU: %s, but none with the amdgpu driver" : "GPU: none",
                        facts->n_gpus ? facts->gpus[0].driver : "");
        finding_means(f, "gttd works without, from /dev/udmabuf or plain shared memory. There is "
                         "no GTT to look after.");
        return;
    }
    finding_add(findings, "gpu", LEVEL_OK, "GPU: %s%s, %s", gpu->name,
                gpu->kind == GPU_APU        ? ", part of an APU"
                : gpu->kind == GPU_DISCRETE ? ", a graphics card"
                                            : "",
                gpu->node.path);
    if (gpu->vram_bytes && gpu->kind == GPU_APU) {
        judge_apu(findings, facts, gpu);
    } else if (gpu->vram_bytes && gpu->kind == GPU_DISCRETE) {
        judge_card(findings, gpu);
    } else if (gpu->vram_bytes) {
        finding_add(findings, "vram", LEVEL_OK, "VRAM: %s, on a card or carved out of the RAM",
                    SIZE_TEXT(gpu->vram_bytes));
    }
}

void topic_memory(struct findings *findings, const struct facts *facts)
{
    if (facts->kernel[0]) {
        finding_add(findings, "kernel", LEVEL_OK, "Linux %s%s%s", facts->kernel,
                    facts->distribution[0] ? ", " : "", facts->distribution);
    }
    if (facts->ram_bytes) {
        finding_add(findings, "ram", LEVEL_OK, "RAM: %s, of it %s free",
                    SIZE_TEXT(facts->ram_bytes), SIZE_TEXT(facts->available_bytes));
    } else {
        finding_add(findings, "ram", LEVEL_WARN, "RAM: /proc/meminfo does not say how much");
    }
    judge_gpu(findings, facts);
}
