/* SPDX-License-Identifier: MIT */
/*
 * cpu_backend against the reference, and against itself with other numbers of threads: every
 * instruction set this machine has, one to three threads. Argument --quick: fewer models, for
 * sanitizers.
 */
#include "check.h"
#include "conformance.h"
#include "cpu_internal.h"
#include "random_model.h"

/*
 * Float steps differ from the reference by float32 sums of up to a few thousand products: 1e-6
 * relative each, a few times that through a layer.
 * Quantized matrices: activations are rounded to int8 per group of 32. The step is amax / 127, its
 * error uniform with standard deviation step / sqrt(12); the amax of 32 normal values is about 2.1
 * standard deviations, of our test input with its outliers up to 6: 0.005 to 0.012 of the input's
 * rms, and the same share of the output's, as errors and weights are independent.
 * Whole passes over 3 layers: each adds four such matrices' errors, not correlated.
 * Repeats: batches and single tokens sum in different orders; for quantized weights a last-bit
 * difference can move an activation to the next of its 255 steps.
 */
static const struct conformance_tolerances tolerances = {
    .vector = 2e-6,
    .attention = 1e-5,
    .matmul_float = 4e-6,
    .matmul_quant = 0.015,
    .logits_float = 2e-5,
    .logits_quant = 0.06,
    .repeat_float = 2e-5,
    .repeat_quant = 0.02,
};

static const struct {
    const char *name;
    enum cpu_isa isa;
} levels[] = {
    {"AVX-512", CPU_ISA_AVX512},
    {"AVX2", CPU_ISA_AVX2},
    {"scalar", CPU_ISA_SCALAR},
};

static int run_level(int level, uint32_t n_threads, bool quick)
{
    const struct backend_params params = {.n_threads = n_threads};
    int fds = count_fds(NULL);
    cpu_isa_force(levels[level].isa);
    int r = conformance_run(&cpu_backend, &params, &tolerances, quick, 32);
    CHECK(r >= 0);
    CHECK_EQ(count_fds(NULL), fds);
    return r;
}

/* Logits of a batch across attention segments, then of single tokens, with so many threads. */
static void logits_with(const struct model *model, uint32_t n_threads, float *ret)
{
    enum { BATCH = 100, BATCHES = 6, SINGLE = 5 };
    struct backend_params params = {.n_threads = n_threads};
    struct backend *backend;
    struct backend_model *bm;
    struct backend_state *state;
    enum weight_path path;
    uint32_t rewind_max, vocab = model->config.vocab, pos = 0;
    uint64_t kv_bytes;
    struct err err;
    int32_t ids[BATCH];
    CHECK_EQ(cpu_backend.open(&params, &err, &backend), 0);
    CHECK_EQ(cpu_backend.bind(backend, model, &err, &bm, &path), 0);
    CHECK_EQ(path, WEIGHT_PATH_ADOPTED);
    CHECK_EQ(cpu_backend.state_create(bm, 1000, &err, &state, &rewind_max, &kv_bytes), 0);
    for (int i = 0; i < BATCHES + SINGLE; i++) {
        uint32_t n = i < BATCHES ? BATCH : 1;
        for (uint32_t j = 0; j < n; j++) {
            ids[j] = (int32_t)((pos + j) * 31 % vocab);
        }
        CHECK_EQ(cpu_backend.forward(state, ids, n, pos, LOGITS_LAST, ret, &err), 0);
        ret += vocab;
        pos += n;
    }
    cpu_backend.state_destroy(state);
    cpu_backend.unbind(bm);
    cpu_backend.close(backend);
}

/* How many threads there are, and who does what, changes no bit of any logit. */
static void test_thread_counts(struct weight_format format)
{
    static struct model model;
    static struct image_formats formats;
    struct model_config config = {.n_layers = 2,
                                  .hidden = 160,
                                  .ffn = 352,
                                  .n_heads = 4,
                                  .n_kv_heads = 2,
                                  .head_dim = 64,
                                  .vocab = 263,
                                  .window = 300,
                                  .max_pos = 1000,
                                  .rms_eps = 1e-6f,
                                  .query_scale = 0.125f,
                                  .rope_theta_local = 10000.0f,
                                  .rope_theta_global = 1000000.0f,
                                  .rope_factor_global = 1.0f,
                                  .tied_head = true};
    enum { N = 11 };
    config.layer_is_global[1] = true;
    void *image;
    random_formats(&config, format, &formats);
    random_model_create(&config, &formats, 3, &model, &image);
    size_t size = (size_t)N * config.vocab * sizeof(float);
    float *one = malloc(size), *more = malloc(size);
    CHECK(one && more);
    logits_with(&model, 1, one);
    for (uint32_t n_threads = 2; n_threads <= 4; n_threads++) {
        logits_with(&model, n_threads, more);
        CHECK(memcmp(one, more, size) == 0);
    }
    free(one);
    free(more);
    random_model_destroy(&model, image);
}

int main(int argc, char **argv)
{
    bool quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    int failures = 0;
    for (int i = 0; i < 3; i++) {
        if (!cpu_isa_kernels(levels[i].isa)) {
            printf("-- %s: not on this machine\n", levels[i].name);
            continue;
        }
        failures += run_level(i, 3, true);
        test_thread_counts((struct weight_format){.type = WEIGHT_BF16});
        test_thread_counts((struct weight_format){.type = WEIGHT_Q4, .group = 32});
        if (!quick) {
            failures += run_level(i, 1, true);
            failures += run_level(i, 2, false);
        }
    }
    return failures ? 1 : 0;
}
