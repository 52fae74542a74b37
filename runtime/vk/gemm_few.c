/* SPDX-License-Identifier: MIT */
/* Tiles of a few tokens: what suits gemm_few.glsl, and which should be good. */
#include <math.h>

#include "vk.h"

#define EACH 2 /* candidates of a form */

uint32_t vk_gemm_block_of(uint32_t type)
{
    return type == WEIGHT_Q4 ? 32 : type == WEIGHT_Q8 ? 16 : type == WEIGHT_F32 ? 4 : 8;
}

static uint32_t div_up(uint32_t a, uint32_t b)
{
    return (a + b - 1) / b;
}

/* Along K, of a subgroup at once. */
static uint32_t step_of(const struct weight *w)
{
    return GEMM_FEW_BLOCKS * vk_gemm_block_of(w->type);
}

static uint32_t warp_rows(const struct vkc_physical *physical)
{
    return GEMM_FEW_MATS * physical->coopmat.m;
}

uint32_t vk_gemm_few_warps(const struct vkc_physical *physical, const struct vk_gemm_tiles *t)
{
    return t->rows / warp_rows(physical) * t->warps_k;
}

/* Of tokens. */
static uint32_t mats_of(const struct vkc_physical *physical, const struct vk_gemm_tiles *t)
{
    return div_up(t->tokens, physical->coopmat.n);
}

enum shader_id vk_gemm_few_shader(const struct vkc_physical *physical,
                                  const struct vk_gemm_tiles *t)
{
    if (t->few == VK_FEW_DIRECT) {
        return mats_of(physical, t) == 1 ? SHADER_gemm_direct : SHADER_gemm_direct_2;
    }
    return mats_of(physical, t) == 1 ? SHADER_gemm_few : SHADER_gemm_few_2;
}

static uint32_t shared_bytes(const struct vkc_physical *physical, const struct weight *w,
                             const struct vk_gemm_tiles *t)
{
    uint32_t step = step_of(w), stride = step / 8 + 1;
    uint32_t tokens = mats_of(physical, t) * physical->coopmat.n;
    uint32_t x = (t->buffers * (t->k / step) * t->tokens + tokens - t->tokens) * stride;
    uint32_t sums = t->warps_k * tokens * (t->rows / 4 + 1);
    uint32_t weights = vk_gemm_few_warps(physical, t) * warp_rows(physical) * stride;
    return 16 * ((x > sums ? x : sums) + (t->few == VK_FEW_SHARED ? weights : 0));
}

bool vk_gemm_few_suits(const struct backend *backend, const struct weight *w,
                       const struct vk_gemm_tiles *t)
{
    const struct vkc_physical *physical = &backend->device->physical;
    const VkPhysicalDeviceLimits *limits = &physical->props.limits;
    uint32_t lanes = physical->subgroup_size, n_warps = vk_gemm_few_warps(physical, t);
    if ((w->type != WEIGHT_Q4 && w->type != WEIGHT_Q8) || lanes % 8 != 0 ||
        (t->few == VK_FEW_DIRECT && backend->matrix_order == VK_ORDER_NONE)) {
        return false;
    }
    return w->cols % vk_gemm_block_of(w->type) == 0 && w->rows % physical->coopmat.m == 0 &&
           physical->coopmat.m % 4 == 0 && w->rows >= t->rows && t->warps_k > 0 &&
           weight_bytes(w) <= UINT32_MAX && t->rows % warp_rows(physical) == 0 && n_warps > 0 &&
           n_warps <= physical->max_subgroups &&
           n_warps * lanes <= limits->maxComputeWorkGroupInvocations &&
           warp_rows(physical) % (lanes / GEMM_FEW_BLOCKS) == 0 &&
           t->k % (step_of(w) * t->warps_k) == 0 && step_of(w) % physical->coopmat.k == 0 &&
           physical->coopmat.k % 8 == 0 && mats_of(physical, t) <= 2 &&
           shared_bytes(physical, w, t) <= limits->maxComputeSharedMemorySize;
}

/*
 * Clocks of the busiest compute unit, roughly, for the order of candidates: its rounds at the rate
 * at which what it has asked for arrives, what each workgroup waits for before its first round and
 * after its last, and the ways of parts through memory.
 */
static double cost(const struct backend *backend, const struct weight *w, uint32_t batch,
                   const struct vk_gemm_tiles *t)
{
    const double latency = 1000, most = 24, warps_at_once = 16; /* bytes per clock */
    const struct vkc_physical *physical = &backend->device->physical;
    uint32_t n_warps = vk_gemm_few_warps(physical, t);
    uint32_t depth = t->k / (step_of(w) * t->warps_k);
    uint32_t rounds = div_up(div_up(w->cols, t->k), t->split);
    double groups = div_up(w->rows, t->rows) * t->split * div_up(batch, t->tokens);
    double mine = ceil(groups / physical->compute_units);
    double at_once = fmin(mine, fmax(1, floor(warps_at_once / n_warps)));
    double bytes = (double)t->rows * t->k / vk_gemm_block_of(w->type) * 18 * rounds;
    double under_way = at_once * n_warps * depth * 16 * GEMM_FEW_BLOCKS * warp_rows(physical);
    double rate = fmin(most, under_way / latency);
    double x = 2.0 * t->tokens * t->k * rounds / 40;
    double ends = 1.5 * latency + (t->split > 1 ? 100.0 * t->split + 300 : 0);
    return mine * (bytes / rate + x) + ceil(mine / at_once) * ends +
           150.0 * rounds / t->buffers * ceil(mine / at_once);
}

struct ranked {
    struct vk_gemm_tiles tiles;
    double clocks;
};

/* Among the best EACH of *n, one for each number of rows and of subgroups that share them. */
static void keep(struct ranked best[static EACH], uint32_t *n, const struct vk_gemm_tiles *t,
                 double clocks)
{
    uint32_t same = 0;
    while (same < *n &&
           (best[same].tiles.rows != t->rows || best[same].tiles.warps_k != t->warps_k)) {
        same++;
    }
    uint32_t out = same < EACH ? same : EACH - 1; /* whose place is free if this is better */
    if (out < *n && best[out].clocks <= clocks) {
        return;
    }
    *n = out < *n ? *n : *n + 1;
    uint32_t at = out;
    for (; at > 0 && best[at - 1].clocks > clocks; at--) {
        best[at] = best[at - 1];
    }
    best[at] = (struct ranked){*t, clocks};
}

/* A norm that comes next adds up parts; other matrices have more rows than columns. */
static bool may_split(const struct weight *w)
{
    return w->rows * 5 < w->cols * 7;
}

static uint32_t best_of(const struct backend *backend, const struct weight *w, uint32_t batch,
                        uint32_t few, struct ranked best[static EACH])
{
    static const uint32_t warps_k[] = {1, 2, 4, 5, 8, 10};
    const struct vkc_physical *physical = &backend->device->physical;
    uint32_t n = 0, tokens = batch <= 8 ? 8 : batch <= 16 ? 16 : 32;
    uint32_t most = 2 * physical->coopmat.n;
    for (uint32_t i = 0; i < 6 * 6 * 4 * 2 * 2; i++) {
        uint32_t wk = warps_k[i % 6], depth = 1 + i / 144 % 2;
        struct vk_gemm_tiles t = {.rows = (1 + i / 6 % 6) * warp_rows(physical),
                                  .tokens = tokens < most ? tokens : most,
                                  .k = wk * depth * step_of(w),
                                  .mats = GEMM_FEW_MATS,
                                  .buffers = 1 + i / 288,
                                  .split = 1 + i / 36 % 4,
                                  .few = few,
                                  .warps_k = wk};
        if (vk_gemm_few_suits(backend, w, &t) && (t.split == 1 || may_split(w))) {
            keep(best, &n, &t, cost(backend, w, batch, &t));
        }
    }
    return n;
}

uint32_t vk_gemm_few_candidates(const struct backend *backend, const struct weight *w,
                                uint32_t batch, struct vk_gemm_tiles *ret, uint32_t cap)
{
    uint32_t n = 0;
    for (uint32_t few = VK_FEW_DIRECT; few > VK_FEW_NOT; few--) {
        struct ranked best[EACH];
        uint32_t n_best = best_of(backend, w, batch, few, best);
        n_best = n > 0 && n_best > 1 ? 1 : n_best; /* the other form is there */
        for (uint32_t i = 0; i < n_best && n < cap; i++) {
            ret[n++] = best[i].tiles;
        }
    }
    /* With all of a matrix's tokens the head of 4B took 294 us for 8 on an H100, with 8 of 16 311.
     */
    struct vk_gemm_tiles whole = n > 0 ? ret[0] : (struct vk_gemm_tiles){0};
    whole.tokens = backend->device->physical.coopmat.n;
    if (n > 0 && n < cap && ret[0].tokens < whole.tokens && vk_gemm_few_suits(backend, w, &whole)) {
        ret[n++] = whole;
    }
    return n;
}
