/* SPDX-License-Identifier: MIT */
/* gttrun: picks the command. */
#include "gttd_util.h"
#include "gttrun.h"
#include "version.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"chat", cmd_chat, "answer a prompt, or hold a conversation"},
    {"serve", cmd_serve, "OpenAI-compatible HTTP server"},
    {"bench", cmd_bench, "prefill and decode speed"},
    {"logits", cmd_logits, "float32 logits of token ids, as a .npy file"},
    {"tokenize", cmd_tokenize, "text on stdin to token ids, or back"},
    {"quantize", cmd_quantize, "write a model's weights as int4 or int8"},
    {"devices", cmd_devices, "Vulkan devices and the memory path each would use"},
};

static void print_help(FILE *out)
{
    fputs("Usage: gttrun COMMAND [OPTION...]\n"
          "Run language models from weights that live in gttd's memory pool.\n\n",
          out);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    }
    fputs("\n`gttrun COMMAND --help` describes a command.\n", out);
}

/* The one place that notices what printf() could not write. */
static int check_stdout(int status)
{
    if (status == EXIT_OK && (fflush(stdout) != 0 || ferror(stdout))) {
        complain("stdout: cannot be written");
        return EXIT_FAILED;
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
        printf("gttrun %s\n", GTTD_VERSION_TEXT);
        return check_stdout(EXIT_OK);
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return check_stdout(commands[i].run(argc - 1, argv + 1));
        }
    }
    complain("%s: no such command; see `gttrun --help`", argv[1]);
    return EXIT_USAGE;
}
