/* SPDX-License-Identifier: MIT */
/* gttctl doctor: print what the doctor library finds, and what it would change; or change it. */
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor_json.h"
#include "finding.h"
#include "gttctl.h"
#include "gttd_util.h"

#define WIDTH  80
#define INDENT 6

struct doctor_options {
    const char *root; /* NULL: this machine */
    const char *user;
    bool json, fix, dry_run;
};

/* The whole of one run; large, so not on the stack. */
struct doctor {
    struct doctor_options options;
    struct tree tree;
    struct facts facts;
    struct plan plan;
    struct findings findings;
};

enum { OPT_ROOT = 256, OPT_USER, OPT_FIX, OPT_DRY_RUN };

static const struct argp_option table[] = {
    {"json", 'j', NULL, 0, "Print one JSON object", 0},
    {"fix", OPT_FIX, NULL, 0, "Write the files and run the commands that --dry-run shows", 0},
    {"dry-run", OPT_DRY_RUN, NULL, 0, "With --fix: only show them", 0},
    {"root", OPT_ROOT, "DIR", 0,
     "Look at (and fix) a tree of /sys, /proc, /etc, /dev below DIR instead of this machine; "
     "commands are shown, not run",
     0},
    {"user", OPT_USER, "NAME", 0,
     "Whose groups to look at; default: who runs it, also by sudo; with --root the first ordinary "
     "user there",
     0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct doctor_options *options = state->input;
    switch (key) {
    case 'j':
        options->json = true;
        return 0;
    case OPT_FIX:
        options->fix = true;
        return 0;
    case OPT_DRY_RUN:
        options->dry_run = true;
        return 0;
    case OPT_ROOT:
        options->root = arg;
        return 0;
    case OPT_USER:
        options->user = arg;
        return 0;
    case ARGP_KEY_END:
        if (options->dry_run && !options->fix) {
            argp_error(state, "--dry-run goes with --fix");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void fill_session(struct who *who)
{
    int n = getgroups(FACTS_GROUPS_MAX - 1, who->session_groups);
    if (who->uid == getuid() && n >= 0) {
        who->has_session = true;
        who->n_session_groups = (size_t)n;
        who->session_groups[who->n_session_groups++] = getegid();
    }
}

/* The user of this machine that it is about: as NSS knows them. */
static bool find_who(const char *name, struct who *ret)
{
    const char *sudo_user = geteuid() == 0 ? secure_getenv("SUDO_USER") : NULL;
    name = name ? name : sudo_user;
    const struct passwd *user = name ? getpwnam(name) : getpwuid(getuid());
    int n = FACTS_GROUPS_MAX;
    if (!user) {
        return false;
    }
    *ret = (struct who){.uid = user->pw_uid};
    snprintf(ret->name, sizeof ret->name, "%s", user->pw_name);
    if (getgrouplist(user->pw_name, user->pw_gid, ret->groups, &n) < 0) {
        n = FACTS_GROUPS_MAX; /* those that fit are there */
    }
    ret->n_groups = (size_t)n;
    fill_session(ret);
    return true;
}

/* Words of text in lines of at most WIDTH columns, all but the first indented. */
static void print_wrapped(const char *first, const char *text)
{
    size_t column = (size_t)printf("%-*s", INDENT, first);
    bool at_start = true;
    while (*text) {
        size_t n = strcspn(text, " ");
        if (!at_start && column + 1 + n > WIDTH) {
            column = (size_t)printf("\n%*s", INDENT, "") - 1;
            at_start = true;
        }
        column += (size_t)printf("%s%.*s", at_start ? "" : " ", (int)n, text);
        at_start = false;
        text += n + (text[n] == ' ');
    }
    putchar('\n');
}

static void print_findings(const struct findings *findings)
{
    for (size_t i = 0; i < findings->n; i++) {
        const struct finding *f = &findings->list[i];
        print_wrapped(level_text(f->level), f->is);
        if (f->means[0]) {
            print_wrapped("", f->means);
        }
        if (f->todo[0]) {
            print_wrapped("   ->", f->todo);
        }
    }
}

static size_t count(const struct findings *findings, enum level level)
{
    size_t n = 0;
    for (size_t i = 0; i < findings->n; i++) {
        n += findings->list[i].level == level;
    }
    return n;
}

static bool has_work(const struct plan *plan)
{
    for (size_t i = 0; i < plan->n_files; i++) {
        if (plan->files[i].state != PLAN_DONE) {
            return true;
        }
    }
    return false;
}

static void print_file(const struct plan_file *file)
{
    printf("/%s%s\n", file->path, file->state == PLAN_FOREIGN ? " (is not doctor's own!)" : "");
    for (const char *line = file->text; *line; line = strchr(line, '\n') + 1) {
        printf("    %.*s\n", (int)strcspn(line, "\n"), line);
    }
}

/* What the plan does, in the words of somebody who does it by hand. */
static void print_plan(const struct plan *plan, bool runs_commands)
{
    if (!has_work(plan)) {
        printf("There is nothing to fix.\n");
        return;
    }
    for (size_t i = 0; i < plan->n_files; i++) {
        if (plan->files[i].state != PLAN_DONE) {
            print_file(&plan->files[i]);
        }
    }
    for (size_t i = 0; i < plan->n_commands; i++) {
        char text[256];
        plan_command_text(plan->commands[i], text, sizeof text);
        printf("%s%s\n", runs_commands ? "" : "not run here: ", text);
    }
    if (plan->needs_reboot) {
        printf("It counts from the next start of the machine on.\n");
    }
    if (plan->needs_login) {
        printf("Limits count from the next log-in on.\n");
    }
}

static int examine(struct doctor *d, struct err *err)
{
    struct who who;
    const struct doctor_options *o = &d->options;
    int r = tree_open(&d->tree, o->root ? o->root : "/", err);
    if (r < 0) {
        return r;
    }
    bool known = !o->root && find_who(o->user, &who);
    if (!o->root && !known) {
        return err_set(err, -ENOENT, "there is no user %s", o->user ? o->user : "with this uid");
    }
    r = facts_read(&d->facts, &d->tree, known ? &who : NULL, o->user, err);
    if (r < 0) {
        return r;
    }
    plan_make(&d->plan, &d->facts, &d->tree);
    findings_make(&d->findings, &d->facts, &d->plan);
    return 0;
}

static int report(const struct doctor *d)
{
    size_t n_bad = count(&d->findings, LEVEL_BAD);
    int code = n_bad ? EXIT_FAILED : EXIT_OK;
    if (d->options.json) {
        return print_json(doctor_json(d->options.root, &d->facts, &d->plan, &d->findings)) ==
                       EXIT_OK
                   ? code
                   : EXIT_FAILED;
    }
    print_findings(&d->findings);
    printf("\n%zu bad, %zu to be warned of, %zu to note\n", n_bad, count(&d->findings, LEVEL_WARN),
           count(&d->findings, LEVEL_NOTE));
    if (has_work(&d->plan)) {
        printf("`gttctl doctor --fix --dry-run` shows what can be fixed here.\n");
    }
    return code;
}

/* What it is about to do comes first, so that it is on the screen if a command hangs. */
static int fix(struct doctor *d)
{
    struct err err = {{0}};
    bool live = !d->options.root;
    if (!d->options.dry_run && live && has_work(&d->plan) && geteuid() != 0) {
        return complain("doctor: --fix: only root may write to /etc: sudo gttctl doctor --fix");
    }
    if (!d->options.json) {
        print_plan(&d->plan, live);
        fflush(stdout);
    }
    if (!d->options.dry_run && plan_apply(&d->plan, &d->tree, live, &err) < 0) {
        return complain("doctor: %s", err.text);
    }
    return d->options.json ? print_json(doctor_plan_json(&d->plan)) : EXIT_OK;
}

int cmd_doctor(int argc, char **argv)
{
    static const struct argp argp =
        {.options = table,
         .parser = parse_option,
         .doc = "Say whether this machine is set up for gttd: what is, what it means, what to do."};
    struct err err = {{0}};
    AUTO_FREE struct doctor *d = calloc(1, sizeof *d);
    if (!d) {
        return complain("doctor: out of memory");
    }
    d->tree.root_fd = -1;
    parse_args(&argp, argc, argv, &d->options);
    int r = examine(d, &err);
    int code = r < 0 ? complain("doctor: %s", err.text) : d->options.fix ? fix(d) : report(d);
    tree_close(&d->tree);
    return code;
}
