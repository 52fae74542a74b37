/* SPDX-License-Identifier: MIT */
/* gttctl: picks the command. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "gttctl.h"
#include "gttd_util.h"
#include "version.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"status", cmd_status, "where gttd's memory comes from, how much there is, its limits"},
    {"list", cmd_list, "the segments it holds"},
    {"drop", cmd_drop, "forget a segment"},
    {"watch", cmd_watch, "print what happens, until Ctrl-C"},
    {"doctor", cmd_doctor, "is this machine set up for gttd? What to do about it"},
};

static void print_help(FILE *out)
{
    fputs("Usage: gttctl COMMAND [OPTION...]\n"
          "See what gttd holds, and whether this machine is set up for it.\n\n",
          out);
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        fprintf(out, "  %-8s %s\n", commands[i].name, commands[i].summary);
    }
    fputs("\n`gttctl COMMAND --help` describes a command.\n", out);
}

/* The one place that notices what printf() could not write. */
static int check_stdout(int status)
{
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == EXIT_OK) {
        return complain("stdout: cannot be written");
    }
    return status;
}

int main(int argc, char **argv)
{
    if (hold_standard_fds() < 0) {
        return EXIT_FAILED;
    }
    /* a reader that leaves is a write error, not the end of the process */
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(stdout);
        return check_stdout(EXIT_OK);
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("gttctl %s\n", GTTD_VERSION_TEXT);
        return check_stdout(EXIT_OK);
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return check_stdout(commands[i].run(argc - 1, argv + 1));
        }
    }
    complain("%s: no such command; see `gttctl --help`", argv[1]);
    return EXIT_USAGE;
}
