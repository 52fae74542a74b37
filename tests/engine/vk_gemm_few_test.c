/* SPDX-License-Identifier: MIT */
/*
 * gemm_few.glsl against the reference: a few tokens times int4 and int8 matrices, with every
 * candidate for this device and other ways to cut up the work; and whole passes of several
 * timelines by it against each alone. Needs cooperative matrices. A CPU's driver, which takes
 * seconds to compile one of these kernels, has each way with one format only.
 */
#include <math.h>

#include "check.h"
#include "gttd_util.h"
#include "random_model.h"
#include "vk_opened.h"

/* Activations and weights are rounded to f16, 3e-4 of each at most; of whole passes, those of every
 * matrix, and one token alone is rounded otherwise. */
#define TOLERANCE      5e-4
#define PASS_TOLERANCE 5e-3

/* WIDTH: of every matrix's rows, so that they share pipelines; not a whole number of steps. */
enum { N = STEP_ROWS_MAX, VOCAB = 320, TILES_MAX = 32, WIDTH = 352, HEAD_DIM = 32, WIDEST = 512 };

static bool is_quick;

static const uint32_t counts[] = {3, 8, 13, 16, 29, 32};

/* What passes need is the first. */
static const struct weight_format formats[] = {{WEIGHT_Q4, 32, false},
                                               {WEIGHT_Q8, 32, true},
                                               {WEIGHT_Q4, 32, true},
                                               {WEIGHT_Q8, 32, false}};

/* Besides the candidates: rows of so many subgroups, and K of so many steps. A CPU has the one of
 * its place with the format of that place: between them, each number of token matrices with either
 * type, with and without parts, a second buffer, subgroups that share rows, and steps at once. */
static const struct vk_gemm_tiles others[] = {
    {3, 16, 1, GEMM_FEW_MATS, 2, 3, 0, 1}, {2, 8, 4, GEMM_FEW_MATS, 1, 1, 0, 2},
    {1, 8, 3, GEMM_FEW_MATS, 1, 2, 0, 3},  {1, 16, 2, GEMM_FEW_MATS, 2, 1, 0, 1},
    {4, 32, 1, GEMM_FEW_MATS, 1, 1, 0, 1},
};

static bool is_cpu(const struct backend *backend)
{
    return backend->device->physical.props.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
}

static void add_other(const struct backend *backend, const struct weight *w, uint32_t which,
                      uint32_t few, struct vk_gemm_tiles *ret, uint32_t *n)
{
    struct vk_gemm_tiles t = others[which];
    t.few = few;
    t.rows *= GEMM_FEW_MATS * backend->device->physical.coopmat.m;
    t.k *= GEMM_FEW_BLOCKS * vk_gemm_block_of(w->type);
    if (vk_gemm_few_suits(backend, w, &t)) {
        ret[(*n)++] = t;
    }
}

/* What suits of them; format: a place in `formats`. */
static uint32_t list_tiles(const struct backend *backend, const struct weight *w, uint32_t format,
                           struct vk_gemm_tiles ret[static TILES_MAX])
{
    uint32_t n = 0;
    if (is_cpu(backend)) {
        add_other(backend, w, format, VK_FEW_SHARED, ret, &n);
        add_other(backend, w, format, VK_FEW_DIRECT, ret, &n);
        CHECK(n > 0);
        if (!is_quick && w->rows == WIDTH) { /* other rows would have others */
            n += vk_gemm_few_candidates(backend, w, w->type == WEIGHT_Q4 ? 8 : N, ret + n, 1);
        }
    } else {
        for (uint32_t i = 0; i < 2 * ARRAY_SIZE(others); i++) {
            add_other(backend, w, i / 2, i % 2 ? VK_FEW_DIRECT : VK_FEW_SHARED, ret, &n);
        }
        for (uint32_t batch = 8; batch <= N; batch *= 2) {
            n += vk_gemm_few_candidates(backend, w, batch, ret + n, is_quick ? 1 : 4);
        }
    }
    CHECK(n > 0 && n <= TILES_MAX);
    return n;
}

/* The same tiles for every batch. */
static void choose(struct backend *backend, const struct weight *w, const struct vk_gemm_tiles *t,
                   struct vk_gemm_choice choices[static 3])
{
    for (uint32_t i = 0; i < 3; i++) {
        choices[i] = (struct vk_gemm_choice){.shape = vk_gemm_shape(w, 8u << i), .tiles = *t};
    }
    backend->gemms = choices;
    backend->n_gemms = 3;
}

static void test_matrix(struct vk_opened *o, struct backend_state *oracle, uint32_t format,
                        enum backend_op op, const struct weight *w)
{
    static float in[N * WIDEST], want[N * WIDEST], got[N * WIDEST];
    struct vk_gemm_tiles tiles[TILES_MAX];
    struct vk_gemm_choice choices[3];
    struct err err;
    CHECK(w->cols <= WIDEST && w->rows <= WIDEST);
    for (size_t i = 0; i < (size_t)N * w->cols; i++) {
        in[i] = sinf((float)(i * i % 1009)) * (i % 131 == 0 ? 20.0f : 1.0f) * (float)(1 + i % 7);
    }
    CHECK_EQ(reference_backend.op(oracle, op, 1, NULL, N, 0, in, want, &err), 0);
    uint32_t n_tiles = list_tiles(o->backend, w, format, tiles);
    for (uint32_t i = 0; i < n_tiles * ARRAY_SIZE(counts); i++) {
        const struct vk_gemm_tiles *t = &tiles[i / ARRAY_SIZE(counts)];
        uint32_t n = counts[i % ARRAY_SIZE(counts)];
        choose(o->backend, w, t, choices);
        CHECK(vk_gemm_fits(o->backend, w) && !vk_few_fits(o->backend, w, n));
        memset(got, 0xff, sizeof got);
        CHECK_EQ(vulkan_backend.op(o->state, op, 1, NULL, n, 0, in, got, &err), 0);
        double d = vk_distance(got, want, (size_t)n * w->rows);
        if (!(d <= TOLERANCE)) {
            fprintf(stderr,
                    "operation %d, %u tokens, form %u, rows %u tokens %u k %u buffers %u split %u "
                    "warps_k %u: off by %.1e\n",
                    (int)op, n, t->few, t->rows, t->tokens, t->k, t->buffers, t->split, t->warps_k,
                    d);
            exit(1);
        }
    }
    printf("format %u, operation %d: %u tiles\n", format, (int)op, n_tiles);
    o->backend->gemms = NULL;
    o->backend->n_gemms = 0;
}

static void test_matrices(struct vk_opened *o, const struct backend_params *params,
                          const struct model *model, uint32_t format)
{
    struct backend *oracle;
    struct backend_model *oracle_model;
    struct backend_state *oracle_state;
    struct err err;
    enum weight_path path;
    uint32_t rewind_max;
    uint64_t kv_bytes;
    CHECK_EQ(reference_backend.open(params, &err, &oracle), 0);
    CHECK_EQ(reference_backend.bind(oracle, model, &err, &oracle_model, &path), 0);
    CHECK_EQ(reference_backend.state_create(oracle_model, 64, &err, &oracle_state, &rewind_max,
                                            &kv_bytes),
             0);
    test_matrix(o, oracle_state, format, OP_QKV, &model->layers[1].qkv);
    test_matrix(o, oracle_state, format, OP_DOWN, &model->layers[1].down);
    reference_backend.state_destroy(oracle_state);
    reference_backend.unbind(oracle_model);
    reference_backend.close(oracle);
}

/* Tiles for all matrices of a model, the head's, too. */
static void choose_all(struct backend *backend, const struct model *model,
                       struct vk_gemm_choice choices[static 15])
{
    const struct model_layer *l = &model->layers[0];
    const struct weight *all[] = {&l->qkv, &l->attn_out, &l->gate_up, &l->down, &model->head};
    struct vk_gemm_tiles tiles[TILES_MAX];
    uint32_t n = list_tiles(backend, &l->down, 0, tiles);
    for (uint32_t m = 0; m < ARRAY_SIZE(all); m++) {
        const struct vk_gemm_tiles *t = &tiles[m % 2 % n];
        CHECK(vk_gemm_few_suits(backend, all[m], t));
        choose(backend, all[m], t, choices + (size_t)3 * m);
        CHECK(vk_gemm_fits(backend, all[m]) && !vk_few_fits(backend, all[m], counts[0]));
    }
    backend->gemms = choices;
    backend->n_gemms = 15;
}

/* Timelines at different positions; each goes on alone after what it was given with the others. */
static void test_passes(struct vk_opened *o, const struct model *model)
{
    static float together[N * VOCAB], alone[N * VOCAB];
    static struct vk_gemm_choice choices[15];
    struct backend_state *states[N];
    struct err err;
    uint32_t rewind_max, pos[N];
    uint64_t kv_bytes;
    int32_t ids[N];
    choose_all(o->backend, model, choices);
    for (uint32_t i = 0; i < N; i++) {
        CHECK_EQ(vulkan_backend.state_create(o->bm, 64, &err, &states[i], &rewind_max, &kv_bytes),
                 0);
        pos[i] = i % 5;
        for (uint32_t k = 0; k <= pos[i]; k++) {
            ids[i] = (int32_t)((17 * i + 5 * k) % VOCAB);
            CHECK_EQ(vulkan_backend.forward(states[i], &ids[i], 1, k, LOGITS_LAST,
                                            alone + (size_t)i * VOCAB, &err),
                     0);
        }
    }
    for (size_t c = 0; c < ARRAY_SIZE(counts); c++) {
        CHECK_EQ(vulkan_backend.forward_many(states, ids, pos, counts[c], together, &err), 0);
        double d = vk_distance(together, alone, (size_t)counts[c] * VOCAB);
        printf("%u timelines: off by %.1e\n", counts[c], d);
        CHECK(d <= PASS_TOLERANCE);
    }
    for (uint32_t i = 0; i < N; i++) {
        vulkan_backend.state_destroy(states[i]);
    }
    o->backend->gemms = NULL;
    o->backend->n_gemms = 0;
}

static void test_format(const struct backend_params *params, uint32_t format)
{
    struct model_config config = vk_small_config(VOCAB);
    struct image_formats image;
    struct model model;
    struct vk_opened o;
    void *base;
    config.hidden = WIDTH;
    config.ffn = WIDTH;
    config.n_heads = WIDTH / HEAD_DIM;
    config.head_dim = HEAD_DIM;
    random_formats(&config, formats[format], &image);
    random_model_create(&config, &image, 1, &model, &base);
    vk_open(&o, params, &model, 64);
    o.backend->tuning.few_max = 1;
    test_matrices(&o, params, &model, format);
    if (format == 0) {
        test_passes(&o, &model);
    }
    vk_close(&o);
    random_model_destroy(&model, base);
}

static bool has_matrices(const struct backend_params *params)
{
    struct backend *backend;
    struct err err;
    CHECK_EQ(vulkan_backend.open(params, &err, &backend), 0);
    bool has = vk_gemm_possible(backend);
    vulkan_backend.close(backend);
    return has;
}

int main(int argc, char **argv)
{
    struct backend_params params;
    is_quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    if (!vk_can_open(&params)) {
        return SKIP;
    }
    if (!has_matrices(&params)) {
        printf("skipped: no cooperative matrices here\n");
        return SKIP;
    }
    for (uint32_t i = 0; i < (is_quick ? 2 : ARRAY_SIZE(formats)); i++) {
        test_format(&params, i);
    }
    return 0;
}
