/* SPDX-License-Identifier: MIT */
/* Weights in the pool or in private memory: see weights.h. */
#include "weights.h"

#include "gtt.h"
#include "image.h"
#include "load.h"
#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Random weights are int4 in groups of 32 with an 8-bit head; the name changes when this does. */
#define RANDOM_NAME "gemma3-random-%s-q4g32-head-q8g32-v1"
#define RANDOM_SEED 1

#define REFILLS_MAX 2 /* when gttd restarts while they are filled in */

/* What is to be loaded: a directory's plan, or random weights. */
struct origin {
    const struct llm_engine_params *params;
    const struct model_config *config;
    char name[LOAD_NAME_MAX]; /* in the pool */
    struct load_plan *plan;   /* NULL: random, or not planned yet */
    struct model random;
};

static int origin_name(struct origin *o, struct err *err)
{
    if (o->params->random_size) {
        snprintf(o->name, sizeof o->name, RANDOM_NAME, o->params->random_size);
        return 0;
    }
    return load_identity(o->params->model_dir, o->name, err);
}

static int origin_plan(struct origin *o, uint64_t chunk_max_bytes, struct err *err,
                       const struct model **ret)
{
    if (!o->params->random_size) {
        int r = load_plan_create(o->params->model_dir, o->config, chunk_max_bytes, err, &o->plan);
        if (r == 0) {
            *ret = load_plan_model(o->plan);
        }
        return r;
    }
    static const struct weight_format q4 = {.type = WEIGHT_Q4, .group = 32};
    static const struct weight_format q8 = {.type = WEIGHT_Q8, .group = 32};
    struct image_formats *formats = calloc(1, sizeof *formats);
    if (!formats) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    formats->embed = formats->head = q8;
    for (uint32_t i = 0; i < o->config->n_layers; i++) {
        formats->layers[i].qkv = formats->layers[i].attn_out = q4;
        formats->layers[i].gate_up = formats->layers[i].down = q4;
    }
    int r = image_plan(o->config, formats, chunk_max_bytes, &o->random, err);
    free(formats);
    if (r == 0) {
        *ret = &o->random;
    }
    return r;
}

static int pass_progress(void *data, uint64_t done, uint64_t total)
{
    const struct llm_engine_params *params = data;
    return params->progress ? params->progress(params->data, "loading weights", done, total) : 0;
}

static int origin_fill(struct origin *o, uint8_t *base, struct err *err)
{
    const struct llm_engine_params *params = o->params;
    if (params->random_size) {
        image_fill_random(&o->random, base, RANDOM_SEED, params->n_threads);
        return 0;
    }
    return load_fill(o->plan, base, params->n_threads, pass_progress, (void *)params, err);
}

/* Anonymous memory, aligned and, where the kernel has them, in huge pages. */
static int map_private(uint64_t size_bytes, struct err *err, uint8_t **ret)
{
    uint8_t *area = mmap(NULL, size_bytes + IMAGE_CHUNK_ALIGN, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED) {
        return err_set(err, -errno, "%.1f MB of memory: %s", (double)size_bytes * 1e-6,
                       strerror(errno));
    }
    uintptr_t start =
        ((uintptr_t)area + IMAGE_CHUNK_ALIGN - 1) & ~(uintptr_t)(IMAGE_CHUNK_ALIGN - 1);
    uint8_t *base = (uint8_t *)start;
    if (base > area) {
        munmap(area, (size_t)(base - area));
    }
    munmap(base + size_bytes, (size_t)(area + IMAGE_CHUNK_ALIGN - base));
    if (mprotect(base, size_bytes, PROT_READ | PROT_WRITE) < 0) {
        int r = -errno;
        munmap(base, size_bytes);
        return err_set(err, r, "%.1f MB of memory: %s", (double)size_bytes * 1e-6, strerror(-r));
    }
    madvise(base, size_bytes, MADV_HUGEPAGE);
    *ret = base;
    return 0;
}

static int load_private(struct weights *w, struct origin *o, struct err *err,
                        struct model *ret_model)
{
    const struct model *planned;
    int r = origin_plan(o, IMAGE_CHUNK_MAX, err, &planned);
    if (r == 0) {
        r = map_private(planned->memory.size_bytes, err, &w->private_base);
    }
    if (r < 0) {
        return r;
    }
    w->private_bytes = planned->memory.size_bytes;
    w->source = LLM_PRIVATE;
    r = origin_fill(o, w->private_base, err);
    if (r < 0) {
        return r;
    }
    mprotect(w->private_base, w->private_bytes, PROT_READ);
    struct weight_memory memory = planned->memory;
    memory.base = w->private_base;
    return image_bind(o->config, &memory, ret_model, err);
}

/* Bind the image in our segment, mapped for reading. */
static int bind_segment(struct weights *w, const struct model_config *config, struct err *err,
                        struct model *ret_model)
{
    struct gtt_info daemon;
    struct gtt_segment_info info;
    void *base;
    gtt_get_info(w->gtt, &daemon);
    gtt_segment_get_info(w->segment, &info);
    int r = gtt_segment_map(w->segment, false, &base);
    if (r < 0) {
        return err_set(err, r, "gttd: %s", gtt_last_error(w->gtt));
    }
    if (daemon.is_dmabuf) {
        w->dmabuf_fds = malloc(info.n_chunks * sizeof *w->dmabuf_fds);
        if (!w->dmabuf_fds) {
            return err_set(err, -ENOMEM, "out of memory");
        }
        for (uint32_t i = 0; i < info.n_chunks; i++) {
            r = gtt_segment_chunk_fd(w->segment, i, &w->dmabuf_fds[i]);
            if (r < 0) {
                return err_set(err, r, "gttd: %s", gtt_last_error(w->gtt));
            }
        }
    }
    struct weight_memory memory = {
        .base = base,
        .size_bytes = info.size_bytes,
        .chunk_bytes = info.chunk_bytes,
        .n_chunks = info.n_chunks,
        .dmabuf_fds = w->dmabuf_fds,
    };
    return image_bind(config, &memory, ret_model, err);
}

/* We are the one to make the segment: plan, create, fill, seal. */
static int fill_segment(struct weights *w, struct origin *o, struct err *err)
{
    const struct model *planned;
    struct gtt_info daemon;
    void *base;
    gtt_get_info(w->gtt, &daemon);
    uint64_t chunk_max =
        daemon.chunk_max_bytes < IMAGE_CHUNK_MAX ? daemon.chunk_max_bytes : IMAGE_CHUNK_MAX;
    int r = origin_plan(o, chunk_max, err, &planned);
    if (r < 0) {
        gtt_abandon(w->gtt, o->name);
        return r;
    }
    struct gtt_create_params create = {
        .name = o->name,
        .size_bytes = planned->memory.size_bytes,
        .chunk_bytes = planned->memory.chunk_bytes,
    };
    r = gtt_create(w->gtt, &create, &w->segment);
    if (r < 0) {
        err_set(err, r, "gttd: %s; --private would load the weights without it",
                gtt_last_error(w->gtt));
        gtt_abandon(w->gtt, o->name);
        return r;
    }
    r = gtt_segment_map(w->segment, true, &base);
    if (r < 0) {
        return err_set(err, r, "gttd: %s", gtt_last_error(w->gtt));
    }
    r = origin_fill(o, base, err);
    if (r == 0) {
        r = gtt_segment_seal(w->segment, NULL, NULL, 0);
        if (r < 0) {
            err_set(err, r, "gttd: %s", gtt_last_error(w->gtt));
        }
    }
    return r;
}

/* Open the segment, or fill it, and bind what is in it. */
static int use_pool(struct weights *w, struct origin *o, struct err *err, struct model *ret_model)
{
    int r = gtt_open(w->gtt, o->name, GTT_OPEN_FILL, 0, &w->segment);
    if (r == -EAGAIN) {
        engine_log(o->params, "waiting: %s", gtt_last_error(w->gtt));
        r = gtt_open(w->gtt, o->name, GTT_OPEN_FILL | GTT_OPEN_WAIT, -1, &w->segment);
    }
    if (r < 0) {
        return err_set(err, r, "gttd: %s", gtt_last_error(w->gtt));
    }
    w->source = r == 1 ? LLM_POOL_FILL : LLM_POOL_HIT;
    if (r == 1) {
        r = fill_segment(w, o, err);
    }
    if (r == 0) {
        r = bind_segment(w, o->config, err, ret_model);
    }
    if (r == 0) {
        kept_init(&w->kept, o->params, w->gtt, w->segment, o->name, &w->lock);
        ret_model->memory.keeper = &w->kept.keeper;
    }
    return r;
}

/* What was opened is of no use. */
static void forget_segment(struct weights *w, struct origin *o)
{
    gtt_segment_close(w->segment);
    w->segment = NULL;
    free(w->dmabuf_fds);
    w->dmabuf_fds = NULL;
    load_plan_destroy(o->plan);
    o->plan = NULL;
}

/* An image of an older build, or memory that somebody wrote to: forget it and fill anew, once. */
static int replace_bad_image(struct weights *w, struct origin *o, struct err *err,
                             struct model *ret_model)
{
    engine_log(o->params, "gttd holds a bad image of this model (%s): it is replaced", err->text);
    forget_segment(w, o);
    int r = gtt_drop(w->gtt, o->name, GTT_DROP_FORCE);
    if (r < 0 && r != -ENOENT) {
        return err_set(err, r, "gttd: %s", gtt_last_error(w->gtt));
    }
    return use_pool(w, o, err, ret_model);
}

int weights_open(struct weights *weights, const struct llm_engine_params *params,
                 const struct model_config *config, struct err *err, struct model *ret_model)
{
    struct err own = {{0}};
    struct origin *o = calloc(1, sizeof *o);
    if (!o) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    *weights = (struct weights){.lock = PTHREAD_MUTEX_INITIALIZER};
    *o = (struct origin){.params = params, .config = config};
    int r = origin_name(o, &own);
    if (r < 0) {
        goto out;
    }
    if (!params->private_weights) {
        int c = gtt_connect(params->gttd_socket, "gttrun", &weights->gtt);
        if (c < 0) {
            engine_log(params, "%s%s. Loading into private memory", gtt_last_error(NULL),
                       c == -ENOENT || c == -ECONNREFUSED
                           ? "; start it with `gttd` to keep weights in memory between runs"
                           : "");
        }
    }
    if (weights->gtt) {
        r = use_pool(weights, o, &own, ret_model);
        for (int i = 0; i < REFILLS_MAX && r == -ECONNRESET && weights->segment; i++) {
            engine_log(params, "%s", own.text);
            forget_segment(weights, o);
            r = use_pool(weights, o, &own, ret_model);
        }
        if (r == -EINVAL && weights->source == LLM_POOL_HIT) {
            r = replace_bad_image(weights, o, &own, ret_model);
        }
    } else {
        r = load_private(weights, o, &own, ret_model);
    }
out:
    load_plan_destroy(o->plan);
    free(o);
    if (r < 0) {
        err_set(err, r, "%s", own.text);
        weights_close(weights);
    }
    return r;
}

int weights_hold(struct weights *weights, struct err *err)
{
    int r = 0;
    if (weights->gtt) {
        pthread_mutex_lock(&weights->lock);
        r = gtt_reconnect(weights->gtt, 0);
        if (r < 0) {
            err_set(err, r, "gttd: %s", gtt_last_error(weights->gtt));
        }
        pthread_mutex_unlock(&weights->lock);
    }
    return r;
}

void weights_close(struct weights *weights)
{
    kept_finish(&weights->kept);
    gtt_segment_close(weights->segment);
    gtt_disconnect(weights->gtt);
    free(weights->dmabuf_fds);
    if (weights->private_base) {
        munmap(weights->private_base, weights->private_bytes);
    }
    *weights = (struct weights){0};
}
