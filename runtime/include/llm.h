/* SPDX-License-Identifier: MIT */
/*
 * The engine: llm_engine is a loaded model, llm_session one timeline (KV cache, position). Callers
 * give whole token prefixes; the session decides how much of what it has can be reused.
 * llm_generate() is the loop on top: prompt in, sampled text out, piece by piece.
 *
 * Every function that can fail returns 0 or a negative errno and, with it, a sentence in *err
 * (err.h; may be NULL).
 *
 * Threads: an engine may be shared for reading (info, tokenizer). Sessions of one engine must not
 * run at the same time: callers serialise llm_session_* and llm_generate().
 */
#ifndef LLM_H
#define LLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "kernel_time.h"
#include "start.h"
#include "tokenizer.h"

struct llm_engine;
struct llm_session;

/* Where the weights came from, as `--json` prints it: "pool-hit", "pool-fill", "private". */
enum llm_source { LLM_POOL_HIT, LLM_POOL_FILL, LLM_PRIVATE };

struct llm_engine_params {
    const char *model_dir;   /* Hugging Face directory; NULL with random_size */
    const char *random_size; /* "270m" .. "27b": random weights of the true shapes, no files, no
                                tokenizer */
    const char *backend;     /* "auto", "cpu", "vulkan", "reference"; NULL is auto */
    const char *device;      /* see backend_params */
    uint32_t n_threads;      /* 0: all cores this process may use */
    bool private_weights;    /* do not ask gttd */
    const char *gttd_socket; /* NULL: gtt_connect's own search */
    const char *cache_dir;   /* compiled kernels; NULL: none on disk */
    bool copy_weights;       /* for tests: see backend_params */
    bool validate;           /* Vulkan validation layers */
    /* One line, no newline; may be NULL. While llm_engine_open() runs, also from a thread of it. */
    void (*log)(void *data, const char *text);
    /* Long work (reading weights): what, bytes done, bytes in all. Non-zero cancels. May be NULL.
     */
    int (*progress)(void *data, const char *what, uint64_t done, uint64_t total);
    void *data; /* for log and progress */
};

/* How a start came by a copy of the weights in the device's own memory. */
struct llm_device_copy {
    bool kept;         /* gttd keeps it: the next start finds it there */
    double find_ms;    /* asking gttd, and waiting for another process to make it */
    double import_ms;  /* of what gttd kept */
    double compare_ms; /* samples of it with the weights in the pool */
    double copy_ms;    /* from the pool */
    double keep_ms;    /* handing it over to gttd */
};

struct llm_engine_info {
    const char *backend; /* "cpu" ...; these strings live as long as the engine */
    const char *device;
    const char *driver;   /* "radv Mesa 25.0.1"; empty without one */
    const char *source;   /* "pool-hit", "pool-fill", "private" */
    const char *memory;   /* "dma-buf", "host-pointer", "device-copy", "adopted" */
    const char *model_id; /* last component of the model's path, or "random-1b" */
    bool has_device_copy; /* device_copy says something */
    struct llm_device_copy device_copy;
    uint64_t weight_bytes;    /* size of the image */
    uint64_t bytes_per_token; /* what decoding one token reads */
    uint32_t vocab;
    uint32_t max_pos;   /* the model's own limit */
    bool draws_ahead;   /* the backend draws tokens itself: llm_request.n_ahead */
    struct start start; /* when its steps so far were done */
};

/*
 * Load a model: config, tokenizer, weights (from gttd's pool if it answers, else private memory,
 * which is logged), backend. Blocks for as long as that takes; progress is called meanwhile.
 */
int llm_engine_open(const struct llm_engine_params *params, struct err *err,
                    struct llm_engine **ret);
void llm_engine_close(struct llm_engine *engine); /* after its sessions; accepts NULL */
void llm_engine_info(const struct llm_engine *engine, struct llm_engine_info *ret);
/*
 * Go on holding the weights in gttd's pool after gttd has restarted: for a program that runs for
 * long, to be called every second or so, by one thread at a time. Does not block unless gttd has
 * restarted, and then for a quarter of a second at most. Failing is no trouble for generating, as
 * the weights stay mapped: -ECONNRESET gttd is not there; -ESTALE it does not have them any more.
 */
int llm_engine_hold(struct llm_engine *engine, struct err *err);
/* NULL for random weights. Borrowed. */
const struct tokenizer *llm_engine_tokenizer(const struct llm_engine *engine);
bool llm_engine_is_eos(const struct llm_engine *engine, int32_t id);
/* Bytes per second at which the device can read the weights; of a CPU, n_threads (0: all cores) of
 * it. Measures for about a third of a second. */
int llm_engine_read_speed(struct llm_engine *engine, uint32_t n_threads, double *ret,
                          struct err *err);

/* max_pos 0: min(the model's limit, 8192). *err says how much memory a KV cache of that size would
 * need. */
int llm_session_create(struct llm_engine *engine, uint32_t max_pos, struct err *err,
                       struct llm_session **ret);
void llm_session_destroy(struct llm_session *session);
uint32_t llm_session_max_pos(const struct llm_session *session);
uint64_t llm_session_kv_bytes(const struct llm_session *session);

/* Forget the timeline, so that the next call computes everything. How a backend cuts a prompt into
 * batches changes the last bits of the result; from the start, it cuts the same prompt the same
 * way. */
void llm_session_forget(struct llm_session *session);

/*
 * Bring the timeline to exactly ids[0..n), reusing the longest common prefix that is still in the
 * cache. logits: float[vocab] of the last id, or NULL. cancelled (may be NULL) is asked between
 * batches; true stops with -ECANCELED and leaves the session consistent. *ret_reused (may be NULL):
 * tokens not computed again. Errors: -EINVAL an id outside the vocabulary or n is 0, -E2BIG n >
 * max_pos.
 */
int llm_session_sync(struct llm_session *session, const int32_t *ids, size_t n, float *logits,
                     bool (*cancelled)(void *data), void *data, struct err *err,
                     size_t *ret_reused);

/* Every row's logits, float[n * vocab], of a fresh timeline: for `gttrun logits --all`. */
int llm_session_logits_all(struct llm_session *session, const int32_t *ids, size_t n, float *logits,
                           struct err *err);

/* Sequences that can decode together, with any backend. */
#define LLM_MAX_SEQUENCES 32

/*
 * Append ids[i] to sessions[i], for n (1 to LLM_MAX_SEQUENCES) different sessions of one engine, in
 * one pass over the weights: what llm_session_sync() with a token more would do to each, in little
 * more time than for one of them. logits: float [n, vocab], a row per session, or NULL. Between
 * steps, sessions come and go as the caller likes; a prompt goes in by llm_session_sync(). Sums are
 * made in another order than a single session's, so logits may differ in the last bits. Errors:
 * -EINVAL n, a session named twice or of another engine, an id outside the vocabulary; -E2BIG a
 * session's context is full; -EBUSY one is decoding, or others of the engine are decoding together.
 * Nothing has changed then; any other error leaves the sessions forgotten.
 */
int llm_sessions_step(struct llm_session *const *sessions, const int32_t *ids, uint32_t n,
                      float *logits, struct err *err);

/* Added to the logit of a token before anything else is done to it. */
struct llm_logit_bias {
    int32_t id;
    float add; /* finite */
};

struct llm_sampling {
    float temperature;                 /* 0: greedy */
    uint32_t top_k;                    /* 0: off */
    float top_p;                       /* 1: off */
    float min_p;                       /* 0: off */
    float repetition_penalty;          /* 1: off; over prompt and answer */
    uint64_t seed;                     /* same seed, same prompt, same backend: same text, if the
                                          session reuses the same number of tokens */
    const struct llm_logit_bias *bias; /* [n_bias], borrowed; of one id they add up */
    size_t n_bias;
    const uint32_t *allowed; /* bitmap over the vocabulary, 32 ids a word from the lowest bit on: no
                                other token is drawn; borrowed; NULL: all */
};

/*
 * As llm_session_sync() to ids[0..n), with the last n_last of them (at most one batch) in a pass
 * that the device times: *ret_n of at most cap kernels, longest first. Errors: those of sync,
 * -ENOTSUP the backend or the device times nothing.
 */
int llm_session_profile(struct llm_session *session, const int32_t *ids, size_t n, uint32_t n_last,
                        struct kernel_time *ret, size_t cap, size_t *ret_n, struct err *err);
/* The largest n_last. */
uint32_t llm_session_max_batch(const struct llm_session *session);

#define LLM_AHEAD_MAX     8
#define LLM_AHEAD_DEFAULT 4

/*
 * Decoding: a step runs a token of every session and draws the next one, where the backend draws
 * tokens (llm_engine_info.draws_ahead) some steps ahead of the caller. The sessions are borrowed,
 * and nothing else may be called of them until llm_decoder_stop() (most of it says -EBUSY).
 */
struct llm_decoder;

/*
 * n (1 to LLM_MAX_SEQUENCES) different sessions of one engine: ids[i] is what sessions[i] runs
 * first; tokens are drawn as how[i] says, the first one as that of steps[i] (how many were drawn
 * for that answer before). What how[i] borrows must live until llm_decoder_stop(). Errors: those of
 * llm_sessions_step(), those of how. Nothing has changed then, whichever it is.
 */
int llm_decoder_start(struct llm_session *const *sessions, const int32_t *ids, uint32_t n,
                      const struct llm_sampling *how, const uint32_t *steps, struct err *err,
                      struct llm_decoder **ret);
/*
 * The next token of each: ret_ids[i]. On a device that draws, steps are submitted until n_ahead (1
 * to LLM_AHEAD_MAX) are in flight, or a context is full, and the oldest is waited for: a caller who
 * knows how many he still wants asks for no more. Each call makes the token that it ran part of
 * each timeline. Errors: -EINVAL n_ahead; -E2BIG a session's context is full, nothing has changed;
 * -EDOM logits are not numbers. After any other error than the first two the decoder can
 * only be stopped, and the sessions are forgotten then.
 */
int llm_decoder_next(struct llm_decoder *decoder, uint32_t n_ahead, int32_t *ret_ids,
                     struct err *err);
/* Instead of llm_decoder_next(), with nothing in flight: a step that is timed. Its tokens are not
 * told: it is the decoder's last, and the sessions are forgotten. *ret_n of at most cap kernels,
 * longest first. Errors: those, -EINVAL also something is in flight; -ENOTSUP the device times
 * nothing, or does not draw: nothing has changed then. */
int llm_decoder_profile(struct llm_decoder *decoder, struct kernel_time *ret, size_t cap,
                        size_t *ret_n, struct err *err);
/* Accepts NULL. Waits for what is in flight, which is not part of the timelines: a session may have
 * to be forgotten because of it. */
void llm_decoder_stop(struct llm_decoder *decoder);

enum llm_finish {
    LLM_FINISH_STOP,   /* an end token or a stop string */
    LLM_FINISH_LENGTH, /* max_tokens or the context is full */
    LLM_FINISH_CANCELLED,
};

struct llm_request {
    const int32_t *prompt;
    size_t n_prompt;
    uint32_t max_tokens; /* 0: as many as fit */
    struct llm_sampling sampling;
    const char *const *stops; /* text at which to stop; not part of the answer */
    size_t n_stops;
    bool ignore_eos;
    /* Where the backend can draw tokens itself: how many steps it may be ahead of the text, 1 to
     * LLM_AHEAD_MAX; 0: LLM_AHEAD_DEFAULT. What is decoded beyond the end is thrown away. */
    uint32_t n_ahead;
    bool sample_on_host; /* it can, but draw each token here: to compare */
    /* Called with each piece of text that is final: whole UTF-8 characters, no part of a stop
     * string. Non-zero cancels. May be NULL. */
    int (*on_text)(void *data, const char *text, size_t size);
    bool (*cancelled)(void *data); /* asked between batches and tokens; may be NULL */
    void *data;
};

struct llm_result {
    int32_t *ids; /* [n_ids] sampled, end token included; malloc'ed */
    size_t n_ids;
    char *text; /* malloc'ed, NUL-terminated, valid UTF-8 (ill-formed bytes become U+FFFD) */
    size_t text_size;
    enum llm_finish finish;
    size_t n_reused;         /* prompt tokens that were in the cache */
    uint64_t prefill_ns;     /* for n_prompt - n_reused tokens */
    uint64_t decode_ns;      /* for n_ids - 1 tokens after the first */
    uint64_t first_token_ns; /* CLOCK_MONOTONIC when the first token was known */
};

/* The answer so far is in *ret also when cancelled (which is a finish, not an error). Caller
 * finishes *ret. */
int llm_generate(struct llm_session *session, const struct llm_request *request, struct err *err,
                 struct llm_result *ret);
void llm_result_finish(struct llm_result *result);

#endif
