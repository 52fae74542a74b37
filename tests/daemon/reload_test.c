/* SPDX-License-Identifier: MIT */
/*
 * gttd.conf and a running gttd: what the file says counts, the command line wins, SIGHUP reads it
 * again, a bad one changes nothing and says where it is bad, lower limits take nothing away.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "gttd_util.h"
#include "rig.h"

static struct rig rig;
static char conf[64], config_arg[96]; /* one that tests may remove */
static int notify_sock;

static void write_conf(const char *text)
{
    FILE *f = fopen(conf, "w");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* The next of gttd's notifications. */
static void next_notification(char text[512])
{
    struct pollfd p = {.fd = notify_sock, .events = POLLIN};
    CHECK_EQ(poll(&p, 1, 10000), 1);
    ssize_t n = recv(notify_sock, text, 511, 0);
    CHECK(n > 0);
    text[n] = '\0';
}

static uint64_t monotonic_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* SIGHUP; returns when gttd says that it is ready again, with what it says. */
static void reload(char said[512])
{
    char text[512];
    uint64_t before = monotonic_us(), us;
    CHECK_EQ(kill(rig.pid, SIGHUP), 0);
    next_notification(text);
    CHECK(!strncmp(text, "RELOADING=1\nMONOTONIC_USEC=", 27));
    CHECK_EQ(sscanf(text + 27, "%" SCNu64, &us), 1);
    CHECK(us >= before && us <= monotonic_us());
    next_notification(said);
    CHECK(!strncmp(said, "READY=1\n", 8));
}

static int try_create(struct gtt *gtt, uint64_t size_bytes, struct gtt_segment **ret)
{
    struct gtt_create_params params = {.size_bytes = size_bytes};
    return gtt_create(gtt, &params, ret);
}

static struct gtt_status status(struct gtt *gtt)
{
    struct gtt_status got;
    CHECK_EQ(gtt_status(gtt, &got), 0);
    return got;
}

static void start(const char *text)
{
    char said[512];
    write_conf(text);
    rig_start(&rig, (const char *[]){config_arg, "--floor=16M", NULL});
    next_notification(said);
    CHECK(!strncmp(said, "READY=1", 7));
}

static void test_precedence(void)
{
    char text[128], said[512];
    snprintf(text, sizeof text, "floor = 1000T\npool = 64M\nquota = 2M\nquota.%d = 32M\n",
             (int)geteuid());
    start(text);
    struct gtt *gtt = rig_connect(&rig);
    CHECK_EQ(status(gtt).floor_bytes, 16 * MIB);
    CHECK_EQ(status(gtt).capacity_bytes, 64 * MIB);
    CHECK_EQ(status(gtt).quota_bytes, 32 * MIB);
    CHECK(!status(gtt).share_group);
    write_conf("pool = 128M\nshare = group\npressure = off\n");
    reload(said);
    CHECK(!strcmp(said, "READY=1\nSTATUS="));
    CHECK_EQ(status(gtt).floor_bytes, 16 * MIB);
    CHECK_EQ(status(gtt).capacity_bytes, 128 * MIB);
    CHECK_EQ(status(gtt).quota_bytes, 0);
    CHECK(status(gtt).share_group && !status(gtt).pressure_watched);
    gtt_disconnect(gtt);
    rig_stop(&rig);
}

static void test_bad_file(void)
{
    char said[512], want[160];
    start("pool = 64M\n");
    struct gtt *gtt = rig_connect(&rig);
    struct rig_count before = rig_count(&rig);
    write_conf("pool = 32M\n\nfloo = 1G\n");
    reload(said);
    snprintf(want, sizeof want, "READY=1\nSTATUS=Not reloaded: %s:3: unknown key floo", conf);
    CHECK(!strcmp(said, want));
    snprintf(want, sizeof want, "%s:3: unknown key floo; nothing of it is used", conf);
    CHECK(rig_logged(&rig, want));
    CHECK_EQ(status(gtt).capacity_bytes, 64 * MIB);
    CHECK_EQ(unlink(conf), 0);
    reload(said); /* it was named, so it must be there */
    CHECK(strstr(said, "Not reloaded: ") && strstr(said, "No such file"));
    CHECK_EQ(status(gtt).capacity_bytes, 64 * MIB);
    for (int i = 0; i < 20; i++) {
        write_conf(i % 2 ? "pool = 32M\n" : "pool = none\nx\n");
        reload(said);
    }
    CHECK_EQ(status(gtt).capacity_bytes, 32 * MIB);
    for (int ms = 0; status(gtt).ballast_bytes != 32 * MIB;
         ms += 10) { /* what is reserved follows */
        CHECK(ms < 10000);
        sleep_ms(10);
    }
    rig_expect_count(&rig, &before);
    gtt_disconnect(gtt);
    rig_stop(&rig);
}

static void test_fixed_keys(void)
{
    char said[512];
    start("pool = 64M\n");
    write_conf("device = /dev/dri/renderD200\nanchor = off\npool = 32M\n");
    reload(said);
    CHECK(rig_logged(&rig, "device = /dev/dri/renderD200: only from the next start on"));
    CHECK(rig_logged(&rig, "anchor = off: only from the next start on; it stays auto"));
    struct gtt *gtt = rig_connect(&rig);
    CHECK_EQ(status(gtt).capacity_bytes, 32 * MIB);
    gtt_disconnect(gtt);
    rig_stop(&rig);
}

/* What is leased stays, what is not goes when something else needs the room. */
static void test_lower(void)
{
    char said[512];
    struct gtt_segment *more;
    start("quota = 64M\n");
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_segment *leased = rig_fill(gtt, "leased", 16 * MIB, 1);
    gtt_segment_close(rig_fill(gtt, "idle", 16 * MIB, 2));
    CHECK_EQ(status(gtt).user_bytes, 32 * MIB);
    write_conf("quota = 18M\n");
    reload(said);
    CHECK_EQ(status(gtt).user_bytes, 32 * MIB);
    CHECK_EQ(try_create(gtt, 4 * MIB, &more), -EDQUOT); /* nor does evicting help */
    CHECK(strstr(gtt_last_error(gtt), "4 MiB is over this user's quota of 18 MiB by 2 MiB"));
    CHECK_EQ(status(gtt).user_bytes, 32 * MIB);
    CHECK_EQ(try_create(gtt, 2 * MIB, &more), 0);
    CHECK_EQ(status(gtt).user_bytes, 18 * MIB);
    CHECK_EQ(gtt_segment_verify(leased), 0);
    gtt_segment_close(more);
    gtt_segment_close(leased);
    gtt_disconnect(gtt);
    rig_stop(&rig);
}

/* Run gttd to its end; its output and exit status. */
static int run(const char *const *argv, char output[1024])
{
    int fds[2], code;
    CHECK_EQ(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], STDERR_FILENO);
        execv(GTTD_BINARY, (char *const *)argv);
        _exit(127);
    }
    close(fds[1]);
    size_t n = 0;
    ssize_t got;
    while ((got = read(fds[0], output + n, 1023 - n)) > 0) {
        n += (size_t)got;
    }
    output[n] = '\0';
    close(fds[0]);
    CHECK(waitpid(pid, &code, 0) == pid && WIFEXITED(code));
    return WEXITSTATUS(code);
}

static void test_bad_start(void)
{
    char output[1024], want[160];
    write_conf("pool = 1G\nquotas = 2G\n");
    CHECK_EQ(run((const char *[]){"gttd", config_arg, "--socket=/nonexistent/s", NULL}, output), 1);
    snprintf(want, sizeof want, "%s:2: unknown key quotas\n", conf);
    CHECK(strstr(output, want));
    CHECK_EQ(unlink(conf), 0);
    CHECK_EQ(run((const char *[]){"gttd", config_arg, NULL}, output), 1);
    CHECK(strstr(output, "No such file"));
    CHECK_EQ(run((const char *[]){"gttd", "--share=all", NULL}, output), 2);
    CHECK(strstr(output, "--share: all: there are user and group"));
    CHECK_EQ(run((const char *[]){"gttd", "--pool=0", NULL}, output), 2);
}

int main(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    char dir[] = "/tmp/gttd-reload-XXXXXX";
    CHECK(mkdtemp(dir));
    snprintf(conf, sizeof conf, "%s/conf", dir);
    snprintf(config_arg, sizeof config_arg, "--config=%s", conf);
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s/notify", dir);
    notify_sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(notify_sock >= 0);
    CHECK_EQ(bind(notify_sock, (struct sockaddr *)&addr, sizeof addr), 0);
    setenv("NOTIFY_SOCKET", addr.sun_path, 1);
    void (*const tests[])(void) = {test_precedence, test_bad_file, test_fixed_keys, test_lower};
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        char said[512];
        tests[i]();
        next_notification(said);
        CHECK(!strcmp(said, "STOPPING=1"));
    }
    test_bad_start();
    close(notify_sock);
    CHECK_EQ(unlink(addr.sun_path), 0);
    CHECK_EQ(rmdir(dir), 0);
    return 0;
}
