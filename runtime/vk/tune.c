/* SPDX-License-Identifier: MIT */
/*
 * Which kernels, and which of their forms, suit a device best, by trying those that should:
 * tune_layers.c whether a token's layers are one dispatch, tune_gemv.c gemv.comp, tune_gemm.c
 * gemm.comp, tune_few.c few.comp or a GEMM for a few tokens. choices.c keeps what was found.
 */
#include "clock.h"
#include "gttd_util.h"
#include "vk.h"

#define TUNE_NS 16000000000u /* then no further stage is begun: the next start goes on */

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
    static const struct {
        const char *what;
        int (*tune)(struct backend_state *state, uint64_t end_ns, uint32_t *ret_n_new,
                    struct err *err);
    } stages[] = {{"a token's layers", vk_tune_layers},
                  {"one token's matrices", vk_tune_gemv},
                  {"a prompt's matrices", vk_tune_gemm},
                  {"a few tokens' matrices", vk_tune_few}};
    uint64_t end_ns = now_ns() + TUNE_NS;
    uint32_t n_all = 0;
    int r = 0;
    for (size_t i = 0; i < ARRAY_SIZE(stages) && r == 0; i++) {
        uint64_t start_ns = now_ns();
        uint32_t n = 0;
        r = stages[i].tune(state, end_ns, &n, err);
        if (r == 0 && n > 0) {
            vkc_log(state->bm->backend->instance, "tuned: %s took %.1f s", stages[i].what,
                    (double)(now_ns() - start_ns) * 1e-9);
        }
        n_all += n;
    }
    if (r == 0 && n_all > 0) {
        vk_choices_save(state->bm->backend);
    }
    return r;
}
