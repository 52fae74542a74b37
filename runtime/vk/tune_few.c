/* SPDX-License-Identifier: MIT */
/* Which specialization of few.comp suits a device best for a few tokens, or which tiles of a GEMM
 * do: see tune.c. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "gttd_util.h"
#include "vk.h"

#define N_MATRICES 5 /* of a layer, and the head: */
#define GATE_UP    2
#define DOWN       3
#define HEAD       4
#define LAYERS_MAX 16 /* of a model that are measured: enough to be larger than a cache */
#define RUNS       8  /* of which the fastest counts */
#define CANDIDATES 5  /* of few.comp */
#define FEWER      2  /* of many tokens, for which a GEMM is likely */
#define FEWER_FROM 16
#define TILES      5 /* of a GEMM */
#define WAYS_MAX   (CANDIDATES + TILES)
#define WARM_NS    700000000u /* until clocks are up that went down meanwhile */

/* Two and four tokens wait for memory as one does, and run as should be good. */
static const uint32_t batches[] = {8, 16, 32};
#define SHAPES_MAX (N_MATRICES * ARRAY_SIZE(batches))

const struct vk_few_choice *vk_few_find(const struct backend *backend,
                                        const struct vk_few_shape *shape)
{
    for (uint32_t i = 0; i < backend->n_fews; i++) {
        if (memcmp(&backend->fews[i].shape, shape, sizeof *shape) == 0) {
            return &backend->fews[i];
        }
    }
    return NULL;
}

static int add_choice(struct backend *backend, const struct vk_few_choice *choice)
{
    struct vk_few_choice *grown = realloc(backend->fews, (backend->n_fews + 1) * sizeof *grown);
    if (!grown) {
        return -ENOMEM;
    }
    backend->fews = grown;
    grown[backend->n_fews++] = *choice;
    return 0;
}

#define LINE_FORMAT                                                                            \
    "few type %" SCNu32 " affine %" SCNu32 " group %" SCNu32 " cols %" SCNu32 " rows %" SCNu32 \
    " glu %" SCNu32 " batch %" SCNu32 ": wg %" SCNu32 " lanes %" SCNu32 " rows %" SCNu32       \
    " unroll %" SCNu32 " tokens %" SCNu32

int vk_few_choice_print(const struct vk_few_choice *c, char *text, size_t size)
{
    const struct vk_few_shape *s = &c->shape;
    const struct vk_few_tuning *t = &c->tuning;
    return snprintf(text, size, LINE_FORMAT " us %.2f", s->type, s->affine, s->group, s->cols,
                    s->rows, s->glu, s->batch, t->wg, t->lanes, t->rows, t->unroll, t->tokens,
                    c->us);
}

/* Whether it suits device and matrix is checked when it is used; here only that these are numbers
 * to compute with. */
static bool is_sane(const struct vk_few_tuning *t)
{
    return t->wg && t->wg <= 1024 && t->lanes && (t->lanes & (t->lanes - 1)) == 0 &&
           t->lanes <= t->wg && t->rows && t->rows <= 16 && t->unroll && t->unroll <= 16 &&
           t->tokens <= STEP_ROWS_MAX;
}

void vk_few_choice_read(struct backend *backend, const char *line)
{
    struct vk_few_choice c = {0};
    struct vk_few_shape *s = &c.shape;
    struct vk_few_tuning *t = &c.tuning;
    int n = sscanf(line, LINE_FORMAT " us %lf", &s->type, &s->affine, &s->group, &s->cols, &s->rows,
                   &s->glu, &s->batch, &t->wg, &t->lanes, &t->rows, &t->unroll, &t->tokens, &c.us);
    if (n == 13 && is_sane(t) && !vk_few_find(backend, s)) {
        (void)add_choice(backend, &c); /* without it, it is measured again */
    }
}

/* One shape's measuring: the same matrix of the layers, one after the other, in each way. */
struct trial {
    struct backend_state *state;
    struct vk_few_shape shape;
    const struct weight *matrices[LAYERS_MAX];
    uint32_t n_matrices;
    int which;
    enum vk_act x, y, gemm_y;
    VkQueryPool timer;
    struct vk_few_tuning list[CANDIDATES];
    struct vk_gemm_tiles tiles[TILES];
    uint32_t n, n_tiles;            /* of both lists: the ways, in this order */
    VkCommandBuffer cmds[WAYS_MAX]; /* [n_cmds] */
    uint32_t n_cmds;
    double ns[WAYS_MAX]; /* the fastest run; 0: none */
};

static void gather(struct trial *trial, const struct model *model, int which, uint32_t batch)
{
    static const struct {
        enum vk_act x, y, gemm_y;
    } acts[] = {{ACT_Z, ACT_QKV, ACT_QKV},
                {ACT_ATT, ACT_Y, ACT_Y},
                {ACT_Z, ACT_H, ACT_GATE_UP},
                {ACT_H, ACT_Y, ACT_Y},
                {ACT_Z, ACT_QKV, ACT_QKV}}; /* the head's, over all that lies behind */
    uint32_t n = model->config.n_layers < LAYERS_MAX ? model->config.n_layers : LAYERS_MAX;
    n = which == HEAD ? 1 : n;
    for (uint32_t l = 0; l < n; l++) {
        const struct model_layer *layer = &model->layers[l];
        const struct weight *all[] = {&layer->qkv, &layer->attn_out, &layer->gate_up, &layer->down,
                                      &model->head};
        trial->matrices[l] = all[which];
    }
    trial->n_matrices = n;
    trial->which = which;
    trial->x = acts[which].x;
    trial->y = acts[which].y;
    trial->gemm_y = acts[which].gemm_y;
    trial->shape = vk_few_shape(trial->matrices[0], batch, which == GATE_UP);
}

/* The head's results, of which gemm.comp writes whole matrices, must not reach what it reads. */
static bool has_room(const struct backend_model *bm, const struct trial *trial)
{
    const struct model_config *c = &bm->model->config;
    uint64_t width = 0;
    for (int a = ACT_QKV; a < ACT_HALF; a++) {
        width += vk_act_width(c, (enum vk_act)a);
    }
    uint64_t padded = (trial->shape.batch + 15) / 16 * 16;
    return trial->which != HEAD ||
           padded * trial->shape.rows <= width * bm->backend->tuning.batch_max;
}

static bool is_wanted(const struct backend_model *bm, const struct trial *trial)
{
    const struct backend *backend = bm->backend;
    const struct weight *w = trial->matrices[0];
    const struct vk_few_shape *shape = &trial->shape;
    struct vk_few_tuning any;
    return weight_bytes(w) >= VK_TUNE_MIN_BYTES && vk_few_possible(backend, w) &&
           has_room(bm, trial) && !vk_few_find(backend, shape) &&
           vk_few_candidates(backend, w, shape->batch, shape->glu, &any, 1) == 1;
}

bool vk_tune_few_wanted(const struct backend_model *bm)
{
    bool wanted = false;
    for (uint32_t i = 0; i < SHAPES_MAX && !wanted; i++) {
        struct trial trial = {0};
        gather(&trial, bm->model, (int)(i % N_MATRICES), batches[i / N_MATRICES]);
        wanted = is_wanted(bm, &trial);
    }
    return wanted;
}

/* As a pass runs it: what norms the input, or gates it, leaves its half form, which takes it as
 * long as quantizing takes few.comp; who reads ACT_Y adds up its parts. */
static int record_gemm(const struct trial *trial, VkCommandBuffer cmd, const struct weight *w,
                       const struct vk_gemm_tiles *tiles, struct err *err)
{
    struct backend_state *state = trial->state;
    struct vkc_device *device = state->bm->backend->device;
    uint64_t acts = state->acts.address, y = acts + state->act_off[trial->gemm_y];
    uint32_t batch = trial->shape.batch;
    if (trial->which != DOWN) {
        vk_record_to_half(state, cmd, acts + state->act_off[trial->x], w->cols, batch);
        vkc_barrier(device, cmd, VKC_SHADER_TO_SHADER);
    }
    int r = vk_record_gemm(state, cmd, w, tiles, y, trial->gemm_y == ACT_Y, batch, NULL, err);
    if (r == 0 && trial->which == GATE_UP) {
        vkc_barrier(device, cmd, VKC_SHADER_TO_SHADER);
        r = vk_record_op(state, cmd, OP_GEGLU, 0, batch, false, err);
    }
    return r;
}

static int record_matrix(const struct trial *trial, VkCommandBuffer cmd, const struct weight *w,
                         uint32_t way, struct err *err)
{
    struct backend_state *state = trial->state;
    struct backend *backend = state->bm->backend;
    const uint64_t *off = state->act_off, acts = state->acts.address;
    if (way >= trial->n) {
        return record_gemm(trial, cmd, w, &trial->tiles[way - trial->n], err);
    }
    struct vk_gemv_input input = {.prologue = GEMV_PLAIN, .x = acts + off[trial->x]};
    const struct vk_few_tuning *usual = backend->few;
    backend->few = &trial->list[way];
    int r = vk_record_few(state, cmd, w, &input, acts + off[trial->y], trial->shape.glu,
                          trial->shape.batch, NULL, err);
    backend->few = usual;
    return r;
}

static int record(const struct trial *trial, VkCommandBuffer cmd, uint32_t way, struct err *err)
{
    struct vkc_device *device = trial->state->bm->backend->device;
    int r = 0;
    vkc_timer_reset(device, cmd, trial->timer, 2);
    vkc_timer_write(device, cmd, trial->timer, 0);
    for (uint32_t i = 0; i < trial->n_matrices && r == 0; i++) {
        r = record_matrix(trial, cmd, trial->matrices[i], way, err);
        vkc_barrier(device, cmd, VKC_SHADER_TO_SHADER);
    }
    vkc_timer_write(device, cmd, trial->timer, 1);
    return r == 0 ? vkc_cmd_end(device, cmd, err) : r;
}

/* What may suit the shape. */
static void list_ways(struct trial *trial)
{
    struct backend *backend = trial->state->bm->backend;
    const struct weight *w = trial->matrices[0];
    uint32_t batch = trial->shape.batch;
    bool fewer = batch >= FEWER_FROM && vk_gemm_fits(backend, w);
    trial->n = vk_few_candidates(backend, w, batch, trial->shape.glu, trial->list,
                                 fewer ? FEWER : CANDIDATES);
    if (vk_gemm_fits(backend, w)) {
        trial->n_tiles = vk_gemm_candidates(backend, w, batch, trial->tiles, TILES);
    }
}

/* Some shapes' trials. */
struct trials {
    struct trial list[SHAPES_MAX];
    uint32_t n;
    uint32_t n_ready; /* of them, the first: compiled and recorded */
};

/* Way i of those that are not compiled yet, counted over all shapes. */
static int compile(void *data, uint32_t i, struct err *err)
{
    const struct trials *trials = data;
    const struct trial *trial = &trials->list[trials->n_ready];
    for (; i >= trial->n + trial->n_tiles; trial++) {
        i -= trial->n + trial->n_tiles;
    }
    struct backend *backend = trial->state->bm->backend;
    const struct weight *w = trial->matrices[0];
    VkPipeline made;
    return i < trial->n ? vk_few_pipeline(backend, w, &trial->list[i], trial->shape.glu, err, &made)
                        : vk_gemm_pipeline(backend, w, &trial->tiles[i - trial->n], err, &made);
}

static int record_all(struct trial *trial, struct err *err)
{
    int r = 0;
    for (uint32_t way = 0; way < trial->n + trial->n_tiles && r == 0; way++) {
        r = vkc_cmd_begin(trial->state->bm->backend->device, err, &trial->cmds[way]);
        if (r == 0) {
            trial->n_cmds++;
            r = record(trial, trial->cmds[way], way, err);
        }
    }
    return r;
}

/* One after the other, so often and so long: the device's clocks are the same for all. */
static int run_all(struct trial *trial, uint64_t min_ns, struct err *err)
{
    struct backend *backend = trial->state->bm->backend;
    uint64_t start = now_ns();
    int r = vk_set_step(trial->state, NULL, trial->shape.batch, 0, err);
    for (uint32_t i = 0; r == 0 && (i < RUNS * trial->n_cmds || now_ns() - start < min_ns); i++) {
        uint32_t way = i % trial->n_cmds;
        r = vk_run_timed(backend, trial->cmds[way], trial->timer, err, &trial->ns[way]);
    }
    return r;
}

static int keep_tiles(const struct trial *trial, uint32_t way)
{
    struct backend *backend = trial->state->bm->backend;
    const struct weight *w = trial->matrices[0];
    struct vk_gemm_choice choice = {
        .shape = vk_gemm_shape(w, trial->shape.batch),
        .tiles = trial->tiles[way - trial->n],
        .tflops =
            2e-3 * w->rows * w->cols * trial->shape.batch * trial->n_matrices / trial->ns[way],
    };
    char text[256];
    vk_gemm_choice_print(&choice, text, sizeof text);
    vkc_log(backend->instance, "tuned: %s", text);
    return vk_gemm_find(backend, &choice.shape) ? 0 : vk_gemm_add(backend, &choice);
}

static int keep_best(const struct trial *trial, struct err *err)
{
    struct backend *backend = trial->state->bm->backend;
    uint32_t best = 0;
    for (uint32_t way = 1; way < trial->n_cmds; way++) {
        bool is_better = trial->ns[best] == 0 || trial->ns[way] < trial->ns[best];
        best = trial->ns[way] > 0 && is_better ? way : best;
    }
    struct vk_few_choice choice = {
        .shape = trial->shape,
        .tuning = trial->list[best < trial->n ? best : 0],
        .us = trial->ns[best] * 1e-3 / trial->n_matrices,
    };
    int r = 0;
    if (best >= trial->n) {
        choice.tuning.tokens = 0;
        r = keep_tiles(trial, best);
    }
    char text[256];
    vk_few_choice_print(&choice, text, sizeof text);
    vkc_log(backend->instance, "tuned: %s", text);
    if (r == 0) {
        r = add_choice(backend, &choice);
    }
    return r == 0 ? 0 : err_set(err, r, "no memory for a tuning");
}

static bool is_listed(const struct trials *trials, const struct vk_few_shape *shape)
{
    for (uint32_t i = 0; i < trials->n; i++) {
        if (memcmp(&trials->list[i].shape, shape, sizeof *shape) == 0) {
            return true;
        }
    }
    return false;
}

/* What is new here for batches of this size; returns the number of its ways. */
static uint32_t list_batch(struct trials *trials, struct backend_state *state, VkQueryPool timer,
                           uint32_t batch)
{
    uint32_t n_ways = 0;
    for (int which = 0; which < N_MATRICES; which++) {
        struct trial *trial = &trials->list[trials->n];
        *trial = (struct trial){.state = state, .timer = timer};
        gather(trial, state->bm->model, which, batch);
        if (is_wanted(state->bm, trial) && !is_listed(trials, &trial->shape)) {
            list_ways(trial);
            n_ways += trial->n + trial->n_tiles;
            trials->n++;
        }
    }
    return n_ways;
}

/* Their pipelines are compiled together: there are more cores than ways for one shape. */
static int prepare_batch(struct trials *trials, struct backend_state *state, VkQueryPool timer,
                         uint32_t batch, struct err *err)
{
    uint32_t n_ways = list_batch(trials, state, timer, batch);
    int r = vkc_pipelines_make(state->bm->backend->device, n_ways, compile, trials, err);
    while (trials->n_ready < trials->n && r == 0) {
        r = record_all(&trials->list[trials->n_ready++], err);
    }
    return r;
}

int vk_tune_few(struct backend_state *state, uint64_t end_ns, uint32_t *ret_n_new, struct err *err)
{
    struct vkc_device *device = state->bm->backend->device;
    VkQueryPool timer;
    *ret_n_new = 0;
    struct trials *trials = calloc(1, sizeof *trials);
    if (!trials) {
        return err_set(err, -ENOMEM, "no memory for tuning");
    }
    int r = vkc_timer_create(device, 2, err, &timer);
    if (r < 0) {
        free(trials);
        return r;
    }
    /* All ways are compiled and recorded before the first is run: nothing idles the device then. */
    for (size_t b = 0; b < ARRAY_SIZE(batches) && r == 0 && now_ns() < end_ns; b++) {
        r = prepare_batch(trials, state, timer, batches[b], err);
    }
    for (uint32_t i = 0; i < trials->n && r == 0; i++) {
        r = run_all(&trials->list[i], i == 0 ? WARM_NS : 0, err);
        r = r == 0 ? keep_best(&trials->list[i], err) : r;
    }
    *ret_n_new = trials->n;
    for (uint32_t i = 0; i < trials->n; i++) {
        for (uint32_t way = 0; way < trials->list[i].n_cmds; way++) {
            vkc_cmd_free(device, trials->list[i].cmds[way]);
        }
    }
    vkc_timer_destroy(device, timer);
    free(trials);
    return r;
}
