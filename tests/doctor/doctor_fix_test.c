/* SPDX-License-Identifier: MIT */
/* doctor --fix: exactly what --dry-run shows, once, over nobody else's files. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "doctor_rig.h"
#include "spawn.h"

/* Everything below dir: paths, kinds, sizes, modes, times. The caller frees it. */
static char *listing(const char *dir)
{
    char script[256];
    snprintf(script, sizeof script,
             "cd '%s' && find . -printf '%%p %%y %%s %%m %%i %%T@\\n' | sort", dir);
    struct process p = spawn("/bin/sh", ARGS("-c", script));
    CHECK_EQ(spawn_wait(&p), 0);
    char *text = spawn_output(&p);
    spawn_close(&p);
    return text;
}

/* A file of the tree has exactly this text; it and its directory are for all to read. */
static void expect_file(const char *dir, const char *path, const char *text)
{
    char full[256];
    struct stat st;
    snprintf(full, sizeof full, "%s%s", dir, path);
    char *got = slurp(full, NULL);
    CHECK(strcmp(got, text) == 0);
    CHECK(stat(full, &st) == 0 && (st.st_mode & 07777) == 0644);
    *strrchr(full, '/') = '\0';
    CHECK(stat(full, &st) == 0 && (st.st_mode & 07777) == 0755);
    free(got);
}

static void expect_all_written(const char *dir, const json_t *plan)
{
    size_t i;
    const json_t *file;
    json_array_foreach(json_object_get(plan, "files"), i, file)
    {
        expect_file(dir, text_of(file, "path"), text_of(file, "text"));
    }
}

static void test_tree(const char *name)
{
    char dir[96], *out, *again;
    unpack(name, dir);
    char *before = listing(dir);
    json_t *plan = run_doctor_json(dir, ARGS("--fix", "--dry-run"), 0);
    CHECK_EQ(run_doctor(dir, ARGS("--fix", "--dry-run"), &out, NULL), 0);
    char *after_dry = listing(dir);
    CHECK(strcmp(before, after_dry) == 0);

    CHECK_EQ(run_doctor(dir, ARGS("--fix"), &again, NULL), 0);
    CHECK(strcmp(out, again) == 0);
    expect_all_written(dir, plan);
    char *after = listing(dir);
    bool has_files = json_array_size(json_object_get(plan, "files")) > 0;
    CHECK((strcmp(before, after) == 0) == !has_files);
    CHECK(!strstr(after, ".tmp "));
    free(again);

    CHECK_EQ(run_doctor(dir, ARGS("--fix"), &again, NULL), 0);
    CHECK(strcmp(again, "There is nothing to fix.\n") == 0);
    char *after_again = listing(dir);
    CHECK(strcmp(after, after_again) == 0);
    json_t *second = run_doctor_json(dir, ARGS("--fix", "--dry-run"), 0);
    CHECK_EQ(json_array_size(json_object_get(second, "commands")), 0);
    json_decref(second);
    json_decref(plan);
    free(again);
    free(after_again);
    free(after);
    free(after_dry);
    free(before);
    free(out);
}

static void test_plan_of_780m(void)
{
    char dir[96], *out;
    unpack("780m-96g-6.12", dir);
    CHECK_EQ(run_doctor(dir, ARGS("--fix", "--dry-run"), &out, NULL), 0);
    CHECK(strstr(out, "/etc/modprobe.d/gttd.conf\n"));
    CHECK(strstr(out, "    options ttm pages_limit=20971520\n")); /* 80 GiB */
    CHECK(!strstr(out, "gttsize"));
    CHECK(strstr(out, "    @render - memlock unlimited\n"));
    CHECK(strstr(out, "not run here: /usr/sbin/update-initramfs -u -k all\n"));
    free(out);
    CHECK_EQ(run_doctor(dir, ARGS("--fix"), NULL, NULL), 0);
    /* it is set now, and counts from the next start on */
    json_t *report = run_doctor_json(dir, ARGS("--user", "root"), 1);
    CHECK(strstr(text_of(finding(report, "gtt-total"), "means"), "80.0 GiB at the next start"));
    json_decref(report);
}

static void write_file(const char *dir, const char *path, const char *text)
{
    char full[256];
    snprintf(full, sizeof full, "%s/%s", dir, path);
    FILE *f = fopen(full, "we");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* Of the same name, but not doctor's: nothing at all is written. */
static void test_foreign_file(void)
{
    static const char mine[] = "options ttm dma32_pages_limit=1\n";
    char dir[96], path[160], *out, *err;
    unpack("780m-96g-6.12", dir);
    snprintf(path, sizeof path, "%s/etc/modprobe.d", dir);
    CHECK_EQ(mkdir(path, 0755), 0);
    write_file(dir, "etc/modprobe.d/gttd.conf", mine);
    char *before = listing(dir);
    CHECK_EQ(run_doctor(dir, ARGS("--fix"), &out, &err), 1);
    CHECK(strstr(err, "gttctl: doctor: /etc/modprobe.d/gttd.conf: "));
    char *after = listing(dir);
    CHECK(strcmp(before, after) == 0);
    expect_file(dir, "/etc/modprobe.d/gttd.conf", mine);
    free(before);
    free(after);
    free(out);
    free(err);
}

/* What the administrator has set elsewhere stays the administrator's. */
static void test_foreign_setting(void)
{
    char dir[96], path[160];
    unpack("780m-96g-6.12", dir);
    snprintf(path, sizeof path, "%s/etc/modprobe.d", dir);
    CHECK_EQ(mkdir(path, 0755), 0);
    write_file(dir, "etc/modprobe.d/local.conf", "# mine\noptions ttm pages_limit=16777216\n");
    json_t *report = run_doctor_json(dir, ARGS("--user", "root"), 1);
    const json_t *f = finding(report, "gtt-total");
    CHECK(strstr(text_of(f, "do"), "/etc/modprobe.d/local.conf"));
    CHECK(json_is_false(json_object_get(f, "fixable")));
    json_decref(report);
    json_t *plan = run_doctor_json(dir, ARGS("--fix"), 0);
    CHECK_EQ(json_array_size(json_object_get(plan, "files")), 1); /* limits.d only */
    json_decref(plan);
}

/* Another amount of RAM: the file is doctor's own and follows. */
static void test_update(void)
{
    char dir[96], *out;
    unpack("780m-96g-6.12", dir);
    CHECK_EQ(run_doctor(dir, ARGS("--fix"), NULL, NULL), 0);
    write_file(dir, "proc/meminfo", "MemTotal:       65000000 kB\nMemAvailable:   60000000 kB\n");
    CHECK_EQ(run_doctor(dir, ARGS("--fix"), &out, NULL), 0);
    CHECK(strstr(out, "pages_limit=14155776\n")); /* 54 GiB */
    free(out);
    CHECK_EQ(run_doctor(dir, ARGS("--fix"), &out, NULL), 0);
    CHECK(strcmp(out, "There is nothing to fix.\n") == 0);
    free(out);
}

/* A disk that is full, as it were: an error, and nothing half written. */
static void test_unwritable(void)
{
    char dir[96], path[160], *err;
    if (geteuid() == 0) {
        return; /* root may write everywhere */
    }
    unpack("780m-96g-6.12", dir);
    snprintf(path, sizeof path, "%s/etc", dir);
    CHECK_EQ(chmod(path, 0555), 0);
    CHECK_EQ(run_doctor(dir, ARGS("--fix"), NULL, &err), 1);
    CHECK(strstr(err, "gttctl: doctor: /etc/modprobe.d/gttd.conf: Permission denied"));
    CHECK_EQ(chmod(path, 0755), 0);
    free(err);
}

static void test_usage(void)
{
    char *err;
    CHECK_EQ(run_doctor("/nonexistent", NULL, NULL, &err), 1);
    CHECK(strcmp(err, "gttctl: doctor: /nonexistent: No such file or directory\n") == 0);
    free(err);
    CHECK_EQ(run_doctor("/tmp", ARGS("--dry-run"), NULL, &err), 2);
    free(err);
    CHECK_EQ(run_doctor("/tmp", ARGS("stray"), NULL, &err), 2);
    free(err);
    char dir[96];
    unpack("no-amd", dir);
    CHECK_EQ(run_doctor(dir, ARGS("--user", "nobody-here"), NULL, &err), 1);
    CHECK(strstr(err, "there is no user nobody-here"));
    free(err);
}

int main(void)
{
    atexit(spawn_clean_up);
    for (const char *const *name = tree_names; *name; name++) {
        test_tree(*name);
    }
    test_plan_of_780m();
    test_foreign_file();
    test_foreign_setting();
    test_update();
    test_unwritable();
    test_usage();
    return 0;
}
