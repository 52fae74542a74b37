/* SPDX-License-Identifier: MIT */
/*
 * A forward pass of cpu_backend: which kernel on which rows, cut into items for the thread pool.
 *
 * A layer is five jobs with work for everybody (qkv; attention; attn_out; gate + up + GeGLU; down),
 * and between them steps on single tokens: with one token those are too short to share, so the
 * calling thread does them while the others spin; with many, tokens are the items. Each step leaves
 * its output in the form the next matrix wants (int8 for quantized weights), so that it is made
 * once.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "cpu_internal.h"

/* Weights that one item of a matrix job reads, about: a few microseconds of memory bandwidth. */
#define ITEM_BYTES (32u << 10)

/* Rows of an item are a multiple of this: whole panels, whole groups of what GeGLU quantizes. */
#define ITEM_ROWS 32

struct pass {
    struct backend_state *s; /* whose activations are used */
    const struct cpu_kernels *kernels;
    const struct model_config *c;
    const int32_t *ids;
    uint32_t n, pos;
    struct backend_state *const *states; /* [n] of cpu_forward_many(): each token's timeline, */
    const uint32_t *positions;           /* [n] and its position; else NULL */

    /* The layer at work. */
    uint32_t layer;
    const struct model_layer *l;

    /* A matrix job. */
    const struct weight *w;
    struct act_rows in;
    float *out;
    size_t out_stride;
    uint32_t rows, rows_per_item;

    /* A norm step: which weights, and the matrix that reads the result. */
    uint64_t post_norm_off, norm_off;
    const struct weight *next;

    uint32_t first_segment; /* of the attention of one token */
};

static const float *vector_at(const struct pass *p, uint64_t off)
{
    return (const float *)(p->s->model->memory.base + off);
}

static void use_layer(struct pass *p, uint32_t layer)
{
    p->layer = layer;
    p->l = &p->s->model->layers[layer];
}

static bool layer_is_global(const struct pass *p)
{
    return p->c->layer_is_global[p->layer];
}

static uint32_t position(const struct pass *p, uint32_t t)
{
    return p->states ? p->positions[t] : p->pos + t;
}

/* Where token t's keys and values are. */
static const struct kv_cache *kv_of(const struct pass *p, uint32_t t)
{
    return &(p->states ? p->states[t] : p->s)->kv[p->layer];
}

static void *thread_scratch(const struct pass *p, uint32_t thread)
{
    return p->s->scratch + thread * p->s->scratch_bytes;
}

/* Run fn for every token. */
static void for_tokens(struct pass *p, pool_fn fn)
{
    pool_run(p->s->backend->pool, fn, p, p->n);
}

/* --- matrices -------------------------------------------------------------------------------- */

/* Groups [first, first + n) of row t as matrix w reads them. */
static void prepare_groups(const struct pass *p, const struct weight *w, struct act_buffer *act,
                           const float *row, uint32_t t, uint32_t first, uint32_t n)
{
    p->kernels->quantize(row, first, n, w->type == WEIGHT_Q4, act->q + t * act->q_stride,
                         act->scale + t * act->g_stride, act->sum + t * act->g_stride);
}

/* Row t in the form that matrix w reads; float weights read the floats themselves. */
static void prepare(const struct pass *p, const struct weight *w, struct act_buffer *act,
                    const float *row, uint32_t t)
{
    if (w->group) {
        prepare_groups(p, w, act, row, t, 0, w->cols / ACT_GROUP);
    }
}

static struct act_rows act_rows(const struct act_buffer *act, const float *f, size_t f_stride)
{
    return (struct act_rows){.f = f,
                             .q = act->q,
                             .scale = act->scale,
                             .sum = act->sum,
                             .f_stride = f_stride,
                             .q_stride = act->q_stride,
                             .g_stride = act->g_stride};
}

/*
 * How many rows make an item: ITEM_BYTES' worth, but at least 8 items a thread if there are rows
 * enough, so that the last ones to finish are not waited for long.
 */
static uint32_t rows_per_item(const struct pass *p, const struct weight *w, uint32_t rows)
{
    uint64_t row_bytes = weight_bytes(w) / w->rows + 1;
    uint64_t by_bytes = ITEM_BYTES / row_bytes;
    uint64_t by_threads = rows / (8 * pool_n_threads(p->s->backend->pool));
    uint64_t n = by_bytes < by_threads ? by_bytes : by_threads;
    n = n / ITEM_ROWS * ITEM_ROWS;
    return n ? (uint32_t)n : ITEM_ROWS;
}

static uint32_t item_rows(const struct pass *p, uint32_t item, uint32_t *ret_row)
{
    *ret_row = item * p->rows_per_item;
    uint32_t left = p->rows - *ret_row;
    return left < p->rows_per_item ? left : p->rows_per_item;
}

static void run_rows(struct pass *p, pool_fn fn, const struct weight *w, uint32_t rows)
{
    p->w = w;
    p->rows = rows;
    p->rows_per_item = rows_per_item(p, w, rows);
    pool_run(p->s->backend->pool, fn, p, (rows + p->rows_per_item - 1) / p->rows_per_item);
}

static void matmul_item(void *arg, uint32_t item, uint32_t thread)
{
    const struct pass *p = arg;
    uint32_t row, n = item_rows(p, item, &row);
    p->kernels->matmul(p->w, p->s->model->memory.base, &p->in, p->n, row, n, p->out + row,
                       p->out_stride, thread_scratch(p, thread));
}

static void matmul(struct pass *p, const struct weight *w, struct act_rows in, float *out,
                   size_t out_stride)
{
    p->in = in;
    p->out = out;
    p->out_stride = out_stride;
    run_rows(p, matmul_item, w, w->rows);
}

/* --- steps on single tokens ------------------------------------------------------------------ */

/* Tables of angles for token t: local and global. */
static void rope_angles(const struct pass *p, uint32_t t)
{
    uint32_t half = p->c->head_dim / 2;
    for (int kind = 0; kind < 2; kind++) {
        const double *inv_freq = p->s->bm->inv_freq + (size_t)kind * half;
        float *cos_row = p->s->rope[kind] + (size_t)t * 2 * half;
        for (uint32_t i = 0; i < half; i++) {
            double angle = position(p, t) * inv_freq[i];
            cos_row[i] = (float)cos(angle);
            cos_row[half + i] = (float)sin(angle);
        }
    }
}

static void embed_token(const struct pass *p, uint32_t t)
{
    const struct model *m = p->s->model;
    float *x = p->s->x + t * p->s->hidden_stride;
    float scale = sqrtf((float)p->c->hidden);
    weight_dequant_row(&m->embed, m->memory.base, (uint32_t)p->ids[t], x);
    for (uint32_t i = 0; i < p->c->hidden; i++) {
        x[i] *= scale;
    }
}

/* z = rmsnorm(x), ready for p->next. */
static void norm_token(const struct pass *p, uint32_t t)
{
    struct backend_state *s = p->s;
    float *z = s->z + t * s->hidden_stride;
    p->kernels->rmsnorm(z, s->x + t * s->hidden_stride, vector_at(p, p->norm_off), p->c->hidden,
                        p->c->rms_eps);
    prepare(p, p->next, &s->act_in, z, t);
}

static void begin_item(void *arg, uint32_t t, uint32_t thread)
{
    const struct pass *p = arg;
    (void)thread;
    embed_token(p, t);
    rope_angles(p, t);
    norm_token(p, t);
}

/* x += rmsnorm(y), then z = rmsnorm(x). */
static void add_norm_item(void *arg, uint32_t t, uint32_t thread)
{
    const struct pass *p = arg;
    struct backend_state *s = p->s;
    (void)thread;
    p->kernels->rmsnorm_add(s->x + t * s->hidden_stride, s->y + t * s->hidden_stride,
                            vector_at(p, p->post_norm_off), p->c->hidden, p->c->rms_eps);
    norm_token(p, t);
}

static void norm_rope_head(const struct pass *p, uint32_t t, uint64_t norm_off, const float *in,
                           float *out, float scale)
{
    uint32_t half = p->c->head_dim / 2;
    const float *cos_row = p->s->rope[layer_is_global(p)] + (size_t)t * 2 * half;
    p->kernels->rmsnorm(out, in, vector_at(p, norm_off), p->c->head_dim, p->c->rms_eps);
    p->kernels->rope(out, cos_row, cos_row + half, half, scale);
}

/* A key into its column of its block; element by element, but the lines stay cached while tokens
 * fill a block. */
static void store_key(float *block, uint32_t column, const float *key, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        block[(size_t)i * ATTN_BLOCK + column] = key[i];
    }
}

static void rope_store_item(void *arg, uint32_t t, uint32_t thread)
{
    const struct pass *p = arg;
    const struct model_config *c = p->c;
    struct backend_state *s = p->s;
    const struct kv_cache *kv = kv_of(p, t);
    const float *q = s->qkv + t * s->qkv_stride;
    const float *k = q + (size_t)c->n_heads * c->head_dim;
    const float *v = k + (size_t)c->n_kv_heads * c->head_dim;
    uint32_t slot = position(p, t) % kv->capacity, column = slot % ATTN_BLOCK;
    float *key = thread_scratch(p, thread);
    for (uint32_t h = 0; h < c->n_heads; h++) {
        norm_rope_head(p, t, p->l->q_norm_off, q + (size_t)h * c->head_dim,
                       s->q + ((size_t)t * c->n_heads + h) * s->head_stride, c->query_scale);
    }
    for (uint32_t h = 0; h < c->n_kv_heads; h++) {
        size_t block = ((size_t)h * kv->capacity + slot - column) * s->head_stride;
        norm_rope_head(p, t, p->l->k_norm_off, k + (size_t)h * c->head_dim, key, 1.0f);
        store_key(kv->k + block, column, key, c->head_dim);
        memcpy(kv->v + block + (size_t)column * s->head_stride, v + (size_t)h * c->head_dim,
               c->head_dim * sizeof *v);
    }
}

/* --- attention ------------------------------------------------------------------------------- */

static uint32_t first_key(const struct pass *p, uint32_t pos)
{
    return layer_is_global(p) || pos < p->c->window ? 0 : pos - p->c->window + 1;
}

static void clear_parts(struct attn_part *part, float *out, uint32_t n_heads, uint32_t stride)
{
    for (uint32_t h = 0; h < n_heads; h++) {
        part[h] = (struct attn_part){.max = -INFINITY};
    }
    memset(out, 0, (size_t)n_heads * stride * sizeof *out);
}

/*
 * The query heads of one KV head at token t, over the keys of one segment that the token sees. The
 * ring's capacity is a multiple of ATTN_BLOCK, so a block never wraps.
 */
static void attend_segment(const struct pass *p, uint32_t t, uint32_t kv_head, uint32_t segment,
                           struct attn_part *part, float *out)
{
    struct backend_state *s = p->s;
    const struct kv_cache *kv = kv_of(p, t);
    uint32_t per_kv = p->c->n_heads / p->c->n_kv_heads;
    uint32_t pos = position(p, t);
    uint32_t first = first_key(p, pos), end = (segment + 1) * ATTN_SEGMENT;
    const float *q = s->q + ((size_t)t * p->c->n_heads + kv_head * per_kv) * s->head_stride;
    first = first > segment * ATTN_SEGMENT ? first : segment * ATTN_SEGMENT;
    end = end < pos + 1 ? end : pos + 1;
    clear_parts(part, out, per_kv, s->head_stride);
    for (uint32_t at = first / ATTN_BLOCK * ATTN_BLOCK; at < end; at += ATTN_BLOCK) {
        size_t block = ((size_t)kv_head * kv->capacity + at % kv->capacity) * s->head_stride;
        uint32_t from = first > at ? first - at : 0;
        uint32_t to = end - at < ATTN_BLOCK ? end - at : ATTN_BLOCK;
        p->kernels->attend(q, per_kv, s->head_stride, kv->k + block, kv->v + block, from, to, part,
                           out);
    }
}

/* Divide by the softmax's total, drop the padding of heads, and make the row ready for attn_out. */
static void finish_attention(const struct pass *p, uint32_t t, const struct attn_part *part,
                             const float *out)
{
    struct backend_state *s = p->s;
    uint32_t hd = p->c->head_dim;
    float *row = s->attn + t * s->attn_stride;
    for (uint32_t h = 0; h < p->c->n_heads; h++) {
        float inv = 1.0f / part[h].total;
        for (uint32_t i = 0; i < hd; i++) {
            row[h * hd + i] = out[(size_t)h * s->head_stride + i] * inv;
        }
    }
    prepare(p, &p->l->attn_out, &s->act_in, row, t);
}

/* All of token t's attention by one thread; the same sums in the same order as attend_one(). */
static void attention_item(void *arg, uint32_t t, uint32_t thread)
{
    const struct pass *p = arg;
    struct backend_state *s = p->s;
    uint32_t n_heads = p->c->n_heads, per_kv = n_heads / p->c->n_kv_heads;
    float *out = thread_scratch(p, thread);
    float *seg_out = out + (size_t)n_heads * s->head_stride;
    struct attn_part *part = (void *)(seg_out + (size_t)n_heads * s->head_stride);
    struct attn_part *seg_part = part + n_heads;
    uint32_t pos = position(p, t);
    clear_parts(part, out, n_heads, s->head_stride);
    for (uint32_t g = first_key(p, pos) / ATTN_SEGMENT; g <= pos / ATTN_SEGMENT; g++) {
        for (uint32_t h = 0; h < n_heads; h += per_kv) {
            attend_segment(p, t, h / per_kv, g, seg_part + h, seg_out + (size_t)h * s->head_stride);
        }
        for (uint32_t h = 0; h < n_heads; h++) {
            size_t at = (size_t)h * s->head_stride;
            p->kernels->attn_merge(&part[h], out + at, &seg_part[h], seg_out + at, s->head_stride);
        }
    }
    finish_attention(p, t, part, out);
}

/* One KV head and one segment of the only token. */
static void attention_part_item(void *arg, uint32_t item, uint32_t thread)
{
    const struct pass *p = arg;
    struct backend_state *s = p->s;
    uint32_t kv_head = item % p->c->n_kv_heads, row = item / p->c->n_kv_heads + 1;
    uint32_t h = kv_head * (p->c->n_heads / p->c->n_kv_heads);
    size_t head = (size_t)row * p->c->n_heads + h;
    (void)thread;
    attend_segment(p, 0, kv_head, p->first_segment + row - 1, s->part + head,
                   s->part_out + head * s->head_stride);
}

/* The attention of a single token: segments are the items; row 0 of the parts is the result. */
static void attend_one(struct pass *p)
{
    struct backend_state *s = p->s;
    uint32_t n_heads = p->c->n_heads;
    p->first_segment = first_key(p, p->pos) / ATTN_SEGMENT;
    uint32_t n_segments = p->pos / ATTN_SEGMENT - p->first_segment + 1;
    pool_run(s->backend->pool, attention_part_item, p, n_segments * p->c->n_kv_heads);
    clear_parts(s->part, s->part_out, n_heads, s->head_stride);
    for (uint32_t row = 1; row <= n_segments; row++) {
        for (uint32_t h = 0; h < n_heads; h++) {
            size_t head = (size_t)row * n_heads + h;
            p->kernels->attn_merge(&s->part[h], s->part_out + (size_t)h * s->head_stride,
                                   &s->part[head], s->part_out + head * s->head_stride,
                                   s->head_stride);
        }
    }
    finish_attention(p, 0, s->part, s->part_out);
}

static void attention(struct pass *p)
{
    if (p->n == 1) {
        attend_one(p);
    } else {
        for_tokens(p, attention_item);
    }
}

/* --- the feed-forward half ------------------------------------------------------------------- */

/* Columns [first, first + n) of token t: h = gelu(gate) * up, ready for down. */
static void geglu_columns(const struct pass *p, uint32_t t, uint32_t first, uint32_t n)
{
    struct backend_state *s = p->s;
    const float *gate = s->gate_up + t * 2 * s->ffn_stride;
    float *h = s->h + t * s->ffn_stride;
    p->kernels->geglu(gate + first, gate + p->c->ffn + first, n, h + first);
    if (p->l->down.group) {
        prepare_groups(p, &p->l->down, &s->act_ffn, h, t, first / ACT_GROUP, n / ACT_GROUP);
    }
}

/* Some rows of gate, the same rows of up, and what becomes of them. */
static void gate_up_item(void *arg, uint32_t item, uint32_t thread)
{
    const struct pass *p = arg;
    const uint8_t *base = p->s->model->memory.base;
    uint32_t row, n = item_rows(p, item, &row);
    for (uint32_t part = 0; part < 2; part++) {
        uint32_t at = part * p->c->ffn + row;
        p->kernels->matmul(p->w, base, &p->in, p->n, at, n, p->out + at, p->out_stride,
                           thread_scratch(p, thread));
    }
    for (uint32_t t = 0; t < p->n; t++) {
        geglu_columns(p, t, row, n);
    }
}

static void geglu_item(void *arg, uint32_t t, uint32_t thread)
{
    const struct pass *p = arg;
    (void)thread;
    geglu_columns(p, t, 0, p->c->ffn);
}

static void feed_forward(struct pass *p)
{
    struct backend_state *s = p->s;
    p->in = act_rows(&s->act_in, s->z, s->hidden_stride);
    p->out = s->gate_up;
    p->out_stride = 2 * s->ffn_stride;
    run_rows(p, gate_up_item, &p->l->gate_up, p->c->ffn);
    matmul(p, &p->l->down, act_rows(&s->act_ffn, s->h, s->ffn_stride), s->y, s->hidden_stride);
}

/* --- the whole ------------------------------------------------------------------------------- */

static void set_attn_norm(struct pass *p)
{
    p->norm_off = p->l->input_norm_off;
    p->next = &p->l->qkv;
}

static void set_attn_add(struct pass *p)
{
    p->post_norm_off = p->l->post_attn_norm_off;
    p->norm_off = p->l->pre_ffn_norm_off;
    p->next = &p->l->gate_up;
}

static void set_ffn_add(struct pass *p)
{
    const struct model *m = p->s->model;
    bool last = p->layer + 1 == p->c->n_layers;
    p->post_norm_off = p->l->post_ffn_norm_off;
    p->norm_off = last ? m->final_norm_off : p->l[1].input_norm_off;
    p->next = last ? &m->head : &p->l[1].qkv;
}

/* From here on only the last token matters: make it the only one. */
static void keep_last(struct pass *p)
{
    struct backend_state *s = p->s;
    uint32_t t = p->n - 1;
    size_t heads = (size_t)p->c->n_heads * s->head_stride;
    if (t > 0) {
        memcpy(s->x, s->x + t * s->hidden_stride, s->hidden_stride * sizeof *s->x);
        memcpy(s->q, s->q + t * heads, heads * sizeof *s->q);
    }
    p->pos += t;
    p->n = 1;
}

/* All layers and, if they are wanted, the logits of the last token or of all. */
static void run_pass(struct pass *p, enum logits_want want, float *logits)
{
    struct backend_state *s = p->s;
    const struct weight *head = &s->model->head;
    use_layer(p, 0);
    set_attn_norm(p);
    for_tokens(p, begin_item);
    for (uint32_t i = 0; i < p->c->n_layers; i++) {
        use_layer(p, i);
        matmul(p, &p->l->qkv, act_rows(&s->act_in, s->z, s->hidden_stride), s->qkv, s->qkv_stride);
        for_tokens(p, rope_store_item);
        if (i + 1 == p->c->n_layers && want != LOGITS_ALL) {
            if (want == LOGITS_NONE) {
                return; /* the cache is complete */
            }
            keep_last(p);
        }
        attention(p);
        matmul(p, &p->l->attn_out, act_rows(&s->act_in, s->attn, s->attn_stride), s->y,
               s->hidden_stride);
        set_attn_add(p);
        for_tokens(p, add_norm_item);
        feed_forward(p);
        set_ffn_add(p);
        for_tokens(p, add_norm_item);
    }
    matmul(p, head, act_rows(&s->act_in, s->z, s->hidden_stride), logits, p->c->vocab);
}

int cpu_forward(struct backend_state *s, const int32_t *ids, uint32_t n, uint32_t pos,
                enum logits_want want, float *logits, struct err *err)
{
    struct pass pass = {.s = s,
                        .kernels = s->backend->kernels,
                        .c = &s->model->config,
                        .ids = ids,
                        .n = n,
                        .pos = pos};
    (void)err;
    run_pass(&pass, want, logits);
    return 0;
}

/* The first state lends its activations; a row's own are its position and its cache. */
int cpu_forward_many(struct backend_state *const *states, const int32_t *ids, const uint32_t *pos,
                     uint32_t n, float *logits, struct err *err)
{
    int r = backend_check_many(states, ids, n, CPU_MAX_SEQUENCES,
                               n > 0 ? states[0]->model->config.vocab : 0, err);
    for (uint32_t i = 0; i < n && r == 0; i++) {
        if (states[i]->bm != states[0]->bm) {
            r = err_set(err, -EINVAL, "sequence %u is of another model", i);
        } else if (pos[i] >= states[i]->max_pos) {
            r = err_set(err, -EINVAL, "sequence %u: position %u of %u", i, pos[i],
                        states[i]->max_pos);
        }
    }
    if (r < 0) {
        return r;
    }
    struct backend_state *s = states[0];
    struct pass pass = {.s = s,
                        .kernels = s->backend->kernels,
                        .c = &s->model->config,
                        .ids = ids,
                        .n = n,
                        .pos = pos[0], /* attention() of a single row reads this */
                        .states = states,
                        .positions = pos};
    run_pass(&pass, logits ? LOGITS_ALL : LOGITS_NONE, logits);
    return 0;
}

/* --- single operations, for the conformance suite -------------------------------------------- */

/* Rows of `width` floats from dense to strided memory, or back. */
static void copy_rows(float *to, size_t to_stride, const float *from, size_t from_stride,
                      size_t width, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        memcpy(to + i * to_stride, from + i * from_stride, width * sizeof *to);
    }
}

/* One matrix with its input given as floats. */
static void op_matmul(struct pass *p, const struct weight *w, struct act_buffer *act, float *rows,
                      size_t stride, const float *in, float *out)
{
    copy_rows(rows, stride, in, w->cols, w->cols, p->n);
    for (uint32_t t = 0; t < p->n; t++) {
        prepare(p, w, act, rows + t * stride, t);
    }
    matmul(p, w, act_rows(act, rows, stride), out, w->rows);
}

static void op_add(struct pass *p, const float *in, float *out)
{
    struct backend_state *s = p->s;
    size_t hidden = p->c->hidden, stride = s->hidden_stride, n = p->n;
    copy_rows(s->x, stride, in, hidden, hidden, n);
    copy_rows(s->y, stride, in + n * hidden, hidden, hidden, n);
    for_tokens(p, add_norm_item);
    copy_rows(out, hidden, s->x, stride, hidden, n);
    copy_rows(out + n * hidden, hidden, s->z, stride, hidden, n);
}

static void op_rope_store(struct pass *p, const float *in, float *out)
{
    struct backend_state *s = p->s;
    size_t width = (size_t)(p->c->n_heads + 2 * p->c->n_kv_heads) * p->c->head_dim;
    copy_rows(s->qkv, s->qkv_stride, in, width, width, p->n);
    for (uint32_t t = 0; t < p->n; t++) {
        rope_angles(p, t);
    }
    for_tokens(p, rope_store_item);
    copy_rows(out, p->c->head_dim, s->q, s->head_stride, p->c->head_dim,
              (size_t)p->n * p->c->n_heads);
}

static void op_attention(struct pass *p, const float *in, float *out)
{
    struct backend_state *s = p->s;
    size_t width = (size_t)p->c->n_heads * p->c->head_dim;
    copy_rows(s->q, s->head_stride, in, p->c->head_dim, p->c->head_dim,
              (size_t)p->n * p->c->n_heads);
    attention(p);
    copy_rows(out, width, s->attn, s->attn_stride, width, p->n);
}

static void op_geglu(struct pass *p, const float *in, float *out)
{
    struct backend_state *s = p->s;
    copy_rows(s->gate_up, 2 * s->ffn_stride, in, 2 * (size_t)p->c->ffn, 2 * (size_t)p->c->ffn,
              p->n);
    for_tokens(p, geglu_item);
    copy_rows(out, p->c->ffn, s->h, s->ffn_stride, p->c->ffn, p->n);
}

int cpu_op(struct backend_state *s, enum backend_op op, uint32_t layer, const int32_t *ids,
           uint32_t n, uint32_t pos, const float *in, float *out, struct err *err)
{
    const struct model_config *c = &s->model->config;
    size_t stride = s->hidden_stride;
    struct pass pass =
        {.s = s, .kernels = s->backend->kernels, .c = c, .ids = ids, .n = n, .pos = pos};
    struct pass *p = &pass;
    use_layer(p, layer < c->n_layers ? layer : 0);
    switch (op) {
    case OP_EMBED:
        for (uint32_t t = 0; t < n; t++) {
            embed_token(p, t);
        }
        copy_rows(out, c->hidden, s->x, stride, c->hidden, n);
        return 0;
    case OP_ATTN_NORM:
        set_attn_norm(p);
        copy_rows(s->x, stride, in, c->hidden, c->hidden, n);
        for (uint32_t t = 0; t < n; t++) {
            norm_token(p, t);
        }
        copy_rows(out, c->hidden, s->z, stride, c->hidden, n);
        return 0;
    case OP_QKV:
        op_matmul(p, &p->l->qkv, &s->act_in, s->z, stride, in, out);
        return 0;
    case OP_ROPE_STORE:
        op_rope_store(p, in, out);
        return 0;
    case OP_ATTENTION:
        op_attention(p, in, out);
        return 0;
    case OP_ATTN_OUT:
        op_matmul(p, &p->l->attn_out, &s->act_in, s->attn, s->attn_stride, in, out);
        return 0;
    case OP_ATTN_ADD:
        set_attn_add(p);
        op_add(p, in, out);
        return 0;
    case OP_GATE_UP:
        op_matmul(p, &p->l->gate_up, &s->act_in, s->z, stride, in, out);
        return 0;
    case OP_GEGLU:
        op_geglu(p, in, out);
        return 0;
    case OP_DOWN:
        op_matmul(p, &p->l->down, &s->act_ffn, s->h, s->ffn_stride, in, out);
        return 0;
    case OP_FFN_ADD:
        set_ffn_add(p);
        op_add(p, in, out);
        return 0;
    case OP_HEAD:
        op_matmul(p, &s->model->head, &s->act_in, s->z, stride, in, out);
        return 0;
    case OP_COUNT:
        break;
    }
    return err_set(err, -EINVAL, "no operation %d", (int)op);
}
