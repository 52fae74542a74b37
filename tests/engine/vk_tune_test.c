/* SPDX-License-Identifier: MIT */
/*
 * What the Vulkan backend measures: which specialization of gemv.comp suits the device, kept on
 * disk from one start to the next, and the time of each kernel. On lavapipe here; what is chosen
 * does not matter, that it computes the same does.
 */
#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "check.h"
#include "gttd_util.h"
#include "random_model.h"
#include "vk_opened.h"

#define VOCAB 4096

static bool validate;

/* With batches of up to batch_max; 0: as the device has it. */
static void open_for(struct vk_opened *o, const struct model *model, const char *cache_dir,
                     uint32_t batch_max)
{
    const struct backend_params params = {.validate = validate, .cache_dir = cache_dir};
    struct err err;
    CHECK_EQ(vulkan_backend.open(&params, &err, &o->backend), 0);
    if (batch_max) {
        o->backend->tuning.batch_max = batch_max;
    }
    vk_open_model(o, model, batch_max ? batch_max : 64);
}

static void open_all(struct vk_opened *o, const struct model *model, const char *cache_dir)
{
    open_for(o, model, cache_dir, 0);
}

/* A line of what a GEMM was found to be best with, written and read. */
static void test_gemm_line(struct backend *backend)
{
    const struct vk_gemm_choice written = {
        .shape = {WEIGHT_Q4, 1, 64, 992, 96, 16},
        .tiles = {160, 16, 512, GEMM_FEW_MATS, 2, 4, VK_FEW_SHARED, 4},
        .tflops = 1.5,
    };
    char text[256];
    uint32_t n = backend->n_gemms;
    CHECK(vk_gemm_choice_print(&written, text, sizeof text) < (int)sizeof text);
    vk_gemm_choice_read(backend, text);
    CHECK_EQ(backend->n_gemms, n + 1);
    CHECK(memcmp(&backend->gemms[n], &written, sizeof written) == 0);
}

static void decode(struct vk_opened *o, float *logits)
{
    struct err err;
    for (int32_t i = 0; i < 4; i++) {
        int32_t id = 3 + 7 * i;
        CHECK_EQ(vulkan_backend.forward(o->state, &id, 1, (uint32_t)i, LOGITS_LAST, logits, &err),
                 0);
    }
}

/* Only the head is large enough to be measured. */
static void test_tune(const struct model *model)
{
    char dir[] = "/tmp/gttd-tune-XXXXXX", command[64];
    static float before[VOCAB], after[VOCAB];
    struct vk_opened o;
    struct err err;
    CHECK(mkdtemp(dir));
    open_all(&o, model, dir);
    CHECK_EQ(o.backend->n_choices, 0);
    if (!vk_gemv_fits(o.backend, &model->head)) {
        printf("no integer dot products here: nothing to tune\n");
    } else {
        decode(&o, before);
        int r = vk_tune(o.state, &err);
        if (r < 0) {
            fprintf(stderr, "%s\n", err.text);
        }
        CHECK_EQ(r, 0);
        CHECK_EQ(o.backend->n_choices, 1);
        struct vk_gemv_choice chosen = o.backend->choices[0];
        CHECK(chosen.shape.units == VOCAB && chosen.gbps > 0);
        uint32_t n_gemms = o.backend->n_gemms, n_fews = o.backend->n_fews;
        CHECK((n_gemms > 0) == vk_gemm_fits(o.backend, &model->layers[0].qkv));
        CHECK_EQ(vk_tune(o.state, &err), 0); /* knows it already */
        CHECK_EQ(o.backend->n_choices, 1);
        CHECK_EQ(o.backend->n_gemms, n_gemms);
        CHECK_EQ(o.backend->n_fews, n_fews);

        /* Lines of another make, or out of range, are left alone. */
        FILE *f = fopen(o.backend->choices_path, "ae");
        CHECK(f);
        CHECK(
            fputs(
                "nonsense\ntype 4 affine 0 group 32 cols 96 units 5 normed 0 glu 0: wg 0 lanes 3 "
                "rows 1 unroll 1 per_cu 1 gbps 1\n"
                "gemm type 4 affine 0 group 32 cols 96 rows 5 batch 32: rows 0 tokens 1 k 3 mats 9 "
                "buffers 3 split 9 few 3 warps_k 0 tflops 1\n"
                "few type 4 affine 0 group 32 cols 96 rows 5 glu 0 batch 8: wg 0 lanes 3 rows 1 "
                "unroll 1 tokens 8 us 1\n",
                f) >= 0);
        CHECK_EQ(fclose(f), 0);
        vk_close(&o);
        open_all(&o, model, dir);
        CHECK_EQ(o.backend->n_choices, 1);
        CHECK_EQ(o.backend->n_gemms, n_gemms);
        CHECK_EQ(o.backend->n_fews, n_fews);
        CHECK(memcmp(&o.backend->choices[0].tuning, &chosen.tuning, sizeof chosen.tuning) == 0);
        decode(&o, after);
        CHECK(vk_distance(before, after, VOCAB) < 1e-5); /* sums in another order */
    }
    vk_close(&o);
    snprintf(command, sizeof command, "rm -r %s", dir);
    CHECK_EQ(system(command), 0);
}

static void prefill(struct vk_opened *o, float *logits)
{
    int32_t ids[16];
    struct err err;
    for (int32_t i = 0; i < 16; i++) {
        ids[i] = 3 + 7 * i;
    }
    CHECK_EQ(vulkan_backend.forward(o->state, ids, 16, 0, LOGITS_LAST, logits, &err), 0);
}

/* Gate and up, down, and the head for 8, 16 and 32 tokens; a start reads what an earlier one wrote.
 */
static void test_tune_few(const struct model *model)
{
    static float before[VOCAB], after[VOCAB];
    const struct model_layer *layer = &model->layers[0];
    struct vk_opened o, next;
    struct err err;
    uint32_t n_new;
    open_all(&o, model, NULL);
    open_all(&next, model, NULL);
    if (vk_few_possible(o.backend, &layer->down)) {
        prefill(&o, before);
        CHECK_EQ(vk_tune_few(o.state, UINT64_MAX, &n_new, &err), 0);
        CHECK_EQ(o.backend->n_fews, 9);
        for (uint32_t i = 0; i < o.backend->n_fews; i++) {
            const struct vk_few_choice *c = &o.backend->fews[i];
            char text[256];
            const struct weight *w = c->shape.glu             ? &layer->gate_up
                                     : c->shape.rows == VOCAB ? &model->head
                                                              : &layer->down;
            CHECK(c->us > 0);
            CHECK_EQ(vk_few_fits(o.backend, w, c->shape.batch), c->tuning.tokens > 0);
            CHECK(vk_few_choice_print(c, text, sizeof text) < (int)sizeof text);
            vk_few_choice_read(next.backend, text);
        }
        for (uint32_t i = 0; i < o.backend->n_gemms; i++) {
            char text[256];
            CHECK(vk_gemm_choice_print(&o.backend->gemms[i], text, sizeof text) < (int)sizeof text);
            vk_gemm_choice_read(next.backend, text);
        }
        CHECK_EQ(next.backend->n_gemms, o.backend->n_gemms);
        test_gemm_line(next.backend);
        CHECK(!vk_tune_few_wanted(o.bm) && !vk_tune_few_wanted(next.bm));
        CHECK_EQ(next.backend->n_fews, 9);
        prefill(&next, after);
        CHECK(vk_distance(before, after, VOCAB) < 5e-3); /* in float16, or not */
    }
    vk_close(&o);
    vk_close(&next);
}

/* The candidates for shapes of real models on real devices: always some, all within limits. */
static void test_candidates(void)
{
    static const uint32_t cols[] = {640, 1152, 2560, 5376, 21504}, units[] = {640, 8192, 262208};
    struct vkc_device device = {.physical = {.subgroup_size = 32, .compute_units = 132}};
    struct backend backend = {.device = &device};
    device.physical.props.limits.maxComputeWorkGroupInvocations = 1024;
    for (int cu = 12; cu <= 132; cu += 60) {
        device.physical.compute_units = (uint32_t)cu;
        for (int i = 0; i < 5 * 3 * 2; i++) {
            struct vk_gemv_shape shape = {.type = WEIGHT_Q4,
                                          .group = 32,
                                          .cols = cols[i % 5],
                                          .units = units[i / 5 % 3],
                                          .glu = (uint32_t)i / 15};
            struct vk_gemv_tuning list[64];
            uint32_t n = vk_gemv_candidates(&backend, &shape, list, 64);
            CHECK(n > 0 && n <= 64);
            for (uint32_t k = 0; k < n; k++) {
                CHECK(list[k].wg % 32 == 0 && list[k].wg >= 32 && list[k].wg <= 1024);
                CHECK(list[k].lanes <= 32 && list[k].rows * list[k].unroll <= 8);
            }
        }
    }
}

/* The fourth fails. */
static int fail_at_three(void *data, uint32_t i, struct err *err)
{
    atomic_uint *n_calls = data;
    atomic_fetch_add(n_calls, 1);
    return i == 3 ? err_set(err, -EINVAL, "number %u", i) : 0;
}

/* On one thread, as for a CPU's compiler, and on as many as there are cores. */
static void test_make_fails(void)
{
    static const VkPhysicalDeviceType types[] = {VK_PHYSICAL_DEVICE_TYPE_CPU,
                                                 VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU};
    for (int i = 0; i < 2; i++) {
        struct vkc_device device = {.physical.props.deviceType = types[i]};
        atomic_uint n_calls = 0;
        struct err err = {{0}};
        CHECK_EQ(vkc_pipelines_make(&device, 64, fail_at_three, &n_calls, &err), -EINVAL);
        CHECK(strcmp(err.text, "number 3") == 0);
        CHECK(n_calls >= 4 && (i > 0 || n_calls == 4));
    }
}

static void test_profile(const struct model *model)
{
    static const char *const wanted[] = {"qkv", "gate_up", "down", "head"};
    static const int32_t ids[] = {2, 3, 4, 5, 6};
    struct vk_opened o;
    open_all(&o, model, NULL);
    for (uint32_t n = 1; n <= 5; n += 4) {
        struct kernel_time times[32];
        size_t n_times = 0;
        struct err err;
        CHECK_EQ(vulkan_backend.profile(o.state, ids, n, 0, times, 32, &n_times, &err), 0);
        for (size_t w = 0; w < sizeof wanted / sizeof wanted[0]; w++) {
            size_t k = 0;
            while (k < n_times && strcmp(times[k].name, wanted[w]) != 0) {
                k++;
            }
            CHECK(k < n_times && times[k].seconds > 0);
            CHECK_EQ(times[k].n, strcmp(wanted[w], "head") == 0 ? 1 : 2);
        }
        for (size_t k = 1; k < n_times; k++) {
            CHECK(times[k - 1].seconds >= times[k].seconds);
        }
    }
    vk_close(&o);
}

/* Of a step of one timeline, and of two together; it is a step like any other. */
static void test_profile_step(const struct model *model)
{
    const struct backend_sampling how = {.rate = 1, .top_k = 5, .top_p = 0.9f, .penalty = 1};
    const struct backend_decode from[] = {{.id = 2, .sampling = &how}, {.id = 3, .sampling = &how}};
    struct vk_opened o;
    struct err err;
    open_all(&o, model, NULL);
    struct backend_state *other, *states[2];
    uint32_t rewind_max;
    uint64_t kv_bytes;
    CHECK_EQ(vulkan_backend.state_create(o.bm, 8, &err, &other, &rewind_max, &kv_bytes), 0);
    states[0] = o.state;
    states[1] = other;
    for (uint32_t n = 1; n <= 2; n++) {
        struct kernel_time times[32];
        size_t n_times = 0;
        uint32_t n_bins = 0, n_heads = 0;
        int32_t ids[2];
        struct backend_run *run;
        CHECK_EQ(vulkan_backend.decode_start(states, from, n, &err, &run), 0);
        CHECK_EQ(vulkan_backend.decode_profile(run, times, 32, &n_times, &err), 0);
        for (size_t k = 0; k < n_times; k++) {
            n_bins += strcmp(times[k].name, "sample_bins") == 0 ? times[k].n : 0;
            n_heads += strcmp(times[k].name, "head") == 0 ? times[k].n : 0;
        }
        CHECK_EQ(n_bins, 6);
        CHECK_EQ(n_heads, 1);
        CHECK_EQ(vulkan_backend.decode_submit(run, &err), 0);
        CHECK_EQ(vulkan_backend.decode_profile(run, times, 32, &n_times, &err), -EBUSY);
        CHECK_EQ(vulkan_backend.decode_collect(run, ids, &err), 0);
        vulkan_backend.decode_stop(run);
    }
    vulkan_backend.state_destroy(other);
    vk_close(&o);
}

/* Every tiling that this device can run gives the same result, however it is split for however
 * large a device, as lavapipe too can tell. */
static void test_tiles(const struct model *model, uint32_t n_tokens)
{
    struct vk_opened o;
    struct err err;
    struct vk_gemm_tiles list[32];
    open_for(&o, model, NULL, VK_BATCH_MAX);
    const struct weight *w = &model->layers[0].down;
    uint32_t n_in = n_tokens * w->cols, n_out = n_tokens * w->rows;
    float *in = malloc(n_in * sizeof *in);
    float *want = malloc(n_out * sizeof *want), *got = malloc(n_out * sizeof *got);
    CHECK(in && want && got);
    for (uint32_t i = 0; i < n_in; i++) {
        in[i] = sinf((float)(i * i % 1009));
    }
    CHECK_EQ(vulkan_backend.op(o.state, OP_DOWN, 0, NULL, n_tokens, 0, in, want, &err), 0);
    VkPhysicalDeviceType *type = &o.backend->device->physical.props.deviceType;
    *type = VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU; /* for which there is more to choose from */
    static const uint32_t batches[] = {8, 16, 32, VK_ALL_MAX, VK_BATCH_MAX};
    uint32_t n = 0;
    for (size_t i = 0; i < ARRAY_SIZE(batches) && vk_gemm_possible(o.backend); i++) {
        n += vk_gemm_candidates(o.backend, w, batches[i], list + n, (uint32_t)ARRAY_SIZE(list) - n);
    }
    struct vk_gemm_choice choice = {.shape = vk_gemm_shape(w, n_tokens)};
    const uint32_t ways = VK_SPLIT_MORE + 1;
    for (uint32_t i = 0; i < 3 * ways * n; i++) {
        choice.tiles = list[i / ways % n];
        choice.tiles.split = i % ways;
        o.backend->device->physical.compute_units = 1u << i / ways / n;
        o.backend->gemms = &choice;
        o.backend->n_gemms = 1;
        CHECK_EQ(vulkan_backend.op(o.state, OP_DOWN, 0, NULL, n_tokens, 0, in, got, &err), 0);
        double sum = 0, diff = 0;
        for (uint32_t k = 0; k < n_out; k++) {
            sum += (double)want[k] * want[k];
            diff += ((double)got[k] - want[k]) * ((double)got[k] - want[k]);
        }
        CHECK(sum > 0 && sqrt(diff / sum) < 1e-5); /* f32 sums in another order */
    }
    printf("%u tilings tried with %u tokens\n", n, n_tokens);
    o.backend->gemms = NULL;
    o.backend->n_gemms = 0;
    free(in);
    free(want);
    free(got);
    vk_close(&o);
}

static void test_read_speed(const struct model *model)
{
    struct vk_opened o;
    struct err err;
    double speed = 0;
    open_all(&o, model, NULL);
    CHECK_EQ(vulkan_backend.read_speed(o.bm, &speed, &err), 0);
    CHECK(speed > 1e6 && speed < 1e14);
    vk_close(&o);
}

int main(void)
{
    struct backend_params params;
    if (!vk_can_open(&params)) {
        return SKIP;
    }
    validate = params.validate;
    struct model_config config = vk_small_config(VOCAB);
    config.hidden = 160;
    config.ffn = 1024;
    config.head_dim = 64;
    struct image_formats formats;
    struct model model;
    void *base;
    random_formats(&config, (struct weight_format){WEIGHT_Q4, 32, false}, &formats);
    random_model_create(&config, &formats, 1, &model, &base);
    test_candidates();
    test_make_fails();
    test_profile(&model);
    test_profile_step(&model);
    test_tiles(&model, 21);
    test_tiles(&model, 150);
    test_read_speed(&model);
    test_tune(&model);
    random_model_destroy(&model, base);
    config.ffn = 4096;
    random_formats(&config, (struct weight_format){WEIGHT_Q4, 32, false}, &formats);
    random_model_create(&config, &formats, 1, &model, &base);
    test_tune_few(&model);
    random_model_destroy(&model, base);
    return 0;
}
