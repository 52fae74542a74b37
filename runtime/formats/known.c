/* SPDX-License-Identifier: MIT */
/*
 * The true shapes of Gemma 3, for random weights without files. Source: google/gemma_pytorch
 * gemma/config.py and the config.json of the published checkpoints.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "config.h"
#include "gttd_util.h"

static const struct known {
    const char *size;
    uint32_t n_layers, hidden, ffn, n_heads, n_kv_heads, head_dim, vocab, window, max_pos;
    float query_scalar, rope_factor;
} known_sizes[] = {
    {"270m", 18, 640, 2048, 4, 1, 256, 262144, 512, 32768, 256, 1},
    {"1b", 26, 1152, 6912, 4, 1, 256, 262144, 512, 32768, 256, 1},
    {"4b", 34, 2560, 10240, 8, 4, 256, 262208, 1024, 131072, 256, 8},
    {"12b", 48, 3840, 15360, 16, 8, 256, 262208, 1024, 131072, 256, 8},
    {"27b", 62, 5376, 21504, 32, 16, 128, 262208, 1024, 131072, 168, 8},
};

int config_known(const char *size, struct model_config *ret)
{
    for (size_t i = 0; i < ARRAY_SIZE(known_sizes); i++) {
        const struct known *k = &known_sizes[i];
        if (strcmp(k->size, size) != 0) {
            continue;
        }
        struct model_config c = {
            .n_layers = k->n_layers,
            .hidden = k->hidden,
            .ffn = k->ffn,
            .n_heads = k->n_heads,
            .n_kv_heads = k->n_kv_heads,
            .head_dim = k->head_dim,
            .vocab = k->vocab,
            .window = k->window,
            .max_pos = k->max_pos,
            .rms_eps = 1e-6f,
            .query_scale = (float)(1 / sqrt(k->query_scalar)),
            .rope_theta_local = 1e4f,
            .rope_theta_global = 1e6f,
            .rope_factor_global = k->rope_factor,
            .tied_head = true,
            .bos = 2,
            .pad = 0,
            .eos = {1, 106},
            .n_eos = 2,
        };
        for (uint32_t l = 0; l < c.n_layers; l++) {
            c.layer_is_global[l] = l % 6 == 5;
        }
        *ret = c;
        return 0;
    }
    return -ENOENT;
}
