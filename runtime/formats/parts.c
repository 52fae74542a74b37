/* SPDX-License-Identifier: MIT */
/* What the image's tensors are called in Hugging Face's files: see parts.h. */
#include "parts.h"

#include <inttypes.h>
#include <stdio.h>

static const char *const names[][3] = {
    [IMAGE_EMBED] = {"embed_tokens"},
    [IMAGE_HEAD] = {"head"},
    [IMAGE_FINAL_NORM] = {"norm"},
    [IMAGE_INPUT_NORM] = {"input_layernorm"},
    [IMAGE_Q_NORM] = {"self_attn.q_norm"},
    [IMAGE_K_NORM] = {"self_attn.k_norm"},
    [IMAGE_POST_ATTN_NORM] = {"post_attention_layernorm"},
    [IMAGE_PRE_FFN_NORM] = {"pre_feedforward_layernorm"},
    [IMAGE_POST_FFN_NORM] = {"post_feedforward_layernorm"},
    [IMAGE_QKV] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
    [IMAGE_ATTN_OUT] = {"self_attn.o_proj"},
    [IMAGE_GATE_UP] = {"mlp.gate_proj", "mlp.up_proj"},
    [IMAGE_DOWN] = {"mlp.down_proj"},
};

static uint32_t part_rows(const struct model_config *config, const struct image_slot *slot,
                          uint32_t i)
{
    switch (slot->kind) {
    case IMAGE_QKV:
        return (i == 0 ? config->n_heads : config->n_kv_heads) * config->head_dim;
    case IMAGE_GATE_UP:
        return config->ffn;
    default:
        return slot->rows;
    }
}

uint32_t slot_parts(const struct model_config *config, const struct image_slot *slot,
                    struct part ret[static 3])
{
    uint32_t n = 0;
    for (; n < 3 && names[slot->kind][n]; n++) {
        const char *name = names[slot->kind][n];
        if (slot->kind < IMAGE_INPUT_NORM) {
            snprintf(ret[n].name, sizeof ret[n].name, "%s", name);
        } else {
            snprintf(ret[n].name, sizeof ret[n].name, "layers.%" PRIu32 ".%s", slot->layer, name);
        }
        ret[n].rows = part_rows(config, slot, n);
    }
    return n;
}
