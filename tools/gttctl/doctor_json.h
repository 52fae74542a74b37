/* SPDX-License-Identifier: MIT */
/* doctor's results for machines. Names and meanings are stable; texts for people are not. */
#ifndef GTTCTL_DOCTOR_JSON_H
#define GTTCTL_DOCTOR_JSON_H

#include <jansson.h>

#include "finding.h"

/* {"root", "user", "findings": [{"id", "level", "is", "means", "do", "fixable"}], "facts": {...},
 * "plan": {...}}. root NULL: this machine. A new reference; NULL out of memory. */
json_t *doctor_json(const char *root, const struct facts *facts, const struct plan *plan,
                    const struct findings *findings);

/* {"files": [{"path", "text", "state"}], "commands": [...], "reboot", "login"}: the same, alone. */
json_t *doctor_plan_json(const struct plan *plan);

#endif
