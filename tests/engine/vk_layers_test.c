/* SPDX-License-Identifier: MIT */
/*
 * layers.comp against a dispatch for each step: the same tokens, decoded one by one, give the same
 * logits but for the order of float32 sums, however the work is cut up. One workgroup at a time is
 * all that lavapipe promises to run; more, which wait for each other in vain, must say so and leave
 * everything usable. Needs integer dot products. Argument --quick: one model and plan, for
 * sanitizers.
 */
#include <errno.h>
#include <math.h>

#include "check.h"
#include "gttd_util.h"
#include "random_model.h"
#include "vk_opened.h"

/* Sums of float32 in another order differ in their last bits, and then some activations are rounded
 * to another one of 65 024 steps of their block's largest: some 1e-5 of a result each time, up to
 * 2.5e-4 of the logits as measured, depending on the model. */
#define TOLERANCE 1e-3

enum {
    VOCAB = 263,
    FEW = 20,  /* tokens: more than the window */
    MANY = 80, /* so that the keys are more than one round of a workgroup */
};

static int decode(struct vk_opened *o, uint32_t pos, float *logits, struct err *err)
{
    int32_t id = (int32_t)(3 + 7 * pos) % VOCAB;
    int r = vulkan_backend.forward(o->state, &id, 1, pos, LOGITS_LAST, logits, err);
    if (r < 0 && r != -ETIME) {
        fprintf(stderr, "%s\n", err->text);
    }
    return r;
}

static void use_plan(struct vk_opened *o, const struct vk_layers_plan *plan)
{
    for (int w = 0; w <= LOGITS_ALL; w++) {
        vk_recording_finish(o->state, &o->state->recordings[0][w]);
    }
    o->bm->layers = *plan;
}

static bool is_cpu(const struct vk_opened *o)
{
    return o->backend->device->physical.props.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
}

static void test_plan(struct vk_opened *steps, struct vk_opened *layers, uint32_t wg,
                      uint32_t groups, uint32_t max_loads, uint32_t near, uint32_t n_tokens)
{
    static float want[VOCAB], got[VOCAB];
    struct vk_layers_plan plan;
    struct err err;
    CHECK(vk_layers_plan(layers->bm, wg, groups, max_loads, &plan));
    for (int m = 0; m < VK_LAYERS_TILES; m++) {
        plan.tiles[m].near = near;
    }
    use_plan(layers, &plan);
    for (uint32_t pos = 0; pos < n_tokens; pos++) {
        CHECK_EQ(decode(steps, pos, want, &err), 0);
        CHECK_EQ(decode(layers, pos, got, &err), 0);
        double d = vk_distance(got, want, VOCAB);
        if (!(d <= TOLERANCE)) {
            fprintf(stderr,
                    "%u times %u invocations, %u loads, near %u, position %u: off by %.1e\n",
                    groups, wg, max_loads, near, pos, d);
        }
        CHECK(d <= TOLERANCE);
    }
}

/* More workgroups than any device has room for, at a position with several parts of keys. */
static void test_too_many(struct vk_opened *o, uint32_t pos)
{
    static float logits[VOCAB], again[VOCAB];
    struct vk_layers_plan good, bad;
    struct err err;
    CHECK(vk_layers_plan(o->bm, 64, 1, 4, &good));
    CHECK(vk_layers_plan(o->bm, 64, 16384, 4, &bad));
    use_plan(o, &good);
    CHECK_EQ(decode(o, pos, logits, &err), 0);
    use_plan(o, &bad);
    CHECK_EQ(decode(o, pos, again, &err), -ETIME);
    CHECK(vk_layers_failed(o->state));
    CHECK_EQ(o->bm->layers.groups, 0);
    CHECK_EQ(vk_layers_reset(o->state, &err), 0);
    use_plan(o, &good);
    CHECK_EQ(decode(o, pos, again, &err), 0);
    CHECK(memcmp(logits, again, sizeof logits) == 0);
}

/* As on a device of one compute unit, and of small workgroups. */
static void test_tune(struct vk_opened *o)
{
    struct vkc_physical *physical = &o->backend->device->physical;
    uint32_t units = physical->compute_units, n_new;
    uint32_t max_wg = physical->props.limits.maxComputeWorkGroupInvocations;
    struct err err;
    if (physical->timestamp_bits == 0) {
        printf("no timestamps here: nothing is tried\n");
        return;
    }
    physical->compute_units = 1;
    physical->props.limits.maxComputeWorkGroupInvocations = 256;
    o->backend->always_layers = true; /* the model is a small one */
    CHECK(vk_tune_layers_wanted(o->bm));
    CHECK_EQ(vk_tune_layers(o->state, UINT64_MAX, &n_new, &err), 0);
    CHECK_EQ(n_new, 1);
    CHECK_EQ(o->backend->n_layers_choices, 1);
    const struct vk_layers_choice *choice = &o->backend->layers_choices[0];
    CHECK(choice->plan_us > 0 && choice->steps_us > 0 && choice->plan.wg == 256);
    vk_layers_choose(o->bm);
    CHECK_EQ(o->bm->layers.wg, 256);
    physical->compute_units = units;
    physical->props.limits.maxComputeWorkGroupInvocations = max_wg;
    o->backend->always_layers = false;
    o->backend->n_layers_choices = 0;
}

/* A line of the file of choices, and some that are not; what was read is what is used. */
static void test_choice(struct vk_opened *o)
{
    static const char *const bad[] = {
        "",
        "layers",
        ": wg 0 groups 1 qkv 8 1 1 0 out 8 1 1 0 gate_up 8 1 1 0 down 8 1 1 0",
        ": wg 64 groups 0 qkv 8 1 1 0 out 8 1 1 0 gate_up 8 1 1 0 down 8 1 1 0",
        ": wg 64 groups 99999 qkv 8 1 1 0 out 8 1 1 0 gate_up 8 1 1 0 down 8 1 1 0",
        ": wg 64 groups 1 qkv 8 1 1 2 out 8 1 1 0 gate_up 8 1 1 0 down 8 1 1 0",
        ": wg 64 groups 1 qkv 3 1 1 0 out 8 1 1 0 gate_up 8 1 1 0 down 8 1 1 0",
        ": wg 64 groups 1 qkv 8 0 1 0 out 8 1 1 0 gate_up 8 1 1 0 down 8 1 1 0",
        ": wg 64 groups 1 qkv 8 1 1 0 out 8 3 1 0 gate_up 8 7 1 0 down 8 1 1 0",
        ": wg 64 groups 1 qkv 8 1 1 0 out 8 16 16 0 gate_up 8 1 1 0 down 8 1 1 0",
    };
    struct vk_layers_choice choice = {.plan_us = 1, .steps_us = 2};
    char text[VK_CHOICE_TEXT_SIZE], line[2 * VK_CHOICE_TEXT_SIZE];
    vk_layers_shape_of(o->bm->model, &choice.shape);
    CHECK(vk_layers_plan(o->bm, 64, 1, 4, &choice.plan));
    CHECK(vk_layers_choice_print(&choice, text, sizeof text) < (int)sizeof text);
    uint32_t n = o->backend->n_layers_choices;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        snprintf(line, sizeof line, "%.*s%s%s", (int)(strstr(text, ": wg") - text), text, bad[i],
                 i > 1 ? strstr(text, " us ") : "");
        vk_layers_choice_read(o->backend, line);
        CHECK_EQ(o->backend->n_layers_choices, n);
    }
    vk_layers_choice_read(o->backend, text);
    vk_layers_choice_read(o->backend, text);
    CHECK_EQ(o->backend->n_layers_choices, n + 1);
    CHECK(!vk_tune_layers_wanted(o->bm));
    vk_layers_choose(o->bm);
    CHECK(memcmp(&o->bm->layers, &choice.plan, sizeof choice.plan) == 0);
    o->backend->layers_choices[n].steps_us = 0.5; /* the steps were faster */
    vk_layers_choose(o->bm);
    CHECK_EQ(o->bm->layers.groups, 0);
}

static void test_model(const struct backend_params *params, struct weight_format format,
                       uint32_t n_heads, uint32_t head_dim, bool quick)
{
    struct model_config config = vk_small_config(VOCAB);
    config.n_layers = 3;
    config.hidden = 384;
    config.ffn = 640;
    config.n_heads = n_heads;
    config.n_kv_heads = 2;
    config.head_dim = head_dim;
    struct image_formats formats;
    struct model model;
    struct vk_opened steps, layers;
    void *base;
    random_formats(&config, format, &formats);
    random_model_create(&config, &formats, 1, &model, &base);
    vk_open(&steps, params, &model, 128);
    vk_open(&layers, params, &model, 128);
    CHECK(vk_layers_fit(layers.bm));
    use_plan(&steps, &(struct vk_layers_plan){0}); /* whatever opening has measured */
    layers.backend->n_layers_choices = steps.backend->n_layers_choices = 0;
    test_plan(&steps, &layers, 64, 1, 4, 0, head_dim == 64 ? MANY : FEW);
    if (!quick) {
        test_plan(&steps, &layers, 128, 1, 8, 1, FEW);
        if (is_cpu(&layers)) {
            printf("a CPU: nothing is said about workgroups that wait for each other\n");
        } else {
            test_plan(&steps, &layers, 64, 2, 4, 0, MANY);
            test_plan(&steps, &layers, 128, 5, 4, 1, MANY);
        }
    }
    if (head_dim == 64) {
        test_too_many(&layers, MANY);
        test_choice(&layers);
        if (!quick) {
            test_tune(&steps);
        }
    }
    vk_close(&steps);
    vk_close(&layers);
    random_model_destroy(&model, base);
}

int main(int argc, char **argv)
{
    bool quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    struct backend_params params;
    if (!vk_can_open_dot(&params)) {
        return SKIP;
    }
    test_model(&params, (struct weight_format){WEIGHT_Q4, 32, false}, 4, 64, quick);
    if (!quick) {
        test_model(&params, (struct weight_format){WEIGHT_Q4, 64, true}, 4, 256, false);
        test_model(&params, (struct weight_format){WEIGHT_Q8, 32, false}, 8, 20,
                   false); /* not of whole 16 bytes */
    }
    return 0;
}
