/* SPDX-License-Identifier: MIT */
/*
 * What doctor has to say, as data: what is, what it means, what to do. Each topic is one file with
 * one function that judges facts and adds findings; ids are stable, texts are not.
 */
#ifndef DOCTOR_FINDING_H
#define DOCTOR_FINDING_H

#include "facts.h"
#include "plan.h"

#define FINDINGS_MAX      48
#define FINDING_TEXT_SIZE 384

enum level {
    LEVEL_OK,
    LEVEL_NOTE, /* could be better */
    LEVEL_WARN, /* will hurt some day */
    LEVEL_BAD,  /* does not work like this */
};

struct finding {
    const char *id;
    enum level level;
    char is[FINDING_TEXT_SIZE];
    char means[FINDING_TEXT_SIZE]; /* may be empty */
    char todo[FINDING_TEXT_SIZE];  /* the same */
    bool fixable;                  /* `doctor --fix` does it */
};

struct findings {
    struct finding list[FINDINGS_MAX];
    size_t n;
};

/* Never NULL: past FINDINGS_MAX the last one is overwritten. */
struct finding *finding_add(struct findings *findings, const char *id, enum level level,
                            const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void finding_means(struct finding *finding, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void finding_todo(struct finding *finding, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
const char *level_text(enum level level);

/* All topics, in the order in which people read them. */
void findings_make(struct findings *findings, const struct facts *facts, const struct plan *plan);

void topic_memory(struct findings *findings, const struct facts *facts);
void topic_gtt(struct findings *findings, const struct facts *facts, const struct plan *plan);
void topic_access(struct findings *findings, const struct facts *facts);
void topic_npu(struct findings *findings, const struct facts *facts);
void topic_iommu(struct findings *findings, const struct facts *facts);
void topic_memlock(struct findings *findings, const struct facts *facts, const struct plan *plan);
void topic_udmabuf(struct findings *findings, const struct facts *facts, const struct plan *plan);
void topic_sleep(struct findings *findings, const struct facts *facts);
void topic_pressure(struct findings *findings, const struct facts *facts);

#endif
