/* SPDX-License-Identifier: MIT */
/* Several tokens times a matrix by cooperative matrices: what suits gemm.glsl, its tiles, and how
 * they and those of gemm_few.c are recorded. */
#include <errno.h>

#include "gttd_util.h"
#include "vk.h"

static uint32_t warps(const struct vkc_physical *physical, const struct vk_gemm_tiles *t)
{
    if (t->few) {
        return vk_gemm_few_warps(physical, t);
    }
    return t->rows / (t->mats * physical->coopmat.m) *
           (t->tokens / (t->mats * physical->coopmat.n));
}

static uint32_t div_up(uint32_t a, uint32_t b)
{
    return (a + b - 1) / b;
}

static uint32_t shared_bytes(const struct vk_gemm_tiles *t)
{
    return (t->rows + t->tokens) * (t->k + 8) * 2 * t->buffers;
}

static bool suits(const struct backend *backend, const struct weight *w,
                  const struct vk_gemm_tiles *t)
{
    const struct vkc_physical *physical = &backend->device->physical;
    if (t->few) {
        return vk_gemm_few_suits(backend, w, t);
    }
    uint32_t wg = warps(physical, t) * physical->subgroup_size;
    if (wg == 0) {
        return false;
    }
    uint32_t w_blocks = t->rows * (t->k / vk_gemm_block_of(w->type)),
             x_chunks = t->tokens * (t->k / 8);
    return w->cols % t->k == 0 && w->rows % physical->coopmat.m == 0 && w_blocks % wg == 0 &&
           x_chunks % wg == 0 && t->rows % (t->mats * physical->coopmat.m) == 0 &&
           t->tokens % (t->mats * physical->coopmat.n) == 0 && t->k % physical->coopmat.k == 0 &&
           physical->coopmat.k % 4 == 0 &&
           shared_bytes(t) <= physical->props.limits.maxComputeSharedMemorySize &&
           wg <= physical->props.limits.maxComputeWorkGroupInvocations;
}

struct vk_gemm_shape vk_gemm_shape(const struct weight *w, uint32_t batch)
{
    return (struct vk_gemm_shape){
        .type = w->type,
        .affine = w->bias_off != 0,
        .group = w->group ? w->group : 32,
        .cols = w->cols,
        .rows = w->rows,
        .batch = batch <= 8            ? 8
                 : batch <= 16         ? 16
                 : batch <= 32         ? 32
                 : batch <= VK_ALL_MAX ? VK_ALL_MAX
                                       : VK_BATCH_MAX,
    };
}

/* Of many tokens, large tiles read less: they are bound by the matrix units and shared memory. Of
 * few, the weights are to be read by as many workgroups as can wait for them at once. */
static const struct vk_gemm_tiles for_many[] = {
    {128, 128, 64, GEMM_MATS, 1, VK_SPLIT_TAIL, VK_FEW_NOT, 0},
    {128, 128, 32, GEMM_MATS, 2, VK_SPLIT_TAIL, VK_FEW_NOT, 0},
    {64, 128, 64, GEMM_MATS, 1, VK_SPLIT_TAIL, VK_FEW_NOT, 0},
    {256, 128, 32, GEMM_MATS, 1, VK_SPLIT_TAIL, VK_FEW_NOT, 0},
    {64, 64, 64, GEMM_SMALL_MATS, 2, VK_SPLIT_TAIL, VK_FEW_NOT, 0},
    {64, 128, 32, GEMM_MATS, 2, VK_SPLIT_TAIL, VK_FEW_NOT, 0},
    {128, 128, 32, GEMM_MATS, 1, VK_SPLIT_TAIL, VK_FEW_NOT, 0},
    {128, 256, 32, GEMM_MATS, 1, VK_SPLIT_TAIL, VK_FEW_NOT, 0},
    {32, 32, 32, GEMM_SMALL_MATS, 1, VK_SPLIT_TAIL, VK_FEW_NOT, 0},
};
static const struct vk_gemm_tiles for_few[] = {
    {64, 64, 128, GEMM_SMALL_MATS, 1, VK_SPLIT_TAIL, VK_FEW_NOT, 0},
    {64, 64, 64, GEMM_SMALL_MATS, 2, VK_SPLIT_TAIL, VK_FEW_NOT, 0},
    {32, 32, 32, GEMM_SMALL_MATS, 1, VK_SPLIT_TAIL, VK_FEW_NOT, 0},
};
static const struct vk_gemm_tiles for_fewer[] = {
    {64, 32, 128, GEMM_SMALL_MATS, 1, VK_SPLIT_TAIL, VK_FEW_NOT, 0},
    {64, 32, 64, GEMM_SMALL_MATS, 2, VK_SPLIT_TAIL, VK_FEW_NOT, 0},
    {32, 32, 32, GEMM_SMALL_MATS, 1, VK_SPLIT_TAIL, VK_FEW_NOT, 0},
};

uint32_t vk_gemm_candidates(const struct backend *backend, const struct weight *w, uint32_t batch,
                            struct vk_gemm_tiles *ret, uint32_t cap)
{
    const struct vkc_physical *physical = &backend->device->physical;
    const struct vk_gemm_tiles *all = for_many;
    uint32_t n_all = ARRAY_SIZE(for_many), n = 0;
    if (batch <= VK_ALL_MAX) {
        all = batch <= 32 ? for_fewer : for_few;
        n_all = batch <= 32 ? ARRAY_SIZE(for_fewer) : ARRAY_SIZE(for_few);
    }
    bool is_cpu = physical->props.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
    if (batch <= STEP_ROWS_MAX && !is_cpu) {
        n = vk_gemm_few_candidates(backend, w, batch, ret, cap);
    }
    for (uint32_t i = is_cpu ? n_all - 1 : 0; i < n_all && n < cap; i++) {
        if (suits(backend, w, &all[i])) {
            ret[n++] = all[i];
        }
    }
    return n;
}

static bool choose_tiles(const struct backend *backend, const struct weight *w, uint32_t batch,
                         struct vk_gemm_tiles *ret)
{
    struct vk_gemm_shape shape = vk_gemm_shape(w, batch);
    const struct vk_gemm_choice *choice = vk_gemm_find(backend, &shape);
    if (choice && suits(backend, w, &choice->tiles)) {
        *ret = choice->tiles;
        return true;
    }
    return vk_gemm_candidates(backend, w, batch, ret, 1) == 1;
}

bool vk_gemm_possible(const struct backend *backend)
{
    const struct vkc_physical *physical = &backend->device->physical;
    return physical->coopmat.m && 16 % physical->coopmat.n == 0 && physical->has_size_control &&
           shaders[SHADER_gemm].size_bytes > 0;
}

bool vk_gemm_fits(const struct backend *backend, const struct weight *w)
{
    if (!vk_gemm_possible(backend)) {
        return false;
    }
    struct vk_gemm_tiles t;
    return choose_tiles(backend, w, VK_BATCH_MAX, &t);
}

int vk_gemm_pipeline(struct backend *backend, const struct weight *w,
                     const struct vk_gemm_tiles *tiles, struct err *err, VkPipeline *ret)
{
    const struct vkc_physical *physical = &backend->device->physical;
    struct vk_gemm_tiles t;
    if (tiles) {
        t = *tiles;
    } else if (!choose_tiles(backend, w, VK_BATCH_MAX, &t)) {
        return err_set(err, -ENOTSUP, "no tiles for rows of %u elements", w->cols);
    }
    uint32_t n_warps = warps(physical, &t);
    enum shader_id shader = t.few                 ? vk_gemm_few_shader(physical, &t)
                            : t.mats == GEMM_MATS ? SHADER_gemm
                                                  : SHADER_gemm_small;
    uint32_t spec[] = {
        [SPEC_WG] = n_warps * physical->subgroup_size,
        [SPEC_SLOTS] = n_warps,
        [SPEC_TYPE] = w->type,
        [SPEC_AFFINE] = w->bias_off != 0,
        [SPEC_GROUP] = w->group ? w->group : 32,
        [SPEC_GEMM_COLS] = w->cols,
        [SPEC_TILE_ROWS] = t.rows,
        [SPEC_TILE_TOKENS] = t.tokens,
        [SPEC_TILE_K] = t.k,
        [SPEC_MAT_M] = physical->coopmat.m,
        [SPEC_MAT_N] = physical->coopmat.n,
        [SPEC_MAT_K] = physical->coopmat.k,
        [SPEC_BUFFERS] = t.buffers,
        [SPEC_WARPS_K] = t.warps_k,
        [SPEC_ORDER] = backend->matrix_order,
    };
    uint32_t n_spec = t.few ? SPEC_ORDER + 1 : SPEC_BUFFERS + 1;
    return vkc_pipeline_get(backend->device, shader, spec, n_spec, err, ret);
}

void vk_record_to_half(struct backend_state *state, VkCommandBuffer cmd, uint64_t x, uint32_t width,
                       uint32_t batch)
{
    const struct backend_model *bm = state->bm;
    struct push_to_half push = {
        .x = x,
        .half_ = state->acts.address + state->act_off[ACT_HALF],
        .power = state->acts.address + state->act_off[ACT_POWER],
        .step_p = state->step.address,
        .width = width,
    };
    vkc_dispatch(bm->backend->device, cmd, bm->to_half, &push, sizeof push, batch, 1, 1);
    vk_mark(state, cmd, "to_half");
}

/* How a matrix times a batch is cut up: the first whole row tiles in one go, the sums of the others
 * in parts. */
struct plan {
    uint32_t whole, parts;
};

#define PARTS_MAX  12
#define PART_STEPS 4 /* of TILE_K, at least: a part also costs its way through memory */

/* So many parts of n_tiles as leave the least of a device idle that makes `slots` at once; a few
 * per cent less is not worth another part. */
static uint32_t best_parts(uint32_t n_tiles, uint32_t slots, uint32_t max)
{
    uint32_t best = 1;
    double most = 0;
    for (uint32_t parts = 1; parts <= max; parts++) {
        uint32_t groups = n_tiles * parts;
        double busy = (double)groups / (div_up(groups, slots) * slots) - 0.01 * parts;
        if (busy > most) {
            most = busy;
            best = parts;
        }
    }
    return best;
}

/* room: of the parts of a row of y for all tokens. */
static struct plan plan_few(const struct weight *w, const struct vk_gemm_tiles *t, uint32_t room)
{
    uint32_t down = div_up(w->rows, t->rows), rounds = div_up(w->cols, t->k), max = room / w->rows;
    uint32_t parts = t->split < rounds ? t->split : rounds;
    parts = parts < max ? parts : max;
    return parts > 1 ? (struct plan){.whole = 0, .parts = parts}
                     : (struct plan){.whole = down, .parts = 1};
}

static struct plan make_plan(const struct backend *backend, const struct weight *w,
                             const struct vk_gemm_tiles *t, uint32_t batch, uint32_t room)
{
    const struct vkc_physical *physical = &backend->device->physical;
    if (t->few) {
        return plan_few(w, t, room);
    }
    uint32_t n_warps = warps(physical, t);
    uint32_t room_warps = t->mats == GEMM_MATS ? 8 : 16; /* of a compute unit: registers */
    uint32_t slots = physical->compute_units * (n_warps < room_warps ? room_warps / n_warps : 1);
    uint32_t across = div_up(batch, t->tokens), down = div_up(w->rows, t->rows);
    struct plan plan = {.whole = down, .parts = 1};
    if (t->split == VK_SPLIT_NONE) {
        return plan;
    }
    uint32_t waves = across * down / slots, kept = t->split - VK_SPLIT_TAIL;
    uint32_t whole = waves > kept ? (waves - kept) * slots / across : 0;
    uint32_t tail_rows = w->rows - whole * t->rows;
    if (whole >= down) {
        return plan;
    }
    uint32_t max = room / tail_rows, most = w->cols / t->k / PART_STEPS;
    max = max < most ? max : most;
    max = max < PARTS_MAX ? max : PARTS_MAX;
    uint32_t parts = best_parts((down - whole) * across, slots, max);
    return parts > 1 ? (struct plan){.whole = whole, .parts = parts} : plan;
}

/* Where parts wait to be added up, and how many floats there are: what lies between the normed x
 * and the result, for gate and up, which are done with it; else where those two will be next. */
static uint64_t scratch(const struct backend_state *state, uint64_t y, uint64_t *ret_floats)
{
    bool is_gate_up = y == state->acts.address + state->act_off[ACT_GATE_UP];
    uint64_t begin = state->act_off[is_gate_up ? ACT_Y : ACT_GATE_UP];
    uint64_t end = state->act_off[is_gate_up ? ACT_GATE_UP : ACT_H];
    *ret_floats = (end - begin) / sizeof(float);
    return state->acts.address + begin;
}

/* All that recording a matrix times a batch needs. */
struct cut {
    struct vk_gemm_tiles tiles;
    struct plan plan;
    struct vk_gemm_parts parts;
};

static bool make_cut(const struct backend_state *state, const struct weight *w, uint64_t y,
                     uint32_t batch, const struct vk_gemm_tiles *tiles, struct cut *ret)
{
    const struct backend *backend = state->bm->backend;
    struct cut cut = {0};
    if (tiles) {
        cut.tiles = *tiles;
    } else if (!choose_tiles(backend, w, batch, &cut.tiles)) {
        return false;
    }
    uint64_t room;
    uint32_t padded = div_up(batch, 16) * 16;
    cut.parts.address = scratch(state, y, &room);
    cut.plan = make_plan(backend, w, &cut.tiles, batch, (uint32_t)(room / padded));
    if (cut.plan.parts > 1) {
        cut.parts.n = cut.plan.parts;
        cut.parts.first = cut.plan.whole * cut.tiles.rows;
        cut.parts.rows = w->rows - cut.parts.first;
        cut.parts.floats = padded * cut.parts.rows;
    }
    *ret = cut;
    return true;
}

struct vk_gemm_parts vk_gemm_parts(const struct backend_state *state, const struct weight *w,
                                   uint64_t y, uint32_t batch)
{
    struct cut cut;
    return make_cut(state, w, y, batch, NULL, &cut) ? cut.parts : (struct vk_gemm_parts){0};
}

static void record_sum(struct backend_state *state, VkCommandBuffer cmd,
                       const struct vk_gemm_parts *parts, uint64_t y, uint32_t rows, uint32_t batch)
{
    const struct backend_model *bm = state->bm;
    struct push_sum_parts push = {
        .parts = parts->address,
        .y = y,
        .step_p = state->step.address,
        .first = parts->first / 4,
        .n_rows = parts->rows / 4,
        .y_rows = rows / 4,
        .part_vecs = parts->floats / 4,
        .n_parts = parts->n,
    };
    vkc_barrier(bm->backend->device, cmd, VKC_SHADER_TO_SHADER);
    vkc_dispatch(bm->backend->device, cmd, bm->sum_parts, &push, sizeof push,
                 div_up(push.n_rows, bm->backend->tuning.token_wg), batch, 1);
    vk_mark(state, cmd, "sum_parts");
}

static void record_tiles(struct backend_state *state, VkCommandBuffer cmd, const struct weight *w,
                         const struct cut *cut, VkPipeline pipeline, uint64_t y, uint32_t batch)
{
    const struct backend_model *bm = state->bm;
    struct vkc_device *device = bm->backend->device;
    uint64_t data = vk_weights_address(&bm->weights, w->data_off);
    uint32_t across = div_up(batch, cut->tiles.tokens);
    struct push_gemm push = {
        .data = data,
        .scale = w->scale_off ? vk_weights_address(&bm->weights, w->scale_off) : data,
        .bias = w->bias_off ? vk_weights_address(&bm->weights, w->bias_off) : data,
        .x = state->acts.address + state->act_off[ACT_HALF],
        .power = state->acts.address + state->act_off[ACT_POWER],
        .y = y,
        .step_p = state->step.address,
        .rows = cut->parts.n ? cut->parts.first : w->rows,
        .y_rows = w->rows,
    };
    if (cut->plan.whole > 0) {
        vkc_dispatch(device, cmd, pipeline, &push, sizeof push, across, cut->plan.whole, 1);
    }
    if (cut->parts.n) { /* next to them: no barrier */
        push.first = cut->parts.first;
        push.rows = w->rows;
        push.y = cut->parts.address;
        push.y_rows = cut->parts.rows;
        push.part_floats = cut->parts.floats;
        vkc_dispatch(device, cmd, pipeline, &push, sizeof push, across,
                     div_up(push.y_rows, cut->tiles.rows), cut->parts.n);
    }
}

int vk_record_gemm(struct backend_state *state, VkCommandBuffer cmd, const struct weight *w,
                   const struct vk_gemm_tiles *tiles, uint64_t y, bool leave_parts, uint32_t batch,
                   const char *name, struct err *err)
{
    struct backend *backend = state->bm->backend;
    struct cut cut;
    VkPipeline pipeline;
    if (!make_cut(state, w, y, batch, tiles, &cut)) {
        return err_set(err, -ENOTSUP, "no tiles for rows of %u elements", w->cols);
    }
    int r = vk_gemm_pipeline(backend, w, &cut.tiles, err, &pipeline);
    if (r < 0) {
        return r;
    }
    record_tiles(state, cmd, w, &cut, pipeline, y, batch);
    vk_mark(state, cmd, name);
    if (cut.parts.n && !leave_parts) {
        record_sum(state, cmd, &cut.parts, y, w->rows, batch);
    }
    return 0;
}
