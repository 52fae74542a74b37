/* SPDX-License-Identifier: MIT */
/*
 * What a Gemma 3 text model is, as numbers. Filled from config.json (config_load) or from the table
 * of known sizes (config_known); everything else in the engine reads only this struct.
 */
#ifndef FORMATS_CONFIG_H
#define FORMATS_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define CONFIG_MAX_LAYERS 256
#define CONFIG_MAX_EOS    8

struct model_config {
    uint32_t n_layers;
    uint32_t hidden;     /* width of the residual stream */
    uint32_t ffn;        /* intermediate_size */
    uint32_t n_heads;    /* query heads */
    uint32_t n_kv_heads; /* divides n_heads (GQA) */
    uint32_t head_dim;   /* even; n_heads * head_dim need not be hidden */
    uint32_t vocab;
    uint32_t window;  /* sliding window of local layers, in tokens: key j is seen by query i iff
                         0 <= i - j < window */
    uint32_t max_pos; /* max_position_embeddings */
    float rms_eps;
    float query_scale;      /* query_pre_attn_scalar ^ -1/2 */
    float rope_theta_local; /* base frequency of local layers, unscaled */
    float rope_theta_global;
    float rope_factor_global; /* linear scaling: positions are divided by it on global layers; 1 =
                                 none */
    bool tied_head;           /* lm_head is the embedding matrix */
    bool layer_is_global[CONFIG_MAX_LAYERS];
    int32_t bos, pad; /* -1: none */
    int32_t eos[CONFIG_MAX_EOS];
    uint32_t n_eos;
};

/*
 * Read DIR/config.json (Gemma3ForCausalLM, or the text_config of Gemma3ForConditionalGeneration),
 * and DIR/generation_config.json for further end tokens where it exists. Every value is checked
 * (types, ranges, products that must not overflow); what the engine does not support (softcapping,
 * biases, bidirectional attention, other rope types, other activations) is refused by name. Errors:
 * -ENOENT, -EACCES, -EINVAL, with file and key in *err.
 */
int config_load(const char *dir, struct model_config *ret, struct err *err);

/* The same from memory: the text of config.json; name is used in messages. This is what is fuzzed.
 */
int config_parse(const char *name, const void *json, size_t size, struct model_config *ret,
                 struct err *err);

/* The true shapes of Gemma 3: "270m", "1b", "4b", "12b", "27b". -ENOENT for another name. */
int config_known(const char *size, struct model_config *ret);

#endif
