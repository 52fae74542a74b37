/* SPDX-License-Identifier: MIT */
/* Making plans and carrying them out: see plan.h. */
#include "plan.h"

#include <errno.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define GIB    ((uint64_t)1 << 30)
#define MARKER "# Written by `gttctl doctor --fix`"

uint64_t plan_gtt_bytes(uint64_t ram_bytes)
{
    uint64_t rest = ram_bytes / 8;
    rest = rest < 4 * GIB ? 4 * GIB : rest > 16 * GIB ? 16 * GIB : rest;
    if (ram_bytes < rest) {
        return 0;
    }
    uint64_t gtt = (ram_bytes - rest) / GIB * GIB;
    return gtt > ram_bytes / 2 ? gtt : 0;
}

bool plan_needs_gttsize(const struct facts *facts)
{
    unsigned major = facts->kernel_major; /* 0: unknown, so not known to be old */
    return major && (major < 6 || (major == 6 && facts->kernel_minor < 12));
}

/* A parameter in its unit, as bytes; nonsense is 0. */
static uint64_t param_bytes(int64_t value, uint64_t unit)
{
    return value > 0 && (uint64_t)value < (1ull << 52) / unit ? (uint64_t)value * unit : 0;
}

uint64_t plan_next_gtt_bytes(const struct facts *facts)
{
    const struct gpu_facts *gpu = facts_gpu(facts);
    uint64_t by_size = facts->gttsize.is_set ? param_bytes(facts->gttsize.set, 1 << 20) : 0;
    uint64_t by_pages =
        facts->pages_limit.is_set ? param_bytes(facts->pages_limit.set, PAGE_BYTES) : 0;
    if (by_size) {
        return by_size;
    }
    return by_pages && !plan_needs_gttsize(facts) ? by_pages : gpu ? gpu->gtt_bytes : 0;
}

/* Whether GTT is ours to set: an APU, a module to give parameters to, and nobody else has set it.
 */
static bool may_set_gtt(const struct facts *facts)
{
    const struct gpu_facts *gpu = facts_gpu(facts);
    const struct param_facts *params[] = {&facts->pages_limit, &facts->gttsize};
    for (size_t i = 0; i < 2; i++) {
        if (params[i]->is_set && !params[i]->set_by_us) {
            return false;
        }
    }
    return gpu && gpu->kind == GPU_APU && facts->has_ttm && !facts->ttm_builtin;
}

static struct plan_file *add_file(struct plan *plan, const char *path, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static struct plan_file *add_file(struct plan *plan, const char *path, const char *fmt, ...)
{
    struct plan_file *file = &plan->files[plan->n_files++];
    va_list ap;
    file->path = path;
    va_start(ap, fmt);
    vsnprintf(file->text, sizeof file->text, fmt, ap);
    va_end(ap);
    return file;
}

static void look_at_file(struct plan_file *file, struct tree *tree)
{
    char there[PLAN_TEXT_SIZE];
    int r = tree_read_text(tree, file->path, there, sizeof there);
    if (r == -ENOENT || r == -ENOTDIR) {
        file->state = PLAN_WRITE;
    } else if (r < 0 || strncmp(there, MARKER, sizeof MARKER - 1) != 0) {
        file->state = PLAN_FOREIGN;
    } else {
        file->state = strcmp(there, file->text) == 0 ? PLAN_DONE : PLAN_WRITE;
    }
}

static void add_command(struct plan *plan, const char *const *args)
{
    const char **command = plan->commands[plan->n_commands++];
    for (size_t i = 0; args[i]; i++) {
        command[i] = args[i];
    }
}

static void add_initramfs(struct plan *plan, const struct facts *facts)
{
    static const char *const tools[] = {"/usr/sbin/update-initramfs", "-u", "-k", "all", NULL};
    static const char *const dracut[] = {"dracut", "--regenerate-all", "--force", NULL};
    static const char *const mkinitcpio[] = {"/usr/bin/mkinitcpio", "-P", NULL};
    switch (facts->initramfs) {
    case INITRAMFS_TOOLS:
        add_command(plan, tools);
        break;
    case INITRAMFS_DRACUT:
        add_command(plan, dracut);
        break;
    case INITRAMFS_MKINITCPIO:
        add_command(plan, mkinitcpio);
        break;
    case INITRAMFS_UNKNOWN:
        break;
    }
}

static void plan_gtt(struct plan *plan, const struct facts *facts, struct tree *tree)
{
    uint64_t bytes = plan_gtt_bytes(facts->ram_bytes);
    bool ours = facts->pages_limit.is_set && facts->pages_limit.set_by_us;
    if (!may_set_gtt(facts) || !bytes || !facts->kernel_major ||
        (!ours && plan_next_gtt_bytes(facts) >= bytes - bytes / 20)) {
        return;
    }
    char gttsize[64] = "";
    if (plan_needs_gttsize(facts)) {
        snprintf(gttsize, sizeof gttsize, "options amdgpu gttsize=%" PRIu64 "\n", bytes >> 20);
    }
    struct plan_file *file =
        add_file(plan, OWN_MODPROBE_FILE,
                 MARKER
                 ": %" PRIu64 " GiB of RAM for the GPU (GTT),\n"
                 "# the rest for everything else. Remove this file for the kernel's default,\n"
                 "# a half.\n"
                 "options %s pages_limit=%" PRIu64 "\n%s",
                 bytes / GIB, facts->has_amdttm ? "amdttm" : "ttm", bytes / PAGE_BYTES, gttsize);
    look_at_file(file, tree);
    if (file->state == PLAN_WRITE) {
        plan->needs_reboot = true;
        add_initramfs(plan, facts); /* the module may be loaded from there */
    }
}

static void plan_memlock(struct plan *plan, const struct facts *facts, struct tree *tree)
{
    if (!facts->npu.there || facts->memlock_unlimited_set || facts->memlock_bytes == UINT64_MAX) {
        return;
    }
    struct plan_file *file = add_file(plan, OWN_LIMITS_FILE,
                                      MARKER ": the NPU's library locks the\n"
                                             "# memory it maps.\n"
                                             "@render - memlock unlimited\n");
    look_at_file(file, tree);
    plan->needs_login |= file->state == PLAN_WRITE;
}

static void plan_udmabuf(struct plan *plan, const struct facts *facts, struct tree *tree)
{
    static const char *const command[] = {"systemd-tmpfiles", "--create", "/" OWN_TMPFILES_FILE,
                                          NULL};
    if (facts_gpu(facts) || !facts->udmabuf.there || !facts->udmabuf_limit_known ||
        facts->udmabuf_limit_mb >= 2048) {
        return;
    }
    struct plan_file *file =
        add_file(plan, OWN_TMPFILES_FILE,
                 MARKER ": dma-bufs of /dev/udmabuf\n"
                        "# may be as large as gttd's chunks.\n"
                        "w /sys/module/udmabuf/parameters/size_limit_mb - - - - 2048\n");
    look_at_file(file, tree);
    if (file->state == PLAN_WRITE) {
        add_command(plan, command);
    }
}

void plan_make(struct plan *plan, const struct facts *facts, struct tree *tree)
{
    *plan = (struct plan){0};
    plan_gtt(plan, facts, tree);
    plan_memlock(plan, facts, tree);
    plan_udmabuf(plan, facts, tree);
}

const struct plan_file *plan_find(const struct plan *plan, const char *path)
{
    for (size_t i = 0; i < plan->n_files; i++) {
        if (strcmp(plan->files[i].path, path) == 0) {
            return &plan->files[i];
        }
    }
    return NULL;
}

bool plan_writes(const struct plan *plan, const char *path)
{
    const struct plan_file *file = plan_find(plan, path);
    return file && file->state == PLAN_WRITE;
}

void plan_command_text(const char *const *command, char *buf, size_t size)
{
    size_t n = 0;
    buf[0] = '\0';
    for (size_t i = 0; command[i] && n < size; i++) {
        n += (size_t)snprintf(buf + n, size - n, "%s%s", i ? " " : "", command[i]);
    }
}

static int run_command(const char *const *command, struct err *err)
{
    char text[256];
    char *env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int status;
    plan_command_text(command, text, sizeof text);
    int r = posix_spawn_file_actions_init(&actions);
    if (r == 0) { /* stdout is for our own output, which may be JSON */
        r = posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
        r = r ? r : posix_spawnp(&pid, command[0], &actions, NULL, (char *const *)command, env);
        posix_spawn_file_actions_destroy(&actions);
    }
    if (r != 0) {
        return err_set(err, -ECHILD, "%s: %s; the files are written: run it by hand", text,
                       strerror(r));
    }
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return err_set(err, -errno, "%s: %s", text, strerror(errno));
        }
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        return err_set(err, -ECHILD, "%s: it has failed; the files are written: run it by hand",
                       text);
    }
    return 0;
}

int plan_apply(const struct plan *plan, struct tree *tree, bool run, struct err *err)
{
    bool written = false;
    for (size_t i = 0; i < plan->n_files; i++) {
        if (plan->files[i].state == PLAN_FOREIGN) {
            return err_set(err, -EEXIST, "/%s: it is not doctor's own; move it away or edit it",
                           plan->files[i].path);
        }
    }
    for (size_t i = 0; i < plan->n_files; i++) {
        const struct plan_file *file = &plan->files[i];
        int r = file->state == PLAN_WRITE ? tree_write(tree, file->path, file->text, err) : 0;
        if (r < 0) {
            return r;
        }
        written |= file->state == PLAN_WRITE;
    }
    for (size_t i = 0; written && run && i < plan->n_commands; i++) {
        int r = run_command(plan->commands[i], err);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}
