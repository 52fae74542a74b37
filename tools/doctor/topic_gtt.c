/* SPDX-License-Identifier: MIT */
/* How much of the RAM the GPU may take: GTT, ttm.pages_limit, amdgpu.gttsize, and who sets them. */
#include <inttypes.h>
#include <string.h>

#include "finding.h"
#include "size.h"

#define GIB (1ull << 30)

static const char *ttm_name(const struct facts *facts)
{
    return facts->has_amdttm ? "amdttm" : "ttm";
}

/* Where to change it, if it is not doctor's to. */
static void advise(struct finding *f, const struct facts *facts, const struct plan *plan,
                   uint64_t best)
{
    const char *ttm = ttm_name(facts);
    const struct param_facts *set = facts->gttsize.is_set ? &facts->gttsize : &facts->pages_limit;
    const struct plan_file *file = plan_find(plan, OWN_MODPROBE_FILE);
    if (file && file->state == PLAN_WRITE) {
        finding_todo(f, "`gttctl doctor --fix` sets %s.pages_limit=%" PRIu64 " for the next start.",
                     ttm, best / PAGE_BYTES);
        f->fixable = true;
    } else if (file && file->state == PLAN_FOREIGN) {
        finding_todo(f,
                     "Add `options %s pages_limit=%" PRIu64 "` to /" OWN_MODPROBE_FILE
                     ", which doctor did not write, and update the initramfs.",
                     ttm, best / PAGE_BYTES);
    } else if (set->is_set) {
        finding_todo(f, "It is set in %s. To have more, set %s.pages_limit=%" PRIu64 " there%s.",
                     set->set_in, ttm, best / PAGE_BYTES,
                     plan_needs_gttsize(facts) ? ", and amdgpu.gttsize (in MiB) to the same size"
                     : facts->gttsize.is_set   ? ", and no gttsize"
                                               : "");
    } else {
        finding_todo(f, "Add %s.pages_limit=%" PRIu64 " to the kernel command line.", ttm,
                     best / PAGE_BYTES);
    }
}

static void judge_total(struct findings *findings, const struct facts *facts,
                        const struct gpu_facts *gpu, const struct plan *plan)
{
    uint64_t best = plan_gtt_bytes(facts->ram_bytes), next = plan_next_gtt_bytes(facts);
    uint64_t enough = best - best / 20;
    struct finding *f = finding_add(findings, "gtt-total", LEVEL_OK,
                                    "GTT: the GPU may take %s of the %s of RAM, %s are in use",
                                    SIZE_TEXT(gpu->gtt_bytes), SIZE_TEXT(facts->ram_bytes),
                                    SIZE_TEXT(gpu->gtt_used_bytes));
    /* more than the kernel's own half, and less than gttd's default floor is left */
    if (facts->ram_bytes && gpu->gtt_bytes > facts->ram_bytes / 16 * 9 &&
        gpu->gtt_bytes + 2 * GIB > facts->ram_bytes) {
        f->level = LEVEL_WARN;
        finding_means(f, "That leaves next to nothing for everything else, and the OOM killer does "
                         "not see GTT. gttd's floor still refuses what would go too far.");
        if (best) {
            advise(f, facts, plan, best);
        }
    } else if (gpu->kind != GPU_APU || !best || gpu->gtt_bytes >= enough) {
        finding_means(f, "GTT is part of the RAM, not in addition to it.");
    } else if (next >= enough) {
        f->level = LEVEL_NOTE;
        finding_means(f, "It will be %s at the next start: that is set in %s.", SIZE_TEXT(next),
                      facts->gttsize.is_set ? facts->gttsize.set_in : facts->pages_limit.set_in);
        finding_todo(f, "Restart the machine. If it stays like this: the initramfs is older than "
                        "the setting.");
    } else {
        f->level = LEVEL_NOTE;
        finding_means(f,
                      "Models and caches beyond that do not fit. %s would leave %s to everything "
                      "else; GTT is taken only when it is used.",
                      SIZE_TEXT(best), SIZE_TEXT(facts->ram_bytes - best));
        advise(f, facts, plan, best);
    }
}

static void judge_pages_limit(struct findings *findings, const struct facts *facts,
                              const struct gpu_facts *gpu)
{
    const struct param_facts *p = &facts->pages_limit;
    if (!p->is_known || p->now < 0 || (uint64_t)p->now > (1ull << 52) / PAGE_BYTES) {
        return;
    }
    uint64_t limit = (uint64_t)p->now * PAGE_BYTES;
    struct finding *f =
        finding_add(findings, "pages-limit", LEVEL_OK, "%s.pages_limit: %" PRIi64 " pages, %s",
                    ttm_name(facts), p->now, SIZE_TEXT(limit));
    if (limit + 256 * PAGE_BYTES < gpu->gtt_bytes) {
        f->level = LEVEL_WARN;
        finding_means(f,
                      "Less than GTT's %s: beyond it the kernel copies GTT memory to swap to "
                      "make room, whole buffers at a time.",
                      SIZE_TEXT(gpu->gtt_bytes));
        finding_todo(f, "Set both to the same size.");
    } else if (p->is_set && plan_needs_gttsize(facts) && !facts->gttsize.is_set) {
        f->level = LEVEL_WARN;
        finding_means(f, "It is set in %s, but before Linux 6.12 it may not raise GTT by itself.",
                      p->set_in);
        finding_todo(f, "Set amdgpu.gttsize (in MiB) to the same size as well.");
    }
}

static void judge_gttsize(struct findings *findings, const struct facts *facts)
{
    const struct param_facts *p = &facts->gttsize;
    bool in_use = p->is_known && p->now > 0;
    if (!p->is_set && !in_use) {
        return;
    }
    struct finding *f = finding_add(findings, "gttsize", LEVEL_OK,
                                    "amdgpu.gttsize: %" PRIi64 " MiB%s%s", in_use ? p->now : p->set,
                                    p->is_set ? ", set in " : "", p->is_set ? p->set_in : "");
    if (plan_needs_gttsize(facts)) {
        finding_means(f, "This kernel needs it, and ttm.pages_limit as well, for more GTT.");
        return;
    }
    f->level = LEVEL_NOTE;
    finding_means(f, "It is deprecated: Linux 7 warns of it. It replaces ttm.pages_limit as the "
                     "size of GTT, and does not raise that limit.");
    finding_todo(f, "Remove it and set ttm.pages_limit, in pages of 4 KiB, instead.");
}

static void judge_page_pool(struct findings *findings, const struct facts *facts)
{
    const struct param_facts *p = &facts->page_pool_size;
    if (p->is_known && p->now >= 0 && (uint64_t)p->now < (1ull << 52) / PAGE_BYTES) {
        struct finding *f = finding_add(findings, "page-pool", LEVEL_OK, "%s.page_pool_size: %s",
                                        ttm_name(facts), SIZE_TEXT((uint64_t)p->now * PAGE_BYTES));
        finding_means(f, "How much freed write-combined memory the driver keeps for itself. gttd's "
                         "memory is cached unless a client asks otherwise: nothing to set.");
    }
}

static void judge_module(struct findings *findings, const struct facts *facts)
{
    if (facts->has_amdttm) {
        struct finding *f = finding_add(findings, "dkms", LEVEL_OK,
                                        "Driver: AMD's DKMS package (module amdttm, not ttm)");
        finding_means(f, "Its parameters are amdttm's: guides that set ttm.pages_limit change "
                         "nothing here.");
    } else if (facts->ttm_builtin) {
        struct finding *f =
            finding_add(findings, "ttm-builtin", LEVEL_OK, "Driver: ttm is part of the kernel");
        finding_means(f, "Files in modprobe.d do not reach it, only the kernel command line does.");
    }
}

void topic_gtt(struct findings *findings, const struct facts *facts, const struct plan *plan)
{
    const struct gpu_facts *gpu = facts_gpu(facts);
    if (!gpu) {
        return;
    }
    judge_module(findings, facts);
    if (gpu->gtt_bytes) {
        judge_total(findings, facts, gpu, plan);
        judge_pages_limit(findings, facts, gpu);
    } else {
        struct finding *f = finding_add(findings, "gtt-total", LEVEL_WARN,
                                        "GTT: the driver does not say how much there is");
        finding_means(f, "There is no mem_info_gtt_total for %s in sysfs.", gpu->node.path);
    }
    judge_gttsize(findings, facts);
    judge_page_pool(findings, facts);
}
