/* SPDX-License-Identifier: MIT */
/*
 * What the commands of gttrun share: the options that choose a model and where it runs, messages
 * and progress on stderr. Each command is one file with one function cmd_NAME(argc, argv) that
 * returns the exit code: 0 ok, 1 failed, 2 usage.
 */
#ifndef GTTRUN_H
#define GTTRUN_H

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

#include "clock.h"
#include "llm.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* -m, --backend, --device, --threads, --context, --private, --socket, --validate, --quiet. */
struct model_options {
    const char *model;
    const char *random_size; /* set by bench only */
    const char *backend;
    const char *device;
    uint32_t n_threads;
    uint32_t context;
    bool private_weights;
    bool validate;
    bool quiet;
    const char *socket;
    char cache_dir[512]; /* filled by open_engine() */
};

/* A child parser for struct model_options; the parent's parser sets child_inputs[0]. */
extern const struct argp model_argp;

/* Parse a command's arguments; exits with EXIT_USAGE on bad ones, as argp does. */
void parse_args(const struct argp *argp, int argc, char **argv, void *input);

/* "gttrun: text" on stderr. */
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A number argument within limits, or argp_error(). */
uint64_t number_arg(struct argp_state *state, const char *what, const char *arg, uint64_t min,
                    uint64_t max);
double real_arg(struct argp_state *state, const char *what, const char *arg, double min,
                double max);

/* Open the engine that the options ask for, with messages and a progress bar; NULL after
 * complaining. */
struct llm_engine *open_engine(struct model_options *options);

/* A progress bar on stderr for work that takes over a second, if stderr is a terminal. The
 * signature is that of llm_engine_params.progress. */
int show_progress(void *data, const char *what, uint64_t done, uint64_t total);

/* $XDG_CACHE_HOME/gttd or ~/.cache/gttd, made if missing; empty if neither can be had. */
void find_cache_dir(char *dir, size_t size);

/* Nanoseconds from the start of this process to a time of now_ns(). */
uint64_t since_start_ns(uint64_t when_ns);

/* Everything on stdin, malloc'ed and NUL-terminated; NULL after complaining. */
char *read_stdin(size_t *ret_size);

int cmd_chat(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_logits(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_quantize(int argc, char **argv);
int cmd_devices(int argc, char **argv);

#endif
