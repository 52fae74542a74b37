/* SPDX-License-Identifier: MIT */
/*
 * A device's copy of the weights that gttd keeps: made once, found by the next start after a
 * SIGKILL and after a restart of gttd, compared before it is believed, replaced when it is not what
 * it should be, given up when the device needs the room. With a real Vulkan driver: lavapipe is
 * told to copy as a device with memory of its own does.
 */
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "gttd_util.h"
#include "kept.h"
#include "llm.h"
#include "supervisor.h"

#define MODEL "models/wordbook-22m"
#define SKIP  77

static struct supervisor sup;
static char said[16384]; /* the log of the last start */
static bool validate = true;
static char conf[64], conf_arg[80];
static float *first_logits;

static void configure(const char *text)
{
    FILE *f = fopen(conf, "we");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* Have gttd read another text, after which it adopts, or not, and so much. */
static void reconfigure(const char *text, bool adopts, uint64_t quota_bytes)
{
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_status status = {.adopts = !adopts};
    configure(text);
    CHECK_EQ(kill(sup.rig.pid, SIGHUP), 0);
    while (status.adopts != adopts || status.adopted_quota_bytes != quota_bytes) {
        CHECK_EQ(gtt_status(gtt, &status), 0);
    }
    gtt_disconnect(gtt);
}

static void note(void *data, const char *text)
{
    size_t n = strlen(said);
    (void)data;
    snprintf(said + n, sizeof said - n, "%s\n", text);
}

static void expect_said(const char *text)
{
    if (!strstr(said, text)) {
        fprintf(stderr, "not in the log: %s\nthe log:\n%s", text, said);
        CHECK(!"what the log should say");
    }
}

static int open_engine(bool private_weights, struct err *err, struct llm_engine **ret)
{
    struct llm_engine_params params = {.model_dir = MODEL,
                                       .backend = "vulkan",
                                       .private_weights = private_weights,
                                       .gttd_socket = sup.rig.socket,
                                       .copy_weights = true,
                                       .validate = validate,
                                       .log = note};
    said[0] = '\0';
    return llm_engine_open(&params, err, ret);
}

/* The model answers as it did at the first start, to the bit. */
static void expect_logits(struct llm_engine *engine, const struct llm_engine_info *info)
{
    static const int32_t ids[] = {2, 17, 99, 5, 250};
    struct llm_session *session;
    struct err err;
    float *logits = malloc(info->vocab * sizeof *logits);
    CHECK(logits);
    CHECK_EQ(llm_session_create(engine, 64, &err, &session), 0);
    CHECK_EQ(llm_session_sync(session, ids, ARRAY_SIZE(ids), logits, NULL, NULL, &err, NULL), 0);
    llm_session_destroy(session);
    if (!first_logits) {
        first_logits = logits;
        return;
    }
    CHECK(!memcmp(logits, first_logits, info->vocab * sizeof *logits));
    free(logits);
}

/* One start: how it came by the weights, whether gttd keeps them then. */
static void start(const char *memory, bool kept)
{
    struct llm_engine *engine;
    struct llm_engine_info info;
    struct err err;
    int r = open_engine(false, &err, &engine);
    if (r < 0) {
        fprintf(stderr, "%s\n%s", err.text, said);
    }
    CHECK_EQ(r, 0);
    llm_engine_info(engine, &info);
    if (strcmp(info.memory, memory) != 0 || info.device_copy.kept != kept) {
        fprintf(stderr, "%s, kept %d; want %s, %d\n%s", info.memory, info.device_copy.kept, memory,
                kept, said);
        CHECK(!"how the weights came to the device");
    }
    CHECK(info.has_device_copy && (info.device_copy.copy_ms > 0) == !strcmp(memory, "device-copy"));
    expect_logits(engine, &info);
    printf("%s (%s): find %.1f, import %.1f, compare %.1f, copy %.1f, keep %.1f ms\n", memory,
           info.source, info.device_copy.find_ms, info.device_copy.import_ms,
           info.device_copy.compare_ms, info.device_copy.copy_ms, info.device_copy.keep_ms);
    llm_engine_close(engine);
}

/* The adopted segment; false: there is none. */
static bool find(struct gtt *gtt, struct gtt_entry *ret)
{
    uint64_t cursor = 0;
    while (gtt_list(gtt, &cursor, ret) == 1) {
        if (ret->adopted) {
            return true;
        }
    }
    return false;
}

static struct gtt_entry expect_kept(void)
{
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_entry entry;
    CHECK(find(gtt, &entry));
    CHECK(entry.kept && !entry.n_leases && entry.state == GTT_SEALED);
    gtt_disconnect(gtt);
    return entry;
}

static void crash(void *data, int pipe_fd)
{
    struct llm_engine *engine;
    struct llm_engine_info info;
    struct err err;
    (void)data;
    CHECK_EQ(open_engine(false, &err, &engine), 0);
    llm_engine_info(engine, &info);
    CHECK(!strcmp(info.memory, "adopted"));
    expect_logits(engine, &info);
    CHECK_EQ(write(pipe_fd, "r", 1), 1);
    pause();
}

/* Killed with the weights on the device, while nobody else holds them. */
static void test_kill(void)
{
    int pipe_fd, status;
    char byte;
    pid_t pid = rig_fork(crash, NULL, &pipe_fd);
    CHECK_EQ(read(pipe_fd, &byte, 1), 1);
    CHECK_EQ(kill(pid, SIGKILL), 0);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status));
    close(pipe_fd);
    start("adopted", true);
}

/* Write to the memory behind the fds, as nobody should. False: it cannot be mapped. */
static bool spoil(void)
{
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_entry entry;
    struct gtt_segment *segment;
    struct stat st;
    int fd;
    CHECK(find(gtt, &entry));
    CHECK_EQ(gtt_open_adopted(gtt, entry.name, &entry.device, 0, 0, &segment), 0);
    CHECK_EQ(gtt_segment_chunk_fd(segment, 0, &fd), 0);
    CHECK_EQ(fstat(fd, &st), 0);
    void *map = S_ISREG(st.st_mode)
                    ? mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                    : MAP_FAILED;
    if (map != MAP_FAILED) {
        memset((char *)map + (1 << 20), 0x5a, (size_t)st.st_size - (1 << 20));
        munmap(map, (size_t)st.st_size);
    }
    gtt_segment_close(segment);
    gtt_disconnect(gtt);
    return map != MAP_FAILED;
}

/* What is not what it should be is noticed, dropped, and made anew. */
static void test_wrong(void)
{
    if (spoil()) {
        start("device-copy", true);
        expect_said("the copy that gttd keeps is replaced: it differs from the weights at byte");
        start("adopted", true);
    } else {
        printf("left out: this driver's memory cannot be spoilt from outside\n");
    }
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_entry entry;
    struct gtt_segment *segment;
    struct gtt_segment_info info;
    int fds[64];
    CHECK(find(gtt, &entry));
    CHECK_EQ(gtt_open_adopted(gtt, entry.name, &entry.device, 0, 0, &segment), 0);
    gtt_segment_get_info(segment, &info);
    struct gtt_adopt_params params = {.name = entry.name,
                                      .size_bytes = info.size_bytes,
                                      .chunk_bytes = info.chunk_bytes,
                                      .memory = info.memory,
                                      .fds = fds};
    uint8_t digest[GTT_DIGEST_SIZE];
    memcpy(digest, info.digest, sizeof digest);
    params.digest = digest;
    CHECK(info.n_chunks <= ARRAY_SIZE(fds));
    for (uint32_t i = 0; i < info.n_chunks; i++) {
        CHECK_EQ(gtt_segment_chunk_fd(segment, i, &fds[i]), 0);
        fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
    }
    gtt_segment_close(segment);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(gtt_drop(gtt, entry.name, 0), 0);
        digest[0] ^= 1; /* of other weights; and then of these, but of no such memory type */
        params.memory.memory_type = i ? 31 : info.memory.memory_type;
        CHECK_EQ(gtt_adopt(gtt, &params, &segment), 0);
        gtt_segment_close(segment);
        start("device-copy", true);
        expect_said(i ? "memory of type 31" : "it is a copy of other weights");
    }
    for (uint32_t i = 0; i < info.n_chunks; i++) {
        close(fds[i]);
    }
    gtt_disconnect(gtt);
    start("adopted", true);
}

/* Two at once have the same memory on the device; the second waits for nothing. */
static void test_two(void)
{
    struct llm_engine *engine;
    struct llm_engine_info info;
    struct gtt_entry entry;
    struct err err;
    CHECK_EQ(open_engine(false, &err, &engine), 0);
    start("adopted", true);
    struct gtt *gtt = rig_connect(&sup.rig);
    CHECK(find(gtt, &entry) && entry.n_leases == 1);
    CHECK_EQ(gtt_drop(gtt, entry.name, 0), -EBUSY);
    CHECK_EQ(gtt_drop(gtt, entry.name, GTT_DROP_FORCE), 0);
    gtt_disconnect(gtt);
    llm_engine_info(engine, &info);
    expect_logits(engine, &info); /* which has imported it, and needs gttd no more */
    sup_restart(&sup, SIGKILL);
    CHECK_EQ(llm_engine_hold(engine, &err), -ESTALE);
    expect_logits(engine, &info);
    llm_engine_close(engine);
    start("device-copy", true);
    CHECK_EQ(open_engine(false, &err, &engine), 0);
    sup_restart(&sup, SIGKILL);
    CHECK_EQ(llm_engine_hold(engine, &err), 0);
    gtt = rig_connect(&sup.rig);
    CHECK(find(gtt, &entry) && entry.n_leases == 1);
    gtt_disconnect(gtt);
    llm_engine_close(engine);
}

static void test_not_kept(void)
{
    struct llm_engine *engine;
    struct llm_engine_info info;
    struct err err;
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_entry entry = expect_kept();
    CHECK_EQ(gtt_drop(gtt, entry.name, 0), 0);
    gtt_disconnect(gtt);
    reconfigure("adopt = off\n", false, 256ull << 30);
    start("device-copy", false);
    expect_said("the next start copies again: gttd is not to keep device memory (adopt = off)");
    reconfigure("adopt = 1M\n", true, MIB);
    start("device-copy", false);
    expect_said("the next start copies again: gttd: ");
    expect_said("of device memory are over what a user may have kept, 1 MiB");
    CHECK_EQ(open_engine(true, &err, &engine), 0);
    llm_engine_info(engine, &info);
    CHECK(!strcmp(info.memory, "device-copy") && !info.device_copy.kept);
    expect_said("the next start copies again: there is no gttd to keep it");
    expect_logits(engine, &info);
    llm_engine_close(engine);
}

/* When a device is out of memory, what nobody uses there goes, the oldest first. */
static void test_reclaim(void)
{
    static const uint8_t digest[GTT_DIGEST_SIZE];
    struct device_memory device = {.device_uuid = "this", .device = "a GPU"};
    struct device_memory other = {.device_uuid = "that"};
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct gtt *gtt = rig_connect(&sup.rig);
    struct gtt_segment *weights = rig_fill(gtt, "weights", 2 * MIB, 1), *used = NULL, *segment;
    struct kept kept;
    reconfigure("adopt = 1G\n", true, 1024 * MIB);
    for (int i = 0; i < 4; i++) { /* one of another device, one in use, two idle */
        static const char *const names[] = {"other", "used", "old", "new"};
        int fd = memfd_create("device", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        CHECK(fd >= 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_GROW) == 0);
        struct gtt_adopt_params params = {.name = names[i],
                                          .size_bytes = 2 * MIB,
                                          .chunk_bytes = 2 * MIB,
                                          .memory = {.handle = GTT_HANDLE_OPAQUE_FD,
                                                     .alloc_bytes = 2 * MIB,
                                                     .last_alloc_bytes = 2 * MIB},
                                          .fds = &fd,
                                          .digest = digest};
        memcpy(params.memory.device.device_uuid, i == 0 ? other.device_uuid : device.device_uuid,
               GTT_UUID_SIZE);
        CHECK_EQ(gtt_adopt(gtt, &params, &segment), 0);
        close(fd);
        if (i == 1) {
            used = segment;
        } else {
            gtt_segment_close(segment);
        }
        sleep_ms(5);
    }
    kept_init(&kept, NULL, gtt, weights, "weights", &lock);
    const struct weight_keeper *keeper = &kept.keeper;
    struct gtt_device id = {0};
    memcpy(id.device_uuid, device.device_uuid, sizeof id.device_uuid);
    CHECK(keeper->reclaim(keeper->data, &device));
    CHECK_EQ(gtt_open_adopted(gtt, "old", &id, 0, 0, &segment), -ENOENT);
    CHECK_EQ(gtt_open_adopted(gtt, "new", &id, 0, 0, &segment), 0);
    CHECK(!keeper->reclaim(keeper->data, &device));
    gtt_segment_close(segment);
    CHECK(keeper->reclaim(keeper->data, &device));
    CHECK(!keeper->reclaim(keeper->data, &device));
    memcpy(id.device_uuid, other.device_uuid, sizeof id.device_uuid);
    CHECK_EQ(gtt_open_adopted(gtt, "other", &id, 0, 0, &segment), 0);
    gtt_segment_close(segment);
    gtt_segment_close(used);
    CHECK(keeper->reclaim(keeper->data, &device));
    kept_finish(&kept);
    gtt_segment_close(weights);
    gtt_disconnect(gtt);
}

static void finish(void)
{
    sup_stop(&sup);
    unlink(conf);
}

/* Whether there is a device, and what it can. */
static int try_device(void)
{
    struct llm_engine *engine;
    struct err err;
    int r = open_engine(true, &err, &engine);
    if (r == -ENOENT && validate) {
        printf("NOT VALIDATED: %s\n", err.text);
        validate = false;
        r = open_engine(true, &err, &engine);
    }
    if (r == -ENODEV) {
        printf("skipped: %s\n", err.text);
        return SKIP;
    }
    if (r < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    llm_engine_close(engine);
    return 0;
}

int main(void)
{
    static const char *const args[] = {conf_arg, NULL};
    snprintf(conf, sizeof conf, "/tmp/kept_test.%d.conf", (int)getpid());
    snprintf(conf_arg, sizeof conf_arg, "--config=%s", conf);
    configure("");
    sup_start(&sup, 64, args);
    int r = try_device();
    if (r != 0) {
        finish();
        return r;
    }
    struct llm_engine *engine;
    struct err err;
    CHECK_EQ(open_engine(false, &err, &engine), 0);
    llm_engine_close(engine);
    if (strstr(said, "cannot export memory")) {
        printf("skipped: the driver cannot export memory\n");
        finish();
        return SKIP;
    }
    expect_said("handed over to gttd");
    expect_kept();
    start("adopted", true);
    expect_said("taken over from gttd, not copied");
    test_kill();
    sup_restart(&sup, SIGKILL);
    start("adopted", true);
    test_two();
    test_wrong();
    test_not_kept();
    test_reclaim();
    free(first_logits);
    finish();
    return 0;
}
