/* SPDX-License-Identifier: MIT */
/* One timeline's memory: KV cache, activations, step buffer, logits. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vk.h"

/* Slots of a local layer's ring beyond the window: how far back a timeline may be rewound, and at
 * least a batch, which is stored before its first token attends. */
static uint32_t ring_slack(const struct backend_state *state)
{
    uint32_t batch = state->bm->backend->tuning.batch_max;
    return batch > 256 ? batch : 256;
}

#define PARTS_MAX 64
#define PARTS_MIN 4 /* of several tokens: one may have far more keys than the others */

/* Of the longest input of a matrix, in floats. */
static uint32_t half_width(const struct model_config *c)
{
    uint32_t width = c->hidden > c->ffn ? c->hidden : c->ffn;
    uint32_t heads = c->n_heads * c->head_dim;
    return ((width > heads ? width : heads) + 1) / 2;
}

uint32_t vk_act_width(const struct model_config *c, enum vk_act act)
{
    switch (act) {
    case ACT_X:
    case ACT_X_NEXT:
    case ACT_Y:
    case ACT_Z:
        return c->hidden;
    case ACT_QKV:
        return (c->n_heads + 2 * c->n_kv_heads) * c->head_dim;
    case ACT_Q:
    case ACT_ATT:
        return c->n_heads * c->head_dim;
    case ACT_GATE_UP:
        return 2 * c->ffn;
    case ACT_HALF:
        return half_width(c);
    case ACT_POWER:
        return POWER_COPIES;
    case ACT_BLOCKS:
        return half_width(c) / 4; /* two words for 16 elements, or 32 */
    case ACT_H:
    default:
        return c->ffn;
    }
}

uint32_t vk_row_halfs(const struct model_config *c)
{
    return (c->head_dim + 7) / 8 * 8; /* attention.comp reads 16 bytes at a time */
}

static int create_kv(struct backend_state *state, struct err *err, uint64_t *ret_bytes)
{
    const struct model_config *c = &state->bm->model->config;
    state->kv = calloc(c->n_layers, sizeof *state->kv);
    if (!state->kv) {
        return err_set(err, -ENOMEM, "no memory for a state");
    }
    uint64_t total = 0;
    for (uint32_t l = 0; l < c->n_layers; l++) {
        uint64_t ring = state->max_pos;
        if (!c->layer_is_global[l] && (uint64_t)c->window + ring_slack(state) < ring) {
            ring = (uint64_t)c->window + ring_slack(state);
        }
        ring = (ring + FLASH_RING_ALIGN - 1) / FLASH_RING_ALIGN * FLASH_RING_ALIGN;
        state->kv[l].ring = (uint32_t)ring;
        uint64_t bytes = 2ull * c->n_kv_heads * ring * vk_row_halfs(c) * sizeof(uint16_t);
        int r = vkc_buffer_init(state->bm->backend->device, VKC_DEVICE, bytes, "KV cache", err,
                                &state->kv[l].buffer);
        if (r < 0) {
            return r;
        }
        total += bytes;
    }
    *ret_bytes = total;
    return 0;
}

/* flash.comp multiplies what it does not see by 0, which must not be a NaN; and tune_layers.c
 * attends to what is here. */
static int clear_kv(struct backend_state *state, struct err *err)
{
    struct backend *backend = state->bm->backend;
    VkCommandBuffer cmd;
    int r = vkc_cmd_begin(backend->device, err, &cmd);
    if (r < 0) {
        return r;
    }
    for (uint32_t l = 0; l < state->bm->model->config.n_layers; l++) {
        vkc_clear(backend->device, cmd, &state->kv[l].buffer);
    }
    vkc_barrier(backend->device, cmd, VKC_COPY_TO_SHADER);
    r = vkc_cmd_end(backend->device, cmd, err);
    if (r == 0) {
        r = vk_run(backend, &cmd, 1, err);
    }
    vkc_cmd_free(backend->device, cmd);
    return r;
}

static int create_acts(struct backend_state *state, uint32_t n_tokens, struct err *err)
{
    uint64_t size = 0;
    for (int a = 0; a < ACT_COUNT; a++) {
        state->act_off[a] = size;
        uint64_t bytes = (uint64_t)n_tokens *
                         vk_act_width(&state->bm->model->config, (enum vk_act)a) * sizeof(float);
        size += (bytes + 255) / 256 * 256;
    }
    return vkc_buffer_init(state->bm->backend->device, VKC_DEVICE, size, "activations", err,
                           &state->acts);
}

/* As many parts of the keys as fill the device twice when every head of every token reads its own.
 */
uint32_t vk_attend_parts(const struct backend_model *bm, uint32_t n_tokens)
{
    uint32_t groups = n_tokens * bm->model->config.n_heads;
    groups /= bm->attend.attend_one ? bm->attend_one_heads : 1;
    uint32_t parts = (2 * bm->backend->device->physical.compute_units + groups - 1) / groups;
    parts = n_tokens > 1 && parts < PARTS_MIN ? PARTS_MIN : parts;
    return parts < PARTS_MAX ? parts : PARTS_MAX;
}

static int create_parts(struct backend_state *state, uint32_t n_tokens, struct err *err)
{
    const struct backend_model *bm = state->bm;
    const struct model_config *c = &bm->model->config;
    struct vkc_device *device = bm->backend->device;
    uint32_t rows = 0, n_finished = n_tokens * c->n_heads;
    for (uint32_t n = 1; n <= n_tokens; n++) {
        uint32_t for_n = n * vk_attend_parts(bm, n);
        rows = rows > for_n ? rows : for_n;
    }
    uint64_t floats = (uint64_t)c->n_heads * rows * (vk_row_halfs(c) + ATTEND_PART_END);
    int r = vkc_buffer_init(device, VKC_DEVICE, floats * sizeof(float), "attention parts", err,
                            &state->part_sums);
    if (r == 0) {
        r = vkc_buffer_init(device, VKC_SHARED, n_finished * sizeof(uint32_t), "finished parts",
                            err, &state->finished);
    }
    if (r == 0) {
        memset(state->finished.map, 0, n_finished * sizeof(uint32_t));
    }
    return r;
}

static int create_logits(struct backend_state *state, uint64_t rows, struct err *err,
                         struct vk_logits *logits)
{
    struct vkc_device *device = state->bm->backend->device;
    uint64_t bytes = rows * state->bm->model->config.vocab * sizeof(float);
    int r = vkc_buffer_init(device, VKC_DEVICE, bytes, "logits", err, &logits->device);
    if (r == 0) {
        r = vkc_buffer_init(device, VKC_READBACK, bytes, "logits (host)", err, &logits->host);
    }
    return r;
}

static void finish_logits(struct backend_state *state, struct vk_logits *logits)
{
    vkc_buffer_finish(state->bm->backend->device, &logits->device);
    vkc_buffer_finish(state->bm->backend->device, &logits->host);
}

int vk_state_need_all(struct backend_state *state, struct err *err)
{
    if (state->all.host.handle) {
        return 0;
    }
    int r = create_logits(state, VK_ALL_MAX, err, &state->all);
    if (r < 0) {
        finish_logits(state, &state->all);
    }
    return r;
}

struct layer_kv vk_layer_kv(const struct backend_state *state, uint32_t layer)
{
    if (!state->kv) {
        return (struct layer_kv){0};
    }
    const struct vkc_buffer *buffer = &state->kv[layer].buffer;
    return (struct layer_kv){.k = buffer->address,
                             .v = buffer->address + buffer->size_bytes / 2,
                             .ring = state->kv[layer].ring};
}

static int create_layers(struct backend_state *state, struct err *err)
{
    uint32_t n = state->bm->model->config.n_layers;
    int r = vkc_buffer_init(state->bm->backend->device, VKC_SHARED, n * sizeof(struct layer_kv),
                            "layers", err, &state->layers);
    for (uint32_t l = 0; l < n && r == 0; l++) {
        struct layer_kv kv = vk_layer_kv(state, l);
        memcpy((struct layer_kv *)state->layers.map + l, &kv, sizeof kv);
    }
    return r;
}

/* What a pass of n_tokens of n_timelines needs besides their KV caches. */
static int create_work(struct backend_state *state, uint32_t n_tokens, uint32_t n_timelines,
                       struct err *err)
{
    int r = create_acts(state, n_tokens, err);
    if (r == 0) {
        r = vkc_buffer_init(state->bm->backend->device, VKC_SHARED, sizeof(struct step), "step",
                            err, &state->step);
    }
    if (r == 0) {
        r = create_parts(state, n_timelines, err);
    }
    return r;
}

int vk_state_create_many(struct backend_model *bm, struct err *err, struct backend_state **ret)
{
    struct backend_state *state = calloc(1, sizeof *state);
    if (!state) {
        return err_set(err, -ENOMEM, "no memory for a state");
    }
    state->bm = bm;
    state->run.by = state;
    state->run.n_rows = STEP_ROWS_MAX;
    int r = create_work(state, STEP_ROWS_MAX, STEP_ROWS_MAX, err);
    if (r == 0) {
        r = create_logits(state, STEP_ROWS_MAX, err, &state->all);
    }
    if (r < 0) {
        vk_state_destroy(state);
        return r;
    }
    *ret = state;
    return 0;
}

int vk_state_create(struct backend_model *bm, uint32_t max_pos, struct err *err,
                    struct backend_state **ret, uint32_t *ret_rewind_max, uint64_t *ret_kv_bytes)
{
    if (max_pos == 0) {
        return err_set(err, -EINVAL, "a timeline of no positions");
    }
    struct backend_state *state = calloc(1, sizeof *state);
    if (!state) {
        return err_set(err, -ENOMEM, "no memory for a state");
    }
    state->bm = bm;
    state->max_pos = max_pos;
    state->run.by = state;
    state->run.n_rows = 1;
    uint64_t kv_bytes = 0;
    int r = create_kv(state, err, &kv_bytes);
    if (r < 0) {
        goto fail;
    }
    r = clear_kv(state, err);
    if (r < 0) {
        goto fail;
    }
    r = create_layers(state, err);
    if (r < 0) {
        goto fail;
    }
    r = create_work(state, bm->backend->tuning.batch_max, 1, err);
    if (r < 0) {
        goto fail;
    }
    r = vk_layers_init(state, err);
    if (r < 0) {
        goto fail;
    }
    r = create_logits(state, 1, err, &state->last);
    if (r < 0) {
        goto fail;
    }
    r = vkc_checked(bm->backend->instance, 0, err);
    if (r < 0) {
        goto fail;
    }
    bool rings_are_whole = true;
    for (uint32_t l = 0; l < bm->model->config.n_layers; l++) {
        rings_are_whole &= state->kv[l].ring >= max_pos;
    }
    *ret_rewind_max = rings_are_whole ? UINT32_MAX : ring_slack(state);
    *ret_kv_bytes = kv_bytes;
    *ret = state;
    return 0;
fail:
    vk_state_destroy(state);
    return r;
}

void vk_state_destroy(struct backend_state *state)
{
    if (!state) {
        return;
    }
    struct vkc_device *device = state->bm->backend->device;
    for (uint32_t b = 0; b < VK_N_BATCHES; b++) {
        for (int w = 0; w <= LOGITS_ALL; w++) {
            vk_recording_finish(state, &state->recordings[b][w]);
        }
    }
    vk_run_finish(&state->run);
    finish_logits(state, &state->all);
    finish_logits(state, &state->last);
    vk_layers_finish(state);
    vkc_buffer_finish(device, &state->part_sums);
    vkc_buffer_finish(device, &state->finished);
    vkc_buffer_finish(device, &state->step);
    vkc_buffer_finish(device, &state->layers);
    vkc_buffer_finish(device, &state->acts);
    for (uint32_t l = 0; state->kv && l < state->bm->model->config.n_layers; l++) {
        vkc_buffer_finish(device, &state->kv[l].buffer);
    }
    free(state->kv);
    free(state);
}
