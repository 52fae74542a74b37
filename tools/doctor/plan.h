/* SPDX-License-Identifier: MIT */
/*
 * What `doctor --fix` would do: a few files of its own, and the commands that make them count. A
 * plan is made from facts; printing it and doing it are two uses of the same plan. It overrides
 * nothing that somebody else has set.
 */
#ifndef DOCTOR_PLAN_H
#define DOCTOR_PLAN_H

#include "facts.h"

#define PLAN_FILES_MAX    3
#define PLAN_TEXT_SIZE    640
#define PLAN_COMMANDS_MAX 2
#define PLAN_ARGS_MAX     5

enum plan_state {
    PLAN_WRITE,   /* missing, or ours and out of date */
    PLAN_DONE,    /* already says this */
    PLAN_FOREIGN, /* somebody else's file of that name: left alone */
};

struct plan_file {
    const char *path; /* in the tree */
    char text[PLAN_TEXT_SIZE];
    enum plan_state state;
};

struct plan {
    struct plan_file files[PLAN_FILES_MAX];
    size_t n_files;
    const char *commands[PLAN_COMMANDS_MAX][PLAN_ARGS_MAX + 1]; /* NULL-terminated */
    size_t n_commands;
    bool needs_reboot; /* for what is to be written to count */
    bool needs_login;
};

void plan_make(struct plan *plan, const struct facts *facts, struct tree *tree);

/* The file of that path if it is in the plan, else NULL. */
const struct plan_file *plan_find(const struct plan *plan, const char *path);
/* Whether the plan would write that file. */
bool plan_writes(const struct plan *plan, const char *path);

/*
 * Write what is to be written, then run the commands, if any file was written. With run false they
 * are left to the caller to show. Stops at the first failure: -EEXIST a file of somebody else's is
 * in the way (nothing was written), -ECHILD a command failed.
 */
int plan_apply(const struct plan *plan, struct tree *tree, bool run, struct err *err);

/* "update-initramfs -u -k all" into buf. */
void plan_command_text(const char *const *command, char *buf, size_t size);

/*
 * How much of the RAM GTT should be able to take: all but an eighth, of which at least 4 GiB and at
 * most 16 GiB, in whole GiB. 0: the kernel's default of a half is no less.
 */
uint64_t plan_gtt_bytes(uint64_t ram_bytes);

/* What GTT will be after the next start, as far as it is known: what is set, else what is now. */
uint64_t plan_next_gtt_bytes(const struct facts *facts);

/* Kernels before 6.12 do not let ttm.pages_limit alone raise GTT: 6.1 does not, 6.12 does, and
 * amdgpu.gttsize, which 7.x warns of, works in all between. */
bool plan_needs_gttsize(const struct facts *facts);

#endif
