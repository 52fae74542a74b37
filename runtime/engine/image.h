/* SPDX-License-Identifier: MIT */
/*
 * The image: a model's weights laid out as the backends read them, in one linear address range cut
 * into chunks. It is what a gttd segment holds. It starts with a header and a table of tensors, so
 * that an opener needs no weight file to find its way; everything in the table is checked against
 * the model's config before use, because another process wrote it.
 *
 *   offset 0   struct image_header
 *              struct image_tensor [n_tensors]
 *   ...        arrays, each at a multiple of 256 bytes, none straddling a chunk
 *
 * Tensor names: "embed", "head" (absent when tied), "final_norm", and for layer N "N.input_norm",
 * "N.q_norm", "N.k_norm", "N.post_attn_norm", "N.pre_ffn_norm", "N.post_ffn_norm", "N.qkv",
 * "N.attn_out", "N.gate_up", "N.down". Little-endian; the CPU's, as everywhere in this project.
 */
#ifndef ENGINE_IMAGE_H
#define ENGINE_IMAGE_H

#include <assert.h>
#include <stdint.h>

#include "err.h"
#include "model.h"

#define IMAGE_MAGIC       "GTTIMG\0" /* 8 bytes with the terminating NUL */
#define IMAGE_VERSION     1
#define IMAGE_ALIGN       256
#define IMAGE_NAME_MAX    32
#define IMAGE_CHUNK_ALIGN (2u << 20)
#define IMAGE_CHUNK_MAX   (2ull << 30)

struct image_header {
    char magic[8];
    uint32_t version;
    uint32_t n_tensors;
    uint64_t size_bytes; /* of the whole image, a multiple of IMAGE_CHUNK_ALIGN */
    uint64_t chunk_bytes;
    uint64_t reserved[4]; /* zero */
};
static_assert(sizeof(struct image_header) == 64, "image format");

struct image_tensor {
    char name[IMAGE_NAME_MAX]; /* NUL-terminated, rest zero */
    uint32_t type;             /* enum weight_type; vectors are F32 with rows 1 */
    uint32_t rows;
    uint32_t cols;
    uint32_t group;
    uint64_t data_off;
    uint64_t scale_off;
    uint64_t bias_off;
    uint64_t reserved; /* zero */
};
static_assert(sizeof(struct image_tensor) == 80, "image format");

/* What a plan wants each matrix to be stored as. */
struct weight_format {
    uint32_t type;  /* enum weight_type */
    uint32_t group; /* 0 for float types */
    bool affine;    /* quantized types: with a bias array */
};

/*
 * Where everything goes: a model whose offsets are filled in and whose memory has sizes but no
 * base. formats: one for the embedding (and head), one per layer matrix kind, chosen by the caller.
 */
struct image_formats {
    struct weight_format embed;
    struct weight_format head; /* used only if the head is not tied */
    struct {
        struct weight_format qkv, attn_out, gate_up, down;
    } layers[CONFIG_MAX_LAYERS];
};

/*
 * Lay out an image: deterministic in its arguments. chunk_max_bytes: at most this much per chunk
 * (a multiple of IMAGE_CHUNK_ALIGN, at most IMAGE_CHUNK_MAX); one chunk, no larger than needed, if
 * everything fits. Errors: -EINVAL a format does not fit its matrix, -E2BIG an array exceeds a
 * chunk.
 */
int image_plan(const struct model_config *config, const struct image_formats *formats,
               uint64_t chunk_max_bytes, struct model *ret, struct err *err);

/*
 * The tensors of a config's image, in the order of its table: this is what plan, bind, loader and
 * random weights all walk.
 */
enum image_kind {
    IMAGE_EMBED,
    IMAGE_HEAD,
    IMAGE_FINAL_NORM,
    IMAGE_INPUT_NORM, /* from here on: once per layer */
    IMAGE_Q_NORM,
    IMAGE_K_NORM,
    IMAGE_POST_ATTN_NORM,
    IMAGE_PRE_FFN_NORM,
    IMAGE_POST_FFN_NORM,
    IMAGE_QKV,
    IMAGE_ATTN_OUT,
    IMAGE_GATE_UP,
    IMAGE_DOWN,
};

struct image_slot {
    char name[IMAGE_NAME_MAX];
    enum image_kind kind;
    uint32_t layer; /* 0 for those that are in no layer */
    uint32_t rows;  /* as the config wants it; 1 for vectors */
    uint32_t cols;
    struct weight *matrix; /* where a model keeps it; NULL for a vector */
    uint64_t *vector_off;  /* NULL for a matrix */
};

uint32_t image_n_slots(const struct model_config *config);

/* Slot i of model (whose config must be set); the pointers are into *model. */
void image_slot(struct model *model, uint32_t i, struct image_slot *ret);

/* Where formats says how a matrix's slot is to be stored. */
struct weight_format *image_slot_format(struct image_formats *formats,
                                        const struct image_slot *slot);

/* Write header and table of a planned model to base (its first chunk, zeroed memory). */
void image_write_header(const struct model *model, uint8_t *base);

/*
 * Fill a planned image with random weights that keep activations near 1: matrices uniform with
 * standard deviation 1 / sqrt(cols), norms around 1. Header and table included. The bytes depend on
 * plan and seed only. n_threads as in parallel_for().
 */
void image_fill_random(const struct model *planned, uint8_t *base, uint64_t seed,
                       uint32_t n_threads);

/*
 * Bind an image to a model: check magic, version, sizes, every table entry (name, type, shape
 * against config, offsets in bounds, aligned, not overlapping, not straddling) and fill *ret.
 * memory is copied into it. Errors: -EINVAL with the tensor's name and the reason.
 */
int image_bind(const struct model_config *config, const struct weight_memory *memory,
               struct model *ret, struct err *err);

#endif
