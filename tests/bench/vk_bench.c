/* SPDX-License-Identifier: MIT */
/*
 * Where a Vulkan start and a Vulkan token spend their time, on random weights (int4 in groups of
 * 32, 8-bit embedding and head): vk_bench [SIZE [DEVICE [CACHE_DIR]]], SIZE is wordbook (the
 * bundled model's shape) or one of config_known(). Prints one `name value unit` per line.
 */
#include <sys/resource.h>
#include <time.h>

#include "backend.h"
#include "check.h"
#include "random_model.h"

#define N_PREFILL 512
#define N_DECODE  128

static double now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static double cpu_ms(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e3;
}

static void log_line(void *data, const char *text)
{
    (void)data;
    fprintf(stderr, "%s\n", text);
}

static struct model_config wordbook(void)
{
    struct model_config c = {
        .n_layers = 12,
        .hidden = 384,
        .ffn = 1152,
        .n_heads = 4,
        .n_kv_heads = 1,
        .head_dim = 64,
        .vocab = 8192,
        .window = 256,
        .max_pos = 4096,
        .rms_eps = 1e-6f,
        .query_scale = 0.125f,
        .rope_theta_local = 1e4f,
        .rope_theta_global = 1e6f,
        .rope_factor_global = 1.0f,
        .tied_head = true,
    };
    c.layer_is_global[5] = c.layer_is_global[11] = true;
    return c;
}

static void run(struct backend_state *state, uint32_t max_batch, uint32_t vocab)
{
    struct err err;
    float *logits = malloc(vocab * sizeof *logits);
    int32_t ids[N_PREFILL];
    CHECK(logits && max_batch <= N_PREFILL);
    for (int i = 0; i < N_PREFILL; i++) {
        ids[i] = (int32_t)((uint32_t)i * 7919u % vocab);
    }
    const struct backend_ops *ops = &vulkan_backend;
    double start = now_ms();
    CHECK_EQ(ops->forward(state, ids, 1, 0, LOGITS_LAST, logits, &err), 0);
    printf("first_token %.1f ms\n", now_ms() - start);
    start = now_ms();
    CHECK_EQ(ops->forward(state, ids, max_batch, 0, LOGITS_LAST, logits, &err), 0);
    printf("first_batch %.1f ms\n", now_ms() - start);

    start = now_ms();
    for (uint32_t pos = 0; pos < N_PREFILL;) {
        uint32_t n = N_PREFILL - pos < max_batch ? N_PREFILL - pos : max_batch;
        CHECK_EQ(ops->forward(state, ids + pos, n, pos, LOGITS_NONE, NULL, &err), 0);
        pos += n;
    }
    printf("prefill %.1f tok/s\n", N_PREFILL * 1e3 / (now_ms() - start));
    start = now_ms();
    double cpu = cpu_ms();
    for (uint32_t i = 0; i < N_DECODE; i++) {
        CHECK_EQ(ops->forward(state, ids + i, 1, N_PREFILL + i, LOGITS_LAST, logits, &err), 0);
    }
    double wall = now_ms() - start;
    printf("decode %.1f tok/s\n", N_DECODE * 1e3 / wall);
    printf("decode_cpu %.2f cores, %.2f ms/token\n", (cpu_ms() - cpu) / wall,
           (cpu_ms() - cpu) / N_DECODE);
    free(logits);
}

int main(int argc, char **argv)
{
    struct model_config config = wordbook();
    if (argc > 1 && strcmp(argv[1], "wordbook") != 0 && config_known(argv[1], &config) < 0) {
        fprintf(stderr, "vk_bench: no model size %s\n", argv[1]);
        return 2;
    }
    struct image_formats formats;
    random_formats(&config, (struct weight_format){WEIGHT_Q4, 32, true}, &formats);
    formats.embed = formats.head = (struct weight_format){WEIGHT_Q8, 32, false};
    struct model model;
    void *base;
    random_model_create(&config, &formats, 1, &model, &base);

    struct backend_params params = {.log = log_line};
    params.device = argc > 2 && argv[2][0] ? argv[2] : NULL;
    params.cache_dir = argc > 3 ? argv[3] : NULL;
    struct backend *backend;
    struct backend_model *bm;
    struct backend_state *state;
    struct backend_info info;
    struct err err = {""};
    enum weight_path path;
    uint32_t rewind_max;
    uint64_t kv_bytes;
    const struct backend_ops *ops = &vulkan_backend;
    double start = now_ms();
    if (ops->open(&params, &err, &backend) < 0) {
        fprintf(stderr, "vk_bench: %s\n", err.text);
        return 1;
    }
    ops->info(backend, &info);
    printf("device %s\nopen %.1f ms\n", info.device, now_ms() - start);
    start = now_ms();
    if (ops->bind(backend, &model, &err, &bm, &path) < 0) {
        fprintf(stderr, "vk_bench: %s\n", err.text);
        return 1;
    }
    printf("bind %.1f ms (weights by path %d, and pipelines)\n", now_ms() - start, path);
    printf("weights %.3f GB\n", (double)model.memory.size_bytes / 1e9);
    start = now_ms();
    CHECK_EQ(ops->state_create(bm, N_PREFILL + N_DECODE, &err, &state, &rewind_max, &kv_bytes), 0);
    printf("state %.1f ms\n", now_ms() - start);
    run(state, info.max_batch, config.vocab);
    ops->state_destroy(state);
    ops->unbind(bm);
    ops->close(backend);
    random_model_destroy(&model, base);
    return 0;
}
