/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the Vulkan backend share: weights.c brings an image to the device, model.c
 * makes its pipelines, state.c holds a timeline, record.c turns operations into dispatches,
 * forward.c and op.c run them.
 */
#ifndef VK_H
#define VK_H

#include "backend.h"
#include "push.h"
#include "vkc.h"

#define VK_BATCH_MAX 32
#define VK_N_BATCHES 3 /* the batch sizes for which command buffers are recorded: vk_batches */
extern const uint32_t vk_batches[VK_N_BATCHES];

/* What differs between devices: sizes, not code. A workgroup is a multiple of the subgroup or
 * smaller than one: lavapipe 22.3 miscounts the subgroups of others. */
struct vk_tuning {
    uint32_t matmul_wg;   /* invocations along K */
    uint32_t matmul_rows; /* rows per workgroup */
    uint32_t matmul_tile; /* tokens per workgroup when there are several */
    uint32_t token_wg;    /* embed, rmsnorm, add_norm, geglu */
    uint32_t head_wg;     /* rope_store, attention */
    double
        segment_flops; /* of one submission: a GPU that is busy for two seconds is taken for hung */
};

struct backend {
    struct vkc_instance *instance;
    struct vkc_device *device;
    struct vk_tuning tuning;
};

/* weights.c */

struct vk_weights {
    struct vkc_buffer *chunks; /* [n_chunks] */
    uint32_t n_chunks;
    uint64_t chunk_bytes;
};

/* The best way for a device to reach memory, and why it is not a better one (a static text). */
enum weight_path vk_weight_path(const struct vkc_physical *physical, bool is_dmabuf,
                                const char **ret_why);
int vk_weights_init(struct backend *backend, const struct weight_memory *memory, struct err *err,
                    struct vk_weights *ret, enum weight_path *ret_path);
void vk_weights_finish(struct backend *backend, struct vk_weights *weights);
uint64_t vk_weights_address(const struct vk_weights *weights, uint64_t off);

/* model.c */

struct backend_model {
    struct backend *backend;   /* borrowed */
    const struct model *model; /* borrowed */
    struct vk_weights weights;
    struct vkc_buffer turns; /* uint64 [2, head_dim / 2]: local, global layers; rotation.glsl */
    VkPipeline rmsnorm, add_norm, rope_store, attention, geglu;
};

int vk_bind(struct backend *backend, const struct model *model, struct err *err,
            struct backend_model **ret, enum weight_path *ret_path);
void vk_unbind(struct backend_model *bm);
int vk_embed_pipeline(struct backend_model *bm, struct err *err, VkPipeline *ret);
int vk_matmul_pipeline(struct backend_model *bm, const struct weight *w, uint32_t tile,
                       struct err *err, VkPipeline *ret);

/* state.c */

/* Activations, f32 [VK_BATCH_MAX, width], all in one buffer. */
enum vk_act {
    ACT_X,       /* residual stream [hidden] */
    ACT_Y,       /* what a half-layer adds to it [hidden] */
    ACT_Z,       /* normed x [hidden] */
    ACT_QKV,     /* [(n_heads + 2 n_kv_heads) * head_dim] */
    ACT_Q,       /* [n_heads * head_dim] */
    ACT_ATT,     /* [n_heads * head_dim] */
    ACT_GATE_UP, /* [2 * ffn] */
    ACT_H,       /* [ffn] */
    ACT_COUNT,
};

struct vk_kv {
    struct vkc_buffer buffer; /* f16 [2, n_kv_heads, ring, row_halfs]: k, v */
    uint32_t ring;            /* position p is in slot p % ring */
};

struct vk_logits {
    struct vkc_buffer device; /* f32 [rows, vocab] */
    struct vkc_buffer host;
};

/* A forward pass, recorded: what changes from one to the next is in the step buffer. */
struct vk_recording {
    VkCommandBuffer *cmds; /* [n_cmds], each a bounded amount of work */
    uint32_t n_cmds;       /* 0: not recorded yet */
};

struct backend_state {
    struct backend_model *bm; /* borrowed */
    uint32_t max_pos;
    uint32_t ring_start; /* local layers have lost what lies before this position */
    struct vk_kv *kv;    /* [n_layers] */
    struct vkc_buffer acts;
    uint64_t act_off[ACT_COUNT];
    struct vkc_buffer step; /* struct step */
    struct vk_logits last;  /* one row */
    struct vk_logits all;   /* VK_BATCH_MAX rows; made on first use */
    struct vk_recording recordings[VK_N_BATCHES][LOGITS_ALL + 1];
};

int vk_state_create(struct backend_model *bm, uint32_t max_pos, struct err *err,
                    struct backend_state **ret, uint32_t *ret_rewind_max, uint64_t *ret_kv_bytes);
void vk_state_destroy(struct backend_state *state);
uint32_t vk_act_width(const struct model_config *config, enum vk_act act);
/* f16 elements of a row of the KV cache: head_dim and padding. */
uint32_t vk_row_halfs(const struct model_config *config);
/* Make the buffers of state->all if they are not there. */
int vk_state_need_all(struct backend_state *state, struct err *err);

/* record.c */

/* Append one operation for up to batch tokens, without barriers. OP_HEAD writes state->last (the
 * last token only) or state->all. */
int vk_record_op(struct backend_state *state, VkCommandBuffer cmd, enum backend_op op,
                 uint32_t layer, uint32_t batch, bool last_only, struct err *err);
/* The recording of a forward pass for up to vk_batches[batch_index] tokens, made on first use. */
int vk_record_forward(struct backend_state *state, uint32_t batch_index, enum logits_want want,
                      struct err *err, const struct vk_recording **ret);

/* forward.c */

int vk_forward(struct backend_state *state, const int32_t *ids, uint32_t n, uint32_t pos,
               enum logits_want want, float *logits, struct err *err);
/* The smallest recorded batch that holds n tokens. */
uint32_t vk_batch_index(uint32_t n);
/* Check a step against the timeline and write it for the device; ids may be NULL. */
int vk_set_step(struct backend_state *state, const int32_t *ids, uint32_t n, uint32_t pos,
                struct err *err);
/* Submit and wait. A message from the validation layers is a failure. */
int vk_run(struct backend *backend, const VkCommandBuffer *cmds, uint32_t n, struct err *err);
/* Keys and values of n tokens at pos are about to be stored. */
void vk_wrote_kv(struct backend_state *state, uint32_t n, uint32_t pos);

/* op.c */

int vk_op(struct backend_state *state, enum backend_op op, uint32_t layer, const int32_t *ids,
          uint32_t n, uint32_t pos, const float *in, float *out, struct err *err);

#endif
