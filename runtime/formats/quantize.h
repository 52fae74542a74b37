/* SPDX-License-Identifier: MIT */
/*
 * A Hugging Face directory of float weights to one of our own quantized form (checkpoint.h says how
 * that looks): `gttrun quantize`. Matrices become int4 or int8 groups, the embedding (and head)
 * int8 unless told otherwise, norms stay as they are. Tensors of no text model (vision) are left
 * out.
 */
#ifndef FORMATS_QUANTIZE_H
#define FORMATS_QUANTIZE_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "model.h"

/* One matrix that is stored differently from the others. */
struct quantize_override {
    const char *name; /* without prefix and ".weight": "layers.3.mlp.down_proj", "embed_tokens" */
    uint32_t type;    /* WEIGHT_Q4, WEIGHT_Q8, or 0: as it is in the source */
    uint32_t group;
};

struct quantize_params {
    uint32_t type;  /* WEIGHT_Q4 or WEIGHT_Q8: of the layers' matrices */
    uint32_t group; /* 32, 64 or 128 */
    uint32_t embed_type;
    uint32_t embed_group;
    const struct quantize_override *overrides; /* q, k and v must agree, and so must gate and up */
    size_t n_overrides;
    uint64_t shard_max_bytes; /* a file is no larger, unless one tensor is */
    uint32_t n_threads;       /* as in parallel_for() */
};

/* q4 (or q8) in groups of 32, the embedding in q8, shards of 2 GiB, a thread per core. */
void quantize_params_init(struct quantize_params *params, uint32_t type);

/*
 * Write `out`, which must not exist: it appears complete, checked to load, and synced, or not at
 * all. config.json gets a quantization_config; tokenizer and generation files are copied. progress
 * may be NULL; it is called with bytes of weights done and in all, and a non-zero return stops with
 * -ECANCELED. Errors: those of checkpoint_open() and config_load() for `in`, -EEXIST, -EINVAL, and
 * open(2)'s and write(2)'s for `out`.
 */
int quantize_directory(const char *in, const char *out, const struct quantize_params *params,
                       int (*progress)(void *data, uint64_t done, uint64_t total),
                       void *progress_data, struct err *err);

#endif
