/* SPDX-License-Identifier: MIT */
/* doctor on any tree of small files: it must come to an end with a report in which every text is
 * ended and nothing is counted twice, and a plan whose files it would itself take for its own. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "doctor_json.h"
#include "text_tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int x)
{
    if (!x) {
        abort();
    }
}

static void check_text(const char *text, size_t size)
{
    require(memchr(text, '\0', size) != NULL);
    for (const char *c = text; *c; c++) {
        require(*c >= ' ' && *c <= '~');
    }
}

static void check_findings(const struct findings *findings)
{
    require(findings->n > 0 && findings->n <= FINDINGS_MAX);
    for (size_t i = 0; i < findings->n; i++) {
        const struct finding *f = &findings->list[i];
        require(f->is[0] != '\0');
        check_text(f->is, sizeof f->is);
        check_text(f->means, sizeof f->means);
        check_text(f->todo, sizeof f->todo);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct text_tree tree;
    static struct facts facts;
    static struct plan plan;
    static struct findings findings;
    struct err err;
    text_tree_init(&tree, (const char *)data, size);
    if (facts_read(&facts, &tree.tree, NULL, NULL, &err) < 0) {
        struct who nobody = {.name = "nobody", .uid = 65534};
        require(facts_read(&facts, &tree.tree, &nobody, NULL, &err) == 0);
    }
    plan_make(&plan, &facts, &tree.tree);
    findings_make(&findings, &facts, &plan);
    check_findings(&findings);
    require(plan_gtt_bytes(facts.ram_bytes) <= facts.ram_bytes);
    for (size_t i = 0; i < plan.n_files; i++) {
        size_t n = strlen(plan.files[i].text);
        require(n > 0 && n + 1 < sizeof plan.files[i].text && plan.files[i].text[n - 1] == '\n');
    }
    json_t *json = doctor_json("/", &facts, &plan, &findings);
    require(json != NULL);
    json_decref(json);
    return 0;
}
