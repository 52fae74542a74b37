/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the Vulkan backend share: weights.c and device_copy.c bring an image to the
 * device, model.c makes its pipelines, gemv.c multiplies one token by a quantized matrix as
 * tune_gemv.c found best, few.c a few tokens, gemm.c many, with gemm_few.c's tiles also a few,
 * state.c holds a timeline, record.c turns operations into dispatches, decode.c a pass of one
 * token, or of one each of several timelines, into few of them, forward.c, many.c and op.c run
 * them, sample.c draws tokens, steps.c decodes ahead of the host, profile.c times them.
 */
#ifndef VK_H
#define VK_H

#include <stdio.h>

#include "backend.h"
#include "push.h"
#include "vkc.h"

#define VK_BATCH_MAX 512
#define VK_ALL_MAX   64 /* tokens of which all logits are wanted */
#define VK_N_BATCHES 8  /* the batch sizes for which command buffers are recorded: vk_batches */
extern const uint32_t vk_batches[VK_N_BATCHES];

/* What differs between devices: sizes, not code. A workgroup is a multiple of the subgroup or
 * smaller than one: lavapipe 22.3 miscounts the subgroups of others. */
struct vk_tuning {
    uint32_t matmul_wg;   /* invocations along K */
    uint32_t matmul_rows; /* rows per workgroup */
    uint32_t matmul_tile; /* tokens per workgroup when there are several */
    uint32_t token_wg;    /* embed, rmsnorm, add_norm, geglu */
    uint32_t head_wg;     /* rope_store, attention */
    uint32_t attend_wg;   /* attend_one */
    uint32_t sample_wg;   /* sample_*, a power of two of at most SAMPLE_BINS / 2 */
    uint32_t quantize_wg; /* quantize */
    uint32_t few_max;     /* tokens up to which few.comp is taken where nothing was measured */
    uint32_t batch_max;   /* tokens in one pass, at most VK_BATCH_MAX */
    double
        segment_flops; /* of one submission: a GPU that is busy for two seconds is taken for hung */
};

/* Elements of an int4 or int8 weight in 16 bytes. */
static inline uint32_t vk_block_of(uint32_t type)
{
    return type == WEIGHT_Q4 ? 32 : 16;
}

/* What gemv.comp is made for. */
struct vk_gemv_shape {
    uint32_t type, affine, group, cols;
    uint32_t units;  /* rows of the result */
    uint32_t normed; /* z is made by a norm in its prologue */
    uint32_t glu;    /* a unit is a gate's row and an up's */
};

/* How it runs: see gemv.comp. */
struct vk_gemv_tuning {
    uint32_t wg, lanes, rows, unroll;
    uint32_t per_cu; /* workgroups per compute unit */
};

struct vk_gemv_choice {
    struct vk_gemv_shape shape;
    struct vk_gemv_tuning tuning;
    double gbps; /* as measured with it */
};

/* What a GEMM is made for. */
struct vk_gemm_shape {
    uint32_t type, affine, group, cols, rows;
    uint32_t batch; /* up to so many tokens: 8, 16, 32, VK_ALL_MAX or VK_BATCH_MAX */
};

/* How it runs: see gemm.glsl and gemm_few.glsl. */
struct vk_gemm_tiles {
    uint32_t rows, tokens, k; /* of a workgroup */
    uint32_t mats; /* GEMM_MATS: gemm.comp, GEMM_SMALL_MATS: gemm_small.comp; not read of a few */
    uint32_t buffers;
    uint32_t split;   /* which tiles are made in parts along K: VK_SPLIT_...; of a few: the parts */
    uint32_t few;     /* VK_FEW_... */
    uint32_t warps_k; /* of a few: subgroups that share rows */
};

#define VK_FEW_NOT    0 /* gemm.glsl */
#define VK_FEW_SHARED 1 /* gemm_few.glsl, its weights through shared memory */
#define VK_FEW_DIRECT 2 /* from register to register */

/* A device makes so many tiles at once, a wave; what is left over after the last full wave, or all
 * if there is none, would leave part of it idle. */
#define VK_SPLIT_NONE 0
#define VK_SPLIT_TAIL 1 /* what is left over */
#define VK_SPLIT_MORE 2 /* and the last full wave */

struct vk_gemm_choice {
    struct vk_gemm_shape shape;
    struct vk_gemm_tiles tiles;
    double tflops; /* as measured with it */
};

/* What few.comp is made for. */
struct vk_few_shape {
    uint32_t type, affine, group, cols, rows;
    uint32_t glu;   /* a unit is a gate's row and an up's */
    uint32_t batch; /* one of vk_batches */
};

/* How it runs: see few.comp. */
struct vk_few_tuning {
    uint32_t wg, lanes, rows, unroll;
    uint32_t tokens; /* of a workgroup; in a choice, 0: a GEMM is faster */
};

struct vk_few_choice {
    struct vk_few_shape shape;
    struct vk_few_tuning tuning;
    double us; /* as measured with it */
};

/* How a matrix of layers.comp is read: as SPEC_LANES, SPEC_GEMV_ROWS, SPEC_UNROLL and NEAR say. */
#define VK_LAYERS_TILES     4
#define VK_LAYERS_LOADS_MAX 16 /* of an invocation at once: more is nothing that was tried */
struct vk_layers_tile {
    uint32_t lanes, rows, unroll, near;
};

/* How layers.comp runs. */
struct vk_layers_plan {
    uint32_t wg, groups; /* all groups must be on the device at once */
    /* Of QKV, attention's output, gate and up, down. */
    struct vk_layers_tile tiles[VK_LAYERS_TILES];
};

/* What layers.comp is made for, and how many times it goes round. */
struct vk_layers_shape {
    uint32_t type, affine, group, hidden, ffn, n_heads, n_kv_heads, head_dim, n_layers;
};

struct vk_layers_choice {
    struct vk_layers_shape shape;
    struct vk_layers_plan plan; /* the fastest */
    double plan_us;             /* of all layers, as measured; 0: none can run */
    double steps_us;            /* the same with a dispatch for each step */
};

struct backend {
    struct vkc_instance *instance;
    struct vkc_device *device;
    struct vk_tuning tuning;
    bool copy_weights;                  /* see backend_params */
    struct start *start;                /* likewise */
    const struct weight_keeper *keeper; /* of the model bound last; borrowed; NULL: none */
    struct vk_gemv_choice *choices;     /* [n_choices], measured: tune_gemv.c */
    uint32_t n_choices;
    struct vk_gemm_choice *gemms; /* [n_gemms], measured: tune_gemm.c */
    uint32_t n_gemms;
    uint32_t matrix_order;      /* SPEC_ORDER, or VK_ORDER_NONE: it is another one, or unknown */
    struct vk_few_choice *fews; /* [n_fews], measured: tune_few.c */
    uint32_t n_fews;
    struct vk_layers_choice *layers_choices; /* [n_layers_choices], measured: tune_layers.c */
    uint32_t n_layers_choices;
    char *choices_path;              /* NULL: none on disk */
    const struct vk_few_tuning *few; /* how few.comp runs, if it can; NULL: as suits each matrix */
    bool always_layers; /* decode by layers.comp wherever it can run, not only where it is faster */
};

/* weights.c */

struct vk_weights {
    struct vkc_buffer *chunks; /* [n_chunks] */
    uint32_t n_chunks;
    uint64_t chunk_bytes;
    bool is_copy; /* in the device's own memory */
    struct weight_start start;
};

/* The best way for a device to reach memory, and why it is not a better one (a static text). */
enum weight_path vk_weight_path(const struct vkc_physical *physical, bool is_dmabuf,
                                const char **ret_why);
int vk_weights_init(struct backend *backend, const struct weight_memory *memory, struct err *err,
                    struct vk_weights *ret, enum weight_path *ret_path);
void vk_weights_finish(struct backend *backend, struct vk_weights *weights);
/* Free the buffers there are. */
void vk_weights_drop(struct backend *backend, struct vk_weights *weights);
uint64_t vk_chunk_bytes(const struct weight_memory *memory, uint32_t i);
uint64_t vk_weights_address(const struct vk_weights *weights, uint64_t off);

/* device_copy.c */

/* Why a copy on this device cannot outlive the process; NULL: it can. A static text. */
const char *vk_copy_dies_because(const struct vkc_physical *physical, bool forced);

/* Fill weights->chunks with a copy in the device's own memory: one that was kept
 * (WEIGHT_PATH_ADOPTED) or a new one (WEIGHT_PATH_DEVICE_COPY), and weights->start. While it lives,
 * what is kept for others may be given up if the device runs out of memory. */
int vk_device_copy(struct backend *backend, const struct weight_memory *memory, struct err *err,
                   struct vk_weights *weights, enum weight_path *ret_path);
void vk_device_copy_finish(struct backend *backend, struct vk_weights *weights);

/* model.c */

/* For tokens of one timeline, or of one each. */
struct vk_attend_pipelines {
    VkPipeline rope_store, attention;
    VkPipeline attend_one; /* NULL: head_dim or the device do not suit it */
};

struct backend_model {
    struct backend *backend;   /* borrowed */
    const struct model *model; /* borrowed */
    struct vk_weights weights;
    struct vkc_buffer turns; /* uint64 [2, head_dim / 2]: local, global layers; rotation.glsl */
    VkPipeline rmsnorm, add_norm, geglu, to_half, sum_parts;
    VkPipeline geglu_half; /* NULL: no cooperative matrices */
    VkPipeline flash;      /* NULL: head_dim or the device do not suit it */
    struct vk_attend_pipelines attend;
    uint32_t attend_one_heads;    /* per workgroup */
    struct vk_many *many;         /* NULL: nobody has asked for several timelines yet */
    struct vk_layers_plan layers; /* groups 0: a token's steps are a dispatch each */
};

int vk_bind(struct backend *backend, const struct model *model, struct err *err,
            struct backend_model **ret, enum weight_path *ret_path);
void vk_unbind(struct backend_model *bm);
bool vk_weight_start(const struct backend_model *bm, struct weight_start *ret);
int vk_embed_pipeline(struct backend_model *bm, struct err *err, VkPipeline *ret);
int vk_matmul_pipeline(struct backend_model *bm, const struct weight *w, uint32_t tile,
                       struct err *err, VkPipeline *ret);
/* Of attention: invocations that share a key; shared memory, of workgroups of so many subgroups. */
uint32_t vk_key_lanes(const struct backend_model *bm);
uint32_t vk_attend_floats(uint32_t heads, uint32_t row, uint32_t subgroups);
int vk_attend_pipelines(struct backend_model *bm, bool many, struct err *err,
                        struct vk_attend_pipelines *ret);

/* gemv.c */

struct backend_state;

/* Where a matrix's input comes from: PROLOGUE in gemv.comp. */
struct vk_gemv_input {
    uint32_t prologue; /* GEMV_... */
    uint64_t x;
    uint64_t y, post, next, x_out; /* those that the prologue needs */
};

/* Whether gemv.comp can run a matrix on this device; if not, matmul.comp does. */
bool vk_gemv_fits(const struct backend *backend, const struct weight *w);
struct vk_gemv_shape vk_gemv_shape(const struct weight *w, uint32_t prologue, bool glu);
/* The measured choice for a shape, else one that should be good. */
struct vk_gemv_tuning vk_gemv_tuning(const struct backend *backend,
                                     const struct vk_gemv_shape *shape);
/* Tunings that should be good, the best first; at most cap, and 64. */
uint32_t vk_gemv_candidates(const struct backend *backend, const struct vk_gemv_shape *shape,
                            struct vk_gemv_tuning *ret, uint32_t cap);
int vk_gemv_pipeline(struct backend *backend, const struct vk_gemv_shape *shape, uint32_t prologue,
                     const struct vk_gemv_tuning *tuning, struct err *err, VkPipeline *ret);
/* glu: w is gate and up, the result is of half its rows. tuning NULL: vk_gemv_tuning(). */
int vk_record_gemv(struct backend_state *state, VkCommandBuffer cmd, const struct weight *w,
                   const struct vk_gemv_input *input, uint64_t out, bool glu, const char *name,
                   const struct vk_gemv_tuning *tuning, struct err *err);

/* few.c */

/* Whether few.comp could run a matrix on this device. */
bool vk_few_possible(const struct backend *backend, const struct weight *w);
/* Whether a batch of so many tokens times a matrix is few.comp's. */
bool vk_few_fits(const struct backend *backend, const struct weight *w, uint32_t batch);
struct vk_few_shape vk_few_shape(const struct weight *w, uint32_t batch, bool glu);
/* Tunings that should be good, the best first; at most cap. */
uint32_t vk_few_candidates(const struct backend *backend, const struct weight *w, uint32_t batch,
                           bool glu, struct vk_few_tuning *ret, uint32_t cap);
/* As measured, else as should be good. */
struct vk_few_tuning vk_few_tuning(const struct backend *backend, const struct weight *w,
                                   uint32_t batch, bool glu);
int vk_few_pipeline(struct backend *backend, const struct weight *w, const struct vk_few_tuning *t,
                    bool glu, struct err *err, VkPipeline *ret);
/* As vk_record_gemv(), for batch tokens: two dispatches. */
int vk_record_few(struct backend_state *state, VkCommandBuffer cmd, const struct weight *w,
                  const struct vk_gemv_input *input, uint64_t out, bool glu, uint32_t batch,
                  const char *name, struct err *err);

/* layers.c */

/* Whether layers.comp can run a model's layers on this device. */
bool vk_layers_fit(const struct backend_model *bm);
/* Whether its workgroups are of a size that this model and device allow. */
bool vk_layers_suits(const struct backend_model *bm, const struct vk_layers_plan *plan);
/* The plan for a size of workgroup and a number of them; false: there is none. max_loads: of 16
 * bytes, that an invocation has under way at once. */
bool vk_layers_plan(const struct backend_model *bm, uint32_t wg, uint32_t groups,
                    uint32_t max_loads, struct vk_layers_plan *ret);
/* The plan with another tile for one of its matrices; false: there is none for this variant, of
 * VK_LAYERS_VARIANTS. */
#define VK_LAYERS_VARIANTS 4
bool vk_layers_variant(const struct backend_model *bm, const struct vk_layers_plan *plan, int which,
                       uint32_t variant, struct vk_layers_plan *ret);
int vk_layers_pipeline(struct backend_model *bm, const struct vk_layers_plan *plan, struct err *err,
                       VkPipeline *ret);
/* What layers.comp needs of a timeline, if it fits; vk_layers_finish() frees it, also after an
 * error. */
int vk_layers_init(struct backend_state *state, struct err *err);
void vk_layers_finish(struct backend_state *state);
/* From ACT_X to ACT_X and what is to be added to it, ACT_Y. spins: looks at the others, about a
 * microsecond each, before the workgroups of a plan give up. */
#define VK_LAYERS_SPINS (1u << 19)
int vk_record_layers(struct backend_state *state, VkCommandBuffer cmd,
                     const struct vk_layers_plan *plan, uint32_t spins, struct err *err);
/* After a failure, or before the first time. Nothing may be in flight. */
int vk_layers_reset(struct backend_state *state, struct err *err);
/* Workgroups have waited in vain for others: the plan has too many. */
bool vk_layers_failed(const struct backend_state *state);
/* -ETIME if they have: what is recorded from then on for this model has a dispatch for each step.
 */
int vk_layers_check(struct backend_state *state, struct err *err);

/* gemm_few.c */

/* Elements of a stored type in 16 bytes. */
uint32_t vk_gemm_block_of(uint32_t type);
/* For tiles of a few: subgroups of a workgroup; whether they suit a matrix on this device. */
uint32_t vk_gemm_few_warps(const struct vkc_physical *physical, const struct vk_gemm_tiles *t);
bool vk_gemm_few_suits(const struct backend *backend, const struct weight *w,
                       const struct vk_gemm_tiles *t);
enum shader_id vk_gemm_few_shader(const struct vkc_physical *physical,
                                  const struct vk_gemm_tiles *t);
/* As vk_gemm_candidates(), of a few only. */
uint32_t vk_gemm_few_candidates(const struct backend *backend, const struct weight *w,
                                uint32_t batch, struct vk_gemm_tiles *ret, uint32_t cap);

/* matrix_order.c */

#define VK_ORDER_NONE 0x100
/* Ask the device: backend->matrix_order. */
int vk_matrix_order(struct backend *backend, struct err *err);

/* gemm.c */

/* Whether several tokens times a matrix can use cooperative matrices. */
bool vk_gemm_fits(const struct backend *backend, const struct weight *w);
/* Whether any could. */
bool vk_gemm_possible(const struct backend *backend);
struct vk_gemm_shape vk_gemm_shape(const struct weight *w, uint32_t batch);
/* Tiles that should be good, the best first; at most cap. Any split suits them. */
uint32_t vk_gemm_candidates(const struct backend *backend, const struct weight *w, uint32_t batch,
                            struct vk_gemm_tiles *ret, uint32_t cap);
/* tiles NULL: as measured for the largest batch, else the first candidate. */
int vk_gemm_pipeline(struct backend *backend, const struct weight *w,
                     const struct vk_gemm_tiles *tiles, struct err *err, VkPipeline *ret);
/* ACT_HALF and ACT_POWER of what is in x, f32 [batch, width]. */
void vk_record_to_half(struct backend_state *state, VkCommandBuffer cmd, uint64_t x, uint32_t width,
                       uint32_t batch);
/* y = ACT_HALF w^T, f32; y is among the activations or the logits. ACT_GATE_UP (from ACT_Y to
 * ACT_ATT, if y is that) may be overwritten. leave_parts: who reads y next adds up vk_gemm_parts().
 */
int vk_record_gemm(struct backend_state *state, VkCommandBuffer cmd, const struct weight *w,
                   const struct vk_gemm_tiles *tiles, uint64_t y, bool leave_parts, uint32_t batch,
                   const char *name, struct err *err);
/* What of y was left in parts: rows from first on. All 0: nothing. */
struct vk_gemm_parts {
    uint64_t address; /* f32 [n, floats], a part: [batch, rows] */
    uint32_t first, rows, floats, n;
};
struct vk_gemm_parts vk_gemm_parts(const struct backend_state *state, const struct weight *w,
                                   uint64_t y, uint32_t batch);

/* tune_few.c */

/* What was measured for a shape; NULL: nothing. */
const struct vk_few_choice *vk_few_find(const struct backend *backend,
                                        const struct vk_few_shape *shape);
bool vk_tune_few_wanted(const struct backend_model *bm);
/* Measure shapes that were not measured before, until end_ns of CLOCK_MONOTONIC. */
int vk_tune_few(struct backend_state *state, uint64_t end_ns, uint32_t *ret_n_new, struct err *err);
/* A line of the file of choices. */
int vk_few_choice_print(const struct vk_few_choice *choice, char *text, size_t size);
/* Keep what a line says, unless it says nothing that could be run. */
void vk_few_choice_read(struct backend *backend, const char *line);

/* tune_gemm.c */

/* What was measured for a shape; NULL: nothing. */
const struct vk_gemm_choice *vk_gemm_find(const struct backend *backend,
                                          const struct vk_gemm_shape *shape);
/* Keep what was measured. */
int vk_gemm_add(struct backend *backend, const struct vk_gemm_choice *choice);
bool vk_tune_gemm_wanted(const struct backend_model *bm);
/* Measure shapes that were not measured before, until end_ns of CLOCK_MONOTONIC. */
int vk_tune_gemm(struct backend_state *state, uint64_t end_ns, uint32_t *ret_n_new,
                 struct err *err);
/* A line of the file of choices. */
int vk_gemm_choice_print(const struct vk_gemm_choice *choice, char *text, size_t size);
/* Keep what a line says, unless it says nothing that this device could run. */
void vk_gemm_choice_read(struct backend *backend, const char *line);

/* tune_layers.c */

void vk_layers_shape_of(const struct model *model, struct vk_layers_shape *ret);
bool vk_tune_layers_wanted(const struct backend_model *bm);
/* Try the plans of a model that was not tried before; not begun after end_ns of CLOCK_MONOTONIC. */
int vk_tune_layers(struct backend_state *state, uint64_t end_ns, uint32_t *ret_n_new,
                   struct err *err);
/* Whether what was measured for a model says that layers.comp should be used. */
bool vk_layers_win(const struct backend_model *bm);
/* bm->layers, from what was measured, and its pipeline. */
void vk_layers_choose(struct backend_model *bm);
/* A line of the file of choices: print it; keep what it says, unless it says nothing that this
 * device could run. */
#define VK_CHOICE_TEXT_SIZE 512
int vk_layers_choice_print(const struct vk_layers_choice *choice, char *text, size_t size);
void vk_layers_choice_read(struct backend *backend, const char *line);

/* flash.c */

/* Whether attention of several tokens can use cooperative matrices. */
bool vk_flash_fits(const struct backend *backend, const struct model_config *config);
int vk_flash_pipeline(struct backend *backend, const struct model_config *config, struct err *err,
                      VkPipeline *ret);
void vk_record_flash(struct backend_state *state, VkCommandBuffer cmd, uint32_t layer,
                     uint32_t batch);

/* tune.c */

/* Smaller matrices cost a barrier, however they are read. */
#define VK_TUNE_MIN_BYTES (256u << 10)
/* Whether a model has shapes that were not measured on this device before. */
bool vk_tune_wanted(const struct backend_model *bm);
/* Measure them, and keep the result beside the pipeline cache. state: any of the model's. */
int vk_tune(struct backend_state *state, struct err *err);
/* Run what writes timestamps 0 and 1 of the timer; *best_ns: between them, if that is less or
 * *best_ns is 0. */
int vk_run_timed(struct backend *backend, VkCommandBuffer cmd, VkQueryPool timer, struct err *err,
                 double *best_ns);

/* tune_gemv.c */

bool vk_tune_gemv_wanted(const struct backend_model *bm);
/* Measure the shapes of one token that are new; none is begun after end_ns of CLOCK_MONOTONIC. */
int vk_tune_gemv(struct backend_state *state, uint64_t end_ns, uint32_t *ret_n_new,
                 struct err *err);
int vk_gemv_choice_print(const struct vk_gemv_choice *choice, char *text, size_t size);
void vk_gemv_choice_read(struct backend *backend, const char *line);

/* choices.c */

#define VK_CHOICES_NAME_SIZE 64
/* The file's name: of this device and driver. */
void vk_choices_name(const struct vkc_physical *physical, char name[static VK_CHOICES_NAME_SIZE]);
/* What of a file are choices that this device can have; the rest is left out. Needs
 * backend->device's physical only. */
void vk_choices_read(struct backend *backend, FILE *f);
/* Read what an earlier run measured: cache_dir may be NULL. */
void vk_choices_load(struct backend *backend, const char *cache_dir);
/* Write the file again. It is only a saving of time: what cannot be written is logged. */
void vk_choices_save(const struct backend *backend);

/* sample.c */

/* What is recorded to draw tokens: the fewer filters, the fewer dispatches. */
#define VK_SAMPLE_GREEDY 0
#define VK_SAMPLE_DRAW   1 /* by weight; + 1: of the top_k; + 2: of the top_p */
#define VK_SAMPLE_KINDS  5

struct vk_sample_pipelines {
    VkPipeline top, bins, draw;
};

/* Draws a token from each of some rows of logits, and keeps what a row needs to go on drawing. */
struct vk_sampler {
    struct backend *backend; /* borrowed */
    uint32_t vocab, n_rows;
    uint32_t slices; /* of a row's ids, a workgroup each */
    struct vk_sample_pipelines pipelines;
    struct vkc_buffer rows;   /* struct sample_row [n_rows] */
    struct vkc_buffer work;   /* uint32 [n_rows, WORK_WORDS] */
    struct vkc_buffer seen;   /* bitmap [n_rows, (vocab + 31) / 32 words] */
    struct vkc_buffer adjust; /* f32 [n_rows, vocab]; made on first use */
    struct vkc_buffer ring;   /* uint32 [n_rows, SAMPLE_RING]: what was drawn, for the host */
};

/* Where the tokens come from and where they go to, besides the ring. */
struct vk_sample_io {
    uint64_t logits;     /* f32 [n_rows, vocab] */
    uint64_t next_id;    /* of row r at + 4 * r: the token, 0 if there is none */
    uint64_t next_pos;   /* of row r at + 4 * r * pos_stride: advanced by one */
    uint32_t pos_stride; /* in words */
    uint32_t n_rows;     /* the first ones of the sampler's */
};

int vk_sample_pipelines(struct backend *backend, struct err *err, struct vk_sample_pipelines *ret);
/* A failed call leaves *ret as vk_sampler_finish() leaves it. */
int vk_sampler_init(struct backend *backend, uint32_t vocab, uint32_t n_rows, struct err *err,
                    struct vk_sampler *ret);
void vk_sampler_finish(struct vk_sampler *sampler);
/* The kind of dispatches that a row needs; VK_SAMPLE_KINDS - 1 suits all. */
uint32_t vk_sample_kind(const struct backend_sampling *how);
/* Start a row: its next token is that of `step`, after history[0..n). Nothing may be in flight. */
int vk_sampler_start(struct vk_sampler *sampler, uint32_t row, const struct backend_sampling *how,
                     const int32_t *history, size_t n, uint32_t step, struct err *err);
/* Record the drawing of one token per row, after a barrier of its own; marks may be of NULL. */
void vk_record_sample(struct vk_sampler *sampler, VkCommandBuffer cmd, uint32_t kind,
                      const struct vk_sample_io *io, struct backend_state *marks);
/* The token of a step that is done, until SAMPLE_RING more are. -EDOM: the logits are not numbers.
 */
int vk_sampler_token(const struct vk_sampler *sampler, uint32_t row, uint32_t step, struct err *err,
                     int32_t *ret);

/* state.c */

/* Activations, f32 [tokens, width], all in one buffer, in this order. */
enum vk_act {
    ACT_X,       /* residual stream [hidden] */
    ACT_X_NEXT,  /* the same, one half-layer on: decode.c writes one from the other in turn */
    ACT_Y,       /* what a half-layer adds to it [hidden] */
    ACT_Z,       /* normed x [hidden] */
    ACT_QKV,     /* [(n_heads + 2 n_kv_heads) * head_dim] */
    ACT_Q,       /* [n_heads * head_dim] */
    ACT_ATT,     /* [n_heads * head_dim] */
    ACT_GATE_UP, /* [2 * ffn] */
    ACT_H,       /* [ffn] */
    ACT_HALF,    /* a matrix's input in 16 bits, for a GEMM and few.comp */
    ACT_POWER,   /* [POWER_COPIES]: its scale for a GEMM */
    ACT_BLOCKS,  /* its blocks' scales and sums for few.comp */
    ACT_COUNT,
};

struct vk_kv {
    struct vkc_buffer buffer; /* f16 [2, n_kv_heads, ring, row_halfs]: k, v */
    uint32_t ring;            /* position p is in slot p % ring; a multiple of FLASH_RING_ALIGN */
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

/* What a recorded pass does with its logits instead of copying them to the host. */
struct vk_step_end {
    struct vk_sampler *sampler;
    uint32_t kind;
    struct vk_sample_io io;
};

/* A timeline that decodes ahead of the host. */
struct vk_run_row {
    struct backend_state *state; /* borrowed */
    uint32_t pos;                /* of the next token to submit */
    uint32_t step;               /* of the next token to collect */
};

/* Decoding ahead of the host; see backend_ops.decode_start. */
struct backend_run {
    struct backend_state *by;  /* borrowed: whose step and activations these are */
    struct vk_sampler sampler; /* of n_rows; made on first use */
    uint32_t n_rows;           /* the most timelines */
    struct vk_recording recordings[VK_N_BATCHES][VK_SAMPLE_KINDS];
    struct vk_step_end end;               /* of what is decoded now, as are those below */
    const struct vk_recording *recording; /* NULL: nothing is decoded */
    struct vk_run_row rows[STEP_ROWS_MAX];
    uint32_t n;
    uint32_t submitted, collected;
    uint64_t done[SAMPLE_RING]; /* of a step: what to wait for */
};

/* A timeline, or what many.c works with: then there is none, and every token is of another one. */
struct backend_state {
    struct backend_model *bm; /* borrowed */
    uint32_t max_pos;
    uint32_t ring_start;      /* local layers have lost what lies before this position */
    struct vk_kv *kv;         /* [n_layers]; NULL: no timeline */
    struct vkc_buffer layers; /* struct layer_kv [n_layers]: kv, for the device */
    struct vkc_buffer acts;
    uint64_t act_off[ACT_COUNT];
    struct vkc_buffer step; /* struct step */
    /* attend_one.comp's; the first, layers.comp's, too: */
    struct vkc_buffer part_sums;  /* f32 [tokens, n_heads, parts, row_halfs + ATTEND_PART_END] */
    struct vkc_buffer finished;   /* uint32 [tokens, n_heads], 0 between dispatches */
    struct vkc_buffer layer_rows; /* struct layer_row [n_layers] */
    struct vkc_buffer layers_arrived, layers_failed; /* uint32: see layers.comp */
    struct vk_marks *marks;                          /* NULL: nothing is timed */
    struct vk_logits last;                           /* one row */
    struct vk_logits all;                            /* VK_ALL_MAX rows; made on first use */
    struct vk_recording recordings[VK_N_BATCHES][LOGITS_ALL + 1];
    struct backend_run run;
};

int vk_state_create(struct backend_model *bm, uint32_t max_pos, struct err *err,
                    struct backend_state **ret, uint32_t *ret_rewind_max, uint64_t *ret_kv_bytes);
/* Without a timeline, for a token each of up to STEP_ROWS_MAX others. */
int vk_state_create_many(struct backend_model *bm, struct err *err, struct backend_state **ret);
void vk_state_destroy(struct backend_state *state);
/* All 0 for a state without a timeline. */
struct layer_kv vk_layer_kv(const struct backend_state *state, uint32_t layer);
/* Into how many parts attend_one.comp cuts each token's keys, at most. */
uint32_t vk_attend_parts(const struct backend_model *bm, uint32_t n_tokens);
uint32_t vk_act_width(const struct model_config *config, enum vk_act act);
/* f16 elements of a row of the KV cache: head_dim and padding. */
uint32_t vk_row_halfs(const struct model_config *config);
/* Make the buffers of state->all if they are not there. */
int vk_state_need_all(struct backend_state *state, struct err *err);

/* profile.c */

#define VK_MARKS_MAX 4096

/* Timestamps after each dispatch of a recording. */
struct vk_marks {
    VkQueryPool timer;
    uint32_t n;
    const char *names[VK_MARKS_MAX];
};

/* The dispatch just recorded is called name; does nothing if state->marks is NULL. */
void vk_mark(struct backend_state *state, VkCommandBuffer cmd, const char *name);
int vk_profile(struct backend_state *state, const int32_t *ids, uint32_t n, uint32_t pos,
               struct kernel_time *ret, size_t cap, size_t *ret_n, struct err *err);
int vk_decode_profile(struct backend_run *run, struct kernel_time *ret, size_t cap, size_t *ret_n,
                      struct err *err);

/* readspeed.c */

int vk_read_speed(struct backend_model *bm, double *ret, struct err *err);

/* record.c */

/* Append one operation for up to batch tokens, without barriers. OP_HEAD writes state->last (the
 * last token only) or state->all. */
int vk_record_op(struct backend_state *state, VkCommandBuffer cmd, enum backend_op op,
                 uint32_t layer, uint32_t batch, bool last_only, struct err *err);
/* The pipelines that suit a state. */
const struct vk_attend_pipelines *vk_attend_of(const struct backend_state *state);
/* Record RoPE, KV and attention of one token, or of one each of several timelines, as one dispatch;
 * where vk_attend_of() has no attend_one, OP_ROPE_STORE and OP_ATTENTION do it. as_half: to
 * ACT_HALF and ACT_POWER instead of ACT_ATT. */
void vk_record_attend_one(struct backend_state *state, VkCommandBuffer cmd, uint32_t layer,
                          uint32_t batch, bool as_half);
/* The recording of a forward pass for up to vk_batches[batch_index] tokens, made on first use. */
int vk_record_forward(struct backend_state *state, uint32_t batch_index, enum logits_want want,
                      struct err *err, const struct vk_recording **ret);

/* Record a pass from scratch, for whoever wants one of his own; vk_recording_finish() frees it. end
 * (may be NULL): of a pass that may be submitted again while it is in flight. */
int vk_recording_init(struct backend_state *state, uint32_t batch, enum logits_want want,
                      const struct vk_step_end *end, struct err *err, struct vk_recording *ret);
void vk_recording_finish(struct backend_state *state, struct vk_recording *recording);

/* decode.c */

/* A pass being recorded, of one token or of one each of several timelines: like the ops, in fewer
 * dispatches. */
struct vk_decode {
    struct backend_state *state;
    VkCommandBuffer cmd; /* may change between calls */
    uint32_t batch;
    struct err *err;
    struct vk_gemv_input pending; /* what is to be done to the residual stream before it is read */
};
int vk_decode_begin(struct vk_decode *decode);
/* All layers in one dispatch. */
int vk_decode_layers(struct vk_decode *decode);
int vk_decode_layer(struct vk_decode *decode, uint32_t layer);
/* Logits to state->last, or to state->all if there are several timelines. */
int vk_decode_head(struct vk_decode *decode);

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

/* Refuse a step that does not fit a timeline. */
int vk_check_step(const struct backend_state *state, uint32_t n, uint32_t pos, struct err *err);

/* steps.c */

void vk_run_finish(struct backend_run *run);
int vk_decode_start(struct backend_state *const *states, const struct backend_decode *from,
                    uint32_t n, struct err *err, struct backend_run **ret);
int vk_decode_submit(struct backend_run *run, struct err *err);
int vk_decode_collect(struct backend_run *run, int32_t *ret_ids, struct err *err);
void vk_decode_stop(struct backend_run *run);

/* many.c */

/* One token each of several timelines: what that takes besides them. */
struct vk_many {
    struct vk_attend_pipelines attend;
    struct backend_state *state; /* without a timeline */
};

int vk_forward_many(struct backend_state *const *states, const int32_t *ids, const uint32_t *pos,
                    uint32_t n, float *logits, struct err *err);
/* Refuse what backend_ops.forward_many() does. */
int vk_check_many(struct backend_state *const *states, const int32_t *ids, const uint32_t *pos,
                  uint32_t n, struct err *err);
/* See that bm->many is there, and that nobody decodes with it: -EBUSY. */
int vk_need_many(struct backend_model *bm, struct err *err);
/* Write a checked step of theirs for the device; many: bm->many's state. */
void vk_set_rows(struct backend_state *many, struct backend_state *const *states,
                 const int32_t *ids, const uint32_t *pos, uint32_t n);
void vk_many_destroy(struct vk_many *many); /* accepts NULL */

/* op.c */

int vk_op(struct backend_state *state, enum backend_op op, uint32_t layer, const int32_t *ids,
          uint32_t n, uint32_t pos, const float *in, float *out, struct err *err);

#endif
