/* SPDX-License-Identifier: MIT */
/*
 * gttrun's manners, whatever the model says: exit codes, one line on stderr, output that cannot be
 * written, standard streams that are closed. With the argument "vulkan": what bench says of a
 * device.
 */
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "spawn.h"

#define MODEL "models/wordbook-22m"

static char socket_arg[160];

/* Run gttrun under a shell that redirects; exit code, errors are one line (or none). */
static int run_redirected(const char *redirect, const char *command, char **ret_errors)
{
    char script[1024];
    snprintf(script, sizeof script, "exec '%s' %s %s </dev/null %s", GTTRUN_PATH, command,
             socket_arg, redirect);
    struct process p = spawn("/bin/sh", (const char *[]){"-c", script, NULL});
    int status = spawn_wait(&p);
    *ret_errors = spawn_errors(&p);
    spawn_close(&p);
    return status;
}

static void expect_unwritten(const char *redirect, const char *command)
{
    char *errors;
    CHECK_EQ(run_redirected(redirect, command, &errors), 1);
    CHECK(strcmp(errors, "gttrun: stdout: cannot be written\n") == 0);
    free(errors);
}

#define CHAT "chat -q -m " MODEL " --backend cpu --temp 0 -n 3"

static void test_stdout(void)
{
    expect_unwritten(">/dev/full", CHAT " -p hi");
    expect_unwritten(">/dev/full", CHAT " -p hi --json");
    expect_unwritten(">&-", CHAT " -p hi");
    char *errors;
    CHECK_EQ(run_redirected("2>&-", CHAT " -p hi", &errors), 0);
    free(errors);
}

static void test_usage(void)
{
    static const char *const commands[][8] = {
        {"chat", "-p", "x"},
        {"serve"},
        {"chat", "-m", MODEL, "--temp", "hot"},
        {"chat", "-m", MODEL, "stray"},
        {"chat", "--what"},
        {"bench", "-m", MODEL, "--random", "1b"},
        {"logits", "-m", MODEL, "--ids", "2"},
        {"nothing"},
    };
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        char *errors;
        CHECK_EQ(run_gttrun(commands[i], NULL, &errors), 2);
        CHECK(strncmp(errors, "gttrun", 6) == 0);
        free(errors);
    }
}

#define BENCH "bench -q -m " MODEL " --backend cpu -r 1 -p 8 -n 8"

/* What bench prints it can compare with; what it has not printed is refused before any work. */
static void test_bench_compare(void)
{
    char redirect[200], compare[400], *errors;
    snprintf(redirect, sizeof redirect, ">%s/earlier", spawn_dir());
    CHECK_EQ(run_redirected(redirect, BENCH " --json", &errors), 0);
    free(errors);
    snprintf(compare, sizeof compare, BENCH " --json --compare %s/earlier", spawn_dir());
    snprintf(redirect, sizeof redirect, "| grep -q '\"compared\":{.*\"prefill\":.*\"decode\":'");
    CHECK_EQ(run_redirected(redirect, compare, &errors), 0);
    free(errors);
    snprintf(compare, sizeof compare, BENCH " --compare %s/config.json", MODEL);
    CHECK_EQ(run_redirected("", compare, &errors), 1);
    CHECK(strstr(errors, "gttrun bench has not printed this"));
    free(errors);
}

/* Every pass that was asked for is timed, kernel by kernel. */
static void test_bench_profile(void)
{
    char redirect[300], *errors;
    snprintf(redirect, sizeof redirect,
             "| grep -q '\"prefill_kernels\":.{.*\"decode_kernels\":.{.*\"batch_kernels\":.{'");
    CHECK_EQ(run_redirected(redirect,
                            "bench -q -m " MODEL
                            " --backend vulkan -r 1 -p 8 -n 4 -b 3 --profile --json",
                            &errors),
             0);
    CHECK(errors[0] == '\0');
    free(errors);
}

/* A NUL is no end of text. */
static void test_ids_with_nul(void)
{
    struct process p = spawn_gttrun((const char *[]){"tokenize", "-m", MODEL, "--decode", NULL});
    CHECK(write(p.stdin_fd, "104 \0 105", 9) == 9);
    CHECK_EQ(spawn_wait(&p), 1);
    char *errors = spawn_errors(&p);
    CHECK(strstr(errors, "not a token id"));
    free(errors);
    spawn_close(&p);
}

static void run_logits(const char *out)
{
    CHECK_EQ(run_gttrun((const char *[]){"logits", "-q", "-m", MODEL, "--backend", "cpu", "--ids",
                                         "2,5", "--out", out, socket_arg, NULL},
                        NULL, NULL),
             0);
}

/* What is no file is written to, not replaced by one. */
static void test_device_as_output(void)
{
    char path[160];
    struct stat st;
    snprintf(path, sizeof path, "%s/null", spawn_dir());
    CHECK(symlink("/dev/null", path) == 0);
    run_logits(path);
    CHECK(stat(path, &st) == 0 && S_ISCHR(st.st_mode));
    snprintf(path, sizeof path, "%s/out.npy", spawn_dir());
    run_logits(path);
    CHECK(stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 128);
}

/* Whether there is a device that would be used. */
static bool has_device(void)
{
    struct process p =
        spawn("/bin/sh",
              (const char *[]){"-c", "'" GTTRUN_PATH "' devices --json | grep -q '\"usable\":true'",
                               NULL});
    int status = spawn_wait(&p);
    spawn_close(&p);
    return status == 0;
}

int main(int argc, char **argv)
{
    bool on_vulkan = argc > 1 && strcmp(argv[1], "vulkan") == 0;
    char socket_path[128];
    snprintf(socket_path, sizeof socket_path, "%s/gttd.sock", spawn_dir());
    snprintf(socket_arg, sizeof socket_arg, "--socket=%s", socket_path);
    atexit(spawn_clean_up);
    struct process gttd = spawn_gttd(socket_path, NULL);

    if (on_vulkan) {
        if (!has_device()) {
            printf("skipped: no Vulkan device can be used\n");
            return SKIP;
        }
        test_bench_profile();
    } else {
        test_stdout();
        test_usage();
        test_bench_compare();
        test_ids_with_nul();
        test_device_as_output();
    }

    kill(gttd.pid, SIGTERM);
    CHECK_EQ(spawn_wait(&gttd), 0);
    char *log = spawn_errors(&gttd);
    CHECK(!strstr(log, "disconnected")); /* nobody has printed into the socket */
    free(log);
    spawn_close(&gttd);
    return 0;
}
