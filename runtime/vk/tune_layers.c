/* SPDX-License-Identifier: MIT */
/*
 * Whether a token's layers are faster in one dispatch than in five each, and how that one is cut
 * up: by trying. A plan whose workgroups do not fit on the device at once is found out here, too:
 * they wait in vain, give up and say so.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "gttd_util.h"
#include "vk.h"

#define LOADS_MAX 16 /* of an invocation at once: more is nothing that was tried */
#define RUNS      6  /* of which the fastest counts */
#define WARM_NS   400000000u
#define SPINS     (1u << 15) /* longer than any step takes */

static const struct {
    uint32_t wg, max_loads, touches;
} candidates[] = {
    {512, 4, 0}, {512, 4, 4}, {512, 4, 8}, {512, 8, 4}, {384, 8, 8}, {256, 8, 8},
};

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

/* Microseconds, of the fastest of the runs, which go on for min_ns; 0: the workgroups do not fit.
 */
static int measure(struct backend_state *state, VkQueryPool timer,
                   const struct vk_layers_plan *plan, uint64_t min_ns, struct err *err,
                   double *ret_us)
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
    uint64_t start = now_ns();
    for (int run = 0; r == 0 && (run < RUNS || now_ns() - start < min_ns); run++) {
        double ns[2];
        r = vk_run(state->bm->backend, &cmd, 1, err);
        if (r == 0) {
            r = vkc_timer_read(device, timer, 2, err, ns);
        }
        if (r == 0 && vk_layers_failed(state)) {
            best = 0;
            r = vk_layers_reset(state, err);
            break;
        }
        if (r == 0 && ns[1] > 0 && (best == 0 || ns[1] * 1e-3 < best)) {
            best = ns[1] * 1e-3;
        }
    }
    vkc_cmd_free(device, cmd);
    *ret_us = best;
    return r;
}

/* Those that are tried. */
struct plans {
    struct backend_model *bm;
    struct vk_layers_plan list[ARRAY_SIZE(candidates)];
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

/* The plans that this model and device allow, compiled: nothing idles the device later. */
static int make_plans(struct backend_model *bm, struct err *err, struct plans *ret)
{
    struct vkc_device *device = bm->backend->device;
    *ret = (struct plans){.bm = bm};
    for (size_t i = 0; i < ARRAY_SIZE(candidates); i++) {
        ret->n +=
            vk_layers_plan(bm, candidates[i].wg, device->physical.compute_units,
                           candidates[i].max_loads, candidates[i].touches, &ret->list[ret->n]);
    }
    return vkc_pipelines_make(device, ret->n, compile, ret, err);
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
    int r = measure(state, timer, plan, 0, err, ret_us);
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

static int try_all(struct backend_state *state, VkQueryPool timer, struct plans *plans,
                   struct outcome outcomes[static 2], struct vk_layers_choice *choice,
                   struct err *err)
{
    int r = measure(state, timer, NULL, WARM_NS, err, &choice->steps_us);
    if (r == 0) {
        r = read_outcome(state, false, &outcomes[0], err);
    }
    for (uint32_t i = 0; i < plans->n && r == 0; i++) {
        double us = 0;
        if (plans->list[i].groups > 0) {
            r = try_plan(state, timer, &plans->list[i], &outcomes[0], &outcomes[1], err, &us);
        }
        if (r == 0 && us > 0 && (choice->plan_us == 0 || us < choice->plan_us)) {
            choice->plan_us = us;
            choice->plan = plans->list[i];
        }
    }
    return r;
}

static int choose(struct backend_state *state, struct vk_layers_choice *choice, struct err *err)
{
    struct vkc_device *device = state->bm->backend->device;
    uint64_t bytes = 2ull * state->bm->model->config.hidden * sizeof(float);
    struct outcome outcomes[2] = {0};
    struct plans plans;
    VkQueryPool timer;
    int r = vkc_timer_create(device, 2, err, &timer);
    if (r < 0) {
        return r;
    }
    for (int i = 0; i < 2 && r == 0; i++) {
        r = vkc_buffer_init(device, VKC_READBACK, bytes, "a tuning's result", err,
                            &outcomes[i].host);
    }
    if (r == 0) {
        r = make_plans(state->bm, err, &plans);
    }
    if (r == 0) {
        r = try_all(state, timer, &plans, outcomes, choice, err);
    }
    vkc_buffer_finish(device, &outcomes[0].host);
    vkc_buffer_finish(device, &outcomes[1].host);
    vkc_timer_destroy(device, timer);
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
    int r = vk_set_step(state, &id, 1, 0, err);
    if (r == 0) {
        r = choose(state, &choice, err);
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
        (choice->plan_us < choice->steps_us || always)) {
        bm->layers = choice->plan;
    } else if (always) {
        vk_layers_plan(bm, subgroup < 64 ? 64 : subgroup, 1, 4, 2, &bm->layers);
    }
    if (bm->layers.groups > 0 && vk_layers_pipeline(bm, &bm->layers, &err, &made) < 0) {
        vkc_log(bm->backend->instance, "layers: a dispatch for each step: %s", err.text);
        bm->layers.groups = 0;
    }
}

#define LINE_FORMAT                                                                                \
    "layers type %" SCNu32 " affine %" SCNu32 " group %" SCNu32 " hidden %" SCNu32 " ffn %" SCNu32 \
    " heads %" SCNu32 " kv_heads %" SCNu32 " head_dim %" SCNu32 " n %" SCNu32 ": wg %" SCNu32      \
    " groups %" SCNu32 " touches %" SCNu32 " qkv %" SCNu32 " %" SCNu32 " %" SCNu32 " out %" SCNu32 \
    " %" SCNu32 " %" SCNu32 " gate_up %" SCNu32 " %" SCNu32 " %" SCNu32 " down %" SCNu32           \
    " %" SCNu32 " %" SCNu32

int vk_layers_choice_print(const struct vk_layers_choice *choice, char *text, size_t size)
{
    const struct vk_layers_shape *s = &choice->shape;
    const struct vk_layers_plan *p = &choice->plan;
    const struct vk_layers_tile *t = p->tiles;
    return snprintf(text, size, LINE_FORMAT " us %.1f steps_us %.1f", s->type, s->affine, s->group,
                    s->hidden, s->ffn, s->n_heads, s->n_kv_heads, s->head_dim, s->n_layers, p->wg,
                    p->groups, p->touches, t[0].lanes, t[0].rows, t[0].unroll, t[1].lanes,
                    t[1].rows, t[1].unroll, t[2].lanes, t[2].rows, t[2].unroll, t[3].lanes,
                    t[3].rows, t[3].unroll, choice->plan_us, choice->steps_us);
}

static bool is_sane(const struct vk_layers_choice *choice, const struct vkc_physical *physical)
{
    const struct vk_layers_plan *p = &choice->plan;
    bool sane = p->wg > 0 && p->wg % physical->subgroup_size == 0 &&
                p->wg <= physical->props.limits.maxComputeWorkGroupInvocations && p->groups > 0 &&
                p->groups <= physical->compute_units && p->touches <= 32;
    for (int m = 0; m < 4; m++) {
        const struct vk_layers_tile *t = &p->tiles[m];
        sane = sane && t->lanes && (t->lanes & (t->lanes - 1)) == 0 &&
               t->lanes <= physical->subgroup_size && t->rows && t->rows <= 16 && t->unroll &&
               t->unroll <= 16 && t->rows * t->unroll <= LOADS_MAX;
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
                   &p->wg, &p->groups, &p->touches, &t[0].lanes, &t[0].rows, &t[0].unroll,
                   &t[1].lanes, &t[1].rows, &t[1].unroll, &t[2].lanes, &t[2].rows, &t[2].unroll,
                   &t[3].lanes, &t[3].rows, &t[3].unroll, &choice.plan_us, &choice.steps_us);
    if (n == 26 && is_sane(&choice, &backend->device->physical) && !find(backend, s)) {
        (void)add(backend, &choice); /* what cannot be kept is measured again */
    }
}
