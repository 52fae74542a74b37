/* SPDX-License-Identifier: MIT */
/*
 * The Vulkan backend against the C reference, with the validation layers where they are installed.
 * Nothing is read from disk but the driver, so that the same program runs on any machine.
 * Arguments: [--quick] [--no-validation] [--no-sequences] [--layers] [DEVICE, a part of its
 * name or its index].
 */
#include <errno.h>
#include <math.h>

#include "check.h"
#include "conformance.h"
#include "random_model.h"

/* Also those that come after the last call that could fail, when everything is destroyed. */
static int n_validation_messages;

static void log_line(void *data, const char *text)
{
    (void)data;
    n_validation_messages += strncmp(text, "validation:", 11) == 0;
    fprintf(stderr, "  %s\n", text);
}

/* -ENODEV: no device here. -ENOENT: no validation layers here. */
static int try_open(const struct backend_params *params, bool *ret_f16, struct err *err)
{
    struct backend *backend;
    int r = vulkan_backend.open(params, err, &backend);
    if (r == 0) {
        struct backend_info info;
        vulkan_backend.info(backend, &info);
        printf("device: %s%s%s\n", info.device, params->validate ? ", validated" : "",
               info.f16_batches ? ", batches in f16 (cooperative matrices)" : "");
        *ret_f16 = info.f16_batches;
        vulkan_backend.close(backend);
    }
    return r;
}

struct opened {
    const struct backend_ops *ops;
    struct backend *backend;
    struct backend_model *bm;
    struct backend_state *state;
};

static void open_state(struct opened *o, const struct backend_params *params,
                       const struct model *model, uint32_t max_pos)
{
    struct err err;
    enum weight_path path;
    uint32_t rewind_max;
    uint64_t kv_bytes;
    CHECK_EQ(o->ops->open(params, &err, &o->backend), 0);
    CHECK_EQ(o->ops->bind(o->backend, model, &err, &o->bm, &path), 0);
    CHECK_EQ(o->ops->state_create(o->bm, max_pos, &err, &o->state, &rewind_max, &kv_bytes), 0);
}

static void close_state(struct opened *o)
{
    o->ops->state_destroy(o->state);
    o->ops->unbind(o->bm);
    o->ops->close(o->backend);
}

/*
 * Rotation at the last positions of a long context, where an angle is 131071 radians: q against the
 * reference, which computes in double. Both layers' frequencies.
 */
static int test_far_positions(const struct backend_params *params)
{
    enum { N = 4, HD = 128, MAX_POS = 131072 };
    struct model_config config = {
        .n_layers = 2,
        .hidden = 64,
        .ffn = 64,
        .n_heads = 1,
        .n_kv_heads = 1,
        .head_dim = HD,
        .vocab = 64,
        .window = 32,
        .max_pos = MAX_POS,
        .rms_eps = 1e-6f,
        .query_scale = 1.0f,
        .rope_theta_local = 1e4f,
        .rope_theta_global = 1e6f,
        .rope_factor_global = 8.0f,
        .tied_head = true,
        .layer_is_global = {false, true},
    };
    struct image_formats formats;
    struct model model;
    void *base;
    random_formats(&config, (struct weight_format){WEIGHT_F32, 0, false}, &formats);
    random_model_create(&config, &formats, 1, &model, &base);
    struct opened subject = {.ops = &vulkan_backend}, oracle = {.ops = &reference_backend};
    open_state(&subject, params, &model, MAX_POS);
    open_state(&oracle, params, &model, MAX_POS);
    float in[N * 3 * HD], got[N * HD], want[N * HD];
    for (size_t i = 0; i < N * 3 * HD; i++) {
        in[i] = sinf((float)(i * i % 1009));
    }
    double worst = 0;
    static const uint32_t positions[] = {0, 4095, 65535, 100003, MAX_POS - N};
    for (size_t p = 0; p < sizeof positions / sizeof positions[0]; p++) {
        for (uint32_t layer = 0; layer < 2; layer++) {
            struct err err;
            CHECK_EQ(subject.ops->op(subject.state, OP_ROPE_STORE, layer, NULL, N, positions[p], in,
                                     got, &err),
                     0);
            CHECK_EQ(oracle.ops->op(oracle.state, OP_ROPE_STORE, layer, NULL, N, positions[p], in,
                                    want, &err),
                     0);
            for (size_t i = 0; i < N * HD; i++) {
                worst = fmax(worst, fabs((double)got[i] - want[i]));
            }
        }
    }
    close_state(&subject);
    close_state(&oracle);
    random_model_destroy(&model, base);
    /* q's elements are about 1; the norm's rounding and the polynomial's are each a few 1e-7. */
    printf("rotation up to position %d: worst difference %.1e\n", MAX_POS - 1, worst);
    return worst <= 3e-6 ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct backend_params params = {.validate = true, .log = log_line};
    bool quick = false;
    uint32_t n_sequences = 32;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) {
            quick = true;
        } else if (strcmp(argv[i], "--no-validation") == 0) {
            params.validate = false;
        } else if (strcmp(argv[i], "--layers") == 0) {
            params.always_layers = true;
        } else if (strcmp(argv[i], "--no-sequences") == 0) {
            n_sequences = 0; /* the address check of some layers fails with hundreds of buffers */
        } else {
            params.device = argv[i];
        }
    }
    struct err err;
    bool f16 = false;
    int r = try_open(&params, &f16, &err);
    if (r == -ENOENT) {
        printf("NOT VALIDATED: %s\n", err.text);
        params.validate = false;
        r = try_open(&params, &f16, &err);
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
     * Weights are dequantized exactly. One token times a quantized matrix rounds the activations to
     * 16 bits per 16 or 32 elements (gemv.comp): half a step of 2^-15 of a block's largest, an
     * outlier of up to 24 sigma: 2e-5 to 4e-5.
     *
     * The KV cache is f16 and the reference's float32. A score of size s is then off by about
     * s * 2^-12, and the suite's outliers (activations of up to 24 sigma) make scores of tens:
     * 1e-3 to 3e-3 of the output, and ten times that in the heads with the outliers. Against a
     * reference that also rounds its cache, the same runs agree within 7e-5. The batches of one run
     * round alike, whatever their size, but one token at a time does not (see above): then a key
     * may round to the f16 beside it, which is 5e-4 of it. Where integer dot products serve several
     * tokens too (few.comp), the same happens to a prompt's keys against the reference: logits are
     * off by 3e-3 to 4e-3 all together, and a single one of 27 000 by 0.08 of their size.
     */
    const struct conformance_tolerances plain = {
        .vector = 3e-6,
        .attention = 2e-2,
        .matmul_float = 3e-6,
        .matmul_quant = 8e-5,
        .logits_float = 1e-2,
        .logits_quant = 2e-2,
        .repeat_float = 2e-4,
        .repeat_quant = 4e-3,
    };
    /*
     * Cooperative matrices round weights and activations to f16, some drivers towards zero: up to
     * 2^-11 of each, 3e-4 to 5e-4 of a sum. A score of tens is then off by
     * hundredths, and single tokens' logits by a tenth of their size, while all together are within
     * 5e-3. A batch and its tokens one by one differ by as much as either differs from the
     * reference.
     */
    const struct conformance_tolerances cooperative = {
        .vector = 3e-6,
        .attention = 2e-2,
        .matmul_float = 1e-3,
        .matmul_quant = 1e-3,
        .logits_float = 4e-2,
        .logits_quant = 4e-2,
        .repeat_float = 4e-2,
        .repeat_quant = 4e-2,
    };
    r = test_far_positions(&params);
    r += conformance_run(&vulkan_backend, &params, f16 ? &cooperative : &plain, quick, n_sequences);
    if (n_validation_messages) {
        fprintf(stderr, "%d validation messages\n", n_validation_messages);
    }
    return r == 0 && n_validation_messages == 0 ? 0 : 1;
}
