/* SPDX-License-Identifier: MIT */
/*
 * Each recorded tree gives the report that is kept beside it, in memory and, from the program,
 * below a directory. With --update the kept reports are written anew.
 */
#include <unistd.h>

#include "check.h"
#include "doctor_json.h"
#include "doctor_rig.h"
#include "spawn.h"

/* The report from memory; the tree's name is its root. */
static json_t *judge(const char *name)
{
    struct {
        struct text_tree tree;
        struct facts facts;
        struct plan plan;
        struct findings findings;
    } *d = calloc(1, sizeof *d);
    struct err err;
    char path[160];
    size_t size;
    CHECK(d);
    snprintf(path, sizeof path, VECTORS "%s.tree", name);
    char *text = slurp(path, &size);
    text_tree_init(&d->tree, text, size);
    CHECK_EQ(facts_read(&d->facts, &d->tree.tree, NULL, NULL, &err), 0);
    plan_make(&d->plan, &d->facts, &d->tree.tree);
    findings_make(&d->findings, &d->facts, &d->plan);
    json_t *json = doctor_json(name, &d->facts, &d->plan, &d->findings);
    CHECK(json);
    free(text);
    free(d);
    return json;
}

static bool is_kept(const char *name, const json_t *report)
{
    char path[160];
    json_error_t error;
    snprintf(path, sizeof path, VECTORS "%s.json", name);
    json_t *kept = json_load_file(path, 0, &error);
    bool same = kept && json_equal(kept, report);
    if (!same) {
        fprintf(stderr, "%s: the report is not the kept one (%s --update writes it anew):\n", name,
                "build/debug/tests/doctor_trees_test");
        json_dumpf(report, stderr, JSON_INDENT(1));
        fputc('\n', stderr);
    }
    json_decref(kept);
    return same;
}

/* What a directory that belongs to somebody else than root cannot show. */
static void forget_access(json_t *report)
{
    json_t *findings = json_object_get(report, "findings");
    for (size_t i = json_array_size(findings); i-- > 0;) {
        const char *id = text_of(json_array_get(findings, i), "id");
        if (strncmp(id, "access-", 7) == 0 || strcmp(id, "udmabuf") == 0) {
            json_array_remove(findings, i);
        }
    }
}

static int n_bad(const json_t *report)
{
    size_t i;
    const json_t *f;
    int n = 0;
    json_array_foreach(json_object_get(report, "findings"), i, f)
    {
        n += strcmp(text_of(f, "level"), "bad") == 0;
    }
    return n;
}

/* The program says the same, and in its exit code whether anything is bad. */
static void test_program(const char *name, json_t *want)
{
    char dir[96], *out;
    bool owned = unpack(name, dir);
    json_object_set_new(want, "root", json_string(dir));
    if (owned) {
        json_t *got = run_doctor_json(dir, NULL, n_bad(want) ? 1 : 0);
        CHECK(json_equal(got, want));
        json_decref(got);
        CHECK_EQ(run_doctor(dir, NULL, &out, NULL), n_bad(want) ? 1 : 0);
    } else {
        run_doctor(dir, ARGS("--json"), &out, NULL);
        json_error_t error;
        json_t *got = json_loads(out, 0, &error);
        CHECK(got);
        forget_access(got);
        forget_access(want);
        CHECK(json_equal(got, want));
        json_decref(got);
        free(out);
        run_doctor(dir, NULL, &out, NULL);
    }
    for (const char *line = out; *line; line = strchr(line, '\n') + 1) {
        CHECK(strcspn(line, "\n") <= 80);
    }
    free(out);
}

/* Whatever is said of memory, nothing is more than there is. */
static void test_no_memory_counted_twice(const json_t *report)
{
    const json_t *facts = json_object_get(report, "facts");
    json_int_t ram = json_integer_value(json_object_get(facts, "ram_bytes"));
    json_int_t best = json_integer_value(json_object_get(facts, "recommended_gtt_bytes"));
    CHECK(ram > 0 && best < ram && (best == 0 || best > ram / 2));
}

int main(int argc, char **argv)
{
    bool update = argc > 1 && strcmp(argv[1], "--update") == 0, ok = true;
    atexit(spawn_clean_up);
    for (const char *const *name = tree_names; *name; name++) {
        char path[160];
        json_t *report = judge(*name);
        snprintf(path, sizeof path, VECTORS "%s.json", *name);
        if (update) {
            CHECK_EQ(json_dump_file(report, path, JSON_INDENT(1)), 0);
        }
        ok &= is_kept(*name, report);
        test_no_memory_counted_twice(report);
        test_program(*name, report);
        json_decref(report);
    }
    return ok ? 0 : 1;
}
