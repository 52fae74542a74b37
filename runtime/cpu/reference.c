/* SPDX-License-Identifier: MIT */
/*
 * reference_backend: Gemma 3 in plain C, one thread, float32 with double sums, written to be read
 * beside the formulas in backend.h. It is the oracle the other backends are tested against, so it
 * shares no code with them but the meaning of the weights (weight_dequant_row), and nothing here is
 * fast.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"

enum { REFERENCE_MAX_BATCH = 64, REFERENCE_MAX_SEQUENCES = 32 };

struct backend {
    char unused;
};

struct backend_model {
    const struct model *model;
};

struct backend_state {
    const struct model *model;
    uint32_t max_pos;
    float *k; /* [n_layers, max_pos, n_kv_heads * head_dim] */
    float *v; /* like k */

    /* What forward() passes from one operation to the next. */
    float *x;     /* [2, batch, hidden]: residual stream, and a layer's output or its norm after */
    float *wide;  /* [batch, the widest row an operation makes] */
    float *wide2; /* like wide */
    float *row;   /* [the longest weight row] */
    float *score; /* [max_pos] */
};

static const float *vector_at(const struct model *model, uint64_t off)
{
    return (const float *)(model->memory.base + off);
}

/* y = x * w / rms(x); y may be x. */
static void rmsnorm(float *y, const float *x, const float *w, uint32_t n, float eps)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += (double)x[i] * x[i];
    }
    double inv = 1.0 / sqrt(sum / n + eps);
    for (uint32_t i = 0; i < n; i++) {
        y[i] = (float)(x[i] * inv * w[i]);
    }
}

/* Four sums, so that the additions need not wait for each other. */
static double dot(const float *a, const float *b, uint32_t n)
{
    double sum[4] = {0};
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        for (int j = 0; j < 4; j++) {
            sum[j] += (double)a[i + j] * b[i + j];
        }
    }
    for (; i < n; i++) {
        sum[0] += (double)a[i] * b[i];
    }
    return sum[0] + sum[1] + sum[2] + sum[3];
}

/* out[t, r] = in[t, :] . row r, for n tokens. */
static void matmul(struct backend_state *s, const struct weight *w, const float *in, uint32_t n,
                   float *out)
{
    for (uint32_t r = 0; r < w->rows; r++) {
        weight_dequant_row(w, s->model->memory.base, r, s->row);
        for (uint32_t t = 0; t < n; t++) {
            const float *x = in + (size_t)t * w->cols;
            out[(size_t)t * w->rows + r] = (float)dot(s->row, x, w->cols);
        }
    }
}

static void embed(struct backend_state *s, const int32_t *ids, uint32_t n, float *out)
{
    const struct model *m = s->model;
    float scale = sqrtf((float)m->config.hidden);
    for (uint32_t t = 0; t < n; t++) {
        float *x = out + (size_t)t * m->config.hidden;
        weight_dequant_row(&m->embed, m->memory.base, (uint32_t)ids[t], x);
        for (uint32_t i = 0; i < m->config.hidden; i++) {
            x[i] *= scale;
        }
    }
}

/* Norm and rotate one head. NeoX halves: element i turns with element i + head_dim / 2. */
static void norm_rope_head(const struct model_config *c, bool global, uint32_t pos, const float *w,
                           const float *in, float *out)
{
    rmsnorm(out, in, w, c->head_dim, c->rms_eps);
    double theta = global ? c->rope_theta_global : c->rope_theta_local;
    double at = global ? pos / (double)c->rope_factor_global : pos;
    uint32_t half = c->head_dim / 2;
    for (uint32_t i = 0; i < half; i++) {
        double angle = at * pow(theta, -2.0 * i / c->head_dim);
        double a = out[i], b = out[i + half];
        out[i] = (float)(a * cos(angle) - b * sin(angle));
        out[i + half] = (float)(b * cos(angle) + a * sin(angle));
    }
}

static float *cache_row(const struct backend_state *s, float *cache, uint32_t layer, uint32_t pos,
                        uint32_t kv_head)
{
    const struct model_config *c = &s->model->config;
    return cache + (((size_t)layer * s->max_pos + pos) * c->n_kv_heads + kv_head) * c->head_dim;
}

static void rope_store(struct backend_state *s, uint32_t layer, uint32_t n, uint32_t pos,
                       const float *in, float *out)
{
    const struct model_config *c = &s->model->config;
    const struct model_layer *l = &s->model->layers[layer];
    const float *q_norm = vector_at(s->model, l->q_norm_off);
    const float *k_norm = vector_at(s->model, l->k_norm_off);
    bool global = c->layer_is_global[layer];
    uint32_t hd = c->head_dim;
    for (uint32_t t = 0; t < n; t++) {
        const float *q = in + (size_t)t * (c->n_heads + 2 * c->n_kv_heads) * hd;
        const float *k = q + (size_t)c->n_heads * hd;
        const float *v = k + (size_t)c->n_kv_heads * hd;
        for (uint32_t h = 0; h < c->n_heads; h++) {
            float *o = out + ((size_t)t * c->n_heads + h) * hd;
            norm_rope_head(c, global, pos + t, q_norm, q + (size_t)h * hd, o);
            for (uint32_t i = 0; i < hd; i++) {
                o[i] *= c->query_scale;
            }
        }
        for (uint32_t h = 0; h < c->n_kv_heads; h++) {
            norm_rope_head(c, global, pos + t, k_norm, k + (size_t)h * hd,
                           cache_row(s, s->k, layer, pos + t, h));
            memcpy(cache_row(s, s->v, layer, pos + t, h), v + (size_t)h * hd, hd * sizeof *v);
        }
    }
}

/* One query head over the keys first .. pos. */
static void attend(struct backend_state *s, uint32_t layer, uint32_t kv_head, uint32_t first,
                   uint32_t pos, const float *q, float *out)
{
    uint32_t hd = s->model->config.head_dim;
    float max = -INFINITY;
    for (uint32_t j = first; j <= pos; j++) {
        const float *k = cache_row(s, s->k, layer, j, kv_head);
        double sum = 0;
        for (uint32_t i = 0; i < hd; i++) {
            sum += (double)q[i] * k[i];
        }
        s->score[j] = (float)sum;
        max = fmaxf(max, s->score[j]);
    }
    double total = 0;
    for (uint32_t j = first; j <= pos; j++) {
        s->score[j] = expf(s->score[j] - max);
        total += s->score[j];
    }
    for (uint32_t i = 0; i < hd; i++) {
        double sum = 0;
        for (uint32_t j = first; j <= pos; j++) {
            sum += (double)s->score[j] * cache_row(s, s->v, layer, j, kv_head)[i];
        }
        out[i] = (float)(sum / total);
    }
}

static void attention(struct backend_state *s, uint32_t layer, uint32_t n, uint32_t pos,
                      const float *in, float *out)
{
    const struct model_config *c = &s->model->config;
    uint32_t heads_per_kv = c->n_heads / c->n_kv_heads;
    for (uint32_t t = 0; t < n; t++) {
        uint32_t at = pos + t;
        bool all = c->layer_is_global[layer] || at < c->window;
        for (uint32_t h = 0; h < c->n_heads; h++) {
            size_t head = ((size_t)t * c->n_heads + h) * c->head_dim;
            attend(s, layer, h / heads_per_kv, all ? 0 : at - c->window + 1, at, in + head,
                   out + head);
        }
    }
}

/* in and out are [2, n, hidden]; they may be the same. */
static void add_norm(const struct model *m, uint64_t post_off, uint64_t next_off, uint32_t n,
                     const float *in, float *out)
{
    uint32_t hidden = m->config.hidden;
    for (uint32_t t = 0; t < n; t++) {
        const float *x = in + (size_t)t * hidden;
        const float *y = x + (size_t)n * hidden;
        float *x_out = out + (size_t)t * hidden;
        float *z_out = x_out + (size_t)n * hidden;
        rmsnorm(z_out, y, vector_at(m, post_off), hidden, m->config.rms_eps);
        for (uint32_t i = 0; i < hidden; i++) {
            x_out[i] = x[i] + z_out[i];
        }
        rmsnorm(z_out, x_out, vector_at(m, next_off), hidden, m->config.rms_eps);
    }
}

static void geglu(uint32_t ffn, uint32_t n, const float *in, float *out)
{
    for (uint32_t t = 0; t < n; t++) {
        const float *gate = in + (size_t)t * 2 * ffn;
        const float *up = gate + ffn;
        for (uint32_t i = 0; i < ffn; i++) {
            double g = gate[i];
            double u = 0.79788456080286535588 * (g + 0.044715 * g * g * g); /* sqrt(2 / pi) */
            out[(size_t)t * ffn + i] = (float)(0.5 * g * (1.0 + tanh(u)) * up[i]);
        }
    }
}

static int reference_op(struct backend_state *s, enum backend_op op, uint32_t layer,
                        const int32_t *ids, uint32_t n, uint32_t pos, const float *in, float *out,
                        struct err *err)
{
    const struct model *m = s->model;
    const struct model_config *c = &m->config;
    const struct model_layer *l = &m->layers[layer < c->n_layers ? layer : 0];
    switch (op) {
    case OP_EMBED:
        embed(s, ids, n, out);
        return 0;
    case OP_ATTN_NORM:
        for (uint32_t t = 0; t < n; t++) {
            rmsnorm(out + (size_t)t * c->hidden, in + (size_t)t * c->hidden,
                    vector_at(m, l->input_norm_off), c->hidden, c->rms_eps);
        }
        return 0;
    case OP_QKV:
        matmul(s, &l->qkv, in, n, out);
        return 0;
    case OP_ROPE_STORE:
        rope_store(s, layer, n, pos, in, out);
        return 0;
    case OP_ATTENTION:
        attention(s, layer, n, pos, in, out);
        return 0;
    case OP_ATTN_OUT:
        matmul(s, &l->attn_out, in, n, out);
        return 0;
    case OP_ATTN_ADD:
        add_norm(m, l->post_attn_norm_off, l->pre_ffn_norm_off, n, in, out);
        return 0;
    case OP_GATE_UP:
        matmul(s, &l->gate_up, in, n, out);
        return 0;
    case OP_GEGLU:
        geglu(c->ffn, n, in, out);
        return 0;
    case OP_DOWN:
        matmul(s, &l->down, in, n, out);
        return 0;
    case OP_FFN_ADD:
        add_norm(m, l->post_ffn_norm_off,
                 layer + 1 < c->n_layers ? l[1].input_norm_off : m->final_norm_off, n, in, out);
        return 0;
    case OP_HEAD:
        matmul(s, &m->head, in, n, out);
        return 0;
    case OP_COUNT:
        break;
    }
    return err_set(err, -EINVAL, "no operation %d", (int)op);
}

static int reference_forward(struct backend_state *s, const int32_t *ids, uint32_t n, uint32_t pos,
                             enum logits_want want, float *logits, struct err *err)
{
    uint32_t hidden = s->model->config.hidden;
    float *y = s->x + (size_t)n * hidden;
    int r = reference_op(s, OP_EMBED, 0, ids, n, pos, NULL, s->x, err);
    if (r < 0) {
        return r;
    }
    reference_op(s, OP_ATTN_NORM, 0, ids, n, pos, s->x, y, err);
    for (uint32_t i = 0; i < s->model->config.n_layers; i++) {
        reference_op(s, OP_QKV, i, ids, n, pos, y, s->wide, err);
        reference_op(s, OP_ROPE_STORE, i, ids, n, pos, s->wide, s->wide2, err);
        reference_op(s, OP_ATTENTION, i, ids, n, pos, s->wide2, s->wide, err);
        reference_op(s, OP_ATTN_OUT, i, ids, n, pos, s->wide, y, err);
        reference_op(s, OP_ATTN_ADD, i, ids, n, pos, s->x, s->x, err);
        reference_op(s, OP_GATE_UP, i, ids, n, pos, y, s->wide, err);
        reference_op(s, OP_GEGLU, i, ids, n, pos, s->wide, s->wide2, err);
        reference_op(s, OP_DOWN, i, ids, n, pos, s->wide2, y, err);
        reference_op(s, OP_FFN_ADD, i, ids, n, pos, s->x, s->x, err);
    }
    if (want == LOGITS_LAST) {
        return reference_op(s, OP_HEAD, 0, ids, 1, pos, y + (size_t)(n - 1) * hidden, logits, err);
    }
    if (want == LOGITS_ALL) {
        return reference_op(s, OP_HEAD, 0, ids, n, pos, y, logits, err);
    }
    return 0;
}

/* One after the other: what any way of doing them together must come to. */
static int reference_forward_many(struct backend_state *const *states, const int32_t *ids,
                                  const uint32_t *pos, uint32_t n, float *logits, struct err *err)
{
    int r = backend_check_many(states, ids, n, REFERENCE_MAX_SEQUENCES,
                               n > 0 ? states[0]->model->config.vocab : 0, err);
    for (uint32_t i = 0; i < n && r == 0; i++) {
        if (states[i]->model != states[0]->model || pos[i] >= states[i]->max_pos) {
            r = err_set(err, -EINVAL, "sequence %u: position %u of %u, or another model", i, pos[i],
                        states[i]->max_pos);
        }
    }
    for (uint32_t i = 0; i < n && r == 0; i++) {
        size_t vocab = states[i]->model->config.vocab;
        r = reference_forward(states[i], ids + i, 1, pos[i], logits ? LOGITS_LAST : LOGITS_NONE,
                              logits ? logits + i * vocab : NULL, err);
    }
    return r;
}

static int reference_open(const struct backend_params *params, struct err *err,
                          struct backend **ret)
{
    (void)params; /* one device, one thread, nothing to choose */
    struct backend *backend = calloc(1, sizeof *backend);
    if (!backend) {
        return err_set(err, -ENOMEM, "reference: out of memory");
    }
    *ret = backend;
    return 0;
}

static void reference_close(struct backend *backend)
{
    free(backend);
}

static void reference_info(const struct backend *backend, struct backend_info *ret)
{
    (void)backend;
    *ret = (struct backend_info){.backend = "reference",
                                 .device = "plain C, 1 thread",
                                 .max_batch = REFERENCE_MAX_BATCH,
                                 .max_sequences = REFERENCE_MAX_SEQUENCES};
}

static int reference_bind(struct backend *backend, const struct model *model, struct err *err,
                          struct backend_model **ret, enum weight_path *ret_path)
{
    (void)backend;
    struct backend_model *bm = calloc(1, sizeof *bm);
    if (!bm) {
        return err_set(err, -ENOMEM, "reference: out of memory");
    }
    bm->model = model;
    *ret = bm;
    *ret_path = WEIGHT_PATH_ADOPTED;
    return 0;
}

static void reference_unbind(struct backend_model *bm)
{
    free(bm);
}

static void reference_state_destroy(struct backend_state *s)
{
    if (!s) {
        return;
    }
    free(s->k);
    free(s->v);
    free(s->x);
    free(s->wide);
    free(s->wide2);
    free(s->row);
    free(s->score);
    free(s);
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static int reference_state_create(struct backend_model *bm, uint32_t max_pos, struct err *err,
                                  struct backend_state **ret, uint32_t *ret_rewind_max,
                                  uint64_t *ret_kv_bytes)
{
    const struct model_config *c = &bm->model->config;
    uint32_t attn_width = (c->n_heads + 2 * c->n_kv_heads) * c->head_dim;
    uint32_t wide = max_u32(attn_width, 2 * c->ffn);
    uint32_t longest = max_u32(max_u32(c->hidden, c->ffn), c->n_heads * c->head_dim);
    size_t cached = (size_t)c->n_layers * max_pos * c->n_kv_heads * c->head_dim;

    struct backend_state *s = calloc(1, sizeof *s);
    if (!s) {
        return err_set(err, -ENOMEM, "reference: out of memory");
    }
    s->model = bm->model;
    s->max_pos = max_pos;
    s->k = calloc(cached, sizeof *s->k);
    s->v = calloc(cached, sizeof *s->v);
    s->x = calloc((size_t)2 * REFERENCE_MAX_BATCH * c->hidden, sizeof *s->x);
    s->wide = calloc((size_t)REFERENCE_MAX_BATCH * wide, sizeof *s->wide);
    s->wide2 = calloc((size_t)REFERENCE_MAX_BATCH * wide, sizeof *s->wide2);
    s->row = calloc(longest, sizeof *s->row);
    s->score = calloc(max_pos, sizeof *s->score);
    if (!s->k || !s->v || !s->x || !s->wide || !s->wide2 || !s->row || !s->score) {
        reference_state_destroy(s);
        return err_set(err, -ENOMEM, "reference: no memory for a context of %u tokens", max_pos);
    }
    *ret = s;
    *ret_rewind_max = UINT32_MAX;
    *ret_kv_bytes = 2 * cached * sizeof *s->k;
    return 0;
}

const struct backend_ops reference_backend = {
    .name = "reference",
    .open = reference_open,
    .close = reference_close,
    .info = reference_info,
    .bind = reference_bind,
    .unbind = reference_unbind,
    .state_create = reference_state_create,
    .state_destroy = reference_state_destroy,
    .forward = reference_forward,
    .forward_many = reference_forward_many,
    .op = reference_op,
};
