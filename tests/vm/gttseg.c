/* SPDX-License-Identifier: MIT */
/*
 * One client of gttd, for the guest rig's cases: fills a segment, opens it, holds it over gttd's
 * death, reads it through Vulkan. Prints what it has as lines "digest HEX" and, for each chunk,
 * "chunk INODE EXPORTER BYTES": the same inode is the same memory. A refusal goes to stderr.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gtt.h"
#include "vkc.h"

#define MIB     (1ull << 20)
#define BEAT_MS 20

static const char usage[] =
    "gttseg fill NAME MIB [CHUNK-MIB]   make it and seal it\n"
    "gttseg open NAME                   open it and verify its digest\n"
    "gttseg hold NAME                   the same; go on reading it until SIGTERM, then verify it\n"
    "                                   again, and open it again over the same connection\n"
    "gttseg half NAME MIB               make it, never seal it, wait to be killed\n"
    "gttseg until NAME                  try to open it until that works; print \"ms N\"\n"
    "gttseg vulkan NAME                 import its chunks, have the device copy them, compare\n";

static volatile sig_atomic_t told_to_end;

static void on_term(int sig)
{
    (void)sig;
    told_to_end = 1;
}

/* Ends the program if r is an error. */
static void must(const struct gtt *gtt, int r, const char *what)
{
    if (r != 0) {
        fprintf(stderr, "gttseg: %s: %s (%s)\n", what, gtt_last_error(gtt),
                r < 0 ? strerrorname_np(-r) : "unexpected");
        exit(1);
    }
}

static double now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

static struct gtt *connect_gttd(void)
{
    struct gtt *gtt;
    must(NULL, gtt_connect(NULL, "gttseg", &gtt), "connecting");
    return gtt;
}

/* ---- what it is ---- */

/* One field of /proc/self/fdinfo/FD; "-" if there is none. */
static void fdinfo(int fd, const char *field, char *ret, size_t size)
{
    char path[64], line[256];
    size_t len = strlen(field);
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    snprintf(ret, size, "-");
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        if (!strncmp(line, field, len) && line[len] == ':') {
            line[strcspn(line, "\n")] = '\0';
            snprintf(ret, size, "%s", line + len + 1 + strspn(line + len + 1, " \t"));
        }
    }
    if (f) {
        fclose(f);
    }
}

static void print_segment(struct gtt *gtt, struct gtt_segment *segment)
{
    struct gtt_segment_info info;
    gtt_segment_get_info(segment, &info);
    printf("digest ");
    for (int i = 0; i < GTT_DIGEST_SIZE; i++) {
        printf("%02x", info.digest[i]);
    }
    printf("\n");
    for (uint32_t i = 0; i < info.n_chunks; i++) {
        char inode[32], exporter[64];
        int fd;
        must(gtt, gtt_segment_chunk_fd(segment, i, &fd), "chunk");
        fdinfo(fd, "ino", inode, sizeof inode);
        fdinfo(fd, "exp_name", exporter, sizeof exporter);
        printf("chunk %s %s %jd\n", inode, exporter, (intmax_t)lseek(fd, 0, SEEK_END));
    }
    fflush(stdout);
}

static struct gtt_segment *open_verified(struct gtt *gtt, const char *name)
{
    struct gtt_segment *segment;
    must(gtt, gtt_open(gtt, name, 0, 0, &segment), name);
    must(gtt, gtt_segment_verify(segment), name);
    return segment;
}

/* ---- what it does ---- */

/* Every 8 bytes differ, and depend on the name. */
static void fill(uint64_t *words, uint64_t size_bytes, const char *name)
{
    uint64_t x = 0x9e3779b97f4a7c15u;
    for (const char *c = name; *c; c++) {
        x = (x ^ (unsigned char)*c) * 0x100000001b3u;
    }
    for (uint64_t i = 0; i < size_bytes / sizeof *words; i++) {
        words[i] = x + i * 0x9e3779b97f4a7c15u;
    }
}

static struct gtt_segment *create(struct gtt *gtt, const char *name, uint64_t size_bytes,
                                  uint64_t chunk_bytes)
{
    struct gtt_create_params params = {.name = name,
                                       .size_bytes = size_bytes,
                                       .chunk_bytes = chunk_bytes};
    struct gtt_segment *segment;
    void *base;
    must(gtt, gtt_create(gtt, &params, &segment), name);
    must(gtt, gtt_segment_map(segment, true, &base), name);
    fill(base, size_bytes, name);
    return segment;
}

static void do_fill(struct gtt *gtt, const char *name, uint64_t size_bytes, uint64_t chunk_bytes)
{
    struct gtt_segment *segment = create(gtt, name, size_bytes, chunk_bytes);
    must(gtt, gtt_segment_seal(segment, NULL, NULL, 0), name);
    print_segment(gtt, segment);
    gtt_segment_close(segment);
}

static void do_half(struct gtt *gtt, const char *name, uint64_t size_bytes)
{
    create(gtt, name, size_bytes, 0);
    printf("filling\n");
    fflush(stdout);
    pause();
}

/* Reads a little of every chunk now and then, as a runtime would, whatever gttd does. */
static void do_hold(struct gtt *gtt, const char *name)
{
    struct gtt_segment *segment = open_verified(gtt, name), *again;
    struct gtt_segment_info info;
    uint64_t n_beats = 0;
    void *base;
    signal(SIGTERM, on_term);
    must(gtt, gtt_segment_map(segment, false, &base), name);
    print_segment(gtt, segment);
    gtt_segment_get_info(segment, &info);
    for (; !told_to_end; n_beats++) {
        for (uint64_t at = 0; at < info.size_bytes; at += MIB) {
            (void)*(const volatile uint64_t *)((const char *)base + at);
        }
        sleep_ms(BEAT_MS);
    }
    printf("beats %" PRIu64 "\n", n_beats);
    must(gtt, gtt_segment_verify(segment), "what was held");
    must(gtt, gtt_open(gtt, name, 0, 0, &again), "opening it again");
    must(gtt, gtt_segment_verify(again), "opened again");
    print_segment(gtt, again);
    gtt_segment_close(again);
    gtt_segment_close(segment);
}

static int do_until(const char *name)
{
    double start = now_ms();
    for (;;) {
        struct gtt *gtt;
        struct gtt_segment *segment;
        if (gtt_connect(NULL, "gttseg", &gtt) == 0) {
            int r = gtt_open(gtt, name, 0, 0, &segment);
            if (r == 0) {
                printf("ms %.1f\n", now_ms() - start);
                gtt_segment_close(segment);
                gtt_disconnect(gtt);
                return 0;
            }
            gtt_disconnect(gtt);
        }
        if (now_ms() - start > 60e3) {
            fprintf(stderr, "gttseg: %s: not there after a minute\n", name);
            return 1;
        }
        sleep_ms(1);
    }
}

/* ---- Vulkan ---- */

static void vk_must(int r, const struct err *err, const char *what)
{
    if (r < 0) {
        fprintf(stderr, "gttseg: %s: %s\n", what, err->text);
        exit(1);
    }
}

static struct vkc_device *open_vulkan(struct vkc_instance **ret_instance)
{
    struct vkc_params params = {0};
    struct vkc_physical *list;
    struct vkc_device *device;
    struct err err;
    uint32_t n, i;
    vk_must(vkc_instance_create(&params, &err, ret_instance), &err, "Vulkan");
    vk_must(vkc_physical_list(*ret_instance, &err, &list, &n), &err, "Vulkan");
    vk_must(vkc_physical_choose(list, n, NULL, &err, &i), &err, "Vulkan");
    printf("device %s\n", list[i].props.deviceName);
    vk_must(vkc_device_create(*ret_instance, &list[i], NULL, &err, &device), &err, "Vulkan");
    free(list);
    return device;
}

/* The device copies the chunk from where it is; the copy must be what the segment's mapping has. */
static void copy_chunk(struct vkc_device *device, int fd, const void *want, uint64_t size_bytes)
{
    struct vkc_buffer chunk, copy;
    VkCommandBuffer cmd;
    uint64_t done;
    struct err err;
    vk_must(vkc_buffer_import_dmabuf(device, fd, size_bytes, "chunk", &err, &chunk), &err,
            "import");
    vk_must(vkc_buffer_init(device, VKC_READBACK, size_bytes, "copy", &err, &copy), &err, "copy");
    vk_must(vkc_cmd_begin(device, &err, &cmd), &err, "copy");
    vkc_copy(device, cmd, &chunk, 0, &copy, 0, size_bytes);
    vkc_barrier(device, cmd, VKC_COPY_TO_HOST);
    vk_must(vkc_cmd_end(device, cmd, &err), &err, "copy");
    vk_must(vkc_submit(device, &cmd, 1, &err, &done), &err, "copy");
    vk_must(vkc_wait(device, done, &err), &err, "copy");
    if (memcmp(copy.map, want, size_bytes) != 0) {
        fprintf(stderr, "gttseg: the device sees something else\n");
        exit(1);
    }
    vkc_cmd_free(device, cmd);
    vkc_buffer_finish(device, &copy);
    vkc_buffer_finish(device, &chunk);
}

static void do_vulkan(struct gtt *gtt, const char *name)
{
    struct vkc_instance *instance;
    struct vkc_device *device = open_vulkan(&instance);
    struct gtt_segment *segment = open_verified(gtt, name);
    struct gtt_segment_info info;
    void *base;
    must(gtt, gtt_segment_map(segment, false, &base), name);
    gtt_segment_get_info(segment, &info);
    uint64_t left = info.size_bytes;
    for (uint32_t i = 0; i < info.n_chunks; i++) {
        uint64_t bytes = left < info.chunk_bytes ? left : info.chunk_bytes;
        int fd;
        must(gtt, gtt_segment_chunk_fd(segment, i, &fd), "chunk");
        copy_chunk(device, fd, (const char *)base + i * info.chunk_bytes, bytes);
        left -= bytes;
    }
    print_segment(gtt, segment);
    gtt_segment_close(segment);
    vkc_device_destroy(device);
    vkc_instance_destroy(instance);
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "", *name = argc > 2 ? argv[2] : NULL;
    uint64_t mib = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    if (!strcmp(what, "until") && argc == 3) {
        return do_until(name);
    }
    struct gtt *gtt = connect_gttd();
    if (!strcmp(what, "fill") && mib && argc <= 5) {
        do_fill(gtt, name, mib * MIB, argc == 5 ? strtoull(argv[4], NULL, 10) * MIB : 0);
    } else if (!strcmp(what, "open") && argc == 3) {
        struct gtt_segment *segment = open_verified(gtt, name);
        print_segment(gtt, segment);
        gtt_segment_close(segment);
    } else if (!strcmp(what, "hold") && argc == 3) {
        do_hold(gtt, name);
    } else if (!strcmp(what, "half") && mib && argc == 4) {
        do_half(gtt, name, mib * MIB);
    } else if (!strcmp(what, "vulkan") && argc == 3) {
        do_vulkan(gtt, name);
    } else {
        fputs(usage, stderr);
        return 2;
    }
    gtt_disconnect(gtt);
    return 0;
}
