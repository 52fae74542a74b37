/* SPDX-License-Identifier: MIT */
/*
 * The Vulkan layer and what surrounds the arithmetic: choosing devices, the three ways to weights,
 * the pipeline cache on disk, refusals, nothing left over. Results are compared between paths, not
 * with the reference (conformance_vulkan.c does that).
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "random_model.h"
#include "vk_devices.h"
#include "vk_opened.h"

static char logged[8192];

static void log_line(void *data, const char *text)
{
    (void)data;
    if (strncmp(text, "validation:", 11) == 0) {
        fprintf(stderr, "%s\n", text);
        exit(1);
    }
    size_t used = strlen(logged);
    snprintf(logged + used, sizeof logged - used, "%s\n", text);
}

static bool validate;

static struct backend *open_backend(const char *cache_dir)
{
    const struct backend_params params = {.validate = validate,
                                          .log = log_line,
                                          .cache_dir = cache_dir};
    struct backend *backend;
    struct err err;
    if (vulkan_backend.open(&params, &err, &backend) < 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    return backend;
}

static struct model_config small_config(void)
{
    return (struct model_config){
        .n_layers = 3,
        .hidden = 128,
        .ffn = 256,
        .n_heads = 2,
        .n_kv_heads = 1,
        .head_dim = 64,
        .vocab = 300,
        .window = 16,
        .max_pos = 4096,
        .rms_eps = 1e-6f,
        .query_scale = 0.125f,
        .rope_theta_local = 10000.0f,
        .rope_theta_global = 1000000.0f,
        .rope_factor_global = 1.0f,
        .tied_head = true,
        .bos = 2,
        .layer_is_global = {false, false, true},
    };
}

static void make_model(struct model *ret, void **ret_base)
{
    struct model_config config = small_config();
    struct image_formats formats;
    random_formats(&config, (struct weight_format){WEIGHT_Q4, 32, true}, &formats);
    random_model_create(&config, &formats, 1, ret, ret_base);
}

/* Logits after a few tokens. */
static void run_model(struct backend *backend, const struct model *model,
                      enum weight_path *ret_path, float *logits)
{
    static const int32_t ids[] = {2, 17, 299, 0, 5};
    struct backend_model *bm;
    struct backend_state *state;
    struct err err;
    uint32_t rewind_max;
    uint64_t kv_bytes;
    CHECK_EQ(vulkan_backend.bind(backend, model, &err, &bm, ret_path), 0);
    CHECK_EQ(vulkan_backend.state_create(bm, 1000, &err, &state, &rewind_max, &kv_bytes), 0);
    CHECK(rewind_max < 1000 && kv_bytes > 0);
    CHECK_EQ(vulkan_backend.forward(state, ids, 5, 0, LOGITS_LAST, logits, &err), 0);
    vulkan_backend.state_destroy(state);
    vulkan_backend.unbind(bm);
}

static void test_devices(void)
{
    struct vk_device_desc *devices;
    size_t n;
    struct err err;
    CHECK_EQ(vk_devices_list(&err, &devices, &n), 0);
    CHECK(n > 0);
    for (size_t i = 0; i < n; i++) {
        printf("%zu: %s, %s, %s, Vulkan %u.%u; plain memory: path %d, %s\n", i, devices[i].name,
               devices[i].type, devices[i].driver, devices[i].api_major, devices[i].api_minor,
               devices[i].plain_path, devices[i].plain_why);
        CHECK(devices[i].name[0] && devices[i].n_heaps > 0);
    }
    free(devices);

    struct backend_params params = {.device = "no such device"};
    struct backend *backend;
    CHECK_EQ(vulkan_backend.open(&params, &err, &backend), -ENODEV);
    CHECK(strstr(err.text, "no such device"));
    params.device = "99";
    CHECK_EQ(vulkan_backend.open(&params, &err, &backend), -ENODEV);
    params.device = "0";
    CHECK_EQ(vulkan_backend.open(&params, &err, &backend), 0);
    vulkan_backend.close(backend);
}

/* A device's order of preference and the refusals, without needing such devices. */
static void test_choice(void)
{
    struct vkc_physical list[3] = {0};
    struct err err;
    uint32_t index = 99;
    snprintf(list[0].props.deviceName, VK_MAX_PHYSICAL_DEVICE_NAME_SIZE, "llvmpipe");
    list[0].props.deviceType = VK_PHYSICAL_DEVICE_TYPE_CPU;
    snprintf(list[1].props.deviceName, VK_MAX_PHYSICAL_DEVICE_NAME_SIZE, "Big Discrete");
    list[1].props.deviceType = VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU;
    snprintf(list[2].props.deviceName, VK_MAX_PHYSICAL_DEVICE_NAME_SIZE, "Radeon 780M");
    list[2].props.deviceType = VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU;
    CHECK_EQ(vkc_physical_choose(list, 3, NULL, &err, &index), 0);
    CHECK_EQ(index, 2);
    CHECK_EQ(vkc_physical_choose(list, 3, "big", &err, &index), 0);
    CHECK_EQ(index, 1);
    snprintf(list[2].missing, sizeof list[2].missing, "bufferDeviceAddress");
    CHECK_EQ(vkc_physical_choose(list, 3, NULL, &err, &index), 0);
    CHECK_EQ(index, 1);
    CHECK_EQ(vkc_physical_choose(list, 3, "780m", &err, &index), -ENOTSUP);
    CHECK(strstr(err.text, "bufferDeviceAddress"));

    const char *why;
    list[2].has_dmabuf = true;
    list[2].host_pointer_align = 4096;
    CHECK_EQ(vk_weight_path(&list[2], true, &why), WEIGHT_PATH_DMABUF);
    CHECK_EQ(vk_weight_path(&list[2], false, &why), WEIGHT_PATH_HOST_POINTER);
    list[2].host_pointer_align = 0;
    CHECK_EQ(vk_weight_path(&list[2], false, &why), WEIGHT_PATH_DEVICE_COPY);
    list[1].has_dmabuf = true;
    CHECK_EQ(vk_weight_path(&list[1], true, &why), WEIGHT_PATH_DEVICE_COPY);
}

/*
 * Sizes are tuning, not meaning: workgroups of many subgroups or less than one, tiles that divide
 * nothing, row groups beyond the 65535 of a grid's dimension, a pass cut into one submission per
 * layer.
 */
static void test_tunings(void)
{
    struct model_config config = small_config();
    config.vocab = 70001;
    struct image_formats formats;
    struct model model;
    void *base;
    random_formats(&config, (struct weight_format){WEIGHT_Q4, 32, true}, &formats);
    random_model_create(&config, &formats, 2, &model, &base);
    struct backend *backend = open_backend(NULL);
    float *want = malloc(config.vocab * sizeof *want), *got = malloc(config.vocab * sizeof *got);
    CHECK(want && got);
    enum weight_path path;
    run_model(backend, &model, &path, want);
    double rms = 0;
    for (uint32_t i = 0; i < config.vocab; i++) {
        rms += (double)want[i] * want[i] / config.vocab;
    }
    CHECK(rms > 0);
    static const struct vk_tuning tunings[] = {
        {32, 4, 8, 256, 64, 32, 64, 64, 8, 64, 1e12}, {64, 1, 1, 128, 128, 64, 256, 8, 8, 512, 1.0},
        {24, 3, 3, 40, 24, 8, 16, 16, 8, 32, 1.0},    {5, 2, 5, 3, 6, 8, 4, 8, 8, 32, 1.0},
        {1, 1, 2, 1, 1, 16, 1, 32, 8, 32, 1e12},
    };
    for (size_t t = 0; t < sizeof tunings / sizeof tunings[0]; t++) {
        backend->tuning = tunings[t];
        run_model(backend, &model, &path, got);
        double diff = 0;
        for (uint32_t i = 0; i < config.vocab; i++) {
            diff += ((double)got[i] - want[i]) * ((double)got[i] - want[i]) / config.vocab;
        }
        /* Sums in another order; a key or value may round to the f16 beside it. */
        CHECK(sqrt(diff / rms) < 5e-4);
    }
    vulkan_backend.close(backend);
    random_model_destroy(&model, base);
    free(want);
    free(got);
}

/* The image in a sealed memfd, mapped read-only: what a segment of gttd's memfd heap is. */
static void test_sealed_memfd(void)
{
    struct model model;
    void *base;
    make_model(&model, &base);
    struct backend *backend = open_backend(NULL);
    uint32_t vocab = model.config.vocab;
    float *want = malloc(vocab * sizeof *want), *got = malloc(vocab * sizeof *got);
    CHECK(want && got);
    enum weight_path path;
    run_model(backend, &model, &path, want);
    for (uint32_t i = 0; i < vocab; i++) {
        CHECK(isfinite(want[i]));
    }

    size_t size = model.memory.size_bytes;
    int fd = memfd_create("weights", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    CHECK_EQ(pwrite(fd, model.memory.base, size, 0), (ssize_t)size);
    CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL), 0);
    void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    close(fd);
    const uint8_t *private_base = model.memory.base;
    model.memory.base = map;
    run_model(backend, &model, &path, got);
    if (backend->device->physical.props.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU) {
        CHECK_EQ(path, WEIGHT_PATH_HOST_POINTER);
    }
    CHECK(memcmp(want, got, vocab * sizeof *got) == 0);

    /* The same device without imports: copied, same result, and the log says so. */
    backend->device->physical.host_pointer_align = 0;
    memset(got, 0, vocab * sizeof *got);
    run_model(backend, &model, &path, got);
    CHECK_EQ(path, WEIGHT_PATH_DEVICE_COPY);
    CHECK(memcmp(want, got, vocab * sizeof *got) == 0);
    CHECK(strstr(logged, "weights: "));

    munmap(map, size);
    model.memory.base = private_base;
    vulkan_backend.close(backend);
    random_model_destroy(&model, base);
    free(want);
    free(got);
}

static void test_refusals(void)
{
    struct model model;
    void *base;
    make_model(&model, &base);
    struct backend *backend = open_backend(NULL);
    struct err err;
    struct backend_model *bm;
    struct backend_state *state;
    enum weight_path path;
    uint32_t rewind_max;
    uint64_t kv_bytes;
    model.layers[1].down.type = 77;
    CHECK_EQ(vulkan_backend.bind(backend, &model, &err, &bm, &path), -ENOTSUP);
    CHECK(strstr(err.text, "layer 1") && strstr(err.text, "down") && strstr(err.text, "77"));
    model.layers[1].down.type = WEIGHT_Q4;
    CHECK_EQ(vulkan_backend.bind(backend, &model, &err, &bm, &path), 0);

    /* A KV cache that no device has room for. */
    CHECK_EQ(vulkan_backend.state_create(bm, UINT32_MAX, &err, &state, &rewind_max, &kv_bytes),
             -ENOMEM);
    CHECK(strstr(err.text, "KV cache"));

    CHECK_EQ(vulkan_backend.state_create(bm, 600, &err, &state, &rewind_max, &kv_bytes), 0);
    float logits[300];
    int32_t ids[32] = {300};
    CHECK_EQ(vulkan_backend.forward(state, ids, 1, 0, LOGITS_LAST, logits, &err), -EINVAL);
    ids[0] = -1;
    CHECK_EQ(vulkan_backend.forward(state, ids, 1, 0, LOGITS_LAST, logits, &err), -EINVAL);
    ids[0] = 0;
    CHECK_EQ(vulkan_backend.forward(state, ids, 0, 0, LOGITS_LAST, logits, &err), -EINVAL);
    CHECK_EQ(vulkan_backend.forward(state, ids, 33, 0, LOGITS_LAST, logits, &err), -EINVAL);
    CHECK_EQ(vulkan_backend.forward(state, ids, 1, 600, LOGITS_LAST, logits, &err), -EINVAL);
    for (uint32_t pos = 0; pos < 576; pos += 32) {
        CHECK_EQ(vulkan_backend.forward(state, ids, 32, pos, LOGITS_NONE, NULL, &err), 0);
    }
    /* Local layers still have rewind_max positions before the window, and not more than that. */
    CHECK_EQ(vulkan_backend.forward(state, ids, 1, 575 - rewind_max, LOGITS_NONE, NULL, &err), 0);
    CHECK_EQ(vulkan_backend.forward(state, ids, 1, 100, LOGITS_NONE, NULL, &err), -EINVAL);
    CHECK(strstr(err.text, "position 100"));
    CHECK_EQ(vulkan_backend.forward(state, ids, 1, 0, LOGITS_NONE, NULL, &err), 0);
    vulkan_backend.state_destroy(state);
    vulkan_backend.unbind(bm);
    vulkan_backend.close(backend);
    random_model_destroy(&model, base);
}

/* Writes a byte of the only file in dir, or cuts it. */
static void damage_cache(const char *dir, bool cut)
{
    DIR *d = opendir(dir);
    CHECK(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') {
            continue;
        }
        n++;
        int fd = openat(dirfd(d), e->d_name, O_RDWR | O_CLOEXEC);
        struct stat st;
        CHECK(fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 100);
        if (cut) {
            CHECK_EQ(ftruncate(fd, st.st_size - 1), 0);
        } else {
            uint8_t byte;
            CHECK_EQ(pread(fd, &byte, 1, st.st_size - 1), 1);
            byte ^= 1;
            CHECK_EQ(pwrite(fd, &byte, 1, st.st_size - 1), 1);
        }
        close(fd);
    }
    CHECK_EQ(n, 1); /* and no temporary file left */
    closedir(d);
}

static void test_cache(void)
{
    char dir[] = "/tmp/vkc_test.XXXXXX";
    CHECK(mkdtemp(dir));
    struct model model;
    void *base;
    make_model(&model, &base);
    float logits[300];
    enum weight_path path;
    for (int round = 0; round < 4; round++) {
        logged[0] = '\0';
        struct backend *backend = open_backend(dir);
        run_model(backend, &model, &path, logits);
        vulkan_backend.close(backend);
        /* Round 0 finds nothing, 1 a good file, 2 and 3 a damaged one, which is replaced. */
        CHECK_EQ(strstr(logged, "damaged: ignored") != NULL, round >= 2);
        if (round >= 1) {
            damage_cache(dir, round == 2);
        }
    }
    logged[0] = '\0';
    struct backend *backend = open_backend("/nonexistent/directory");
    run_model(backend, &model, &path, logits);
    CHECK(strstr(logged, "cannot write"));
    vulkan_backend.close(backend);
    random_model_destroy(&model, base);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    CHECK_EQ(system(command), 0);
}

/* Open to close, many times: no fd stays. */
static void test_leftovers(void)
{
    struct model model;
    void *base;
    make_model(&model, &base);
    float logits[300];
    enum weight_path path;
    int fds = -1;
    for (int i = 0; i < 4; i++) {
        struct backend *backend = open_backend(NULL);
        run_model(backend, &model, &path, logits);
        vulkan_backend.close(backend);
        int now = count_fds(NULL);
        CHECK(i < 2 || now == fds); /* the first rounds may open what a driver keeps */
        fds = now;
    }
    random_model_destroy(&model, base);
}

int main(void)
{
    struct backend_params params;
    if (!vk_can_open(&params)) {
        return SKIP;
    }
    validate = params.validate;
    test_devices();
    test_choice();
    test_tunings();
    test_sealed_memfd();
    test_refusals();
    test_cache();
    test_leftovers();
    return 0;
}
