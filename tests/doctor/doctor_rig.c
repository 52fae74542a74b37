/* SPDX-License-Identifier: MIT */
/* Recorded trees and gttctl on them: see doctor_rig.h. */
#include "doctor_rig.h"

#include <stdio.h>
#include <sys/stat.h>

#include "check.h"
#include "spawn.h"

const char *const tree_names[] = {"780m-96g-6.12",
                                  "8060s-128g-7.3",
                                  "desktop-radeon",
                                  "no-amd",
                                  "dkms-amdttm",
                                  "780m-32g-6.1",
                                  NULL};

char *slurp(const char *path, size_t *ret_size)
{
    struct stat st;
    FILE *f = fopen(path, "re");
    if (!f || fstat(fileno(f), &st) < 0) {
        fprintf(stderr, "%s cannot be read\n", path);
        exit(1);
    }
    char *text = malloc((size_t)st.st_size + 1);
    CHECK(text && fread(text, 1, (size_t)st.st_size, f) == (size_t)st.st_size);
    text[st.st_size] = '\0';
    fclose(f);
    if (ret_size) {
        *ret_size = (size_t)st.st_size;
    }
    return text;
}

bool unpack(const char *name, char ret_dir[96])
{
    static int n;
    char path[160];
    size_t size;
    struct text_tree *tree = malloc(sizeof *tree);
    CHECK(tree);
    snprintf(path, sizeof path, VECTORS "%s.tree", name);
    snprintf(ret_dir, 96, "%s/tree%d", spawn_dir(), n++);
    CHECK(mkdir(ret_dir, 0755) == 0);
    char *text = slurp(path, &size);
    text_tree_init(tree, text, size);
    bool owned = text_tree_unpack(tree, ret_dir);
    free(text);
    free(tree);
    return owned;
}

int run_doctor(const char *dir, const char *const *args, char **ret_out, char **ret_err)
{
    const char *argv[16] = {"doctor", "--root", dir};
    for (size_t n = 3; args && *args && n < 15; n++) {
        argv[n] = *args++;
    }
    struct process p = spawn(GTTCTL_PATH, argv);
    int status = spawn_wait(&p);
    if (ret_out) {
        *ret_out = spawn_output(&p);
    }
    if (ret_err) {
        *ret_err = spawn_errors(&p);
    }
    spawn_close(&p);
    return status;
}

json_t *run_doctor_json(const char *dir, const char *const *args, int code)
{
    const char *argv[16] = {"--json"};
    char *out, *err;
    json_error_t error;
    for (size_t n = 1; args && *args && n < 15; n++) {
        argv[n] = *args++;
    }
    int status = run_doctor(dir, argv, &out, &err);
    if (status != code || *err) {
        fprintf(stderr, "gttctl doctor --root %s: %d, %s\n%s", dir, status, err, out);
        exit(1);
    }
    json_t *json = json_loads(out, 0, &error);
    CHECK(json);
    free(out);
    free(err);
    return json;
}

const json_t *finding(const json_t *report, const char *id)
{
    size_t i;
    const json_t *f;
    json_array_foreach(json_object_get(report, "findings"), i, f)
    {
        if (strcmp(text_of(f, "id"), id) == 0) {
            return f;
        }
    }
    return NULL;
}

const char *text_of(const json_t *json, const char *key)
{
    const char *text = json_string_value(json_object_get(json, key));
    CHECK(text);
    return text;
}
