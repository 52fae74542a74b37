/* SPDX-License-Identifier: MIT */
/* The options every command that loads a model has, and opening the engine they ask for. */
#include "gttrun.h"
#include "version.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void complain(const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "gttrun: %s\n", text);
}

uint64_t number_arg(struct argp_state *state, const char *what, const char *arg, uint64_t min,
                    uint64_t max)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(arg, &end, 10);
    if (errno || end == arg || *end || arg[0] == '-' || n < min || n > max) {
        argp_error(state, "%s: %s: a whole number from %llu to %llu is needed", what, arg,
                   (unsigned long long)min, (unsigned long long)max);
    }
    return n;
}

double real_arg(struct argp_state *state, const char *what, const char *arg, double min, double max)
{
    char *end;
    double x = strtod(arg, &end);
    if (end == arg || *end || !(x >= min && x <= max)) {
        argp_error(state, "%s: %s: a number from %g to %g is needed", what, arg, min, max);
    }
    return x;
}

enum { OPT_BACKEND = 256, OPT_DEVICE, OPT_THREADS, OPT_PRIVATE, OPT_SOCKET, OPT_VALIDATE };

static const struct argp_option model_arg_options[] = {
    {"model", 'm', "DIR", 0, "model directory in Hugging Face form", 0},
    {"backend", OPT_BACKEND, "NAME", 0,
     "auto (default: a GPU if there is one, else cpu), cpu, vulkan or reference", 0},
    {"device", OPT_DEVICE, "NAME", 0, "Vulkan device: part of its name, or its number", 0},
    {"threads", OPT_THREADS, "N", 0, "CPU threads (default: the cores this process may use)", 0},
    {"context", 'c', "N", 0, "most tokens of prompt and answer together", 0},
    {"private", OPT_PRIVATE, NULL, 0, "load into private memory, do not ask gttd", 0},
    {"socket", OPT_SOCKET, "PATH", 0, "gttd's socket", 0},
    {"validate", OPT_VALIDATE, NULL, 0, "run under Vulkan's validation layers", 0},
    {"quiet", 'q', NULL, 0, "no messages but errors", 0},
    {0},
};

static error_t parse_model_option(int key, char *arg, struct argp_state *state)
{
    struct model_options *o = state->input;
    switch (key) {
    case 'm':
        o->model = arg;
        break;
    case 'c':
        o->context = (uint32_t)number_arg(state, "--context", arg, 1, 1u << 20);
        break;
    case 'q':
        o->quiet = true;
        break;
    case OPT_BACKEND:
        o->backend = arg;
        break;
    case OPT_DEVICE:
        o->device = arg;
        break;
    case OPT_THREADS:
        o->n_threads = (uint32_t)number_arg(state, "--threads", arg, 1, 1024);
        break;
    case OPT_PRIVATE:
        o->private_weights = true;
        break;
    case OPT_SOCKET:
        o->socket = arg;
        break;
    case OPT_VALIDATE:
        o->validate = true;
        break;
    case ARGP_KEY_END:
        if (!o->model && !o->random_size) {
            argp_error(state, "no model: -m DIR is needed");
        }
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

const struct argp model_argp = {.options = model_arg_options, .parser = parse_model_option};

void parse_args(const struct argp *argp, int argc, char **argv, void *input)
{
    char name[64];
    snprintf(name, sizeof name, "gttrun %s", argv[0]);
    argv[0] = name;
    argp_err_exit_status = EXIT_USAGE;
    argp_program_version = "gttrun " GTTD_VERSION_TEXT;
    argp_parse(argp, argc, argv, 0, NULL, input);
}

static uint64_t start_ns;

/*
 * When this process was started, on CLOCK_MONOTONIC. /proc/self/stat has it in ticks of 10 ms only;
 * the CPU time used before this constructor (exec and the dynamic loader) is the better estimate.
 */
__attribute__((constructor)) static void note_start(void)
{
    struct timespec cpu;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    start_ns = now_ns() - ((uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec);
}

uint64_t since_start_ns(uint64_t when_ns)
{
    return when_ns - start_ns;
}

int show_progress(void *data, const char *what, uint64_t done, uint64_t total)
{
    static uint64_t first_ns, last_ns;
    static bool shown;
    const struct model_options *options = data;
    uint64_t now = now_ns();
    if ((options && options->quiet) || !isatty(STDERR_FILENO)) {
        return 0;
    }
    if (first_ns == 0) {
        first_ns = now;
    }
    bool end = done >= total;
    if (now - first_ns > 1000000000u && (end || now - last_ns > 100000000u)) {
        double seconds = (double)(now - first_ns) * 1e-9;
        int filled = total ? (int)(30 * done / total) : 0;
        fprintf(stderr, "\r%s [%.*s%.*s] %5.2f / %.2f GB, %.2f GB/s ", what, filled,
                "##############################", 30 - filled, "..............................",
                (double)done * 1e-9, (double)total * 1e-9, (double)done * 1e-9 / seconds);
        shown = true;
        last_ns = now;
    }
    if (end) {
        if (shown) {
            fputc('\n', stderr);
        }
        first_ns = 0;
        shown = false;
    }
    return 0;
}

static void log_line(void *data, const char *text)
{
    const struct model_options *options = data;
    if (!options->quiet) {
        complain("%s", text);
    }
}

void find_cache_dir(char *dir, size_t size)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char parent[400];
    dir[0] = '\0';
    if (xdg && xdg[0] == '/') {
        snprintf(parent, sizeof parent, "%s", xdg);
    } else if (home && home[0] == '/') {
        snprintf(parent, sizeof parent, "%s/.cache", home);
    } else {
        return;
    }
    mkdir(parent, 0700);
    snprintf(dir, size, "%s/gttd", parent);
    if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
        dir[0] = '\0';
    }
}

struct llm_engine *open_engine(struct model_options *options)
{
    find_cache_dir(options->cache_dir, sizeof options->cache_dir);
    struct llm_engine_params params = {
        .model_dir = options->model,
        .random_size = options->random_size,
        .backend = options->backend,
        .device = options->device,
        .n_threads = options->n_threads,
        .private_weights = options->private_weights,
        .gttd_socket = options->socket,
        .cache_dir = options->cache_dir[0] ? options->cache_dir : NULL,
        .validate = options->validate,
        .log = log_line,
        .progress = show_progress,
        .data = options,
    };
    struct llm_engine *engine;
    struct err err = {{0}};
    if (llm_engine_open(&params, &err, &engine) < 0) {
        complain("%s", err.text);
        return NULL;
    }
    return engine;
}

char *read_stdin(size_t *ret_size)
{
    size_t size = 0, cap = 65536;
    char *text = malloc(cap);
    while (text) {
        size_t n = fread(text + size, 1, cap - size - 1, stdin);
        size += n;
        if (n == 0) {
            if (ferror(stdin)) {
                complain("stdin: %s", strerror(errno));
                free(text);
                return NULL;
            }
            text[size] = '\0';
            *ret_size = size;
            return text;
        }
        if (cap - size < 2) {
            char *more = realloc(text, cap *= 2);
            if (!more) {
                free(text);
            }
            text = more;
        }
    }
    complain("stdin: %s", strerror(ENOMEM));
    return NULL;
}
