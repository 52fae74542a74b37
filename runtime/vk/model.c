/* SPDX-License-Identifier: MIT */
/* A model bound to a device: checked against what the shaders can do, its pipelines made. */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#include "vk.h"

#define HEAD_DIM_MAX 256 /* rope_store.comp, attention.comp */
#define TURN         6.283185307179586476925286766559L

static int check_weight(const struct weight *w, const char *name, struct err *err)
{
    uint32_t block; /* elements in 16 bytes */
    switch (w->type) {
    case WEIGHT_F32:
        block = 4;
        break;
    case WEIGHT_F16:
    case WEIGHT_BF16:
        block = 8;
        break;
    case WEIGHT_Q4:
    case WEIGHT_Q8:
        block = 32;
        break;
    default:
        return err_set(err, -ENOTSUP, "%s: weight type %u is unknown to the shaders", name,
                       w->type);
    }
    bool quantized = w->type == WEIGHT_Q4 || w->type == WEIGHT_Q8;
    if (quantized && w->group != 32 && w->group != 64 && w->group != 128) {
        return err_set(err, -ENOTSUP, "%s: groups of %u elements", name, w->group);
    }
    if (w->cols % block || (quantized && w->cols % w->group)) {
        return err_set(err, -ENOTSUP, "%s: rows of %u elements are not whole blocks of %u", name,
                       w->cols, quantized ? w->group : block);
    }
    return 0;
}

static int check_model(const struct model *model, struct err *err)
{
    const struct model_config *c = &model->config;
    if (c->head_dim > HEAD_DIM_MAX || c->head_dim % 2) {
        return err_set(err, -ENOTSUP, "head_dim %u: the shaders need an even one of at most %d",
                       c->head_dim, HEAD_DIM_MAX);
    }
    if (c->hidden % 4 || c->ffn % 4) {
        return err_set(err, -ENOTSUP, "hidden %u and ffn %u must be multiples of 4", c->hidden,
                       c->ffn);
    }
    int r = check_weight(&model->embed, "embed", err);
    if (r == 0) {
        r = check_weight(&model->head, "head", err);
    }
    for (uint32_t l = 0; l < c->n_layers && r == 0; l++) {
        const struct model_layer *layer = &model->layers[l];
        const struct {
            const struct weight *w;
            const char *name;
        } matrices[] = {{&layer->qkv, "qkv"},
                        {&layer->attn_out, "attn_out"},
                        {&layer->gate_up, "gate_up"},
                        {&layer->down, "down"}};
        for (int m = 0; m < 4 && r == 0; m++) {
            r = check_weight(matrices[m].w, matrices[m].name, err);
            if (r < 0) {
                err_prefix(err, r, "layer %u", l);
            }
        }
    }
    return r;
}

static uint32_t slots(const struct backend *backend, uint32_t wg)
{
    return vkc_subgroups(&backend->device->physical, wg);
}

static int vector_pipeline(struct backend *backend, enum shader_id shader, uint32_t wg,
                           struct err *err, VkPipeline *ret)
{
    uint32_t spec[] = {[SPEC_WG] = wg, [SPEC_SLOTS] = slots(backend, wg)};
    return vkc_pipeline_get(backend->device, shader, spec, 2, err, ret);
}

static int head_pipeline(struct backend *backend, enum shader_id shader, bool many, struct err *err,
                         VkPipeline *ret)
{
    uint32_t wg = backend->tuning.head_wg;
    uint32_t spec[] = {[SPEC_WG] = wg, [SPEC_SLOTS] = slots(backend, wg), [SPEC_MANY] = many};
    return vkc_pipeline_get(backend->device, shader, spec, 3, err, ret);
}

int vk_embed_pipeline(struct backend_model *bm, struct err *err, VkPipeline *ret)
{
    const struct weight *w = &bm->model->embed;
    uint32_t wg = bm->backend->tuning.token_wg;
    uint32_t spec[] = {
        [SPEC_WG] = wg,
        [SPEC_SLOTS] = slots(bm->backend, wg),
        [SPEC_TYPE] = w->type,
        [SPEC_AFFINE] = w->bias_off != 0,
        [SPEC_GROUP] = w->group ? w->group : 32,
    };
    return vkc_pipeline_get(bm->backend->device, SHADER_embed, spec, 5, err, ret);
}

int vk_matmul_pipeline(struct backend_model *bm, const struct weight *w, uint32_t tile,
                       struct err *err, VkPipeline *ret)
{
    const struct vk_tuning *tuning = &bm->backend->tuning;
    uint32_t spec[] = {
        [SPEC_WG] = tuning->matmul_wg,
        [SPEC_SLOTS] = slots(bm->backend, tuning->matmul_wg),
        [SPEC_TYPE] = w->type,
        [SPEC_AFFINE] = w->bias_off != 0,
        [SPEC_GROUP] = w->group ? w->group : 32,
        [SPEC_ROWS] = tuning->matmul_rows,
        [SPEC_TILE] = tile,
    };
    return vkc_pipeline_get(bm->backend->device, SHADER_matmul, spec, 7, err, ret);
}

/* Query heads that share the reading of a key in one workgroup of attend_one.comp: a few, because
 * each takes registers, and fewer on a device that has many workgroups to fill. */
static uint32_t heads_at_once(const struct backend *backend, const struct model_config *c)
{
    uint32_t most = backend->device->physical.compute_units < 64 ? 4 : 2;
    uint32_t per_kv = c->n_heads / c->n_kv_heads;
    uint32_t heads = per_kv < most ? per_kv : most;
    while (per_kv % heads) {
        heads--;
    }
    return heads;
}

uint32_t vk_key_lanes(const struct backend_model *bm)
{
    uint32_t vecs = vk_row_halfs(&bm->model->config) / 8, lanes = 1;
    while (vecs % (2 * lanes) == 0 && 2 * lanes <= bm->backend->device->physical.subgroup_size &&
           lanes < 32) {
        lanes *= 2;
    }
    return lanes;
}

uint32_t vk_attend_floats(uint32_t heads, uint32_t row, uint32_t subgroups)
{
    return (heads + 2 + heads * subgroups) * row + 2 * heads * subgroups;
}

static uint32_t attend_shared_bytes(uint32_t heads, uint32_t vecs, uint32_t subgroups)
{
    return (vk_attend_floats(heads, vecs * 8, subgroups) + 3) * (uint32_t)sizeof(float);
}

static int attend_one_pipeline(struct backend_model *bm, bool many, struct err *err,
                               VkPipeline *ret)
{
    const struct model_config *c = &bm->model->config;
    const struct vkc_physical *physical = &bm->backend->device->physical;
    uint32_t wg = bm->backend->tuning.attend_wg;
    uint32_t vecs = vk_row_halfs(c) / 8, lanes = vk_key_lanes(bm);
    uint32_t heads = heads_at_once(bm->backend, c);
    const uint32_t shared_max = physical->props.limits.maxComputeSharedMemorySize - 512;
    uint32_t shared_bytes = attend_shared_bytes(heads, vecs, slots(bm->backend, wg));
    while (shared_bytes > shared_max && wg / 2 >= physical->subgroup_size) {
        wg /= 2;
        shared_bytes = attend_shared_bytes(heads, vecs, slots(bm->backend, wg));
    }
    const uint32_t vecs_max = 8; /* per invocation: registers */
    if (!physical->has_shuffle || vecs / lanes > vecs_max || c->n_heads % c->n_kv_heads ||
        shared_bytes > shared_max) {
        return 0;
    }
    uint32_t spec[] = {
        [SPEC_WG] = wg,           [SPEC_SLOTS] = slots(bm->backend, wg),
        [SPEC_HEADS] = heads,     [SPEC_HEAD_DIM] = c->head_dim,
        [SPEC_KEY_LANES] = lanes, [SPEC_KEYS] = 4,
        [SPEC_ONE_MANY] = many,
    };
    bm->attend_one_heads = heads;
    return vkc_pipeline_get(bm->backend->device, SHADER_attend_one, spec, 7, err, ret);
}

int vk_attend_pipelines(struct backend_model *bm, bool many, struct err *err,
                        struct vk_attend_pipelines *ret)
{
    *ret = (struct vk_attend_pipelines){0};
    int r = head_pipeline(bm->backend, SHADER_rope_store, many, err, &ret->rope_store);
    if (r == 0) {
        r = head_pipeline(bm->backend, SHADER_attention, many, err, &ret->attention);
    }
    if (r == 0) {
        r = attend_one_pipeline(bm, many, err, &ret->attend_one);
    }
    return r;
}

/* What multiplies one token by a matrix; the device keeps it, and gemv.c asks again. */
static int make_gemv(struct backend *backend, const struct weight *w, uint32_t prologue, bool glu,
                     struct err *err)
{
    if (!vk_gemv_fits(backend, w)) {
        return 0;
    }
    struct vk_gemv_shape shape = vk_gemv_shape(w, prologue, glu);
    struct vk_gemv_tuning tuning = vk_gemv_tuning(backend, &shape);
    VkPipeline made;
    return vk_gemv_pipeline(backend, &shape, prologue, &tuning, err, &made);
}

/* As decode.c and record.c use them. */
static int make_gemvs(struct backend_model *bm, struct err *err)
{
    const struct model *model = bm->model;
    int r = make_gemv(bm->backend, &model->head, GEMV_ADD_NORM, false, err);
    if (r == 0) {
        r = make_gemv(bm->backend, &model->head, GEMV_LAST, false, err);
    }
    for (uint32_t l = 0; l < model->config.n_layers && r == 0; l++) {
        const struct model_layer *layer = &model->layers[l];
        const struct {
            const struct weight *w;
            uint32_t prologue;
            bool glu;
        } uses[] = {{&layer->qkv, l == 0 ? GEMV_NORM : GEMV_ADD_NORM, false},
                    {&layer->attn_out, GEMV_PLAIN, false},
                    {&layer->gate_up, GEMV_ADD_NORM, true},
                    {&layer->down, GEMV_PLAIN, false}};
        for (int u = 0; u < 4 && r == 0; u++) {
            r = make_gemv(bm->backend, uses[u].w, uses[u].prologue, uses[u].glu, err);
        }
    }
    return r;
}

/* Whether a workgroup may be twice as large: as vk_tuning says, and of subgroups of a known size if
 * they were. */
static bool may_double(const struct vkc_physical *physical, uint32_t wg)
{
    uint32_t size = physical->subgroup_size;
    return 2 * wg <= physical->props.limits.maxComputeWorkGroupInvocations &&
           (2 * wg < size || 2 * wg % size == 0) &&
           (vkc_is_sized(physical, 2 * wg) || !vkc_is_sized(physical, wg));
}

/* Its invocations keep a token's row in registers: so many vec4 each, where a workgroup may be so
 * large. */
static int row_pipeline(struct backend *backend, enum shader_id shader, uint32_t width,
                        uint32_t each, struct err *err, VkPipeline *ret)
{
    const struct vkc_physical *physical = &backend->device->physical;
    uint32_t wg = backend->tuning.token_wg;
    while (width / 4 > each * wg && may_double(physical, wg)) {
        wg *= 2;
    }
    static_assert(SPEC_FFN == SPEC_WIDTH, "a row's width");
    uint32_t spec[] = {[SPEC_WG] = wg, [SPEC_SLOTS] = slots(backend, wg), [SPEC_WIDTH] = width};
    return vkc_pipeline_get(backend->device, shader, spec, 3, err, ret);
}

static int row_pipelines(struct backend_model *bm, struct err *err)
{
    const struct model_config *c = &bm->model->config;
    int r = row_pipeline(bm->backend, SHADER_rmsnorm, c->hidden, 2, err, &bm->rmsnorm);
    if (r == 0) {
        r = row_pipeline(bm->backend, SHADER_add_norm, c->hidden, 2, err, &bm->add_norm);
    }
    if (r == 0 && vk_gemm_possible(bm->backend)) {
        r = row_pipeline(bm->backend, SHADER_geglu_half, c->ffn, 3, err, &bm->geglu_half);
    }
    return r;
}

/* All that decoding and prefill use; what only LOGITS_ALL needs is made when it is asked for. */
static int make_pipelines(struct backend_model *bm, struct err *err)
{
    struct backend *backend = bm->backend;
    const struct vk_tuning *tuning = &backend->tuning;
    const struct {
        enum shader_id shader;
        uint32_t wg;
        VkPipeline *ret;
    } vectors[] = {
        {SHADER_geglu, tuning->token_wg, &bm->geglu},
        {SHADER_to_half, tuning->token_wg, &bm->to_half},
        {SHADER_sum_parts, tuning->token_wg, &bm->sum_parts},
    };
    int r = 0;
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0] && r == 0; i++) {
        r = vector_pipeline(backend, vectors[i].shader, vectors[i].wg, err, vectors[i].ret);
    }
    if (r == 0) {
        r = row_pipelines(bm, err);
    }
    if (r == 0) {
        r = vk_attend_pipelines(bm, false, err, &bm->attend);
    }
    if (r == 0 && vk_flash_fits(backend, &bm->model->config)) {
        r = vk_flash_pipeline(backend, &bm->model->config, err, &bm->flash);
    }
    struct vk_sample_pipelines sample; /* the device keeps them; sample.c asks again */
    if (r == 0) {
        r = vk_sample_pipelines(backend, err, &sample);
    }
    if (r == 0) {
        r = make_gemvs(bm, err);
    }
    VkPipeline made; /* likewise; record.c asks again */
    if (r == 0) {
        r = vk_embed_pipeline(bm, err, &made);
    }
    if (r == 0 && !vk_gemv_fits(backend, &bm->model->head)) {
        r = vk_matmul_pipeline(bm, &bm->model->head, 1, err, &made);
    }
    for (uint32_t l = 0; l < bm->model->config.n_layers; l++) {
        const struct model_layer *layer = &bm->model->layers[l];
        const struct weight *matrices[] = {&layer->qkv, &layer->attn_out, &layer->gate_up,
                                           &layer->down};
        for (int m = 0; m < 4 && r == 0; m++) {
            if (!vk_gemv_fits(backend, matrices[m])) {
                r = vk_matmul_pipeline(bm, matrices[m], 1, err, &made);
            }
            if (r == 0 && vk_gemm_fits(backend, matrices[m])) {
                r = vk_gemm_pipeline(backend, matrices[m], NULL, err, &made);
            } else if (r == 0) {
                r = vk_matmul_pipeline(bm, matrices[m], tuning->matmul_tile, err, &made);
            }
        }
    }
    if (r == 0) {
        vk_layers_choose(bm);
    }
    return r;
}

/* The weights are brought to the device on a thread of their own, while pipelines are made: neither
 * touches what the other does. */
struct bringing {
    pthread_t thread;
    struct backend_model *bm;
    enum weight_path path;
    struct err err;
    int r;
};

static void *bringing_thread(void *data)
{
    struct bringing *b = data;
    struct backend *backend = b->bm->backend;
    b->r = vk_weights_init(backend, &b->bm->model->memory, &b->err, &b->bm->weights, &b->path);
    start_done(backend->start, START_WEIGHTS);
    return NULL;
}

static int bring_and_make(struct backend_model *bm, enum weight_path *ret_path, struct err *err)
{
    struct bringing b = {.bm = bm};
    int failed = pthread_create(&b.thread, NULL, bringing_thread, &b);
    if (failed) {
        return err_set(err, -failed, "no thread to bring the weights to the device");
    }
    int r = make_pipelines(bm, err);
    start_done(bm->backend->start, START_PIPELINES);
    pthread_join(b.thread, NULL);
    *ret_path = b.path;
    return b.r < 0 ? err_set(err, b.r, "%s", b.err.text) : r;
}

/* For rotation.glsl: what part of a turn each pair of a head moves per position, in 2^-64. */
static int make_turns(struct backend_model *bm, struct err *err)
{
    const struct model_config *c = &bm->model->config;
    uint32_t half = c->head_dim / 2;
    int r = vkc_buffer_init(bm->backend->device, VKC_SHARED, 2ull * half * sizeof(uint64_t),
                            "rotation", err, &bm->turns);
    if (r < 0) {
        return r;
    }
    uint64_t *turns = bm->turns.map; /* [2, half] */
    for (uint32_t i = 0; i < half; i++) {
        long double exponent = -2.0L * i / c->head_dim;
        long double local = powl(c->rope_theta_local, exponent);
        long double global = powl(c->rope_theta_global, exponent) / c->rope_factor_global;
        turns[i] = (uint64_t)(fmodl(local / TURN, 1.0L) * 0x1p64L);
        turns[half + i] = (uint64_t)(fmodl(global / TURN, 1.0L) * 0x1p64L);
    }
    return 0;
}

/* The matrices' shapes that this device has not seen yet; a CPU is not worth it. */
static int tune(struct backend_model *bm, struct err *err)
{
    if (bm->backend->device->physical.props.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU ||
        !vk_tune_wanted(bm)) {
        return 0;
    }
    struct backend_state *state;
    uint32_t rewind_max;
    uint64_t kv_bytes;
    int r = vk_state_create(bm, bm->backend->tuning.batch_max, err, &state, &rewind_max, &kv_bytes);
    if (r == 0) {
        r = vk_tune(state, err);
        vk_state_destroy(state);
    }
    return r;
}

int vk_bind(struct backend *backend, const struct model *model, struct err *err,
            struct backend_model **ret, enum weight_path *ret_path)
{
    int r = check_model(model, err);
    if (r < 0) {
        return r;
    }
    struct backend_model *bm = calloc(1, sizeof *bm);
    if (!bm) {
        return err_set(err, -ENOMEM, "no memory for a bound model");
    }
    bm->backend = backend;
    bm->model = model;
    enum weight_path path;
    r = bring_and_make(bm, &path, err);
    if (r < 0) {
        goto fail;
    }
    r = make_turns(bm, err);
    if (r < 0) {
        goto fail;
    }
    r = tune(bm, err);
    if (r < 0) {
        goto fail;
    }
    vk_layers_choose(bm);
    start_done(backend->start, START_TUNED);
    vkc_cache_save(backend->device);
    r = vkc_checked(backend->instance, 0, err);
    if (r < 0) {
        goto fail;
    }
    *ret = bm;
    *ret_path = path;
    return 0;
fail:
    vk_unbind(bm);
    return r;
}

bool vk_weight_start(const struct backend_model *bm, struct weight_start *ret)
{
    *ret = bm->weights.start;
    return bm->weights.is_copy;
}

void vk_unbind(struct backend_model *bm)
{
    if (!bm) {
        return;
    }
    vk_many_destroy(bm->many);
    vkc_buffer_finish(bm->backend->device, &bm->turns);
    vk_weights_finish(bm->backend, &bm->weights);
    free(bm);
}
