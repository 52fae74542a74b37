/* SPDX-License-Identifier: MIT */
/*
 * Opening a model: config, tokenizer, weights, backend, in the order that lets a bad model fail
 * before memory is taken.
 */
#include "engine.h"

#include "log.h"
#include "readspeed.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* NULL for auto. */
static int choose_backend(const struct llm_engine_params *params, struct err *err,
                          const struct backend_ops **ret)
{
    static const struct backend_ops *const all[] = {&cpu_backend, &vulkan_backend,
                                                    &reference_backend};
    const char *name = params->backend ? params->backend : "auto";
    if (strcmp(name, "auto") == 0) {
        *ret = NULL;
        return 0;
    }
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(name, all[i]->name) == 0) {
            *ret = all[i];
            return 0;
        }
    }
    return err_set(err, -EINVAL, "backend %s: there are auto, cpu, vulkan and reference", name);
}

/* The last component of the model's path: what a client of the server calls the model. */
static void name_model(struct llm_engine *engine, const struct llm_engine_params *params)
{
    if (params->random_size) {
        snprintf(engine->model_id, sizeof engine->model_id, "random-%s", params->random_size);
        return;
    }
    char *path = realpath(params->model_dir, NULL);
    const char *slash = path ? strrchr(path, '/') : NULL;
    snprintf(engine->model_id, sizeof engine->model_id, "%s",
             slash && slash[1] ? slash + 1 : "model");
    free(path);
}

static int open_text(struct llm_engine *engine, const struct llm_engine_params *params,
                     struct model_config *config, struct err *err)
{
    if (params->random_size) {
        int r = config_known(params->random_size, config);
        return r == 0 ? 0
                      : err_set(err, r, "random weights %s: there are 270m, 1b, 4b, 12b and 27b",
                                params->random_size);
    }
    int r = config_load(params->model_dir, config, err);
    if (r == 0) {
        r = tokenizer_load(params->model_dir, err, &engine->tokenizer);
    }
    if (r == 0 && tokenizer_vocab_size(engine->tokenizer) > config->vocab) {
        r = err_set(err, -EINVAL, "%s: the tokenizer has %u tokens, the model's vocabulary %u",
                    params->model_dir, tokenizer_vocab_size(engine->tokenizer), config->vocab);
    }
    return r;
}

/* A GPU if there is one, else the CPU, unless the caller has said which. */
static int open_backend(struct llm_engine *engine, const struct llm_engine_params *params,
                        struct err *err)
{
    struct backend_params backend_params = {
        .n_threads = params->n_threads,
        .device = params->device,
        .cache_dir = params->cache_dir,
        .copy_weights = params->copy_weights,
        .validate = params->validate,
        .log = params->log,
        .log_data = params->data,
        .start = &engine->start,
    };
    const struct backend_ops *ops = engine->ops;
    if (!ops) {
        ops = &vulkan_backend;
        backend_params.gpu_only = true;
    }
    int r = ops->open(&backend_params, err, &engine->backend);
    if (r == -ENXIO && backend_params.gpu_only) {
        engine_log(params, "the cpu backend is used: %s", err->text);
        ops = &cpu_backend;
        r = ops->open(&backend_params, err, &engine->backend);
    }
    engine->ops = ops;
    if (r == 0) {
        engine->ops->info(engine->backend, &engine->info);
        engine->max_batch = engine->info.max_batch;
    }
    return r;
}

static const char *source_text(enum llm_source source)
{
    static const char *const text[] = {"pool-hit", "pool-fill", "private"};
    return text[source];
}

int llm_engine_open(const struct llm_engine_params *params, struct err *err,
                    struct llm_engine **ret)
{
    struct model_config config;
    struct llm_engine *engine = calloc(1, sizeof *engine);
    if (!engine) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    start_done(&engine->start, START_BEGUN);
    name_model(engine, params);
    int r = choose_backend(params, err, &engine->ops);
    if (r == 0) {
        r = open_text(engine, params, &config, err);
        start_done(&engine->start, START_TEXT);
    }
    if (r == 0) {
        r = open_backend(engine, params, err);
        start_done(&engine->start, START_DEVICE);
    }
    if (r == 0) {
        r = weights_open(&engine->weights, params, &config, err, &engine->model);
        start_done(&engine->start, START_POOL);
    }
    if (r == 0) {
        r = engine->ops->bind(engine->backend, &engine->model, err, &engine->bound, &engine->path);
    }
    kept_quiet(&engine->weights.kept); /* params are not ours any more */
    if (r < 0) {
        llm_engine_close(engine);
        return r;
    }
    engine_log(params, "weights: %s, %.1f MB, %s; %s on %s", source_text(engine->weights.source),
               (double)engine->model.memory.size_bytes * 1e-6, weight_path_text(engine->path),
               engine->info.backend, engine->info.device);
    *ret = engine;
    return 0;
}

void llm_engine_close(struct llm_engine *engine)
{
    if (!engine) {
        return;
    }
    if (engine->ops) {
        engine->ops->unbind(engine->bound);
        engine->ops->close(engine->backend);
    }
    weights_close(&engine->weights);
    tokenizer_destroy(engine->tokenizer);
    free(engine);
}

int llm_engine_hold(struct llm_engine *engine, struct err *err)
{
    return weights_hold(&engine->weights, err);
}

void llm_engine_info(const struct llm_engine *engine, struct llm_engine_info *ret)
{
    *ret = (struct llm_engine_info){
        .backend = engine->info.backend,
        .device = engine->info.device,
        .driver = engine->info.driver,
        .source = source_text(engine->weights.source),
        .memory = weight_path_text(engine->path),
        .model_id = engine->model_id,
        .weight_bytes = engine->model.memory.size_bytes,
        .bytes_per_token = model_bytes_per_token(&engine->model),
        .vocab = engine->model.config.vocab,
        .max_pos = engine->model.config.max_pos,
        .draws_ahead = engine->ops->decode_start != NULL,
        .start = engine->start,
    };
    struct weight_start start;
    if (engine->ops->weight_start && engine->ops->weight_start(engine->bound, &start)) {
        ret->has_device_copy = true;
        ret->device_copy = (struct llm_device_copy){.kept = start.kept,
                                                    .find_ms = start.find_ms,
                                                    .import_ms = start.import_ms,
                                                    .compare_ms = start.compare_ms,
                                                    .copy_ms = start.copy_ms,
                                                    .keep_ms = start.keep_ms};
    }
}

const struct tokenizer *llm_engine_tokenizer(const struct llm_engine *engine)
{
    return engine->tokenizer;
}

bool llm_engine_is_eos(const struct llm_engine *engine, int32_t id)
{
    const struct model_config *config = &engine->model.config;
    for (uint32_t i = 0; i < config->n_eos; i++) {
        if (config->eos[i] == id) {
            return true;
        }
    }
    return false;
}

int llm_engine_read_speed(struct llm_engine *engine, uint32_t n_threads, double *ret,
                          struct err *err)
{
    const struct weight_memory *memory = &engine->model.memory;
    if (engine->ops->read_speed) {
        return engine->ops->read_speed(engine->bound, ret, err);
    }
    *ret = read_speed(memory->base, memory->size_bytes, n_threads);
    return 0;
}
