/* SPDX-License-Identifier: MIT */
/* An fd store for gttd: see supervisor.h. */
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "gttd_util.h"

#define PATIENCE_MS  10000
#define FDS_PER_SEND 253

/* ---- the store; all with the lock held ---- */

static void add(struct supervisor *sup, const char *name, int fd_consume)
{
    if (sup->n_fds >= sup->fds_max || sup->n_fds == SUP_FDS_MAX) {
        sup->n_refused++;
        close(fd_consume);
        return;
    }
    struct sup_fd *stored = &sup->fds[sup->n_fds++];
    snprintf(stored->name, sizeof stored->name, "%s", name);
    stored->fd = fd_consume;
}

static void take_out(struct supervisor *sup, unsigned at)
{
    close(sup->fds[at].fd);
    sup->fds[at] = sup->fds[--sup->n_fds]; /* like the real one, it keeps no order */
}

static void remove_all(struct supervisor *sup, const char *name)
{
    for (unsigned i = sup->n_fds; i-- > 0;) {
        if (!strcmp(sup->fds[i].name, name)) {
            take_out(sup, i);
        }
    }
}

/* What a message says. */
struct notice {
    bool store, remove, barrier, ready, no_poll;
    char name[256];
};

static struct notice parse(char *text)
{
    struct notice notice = {.name = "stored"};
    char *save;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        notice.store = notice.store || !strcmp(line, "FDSTORE=1");
        notice.remove = notice.remove || !strcmp(line, "FDSTOREREMOVE=1");
        notice.barrier = notice.barrier || !strcmp(line, "BARRIER=1");
        notice.ready = notice.ready || !strcmp(line, "READY=1");
        notice.no_poll = notice.no_poll || !strcmp(line, "FDPOLL=0");
        if (!strncmp(line, "FDNAME=", 7)) {
            CHECK(strlen(line + 7) < 255 && !strchr(line + 7, ':'));
            snprintf(notice.name, sizeof notice.name, "%s", line + 7);
        }
    }
    return notice;
}

/* Consumes fds. */
static void process(struct supervisor *sup, const struct notice *notice, int *fds, unsigned n_fds)
{
    bool about_fds = notice->store || notice->remove || notice->barrier;
    if (about_fds && sup->kill_at >= 0 && (int)sup->n_messages >= sup->kill_at && !sup->deaf) {
        sup->deaf = true;
        kill(sup->pid, SIGKILL);
    }
    if (!sup->deaf) {
        sup->n_messages += about_fds;
        sup->ready = sup->ready || notice->ready;
        if (notice->remove) {
            remove_all(sup, notice->name);
        }
        CHECK(!notice->store || notice->no_poll);
        while (notice->store && n_fds) {
            add(sup, notice->name, fds[--n_fds]);
        }
    }
    while (n_fds) {
        close(fds[--n_fds]); /* a barrier's, too: that is the answer */
    }
}

static void receive(struct supervisor *sup)
{
    char text[4096];
    int fds[FDS_PER_SEND];
    unsigned n_fds = 0;
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof fds) + CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec iov = {text, sizeof text - 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof control};
    ssize_t n = recvmsg(sup->notify_fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0) {
        return;
    }
    CHECK(!(msg.msg_flags & (MSG_CTRUNC | MSG_TRUNC)));
    text[n] = '\0';
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
        if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS) {
            n_fds = (unsigned)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof fds[0]);
            memcpy(fds, CMSG_DATA(cmsg), n_fds * sizeof fds[0]);
        }
    }
    struct notice notice = parse(text);
    pthread_mutex_lock(&sup->lock);
    process(sup, &notice, fds, n_fds);
    pthread_mutex_unlock(&sup->lock);
}

static bool ended(struct supervisor *sup)
{
    pthread_mutex_lock(&sup->lock);
    bool end = sup->end;
    pthread_mutex_unlock(&sup->lock);
    return end;
}

static void *serve(void *data)
{
    struct supervisor *sup = data;
    while (!ended(sup)) {
        struct pollfd pfd = {.fd = sup->notify_fd, .events = POLLIN};
        if (poll(&pfd, 1, 20) == 1) {
            receive(sup);
        }
    }
    return NULL;
}

/* ---- the process ---- */

static void set_env(const char *name, unsigned long value)
{
    char text[32];
    snprintf(text, sizeof text, "%lu", value);
    setenv(name, text, 1);
}

/* In the child: the socket is fd 3 and the stored ones follow, with their names. */
static void arrange_fds(struct supervisor *sup)
{
    static char names[SUP_FDS_MAX * 32];
    size_t len = (size_t)snprintf(names, sizeof names, "gttd.socket");
    int high = 3 + SUP_FDS_MAX + 64;
    CHECK(dup2(sup->listen_fd, high) >= 0);
    for (unsigned i = 0; i < sup->n_fds; i++) {
        CHECK(dup2(sup->fds[i].fd, high + 1 + (int)i) >= 0);
        len += (size_t)snprintf(names + len, sizeof names - len, ":%s", sup->fds[i].name);
        CHECK(len < sizeof names);
    }
    for (unsigned i = 0; i < sup->n_fds + 1; i++) {
        CHECK(dup2(high + (int)i, 3 + (int)i) >= 0);
    }
    for (int fd = 4 + (int)sup->n_fds; fd < high + 1 + SUP_FDS_MAX; fd++) {
        close(fd);
    }
    set_env("LISTEN_FDS", sup->n_fds + 1);
    set_env("LISTEN_PID", (unsigned long)getpid());
    setenv("LISTEN_FDNAMES", names, 1);
}

static void exec_gttd(struct supervisor *sup)
{
    const char *argv[16] = {GTTD_BINARY, "--heap=memfd", "--floor=16M"};
    size_t n = 3;
    for (const char *const *arg = sup->args; arg && *arg && n + 1 < ARRAY_SIZE(argv); arg++) {
        argv[n++] = *arg;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int fd = open(sup->rig.log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, STDERR_FILENO);
    close(fd);
    arrange_fds(sup);
    setenv("NOTIFY_SOCKET", sup->notify_path, 1);
    set_env("SYSTEMD_EXEC_PID", (unsigned long)getpid());
    if (sup->fds_max) {
        set_env("FDSTORE", sup->fds_max);
    }
    execv(GTTD_BINARY, (char *const *)argv);
    _exit(127);
}

static bool is_ready(struct supervisor *sup)
{
    pthread_mutex_lock(&sup->lock);
    bool ready = sup->ready;
    pthread_mutex_unlock(&sup->lock);
    return ready;
}

void sup_launch(struct supervisor *sup)
{
    pthread_mutex_lock(&sup->lock);
    sup->ready = sup->deaf = false;
    sup->n_messages = 0;
    sup->rig.pid = fork();
    CHECK(sup->rig.pid >= 0);
    if (sup->rig.pid == 0) {
        exec_gttd(sup);
    }
    sup->pid = sup->rig.pid;
    pthread_mutex_unlock(&sup->lock);
    for (int ms = 0; !is_ready(sup); ms++) {
        int status;
        CHECK(waitpid(sup->rig.pid, &status, WNOHANG) == 0);
        CHECK(ms < PATIENCE_MS);
        sleep_ms(1);
    }
}

static int listening_socket(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    CHECK_EQ(bind(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    CHECK_EQ(chmod(path, 0666), 0);
    CHECK_EQ(listen(fd, 64), 0);
    return fd;
}

void sup_listen(struct supervisor *sup)
{
    unlink(sup->rig.socket);
    sup->listen_fd = listening_socket(sup->rig.socket);
}

static int notify_socket(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    CHECK_EQ(bind(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    return fd;
}

void sup_start(struct supervisor *sup, unsigned fds_max, const char *const *args)
{
    struct rlimit nofile;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &nofile), 0);
    nofile.rlim_cur = nofile.rlim_max;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &nofile), 0);
    memset(sup, 0, sizeof *sup);
    struct rig *rig = &sup->rig;
    strcpy(rig->dir, "/tmp/gttd-test-XXXXXX");
    CHECK(mkdtemp(rig->dir));
    CHECK_EQ(chmod(rig->dir, 0755), 0); /* other users connect, too */
    snprintf(rig->socket, sizeof rig->socket, "%s/sock", rig->dir);
    snprintf(rig->log, sizeof rig->log, "%s/log", rig->dir);
    snprintf(sup->notify_path, sizeof sup->notify_path, "%s/notify", rig->dir);
    sup->args = args;
    sup->fds_max = fds_max;
    sup->kill_at = -1;
    sup->listen_fd = listening_socket(rig->socket);
    sup->notify_fd = notify_socket(sup->notify_path);
    pthread_mutex_init(&sup->lock, NULL);
    CHECK_EQ(pthread_create(&sup->thread, NULL, serve, sup), 0);
    sup_launch(sup);
}

void sup_end(struct supervisor *sup, int signal)
{
    if (signal) {
        CHECK_EQ(kill(sup->rig.pid, signal), 0);
    }
    int status = rig_wait(&sup->rig);
    CHECK(signal == SIGTERM ? status == 0 : WIFSIGNALED(status));
    struct pollfd pfd = {.fd = sup->notify_fd, .events = POLLIN};
    while (poll(&pfd, 1, 0) == 1) { /* what it sent is still to be read */
        sleep_ms(1);
    }
    sleep_ms(10);
}

void sup_restart(struct supervisor *sup, int signal)
{
    sup_end(sup, signal);
    sup_launch(sup);
}

void sup_stop(struct supervisor *sup)
{
    sup_end(sup, SIGTERM);
    pthread_mutex_lock(&sup->lock);
    sup->end = true;
    pthread_mutex_unlock(&sup->lock);
    pthread_join(sup->thread, NULL);
    while (sup->n_fds) {
        take_out(sup, 0);
    }
    close(sup->listen_fd);
    close(sup->notify_fd);
    unlink(sup->notify_path);
    pthread_mutex_destroy(&sup->lock);
    rig_clean(&sup->rig);
}

/* ---- looking into the store, and meddling with it ---- */

/* Its place, with the lock held; -1: none. */
static int find(const struct supervisor *sup, const char *name, unsigned index)
{
    for (unsigned i = 0; i < sup->n_fds; i++) {
        if (!strcmp(sup->fds[i].name, name) && index-- == 0) {
            return (int)i;
        }
    }
    return -1;
}

void sup_kill_at(struct supervisor *sup, int n_messages)
{
    pthread_mutex_lock(&sup->lock);
    sup->n_messages = 0;
    sup->kill_at = n_messages;
    pthread_mutex_unlock(&sup->lock);
}

void sup_set_max(struct supervisor *sup, unsigned fds_max)
{
    pthread_mutex_lock(&sup->lock);
    sup->fds_max = fds_max;
    pthread_mutex_unlock(&sup->lock);
}

unsigned sup_refused(struct supervisor *sup)
{
    pthread_mutex_lock(&sup->lock);
    unsigned n = sup->n_refused;
    pthread_mutex_unlock(&sup->lock);
    return n;
}

unsigned sup_count(struct supervisor *sup, const char *name)
{
    unsigned n = 0;
    pthread_mutex_lock(&sup->lock);
    for (unsigned i = 0; i < sup->n_fds; i++) {
        n += !name || !strcmp(sup->fds[i].name, name);
    }
    pthread_mutex_unlock(&sup->lock);
    return n;
}

int sup_get(struct supervisor *sup, const char *name, unsigned index)
{
    pthread_mutex_lock(&sup->lock);
    int at = find(sup, name, index);
    CHECK(at >= 0);
    int fd = sup->fds[at].fd;
    pthread_mutex_unlock(&sup->lock);
    return fd;
}

void sup_replace(struct supervisor *sup, const char *name, unsigned index, int fd_consume)
{
    pthread_mutex_lock(&sup->lock);
    int at = find(sup, name, index);
    CHECK(at >= 0);
    if (fd_consume < 0) {
        take_out(sup, (unsigned)at);
    } else {
        close(sup->fds[at].fd);
        sup->fds[at].fd = fd_consume;
    }
    pthread_mutex_unlock(&sup->lock);
}

void sup_add(struct supervisor *sup, const char *name, int fd_consume)
{
    pthread_mutex_lock(&sup->lock);
    add(sup, name, fd_consume);
    pthread_mutex_unlock(&sup->lock);
}
