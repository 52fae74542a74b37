/* SPDX-License-Identifier: MIT */
/* config.json: what is accepted must be numbers that the engine can multiply and index with. */
#include <math.h>
#include <stdlib.h>

#include "config.h"
#include "image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct image_formats formats;
    static struct model model;
    struct model_config c;
    struct err err;
    if (config_parse("config.json", data, size, &c, &err) < 0) {
        return 0;
    }
    require(c.n_layers >= 1 && c.n_layers <= CONFIG_MAX_LAYERS);
    require(c.n_kv_heads && c.n_heads % c.n_kv_heads == 0 && c.head_dim % 2 == 0);
    require(c.hidden && c.ffn && c.vocab && c.window && c.max_pos && c.n_eos <= CONFIG_MAX_EOS);
    require(c.rms_eps > 0 && isfinite(c.query_scale) && c.rope_factor_global >= 1);
    require(c.rope_theta_global >= 1 && c.rope_theta_local >= 1);
    require(c.bos >= -1 && c.pad >= -1 && c.bos < (int64_t)c.vocab && c.pad < (int64_t)c.vocab);
    for (uint32_t i = 0; i < c.n_eos; i++) {
        require(c.eos[i] >= 0 && (uint32_t)c.eos[i] < c.vocab);
    }
    /* whatever it is, it can be laid out or is refused */
    const struct weight_format bf16 = {.type = WEIGHT_BF16};
    formats.embed = formats.head = bf16;
    for (uint32_t i = 0; i < c.n_layers; i++) {
        formats.layers[i].qkv = formats.layers[i].attn_out = bf16;
        formats.layers[i].gate_up = formats.layers[i].down = bf16;
    }
    (void)image_plan(&c, &formats, IMAGE_CHUNK_MAX, &model, &err);
    return 0;
}
