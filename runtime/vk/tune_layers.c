/* SPDX-License-Identifier: MIT */
/*
 * Whether a token's layers are faster in one dispatch than in five each, and how that one is cut
 * up: by trying. A plan whose workgroups do not fit on the device at once is found out here, too:
 * they wait in vain, give up and say so.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "gttd_util.h"
#include "vk.h"

#define POSITION 128         /* that of a short conversation */
#define NEARLY   1.06        /* times the best, which other tiles may make up for: a guess */
#define RUNS     6           /* of which the fastest counts */
#define WARM_NS  1000000000u /* until clocks are up that went down meanwhile */
#define SPINS    (1u << 15)  /* longer than any step takes */

static const struct {
    uint32_t wg, max_loads;
} candidates[] = {{512, 4}, {512, 8}, {384, 8}, {256, 8}};

#define BASES_MAX 2
#define PLANS_MAX (BASES_MAX * VK_LAYERS_TILES * VK_LAYERS_VARIANTS) /* more than candidates */

void vk_layers_shape_of(const struct model *model, struct vk_layers_shape *ret)
{
    const struct model_config *c = &model->config;
    const struct weight *w = &model->layers[0].qkv;
    *ret = (struct vk_layers_shape){
        .type = w->type,
        .affine = w->bias_off != 0,
        .group = w->group,
        .hidden = c->hidden,
        .ffn = c->ffn,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .n_layers = c->n_layers,
    };
}

/* What was measured for a model; NULL: nothing. */
static const struct vk_layers_choice *find(const struct backend *backend,
                                           const struct vk_layers_shape *shape)
{
    for (uint32_t i = 0; i < backend->n_layers_choices; i++) {
        if (memcmp(&backend->layers_choices[i].shape, shape, sizeof *shape) == 0) {
            return &backend->layers_choices[i];
        }
    }
    return NULL;
}

static int add(struct backend *backend, const struct vk_layers_choice *choice)
{
    struct vk_layers_choice *grown =
        realloc(backend->layers_choices, (backend->n_layers_choices + 1) * sizeof *grown);
    if (!grown) {
        return -ENOMEM;
    }
    backend->layers_choices = grown;
    grown[backend->n_layers_choices++] = *choice;
    return 0;
}

/* A token's layers: in one dispatch by the plan, or, NULL, in many. */
static int record(struct backend_state *state, VkQueryPool timer, const struct vk_layers_plan *plan,
                  VkCommandBuffer cmd, struct err *err)
{
    struct vkc_device *device = state->bm->backend->device;
    struct vk_decode decode = {.state = state, .cmd = cmd, .batch = 1, .err = err};
    vkc_timer_reset(device, cmd, timer, 2);
    int r = vk_decode_begin(&decode);
    vkc_barrier(device, cmd, VKC_SHADER_TO_SHADER);
    vkc_timer_write(device, cmd, timer, 0);
    if (plan) {
        r = r < 0 ? r : vk_record_layers(state, cmd, plan, SPINS, err);
    }
    for (uint32_t l = 0; l < state->bm->model->config.n_layers && r == 0 && !plan; l++) {
        r = vk_decode_layer(&decode, l);
    }
    vkc_barrier(device, cmd, VKC_SHADER_TO_SHADER);
    vkc_timer_write(device, cmd, timer, 1);
    return r;
}

/* Microseconds, of the fastest of the runs, which go on until end_ns and *is_done (NULL: no more
 * than they have to); 0: the workgroups do not fit. */
static int measure(struct backend_state *state, VkQueryPool timer,
                   const struct vk_layers_plan *plan, uint64_t end_ns, const atomic_bool *is_done,
                   struct err *err, double *ret_us)
{
    struct vkc_device *device = state->bm->backend->device;
    VkCommandBuffer cmd;
    int r = vkc_cmd_begin(device, err, &cmd);
    if (r < 0) {
        return r;
    }
    r = record(state, timer, plan, cmd, err);
    if (r == 0) {
        r = vkc_cmd_end(device, cmd, err);
    }
    double best = 0;
    for (int run = 0;
         r == 0 && (run < RUNS || now_ns() < end_ns || (is_done && !atomic_load(is_done))); run++) {
        r = vk_run_timed(state->bm->backend, cmd, timer, err, &best);
        if (r == 0 && vk_layers_failed(state)) {
            best = 0;
            r = vk_layers_reset(state, err);
            break;
        }
    }
    vkc_cmd_free(device, cmd);
    *ret_us = best * 1e-3;
    return r;
}

/* Those that are tried. */
struct plans {
    struct backend_model *bm;
    struct vk_layers_plan list[PLANS_MAX];
    double us[PLANS_MAX]; /* 0: not run, or wrong */
    uint32_t n;
};

/* What cannot be compiled is not tried: there are other ways. */
static int compile(void *data, uint32_t i, struct err *err)
{
    struct plans *plans = data;
    VkPipeline made;
    int r = vk_layers_pipeline(plans->bm, &plans->list[i], err, &made);
    if (r < 0) {
        vkc_log(plans->bm->backend->instance, "layers: a plan is left out: %s", err->text);
        plans->list[i].groups = 0;
    }
    return 0;
}

/* The compiler at work, on threads of its own. */
struct compiling {
    pthread_t thread;
    struct plans *plans;
    struct err err;
    int r;
    atomic_bool is_done; /* the rest is set */
};

static void *compiling_thread(void *data)
{
    struct compiling *c = data;
    c->r =
        vkc_pipelines_make(c->plans->bm->backend->device, c->plans->n, compile, c->plans, &c->err);
    atomic_store(&c->is_done, true);
    return NULL;
}

/* The plans that this model and device allow. */
static void list_sizes(struct plans *plans)
{
    struct backend_model *bm = plans->bm;
    plans->n = 0;
    for (size_t i = 0; i < ARRAY_SIZE(candidates); i++) {
        plans->n +=
            vk_layers_plan(bm, candidates[i].wg, bm->backend->device->physical.compute_units,
                           candidates[i].max_loads, &plans->list[plans->n]);
    }
}

/* A plan whose tiles are varied, one at a time. */
struct base {
    struct vk_layers_plan plan;
    double us;
    struct vk_layers_plan all; /* with the best tile for each matrix */
    double best[VK_LAYERS_TILES];
    uint32_t first, end; /* its variants, in the list */
};

static void list_variants(struct plans *plans, struct base *base)
{
    base->first = plans->n;
    for (int which = 0; which < VK_LAYERS_TILES; which++) {
        for (uint32_t v = 0; v < VK_LAYERS_VARIANTS; v++) {
            plans->n += vk_layers_variant(plans->bm, &base->plan, which, v, &plans->list[plans->n]);
        }
    }
    base->end = plans->n;
}

/* What the layers have left: x, where it is then, and what is to be added to it. */
struct outcome {
    struct vkc_buffer host; /* f32 [2, hidden] */
};

static int read_outcome(struct backend_state *state, bool of_plan, struct outcome *to,
                        struct err *err)
{
    struct vkc_device *device = state->bm->backend->device;
    uint64_t bytes = state->bm->model->config.hidden * sizeof(float);
    uint64_t x = state->act_off[of_plan ? ACT_X : ACT_X_NEXT];
    VkCommandBuffer cmd;
    int r = vkc_cmd_begin(device, err, &cmd);
    if (r < 0) {
        return r;
    }
    vkc_barrier(device, cmd, VKC_SHADER_TO_COPY);
    vkc_copy(device, cmd, &state->acts, x, &to->host, 0, bytes);
    vkc_copy(device, cmd, &state->acts, state->act_off[ACT_Y], &to->host, bytes, bytes);
    vkc_barrier(device, cmd, VKC_COPY_TO_HOST);
    r = vkc_cmd_end(device, cmd, err);
    if (r == 0) {
        r = vk_run(state->bm->backend, &cmd, 1, err);
    }
    vkc_cmd_free(device, cmd);
    return r;
}

/* Roundings to 16 bits differ here and there; what is wrong differs by its own size. */
static bool agree(const struct outcome *a, const struct outcome *b, uint32_t hidden)
{
    const float *x = a->host.map, *y = b->host.map;
    double diff = 0, sum = 0;
    for (uint32_t i = 0; i < 2 * hidden; i++) {
        diff += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
        sum += (double)x[i] * x[i];
    }
    return sum > 0 && diff < 1e-3 * sum; /* not so if any is no number */
}

/* A plan counts if it can run, and does what the steps do. */
static int try_plan(struct backend_state *state, VkQueryPool timer,
                    const struct vk_layers_plan *plan, const struct outcome *want,
                    struct outcome *got, struct err *err, double *ret_us)
{
    int r = measure(state, timer, plan, 0, NULL, err, ret_us);
    if (r < 0 || *ret_us == 0) {
        return r;
    }
    r = read_outcome(state, true, got, err);
    if (r == 0 && !agree(want, got, state->bm->model->config.hidden)) {
        vkc_log(state->bm->backend->instance,
                "layers: a plan is left out: the driver makes something else of it");
        *ret_us = 0;
    }
    return r;
}

/* Everything that trying needs. */
struct trial {
    struct backend_state *state;
    VkQueryPool timer;
    struct outcome want, got;
    struct plans plans;
};

/* The list's pipelines, and meanwhile the steps, again and again: the device's clocks are up
 * afterwards. *ret_us: a token's steps. */
static int compile_all(struct trial *trial, struct err *err, double *ret_us)
{
    struct compiling compiling = {.plans = &trial->plans};
    uint64_t end_ns = now_ns() + WARM_NS;
    int failed = pthread_create(&compiling.thread, NULL, compiling_thread, &compiling);
    if (failed) {
        return err_set(err, -failed, "no thread to compile on");
    }
    int r = measure(trial->state, trial->timer, NULL, end_ns, &compiling.is_done, err, ret_us);
    pthread_join(compiling.thread, NULL);
    return r == 0 && compiling.r < 0 ? err_set(err, compiling.r, "%s", compiling.err.text) : r;
}

/* All plans of the list, after the steps. The fastest becomes the choice. */
static int try_all(struct trial *trial, struct vk_layers_choice *choice, struct err *err)
{
    struct plans *plans = &trial->plans;
    double us = 0;
    if (plans->n == 0) {
        return 0;
    }
    int r = compile_all(trial, err, &us);
    if (r == 0) {
        r = read_outcome(trial->state, false, &trial->want, err);
    }
    if (r == 0 && (choice->steps_us == 0 || us < choice->steps_us)) {
        choice->steps_us = us;
    }
    for (uint32_t i = 0; i < plans->n && r == 0; i++) {
        us = 0;
        if (plans->list[i].groups > 0) {
            r = try_plan(trial->state, trial->timer, &plans->list[i], &trial->want, &trial->got,
                         err, &us);
        }
        plans->us[i] = us;
        if (r == 0 && us > 0 && (choice->plan_us == 0 || us < choice->plan_us)) {
            choice->plan_us = us;
            choice->plan = plans->list[i];
        }
    }
    return r;
}

/* A tile does its matrix's work whatever the others are: each is chosen alone. */
static void take_best(const struct plans *plans, struct base *base)
{
    base->all = base->plan;
    for (int which = 0; which < VK_LAYERS_TILES; which++) {
        base->best[which] = base->us;
    }
    for (uint32_t i = base->first; i < base->end; i++) {
        for (int which = 0; which < VK_LAYERS_TILES; which++) {
            const struct vk_layers_tile *tile = &plans->list[i].tiles[which];
            bool is_changed = memcmp(tile, &base->plan.tiles[which], sizeof *tile) != 0;
            if (is_changed && plans->us[i] > 0 && plans->us[i] < base->best[which]) {
                base->best[which] = plans->us[i];
                base->all.tiles[which] = *tile;
            }
        }
    }
}

/* The fastest of the list, if there is one, of workgroups that are not of this size. */
static uint32_t best_but(const struct plans *plans, uint32_t wg, struct base *ret)
{
    *ret = (struct base){.us = 0};
    for (uint32_t i = 0; i < plans->n; i++) {
        double us = plans->us[i];
        if (plans->list[i].wg != wg && us > 0 && (ret->us == 0 || us < ret->us)) {
            ret->plan = plans->list[i];
            ret->us = us;
        }
    }
    return ret->us > 0;
}

/* Sizes of workgroups; tiles for the best, and for another that is nearly as good; then the best of
 * the tiles together. */
static int try_sizes(struct trial *trial, uint64_t end_ns, struct vk_layers_choice *choice,
                     struct err *err)
{
    struct plans *plans = &trial->plans;
    struct base bases[BASES_MAX];
    list_sizes(plans);
    int r = try_all(trial, choice, err);
    uint32_t n = r == 0 ? best_but(plans, 0, &bases[0]) : 0;
    if (n > 0 && best_but(plans, bases[0].plan.wg, &bases[1])) {
        n += bases[1].us < NEARLY * bases[0].us;
    }
    if (n == 0 || now_ns() >= end_ns) {
        return r;
    }
    plans->n = 0;
    for (uint32_t b = 0; b < n; b++) {
        list_variants(plans, &bases[b]);
    }
    r = try_all(trial, choice, err);
    for (uint32_t b = 0; b < n && r == 0; b++) {
        take_best(plans, &bases[b]);
    }
    plans->n = 0;
    for (uint32_t b = 0; b < n && r == 0; b++) {
        plans->list[plans->n++] = bases[b].all;
    }
    return r < 0 ? r : try_all(trial, choice, err);
}

static int choose(struct backend_state *state, uint64_t end_ns, struct vk_layers_choice *choice,
                  struct err *err)
{
    struct vkc_device *device = state->bm->backend->device;
    uint64_t bytes = 2ull * state->bm->model->config.hidden * sizeof(float);
    struct trial trial = {.state = state, .plans = {.bm = state->bm}};
    int r = vkc_timer_create(device, 2, err, &trial.timer);
    if (r < 0) {
        return r;
    }
    r = vkc_buffer_init(device, VKC_READBACK, bytes, "a tuning's result", err, &trial.want.host);
    if (r == 0) {
        r = vkc_buffer_init(device, VKC_READBACK, bytes, "a tuning's result", err, &trial.got.host);
    }
    if (r == 0) {
        r = try_sizes(&trial, end_ns, choice, err);
    }
    vkc_buffer_finish(device, &trial.want.host);
    vkc_buffer_finish(device, &trial.got.host);
    vkc_timer_destroy(device, trial.timer);
    return r;
}

bool vk_tune_layers_wanted(const struct backend_model *bm)
{
    struct vk_layers_shape shape;
    vk_layers_shape_of(bm->model, &shape);
    bool is_large = weight_bytes(&bm->model->layers[0].gate_up) >= VK_TUNE_MIN_BYTES;
    return (is_large || bm->backend->always_layers) && vk_layers_fit(bm) &&
           !find(bm->backend, &shape);
}

int vk_tune_layers(struct backend_state *state, uint64_t end_ns, uint32_t *ret_n_new,
                   struct err *err)
{
    struct backend *backend = state->bm->backend;
    struct vk_layers_choice choice = {.plan_us = 0};
    const int32_t id = 0;
    *ret_n_new = 0;
    vk_layers_shape_of(state->bm->model, &choice.shape);
    if (!vk_tune_layers_wanted(state->bm) || now_ns() >= end_ns) {
        return 0;
    }
    uint32_t pos = state->max_pos < POSITION ? state->max_pos : POSITION;
    int r = vk_set_step(state, &id, 1, pos - 1, err);
    if (r == 0) {
        r = choose(state, end_ns, &choice, err);
    }
    if (r < 0) {
        return r;
    }
    char text[VK_CHOICE_TEXT_SIZE];
    vk_layers_choice_print(&choice, text, sizeof text);
    vkc_log(backend->instance, "tuned: %s", text);
    *ret_n_new = 1;
    r = add(backend, &choice);
    return r == 0 ? 0 : err_set(err, r, "no memory for a tuning");
}

/* Steps of which gemv.comp's part may not be tuned, which gives them up to a tenth. */
static bool is_faster(const struct vk_layers_choice *choice)
{
    return choice->plan_us > 0 && choice->plan_us < 0.9 * choice->steps_us;
}

bool vk_layers_win(const struct backend_model *bm)
{
    struct vk_layers_shape shape;
    vk_layers_shape_of(bm->model, &shape);
    const struct vk_layers_choice *choice = find(bm->backend, &shape);
    return choice && is_faster(choice) && vk_layers_fit(bm) && vk_layers_suits(bm, &choice->plan);
}

void vk_layers_choose(struct backend_model *bm)
{
    struct vk_layers_shape shape;
    vk_layers_shape_of(bm->model, &shape);
    const struct vk_layers_choice *choice = find(bm->backend, &shape);
    bool always = bm->backend->always_layers;
    uint32_t subgroup = bm->backend->device->physical.subgroup_size;
    VkPipeline made;
    struct err err;
    bm->layers = (struct vk_layers_plan){0};
    if (!vk_layers_fit(bm)) {
        return;
    }
    if (choice && choice->plan_us > 0 && vk_layers_suits(bm, &choice->plan) &&
        (is_faster(choice) || always)) {
        bm->layers = choice->plan;
    } else if (always) {
        vk_layers_plan(bm, subgroup < 32 ? 64 : 2 * subgroup, 1, 4, &bm->layers);
    }
    if (bm->layers.groups > 0 && vk_layers_pipeline(bm, &bm->layers, &err, &made) < 0) {
        vkc_log(bm->backend->instance, "layers: a dispatch for each step: %s", err.text);
        bm->layers.groups = 0;
    }
}

#define U32 " %" SCNu32
#define LINE_FORMAT                                                                          \
    "layers type" U32 " affine" U32 " group" U32 " hidden" U32 " ffn" U32 " heads" U32       \
    " kv_heads" U32 " head_dim" U32 " n" U32 ": wg" U32 " groups" U32 " qkv" U32 U32 U32 U32 \
    " out" U32 U32 U32 U32 " gate_up" U32 U32 U32 U32 " down" U32 U32 U32 U32
#define LINE_NUMBERS 29

int vk_layers_choice_print(const struct vk_layers_choice *choice, char *text, size_t size)
{
    const struct vk_layers_shape *s = &choice->shape;
    const struct vk_layers_plan *p = &choice->plan;
    const struct vk_layers_tile *t = p->tiles;
    return snprintf(text, size, LINE_FORMAT " us %.1f steps_us %.1f", s->type, s->affine, s->group,
                    s->hidden, s->ffn, s->n_heads, s->n_kv_heads, s->head_dim, s->n_layers, p->wg,
                    p->groups, t[0].lanes, t[0].rows, t[0].unroll, t[0].near, t[1].lanes, t[1].rows,
                    t[1].unroll, t[1].near, t[2].lanes, t[2].rows, t[2].unroll, t[2].near,
                    t[3].lanes, t[3].rows, t[3].unroll, t[3].near, choice->plan_us,
                    choice->steps_us);
}

static bool is_sane(const struct vk_layers_choice *choice, const struct vkc_physical *physical)
{
    const struct vk_layers_plan *p = &choice->plan;
    bool sane = p->wg > 0 && p->wg % physical->subgroup_size == 0 &&
                p->wg <= physical->props.limits.maxComputeWorkGroupInvocations && p->groups > 0 &&
                p->groups <= physical->compute_units;
    const struct vk_layers_shape *s = &choice->shape;
    const uint32_t units[VK_LAYERS_TILES] = {(s->n_heads + 2 * s->n_kv_heads) * s->head_dim,
                                             s->hidden, s->ffn, s->hidden};
    for (int m = 0; m < VK_LAYERS_TILES; m++) {
        const struct vk_layers_tile *t = &p->tiles[m];
        sane = sane && t->lanes && (t->lanes & (t->lanes - 1)) == 0 &&
               t->lanes <= physical->subgroup_size && t->rows && t->rows <= 16 && t->unroll &&
               t->unroll <= 16 && t->rows * t->unroll <= VK_LAYERS_LOADS_MAX &&
               units[m] % t->rows == 0 && t->near <= 1;
    }
    return sane || choice->plan_us == 0; /* no plan was better than none */
}

void vk_layers_choice_read(struct backend *backend, const char *line)
{
    struct vk_layers_choice choice = {.plan_us = 0};
    struct vk_layers_shape *s = &choice.shape;
    struct vk_layers_plan *p = &choice.plan;
    struct vk_layers_tile *t = p->tiles;
    int n = sscanf(line, LINE_FORMAT " us %lf steps_us %lf", &s->type, &s->affine, &s->group,
                   &s->hidden, &s->ffn, &s->n_heads, &s->n_kv_heads, &s->head_dim, &s->n_layers,
                   &p->wg, &p->groups, &t[0].lanes, &t[0].rows, &t[0].unroll, &t[0].near,
                   &t[1].lanes, &t[1].rows, &t[1].unroll, &t[1].near, &t[2].lanes, &t[2].rows,
                   &t[2].unroll, &t[2].near, &t[3].lanes, &t[3].rows, &t[3].unroll, &t[3].near,
                   &choice.plan_us, &choice.steps_us);
    if (n == LINE_NUMBERS && is_sane(&choice, &backend->device->physical) && !find(backend, s)) {
        (void)add(backend, &choice); /* what cannot be kept is measured again */
    }
}
