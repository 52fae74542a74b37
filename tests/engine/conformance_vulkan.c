/* SPDX-License-Identifier: MIT */
/*
 * The Vulkan backend against the C reference, with the validation layers where they are installed.
 * Nothing is read from disk but the driver, so that the same program runs on any machine.
 * Arguments: [--quick] [--no-validation] [DEVICE, a part of its name or its index].
 */
#include <errno.h>

#include "check.h"
#include "conformance.h"

/* Also those that come after the last call that could fail, when everything is destroyed. */
static int n_validation_messages;

static void log_line(void *data, const char *text)
{
    (void)data;
    n_validation_messages += strncmp(text, "validation:", 11) == 0;
    fprintf(stderr, "  %s\n", text);
}

/* -ENODEV: no device here. -ENOENT: no validation layers here. */
static int try_open(const struct backend_params *params, struct err *err)
{
    struct backend *backend;
    int r = vulkan_backend.open(params, err, &backend);
    if (r == 0) {
        struct backend_info info;
        vulkan_backend.info(backend, &info);
        printf("device: %s%s\n", info.device, params->validate ? ", validated" : "");
        vulkan_backend.close(backend);
    }
    return r;
}

int main(int argc, char **argv)
{
    struct backend_params params = {.validate = true, .log = log_line};
    bool quick = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) {
            quick = true;
        } else if (strcmp(argv[i], "--no-validation") == 0) {
            params.validate = false;
        } else {
            params.device = argv[i];
        }
    }
    struct err err;
    int r = try_open(&params, &err);
    if (r == -ENOENT) {
        printf("NOT VALIDATED: %s\n", err.text);
        params.validate = false;
        r = try_open(&params, &err);
    }
    if (r == -ENODEV && !params.device) {
        printf("skipped: %s\n", err.text);
        return SKIP;
    }
    if (r < 0) {
        fprintf(stderr, "cannot open the Vulkan backend: %s\n", err.text);
        return 1;
    }
    /*
     * Activations, weights and sums are float32 on both sides and differ only in the order of
     * summation and in the device's exp, division and square root (a few ulp): a few 1e-7 each.
     * Weights are dequantized exactly, so quantized models are no worse than float ones.
     *
     * The KV cache is f16 and the reference's float32. A score of size s is then off by about
     * s * 2^-12, and the suite's outliers (activations of up to 24 sigma) make scores of tens:
     * 1e-3 to 3e-3 of the output, and ten times that in the heads with the outliers. Against a
     * reference that also rounds its cache, the same runs agree within 7e-5. The batches of one run
     * round alike, whatever their size.
     */
    const struct conformance_tolerances tol = {
        .vector = 3e-6,
        .attention = 2e-2,
        .matmul_float = 3e-6,
        .matmul_quant = 3e-6,
        .logits_float = 1e-2,
        .logits_quant = 1e-2,
        .repeat_float = 2e-4,
        .repeat_quant = 2e-4,
    };
    r = conformance_run(&vulkan_backend, &params, &tol, quick);
    if (n_validation_messages) {
        fprintf(stderr, "%d validation messages\n", n_validation_messages);
    }
    return r == 0 && n_validation_messages == 0 ? 0 : 1;
}
