/* SPDX-License-Identifier: MIT */
/* Which tiles of gemm.comp suit a device best, by trying those that should: see tune.c. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "gttd_util.h"
#include "vk.h"

#define N_MATRICES 4
#define LAYERS_MAX 4 /* of a model that are measured */
#define RUNS       4 /* of which the fastest counts */
#define CANDIDATES 7
#define WARM_NS    300000000u /* tune_gemv.c has just been at work */

const struct vk_gemm_choice *vk_gemm_find(const struct backend *backend,
                                          const struct vk_gemm_shape *shape)
{
    for (uint32_t i = 0; i < backend->n_gemms; i++) {
        if (memcmp(&backend->gemms[i].shape, shape, sizeof *shape) == 0) {
            return &backend->gemms[i];
        }
    }
    return NULL;
}

int vk_gemm_add(struct backend *backend, const struct vk_gemm_choice *choice)
{
    struct vk_gemm_choice *grown = realloc(backend->gemms, (backend->n_gemms + 1) * sizeof *grown);
    if (!grown) {
        return -ENOMEM;
    }
    backend->gemms = grown;
    grown[backend->n_gemms++] = *choice;
    return 0;
}

#define LINE_FORMAT                                                                             \
    "gemm type %" SCNu32 " affine %" SCNu32 " group %" SCNu32 " cols %" SCNu32 " rows %" SCNu32 \
    " batch %" SCNu32 ": rows %" SCNu32 " tokens %" SCNu32 " k %" SCNu32 " mats %" SCNu32       \
    " buffers %" SCNu32 " split %" SCNu32 " few %" SCNu32 " warps_k %" SCNu32

int vk_gemm_choice_print(const struct vk_gemm_choice *c, char *text, size_t size)
{
    return snprintf(text, size, LINE_FORMAT " tflops %.2f", c->shape.type, c->shape.affine,
                    c->shape.group, c->shape.cols, c->shape.rows, c->shape.batch, c->tiles.rows,
                    c->tiles.tokens, c->tiles.k, c->tiles.mats, c->tiles.buffers, c->tiles.split,
                    c->tiles.few, c->tiles.warps_k, c->tflops);
}

/* That the tiles suit device and matrix is checked when they are used; here only that they are
 * numbers to compute with. */
static bool is_sane(const struct vk_gemm_tiles *t)
{
    bool is_form = t->few ? t->few <= VK_FEW_DIRECT && t->warps_k && t->warps_k <= 32 &&
                                t->k <= 1024 * t->warps_k
                          : (t->mats == GEMM_MATS || t->mats == GEMM_SMALL_MATS) &&
                                t->split <= VK_SPLIT_MORE && t->k <= 256;
    return is_form && t->rows && t->rows <= 1024 && t->tokens && t->tokens <= VK_BATCH_MAX &&
           t->k && t->k <= 8192 && t->k % 32 == 0 && (t->buffers == 1 || t->buffers == 2) &&
           t->split <= 16;
}

void vk_gemm_choice_read(struct backend *backend, const char *line)
{
    struct vk_gemm_choice c = {0};
    struct vk_gemm_shape *s = &c.shape;
    struct vk_gemm_tiles *t = &c.tiles;
    int n = sscanf(line, LINE_FORMAT " tflops %lf", &s->type, &s->affine, &s->group, &s->cols,
                   &s->rows, &s->batch, &t->rows, &t->tokens, &t->k, &t->mats, &t->buffers,
                   &t->split, &t->few, &t->warps_k, &c.tflops);
    if (n == 15 && is_sane(t) && !vk_gemm_find(backend, s)) {
        (void)vk_gemm_add(backend, &c); /* without it, it is measured again */
    }
}

/* One shape's measuring: the same matrix of some layers, one after the other. */
struct trial {
    struct backend_state *state;
    VkQueryPool timer;
    const struct weight *matrices[LAYERS_MAX];
    enum vk_act y;
    uint32_t n_matrices;
    uint32_t n_tokens;
    struct vk_gemm_tiles list[CANDIDATES];
    uint32_t n;
};

static int record(const struct trial *trial, VkCommandBuffer cmd, const struct vk_gemm_tiles *tiles,
                  struct err *err)
{
    struct backend_state *state = trial->state;
    struct vkc_device *device = state->bm->backend->device;
    uint64_t y = state->acts.address + state->act_off[trial->y];
    int r = 0;
    vkc_timer_reset(device, cmd, trial->timer, 2);
    vkc_timer_write(device, cmd, trial->timer, 0);
    for (uint32_t i = 0; i < trial->n_matrices && r == 0; i++) {
        r = vk_record_gemm(state, cmd, trial->matrices[i], tiles, y, false, trial->n_tokens, NULL,
                           err);
        vkc_barrier(device, cmd, VKC_SHADER_TO_SHADER);
    }
    vkc_timer_write(device, cmd, trial->timer, 1);
    return r;
}

/* Seconds of the fastest run. */
static int measure(const struct trial *trial, const struct vk_gemm_tiles *tiles, double *ret,
                   struct err *err)
{
    struct backend *backend = trial->state->bm->backend;
    VkCommandBuffer cmd;
    int r = vkc_cmd_begin(backend->device, err, &cmd);
    if (r < 0) {
        return r;
    }
    r = record(trial, cmd, tiles, err);
    if (r == 0) {
        r = vkc_cmd_end(backend->device, cmd, err);
    }
    double best = 0;
    for (int run = 0; run < RUNS && r == 0; run++) {
        r = vk_run_timed(backend, cmd, trial->timer, err, &best);
    }
    vkc_cmd_free(backend->device, cmd);
    *ret = best * 1e-9;
    return r;
}

static int warm_up(const struct trial *trial, struct err *err)
{
    double seconds;
    uint64_t start = now_ns();
    int r = 0;
    while (r == 0 && now_ns() - start < WARM_NS) {
        r = measure(trial, &trial->list[0], &seconds, err);
    }
    return r;
}

/* A tiling in each way to split it; they share a pipeline. */
static int try_splits(const struct trial *trial, struct vk_gemm_tiles tiles, double flops,
                      struct vk_gemm_choice *best, struct err *err)
{
    int r = 0;
    for (tiles.split = VK_SPLIT_NONE; tiles.split <= VK_SPLIT_MORE && r == 0; tiles.split++) {
        double seconds;
        r = measure(trial, &tiles, &seconds, err);
        double tflops = r == 0 && seconds > 0 ? flops / seconds * 1e-12 : 0;
        if (r == 0 && (best->tiles.rows == 0 || tflops > best->tflops)) {
            best->tiles = tiles;
            best->tflops = tflops;
        }
    }
    return r;
}

static int tune_shape(const struct trial *trial, struct err *err)
{
    struct backend *backend = trial->state->bm->backend;
    const struct weight *w = trial->matrices[0];
    struct vk_gemm_choice best = {.shape = vk_gemm_shape(w, backend->tuning.batch_max)};
    double flops = 2.0 * w->rows * w->cols * trial->n_tokens * trial->n_matrices;
    for (uint32_t i = 0; i < trial->n; i++) {
        int r = try_splits(trial, trial->list[i], flops, &best, err);
        if (r < 0) {
            return r;
        }
    }
    char text[256];
    vk_gemm_choice_print(&best, text, sizeof text);
    vkc_log(backend->instance, "tuned: %s", text);
    int r = vk_gemm_add(backend, &best);
    return r == 0 ? 0 : err_set(err, r, "no memory for a tuning");
}

static const struct weight *matrix_of(const struct model_layer *layer, int which)
{
    const struct weight *all[] = {&layer->qkv, &layer->attn_out, &layer->gate_up, &layer->down};
    return all[which];
}

static bool is_wanted(const struct backend *backend, const struct weight *w)
{
    struct vk_gemm_shape shape = vk_gemm_shape(w, backend->tuning.batch_max);
    return vk_gemm_fits(backend, w) && !vk_gemm_find(backend, &shape);
}

bool vk_tune_gemm_wanted(const struct backend_model *bm)
{
    bool wanted = false;
    for (int which = 0; which < N_MATRICES; which++) {
        wanted |= is_wanted(bm->backend, matrix_of(&bm->model->layers[0], which));
    }
    return wanted;
}

/* Some matrices' trials. */
struct trials {
    struct trial list[N_MATRICES];
    uint32_t n;
};

/* Candidate i, counted over all matrices. */
static int compile(void *data, uint32_t i, struct err *err)
{
    const struct trials *trials = data;
    const struct trial *trial = trials->list;
    for (; i >= trial->n; trial++) {
        i -= trial->n;
    }
    VkPipeline made;
    return vk_gemm_pipeline(trial->state->bm->backend, trial->matrices[0], &trial->list[i], err,
                            &made);
}

/* The same matrix of the layers; false: there is nothing new about it. */
static bool gather(struct trial *trial, int which)
{
    struct backend *backend = trial->state->bm->backend;
    const struct model *model = trial->state->bm->model;
    uint32_t n_layers = model->config.n_layers;
    trial->n_matrices = n_layers < LAYERS_MAX ? n_layers : LAYERS_MAX;
    for (uint32_t l = 0; l < trial->n_matrices; l++) {
        trial->matrices[l] = matrix_of(&model->layers[l], which);
    }
    static const enum vk_act ys[] = {ACT_QKV, ACT_Y, ACT_GATE_UP, ACT_Y};
    trial->y = ys[which];
    if (!is_wanted(backend, trial->matrices[0])) {
        return false;
    }
    trial->n = vk_gemm_candidates(backend, trial->matrices[0], backend->tuning.batch_max,
                                  trial->list, CANDIDATES);
    return true;
}

/* All candidates of all matrices are compiled, together, before the first is measured: nothing may
 * idle the device then. */
static int prepare(struct trials *trials, struct backend_state *state, uint32_t n_tokens,
                   VkQueryPool timer, struct err *err)
{
    uint32_t n_candidates = 0;
    for (int which = 0; which < N_MATRICES; which++) {
        struct trial *trial = &trials->list[trials->n];
        *trial = (struct trial){.state = state, .timer = timer, .n_tokens = n_tokens};
        if (gather(trial, which)) {
            n_candidates += trial->n;
            trials->n++;
        }
    }
    return vkc_pipelines_make(state->bm->backend->device, n_candidates, compile, trials, err);
}

/* Something in ACT_HALF: for zeros, matrix units may take less power and run at a higher clock than
 * a model will see. */
static int fill_half(struct backend_state *state, struct err *err)
{
    struct vkc_device *device = state->bm->backend->device;
    uint64_t bytes = state->act_off[ACT_HALF + 1] - state->act_off[ACT_HALF];
    struct vkc_buffer host;
    VkCommandBuffer cmd;
    int r = vkc_buffer_init(device, VKC_UPLOAD, bytes, "a tuning's input", err, &host);
    if (r < 0) {
        return r;
    }
    uint16_t *halfs = host.map;
    uint32_t random = 1;
    for (uint64_t i = 0; i < bytes / sizeof *halfs; i++) {
        random = random * 1664525u + 1013904223u;
        halfs[i] = 0x3800 | (random >> 16 & 0x87ff); /* 0.5 to 2, of either sign */
    }
    r = vkc_cmd_begin(device, err, &cmd);
    if (r == 0) {
        vkc_copy(device, cmd, &host, 0, &state->acts, state->act_off[ACT_HALF], bytes);
        vkc_barrier(device, cmd, VKC_COPY_TO_SHADER);
        r = vkc_cmd_end(device, cmd, err);
        if (r == 0) {
            r = vk_run(state->bm->backend, &cmd, 1, err);
        }
        vkc_cmd_free(device, cmd);
    }
    vkc_buffer_finish(device, &host);
    return r;
}

static int tune_all(struct backend_state *state, uint32_t n_tokens, VkQueryPool timer,
                    uint32_t *ret_n_new, struct err *err)
{
    struct trials trials = {.n = 0};
    int r = prepare(&trials, state, n_tokens, timer, err);
    if (r == 0 && trials.n > 0) {
        r = fill_half(state, err);
    }
    if (r == 0 && trials.n > 0) {
        r = warm_up(&trials.list[0], err);
    }
    for (uint32_t i = 0; i < trials.n && r == 0; i++) {
        struct vk_gemm_shape shape =
            vk_gemm_shape(trials.list[i].matrices[0], state->bm->backend->tuning.batch_max);
        if (!vk_gemm_find(state->bm->backend, &shape)) { /* two may be of one shape */
            r = tune_shape(&trials.list[i], err);
        }
    }
    *ret_n_new = trials.n;
    return r;
}

int vk_tune_gemm(struct backend_state *state, uint64_t end_ns, uint32_t *ret_n_new, struct err *err)
{
    struct vkc_device *device = state->bm->backend->device;
    uint32_t n_tokens = state->bm->backend->tuning.batch_max;
    VkQueryPool timer;
    *ret_n_new = 0;
    if (now_ns() >= end_ns) {
        return 0;
    }
    n_tokens = n_tokens < state->max_pos ? n_tokens : state->max_pos;
    int r = vk_set_step(state, NULL, n_tokens, 0, err);
    if (r == 0) {
        r = vkc_timer_create(device, 2, err, &timer);
    }
    if (r < 0) {
        return r;
    }
    r = tune_all(state, n_tokens, timer, ret_n_new, err);
    vkc_timer_destroy(device, timer);
    return r;
}
