/* SPDX-License-Identifier: MIT */
/* Trees that are not what they should be: links out of them, files that are huge, empty, binary or
 * none at all. Nothing outside is read or written, and nothing hangs or breaks. */
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "doctor_rig.h"
#include "spawn.h"

static char outside[96];

static void at(char path[256], const char *dir, const char *name)
{
    snprintf(path, 256, "%s/%s", dir, name);
}

static void put(const char *dir, const char *name, const char *data, size_t size)
{
    char path[256];
    at(path, dir, name);
    unlink(path);
    FILE *f = fopen(path, "we");
    CHECK(f && fwrite(data, 1, size, f) == size && fclose(f) == 0);
}

static void link_to(const char *dir, const char *name, const char *target)
{
    char path[256];
    at(path, dir, name);
    unlink(path);
    CHECK_EQ(symlink(target, path), 0);
}

/* The reports that are odd about a path say why. */
static void expect_odd(const json_t *report, const char *want)
{
    size_t i;
    const json_t *f;
    json_array_foreach(json_object_get(report, "findings"), i, f)
    {
        if (strcmp(text_of(f, "id"), "odd-file") == 0 && strstr(text_of(f, "is"), want)) {
            return;
        }
    }
    fprintf(stderr, "nothing odd about %s\n", want);
    exit(1);
}

static json_t *report_of(const char *dir)
{
    char *out, *err;
    json_error_t error;
    int code = run_doctor(dir, ARGS("--json", "--user", "root"), &out, &err);
    CHECK(code == 0 || code == 1);
    CHECK(!*err);
    json_t *json = json_loads(out, 0, &error);
    CHECK(json);
    free(out);
    free(err);
    return json;
}

/* The file the links lead to names a kernel that must not show up. */
static void test_links(void)
{
    char dir[96], target[256];
    unpack("780m-96g-6.12", dir);
    at(target, outside, "osrelease");
    link_to(dir, "proc/sys/kernel/osrelease", target);
    json_t *report = report_of(dir);
    CHECK(strcmp(text_of(json_object_get(report, "facts"), "kernel"), "") == 0);
    json_decref(report);
    link_to(dir, "proc/sys/kernel/osrelease", "../../../../../../../../../../proc/version");
    json_decref(report_of(dir));
    /* the same, but its way goes on inside: that is followed */
    link_to(dir, "proc/sys/kernel/osrelease", "/etc/kernel-release");
    put(dir, "etc/kernel-release", "6.12.1-inside\n", 14);
    report = report_of(dir);
    CHECK(strcmp(text_of(json_object_get(report, "facts"), "kernel"), "6.12.1-inside") == 0);
    json_decref(report);
    /* one that leads to itself */
    link_to(dir, "proc/cmdline", "cmdline");
    report = report_of(dir);
    expect_odd(report, "/proc/cmdline");
    json_decref(report);
}

static void expect_empty_outside(void)
{
    char script[256];
    snprintf(script, sizeof script, "ls -A '%s' | tr '\\n' ' '", outside);
    struct process p = spawn("/bin/sh", ARGS("-c", script));
    CHECK_EQ(spawn_wait(&p), 0);
    char *names = spawn_output(&p);
    CHECK(strcmp(names, "osrelease ") == 0);
    free(names);
    spawn_close(&p);
}

/* A directory doctor writes to is a link out of the tree, or one on the way there is. */
static void test_write_through_links(void)
{
    char dir[96], path[256], *err;
    unpack("780m-96g-6.12", dir);
    link_to(dir, "etc/modprobe.d", outside);
    CHECK_EQ(run_doctor(dir, ARGS("--fix"), NULL, &err), 1);
    CHECK(strstr(err, "gttctl: doctor: /etc/modprobe.d/gttd.conf: "));
    free(err);
    expect_empty_outside();

    unpack("780m-96g-6.12", dir);
    at(path, dir, "etc/security/limits.conf");
    CHECK_EQ(unlink(path), 0);
    at(path, dir, "etc/security");
    CHECK_EQ(rmdir(path), 0);
    link_to(dir, "etc/security", outside);
    CHECK_EQ(run_doctor(dir, ARGS("--fix"), NULL, &err), 1);
    free(err);
    expect_empty_outside();

    /* the file itself is a link to nothing: what is written takes its place */
    unpack("780m-96g-6.12", dir);
    at(path, dir, "etc/modprobe.d");
    CHECK_EQ(mkdir(path, 0755), 0);
    at(path, outside, "new.conf");
    link_to(dir, "etc/modprobe.d/gttd.conf", path);
    CHECK_EQ(run_doctor(dir, ARGS("--fix"), NULL, &err), 0);
    free(err);
    expect_empty_outside();
}

static void test_odd_files(void)
{
    static const char *const paths[] = {"proc/meminfo",
                                        "proc/cmdline",
                                        "proc/self/limits",
                                        "proc/swaps",
                                        "etc/group",
                                        "etc/os-release",
                                        "etc/security/limits.conf",
                                        "sys/class/drm/renderD128/device/uevent",
                                        "sys/class/drm/renderD128/device/mem_info_gtt_total",
                                        "sys/module/ttm/parameters/pages_limit"};
    static const char binary[] = "MemTotal: 1 kB\n\0\xff\xfe\n\1";
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char dir[96], path[256];
        unpack("780m-96g-6.12", dir);
        at(path, dir, paths[i]);
        put(dir, paths[i], "", 0);
        json_decref(report_of(dir));
        put(dir, paths[i], binary, sizeof binary - 1);
        json_t *report = report_of(dir);
        expect_odd(report, "is not text");
        json_decref(report);
        CHECK_EQ(truncate(path, (off_t)1 << 40), 0);
        report = report_of(dir);
        expect_odd(report, "is far too large");
        json_decref(report);
        CHECK_EQ(unlink(path), 0);
        json_decref(report_of(dir));
        CHECK_EQ(mkfifo(path, 0644), 0);
        report = report_of(dir);
        expect_odd(report, "is not a file");
        json_decref(report);
        put(dir, paths[i], "99999999999999999999999999\n", 27);
        json_decref(report_of(dir));
    }
}

static void test_empty_tree(void)
{
    char dir[96], *err;
    snprintf(dir, sizeof dir, "%s/empty", spawn_dir());
    CHECK_EQ(mkdir(dir, 0755), 0);
    CHECK_EQ(run_doctor(dir, NULL, NULL, &err), 1);
    CHECK(strstr(err, "/etc/passwd"));
    free(err);
}

static void test_many_names(void)
{
    char dir[96], path[256], name[128];
    unpack("780m-96g-6.12", dir);
    at(path, dir, "etc/modprobe.d");
    CHECK_EQ(mkdir(path, 0755), 0);
    for (int i = 0; i < TREE_NAMES_MAX + 10; i++) {
        snprintf(name, sizeof name, "etc/modprobe.d/%d.conf", i);
        put(dir, name, "", 0);
    }
    json_t *report = report_of(dir);
    expect_odd(report, "/etc/modprobe.d has too many entries");
    json_decref(report);
}

int main(void)
{
    atexit(spawn_clean_up);
    snprintf(outside, sizeof outside, "%s/outside", spawn_dir());
    CHECK_EQ(mkdir(outside, 0755), 0);
    put(outside, "osrelease", "9.9.9-outside\n", 14);
    test_links();
    test_write_through_links();
    test_odd_files();
    test_empty_tree();
    test_many_names();
    return 0;
}
