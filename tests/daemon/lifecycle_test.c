/* SPDX-License-Identifier: MIT */
/* Starting and ending: sockets, a second gttd, activation by systemd, SIGTERM, kill -9. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "gttd_util.h"
#include "rig.h"

static struct rig rig;

/* Run gttd to its end; returns the exit code. Its stderr goes to the rig's log. */
static int run_gttd(const char *const *args)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        const char *argv[16] = {GTTD_BINARY};
        size_t n = 1;
        while (*args) {
            argv[n++] = *args++;
        }
        int fd = open(rig.log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, STDERR_FILENO);
        dup2(fd, STDOUT_FILENO);
        execv(GTTD_BINARY, (char *const *)argv);
        _exit(127);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_command_line(void)
{
    char socket_arg[160];
    snprintf(socket_arg, sizeof socket_arg, "--socket=%s2", rig.socket);
    CHECK_EQ(run_gttd((const char *[]){"--version", NULL}), 0);
    CHECK_EQ(run_gttd((const char *[]){"--help", NULL}), 0);
    CHECK(rig_logged(&rig, "--heap=HEAP"));
    CHECK_EQ(run_gttd((const char *[]){"--pool=much", NULL}), 2);
    CHECK(rig_logged(&rig, "not a size"));
    CHECK_EQ(run_gttd((const char *[]){"--what", NULL}), 2);
    CHECK_EQ(run_gttd((const char *[]){"stray", NULL}), 2);
    CHECK_EQ(run_gttd((const char *[]){"--heap=tape", socket_arg, NULL}), 2);
    CHECK(rig_logged(&rig, "tape: there are auto"));
    /* a device that is asked for and is not there is never replaced by something else */
    CHECK_EQ(run_gttd((const char *[]){"--device=/dev/dri/none", socket_arg, NULL}), 1);
    CHECK(rig_logged(&rig, "/dev/dri/none is not a render node"));
    CHECK_EQ(run_gttd((const char *[]){"--heap=memfd", "--anchor=/dev/null", socket_arg, NULL}), 1);
    CHECK(rig_logged(&rig, "has no device and no anchor"));
    CHECK_EQ(run_gttd((const char *[]){"--socket=/nonexistent/sock", NULL}), 1);
    CHECK(rig_logged(&rig, "/nonexistent/sock"));
    if (access("/dev/udmabuf", F_OK) < 0) {
        CHECK_EQ(run_gttd((const char *[]){"--heap=udmabuf", socket_arg, NULL}), 1);
        CHECK(rig_logged(&rig, "/dev/udmabuf"));
    }
    char path[128];
    snprintf(path, sizeof path, "%s2", rig.socket);
    CHECK(access(path, F_OK) < 0); /* failed starts leave no socket */
    snprintf(path, sizeof path, "%s2.lock", rig.socket);
    unlink(path);
}

static void test_second_gttd(void)
{
    char socket_arg[160], path[128];
    struct stat st;
    snprintf(socket_arg, sizeof socket_arg, "--socket=%s", rig.socket);
    CHECK_EQ(run_gttd((const char *[]){socket_arg, NULL}), 1);
    CHECK(rig_logged(&rig, "another gttd is using"));
    CHECK_EQ(stat(rig.socket, &st), 0);
    const struct group *render = geteuid() == 0 ? getgrnam("render") : NULL;
    CHECK_EQ(st.st_mode & 07777, render ? 0660 : 0600);
    CHECK_EQ(st.st_gid, render ? render->gr_gid : getegid());
    /* somebody who is no gttd and holds no lock */
    snprintf(path, sizeof path, "%s2", rig.socket);
    snprintf(socket_arg, sizeof socket_arg, "--socket=%s", path);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    strcpy(addr.sun_path, path);
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    CHECK_EQ(bind(sock, (struct sockaddr *)&addr, sizeof addr), 0);
    CHECK_EQ(listen(sock, 1), 0);
    CHECK_EQ(run_gttd((const char *[]){socket_arg, NULL}), 1);
    CHECK(rig_logged(&rig, "somebody is listening"));
    close(sock);
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600); /* no socket at all */
    close(fd);
    CHECK_EQ(run_gttd((const char *[]){socket_arg, NULL}), 1);
    CHECK(rig_logged(&rig, "is no socket"));
    unlink(path);
    strcat(path, ".lock");
    unlink(path);
}

/* A gttd that hangs and whose backlog is full: connecting ends all the same. */
static void test_full_backlog(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct gtt *gtt;
    int waiting[8], n = 0;
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s3", rig.socket);
    AUTO_FD listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    CHECK(bind(listener, (struct sockaddr *)&addr, sizeof addr) == 0 && listen(listener, 0) == 0);
    do {
        CHECK(n < 8);
        waiting[n] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    } while (connect(waiting[n++], (struct sockaddr *)&addr, sizeof addr) == 0);
    CHECK_EQ(errno, EAGAIN);
    CHECK_EQ(gtt_connect(addr.sun_path, "test", &gtt), -ETIMEDOUT);
    while (n) {
        close(waiting[--n]);
    }
    unlink(addr.sun_path);
}

/* In a child: hold a lease and a wait while gttd is killed; the mapping outlives it. */
static void survivor(void *data, int pipe_fd)
{
    struct gtt *gtt = rig_connect(&rig), *waiter = rig_connect(&rig);
    struct gtt_segment *segment, *none;
    uint8_t *base;
    (void)data;
    CHECK_EQ(gtt_open(gtt, "kept", 0, 0, &segment), 0);
    CHECK_EQ(gtt_segment_map(segment, false, (void **)&base), 0);
    CHECK_EQ(write(pipe_fd, "x", 1), 1);
    CHECK_EQ(gtt_open(waiter, "slow", GTT_OPEN_WAIT, -1, &none), -ECONNRESET);
    CHECK(strstr(gtt_last_error(waiter), "ended the connection"));
    CHECK_EQ(gtt_open(waiter, "slow", 0, 0, &none), -ECONNRESET);
    for (uint64_t i = 0; i < 8 * MIB; i += 4096) {
        CHECK_EQ(base[i], 5);
    }
    CHECK_EQ(gtt_segment_verify(segment), 0);
    CHECK_EQ(gtt_drop(gtt, "kept", 0), -ECONNRESET);
    int fd;
    CHECK_EQ(gtt_segment_chunk_fd(segment, 0, &fd), 0); /* it has been fetched */
    gtt_segment_close(segment);
    gtt_disconnect(gtt);
    gtt_disconnect(waiter);
}

static void test_kill_daemon(void)
{
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_segment *segment;
    int pipe_fd;
    gtt_segment_close(rig_fill(gtt, "kept", 8 * MIB, 5));
    CHECK_EQ(gtt_open(gtt, "slow", GTT_OPEN_FILL, 0, &segment), 1);
    pid_t pid = rig_fork(survivor, NULL, &pipe_fd);
    rig_pipe_byte(pipe_fd);
    sleep_ms(50); /* until it waits */
    CHECK_EQ(kill(rig.pid, SIGKILL), 0);
    rig_wait(&rig);
    rig_join(pid);
    close(pipe_fd);
    gtt_disconnect(gtt);
    CHECK_EQ(access(rig.socket, F_OK), 0); /* stale */
    rig_start(&rig, NULL);
    gtt = rig_connect(&rig);
    CHECK_EQ(gtt_open(gtt, "kept", 0, 0, &segment), -ENOENT); /* as HELLO says */
    gtt_disconnect(gtt);
}

/* In a child: wait for a name that nobody seals, until gttd ends. */
static void told_of_the_end(void *data, int pipe_fd)
{
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_segment *segment;
    (void)data;
    CHECK_EQ(write(pipe_fd, "x", 1), 1);
    CHECK_EQ(gtt_open(gtt, "slow", GTT_OPEN_WAIT, -1, &segment), -ESHUTDOWN);
    CHECK(strstr(gtt_last_error(gtt), "ending"));
    gtt_disconnect(gtt);
}

/* SIGTERM: waits are answered, one who does not read does not hold it up, what is lost is said. */
static void test_drain(void)
{
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_segment *segment;
    int pipe_fd;
    gtt_segment_close(rig_fill(gtt, "lost", 8 * MIB, 5));
    CHECK_EQ(gtt_open(gtt, "slow", GTT_OPEN_FILL, 0, &segment), 1);
    pid_t pid = rig_fork(told_of_the_end, NULL, &pipe_fd);
    rig_pipe_byte(pipe_fd);
    int deaf = rig_raw_greeted(&rig);
    struct gttd_list_req list = {gttd_header(sizeof list, GTTD_OP_LIST, 5), 0};
    for (int i = 0; i < 200; i++) {
        send(deaf, &list, sizeof list, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    int sock = rig_raw_greeted(&rig); /* and with memory on its way */
    struct gttd_create_req create = {.size_bytes = 1024 * MIB};
    raw_send(sock, &create, sizeof create, GTTD_OP_CREATE, 2);
    while (rig_count(&rig).n_waiters != 1) {
        sleep_ms(5);
    }
    CHECK_EQ(kill(rig.pid, SIGTERM), 0);
    CHECK_EQ(rig_wait(&rig), 0);
    rig_join(pid);
    close(pipe_fd);
    close(deaf);
    close(sock);
    gtt_disconnect(gtt);
    CHECK(access(rig.socket, F_OK) < 0);
    CHECK(rig_logged(&rig, "SIGTERM: ending"));
    CHECK(rig_logged(&rig, "1 sealed segments are lost (8 MiB)"));
}

/* Under systemd-socket-activate: started by the first connection, on the socket it passes. */
static bool test_activation(void)
{
    static const char tool[] = "/usr/bin/systemd-socket-activate";
    struct gtt *gtt = NULL;
    if (access(tool, X_OK) < 0) {
        printf("%s is missing\n", tool);
        return false;
    }
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = open(rig.log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, STDERR_FILENO);
        execl(tool, tool, "--seqpacket", "-l", rig.socket, GTTD_BINARY, "--heap=memfd", NULL);
        _exit(127);
    }
    int r = -1;
    for (int ms = 0; r < 0 && ms < 10000; ms += 10) {
        r = gtt_connect(rig.socket, "activator", &gtt);
        sleep_ms(10);
    }
    CHECK_EQ(r, 0);
    gtt_segment_close(rig_fill(gtt, "activated", 2 * MIB, 1));
    gtt_disconnect(gtt);
    CHECK_EQ(kill(pid, SIGTERM), 0); /* the tool has become gttd */
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_EQ(status, 0);
    CHECK_EQ(access(rig.socket, F_OK), 0); /* systemd's to remove */
    unlink(rig.socket);
    return true;
}

int main(void)
{
    rig_start(&rig, NULL);
    test_command_line();
    test_second_gttd();
    test_full_backlog();
    test_kill_daemon();
    test_drain();
    bool all = test_activation();
    rig_clean(&rig);
    return all ? 0 : SKIP;
}
