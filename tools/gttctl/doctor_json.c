/* SPDX-License-Identifier: MIT */
/* doctor's results as JSON: see doctor_json.h. */
#include "doctor_json.h"

#include <stdio.h>

static json_t *findings_json(const struct findings *findings)
{
    json_t *array = json_array();
    for (size_t i = 0; i < findings->n; i++) {
        const struct finding *f = &findings->list[i];
        json_array_append_new(array,
                              json_pack("{s:s, s:s, s:s, s:s, s:s, s:b}", "id", f->id, "level",
                                        level_text(f->level), "is", f->is, "means", f->means, "do",
                                        f->todo, "fixable", (int)f->fixable));
    }
    return array;
}

static json_t *param_json(const struct param_facts *p)
{
    json_t *json = json_object();
    json_object_set_new(json, "now", p->is_known ? json_integer(p->now) : json_null());
    json_object_set_new(json, "set", p->is_set ? json_integer(p->set) : json_null());
    json_object_set_new(json, "set_in", p->is_set ? json_string(p->set_in) : json_null());
    return json;
}

static json_t *gpu_json(const struct gpu_facts *gpu)
{
    static const char *const kinds[] = {"unknown", "apu", "discrete"};
    if (!gpu) {
        return json_null();
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "name", gpu->name, "kind",
                     kinds[gpu->kind], "node", gpu->node.path, "pci", gpu->pci, "vram_bytes",
                     (json_int_t)gpu->vram_bytes, "gtt_bytes", (json_int_t)gpu->gtt_bytes,
                     "gtt_used_bytes", (json_int_t)gpu->gtt_used_bytes);
}

static json_t *facts_json(const struct facts *facts)
{
    return json_pack("{s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:b, s:I}", "kernel", facts->kernel,
                     "ram_bytes", (json_int_t)facts->ram_bytes, "available_bytes",
                     (json_int_t)facts->available_bytes, "gpu", gpu_json(facts_gpu(facts)),
                     "pages_limit", param_json(&facts->pages_limit), "page_pool_size",
                     param_json(&facts->page_pool_size), "gttsize", param_json(&facts->gttsize),
                     "npu", (int)facts->npu.there, "recommended_gtt_bytes",
                     (json_int_t)plan_gtt_bytes(facts->ram_bytes));
}

json_t *doctor_plan_json(const struct plan *plan)
{
    static const char *const states[] = {"write", "done", "foreign"};
    json_t *files = json_array(), *commands = json_array();
    for (size_t i = 0; i < plan->n_files; i++) {
        char path[FACTS_PATH_SIZE];
        snprintf(path, sizeof path, "/%s", plan->files[i].path);
        json_array_append_new(files, json_pack("{s:s, s:s, s:s}", "path", path, "text",
                                               plan->files[i].text, "state",
                                               states[plan->files[i].state]));
    }
    for (size_t i = 0; i < plan->n_commands; i++) {
        char text[256];
        plan_command_text(plan->commands[i], text, sizeof text);
        json_array_append_new(commands, json_string(text));
    }
    return json_pack("{s:o, s:o, s:b, s:b}", "files", files, "commands", commands, "reboot",
                     (int)plan->needs_reboot, "login", (int)plan->needs_login);
}

json_t *doctor_json(const char *root, const struct facts *facts, const struct plan *plan,
                    const struct findings *findings)
{
    return json_pack("{s:s, s:s, s:o, s:o, s:o}", "root", root ? root : "/", "user",
                     facts->who.name, "findings", findings_json(findings), "facts",
                     facts_json(facts), "plan", doctor_plan_json(plan));
}
