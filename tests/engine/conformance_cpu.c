/* SPDX-License-Identifier: MIT */
/*
 * cpu_backend against the reference: every instruction set this machine has, one to three threads.
 * Argument "quick": fewer models, for sanitizers.
 */
#include "check.h"
#include "conformance.h"
#include "cpu_internal.h"

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

int main(int argc, char **argv)
{
    bool quick = argc > 1 && strcmp(argv[1], "quick") == 0;
    int failures = 0;
    for (int i = 0; i < 3; i++) {
        if (!cpu_isa_kernels(levels[i].isa)) {
            printf("-- %s: not on this machine\n", levels[i].name);
            continue;
        }
        cpu_isa_force(levels[i].isa);
        /* All models with 2 threads; 1 and 3 change only who computes what. */
        for (uint32_t n_threads = 1; n_threads <= 3; n_threads++) {
            const struct backend_params params = {.n_threads = n_threads};
            int fds = count_fds(NULL);
            int r = conformance_run(&cpu_backend, &params, &tolerances, quick || n_threads != 2);
            CHECK(r >= 0);
            CHECK_EQ(count_fds(NULL), fds);
            failures += r;
        }
    }
    return failures ? 1 : 0;
}
