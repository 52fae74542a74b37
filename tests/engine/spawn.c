/* SPDX-License-Identifier: MIT */
/* Starting programs: see spawn.h. GTTD_PATH and GTTRUN_PATH come from CMake. */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

static char dir[64];

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

const char *spawn_dir(void)
{
    if (!dir[0]) {
        strcpy(dir, "/tmp/gttd-test-XXXXXX");
        CHECK(mkdtemp(dir));
    }
    return dir;
}

void spawn_clean_up(void)
{
    if (dir[0]) {
        nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
        dir[0] = '\0';
    }
}

static int temp_file(void)
{
    char path[96];
    snprintf(path, sizeof path, "%s/out-XXXXXX", spawn_dir());
    int fd = mkostemp(path, O_CLOEXEC);
    CHECK(fd >= 0);
    unlink(path);
    return fd;
}

struct process spawn(const char *program, const char *const *args)
{
    struct process p;
    int in[2];
    char *argv[64];
    size_t n = 0;
    argv[n++] = (char *)program;
    while (args && *args) {
        CHECK(n < 63);
        argv[n++] = (char *)*args++;
    }
    argv[n] = NULL;
    CHECK(pipe2(in, O_CLOEXEC) == 0);
    p.stdin_fd = in[1];
    p.stdout_fd = temp_file();
    p.stderr_fd = temp_file();
    p.pid = fork();
    CHECK(p.pid >= 0);
    if (p.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nothing running */
        dup2(in[0], 0);
        dup2(p.stdout_fd, 1);
        dup2(p.stderr_fd, 2);
        execv(program, argv);
        perror(program);
        _exit(127);
    }
    close(in[0]);
    return p;
}

static char *read_all(int fd)
{
    struct stat st;
    CHECK(fstat(fd, &st) == 0);
    char *text = malloc((size_t)st.st_size + 1);
    CHECK(text);
    ssize_t n = pread(fd, text, (size_t)st.st_size, 0);
    CHECK(n >= 0);
    text[n] = '\0';
    return text;
}

char *spawn_output(const struct process *p)
{
    return read_all(p->stdout_fd);
}

char *spawn_errors(const struct process *p)
{
    return read_all(p->stderr_fd);
}

static void nap_ms(int ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
}

void spawn_expect(const struct process *p, bool in_errors, const char *text)
{
    for (int i = 0; i < 6000; i++) {
        siginfo_t info = {0};
        bool ended = waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
                     info.si_pid == p->pid;
        char *got = read_all(in_errors ? p->stderr_fd : p->stdout_fd);
        bool found = strstr(got, text);
        if (!found && (ended || i == 5999)) {
            fprintf(stderr, "expected \"%s\" in \"%s\" (%s)\n", text, got,
                    ended ? "the program ended" : "60 s passed");
            char *errors = spawn_errors(p);
            fprintf(stderr, "its errors: %s\n", errors);
            free(errors);
            exit(1);
        }
        free(got);
        if (found) {
            return;
        }
        nap_ms(10);
    }
}

int spawn_wait(struct process *p)
{
    int status;
    if (p->stdin_fd >= 0) {
        close(p->stdin_fd);
        p->stdin_fd = -1;
    }
    CHECK(waitpid(p->pid, &status, 0) == p->pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void spawn_close(struct process *p)
{
    if (p->stdin_fd >= 0) {
        close(p->stdin_fd);
    }
    close(p->stdout_fd);
    close(p->stderr_fd);
}

struct process spawn_gttd(const char *socket_path, const char *const *more_args)
{
    char socket_arg[160];
    const char *args[16] = {socket_arg, "--heap=memfd"};
    snprintf(socket_arg, sizeof socket_arg, "--socket=%s", socket_path);
    for (size_t i = 2; more_args && *more_args; i++) {
        CHECK(i < 15);
        args[i] = *more_args++;
    }
    struct process p = spawn(GTTD_PATH, args);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    CHECK(strlen(socket_path) < sizeof addr.sun_path);
    strcpy(addr.sun_path, socket_path);
    for (int i = 0;; i++) {
        int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        CHECK(s >= 0);
        int r = connect(s, (struct sockaddr *)&addr, sizeof addr);
        close(s);
        if (r == 0) {
            return p;
        }
        CHECK(i < 3000);
        nap_ms(10);
    }
}

struct process spawn_gttrun(const char *const *args)
{
    return spawn(GTTRUN_PATH, args);
}

int run_gttrun(const char *const *args, char **ret_out, char **ret_err)
{
    struct process p = spawn_gttrun(args);
    int status = spawn_wait(&p);
    if (ret_out) {
        *ret_out = spawn_output(&p);
    }
    if (ret_err) {
        *ret_err = spawn_errors(&p);
    }
    spawn_close(&p);
    return status;
}
