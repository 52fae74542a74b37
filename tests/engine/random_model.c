/* SPDX-License-Identifier: MIT */
/* A whole model of random weights in private memory: see random_model.h. */
#include "random_model.h"

#include <sys/mman.h>

#include "check.h"

void random_formats(const struct model_config *config, struct weight_format format,
                    struct image_formats *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->embed = ret->head = format;
    for (uint32_t i = 0; i < config->n_layers; i++) {
        ret->layers[i].qkv = ret->layers[i].attn_out = format;
        ret->layers[i].gate_up = ret->layers[i].down = format;
    }
}

void random_model_create_chunked(const struct model_config *config,
                                 const struct image_formats *formats, uint64_t chunk_max_bytes,
                                 uint64_t seed, struct model *ret, void **ret_base)
{
    struct err err;
    if (image_plan(config, formats, chunk_max_bytes, ret, &err) < 0) {
        fprintf(stderr, "random_model: %s\n", err.text);
        exit(1);
    }
    /* one alignment more than needed, the ends given back */
    uint64_t size = ret->memory.size_bytes;
    uint8_t *raw = mmap(NULL, size + IMAGE_CHUNK_ALIGN, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(raw != MAP_FAILED);
    uint64_t head = -(uintptr_t)raw % IMAGE_CHUNK_ALIGN;
    uint8_t *base = raw + head;
    if (head) {
        CHECK(munmap(raw, head) == 0);
    }
    if (IMAGE_CHUNK_ALIGN - head) {
        CHECK(munmap(base + size, IMAGE_CHUNK_ALIGN - head) == 0);
    }
    image_fill_random(ret, base, seed, 0);

    struct weight_memory memory = ret->memory;
    memory.base = base;
    if (image_bind(config, &memory, ret, &err) < 0) {
        fprintf(stderr, "random_model: %s\n", err.text);
        exit(1);
    }
    *ret_base = base;
}

void random_model_create(const struct model_config *config, const struct image_formats *formats,
                         uint64_t seed, struct model *ret, void **ret_base)
{
    random_model_create_chunked(config, formats, IMAGE_CHUNK_MAX, seed, ret, ret_base);
}

void random_model_destroy(struct model *model, void *base)
{
    CHECK(munmap(base, model->memory.size_bytes) == 0);
}
