/* SPDX-License-Identifier: MIT */
/* Starting, asking and ending a real gttd: see rig.h. */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "gttd_util.h"

#define PATIENCE_MS 10000 /* sanitizers and busy machines are slow */

void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

static void exec_gttd(struct rig *rig, const char *const *args)
{
    char socket_arg[128];
    char config_arg[128];
    const char *argv[16] = {GTTD_BINARY, "--heap=memfd", config_arg, socket_arg};
    size_t n = 4;
    snprintf(config_arg, sizeof config_arg, "--config=%s", rig->conf);
    snprintf(socket_arg, sizeof socket_arg, "--socket=%s", rig->socket);
    while (args && *args && n + 1 < ARRAY_SIZE(argv)) {
        argv[n++] = *args++;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int fd = rig->log_fd ? rig->log_fd : open(rig->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, STDERR_FILENO);
    close(fd);
    execv(GTTD_BINARY, (char *const *)argv);
    _exit(127);
}

static bool answers(const struct rig *rig)
{
    struct gtt *gtt;
    if (gtt_connect(rig->socket, "rig", &gtt) < 0) {
        return false;
    }
    gtt_disconnect(gtt);
    return true;
}

void rig_configure(const struct rig *rig, const char *text)
{
    FILE *f = fopen(rig->conf, "we");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

bool rig_borrow(struct rig *rig)
{
    const char *path = getenv("GTTD_RIG_SOCKET"), *pid = getenv("GTTD_RIG_PID");
    if (!path || !pid) {
        return false;
    }
    *rig = (struct rig){.pid = (pid_t)strtol(pid, NULL, 10), .borrowed = true};
    snprintf(rig->socket, sizeof rig->socket, "%s", path);
    CHECK(rig->pid > 0 && answers(rig));
    return true;
}

void rig_start(struct rig *rig, const char *const *args)
{
    if (!rig->dir[0]) {
        strcpy(rig->dir, "/tmp/gttd-test-XXXXXX");
        CHECK(mkdtemp(rig->dir));
        snprintf(rig->socket, sizeof rig->socket, "%s/sock", rig->dir);
        snprintf(rig->log, sizeof rig->log, "%s/log", rig->dir);
        snprintf(rig->conf, sizeof rig->conf, "%s/conf", rig->dir);
        rig_configure(rig, "floor = 16M\n");
    }
    rig->pid = fork();
    CHECK(rig->pid >= 0);
    if (rig->pid == 0) {
        exec_gttd(rig, args);
    }
    for (int ms = 0; !answers(rig); ms += 10) {
        int status;
        CHECK(waitpid(rig->pid, &status, WNOHANG) == 0);
        CHECK(ms < PATIENCE_MS);
        sleep_ms(10);
    }
}

int rig_wait(struct rig *rig)
{
    int status;
    CHECK(waitpid(rig->pid, &status, 0) == rig->pid);
    rig->pid = -1;
    return status;
}

void rig_clean(struct rig *rig)
{
    static const char *const files[] = {"sock", "sock.lock", "log", "conf"};
    char path[128];
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        snprintf(path, sizeof path, "%s/%s", rig->dir, files[i]);
        unlink(path);
    }
    CHECK_EQ(rmdir(rig->dir), 0);
    *rig = (struct rig){0};
}

void rig_stop(struct rig *rig)
{
    if (rig->borrowed) {
        return;
    }
    CHECK_EQ(kill(rig->pid, SIGTERM), 0);
    int status = rig_wait(rig);
    if (status) { /* a sanitizer's report, perhaps */
        FILE *f = fopen(rig->log, "re");
        int c;
        while (f && (c = fgetc(f)) != EOF) {
            fputc(c, stderr);
        }
    }
    CHECK_EQ(status, 0);
    CHECK(access(rig->socket, F_OK) < 0);
    rig_clean(rig);
}

bool rig_logged(const struct rig *rig, const char *text)
{
    char line[1200];
    bool found = false;
    FILE *f = fopen(rig->log, "re");
    CHECK(f);
    while (!found && fgets(line, sizeof line, f)) {
        found = strstr(line, text);
    }
    fclose(f);
    return found;
}

struct gtt *rig_connect(const struct rig *rig)
{
    struct gtt *gtt;
    int r = gtt_connect(rig->socket, "test", &gtt);
    if (r < 0) {
        fprintf(stderr, "%s\n", gtt_last_error(NULL));
    }
    CHECK_EQ(r, 0);
    return gtt;
}

int rig_raw(const struct rig *rig)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    strcpy(addr.sun_path, rig->socket);
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    CHECK(sock >= 0);
    CHECK_EQ(connect(sock, (struct sockaddr *)&addr, sizeof addr), 0);
    return sock;
}

void raw_send(int sock, void *msg, size_t size, enum gttd_op op, uint32_t serial)
{
    struct gttd_hdr *hdr = msg;
    *hdr = gttd_header(size, op, serial);
    CHECK_EQ(gttd_send(sock, hdr, -1), 0);
}

int raw_recv(int sock, union gttd_msg *msg, int *ret_fd)
{
    struct pollfd pfd = {.fd = sock, .events = POLLIN};
    size_t size;
    int fd = -1;
    CHECK_EQ(poll(&pfd, 1, PATIENCE_MS), 1);
    CHECK_EQ(gttd_recv(sock, 0, msg, &size, &fd), 0);
    CHECK_EQ(gttd_decode(GTTD_FROM_DAEMON, msg, size, NULL), 0);
    CHECK_EQ(gttd_wants_fd(GTTD_FROM_DAEMON, &msg->hdr), fd >= 0);
    if (ret_fd) {
        *ret_fd = fd;
    } else {
        close_fdp(&fd);
    }
    return msg->hdr.status;
}

void raw_expect_end(int sock)
{
    char buf[8192];
    ssize_t n;
    do {
        struct pollfd pfd = {.fd = sock, .events = POLLIN};
        CHECK_EQ(poll(&pfd, 1, PATIENCE_MS), 1);
        n = recv(sock, buf, sizeof buf, 0);
    } while (n > 0);
    CHECK(n == 0 || errno == ECONNRESET);
}

int rig_raw_greeted(const struct rig *rig)
{
    struct gttd_hello_req req = {.label = "raw"};
    union gttd_msg msg;
    int sock = rig_raw(rig);
    raw_send(sock, &req, sizeof req, GTTD_OP_HELLO, 1);
    CHECK_EQ(raw_recv(sock, &msg, NULL), 0);
    return sock;
}

static bool same_count(const struct rig_count *a, const struct rig_count *b)
{
    return a->n_fds == b->n_fds && a->used_bytes == b->used_bytes &&
           a->loose_bytes == b->loose_bytes && a->n_clients == b->n_clients &&
           a->n_segments == b->n_segments && a->n_leases == b->n_leases &&
           a->n_waiters == b->n_waiters;
}

static int count_ballast_fds(const char *proc_fd_dir)
{
    int n = 0;
    DIR *dir = opendir(proc_fd_dir);
    CHECK(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        char link[64];
        ssize_t len = readlinkat(dirfd(dir), entry->d_name, link, sizeof link - 1);
        link[len < 0 ? 0 : len] = '\0';
        n += !strncmp(link, "/memfd:gttd:ballast", strlen("/memfd:gttd:ballast"));
    }
    closedir(dir);
    return n;
}

/* What gttd holds at this moment, without the connection that asks. */
static struct rig_count count_now(const struct rig *rig)
{
    char path[64];
    struct gtt_status status;
    struct gtt *gtt = rig_connect(rig);
    CHECK_EQ(gtt_status(gtt, &status), 0);
    snprintf(path, sizeof path, "/proc/%d/fd", (int)rig->pid);
    uint64_t held = status.used_bytes + status.ballast_bytes;
    struct rig_count count = {.n_fds = count_fds(path) - count_ballast_fds(path) - 1,
                              .used_bytes = status.used_bytes,
                              .loose_bytes =
                                  status.capacity_bytes ? status.capacity_bytes - held : 0,
                              .n_clients = status.n_clients - 1,
                              .n_segments = status.n_segments,
                              .n_leases = status.n_leases,
                              .n_waiters = status.n_waiters};
    gtt_disconnect(gtt);
    return count;
}

/*
 * On a busy machine gttd may be seen in the middle of something short, with an fd open that it is
 * about to close: what counts is what stays.
 */
struct rig_count rig_count(const struct rig *rig)
{
    struct rig_count count = count_now(rig);
    for (int n_same = 1, ms = 0; n_same < 3 && ms < PATIENCE_MS; ms += 5) {
        sleep_ms(5);
        struct rig_count again = count_now(rig);
        n_same = same_count(&again, &count) && !again.loose_bytes ? n_same + 1 : 1;
        count = again;
    }
    return count;
}

void rig_expect_count(const struct rig *rig, const struct rig_count *want)
{
    struct rig_count got;
    for (int ms = 0; ms < PATIENCE_MS; ms += 20) {
        got = rig_count(rig);
        if (same_count(&got, want)) {
            return;
        }
        sleep_ms(20);
    }
    fprintf(stderr, "fds %d, want %d; bytes %llu, want %llu; loose %llu\n", got.n_fds, want->n_fds,
            (unsigned long long)got.used_bytes, (unsigned long long)want->used_bytes,
            (unsigned long long)got.loose_bytes);
    fprintf(stderr, "clients %u, want %u; segments %u, want %u\n", got.n_clients, want->n_clients,
            got.n_segments, want->n_segments);
    CHECK(!"gttd holds what it held before");
}

struct gtt_segment *rig_fill(struct gtt *gtt, const char *name, uint64_t size_bytes, int byte)
{
    struct gtt_create_params params = {.name = name, .size_bytes = size_bytes};
    struct gtt_segment *segment;
    void *base;
    CHECK_EQ(gtt_create(gtt, &params, &segment), 0);
    CHECK_EQ(gtt_segment_map(segment, true, &base), 0);
    memset(base, byte, size_bytes);
    CHECK_EQ(gtt_segment_seal(segment, NULL, NULL, 0), 0);
    return segment;
}

pid_t rig_fork(void (*body)(void *data, int pipe_fd), void *data, int *ret_pipe_fd)
{
    int fds[2];
    CHECK_EQ(pipe(fds), 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(fds[0]);
        body(data, fds[1]);
        _exit(0);
    }
    close(fds[1]);
    *ret_pipe_fd = fds[0];
    return pid;
}

void rig_join(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_EQ(status, 0);
}

void rig_kill(pid_t pid)
{
    int status;
    CHECK_EQ(kill(pid, SIGKILL), 0);
    CHECK(waitpid(pid, &status, 0) == pid);
}

int rig_pipe_byte(int pipe_fd)
{
    struct pollfd pfd = {.fd = pipe_fd, .events = POLLIN};
    unsigned char byte;
    CHECK_EQ(poll(&pfd, 1, PATIENCE_MS), 1);
    CHECK_EQ(read(pipe_fd, &byte, 1), 1);
    return byte;
}
