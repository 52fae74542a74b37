/* SPDX-License-Identifier: MIT */
/*
 * Whole models against logits that another implementation (transformers, float32) computed:
 * golden_test BACKEND. The scripts that made them are in tests/vectors/golden/.
 *
 * Tolerances. float32 arithmetic in another order differs by a few 1e-5 of these logits (up to 40),
 * the issue allows 2e-3 for the CPU and 3e-2 for Vulkan, whose KV cache is float16. With quantized
 * weights the cpu backend also rounds activations to int8 per 32 elements: that is noise of its
 * own, so there the distributions are compared (mean KL divergence), not the logits.
 */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <sys/mman.h>

#include "backend.h"
#include "check.h"
#include "load.h"

struct loaded {
    struct model model;
    uint8_t *base;
};

struct npy {
    size_t rows, cols;
    float *data;
};

static void load_model(const char *dir, struct loaded *ret)
{
    struct model_config config;
    struct load_plan *plan;
    struct err err = {{0}};
    if (config_load(dir, &config, &err) < 0 ||
        load_plan_create(dir, &config, 1ull << 30, &err, &plan) < 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    struct weight_memory memory = load_plan_model(plan)->memory;
    /* as gttd's memory: aligned to 2 MiB */
    ret->base = mmap(NULL, memory.size_bytes + (2 << 20), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(ret->base != MAP_FAILED);
    ret->base = (uint8_t *)(((uintptr_t)ret->base + (2 << 20) - 1) & ~(uintptr_t)((2 << 20) - 1));
    memory.base = ret->base;
    if (load_fill(plan, ret->base, 0, NULL, NULL, &err) < 0 ||
        image_bind(&config, &memory, &ret->model, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    load_plan_destroy(plan);
}

/* float32 [rows, cols], as numpy.save writes it. */
static struct npy load_npy(const char *path)
{
    struct npy npy;
    char header[65536];
    unsigned char start[10];
    FILE *f = fopen(path, "rb");
    if (!f) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
    CHECK(fread(start, 1, 10, f) == 10 && memcmp(start, "\x93NUMPY\x01", 7) == 0);
    size_t n = start[8] + 256u * start[9];
    CHECK(fread(header, 1, n, f) == n);
    header[n] = '\0';
    CHECK(strstr(header, "'<f4'") && strstr(header, "'fortran_order': False"));
    char *shape = strstr(header, "'shape': (");
    CHECK(shape && sscanf(shape, "'shape': (%zu, %zu)", &npy.rows, &npy.cols) == 2);
    npy.data = malloc(npy.rows * npy.cols * sizeof *npy.data);
    CHECK(npy.data &&
          fread(npy.data, sizeof *npy.data, npy.rows * npy.cols, f) == npy.rows * npy.cols);
    fclose(f);
    return npy;
}

static json_t *load_json(const char *path)
{
    json_error_t error;
    json_t *json = json_load_file(path, 0, &error);
    if (!json) {
        fprintf(stderr, "%s: %s\n", path, error.text);
        exit(1);
    }
    return json;
}

static size_t load_ids(const json_t *array, int32_t *ids, size_t cap)
{
    size_t n = json_array_size(array);
    CHECK(n > 0 && n <= cap);
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)json_integer_value(json_array_get(array, i));
    }
    return n;
}

struct runner {
    const struct backend_ops *ops;
    struct backend *backend;
    struct backend_model *bound;
    struct backend_state *state;
    struct backend_info info;
    uint32_t vocab;
};

static void must(int r, const struct err *err)
{
    if (r < 0) {
        fprintf(stderr, "%s\n", err->text);
        exit(r == -ENODEV ? SKIP : 1);
    }
}

static void runner_init(struct runner *runner, const struct backend_ops *ops,
                        const struct model *model)
{
    struct err err = {{0}};
    struct backend_params params = {0};
    enum weight_path path;
    uint32_t rewind;
    uint64_t kv_bytes;
    *runner = (struct runner){.ops = ops, .vocab = model->config.vocab};
    must(ops->open(&params, &err, &runner->backend), &err);
    ops->info(runner->backend, &runner->info);
    must(ops->bind(runner->backend, model, &err, &runner->bound, &path), &err);
    must(ops->state_create(runner->bound, 1024, &err, &runner->state, &rewind, &kv_bytes), &err);
}

static void runner_finish(struct runner *runner)
{
    runner->ops->state_destroy(runner->state);
    runner->ops->unbind(runner->bound);
    runner->ops->close(runner->backend);
}

/* Logits of every row, in batches as large as the backend takes. */
static float *all_logits(struct runner *runner, const int32_t *ids, size_t n)
{
    struct err err = {{0}};
    float *logits = malloc(n * runner->vocab * sizeof *logits);
    CHECK(logits);
    for (size_t pos = 0; pos < n;) {
        size_t batch = n - pos < runner->info.max_batch ? n - pos : runner->info.max_batch;
        must(runner->ops->forward(runner->state, ids + pos, (uint32_t)batch, (uint32_t)pos,
                                  LOGITS_ALL, logits + pos * runner->vocab, &err),
             &err);
        pos += batch;
    }
    return logits;
}

static double max_difference(const float *a, const float *b, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        CHECK(isfinite(a[i]));
        double d = fabs((double)a[i] - b[i]);
        worst = d > worst ? d : worst;
    }
    return worst;
}

static double log_sum_exp(const float *x, size_t n)
{
    double max = x[0], sum = 0;
    for (size_t i = 1; i < n; i++) {
        max = x[i] > max ? x[i] : max;
    }
    for (size_t i = 0; i < n; i++) {
        sum += exp(x[i] - max);
    }
    return max + log(sum);
}

/* KL(p || q), both given as logits. */
static double divergence(const float *p, const float *q, size_t n)
{
    double lp = log_sum_exp(p, n), lq = log_sum_exp(q, n), sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += exp(p[i] - lp) * ((p[i] - lp) - (q[i] - lq));
    }
    return sum;
}

static int32_t largest(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return (int32_t)best;
}

/* A small random model with all of Gemma 3's quirks, bf16 weights: every row. */
static void test_quirks(const struct backend_ops *ops, double tolerance)
{
    struct loaded m;
    struct runner runner;
    int32_t ids[256];
    json_t *json = load_json("tests/vectors/golden/quirks/case.json");
    struct npy golden = load_npy("tests/vectors/golden/quirks/logits.npy");
    size_t n = load_ids(json_object_get(json, "ids"), ids, 256);
    load_model("tests/vectors/golden/quirks", &m);
    CHECK_EQ(golden.rows, n);
    CHECK_EQ(golden.cols, m.model.config.vocab);
    runner_init(&runner, ops, &m.model);
    float *logits = all_logits(&runner, ids, n);
    double d = max_difference(logits, golden.data, n * golden.cols);
    printf("%s: quirks, bf16: %zu rows, largest difference %.2e (allowed %.0e)\n", ops->name, n, d,
           tolerance);
    CHECK(d <= tolerance);
    free(logits);
    free(golden.data);
    runner_finish(&runner);
    json_decref(json);
}

/* Follow the golden greedy continuation until it ends; a fork counts only if it is no near tie. */
static void test_greedy(struct runner *runner, const int32_t *ids, size_t n, const json_t *greedy,
                        double tolerance)
{
    struct err err = {{0}};
    float *logits = malloc(runner->vocab * sizeof *logits);
    CHECK(logits);
    must(runner->ops->forward(runner->state, ids + n - 1, 1, (uint32_t)n - 1, LOGITS_LAST, logits,
                              &err),
         &err);
    for (size_t i = 0; i < json_array_size(greedy); i++) {
        int32_t want = (int32_t)json_integer_value(json_array_get(greedy, i));
        int32_t got = largest(logits, runner->vocab);
        CHECK(got == want || logits[got] - logits[want] <= 2 * tolerance);
        must(runner->ops->forward(runner->state, &want, 1, (uint32_t)(n + i), LOGITS_LAST, logits,
                                  &err),
             &err);
    }
    free(logits);
}

/* The bundled model, quantized: the last rows of three prompts, and their greedy continuations. */
static void test_bundled(const struct backend_ops *ops, double tolerance, double kl_tolerance)
{
    struct loaded m;
    struct runner runner;
    int32_t ids[1024];
    json_t *json = load_json("tests/vectors/golden/wordbook/cases.json"), *c;
    size_t i;
    double kl = 0, d = 0;
    size_t n_rows = 0;
    load_model("models/wordbook-22m", &m);
    runner_init(&runner, ops, &m.model);
    json_array_foreach(json_object_get(json, "cases"), i, c)
    {
        char path[128];
        snprintf(path, sizeof path, "tests/vectors/golden/wordbook/logits_%zu.npy", i);
        struct npy golden = load_npy(path);
        size_t n = load_ids(json_object_get(c, "ids"), ids, 1024);
        size_t first = (size_t)json_integer_value(json_object_get(c, "first_row"));
        CHECK_EQ(golden.rows, n - first);
        CHECK_EQ(golden.cols, runner.vocab);
        float *logits = all_logits(&runner, ids, n);
        double worst =
            max_difference(logits + first * golden.cols, golden.data, golden.rows * golden.cols);
        d = worst > d ? worst : d;
        for (size_t row = 0; row < golden.rows; row++, n_rows++) {
            kl += divergence(golden.data + row * golden.cols, logits + (first + row) * golden.cols,
                             golden.cols);
        }
        test_greedy(&runner, ids, n, json_object_get(c, "greedy"), tolerance);
        free(logits);
        free(golden.data);
    }
    kl /= (double)n_rows;
    printf("%s: wordbook-22m, quantized: %zu rows, largest difference %.2e (allowed %.0e), mean KL "
           "%.1e (allowed %.0e)\n",
           ops->name, n_rows, d, tolerance, kl, kl_tolerance);
    CHECK(d <= tolerance);
    CHECK(kl <= kl_tolerance);
    runner_finish(&runner);
    json_decref(json);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    if (strcmp(argv[1], "reference") == 0) {
        test_quirks(&reference_backend, 1e-3);
        test_bundled(&reference_backend, 2e-3, 1e-6);
    } else if (strcmp(argv[1], "cpu") == 0) {
        test_quirks(&cpu_backend, 2e-3);
        test_bundled(&cpu_backend, 1.5, 1e-2);
    } else if (strcmp(argv[1], "vulkan") == 0) {
        test_quirks(&vulkan_backend, 3e-2);
        test_bundled(&vulkan_backend, 3e-2, 1e-4);
    } else {
        fprintf(stderr, "usage: golden_test reference|cpu|vulkan\n");
        return 2;
    }
    return 0;
}
