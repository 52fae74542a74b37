/* SPDX-License-Identifier: MIT */
/*
 * The seam between the engine and whatever computes. Three implementations: reference_backend
 * (plain C, one thread, float32, slow, obviously right: the oracle), cpu_backend (SIMD and
 * threads), vulkan_backend. A backend never falls back silently: what it cannot do, it refuses with
 * a reason.
 *
 * Threads: one backend may hold many models and states; calls on one state must not overlap. Calls
 * on different states of one backend may come from different threads only if the backend's info
 * says so; today none does.
 */
#ifndef ENGINE_BACKEND_H
#define ENGINE_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "keeper.h"
#include "kernel_time.h"
#include "model.h"
#include "start.h"

struct backend;       /* a device with its compiled kernels */
struct backend_model; /* weights made readable by that device */
struct backend_state; /* one timeline: KV cache, activations */
struct backend_run;   /* timelines that decode ahead of the host */

struct backend_params {
    uint32_t n_threads;    /* CPU threads; 0: one per core this process may run on */
    const char *device;    /* substring of the device name, or index; NULL: the backend's choice */
    const char *cache_dir; /* for compiled kernels; NULL: no cache on disk */
    bool copy_weights;     /* Vulkan, for tests: copy the weights as a device with memory of its own
                              does, also where they could be read in place */
    bool gpu_only;         /* Vulkan: -ENXIO if there is no usable device that is not a CPU */
    bool always_layers;    /* Vulkan, for tests: decode a token's layers in one dispatch wherever it
                              can be done, not only where it was found to be faster */
    bool validate;         /* Vulkan: load the validation layers; a message from them is an error */
    void (*log)(void *log_data, const char *text); /* may be NULL; one line, no newline */
    void *log_data;
    struct start *start; /* where the steps are noted; outlives the backend; may be NULL */
};

struct backend_info {
    const char *backend; /* "reference", "cpu", "vulkan" */
    char device[256]; /* "AMD EPYC (AVX-512 VNNI, 2 threads)", "llvmpipe (LLVM 15.0.6, 256 bits)" */
    char driver[520]; /* "radv Mesa 25.0.1"; empty: none */
    uint32_t max_batch;     /* largest n of forward() */
    uint32_t max_sequences; /* largest n of forward_many() */
    bool f16_batches;       /* several tokens are multiplied in float16, and added up in float32 */
};

/* How the device reaches the weights, decided when a model is bound. */
enum weight_path {
    WEIGHT_PATH_ADOPTED,      /* read where they were found: by the CPU through the mapping, by a
                                 device in a copy that was kept for it (keeper.h) */
    WEIGHT_PATH_DMABUF,       /* the dma-buf imported by the device, zero copy */
    WEIGHT_PATH_HOST_POINTER, /* the mapping imported by the device, zero copy */
    WEIGHT_PATH_DEVICE_COPY,  /* copied to device-local memory in this start */
};

/* "adopted", "dma-buf", "host-pointer", "device-copy". */
const char *weight_path_text(enum weight_path path);

enum logits_want {
    LOGITS_NONE, /* just extend the KV cache */
    LOGITS_LAST, /* float[vocab]: of the last token */
    LOGITS_ALL,  /* float[n * vocab] */
};

/*
 * How to draw a token from logits. In this order: adjust is added; the tokens of the history are
 * penalised once each (positive logits * (1 / penalty), others * penalty); the best top_k are kept;
 * of those, the best that together have top_p of the weight, at least one; of those, the ones with
 * min_p of the best's weight; one of those is drawn, by id, at the place mix(seed ^ step) / 2^64.
 * weight = floor(exp((logit - best) * rate) * 2^44), in integers; of equal logits the lower id is
 * better. sampler.c is the reference.
 */
struct backend_sampling {
    float rate;          /* 1 / temperature; 0: the best token is taken */
    uint32_t top_k;      /* 0: all */
    float top_p;         /* 1: all */
    float min_p;         /* 0: all */
    float penalty;       /* 1: none */
    uint64_t seed;       /* mixed */
    const float *adjust; /* [vocab]; -INFINITY: never this token; NULL: nothing */
};

/* Where decoding starts: the token at pos is known, and all before it is in the cache. */
struct backend_decode {
    int32_t id;
    uint32_t pos;
    const struct backend_sampling *sampling;
    const int32_t *history; /* [n_history]: prompt and answer, the token at pos included */
    size_t n_history;
    uint32_t step; /* of the token at pos + 1: see struct backend_sampling */
};

#define BACKEND_AHEAD_MAX 8 /* steps in flight */

/*
 * The steps of one layer as separately testable operations, in the order forward() does them. n
 * tokens at positions pos .. pos + n - 1; all activations are float32, row per token:
 *
 * OP_EMBED        ids[n]                  -> x [n, hidden] = embed[id] * sqrt(hidden)   (float32
 * sqrt) OP_ATTN_NORM    x [n, hidden]           -> y [n, hidden] = rmsnorm(x, input_norm) OP_QKV y
 * [n, hidden]           -> [n, (H + 2 KV) * hd] = y * qkv^T OP_ROPE_STORE   [n, (H + 2 KV) * hd] ->
 * q [n, H * hd]: q and k heads are RMS-normed (q_norm, k_norm), then rotated (NeoX halves, the
 * layer's theta, position / factor on global layers), q is multiplied by query_scale; k and v go to
 * the state's KV cache at pos .. OP_ATTENTION    q [n, H * hd]           -> [n, H * hd]: softmax(q
 * k^T) v, causal, window on local layers, keys of positions <= each token's own; KV must be stored
 * before OP_ATTN_OUT     [n, H * hd]             -> [n, hidden] OP_ATTN_ADD     x, y [2, n, hidden]
 * -> [2, n, hidden]: x' = x + rmsnorm(y, post_attn_norm); z = rmsnorm(x', pre_ffn_norm) OP_GATE_UP
 * z [n, hidden]           -> [n, 2 * ffn] OP_GEGLU        [n, 2 * ffn]            -> [n, ffn] =
 * gelu_tanh(gate) * up OP_DOWN         [n, ffn]                -> [n, hidden] OP_FFN_ADD      x, y
 * [2, n, hidden]     -> [2, n, hidden]: x' = x + rmsnorm(y, post_ffn_norm); z = rmsnorm(x', next
 * layer's input_norm, or final_norm) OP_HEAD         z [n, hidden]           -> [n, vocab] logits
 *
 * rmsnorm(x, w)_i = x_i * w_i / sqrt(mean(x^2) + eps), w with the "+1" included.
 * gelu_tanh(x) = x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).
 * Source: transformers, models/gemma3/modeling_gemma3.py.
 */
enum backend_op {
    OP_EMBED,
    OP_ATTN_NORM,
    OP_QKV,
    OP_ROPE_STORE,
    OP_ATTENTION,
    OP_ATTN_OUT,
    OP_ATTN_ADD,
    OP_GATE_UP,
    OP_GEGLU,
    OP_DOWN,
    OP_FFN_ADD,
    OP_HEAD,
    OP_COUNT,
};

struct backend_ops {
    const char *name;

    /* -ENODEV: no such device, with what was looked for. -ENXIO: see gpu_only. On success *ret is
     * the caller's. */
    int (*open)(const struct backend_params *params, struct err *err, struct backend **ret);
    void (*close)(struct backend *backend); /* accepts NULL, as do unbind and state_destroy */
    void (*info)(const struct backend *backend, struct backend_info *ret);

    /*
     * Make a model's weights readable. model and its memory must outlive the result. Chooses the
     * path (dma-buf, host pointer, copy) by what device and memory can do and reports it.
     */
    int (*bind)(struct backend *backend, const struct model *model, struct err *err,
                struct backend_model **ret, enum weight_path *ret_path);
    void (*unbind)(struct backend_model *bm);
    /* Of a bound model whose weights are the device's copy; false: it has none. NULL: never. */
    bool (*weight_start)(const struct backend_model *bm, struct weight_start *ret);

    /*
     * A timeline of at most max_pos tokens. rewind_max: after the cache of a local layer (only the
     * window is kept) has been written up to position p, forward() may continue from any pos >= p -
     * *ret_rewind_max (UINT32_MAX: from anywhere). *ret_kv_bytes: what the KV cache takes.
     */
    int (*state_create)(struct backend_model *bm, uint32_t max_pos, struct err *err,
                        struct backend_state **ret, uint32_t *ret_rewind_max,
                        uint64_t *ret_kv_bytes);
    void (*state_destroy)(struct backend_state *state);

    /*
     * Run ids[0..n) at positions pos .. pos + n - 1 (n in 1 .. max_batch, pos + n <= max_pos, ids
     * checked by the caller) and write the wanted logits to host memory. Blocks until done. Errors:
     * -EIO device lost.
     */
    int (*forward)(struct backend_state *state, const int32_t *ids, uint32_t n, uint32_t pos,
                   enum logits_want want, float *logits, struct err *err);

    /*
     * Decoding without waiting for each token, where the device draws it and goes on by itself: of
     * one timeline, or of n of one model (1 .. max_sequences) in one pass over the weights. All
     * five are NULL if a backend cannot. decode_start() blocks for nothing; from[i] is of
     * states[i]. *ret is the backend's and valid until decode_stop(). decode_submit() adds the next
     * step, which runs each timeline's token drawn last, storing its key and value, and draws the
     * one after it. Does not block. At most BACKEND_AHEAD_MAX may be in flight. decode_collect()
     * sleeps until the oldest one in flight is done; that has been run then whatever it returns.
     * decode_stop() waits for what is in flight. Until then nothing else may be called of
     * these states (destroying one that decodes alone stops it). What was submitted has been
     * written to the cache: going on from before it is going back, as for forward(). Errors: as
     * forward_many(); -EINVAL also a timeline is full, or nothing is in flight; -EBUSY too many
     * steps are in flight, a timeline alone is decoding already, or others of the model are
     * decoding together (that none does both is the caller's to see to); -EDOM logits are not
     * numbers (in later steps that row's tokens mean nothing).
     */
    int (*decode_start)(struct backend_state *const *states, const struct backend_decode *from,
                        uint32_t n, struct err *err, struct backend_run **ret);
    int (*decode_submit)(struct backend_run *run, struct err *err);
    int (*decode_collect)(struct backend_run *run, int32_t *ret_ids /* [n] */, struct err *err);
    void (*decode_stop)(struct backend_run *run); /* accepts NULL */
    /* As decode_submit() and decode_collect(), with nothing else in flight, but timed: *ret_n of at
     * most cap kernels, longest first. Errors: those, -ENOTSUP the device has no clock. */
    int (*decode_profile)(struct backend_run *run, struct kernel_time *ret, size_t cap,
                          size_t *ret_n, struct err *err);

    /*
     * One token for each of n timelines of one model, in one pass over the weights: ids[i] at
     * position pos[i] of states[i]. n in 1 .. max_sequences. logits: row i is of states[i]; NULL:
     * just extend the KV caches. Blocks until done. Errors: -EINVAL n is out of range, a state is
     * named twice or of another model, an id or a position is none of its own; -EBUSY others of the
     * model are decoding together (nothing has changed then); -EIO device lost.
     */
    int (*forward_many)(struct backend_state *const *states, const int32_t *ids,
                        const uint32_t *pos, uint32_t n, float *logits /* [n, vocab] */,
                        struct err *err);

    /* As forward() with LOGITS_LAST, but timed, as decode_profile(); the logits stay there. NULL:
     * this backend has no kernels to time. */
    int (*profile)(struct backend_state *state, const int32_t *ids, uint32_t n, uint32_t pos,
                   struct kernel_time *ret, size_t cap, size_t *ret_n, struct err *err);

    /* Bytes per second at which the device reads the weights when it does nothing else. NULL: they
     * are read by this CPU, whose speed is not the backend's to measure. */
    int (*read_speed)(struct backend_model *bm, double *ret, struct err *err);

    /* One operation alone, for the conformance suite: same kernels as forward(). layer is ignored
     * by OP_EMBED and OP_HEAD; in is NULL for OP_EMBED, ids for all others. */
    int (*op)(struct backend_state *state, enum backend_op op, uint32_t layer, const int32_t *ids,
              uint32_t n, uint32_t pos, const float *in, float *out, struct err *err);
};

/* What every forward_many() refuses first: n and max, states named twice, ids beyond vocab. */
int backend_check_many(struct backend_state *const *states, const int32_t *ids, uint32_t n,
                       uint32_t max, uint32_t vocab, struct err *err);

extern const struct backend_ops reference_backend;
extern const struct backend_ops cpu_backend;
extern const struct backend_ops vulkan_backend;

#endif
