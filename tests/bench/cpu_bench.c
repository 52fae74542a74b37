/* SPDX-License-Identifier: MIT */
/*
 * How fast cpu_backend is on this machine: plain reads of memory, matrix times vector per weight
 * type and thread count in GB/s of weights, and prefill and decode of random models.
 *
 *   cpu_bench [--threads=N] [--isa=avx512|avx2|scalar] [--busy] mem|matvec|22m|270m|1b|4b ...
 *
 * --busy: decode beside 1, 2, .. N processes that do nothing but compute. Tokens per second must
 * fall in proportion to the CPU time that is left, not collapse.
 */
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "cpu_internal.h"
#include "parallel.h"
#include "random_model.h"

struct options {
    uint32_t n_threads;
    bool busy;
};

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* --- plain reads ----------------------------------------------------------------------------- */

enum { READ_ITEM = 64 << 10 };

static void read_item(void *arg, uint32_t item, uint32_t thread)
{
    typedef uint64_t lanes __attribute__((vector_size(32)));
    const lanes *p = (const lanes *)((const uint8_t *)arg + (size_t)item * READ_ITEM);
    lanes a = {0}, b = {0};
    (void)thread;
    for (size_t i = 0; i < READ_ITEM / sizeof a; i += 2) {
        a ^= p[i];
        b ^= p[i + 1];
    }
    a ^= b;
    __asm__ volatile("" ::"r"(a[0] ^ a[1] ^ a[2] ^ a[3]));
}

static void bench_mem(const struct options *options)
{
    size_t size = (size_t)512 << 20;
    uint8_t *data = aligned_alloc(4096, size);
    struct pool *pool;
    struct err err;
    CHECK(data);
    memset(data, 1, size);
    for (uint32_t n_threads = 1; n_threads <= options->n_threads; n_threads++) {
        CHECK_EQ(pool_create(n_threads, &err, &pool), 0);
        double best = 1e9;
        for (int i = 0; i < 5; i++) {
            double start = now();
            pool_run(pool, read_item, data, (uint32_t)(size / READ_ITEM));
            double t = now() - start;
            best = t < best ? t : best;
        }
        printf("read    %u threads  %6.1f GB/s\n", n_threads, (double)size / best * 1e-9);
        pool_destroy(pool);
    }
    free(data);
}

/* --- a random model, opened ------------------------------------------------------------------ */

struct opened {
    struct model model;
    void *image;
    struct backend *backend;
    struct backend_model *bm;
    struct backend_state *state;
};

static struct opened *open_model(const struct model_config *config,
                                 const struct image_formats *formats, uint32_t n_threads)
{
    struct backend_params params = {.n_threads = n_threads};
    struct opened *o = calloc(1, sizeof *o);
    enum weight_path path;
    uint32_t rewind_max;
    uint64_t kv_bytes;
    struct err err;
    CHECK(o);
    random_model_create(config, formats, 1, &o->model, &o->image);
    CHECK_EQ(cpu_backend.open(&params, &err, &o->backend), 0);
    CHECK_EQ(cpu_backend.bind(o->backend, &o->model, &err, &o->bm, &path), 0);
    CHECK_EQ(cpu_backend.state_create(o->bm, 2048, &err, &o->state, &rewind_max, &kv_bytes), 0);
    return o;
}

static void close_model(struct opened *o)
{
    cpu_backend.state_destroy(o->state);
    cpu_backend.unbind(o->bm);
    cpu_backend.close(o->backend);
    random_model_destroy(&o->model, o->image);
    free(o);
}

/* --- prefill and decode ---------------------------------------------------------------------- */

static void pass(struct opened *o, uint32_t n, uint32_t pos, float *logits)
{
    int32_t ids[CPU_MAX_BATCH];
    struct err err;
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = (int32_t)(5 + (pos + i) * 7 % 1000);
    }
    CHECK_EQ(cpu_backend.forward(o->state, ids, n, pos, LOGITS_LAST, logits, &err), 0);
}

static void time_prefill(struct opened *o, float *logits)
{
    double best = 1e9;
    for (int i = 0; i < 3; i++) {
        double start = now();
        pass(o, CPU_MAX_BATCH, 0, logits);
        double t = now() - start;
        best = t < best ? t : best;
    }
    printf("  prefill %8.1f tok/s at %d tokens\n", CPU_MAX_BATCH / best, CPU_MAX_BATCH);
    fflush(stdout);
}

static void time_decode(struct opened *o, uint32_t n_tokens, uint32_t pos, float *logits)
{
    double bytes = (double)model_bytes_per_token(&o->model);
    pass(o, 1, pos, logits);
    double cpu = cpu_seconds(), start = now();
    for (uint32_t i = 0; i < n_tokens; i++) {
        pass(o, 1, pos + 1 + i, logits);
    }
    double t = now() - start;
    printf("  decode  %8.1f tok/s at %u, %.1f GB/s, %.2f CPU-s/s\n", n_tokens / t, pos,
           bytes * n_tokens / t * 1e-9, (cpu_seconds() - cpu) / t);
    fflush(stdout);
}

static void time_busy(struct opened *o, const struct options *options, uint32_t n_tokens,
                      float *logits)
{
    pid_t pids[64];
    for (uint32_t n = 0; n < options->n_threads && n < 64; n++) {
        pids[n] = fork();
        CHECK(pids[n] >= 0);
        if (pids[n] == 0) {
            for (volatile unsigned i = 0;; i++) {
            }
        }
        printf("  beside %u busy:", n + 1);
        time_decode(o, n_tokens, 128, logits);
    }
    for (uint32_t n = 0; n < options->n_threads && n < 64; n++) {
        kill(pids[n], SIGKILL);
        waitpid(pids[n], NULL, 0);
    }
}

/* The bundled model's shape. */
static void config_22m(struct model_config *ret)
{
    *ret = (struct model_config){
        .n_layers = 12,
        .hidden = 384,
        .ffn = 1152,
        .n_heads = 4,
        .n_kv_heads = 1,
        .head_dim = 64,
        .vocab = 8192,
        .window = 512,
        .max_pos = 2048,
        .rms_eps = 1e-6f,
        .query_scale = 0.125f,
        .rope_theta_local = 10000.0f,
        .rope_theta_global = 1000000.0f,
        .rope_factor_global = 1.0f,
        .tied_head = true,
        .bos = 2,
        .pad = 0,
    };
    ret->layer_is_global[5] = ret->layer_is_global[11] = true;
}

static void bench_model(const struct options *options, const char *size)
{
    struct model_config config;
    if (strcmp(size, "22m") == 0) {
        config_22m(&config);
    } else {
        CHECK_EQ(config_known(size, &config), 0);
    }
    static struct image_formats formats;
    random_formats(&config, (struct weight_format){.type = WEIGHT_Q4, .group = 32}, &formats);
    formats.embed = formats.head = (struct weight_format){.type = WEIGHT_Q8, .group = 32};
    struct opened *o = open_model(&config, &formats, options->n_threads);
    float *logits = malloc(config.vocab * sizeof *logits);
    CHECK(logits);

    double bytes = (double)model_bytes_per_token(&o->model);
    uint32_t n_tokens = (uint32_t)(15e9 / bytes);
    n_tokens = n_tokens > 500 ? 500 : n_tokens < 8 ? 8 : n_tokens;
    printf("%s: %s, %.1f MB a token\n", size, o->backend->device, bytes * 1e-6);
    time_prefill(o, logits);
    time_decode(o, n_tokens, 128, logits);
    time_decode(o, n_tokens / 2 + 1, 1500, logits);
    if (options->busy) {
        time_busy(o, options, n_tokens, logits);
    }
    double cpu = cpu_seconds();
    usleep(200000);
    printf("  idle    %.4f CPU-s/s\n", (cpu_seconds() - cpu) / 0.2);
    free(logits);
    close_model(o);
}

/* --- matrix times vector --------------------------------------------------------------------- */

static void time_matvec(struct opened *o, enum backend_op op, const struct weight *w,
                        uint32_t n_threads)
{
    static const char *const names[] = {"", "f32", "f16", "bf16", "q4", "q8"};
    float *in = malloc(w->cols * sizeof *in), *out = malloc(w->rows * sizeof *out);
    struct err err;
    double best = 1e9;
    CHECK(in && out);
    for (uint32_t i = 0; i < w->cols; i++) {
        in[i] = (float)(i % 13) - 6;
    }
    for (double end = now() + 0.5; now() < end;) {
        double start = now();
        CHECK_EQ(cpu_backend.op(o->state, op, 0, NULL, 1, 0, in, out, &err), 0);
        double t = now() - start;
        best = t < best ? t : best;
    }
    printf("%-4s g%-3u %-6s [%6u, %4u]  %u threads  %6.1f GB/s\n", names[w->type], w->group,
           w->bias_off ? "affine" : "", w->rows, w->cols, n_threads,
           (double)weight_bytes(w) / best * 1e-9);
    fflush(stdout);
    free(in);
    free(out);
}

/* One layer of the 1B, and a head so large that nothing stays in a cache. */
static void bench_matvec_type(uint32_t type, uint32_t group, bool affine, uint32_t n_threads)
{
    struct model_config config;
    static struct image_formats formats;
    CHECK_EQ(config_known("1b", &config), 0);
    config.n_layers = 1;
    config.vocab = 131072;
    random_formats(&config, (struct weight_format){type, group, affine}, &formats);
    struct opened *o = open_model(&config, &formats, n_threads);
    time_matvec(o, OP_HEAD, &o->model.head, n_threads);
    time_matvec(o, OP_DOWN, &o->model.layers[0].down, n_threads);
    close_model(o);
}

static void bench_matvec(const struct options *options)
{
    for (uint32_t n = 1; n <= options->n_threads; n++) {
        for (uint32_t group = 32; group <= 128; group *= 2) {
            bench_matvec_type(WEIGHT_Q4, group, false, n);
            bench_matvec_type(WEIGHT_Q4, group, true, n);
            bench_matvec_type(WEIGHT_Q8, group, false, n);
        }
        bench_matvec_type(WEIGHT_BF16, 0, false, n);
        bench_matvec_type(WEIGHT_F16, 0, false, n);
    }
}

int main(int argc, char **argv)
{
    struct options options = {.n_threads = parallel_cores()};
    if (argc < 2) {
        fprintf(stderr, "usage: cpu_bench [--threads=N] [--isa=avx512|avx2|scalar] [--busy] "
                        "mem|matvec|22m|270m|1b|4b ...\n");
        return 2;
    }
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (strncmp(arg, "--threads=", 10) == 0) {
            options.n_threads = (uint32_t)atoi(arg + 10);
        } else if (strcmp(arg, "--isa=avx512") == 0) {
            cpu_isa_force(CPU_ISA_AVX512);
        } else if (strcmp(arg, "--isa=avx2") == 0) {
            cpu_isa_force(CPU_ISA_AVX2);
        } else if (strcmp(arg, "--isa=scalar") == 0) {
            cpu_isa_force(CPU_ISA_SCALAR);
        } else if (strcmp(arg, "--busy") == 0) {
            options.busy = true;
        } else if (strcmp(arg, "mem") == 0) {
            bench_mem(&options);
        } else if (strcmp(arg, "matvec") == 0) {
            bench_matvec(&options);
        } else {
            bench_model(&options, arg);
        }
    }
    return 0;
}
