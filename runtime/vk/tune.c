/* SPDX-License-Identifier: MIT */
/*
 * Which kernels, and which of their forms, suit a device best, by trying those that should:
 * tune_layers.c whether a token's layers are one dispatch, tune_gemv.c gemv.comp, tune_gemm.c
 * gemm.comp, tune_few.c few.comp or a GEMM for a few tokens. choices.c keeps what was found.
 */
#include "clock.h"
#include "vk.h"

#define TUNE_NS 16000000000u /* then no further shape is begun: the next start goes on */

int vk_run_timed(struct backend *backend, VkCommandBuffer cmd, VkQueryPool timer, struct err *err,
                 double *best_ns)
{
    double ns[2];
    int r = vk_run(backend, &cmd, 1, err);
    if (r == 0) {
        r = vkc_timer_read(backend->device, timer, 2, err, ns);
    }
    if (r == 0 && ns[1] > 0 && (*best_ns == 0 || ns[1] < *best_ns)) {
        *best_ns = ns[1];
    }
    return r;
}

bool vk_tune_wanted(const struct backend_model *bm)
{
    return bm->backend->device->physical.timestamp_bits > 0 &&
           (vk_tune_layers_wanted(bm) || vk_tune_gemv_wanted(bm) || vk_tune_gemm_wanted(bm) ||
            vk_tune_few_wanted(bm));
}

int vk_tune(struct backend_state *state, struct err *err)
{
    uint64_t end_ns = now_ns() + TUNE_NS;
    uint32_t n_gemv = 0, n_gemm = 0, n_few = 0, n_layers = 0;
    int r = vk_tune_layers(state, end_ns, &n_layers, err);
    if (r == 0) {
        r = vk_tune_gemv(state, end_ns, &n_gemv, err);
    }
    if (r == 0) {
        r = vk_tune_gemm(state, end_ns, &n_gemm, err);
    }
    if (r == 0) {
        r = vk_tune_few(state, end_ns, &n_few, err);
    }
    if (r == 0 && n_gemv + n_gemm + n_few + n_layers > 0) {
        vk_choices_save(state->bm->backend);
    }
    return r;
}
