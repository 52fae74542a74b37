/* SPDX-License-Identifier: MIT */
/* The conformance suite: see conformance.h. */
#include "conformance.h"

#include <errno.h>
#include <math.h>

#include "check.h"
#include "image.h"
#include "random_model.h"

enum variant_flag {
    UNTIED = 1,
    CHUNKS = 2, /* chunks of 2 MiB, so that there are several */
    QUICK = 4,  /* part of the quick run */
    WIDE = 8,   /* too slow on the reference for the long run */
};

/* One random model: what differs from the base configuration in base_config(). */
struct variant {
    const char *name;
    struct weight_format layers, embed; /* of all layer matrices; of embedding and head */
    uint32_t hidden, ffn, n_heads, n_kv_heads, head_dim, vocab, window;
    unsigned flags;
};

/* clang-format off */
#define F32    {WEIGHT_F32, 0, false}
#define F16    {WEIGHT_F16, 0, false}
#define BF16   {WEIGHT_BF16, 0, false}
#define Q4(g)  {WEIGHT_Q4, (g), false}
#define Q4B(g) {WEIGHT_Q4, (g), true}
#define Q8(g)  {WEIGHT_Q8, (g), false}
#define Q8B(g) {WEIGHT_Q8, (g), true}
/* clang-format on */

/*
 * Together they cover every weight type, group and bias; head_dim 64, 128, 256; 1, 2 and 4 query
 * heads per KV head; n_heads * head_dim above and below hidden; odd vocabularies; rows whose length
 * is no multiple of any SIMD block (96, 160, 288); ffn no power of two.
 */
static const struct variant variants[] = {
    {"f32", F32, F32, 96, 224, 4, 1, 64, 263, 24, QUICK},
    {"bf16", BF16, BF16, 160, 352, 2, 2, 128, 263, 40, 0},
    {"f16", F16, F16, 384, 544, 4, 2, 64, 257, 24, 0},
    {"f16-untied", F16, F32, 96, 160, 2, 1, 256, 101, 24, UNTIED},
    {"q4-g32", Q4(32), Q8(32), 160, 288, 4, 1, 64, 263, 24, QUICK},
    {"q4-g32-bias", Q4B(32), Q8B(32), 96, 352, 4, 2, 64, 263, 24, 0},
    {"q4-g64", Q4(64), Q4(64), 192, 448, 2, 1, 128, 511, 48, 0},
    {"q4-g64-bias", Q4B(64), Q8B(64), 384, 576, 8, 2, 64, 263, 24, QUICK},
    {"q4-g128", Q4(128), Q8(128), 384, 640, 4, 1, 256, 263, 24, 0},
    {"q4-g128-bias", Q4B(128), Q4B(128), 128, 384, 2, 2, 128, 263, 24, 0},
    {"q8-g32", Q8(32), Q8(32), 96, 160, 1, 1, 64, 263, 24, 0},
    {"q8-g64-bias", Q8B(64), Q4B(32), 192, 320, 4, 4, 64, 263, 24, UNTIED},
    {"q8-g128", Q8(128), BF16, 256, 384, 2, 1, 128, 99, 64, 0},
    {"1b-width", Q4(32), Q8(32), 1152, 1728, 4, 1, 256, 263, 512, WIDE},
    {"chunks", BF16, BF16, 384, 864, 4, 1, 64, 2049, 24, CHUNKS | WIDE},
};

enum { N_VARIANTS = sizeof variants / sizeof variants[0] };

struct run {
    const struct backend_ops *ops;
    const struct conformance_tolerances *tol;
    const char *variant;
    struct model model;
    void *image;
    struct backend *subject_backend, *oracle_backend;
    struct backend_model *subject_model, *oracle_model;
    struct backend_state *subject, *oracle;
    struct backend_info info;
    uint32_t max_pos, rewind_max;
    bool quantized; /* layer matrices */
    uint32_t seed;
    uint32_t n_sequences; /* of test_many() */
    int failures;
    double worst; /* largest error as a share of its tolerance */
};

/* A small generator of our own, so that a failure repeats everywhere. */
static uint32_t next_random(struct run *run)
{
    run->seed = run->seed * 1664525u + 1013904223u;
    return run->seed >> 8;
}

/* Roughly normal with a few outliers, as activations are. */
static void fill_random(struct run *run, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (int j = 0; j < 4; j++) {
            sum += (float)next_random(run) / 8388608.0f - 1.0f;
        }
        x[i] = next_random(run) % 97 == 0 ? 6.0f * sum : sum;
    }
}

static float *floats(size_t n)
{
    float *p = malloc(n * sizeof *p);
    CHECK(p);
    return p;
}

/* NaN everywhere, so that an element nobody wrote is seen. */
static void poison(float *x, size_t n)
{
    memset(x, 0xff, n * sizeof *x);
}

static void compare(struct run *run, const char *what, const float *got, const float *want,
                    size_t n, double tolerance)
{
    double diff2 = 0, want2 = 0, peak = 0;
    size_t peak_at = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - want[i]);
        if (isnan(d)) {
            d = INFINITY;
        }
        diff2 += d * d;
        want2 += (double)want[i] * want[i];
        if (d > peak) {
            peak = d;
            peak_at = i;
        }
    }
    double rms = sqrt(want2 / (double)n);
    double limit = tolerance * rms;
    double error = sqrt(diff2 / (double)n);
    if (error > limit || peak > CONFORMANCE_PEAK * limit) {
        fprintf(stderr,
                "%s: %s: off by %.2e rms (allowed %.2e), element %zu of %zu is %g, want %g\n",
                run->variant, what, error / rms, tolerance, peak_at, n, got[peak_at],
                want[peak_at]);
        run->failures++;
    }
    if (tolerance > 0) {
        run->worst = fmax(run->worst, error / limit);
    }
}

static struct model_config base_config(const struct variant *v)
{
    struct model_config c = {
        .n_layers = 3,
        .hidden = v->hidden,
        .ffn = v->ffn,
        .n_heads = v->n_heads,
        .n_kv_heads = v->n_kv_heads,
        .head_dim = v->head_dim,
        .vocab = v->vocab,
        .window = v->window,
        .max_pos = 8192,
        .rms_eps = 1e-6f,
        .query_scale = 1.0f / sqrtf((float)v->head_dim * 1.3f), /* not simply head_dim ^ -1/2 */
        .rope_theta_local = 10000.0f,
        .rope_theta_global = 1000000.0f,
        .rope_factor_global = 8.0f,
        .tied_head = !(v->flags & UNTIED),
        .bos = 2,
        .pad = 0,
        .eos = {1},
        .n_eos = 1,
    };
    c.layer_is_global[1] = true;
    return c;
}

static void open_states(struct run *run)
{
    struct err err;
    uint32_t rewind_max;
    uint64_t kv_bytes;
    CHECK_EQ(run->ops->state_create(run->subject_model, run->max_pos, &err, &run->subject,
                                    &run->rewind_max, &kv_bytes),
             0);
    CHECK(kv_bytes > 0);
    CHECK_EQ(reference_backend.state_create(run->oracle_model, run->max_pos, &err, &run->oracle,
                                            &rewind_max, &kv_bytes),
             0);
    CHECK_EQ(rewind_max, UINT32_MAX);
}

static void close_states(struct run *run)
{
    run->ops->state_destroy(run->subject);
    reference_backend.state_destroy(run->oracle);
}

/* --- operations alone ------------------------------------------------------------------------ */

/* in and out sizes in floats per token, and the tolerance of an operation. */
static void op_shape(const struct run *run, enum backend_op op, size_t *ret_in, size_t *ret_out,
                     double *ret_tolerance, const char **ret_name)
{
    const struct model_config *c = &run->model.config;
    const struct conformance_tolerances *tol = run->tol;
    size_t hidden = c->hidden, ffn = c->ffn, q = c->n_heads * c->head_dim;
    size_t qkv = (c->n_heads + 2 * c->n_kv_heads) * c->head_dim;
    double layer = run->quantized ? tol->matmul_quant : tol->matmul_float;
    bool head_quantized = run->model.head.group != 0;
    double head = head_quantized ? tol->matmul_quant : tol->matmul_float;
    const struct {
        const char *name;
        size_t in, out;
        double tolerance;
    } shapes[OP_COUNT] = {
        [OP_EMBED] = {"embed", 0, hidden, tol->vector},
        [OP_ATTN_NORM] = {"attn_norm", hidden, hidden, tol->vector},
        [OP_QKV] = {"qkv", hidden, qkv, layer},
        [OP_ROPE_STORE] = {"rope_store", qkv, q, tol->vector},
        [OP_ATTENTION] = {"attention", q, q, tol->attention},
        [OP_ATTN_OUT] = {"attn_out", q, hidden, layer},
        [OP_ATTN_ADD] = {"attn_add", 2 * hidden, 2 * hidden, tol->vector},
        [OP_GATE_UP] = {"gate_up", hidden, 2 * ffn, layer},
        [OP_GEGLU] = {"geglu", 2 * ffn, ffn, tol->vector},
        [OP_DOWN] = {"down", ffn, hidden, layer},
        [OP_FFN_ADD] = {"ffn_add", 2 * hidden, 2 * hidden, tol->vector},
        [OP_HEAD] = {"head", hidden, c->vocab, head},
    };
    *ret_in = shapes[op].in;
    *ret_out = shapes[op].out;
    *ret_tolerance = shapes[op].tolerance;
    *ret_name = shapes[op].name;
}

/* Run one operation on both with the same random input and compare. */
static void one_op(struct run *run, enum backend_op op, uint32_t layer, uint32_t n, uint32_t pos)
{
    size_t in_size, out_size;
    double tolerance;
    const char *name;
    op_shape(run, op, &in_size, &out_size, &tolerance, &name);
    float *in = floats(n * in_size + 1);
    float *got = floats(n * out_size);
    float *want = floats(n * out_size);
    int32_t *ids = malloc(n * sizeof *ids);
    CHECK(ids);
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = (int32_t)(next_random(run) % run->model.config.vocab);
    }
    fill_random(run, in, n * in_size);
    if (op == OP_ATTENTION) { /* as OP_ROPE_STORE leaves queries: scores of a few units */
        for (size_t i = 0; i < n * in_size; i++) {
            in[i] *= run->model.config.query_scale;
        }
    }
    /* Gemma 3's activations go far beyond f16's range; who multiplies in f16 must cope. */
    bool is_matmul = op == OP_QKV || op == OP_ATTN_OUT || op == OP_GATE_UP || op == OP_DOWN;
    for (size_t i = 0; n == 5 && is_matmul && i < n * in_size; i++) {
        in[i] *= 3e6f;
    }
    poison(got, n * out_size);
    poison(want, n * out_size);

    struct err err;
    const float *input = op == OP_EMBED ? NULL : in;
    CHECK_EQ(reference_backend.op(run->oracle, op, layer, ids, n, pos, input, want, &err), 0);
    int r = run->ops->op(run->subject, op, layer, ids, n, pos, input, got, &err);
    char what[96];
    snprintf(what, sizeof what, "%s, layer %u, %u tokens at %u", name, layer, n, pos);
    if (r < 0) {
        fprintf(stderr, "%s: %s: %s\n", run->variant, what, err.text);
        run->failures++;
    } else {
        compare(run, what, got, want, n * out_size, tolerance);
    }
    free(in);
    free(got);
    free(want);
    free(ids);
}

static void ops_at(struct run *run, uint32_t n, uint32_t pos)
{
    for (uint32_t layer = 0; layer < run->model.config.n_layers; layer++) {
        for (int op = 0; op < OP_COUNT; op++) {
            bool once = op == OP_EMBED || op == OP_HEAD;
            if (!once || layer == 0) {
                one_op(run, (enum backend_op)op, layer, n, pos);
            }
        }
    }
}

/* Put random keys and values into positions first .. end - 1 of every layer of both caches. */
static void store_random(struct run *run, uint32_t first, uint32_t end)
{
    for (uint32_t pos = first; pos < end;) {
        uint32_t n = end - pos < 32 ? end - pos : 32;
        n = n < run->info.max_batch ? n : run->info.max_batch;
        for (uint32_t layer = 0; layer < run->model.config.n_layers; layer++) {
            one_op(run, OP_ROPE_STORE, layer, n, pos);
        }
        pos += n;
    }
}

static uint32_t batch_within(const struct run *run, uint32_t n)
{
    uint32_t max = run->info.max_batch < 64 ? run->info.max_batch : 64; /* the reference's */
    return n < max ? n : max;
}

static void test_ops(struct run *run)
{
    open_states(run);
    ops_at(run, 1, 0);
    ops_at(run, 2, 1);
    ops_at(run, batch_within(run, 5), 3);
    ops_at(run, batch_within(run, 33), 8);
    /* Beyond the window on the local layers; the batch straddles its edge. */
    uint32_t window = run->model.config.window;
    store_random(run, 8, window - 3);
    ops_at(run, batch_within(run, 33), window - 3);
    store_random(run, window - 3, 2 * window + 70);
    ops_at(run, 1, 2 * window + 70);
    ops_at(run, batch_within(run, 64), 2 * window + 71);
    close_states(run);
}

/* --- whole passes ---------------------------------------------------------------------------- */

static void random_ids(struct run *run, int32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = (int32_t)(next_random(run) % run->model.config.vocab);
    }
}

/* Extend a state by ids[pos .. end), in batches of at most `batch`; logits of every position. */
static void forward_all(struct run *run, const struct backend_ops *ops, struct backend_state *state,
                        const int32_t *ids, uint32_t pos, uint32_t end, uint32_t batch,
                        float *logits)
{
    uint32_t vocab = run->model.config.vocab;
    while (pos < end) {
        struct err err;
        uint32_t n = end - pos < batch ? end - pos : batch;
        poison(logits, (size_t)n * vocab);
        int r = ops->forward(state, ids + pos, n, pos, LOGITS_ALL, logits, &err);
        if (r < 0) {
            fprintf(stderr, "%s: forward of %u at %u: %s\n", run->variant, n, pos, err.text);
            run->failures++;
            return;
        }
        logits += (size_t)n * vocab;
        pos += n;
    }
}

static double logits_tolerance(const struct run *run)
{
    return run->quantized ? run->tol->logits_quant : run->tol->logits_float;
}

static double repeat_tolerance(const struct run *run)
{
    return run->quantized ? run->tol->repeat_quant : run->tol->repeat_float;
}

/* A long run past the window and any ring's end, in uneven batches, then decoding, then a rewind.
 */
static void test_long(struct run *run)
{
    const struct model_config *c = &run->model.config;
    uint32_t ring = c->window + 2 * run->info.max_batch;
    if (run->rewind_max != UINT32_MAX) {
        ring += run->rewind_max;
    }
    uint32_t end = ring < 420 ? ring + 20 : 440;
    uint32_t batch = batch_within(run, 64);
    open_states(run);
    end = end < run->max_pos ? end : run->max_pos;
    int32_t *ids = malloc(end * sizeof *ids);
    float *got = floats((size_t)end * c->vocab);
    float *want = floats((size_t)end * c->vocab);
    CHECK(ids);
    random_ids(run, ids, end);

    forward_all(run, &reference_backend, run->oracle, ids, 0, end, 64, want);
    uint32_t decode_from = end - 6;
    forward_all(run, run->ops, run->subject, ids, 0, decode_from, batch, got);
    forward_all(run, run->ops, run->subject, ids, decode_from, end, 1,
                got + (size_t)decode_from * c->vocab);
    compare(run, "long forward: prefill", got, want, (size_t)decode_from * c->vocab,
            logits_tolerance(run));
    compare(run, "long forward: decode", got + (size_t)decode_from * c->vocab,
            want + (size_t)decode_from * c->vocab, (size_t)6 * c->vocab, logits_tolerance(run));

    /* Back as far as is allowed, and forward over other tokens. */
    uint32_t back = run->rewind_max < end / 2 ? run->rewind_max : end / 2;
    uint32_t from = end - 1 - back;
    random_ids(run, ids + from, end - from);
    forward_all(run, &reference_backend, run->oracle, ids, from, end, 64, want);
    forward_all(run, run->ops, run->subject, ids, from, end, batch_within(run, 7), got);
    compare(run, "after a rewind", got, want, (size_t)(end - from) * c->vocab,
            logits_tolerance(run));
    close_states(run);
    free(ids);
    free(got);
    free(want);
}

/* The same tokens in one batch, in pieces and one by one; LAST against ALL; two states at once. */
static void test_batching(struct run *run)
{
    enum { N = 37 };
    const struct model_config *c = &run->model.config;
    struct backend_state *other;
    uint32_t rewind_max;
    uint64_t kv_bytes;
    struct err err;
    int32_t ids[N], other_ids[N];
    size_t size = (size_t)N * c->vocab;
    float *whole = floats(size), *again = floats(size), *other_logits = floats(size);
    open_states(run);
    CHECK_EQ(run->ops->state_create(run->subject_model, run->max_pos, &err, &other, &rewind_max,
                                    &kv_bytes),
             0);
    random_ids(run, ids, N);
    random_ids(run, other_ids, N);

    forward_all(run, run->ops, run->subject, ids, 0, N, batch_within(run, N), whole);
    forward_all(run, run->ops, run->subject, ids, 0, N, 1, again);
    compare(run, "one by one against a batch", again, whole, size, repeat_tolerance(run));
    forward_all(run, run->ops, run->subject, ids, 0, N, 5, again);
    compare(run, "fives against a batch", again, whole, size, repeat_tolerance(run));

    /* Interleaved with another state on other tokens. */
    for (uint32_t i = 0; i < N; i++) {
        forward_all(run, run->ops, run->subject, ids, i, i + 1, 1, again + (size_t)i * c->vocab);
        forward_all(run, run->ops, other, other_ids, i, i + 1, 1,
                    other_logits + (size_t)i * c->vocab);
    }
    compare(run, "beside another state", again, whole, size, repeat_tolerance(run));
    forward_all(run, &reference_backend, run->oracle, other_ids, 0, N, 64, again);
    compare(run, "the other state", other_logits, again, size, logits_tolerance(run));

    /* LAST is the last row of ALL, and NONE extends the cache as they do. */
    uint32_t n = batch_within(run, N - 1);
    const float *want = whole + (size_t)(n - 1) * c->vocab;
    poison(again, size);
    CHECK_EQ(run->ops->forward(run->subject, ids, n, 0, LOGITS_LAST, again, &err), 0);
    compare(run, "LOGITS_LAST", again, want, c->vocab, repeat_tolerance(run));
    CHECK(isnan(again[c->vocab]));
    CHECK_EQ(run->ops->forward(run->subject, ids, n, 0, LOGITS_NONE, NULL, &err), 0);
    CHECK_EQ(run->ops->forward(run->subject, ids + n, 1, n, LOGITS_LAST, again, &err), 0);
    compare(run, "after LOGITS_NONE", again, want + c->vocab, c->vocab, repeat_tolerance(run));

    run->ops->state_destroy(other);
    close_states(run);
    free(whole);
    free(again);
    free(other_logits);
}

/* A context that ends exactly where the tokens do, and shorter than the window. */
static void test_short_context(struct run *run)
{
    enum { N = 11 };
    const struct model_config *c = &run->model.config;
    int32_t ids[N];
    float *got = floats((size_t)N * c->vocab), *want = floats((size_t)N * c->vocab);
    uint32_t max_pos = run->max_pos;
    run->max_pos = N;
    open_states(run);
    run->max_pos = max_pos;
    random_ids(run, ids, N);
    forward_all(run, &reference_backend, run->oracle, ids, 0, N, N, want);
    forward_all(run, run->ops, run->subject, ids, 0, N, batch_within(run, N), got);
    compare(run, "a context of 11", got, want, (size_t)N * c->vocab, logits_tolerance(run));
    close_states(run);
    free(got);
    free(want);
}

/* --- several timelines at once --------------------------------------------------------------- */

enum { N_MANY = 32 };

/* Timelines of different lengths, each twice: decoded together, and alone. */
struct many {
    struct backend_state *together[N_MANY], *alone[N_MANY];
    uint32_t pos[N_MANY];
};

/* The first goes round the ring of its local layers, the second past their window; the others are
 * short, in contexts that are shorter than the window. */
static void many_open(struct run *run, struct many *many)
{
    *many = (struct many){.pos = {0}};
    uint32_t window = run->model.config.window, rewind_max, ring = window + run->info.max_batch;
    uint64_t kv_bytes;
    struct err err;
    for (uint32_t i = 0; i < run->n_sequences; i++) {
        uint32_t max_pos = i == 0 ? run->max_pos : i == 1 ? window + 20 : 16 + i % 3;
        struct backend_state **states[] = {&many->together[i], &many->alone[i]};
        for (int s = 0; s < 2; s++) {
            CHECK_EQ(run->ops->state_create(run->subject_model, max_pos, &err, states[s],
                                            &rewind_max, &kv_bytes),
                     0);
        }
        if (i == 0 && rewind_max != UINT32_MAX) {
            ring = window + rewind_max;
        }
        many->pos[i] = i == 0 ? ring - 2 : i == 1 ? window - 1 : 1 + i % 7;
        many->pos[i] = many->pos[i] + 8 < max_pos ? many->pos[i] : max_pos - 8;
        for (uint32_t pos = 0; pos < many->pos[i];) {
            int32_t ids[64];
            uint32_t left = many->pos[i] - pos, n = batch_within(run, left);
            random_ids(run, ids, n);
            for (int s = 0; s < 2; s++) {
                CHECK_EQ(run->ops->forward(*states[s], ids, n, pos, LOGITS_NONE, NULL, &err), 0);
            }
            pos += n;
        }
    }
}

static void many_close(struct run *run, struct many *many)
{
    for (uint32_t i = 0; i < run->n_sequences; i++) {
        run->ops->state_destroy(many->together[i]);
        run->ops->state_destroy(many->alone[i]);
    }
}

/* One token for each of those timelines, together and alone: the same logits, row by row. */
static void many_step(struct run *run, struct many *many, const uint32_t *which, uint32_t n,
                      bool with_logits)
{
    uint32_t vocab = run->model.config.vocab, pos[N_MANY];
    struct backend_state *states[N_MANY];
    int32_t ids[N_MANY];
    struct err err = {""};
    float *got = floats((size_t)n * vocab), *want = floats(vocab);
    random_ids(run, ids, n);
    for (uint32_t i = 0; i < n; i++) {
        states[i] = many->together[which[i]];
        pos[i] = many->pos[which[i]]++;
    }
    poison(got, (size_t)n * vocab);
    int r = run->ops->forward_many(states, ids, pos, n, with_logits ? got : NULL, &err);
    if (r < 0) {
        fprintf(stderr, "%s: %u together: %s\n", run->variant, n, err.text);
        run->failures++;
    }
    for (uint32_t i = 0; i < n && r == 0; i++) {
        char what[64];
        snprintf(what, sizeof what, "%u together, sequence %u at %u", n, which[i], pos[i]);
        CHECK_EQ(run->ops->forward(many->alone[which[i]], ids + i, 1, pos[i], LOGITS_LAST, want,
                                   &err),
                 0);
        if (with_logits) {
            compare(run, what, got + (size_t)i * vocab, want, vocab, repeat_tolerance(run));
        }
    }
    free(got);
    free(want);
}

/* What forward_many() refuses, without touching a timeline. */
static void many_errors(struct run *run, struct many *many)
{
    struct backend_state *states[N_MANY + 1] = {many->together[0], many->together[1],
                                                many->together[0]};
    uint32_t pos[N_MANY + 1] = {many->pos[0], many->pos[1], many->pos[0]};
    int32_t ids[N_MANY + 1] = {1, 2, 3};
    float *logits = floats((size_t)3 * run->model.config.vocab);
    struct err err;
    CHECK_EQ(run->ops->forward_many(states, ids, pos, 0, logits, &err), -EINVAL);
    CHECK(strstr(err.text, "0 sequences"));
    CHECK_EQ(run->ops->forward_many(states, ids, pos, N_MANY + 1, logits, &err), -EINVAL);
    CHECK(strstr(err.text, "33 sequences"));
    CHECK_EQ(run->ops->forward_many(states, ids, pos, 3, logits, &err), -EINVAL);
    CHECK(strstr(err.text, "sequences 0 and 2"));
    for (int32_t bad = -1; bad <= (int32_t)run->model.config.vocab;
         bad += (int32_t)run->model.config.vocab + 1) {
        ids[1] = bad;
        CHECK_EQ(run->ops->forward_many(states, ids, pos, 2, logits, &err), -EINVAL);
        CHECK(strstr(err.text, "sequence 1: token id"));
    }
    ids[1] = 2;
    pos[1] = run->max_pos;
    CHECK_EQ(run->ops->forward_many(states, ids, pos, 2, logits, &err), -EINVAL);
    CHECK(strstr(err.text, "sequence 1"));
    free(logits);
}

/* Sequences come and go from step to step, and change places. */
static void test_many(struct run *run)
{
    uint32_t n = run->n_sequences, seed = run->seed; /* what follows gets what it got before */
    const uint32_t some[] = {0, 1, 2, 3, n - 1, n - 2, 9, 12}, fewer[] = {1, 12, 0};
    uint32_t backwards[N_MANY];
    struct many many;
    CHECK(run->info.max_sequences == N_MANY);
    many_open(run, &many);
    for (uint32_t i = 0; i < n; i++) {
        backwards[i] = n - 1 - i;
    }
    many_step(run, &many, some, 1, true);
    many_step(run, &many, some, 2, true);
    many_step(run, &many, some, 8, true);
    many_errors(run, &many);
    many_step(run, &many, fewer, 3, true);
    many_step(run, &many, some, 5, false);
    many_step(run, &many, some, 5, true);
    many_step(run, &many, backwards, n, true);
    many_step(run, &many, backwards + n / 2 - 1, n - n / 2 + 1, true);
    many_close(run, &many);
    run->seed = seed;
}

/* --- one model ------------------------------------------------------------------------------- */

static void run_variant(struct run *run, const struct variant *v, bool with_long)
{
    struct err err = {""};
    struct model_config config = base_config(v);
    struct image_formats formats = {.embed = v->embed, .head = v->embed};
    for (uint32_t i = 0; i < config.n_layers; i++) {
        formats.layers[i].qkv = formats.layers[i].attn_out = v->layers;
        formats.layers[i].gate_up = formats.layers[i].down = v->layers;
    }
    uint64_t chunk_max = (v->flags & CHUNKS) ? IMAGE_CHUNK_ALIGN : IMAGE_CHUNK_MAX;
    random_model_create_chunked(&config, &formats, chunk_max, 7, &run->model, &run->image);
    CHECK(!(v->flags & CHUNKS) || run->model.memory.n_chunks > 2);
    run->variant = v->name;
    run->quantized = v->layers.group != 0;
    run->max_pos = 1200;
    run->worst = 0;
    int failures = run->failures;

    enum weight_path path;
    int r = run->ops->bind(run->subject_backend, &run->model, &err, &run->subject_model, &path);
    if (r < 0) {
        fprintf(stderr, "%s: bind: %s\n", v->name, err.text);
    }
    CHECK_EQ(r, 0);
    CHECK_EQ(reference_backend.bind(run->oracle_backend, &run->model, &err, &run->oracle_model,
                                    &path),
             0);
    test_ops(run);
    test_batching(run);
    test_short_context(run);
    if (run->n_sequences && (v->flags & QUICK)) {
        test_many(run);
    }
    if (with_long) {
        test_long(run);
    }
    run->ops->unbind(run->subject_model);
    reference_backend.unbind(run->oracle_model);
    random_model_destroy(&run->model, run->image);
    printf("%-20s %s, worst error %.2f of its tolerance\n", v->name,
           run->failures == failures ? "ok" : "FAILED", run->worst);
    fflush(stdout);
}

int conformance_run(const struct backend_ops *ops, const struct backend_params *params,
                    const struct conformance_tolerances *tol, bool quick, uint32_t n_sequences)
{
    CHECK(n_sequences == 0 || (n_sequences >= 16 && n_sequences <= N_MANY));
    static struct run run; /* holds a struct model: too large for some stacks */
    struct err err = {""};
    run = (struct run){.ops = ops, .tol = tol, .seed = 20240131, .n_sequences = n_sequences};
    int r = ops->open(params, &err, &run.subject_backend);
    if (r < 0) {
        fprintf(stderr, "%s: %s\n", ops->name, err.text);
        return r;
    }
    CHECK_EQ(reference_backend.open(params, &err, &run.oracle_backend), 0);
    ops->info(run.subject_backend, &run.info);
    CHECK(run.info.max_batch >= 1);
    CHECK(strcmp(run.info.backend, ops->name) == 0);
    printf("-- %s: %s, batches of %u\n", run.info.backend, run.info.device, run.info.max_batch);
    for (int i = 0; i < N_VARIANTS; i++) {
        if (!quick || (variants[i].flags & QUICK)) {
            run_variant(&run, &variants[i], !quick && !(variants[i].flags & WIDE));
        }
    }
    ops->close(run.subject_backend);
    reference_backend.close(run.oracle_backend);
    return run.failures;
}
