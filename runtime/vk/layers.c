/* SPDX-License-Identifier: MIT */
/*
 * All layers of one token in one dispatch (layers.comp): which models and devices it suits, how it
 * is cut up and what it reads. tune_layers.c decides whether it is what decoding runs.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "gttd_util.h"
#include "vk.h"

#define PARTS_MAX 16 /* of a head: every workgroup reads them all */

static_assert(sizeof(struct layer_row) == 4 * LAYER_WORDS &&
                  offsetof(struct layer_row, down) == 4 * LAYER_DOWN &&
                  offsetof(struct layer_row, before) == 4 * LAYER_BEFORE &&
                  offsetof(struct layer_row, turns) == 4 * LAYER_TURNS &&
                  offsetof(struct layer_row, ring) == 4 * LAYER_RING,
              "layers.comp reads it word by word");

static bool same_kind(const struct weight *a, const struct weight *b)
{
    return a->type == b->type && a->group == b->group && !a->bias_off == !b->bias_off;
}

static bool same_shape(const struct weight *a, const struct weight *b)
{
    return same_kind(a, b) && a->rows == b->rows && a->cols == b->cols;
}

/* One pipeline reads them all: what is specialized must be the same in every layer. */
static bool layers_are_alike(const struct model *model)
{
    const struct model_layer *first = &model->layers[0];
    bool alike = same_kind(&first->qkv, &first->attn_out) &&
                 same_kind(&first->qkv, &first->gate_up) && same_kind(&first->qkv, &first->down);
    for (uint32_t l = 1; l < model->config.n_layers && alike; l++) {
        const struct model_layer *layer = &model->layers[l];
        alike = same_shape(&layer->qkv, &first->qkv) &&
                same_shape(&layer->attn_out, &first->attn_out) &&
                same_shape(&layer->gate_up, &first->gate_up) &&
                same_shape(&layer->down, &first->down);
    }
    return alike;
}

/* As layers.comp lays it out. */
static uint32_t shared_bytes(const struct backend_model *bm, uint32_t wg)
{
    const struct model_config *c = &bm->model->config;
    uint32_t width = c->n_heads * c->head_dim, row = vk_row_halfs(c);
    uint32_t slots = vkc_subgroups(&bm->backend->device->physical, wg);
    width = width > c->hidden ? width : c->hidden;
    width = width > c->ffn ? width : c->ffn;
    uint32_t blocks = width / vk_block_of(bm->model->layers[0].qkv.type);
    uint32_t attend = vk_attend_floats(1, row, slots);
    uint32_t pool = width * 2 > attend * 4 ? width * 2 : (attend + 3) / 4 * 16;
    const uint32_t rows = 2 * LAYER_WORDS * 4, single = 16;
    return pool + blocks * 8 + 2 * slots * 4 + rows + single;
}

bool vk_layers_fit(const struct backend_model *bm)
{
    const struct model *model = bm->model;
    const struct model_config *c = &model->config;
    const struct model_layer *first = &model->layers[0];
    const struct vkc_physical *physical = &bm->backend->device->physical;
    return layers_are_alike(model) && vk_gemv_fits(bm->backend, &first->qkv) &&
           vk_gemv_fits(bm->backend, &first->attn_out) &&
           vk_gemv_fits(bm->backend, &first->gate_up) && vk_gemv_fits(bm->backend, &first->down) &&
           first->qkv.cols == c->hidden && first->down.cols == c->ffn &&
           first->attn_out.cols == c->n_heads * c->head_dim && c->n_heads % c->n_kv_heads == 0 &&
           c->head_dim % 4 == 0 && vk_row_halfs(c) / 8 / vk_key_lanes(bm) <= 8 &&
           shared_bytes(bm, 2 * physical->subgroup_size) <=
               physical->props.limits.maxComputeSharedMemorySize;
}

/*
 * The tile that leaves an invocation the fewest loads, also of rows and blocks that there are not,
 * and the fewest steps of them. lanes: 0, any. max_loads: at once.
 */
static struct vk_layers_tile tile_of(const struct backend_model *bm, const struct weight *w,
                                     bool glu, const struct vk_layers_plan *plan, uint32_t lanes,
                                     uint32_t max_loads)
{
    const uint32_t mats = glu ? 2 : 1, units = w->rows / mats;
    const uint32_t blocks = w->cols / vk_block_of(w->type);
    const uint32_t subgroup = bm->backend->device->physical.subgroup_size;
    const uint32_t workers = plan->wg - subgroup;
    struct vk_layers_tile best = {0};
    double least = 0;
    for (uint32_t i = 0; i < 3 * 3 * VK_LAYERS_LOADS_MAX; i++) {
        struct vk_layers_tile t = {.lanes = 8u << i % 3,
                                   .rows = 1u << i / 3 % 3,
                                   .unroll = 1 + i / 9};
        uint32_t loads = mats * t.rows * t.unroll;
        if (t.lanes > subgroup || (lanes && t.lanes != lanes) || units % t.rows ||
            (loads > max_loads && loads > mats)) {
            continue;
        }
        uint64_t at_once = (uint64_t)workers / t.lanes * t.rows * plan->groups;
        double rounds = (double)((units + at_once - 1) / at_once);
        double steps = (blocks + t.lanes * t.unroll - 1) / (t.lanes * t.unroll);
        double cost = rounds * (steps * (loads + 0.5) + 0.05 * mats * t.rows * t.lanes / 8);
        cost *= 1 + 1.6 / t.lanes;                 /* long runs of memory are read faster, */
        cost *= 1 + 1.0 / ((double)loads * loads); /* and much at once */
        if (best.lanes == 0 || cost < least) {
            least = cost;
            best = t;
        }
    }
    return best;
}

bool vk_layers_suits(const struct backend_model *bm, const struct vk_layers_plan *plan)
{
    const struct vkc_physical *physical = &bm->backend->device->physical;
    uint32_t subgroup = physical->subgroup_size;
    return plan->wg % subgroup == 0 && plan->wg >= subgroup + LAYER_WORDS / 2 &&
           plan->wg <= physical->props.limits.maxComputeWorkGroupInvocations &&
           (!physical->has_size_control || plan->wg <= physical->max_subgroups * subgroup) &&
           shared_bytes(bm, plan->wg) <= physical->props.limits.maxComputeSharedMemorySize;
}

static struct vk_layers_tile tile_for(const struct backend_model *bm, int which,
                                      const struct vk_layers_plan *plan, uint32_t lanes,
                                      uint32_t max_loads)
{
    const struct model_layer *l = &bm->model->layers[0];
    const struct weight *matrices[VK_LAYERS_TILES] = {&l->qkv, &l->attn_out, &l->gate_up, &l->down};
    return tile_of(bm, matrices[which], which == 2, plan, lanes, max_loads);
}

bool vk_layers_plan(const struct backend_model *bm, uint32_t wg, uint32_t groups,
                    uint32_t max_loads, struct vk_layers_plan *ret)
{
    struct vk_layers_plan plan = {.wg = wg, .groups = groups};
    if (!vk_layers_suits(bm, &plan)) {
        return false;
    }
    for (int which = 0; which < VK_LAYERS_TILES; which++) {
        plan.tiles[which] = tile_for(bm, which, &plan, 0, max_loads);
    }
    *ret = plan;
    return true;
}

bool vk_layers_variant(const struct backend_model *bm, const struct vk_layers_plan *plan, int which,
                       uint32_t variant, struct vk_layers_plan *ret)
{
    static const struct {
        uint32_t lanes, max_loads;
    } others[VK_LAYERS_VARIANTS - 1] = {{16, 8}, {32, 4}, {32, 8}};
    struct vk_layers_tile *tile = &ret->tiles[which];
    *ret = *plan;
    if (variant == 0) {
        tile->near = !tile->near;
        return true;
    }
    *tile = tile_for(bm, which, plan, others[variant - 1].lanes, others[variant - 1].max_loads);
    return tile->lanes > 0 && memcmp(tile, &plan->tiles[which], sizeof *tile) != 0;
}

int vk_layers_pipeline(struct backend_model *bm, const struct vk_layers_plan *plan, struct err *err,
                       VkPipeline *ret)
{
    const struct model_config *c = &bm->model->config;
    const struct weight *w = &bm->model->layers[0].qkv;
    uint32_t spec[] = {
        [SPEC_WG] = plan->wg,
        [SPEC_SLOTS] = vkc_subgroups(&bm->backend->device->physical, plan->wg),
        [SPEC_TYPE] = w->type,
        [SPEC_AFFINE] = w->bias_off != 0,
        [SPEC_GROUP] = w->group,
        [SPEC_LAYERS_HIDDEN] = c->hidden,
        [SPEC_LAYERS_FFN] = c->ffn,
        [SPEC_LAYERS_LOOKERS] = bm->backend->device->physical.subgroup_size,
        [SPEC_LAYERS_DIM] = c->head_dim,
        [SPEC_LAYERS_LANES] = vk_key_lanes(bm),
        [SPEC_LAYERS_N_HEADS] = c->n_heads,
        [SPEC_LAYERS_AHEAD] = plan->wg > 384 ? 6 : 8, /* as registers allow */
    };
    for (int m = 0; m < VK_LAYERS_TILES; m++) {
        uint32_t *tile = &spec[SPEC_QKV_TILE + 4 * m];
        tile[0] = plan->tiles[m].lanes;
        tile[1] = plan->tiles[m].rows;
        tile[2] = plan->tiles[m].unroll;
        tile[3] = plan->tiles[m].near;
    }
    return vkc_pipeline_get(bm->backend->device, SHADER_layers, spec, ARRAY_SIZE(spec), err, ret);
}

static struct layer_matrix matrix_of(const struct backend_model *bm, const struct weight *w)
{
    uint64_t data = vk_weights_address(&bm->weights, w->data_off);
    return (struct layer_matrix){
        .data = data,
        .scales = vk_weights_address(&bm->weights, w->scale_off),
        .biases = w->bias_off ? vk_weights_address(&bm->weights, w->bias_off) : data,
    };
}

static struct layer_row row_of(const struct backend_state *state, uint32_t layer)
{
    const struct backend_model *bm = state->bm;
    const struct model_config *c = &bm->model->config;
    const struct model_layer *l = &bm->model->layers[layer];
    const struct model_layer *last = &bm->model->layers[layer > 0 ? layer - 1 : 0];
    const struct vk_weights *weights = &bm->weights;
    struct layer_kv kv = vk_layer_kv(state, layer);
    return (struct layer_row){
        .qkv = matrix_of(bm, &l->qkv),
        .attn_out = matrix_of(bm, &l->attn_out),
        .gate_up = matrix_of(bm, &l->gate_up),
        .down = matrix_of(bm, &l->down),
        .before = vk_weights_address(weights, last->post_ffn_norm_off),
        .input_norm = vk_weights_address(weights, l->input_norm_off),
        .post_attn_norm = vk_weights_address(weights, l->post_attn_norm_off),
        .pre_ffn_norm = vk_weights_address(weights, l->pre_ffn_norm_off),
        .q_norm = vk_weights_address(weights, l->q_norm_off),
        .k_norm = vk_weights_address(weights, l->k_norm_off),
        .turns = bm->turns.address +
                 (c->layer_is_global[layer] ? c->head_dim / 2 * sizeof(uint64_t) : 0),
        .k = kv.k,
        .v = kv.v,
        .ring = kv.ring,
        .window = c->layer_is_global[layer] ? 0 : c->window,
    };
}

int vk_layers_reset(struct backend_state *state, struct err *err)
{
    struct vkc_device *device = state->bm->backend->device;
    VkCommandBuffer cmd;
    int r = vkc_cmd_begin(device, err, &cmd);
    if (r < 0) {
        return r;
    }
    *(uint32_t *)state->layers_failed.map = 0;
    vkc_clear(device, cmd, &state->layers_arrived);
    vkc_barrier(device, cmd, VKC_COPY_TO_SHADER);
    r = vkc_cmd_end(device, cmd, err);
    if (r == 0) {
        r = vk_run(state->bm->backend, &cmd, 1, err);
    }
    vkc_cmd_free(device, cmd);
    return r;
}

int vk_layers_init(struct backend_state *state, struct err *err)
{
    struct vkc_device *device = state->bm->backend->device;
    uint32_t n = state->bm->model->config.n_layers;
    if (!state->kv || !vk_layers_fit(state->bm)) {
        return 0;
    }
    int r = vkc_buffer_init(device, VKC_SHARED, n * sizeof(struct layer_row), "layers' addresses",
                            err, &state->layer_rows);
    if (r == 0) {
        r = vkc_buffer_init(device, VKC_SHARED, sizeof(uint32_t), "layers' failure", err,
                            &state->layers_failed);
    }
    if (r == 0) {
        r = vkc_buffer_init(device, VKC_DEVICE, LAYERS_WORDS * sizeof(uint32_t), "layers' counter",
                            err, &state->layers_arrived);
    }
    if (r < 0) {
        return r;
    }
    struct layer_row *rows = state->layer_rows.map;
    for (uint32_t l = 0; l < n; l++) {
        rows[l] = row_of(state, l);
    }
    return vk_layers_reset(state, err);
}

void vk_layers_finish(struct backend_state *state)
{
    vkc_buffer_finish(state->bm->backend->device, &state->layer_rows);
    vkc_buffer_finish(state->bm->backend->device, &state->layers_failed);
    vkc_buffer_finish(state->bm->backend->device, &state->layers_arrived);
}

int vk_record_layers(struct backend_state *state, VkCommandBuffer cmd,
                     const struct vk_layers_plan *plan, uint32_t spins, struct err *err)
{
    const struct backend_model *bm = state->bm;
    const struct model_config *c = &bm->model->config;
    uint64_t acts = state->acts.address;
    VkPipeline pipeline;
    int r = vk_layers_pipeline(state->bm, plan, err, &pipeline);
    if (r < 0) {
        return r;
    }
    uint32_t parts = plan->groups / c->n_heads, most = vk_attend_parts(bm, 1);
    most = most < PARTS_MAX ? most : PARTS_MAX;
    parts = parts < most ? parts : most;
    struct push_layers push = {
        .layers = state->layer_rows.address,
        .x = acts + state->act_off[ACT_X],
        .x_next = acts + state->act_off[ACT_X_NEXT],
        .y = acts + state->act_off[ACT_Y],
        .qkv = acts + state->act_off[ACT_QKV],
        .att = acts + state->act_off[ACT_ATT],
        .h = acts + state->act_off[ACT_H],
        .parts = state->part_sums.address,
        .arrived = state->layers_arrived.address,
        .failed = state->layers_failed.address,
        .step_p = state->step.address,
        .n_layers = c->n_layers,
        .n_kv_heads = c->n_kv_heads,
        .max_parts = parts > 0 ? parts : 1,
        .spins = spins,
        .eps = c->rms_eps,
        .query_scale = c->query_scale,
    };
    vkc_dispatch(bm->backend->device, cmd, pipeline, &push, sizeof push, plan->groups, 1, 1);
    vkc_barrier(bm->backend->device, cmd, VKC_SHADER_TO_HOST); /* layers_failed */
    vk_mark(state, cmd, "layers");
    return 0;
}

bool vk_layers_failed(const struct backend_state *state)
{
    const volatile uint32_t *failed = state->layers_failed.map;
    return failed && *failed != 0;
}

int vk_layers_check(struct backend_state *state, struct err *err)
{
    if (!vk_layers_failed(state)) {
        return 0;
    }
    state->bm->layers.groups = 0;
    return err_set(
        err, -ETIME,
        "the device did not run all workgroups at once, as it did when it was tried; new "
        "sequences do without (`gttrun devices --forget-tuning` has it tried again)");
}
