/* SPDX-License-Identifier: MIT */
/* gttctl against a real gttd: what it prints, for people and as JSON, its exit codes, its ends. */
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "gtt.h"
#include "spawn.h"

#define SIZE (4u << 20)

static char socket_path[128];
static struct gtt *gtt;

/* Run gttctl to its end. The output is the caller's. */
static int run(const char *const *args, char **ret_out, char **ret_err)
{
    struct process p = spawn(GTTCTL_PATH, args);
    int status = spawn_wait(&p);
    *ret_out = spawn_output(&p);
    *ret_err = spawn_errors(&p);
    spawn_close(&p);
    return status;
}

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* It succeeds with one line of JSON, which is returned. */
static json_t *run_json(const char *const *args)
{
    char *out, *err;
    json_error_t error;
    CHECK_EQ(run(args, &out, &err), 0);
    CHECK(!*err && strchr(out, '\n') == out + strlen(out) - 1);
    json_t *json = json_loads(out, JSON_DISABLE_EOF_CHECK, &error);
    CHECK(json);
    free(out);
    free(err);
    return json;
}

/* It succeeds, every line fits 80 columns and the text is in it. */
static void expect_text(const char *const *args, const char *want)
{
    char *out, *err;
    CHECK_EQ(run(args, &out, &err), 0);
    CHECK(!*err);
    for (const char *line = out; *line; line = strchr(line, '\n') + 1) {
        CHECK(strcspn(line, "\n") <= 80);
    }
    if (!strstr(out, want)) {
        fprintf(stderr, "no \"%s\" in:\n%s", want, out);
        exit(1);
    }
    free(out);
    free(err);
}

/* It fails with this code, with nothing on stdout and an error that starts and goes on like this.
 */
static void expect_error(const char *const *args, int code, const char *start, const char *want)
{
    char *out, *err;
    CHECK_EQ(run(args, &out, &err), code);
    if (*out || strncmp(err, start, strlen(start)) != 0 || !strstr(err, want)) {
        fprintf(stderr, "stdout: %s\nstderr: %s\nwanted: %s ... %s\n", out, err, start, want);
        exit(1);
    }
    free(out);
    free(err);
}

static struct gtt_segment *fill(const char *name)
{
    struct gtt_segment *segment;
    struct gtt_create_params params = {.name = name, .size_bytes = SIZE};
    CHECK_EQ(gtt_create(gtt, &params, &segment), 0);
    CHECK_EQ(gtt_segment_seal(segment, NULL, NULL, 0), 0);
    return segment;
}

static json_int_t number(const json_t *json, const char *a, const char *b)
{
    const json_t *value = json_object_get(b ? json_object_get(json, a) : json, b ? b : a);
    CHECK(json_is_integer(value));
    return json_integer_value(value);
}

static const char *text(const json_t *json, const char *key)
{
    const char *value = json_string_value(json_object_get(json, key));
    CHECK(value);
    return value;
}

/* A GPU's own memory, for which a memfd stands: said apart from everything else. */
static void test_adopted(void)
{
    static const uint8_t digest[GTT_DIGEST_SIZE] = {7};
    int fd = memfd_create("device", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct gtt_segment *segment;
    struct gtt_adopt_params params = {.name = "copy",
                                      .size_bytes = SIZE,
                                      .chunk_bytes = SIZE,
                                      .memory = {.device = {.device_uuid = {0xab},
                                                            .driver_uuid = {0xcd},
                                                            .name = "Test GPU"},
                                                 .handle = GTT_HANDLE_OPAQUE_FD,
                                                 .alloc_bytes = SIZE,
                                                 .last_alloc_bytes = SIZE},
                                      .fds = &fd,
                                      .digest = digest};
    CHECK(fd >= 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_GROW) == 0);
    CHECK_EQ(gtt_adopt(gtt, &params, &segment), 0);
    gtt_segment_close(segment);
    close(fd);
    expect_text(ARGS("list"), "in the memory of Test GPU\n");
    expect_text(ARGS("list"), "2 segments, 4 MiB; and 4 MiB of device memory\n");
    expect_text(ARGS("status"), "adopted   4 MiB of GPUs' own memory, 4 MiB of it yours");
    json_t *json = run_json(ARGS("status", "--json"));
    CHECK_EQ(number(json, "pool", "used_bytes"), SIZE);
    CHECK_EQ(number(json, "adopted", "bytes"), SIZE);
    CHECK_EQ(number(json, "adopted", "segments"), 1);
    json_decref(json);
    json = run_json(ARGS("list", "--json"));
    const json_t *entry = json_array_get(json, 1), *device = json_object_get(entry, "device");
    CHECK(json_is_true(json_object_get(entry, "adopted")) &&
          !strcmp(text(entry, "hold"), "device"));
    CHECK(!strcmp(text(device, "name"), "Test GPU") &&
          !strncmp(text(device, "device_uuid"), "ab00", 4));
    CHECK(json_is_null(json_object_get(json_array_get(json, 0), "device")));
    json_decref(json);
    CHECK_EQ(gtt_drop(gtt, "copy", 0), 0);
}

static void test_status(void)
{
    json_t *json = run_json(ARGS("status", "--json"));
    CHECK_EQ(number(json, "pool", "used_bytes"), SIZE);
    CHECK_EQ(number(json, "user", "used_bytes"), SIZE);
    CHECK_EQ(number(json, "counts", "segments"), 1);
    CHECK_EQ(number(json, "counts", "leases"), 1);
    CHECK_EQ(number(json, "pin", "pinned_bytes"), 0);
    CHECK(json_is_null(json_object_get(json, "gtt")));
    CHECK(json_is_true(json_object_get(json, "restart_loses_pool")));
    CHECK(strcmp(text(json_object_get(json, "heap"), "name"), "memfd") == 0);
    CHECK(strcmp(text(json, "socket"), socket_path) == 0);
    json_decref(json);
    expect_text(ARGS("status"), "4 MiB used");
    expect_text(ARGS("status"), "restart   loses");
}

static void test_list(void)
{
    json_t *json = run_json(ARGS("list", "--json"));
    CHECK_EQ(json_array_size(json), 1);
    json_t *entry = json_array_get(json, 0);
    CHECK(strncmp(text(entry, "name"), "weights-", 8) == 0);
    CHECK(strcmp(text(entry, "state"), "sealed") == 0);
    CHECK(strcmp(text(entry, "hold"), "swappable") == 0);
    CHECK_EQ(strlen(text(entry, "digest")), 2 * GTT_DIGEST_SIZE);
    CHECK_EQ(number(entry, "size_bytes", NULL), SIZE);
    CHECK_EQ(number(entry, "uid", NULL), getuid());
    CHECK_EQ(number(entry, "pid", NULL), getpid());
    CHECK_EQ(number(entry, "leases", NULL), 1);
    json_decref(json);
    expect_text(ARGS("list"), "4 MiB sealed     swappable    1");
    expect_text(ARGS("list"), "weights-0123..");
    expect_text(ARGS("list"), "1 segment, 4 MiB\n");
}

static void test_drop(const char *name, struct gtt_segment *segment)
{
    char id[32];
    struct gtt_segment_info info;
    expect_error(ARGS("drop", name), 1, "gttctl: drop: ", "--force");
    expect_error(ARGS("drop", "nobody"), 1, "gttctl: drop: ", "no segment");
    expect_error(ARGS("drop", "--id", "77"), 1, "gttctl: drop: ", "77");
    expect_text(ARGS("drop", name, "--force"), "dropped weights-");
    gtt_segment_close(segment);
    expect_text(ARGS("list"), "0 segments");

    segment = fill("second");
    gtt_segment_get_info(segment, &info);
    gtt_segment_close(segment);
    snprintf(id, sizeof id, "--id=%llu", (unsigned long long)info.id);
    json_t *json = run_json(ARGS("drop", id, "--json"));
    CHECK(strncmp(text(json, "dropped"), "id ", 3) == 0);
    json_decref(json);
    expect_text(ARGS("list"), "0 segments");
}

static void test_usage(void)
{
    expect_error(ARGS("nothing"), 2, "gttctl: nothing", "no such command");
    expect_error(ARGS("drop"), 2, "gttctl", "NAME");
    expect_error(ARGS("drop", "x", "--id", "1"), 2, "gttctl", "NAME");
    expect_error(ARGS("drop", "x", "y"), 2, "gttctl", "one segment");
    expect_error(ARGS("drop", "--id", "-1"), 2, "gttctl", "not an id");
    expect_error(ARGS("drop", "--id", "99999999999999999999"), 2, "gttctl", "not an id");
    expect_error(ARGS("list", "--what"), 2, "gttctl", "what");
    expect_error(ARGS("status", "stray"), 2, "gttctl", "Too many");
    char *out, *err;
    CHECK_EQ(run(NULL, &out, &err), 2);
    CHECK(strstr(err, "Usage:"));
    free(out);
    free(err);
    expect_text(ARGS("--version"), "gttctl ");
    for (const char *const *name = ARGS("status", "list", "drop", "watch"); *name; name++) {
        expect_text(ARGS(*name, "--help"), "--socket=PATH");
    }
    expect_error(ARGS("list", "--socket=/nonexistent/sock"), 1, "gttctl: ", "/nonexistent/sock");
}

/* What cannot be written is an error. */
static void test_full_disk(const char *command)
{
    char script[256];
    snprintf(script, sizeof script, "exec '%s' %s >/dev/full", GTTCTL_PATH, command);
    struct process p = spawn("/bin/sh", ARGS("-c", script));
    CHECK_EQ(spawn_wait(&p), 1);
    char *err = spawn_errors(&p);
    CHECK(strcmp(err, "gttctl: stdout: cannot be written\n") == 0);
    free(err);
    spawn_close(&p);
}

/* Wait until somebody watches: events from then on are seen. */
static void wait_for_clients(uint32_t n)
{
    struct gtt_status status;
    do {
        CHECK_EQ(gtt_status(gtt, &status), 0);
        usleep(10000);
    } while (status.n_clients != n);
    usleep(200000); /* from its connection to its WATCH */
}

static void test_watch(void)
{
    static const char *const json_events[] = {"\"event\":\"created\"", "\"event\":\"sealed\"",
                                              "\"event\":\"closed\"", "\"event\":\"dropped\""};
    struct process text_watcher = spawn(GTTCTL_PATH, ARGS("watch"));
    struct process json_watcher = spawn(GTTCTL_PATH, ARGS("watch", "--json"));
    wait_for_clients(3);
    gtt_segment_close(fill("seen"));
    CHECK_EQ(gtt_drop(gtt, "seen", 0), 0);
    for (size_t i = 0; i < sizeof json_events / sizeof json_events[0]; i++) {
        spawn_expect(&json_watcher, false, json_events[i]);
    }
    spawn_expect(&text_watcher, false, "sealed");
    spawn_expect(&text_watcher, false, " seen 4 MiB by ctl-test ");
    spawn_expect(&text_watcher, false, "dropped");
    kill(text_watcher.pid, SIGINT);
    kill(json_watcher.pid, SIGTERM);
    CHECK_EQ(spawn_wait(&text_watcher), 0);
    CHECK_EQ(spawn_wait(&json_watcher), 0);
    spawn_close(&text_watcher);
    spawn_close(&json_watcher);
}

/* A reader that leaves ends it, without waiting for the next event. */
static void test_watch_without_reader(void)
{
    char script[256];
    snprintf(script, sizeof script, "{ '%s' watch; echo $? >&2; } | true", GTTCTL_PATH);
    struct process p = spawn("/bin/sh", ARGS("-c", script));
    CHECK_EQ(spawn_wait(&p), 0);
    spawn_expect(&p, true, "gttctl: stdout: ");
    spawn_expect(&p, true, "\n1\n");
    spawn_close(&p);
}

/* A gttd that comes back is watched on; one that does not ends it. */
static void test_restart(struct process *gttd)
{
    struct process watcher = spawn(GTTCTL_PATH, ARGS("watch", "--json"));
    struct process stopped = spawn(GTTCTL_PATH, ARGS("watch"));
    usleep(300000);
    kill(gttd->pid, SIGKILL);
    CHECK_EQ(spawn_wait(gttd), 128 + SIGKILL);
    spawn_close(gttd);
    *gttd = spawn_gttd(socket_path, NULL);
    spawn_expect(&watcher, false, "\"restarted\"");
    spawn_expect(&stopped, false, " restarted   what happened meanwhile is missing\n");
    CHECK_EQ(gtt_connect(socket_path, "ctl-test", &gtt), 0);
    gtt_segment_close(fill("after"));
    gtt_disconnect(gtt);
    spawn_expect(&watcher, false, "\"after\"");

    kill(gttd->pid, SIGTERM);
    CHECK_EQ(spawn_wait(gttd), 0);
    kill(stopped.pid, SIGINT); /* while it waits for gttd */
    CHECK_EQ(spawn_wait(&stopped), 0);
    CHECK_EQ(spawn_wait(&watcher), 1);
    spawn_expect(&watcher, true, "gttctl: watch: ");
    spawn_close(&watcher);
    spawn_close(&stopped);
    spawn_close(gttd);
}

int main(void)
{
    char name[GTT_NAME_MAX + 1] = "weights-0123456789abcdef0123456789abcdef";
    snprintf(socket_path, sizeof socket_path, "%s/gttd.sock", spawn_dir());
    setenv("GTTD_SOCKET", socket_path, 1);
    atexit(spawn_clean_up);
    struct process gttd = spawn_gttd(socket_path, NULL);
    CHECK_EQ(gtt_connect(socket_path, "ctl-test", &gtt), 0);

    expect_text(ARGS("list"), "0 segments");
    struct gtt_segment *segment = fill(name);
    test_status();
    test_adopted();
    test_list();
    test_drop(name, segment);
    test_usage();
    test_full_disk("status");
    test_full_disk("list");
    test_full_disk("status --json");
    test_full_disk("--help");
    test_watch();
    test_watch_without_reader();

    gtt_disconnect(gtt);
    test_restart(&gttd);
    return 0;
}
