/* SPDX-License-Identifier: MIT */
/*
 * What gttd asked the driver for: makes a segment, sees to it that it is zero and writes all over
 * it, imports each of its chunks into the amdgpu device itself and prints what the kernel knows of
 * it: "NAME domain N flags N bytes N" (AMDGPU_GEM_DOMAIN_*, AMDGPU_GEM_CREATE_*; NAME is the
 * dma-buf's). Ends when its standard input does, and with it the segment.
 *
 *     heapbo RENDER-NODE MIB CHUNK-MIB [wc]
 */
#include <amdgpu.h>
#include <amdgpu_drm.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gtt.h"

#define MIB (1ull << 20)

static void die(const char *what, const char *why)
{
    fprintf(stderr, "heapbo: %s: %s\n", what, why);
    exit(1);
}

/* The name that DMA_BUF_SET_NAME has given it; "-" if none. */
static void dmabuf_name(int fd, char ret[static 64])
{
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    FILE *f = fopen(path, "re");
    strcpy(ret, "-");
    while (f && fgets(line, sizeof line, f)) {
        sscanf(line, "name: %63s", ret);
    }
    if (f) {
        fclose(f);
    }
}

static void print_chunk(amdgpu_device_handle device, int fd)
{
    struct amdgpu_bo_import_result bo;
    struct amdgpu_bo_info info;
    char name[64];
    dmabuf_name(fd, name);
    if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR) {
        die(name, "cannot be written through");
    }
    int r = amdgpu_bo_import(device, amdgpu_bo_handle_type_dma_buf_fd, (uint32_t)fd, &bo);
    if (r == 0) {
        r = amdgpu_bo_query_info(bo.buf_handle, &info);
    }
    if (r) {
        die(name, strerror(-r));
    }
    uint64_t asked = info.alloc_flags & ~(uint64_t)AMDGPU_GEM_CREATE_VRAM_CLEARED;
    printf("%s domain %u flags %" PRIu64 " bytes %" PRIu64 "\n", name, info.preferred_heap, asked,
           info.alloc_size);
    amdgpu_bo_free(bo.buf_handle);
}

/* It must be zero, whoever had it before; and it is not for whoever gets it next. */
static void soil(struct gtt *gtt, struct gtt_segment *segment)
{
    struct gtt_segment_info info;
    void *base;
    gtt_segment_get_info(segment, &info);
    if (gtt_segment_map(segment, true, &base) < 0) {
        die("map", gtt_last_error(gtt));
    }
    uint64_t *words = base;
    for (uint64_t i = 0; i < info.size_bytes / sizeof *words; i++) {
        if (words[i]) {
            die("memory", "not zero");
        }
        words[i] = UINT64_MAX;
    }
}

int main(int argc, char **argv)
{
    amdgpu_device_handle device;
    uint32_t major, minor;
    struct gtt *gtt;
    struct gtt_segment *segment;
    struct gtt_segment_info info;
    if (argc < 4 || argc > 5) {
        die("usage", "heapbo RENDER-NODE MIB CHUNK-MIB [wc]");
    }
    int fd = open(argv[1], O_RDWR | O_CLOEXEC);
    if (fd < 0 || amdgpu_device_initialize(fd, &major, &minor, &device)) {
        die(argv[1], "no amdgpu device");
    }
    struct gtt_create_params params = {.size_bytes = strtoull(argv[2], NULL, 10) * MIB,
                                       .chunk_bytes = strtoull(argv[3], NULL, 10) * MIB,
                                       .write_combined = argc == 5};
    if (gtt_connect(NULL, "heapbo", &gtt) < 0) {
        die("connecting", gtt_last_error(NULL));
    }
    if (gtt_create(gtt, &params, &segment) < 0) {
        die("segment", gtt_last_error(gtt));
    }
    soil(gtt, segment);
    gtt_segment_get_info(segment, &info);
    for (uint32_t i = 0; i < info.n_chunks; i++) {
        int chunk;
        if (gtt_segment_chunk_fd(segment, i, &chunk) < 0) {
            die("chunk", gtt_last_error(gtt));
        }
        print_chunk(device, chunk);
    }
    fflush(stdout);
    while (getchar() != EOF) {
    }
    gtt_segment_close(segment);
    gtt_disconnect(gtt);
    amdgpu_device_deinitialize(device);
    close(fd);
    return 0;
}
