/* SPDX-License-Identifier: MIT */
/*
 * few.comp against gemv.comp: a few tokens times a matrix are what each of them alone is, however
 * the work is cut up. The integers are the same and only float32 sums of a row's blocks (20 at
 * most) are made in another order: some 1e-7 of the result's size. Needs integer dot products.
 */
#include <errno.h>
#include <math.h>

#include "check.h"
#include "random_model.h"
#include "vk_opened.h"

#define TOLERANCE 2e-6

enum { N = STEP_ROWS_MAX, WIDEST = 2 * 640, VOCAB = 263 };

static void test_matrix(struct vk_opened *o, enum backend_op op, const struct weight *w)
{
    static const uint32_t counts[] = {3, 8, 32};
    static float in[N * WIDEST], alone[N * WIDEST], together[N * WIDEST];
    struct err err;
    CHECK(w->cols <= WIDEST && w->rows <= WIDEST);
    CHECK(vk_few_fits(o->backend, w, N));
    for (size_t i = 0; i < (size_t)N * w->cols; i++) {
        in[i] = sinf((float)(i * i % 1009)) * (i % 131 == 0 ? 20.0f : 1.0f);
    }
    for (uint32_t t = 0; t < N; t++) {
        CHECK_EQ(vulkan_backend.op(o->state, op, 1, NULL, 1, t, in + (size_t)t * w->cols,
                                   alone + (size_t)t * w->rows, &err),
                 0);
    }
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        size_t size = (size_t)counts[c] * w->rows;
        memset(together, 0xff, sizeof together);
        int r = vulkan_backend.op(o->state, op, 1, NULL, counts[c], 0, in, together, &err);
        if (r < 0) {
            fprintf(stderr, "%s\n", err.text);
        }
        CHECK_EQ(r, 0);
        double d = vk_distance(together, alone, size);
        if (!(d <= TOLERANCE)) {
            fprintf(stderr, "operation %d, %u tokens: off by %.1e\n", (int)op, counts[c], d);
            exit(1);
        }
    }
}

/* How the work may be cut up: a device's own way, and others. Lanes are within lavapipe's subgroup.
 */
static void test_model(const struct backend_params *params, struct weight_format layers,
                       struct weight_format head)
{
    static const struct vk_few_tuning tunings[] = {{16, 8, 1, 1, 2},
                                                   {32, 8, 4, 1, 8},
                                                   {64, 4, 2, 2, 16}};
    struct model_config config = vk_small_config(VOCAB);
    config.hidden = 384;
    config.ffn = 640;
    config.n_heads = 4;
    config.n_kv_heads = 2;
    config.head_dim = 64;
    struct image_formats formats;
    struct model model;
    struct vk_opened o;
    void *base;
    random_formats(&config, layers, &formats);
    formats.embed = formats.head = head;
    random_model_create(&config, &formats, 1, &model, &base);
    vk_open(&o, params, &model, 64);
    o.backend->tuning.few_max = N; /* also where cooperative matrices would do it */
    for (size_t t = 0; t <= sizeof tunings / sizeof tunings[0]; t++) {
        const struct model_layer *l = &model.layers[1];
        o.backend->few = t ? &tunings[t - 1] : NULL;
        test_matrix(&o, OP_QKV, &l->qkv);
        test_matrix(&o, OP_DOWN, &l->down);
        test_matrix(&o, OP_HEAD, &model.head);
    }
    vk_close(&o);
    random_model_destroy(&model, base);
}

/* For shapes of real models on real devices, what is chosen is within the limits. */
static void test_choices(void)
{
    static const uint32_t cols[] = {640, 1152, 2560, 5376, 21504}, rows[] = {640, 8192, 262208};
    struct vkc_device device = {.physical = {.subgroup_size = 32, .compute_units = 132}};
    struct backend backend = {.device = &device};
    VkPhysicalDeviceLimits *limits = &device.physical.props.limits;
    limits->maxComputeWorkGroupInvocations = 1024;
    limits->maxComputeSharedMemorySize = 32768;
    for (int i = 0; i < 3 * 5 * 3 * 2 * 5 * 2; i++) {
        static const uint32_t units[] = {12, 40, 132};
        bool glu = i / 45 % 2, is_q8 = i / 450;
        uint32_t batch = 2u << i / 90 % 5;
        struct weight w = {.type = is_q8 ? WEIGHT_Q8 : WEIGHT_Q4,
                           .group = 32,
                           .cols = cols[i / 3 % 5],
                           .rows = rows[i / 15 % 3]};
        device.physical.compute_units = units[i % 3];
        device.physical.subgroup_size = i % 2 ? 64 : 32;
        struct vk_few_tuning t = vk_few_tuning(&backend, &w, batch, glu);
        uint32_t per_group = t.wg / t.lanes * t.rows;
        CHECK(t.wg % device.physical.subgroup_size == 0 && t.wg <= 1024);
        CHECK(t.lanes >= 8 && t.lanes <= 32 && t.rows * t.unroll * (glu ? 2 : 1) <= 4);
        CHECK(t.tokens == (batch < 16 ? batch : 16));
        CHECK(t.tokens * t.lanes * t.unroll * (is_q8 ? 40 : 72) <= 32768);
        CHECK(w.rows / per_group <= 65535);
    }
}

int main(void)
{
    struct backend_params params;
    test_choices();
    if (!vk_can_open_dot(&params)) {
        return SKIP;
    }
    const struct weight_format q4 = {WEIGHT_Q4, 32, false}, q4_bias = {WEIGHT_Q4, 64, true};
    const struct weight_format q8 = {WEIGHT_Q8, 32, false}, q8_bias = {WEIGHT_Q8, 128, true};
    test_model(&params, q4, q8);
    test_model(&params, q4_bias, q4);
    test_model(&params, q8_bias, q8_bias);
    return 0;
}
