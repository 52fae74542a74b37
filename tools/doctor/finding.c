/* SPDX-License-Identifier: MIT */
/* Lists of findings: see finding.h. */
#include "finding.h"

#include <stdarg.h>
#include <stdio.h>

struct finding *finding_add(struct findings *findings, const char *id, enum level level,
                            const char *fmt, ...)
{
    if (findings->n < FINDINGS_MAX) {
        findings->n++;
    }
    struct finding *finding = &findings->list[findings->n - 1];
    *finding = (struct finding){.id = id, .level = level};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(finding->is, sizeof finding->is, fmt, ap);
    va_end(ap);
    return finding;
}

void finding_means(struct finding *finding, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(finding->means, sizeof finding->means, fmt, ap);
    va_end(ap);
}

void finding_todo(struct finding *finding, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(finding->todo, sizeof finding->todo, fmt, ap);
    va_end(ap);
}

const char *level_text(enum level level)
{
    static const char *const texts[] = {"ok", "note", "warn", "bad"};
    return texts[level];
}

static void add_odd(struct findings *findings, const struct facts *facts)
{
    for (size_t i = 0; i < facts->n_odd; i++) {
        struct finding *f = finding_add(findings, "odd-file", LEVEL_NOTE, "%s", facts->odd[i]);
        finding_means(f, "It was not used.");
    }
}

void findings_make(struct findings *findings, const struct facts *facts, const struct plan *plan)
{
    findings->n = 0;
    topic_memory(findings, facts);
    topic_gtt(findings, facts, plan);
    topic_access(findings, facts);
    topic_npu(findings, facts);
    topic_iommu(findings, facts);
    topic_memlock(findings, facts, plan);
    topic_udmabuf(findings, facts, plan);
    topic_sleep(findings, facts);
    topic_pressure(findings, facts);
    add_odd(findings, facts);
}
