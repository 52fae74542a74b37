/* SPDX-License-Identifier: MIT */
/* Which specialization of gemv.comp suits a device best, by trying those that should: see tune.c.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "vk.h"

#define N_MATRICES 5 /* of a layer, and the head: */
#define HEAD       4
#define LAYERS_MAX 16 /* of a model that are measured: enough to be larger than a cache */
#define RUNS       5  /* of which the fastest counts */
#define CANDIDATES 24
#define WARM_NS    1500000000u

/* One shape's measuring: the same matrix of several layers, one after the other. */
struct trial {
    struct backend_state *state;
    struct vk_gemv_shape shape;
    const struct weight *matrices[LAYERS_MAX];
    uint32_t n_matrices;
    VkQueryPool timer;
    struct vk_gemv_tuning list[CANDIDATES];
    uint32_t n;
};

static uint64_t act(const struct trial *trial, enum vk_act act)
{
    return trial->state->acts.address + trial->state->act_off[act];
}

/* The largest matrix first, so that no cache holds what is read afterwards. */
static int record(const struct trial *trial, VkCommandBuffer cmd,
                  const struct vk_gemv_tuning *tuning, struct err *err)
{
    struct backend_state *state = trial->state;
    const struct model *model = state->bm->model;
    struct vkc_device *device = state->bm->backend->device;
    struct vk_gemv_input input = {.prologue = GEMV_PLAIN, .x = act(trial, ACT_GATE_UP)};
    uint64_t out = state->last.device.address;
    int r = 0;
    vkc_timer_reset(device, cmd, trial->timer, 2);
    if (vk_gemv_fits(state->bm->backend, &model->head)) {
        r = vk_record_gemv(state, cmd, &model->head, &input, out, false, NULL, NULL, err);
        vkc_barrier(device, cmd, VKC_SHADER_TO_SHADER);
    }
    if (trial->shape.normed) {
        input = (struct vk_gemv_input){
            .prologue = GEMV_ADD_NORM,
            .x = act(trial, ACT_X),
            .y = act(trial, ACT_Y),
            .post = vk_weights_address(&state->bm->weights, model->layers[0].post_ffn_norm_off),
            .next = vk_weights_address(&state->bm->weights, model->final_norm_off),
            .x_out = act(trial, ACT_X_NEXT),
        };
    }
    vkc_timer_write(device, cmd, trial->timer, 0);
    for (uint32_t i = 0; i < trial->n_matrices && r == 0; i++) {
        r = vk_record_gemv(state, cmd, trial->matrices[i], &input, out, trial->shape.glu, NULL,
                           tuning, err);
        vkc_barrier(device, cmd, VKC_SHADER_TO_SHADER);
    }
    vkc_timer_write(device, cmd, trial->timer, 1);
    return r;
}

/* Bytes of weights per nanosecond, with the barriers. */
static int measure(const struct trial *trial, const struct vk_gemv_tuning *tuning, struct err *err,
                   double *ret_gbps)
{
    struct backend *backend = trial->state->bm->backend;
    VkCommandBuffer cmd;
    int r = vkc_cmd_begin(backend->device, err, &cmd);
    if (r < 0) {
        return r;
    }
    double best = 0;
    r = record(trial, cmd, tuning, err);
    if (r == 0) {
        r = vkc_cmd_end(backend->device, cmd, err);
    }
    for (int run = 0; run < RUNS && r == 0; run++) {
        r = vk_run_timed(backend, cmd, trial->timer, err, &best);
    }
    vkc_cmd_free(backend->device, cmd);
    if (r == 0) {
        *ret_gbps =
            best > 0 ? (double)(weight_bytes(trial->matrices[0]) * trial->n_matrices) / best : 0;
    }
    return r;
}

/* Keep the device busy until its clocks are up, which takes some of them a second: what is measured
 * before is not what a model will see. */
static int warm_up(const struct trial *trial, struct err *err)
{
    double gbps;
    uint64_t start = now_ns();
    int r = 0;
    while (r == 0 && now_ns() - start < WARM_NS) {
        struct vk_gemv_tuning usual = vk_gemv_tuning(trial->state->bm->backend, &trial->shape);
        r = measure(trial, &usual, err, &gbps);
    }
    return r;
}

static int compile(void *data, uint32_t i, struct err *err)
{
    const struct trial *trial = data;
    VkPipeline made;
    return vk_gemv_pipeline(trial->state->bm->backend, &trial->shape,
                            trial->shape.normed ? GEMV_ADD_NORM : GEMV_PLAIN, &trial->list[i], err,
                            &made);
}

static int try_all(const struct trial *trial, struct err *err, struct vk_gemv_choice *best)
{
    int r = 0;
    for (uint32_t i = 0; i < trial->n && r == 0; i++) {
        double gbps = 0;
        r = measure(trial, &trial->list[i], err, &gbps);
        if (r == 0 && (i == 0 || gbps > best->gbps)) {
            best->tuning = trial->list[i];
            best->gbps = gbps;
        }
    }
    return r;
}

static int add_choice(struct backend *backend, const struct vk_gemv_choice *choice)
{
    struct vk_gemv_choice *grown =
        realloc(backend->choices, (backend->n_choices + 1) * sizeof *grown);
    if (!grown) {
        return -ENOMEM;
    }
    backend->choices = grown;
    grown[backend->n_choices++] = *choice;
    return 0;
}

static bool is_known(const struct backend *backend, const struct vk_gemv_shape *shape)
{
    for (uint32_t i = 0; i < backend->n_choices; i++) {
        if (memcmp(&backend->choices[i].shape, shape, sizeof *shape) == 0) {
            return true;
        }
    }
    return false;
}

#define LINE_FORMAT                                                                         \
    "type %" SCNu32 " affine %" SCNu32 " group %" SCNu32 " cols %" SCNu32 " units %" SCNu32 \
    " normed %" SCNu32 " glu %" SCNu32 ": wg %" SCNu32 " lanes %" SCNu32 " rows %" SCNu32   \
    " unroll %" SCNu32 " per_cu %" SCNu32

int vk_gemv_choice_print(const struct vk_gemv_choice *c, char *text, size_t size)
{
    return snprintf(text, size, LINE_FORMAT " gbps %.1f", c->shape.type, c->shape.affine,
                    c->shape.group, c->shape.cols, c->shape.units, c->shape.normed, c->shape.glu,
                    c->tuning.wg, c->tuning.lanes, c->tuning.rows, c->tuning.unroll,
                    c->tuning.per_cu, c->gbps);
}

static bool is_sane(const struct vk_gemv_tuning *t, const struct vkc_physical *physical)
{
    return t->wg && t->wg <= physical->props.limits.maxComputeWorkGroupInvocations &&
           t->wg % physical->subgroup_size == 0 && t->lanes && (t->lanes & (t->lanes - 1)) == 0 &&
           t->lanes <= physical->subgroup_size && t->rows && t->rows <= 16 && t->unroll &&
           t->unroll <= 16 && t->per_cu && t->per_cu <= 64;
}

void vk_gemv_choice_read(struct backend *backend, const char *line)
{
    struct vk_gemv_choice c = {0};
    struct vk_gemv_shape *s = &c.shape;
    struct vk_gemv_tuning *t = &c.tuning;
    int n =
        sscanf(line, LINE_FORMAT " gbps %lf", &s->type, &s->affine, &s->group, &s->cols, &s->units,
               &s->normed, &s->glu, &t->wg, &t->lanes, &t->rows, &t->unroll, &t->per_cu, &c.gbps);
    if (n == 13 && is_sane(t, &backend->device->physical) && s->units % t->rows == 0 &&
        !is_known(backend, s)) {
        (void)add_choice(backend, &c); /* without it, it is measured again */
    }
}

static int tune_shape(struct trial *trial, struct err *err)
{
    struct backend *backend = trial->state->bm->backend;
    struct vk_gemv_choice best = {.shape = trial->shape,
                                  .tuning = vk_gemv_tuning(backend, &trial->shape)};
    int r = try_all(trial, err, &best);
    if (r < 0) {
        return r;
    }
    char text[256];
    vk_gemv_choice_print(&best, text, sizeof text);
    vkc_log(backend->instance, "tuned: %s", text);
    r = add_choice(backend, &best);
    return r == 0 ? 0 : err_set(err, r, "no memory for a tuning");
}

/* The same matrix of the layers, as decode.c runs it. */
static void gather(struct trial *trial, const struct model *model, int which)
{
    uint32_t n = model->config.n_layers < LAYERS_MAX ? model->config.n_layers : LAYERS_MAX;
    for (uint32_t l = 0; l < n; l++) {
        const struct model_layer *layer = &model->layers[l];
        const struct weight *matrices[] = {&layer->qkv, &layer->attn_out, &layer->gate_up,
                                           &layer->down, &model->head};
        trial->matrices[l] = matrices[which];
    }
    bool normed = which == 0 || which == 2 || which == HEAD;
    trial->n_matrices = which == HEAD ? 1 : n;
    trial->shape =
        vk_gemv_shape(trial->matrices[0], normed ? GEMV_ADD_NORM : GEMV_PLAIN, which == 2);
}

/* One that is run, that is: layers.comp may have taken its place. */
static bool is_wanted(const struct backend_model *bm, int which, const struct trial *trial)
{
    const struct backend *backend = bm->backend;
    return (which == HEAD || !vk_layers_win(bm)) &&
           weight_bytes(trial->matrices[0]) >= VK_TUNE_MIN_BYTES &&
           vk_gemv_fits(backend, trial->matrices[0]) && !is_known(backend, &trial->shape);
}

/* The shapes that are new here, with their candidates compiled: nothing may idle the device while
 * they are measured. */
static int prepare(struct backend_state *state, VkQueryPool timer, uint64_t end_ns,
                   struct trial *trials, uint32_t *ret_n, struct err *err)
{
    struct backend *backend = state->bm->backend;
    int r = 0;
    *ret_n = 0;
    for (int which = 0; which < N_MATRICES && r == 0 && now_ns() < end_ns; which++) {
        struct trial *trial = &trials[*ret_n];
        *trial = (struct trial){.state = state, .timer = timer};
        gather(trial, state->bm->model, which);
        if (is_wanted(state->bm, which, trial)) {
            trial->n = vk_gemv_candidates(backend, &trial->shape, trial->list, CANDIDATES);
            r = vkc_pipelines_make(backend->device, trial->n, compile, trial, err);
            (*ret_n)++;
        }
    }
    return r;
}

int vk_tune_gemv(struct backend_state *state, uint64_t end_ns, uint32_t *ret_n_new, struct err *err)
{
    struct trial trials[N_MATRICES];
    VkQueryPool timer;
    const int32_t id = 0;
    int r = vk_set_step(state, &id, 1, 0, err);
    if (r == 0) {
        r = vkc_timer_create(state->bm->backend->device, 2, err, &timer);
    }
    if (r < 0) {
        return r;
    }
    uint32_t n = 0;
    r = prepare(state, timer, end_ns, trials, &n, err);
    if (r == 0 && n > 0) {
        r = warm_up(&trials[0], err);
    }
    for (uint32_t i = 0; i < n && r == 0; i++) {
        r = tune_shape(&trials[i], err);
    }
    vkc_timer_destroy(state->bm->backend->device, timer);
    *ret_n_new = n;
    return r;
}

bool vk_tune_gemv_wanted(const struct backend_model *bm)
{
    bool wanted = false;
    for (int which = 0; which < N_MATRICES && !wanted; which++) {
        struct trial trial = {0};
        gather(&trial, bm->model, which);
        wanted = is_wanted(bm, which, &trial);
    }
    return wanted;
}
