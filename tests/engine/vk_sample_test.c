/* SPDX-License-Identifier: MIT */
/*
 * Tokens drawn by the Vulkan backend's shaders against sampler.c, given the same logits: the same
 * token, but where the draw, or a filter's limit, is so near to the border between two tokens that
 * the last bits of exp() decide. That both are right is checked against the definition in double.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "../../runtime/engine/sampler.h"
#include "check.h"
#include "vk_opened.h"

#define N_ROWS     48 /* at most */
#define STRIDE     3  /* from a row's next position to the next row's, in words */
#define NEXT_BYTES ((N_ROWS + N_ROWS * STRIDE) * 4) /* the rows' next tokens, then positions */
#define STEPS      3

/* GLSL's exp(-x) may be off by 3 + 2x units in the last place, and x is at most 30.5: 7.6e-6. */
#define EPS 1e-5

static uint64_t rng_state = 1;

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint32_t below(uint32_t n)
{
    rng_state += 0x9e3779b97f4a7c15u;
    return (uint32_t)((mix(rng_state) >> 32) * n >> 32);
}

static float gauss(void)
{
    double u = (below(1u << 30) + 1) * 0x1p-30, v = below(1u << 30) * 0x1p-30;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

/* The definition, in double. */

struct ranked {
    double logit;
    int32_t id;
};

static int by_rank(const void *pa, const void *pb)
{
    const struct ranked *a = pa, *b = pb;
    return a->logit != b->logit ? (a->logit < b->logit) - (a->logit > b->logit)
                                : (a->id > b->id) - (a->id < b->id);
}

static int32_t oracle(const struct ranked *ranked, uint32_t vocab, const struct llm_sampling *s,
                      double top_p, double min_p, double place)
{
    uint32_t k = s->top_k && s->top_k < vocab ? s->top_k : vocab;
    double *weight = calloc(vocab, sizeof *weight), sum = 0, kept = 0;
    int32_t id = -1;
    CHECK(weight);
    for (uint32_t i = 0; i < k; i++) {
        sum += exp((ranked[i].logit - ranked[0].logit) / s->temperature);
    }
    for (uint32_t i = 0; i < k && (i == 0 || s->top_p >= 1 || kept < top_p * sum); i++) {
        double w = exp((ranked[i].logit - ranked[0].logit) / s->temperature);
        weight[ranked[i].id] = w >= min_p ? w : 0;
        kept += w;
    }
    sum = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        sum += weight[i];
    }
    double left = place * sum;
    for (uint32_t i = 0; i < vocab && left >= 0; i++) {
        if (weight[i] > 0) {
            id = (int32_t)i;
            left -= weight[i];
        }
    }
    free(weight);
    return id;
}

/* Whether a token is what the definition gives when each border moves by a rounding error. */
static bool is_possible(const float *logits, uint32_t vocab, const struct llm_sampling *s,
                        uint64_t step, int32_t id)
{
    struct ranked *ranked = calloc(vocab, sizeof *ranked);
    double place = (double)mix(mix(s->seed) ^ step) * 0x1p-64;
    bool possible = false;
    CHECK(ranked);
    for (uint32_t i = 0; i < vocab; i++) {
        ranked[i] = (struct ranked){logits[i], (int32_t)i};
    }
    qsort(ranked, vocab, sizeof *ranked, by_rank);
    for (int i = 0; i < 27 && !possible; i++) {
        double top_p = s->top_p * (1 + EPS * (i % 3 - 1));
        double min_p = s->min_p * (1 + EPS * (i / 3 % 3 - 1));
        double there = fmin(fmax(place + EPS * (i / 9 - 1), 0), 1 - 1e-12);
        possible = oracle(ranked, vocab, s, top_p, min_p, there) == id;
    }
    free(ranked);
    return possible;
}

/* Rows of logits and how they are sampled. */

struct rows {
    uint32_t vocab, n;
    struct llm_sampling how[N_ROWS];
    struct sampler *sampler[N_ROWS];
    int32_t history[N_ROWS][64];
    size_t n_history[N_ROWS];
    struct llm_logit_bias bias[N_ROWS][4];
    uint32_t *allowed; /* [N_ROWS, (vocab + 31) / 32] */
    float *scratch;    /* [vocab] */
};

struct device {
    struct backend *backend;
    struct vk_sampler sampler;
    struct vkc_buffer logits, next;
    VkCommandBuffer cmd;
};

static void fill_logits(float *logits, uint32_t vocab)
{
    static const float scales[] = {0.05f, 1, 3, 8, 30, 1e30f};
    uint32_t kind = below(8);
    float scale = scales[below(6)];
    for (uint32_t i = 0; i < vocab; i++) {
        logits[i] = kind == 0 ? 2.5f : kind == 1 ? floorf(gauss() * 2) : gauss() * scale;
    }
    if (kind == 2) { /* zeros of both signs are equal */
        for (uint32_t i = 0; i < vocab; i++) {
            logits[i] = i % 2 ? -0.0f : logits[i] > 0 ? 0.0f : logits[i];
        }
    }
}

static struct llm_sampling any_sampling(uint32_t kind)
{
    static const float temperatures[] = {1, 0.7f, 1.3f, 0.1f, 5, 1e-30f, 100};
    static const float top_ps[] = {0.95f, 0.5f, 0.9f, 0.1f, 0.999f, 1e-38f};
    struct llm_sampling s = {.top_p = 1, .repetition_penalty = 1};
    s.seed = (uint64_t)below(UINT32_MAX) << 32 | below(UINT32_MAX);
    if (kind != VK_SAMPLE_GREEDY) {
        s.temperature = temperatures[below(7)];
        s.top_k = (kind - VK_SAMPLE_DRAW) & 1 ? 1 + below(below(2) ? 64 : 2000) : 0;
        s.top_p = (kind - VK_SAMPLE_DRAW) & 2 ? top_ps[below(6)] : 1;
        s.min_p = below(3) == 0 ? (float)below(1000) * 1e-3f : 0;
    }
    return s;
}

static void start_row(struct rows *rows, struct device *device, uint32_t r, uint32_t kind,
                      uint32_t step)
{
    struct llm_sampling *s = &rows->how[r];
    uint32_t words = (rows->vocab + 31) / 32;
    struct err err;
    *s = any_sampling(kind);
    rows->n_history[r] = 0;
    if (below(3) == 0) {
        s->repetition_penalty = below(2) ? 1.3f : 0.8f;
        for (uint32_t i = below(40); i > 0; i--) {
            rows->history[r][rows->n_history[r]++] = (int32_t)below(rows->vocab + 5) - 2;
        }
    }
    if (below(4) == 0) {
        s->bias = rows->bias[r];
        s->n_bias = 4;
        for (int i = 0; i < 4; i++) {
            rows->bias[r][i] = (struct llm_logit_bias){(int32_t)below(rows->vocab), gauss() * 10};
        }
    }
    if (below(4) == 0) {
        s->allowed = rows->allowed + (size_t)r * words;
        for (uint32_t w = 0; w < words; w++) {
            rows->allowed[(size_t)r * words + w] = below(UINT32_MAX) & below(UINT32_MAX);
        }
        rows->allowed[(size_t)r * words] |= 1;
    }
    struct backend_sampling how;
    CHECK_EQ(sampler_create(rows->vocab, s, &err, &rows->sampler[r]), 0);
    sampler_describe(rows->sampler[r], &how);
    CHECK(kind == VK_SAMPLE_KINDS - 1 || vk_sample_kind(&how) <= kind);
    CHECK_EQ(vk_sampler_start(&device->sampler, r, &how, rows->history[r], rows->n_history[r], step,
                              &err),
             0);
}

static void run(struct device *device, uint32_t kind, uint32_t n_rows)
{
    struct backend *backend = device->backend;
    struct err err;
    uint64_t done;
    struct vk_sample_io io = {
        .logits = device->logits.address,
        .next_id = device->next.address,
        .next_pos = device->next.address + N_ROWS * 4,
        .pos_stride = STRIDE,
        .n_rows = n_rows,
    };
    CHECK_EQ(vkc_cmd_begin(backend->device, &err, &device->cmd), 0);
    vk_record_sample(&device->sampler, device->cmd, kind, &io, NULL);
    vkc_barrier(backend->device, device->cmd, VKC_SHADER_TO_HOST);
    CHECK_EQ(vkc_cmd_end(backend->device, device->cmd, &err), 0);
    int r = vkc_submit(backend->device, &device->cmd, 1, &err, &done);
    if (r == 0) {
        r = vkc_wait(backend->device, done, &err);
    }
    r = vkc_checked(backend->instance, r, &err);
    if (r < 0) {
        fprintf(stderr, "%s\n", err.text);
    }
    CHECK_EQ(r, 0);
    vkc_cmd_free(backend->device, device->cmd);
}

static uint32_t n_drawn, n_different, n_errors;

/* One row's token of one step, on the host and as the device drew it. */
static void compare(struct rows *rows, struct device *device, uint32_t r, uint32_t step)
{
    const struct llm_sampling *s = &rows->how[r];
    struct err err;
    int32_t want = -1, got = -1;
    const float *logits = (const float *)device->logits.map + (size_t)r * rows->vocab;
    memcpy(rows->scratch, logits, rows->vocab * sizeof *logits);
    int host = sampler_draw(rows->sampler[r], rows->scratch, rows->history[r], rows->n_history[r],
                            step, &err, &want);
    int there = vk_sampler_token(&device->sampler, r, step, &err, &got);
    CHECK_EQ(there, host);
    if (host < 0) {
        CHECK_EQ(host, -EDOM);
        n_errors++;
        return;
    }
    n_drawn++;
    CHECK_EQ(((const int32_t *)device->next.map)[r], got);
    if (got != want) {
        CHECK(s->temperature > 0);
        n_different++;
        if (!is_possible(rows->scratch, rows->vocab, s, step, got)) {
            fprintf(stderr, "vocab %u t %g k %u p %g min %g pen %g: host %d device %d\n",
                    rows->vocab, s->temperature, s->top_k, s->top_p, s->min_p,
                    s->repetition_penalty, want, got);
        }
        CHECK(is_possible(rows->scratch, rows->vocab, s, step, got));
    } else if (s->temperature > 0 && r == 0) {
        CHECK(is_possible(rows->scratch, rows->vocab, s, step, want));
    }
    rows->history[r][rows->n_history[r]++] = got;
}

static void test_rows(struct device *device, struct rows *rows, uint32_t kind, bool broken)
{
    float *logits = device->logits.map;
    uint32_t *next_pos = (uint32_t *)device->next.map + N_ROWS, first_step = below(1000);
    for (uint32_t r = 0; r < rows->n; r++) {
        fill_logits(logits + (size_t)r * rows->vocab, rows->vocab);
        if (broken && r % 3 == 0) {
            logits[(size_t)r * rows->vocab + below(rows->vocab)] = r % 2 ? NAN : INFINITY;
        }
        /* the last kind runs any: rows of one dispatch need not be sampled alike */
        start_row(rows, device, r, kind == VK_SAMPLE_KINDS - 1 ? below(VK_SAMPLE_KINDS) : kind,
                  first_step);
        next_pos[r * STRIDE] = 100 + r;
    }
    for (uint32_t step = first_step; step < first_step + STEPS; step++) {
        run(device, kind, rows->n);
        for (uint32_t r = 0; r < rows->n; r++) {
            compare(rows, device, r, step);
            CHECK_EQ(next_pos[r * STRIDE], 101 + r + step - first_step);
        }
    }
    for (uint32_t r = 0; r < rows->n; r++) {
        sampler_destroy(rows->sampler[r]);
    }
}

static void test_vocab(struct backend *backend, uint32_t vocab, uint32_t n_rows, uint32_t n)
{
    struct device device = {.backend = backend};
    struct rows *rows = calloc(1, sizeof *rows);
    struct err err;
    CHECK(rows);
    rows->vocab = vocab;
    rows->n = n_rows;
    rows->allowed = calloc((size_t)n_rows * ((vocab + 31) / 32), sizeof *rows->allowed);
    rows->scratch = calloc(vocab, sizeof *rows->scratch);
    CHECK(rows->allowed && rows->scratch);
    CHECK_EQ(vk_sampler_init(backend, vocab, n_rows, &err, &device.sampler), 0);
    CHECK_EQ(vkc_buffer_init(backend->device, VKC_SHARED, (uint64_t)n_rows * vocab * sizeof(float),
                             "logits", &err, &device.logits),
             0);
    CHECK_EQ(vkc_buffer_init(backend->device, VKC_READBACK, NEXT_BYTES, "next", &err, &device.next),
             0);
    for (uint32_t i = 0; i < n; i++) {
        test_rows(&device, rows, i % VK_SAMPLE_KINDS, i % 7 == 6);
    }
    vkc_buffer_finish(backend->device, &device.next);
    vkc_buffer_finish(backend->device, &device.logits);
    vk_sampler_finish(&device.sampler);
    free(rows->scratch);
    free(rows->allowed);
    free(rows);
}

/* The frequencies are those of the weights, with all filters off and on. */
static void test_frequencies(struct backend *backend)
{
    enum { VOCAB = 8, RUNS = 250 };
    static const double p[VOCAB] = {.1, .4, .02, .2, .1, .08, .06, .04};
    struct device device = {.backend = backend};
    struct backend_sampling how = {.rate = 1, .top_p = 0.75f, .penalty = 1};
    struct err err;
    int counts[VOCAB] = {0};
    CHECK_EQ(vk_sampler_init(backend, VOCAB, N_ROWS, &err, &device.sampler), 0);
    CHECK_EQ(vkc_buffer_init(backend->device, VKC_SHARED, N_ROWS * VOCAB * sizeof(float), "logits",
                             &err, &device.logits),
             0);
    CHECK_EQ(vkc_buffer_init(backend->device, VKC_READBACK, NEXT_BYTES, "next", &err, &device.next),
             0);
    for (uint32_t r = 0; r < N_ROWS; r++) {
        how.seed = mix(r);
        CHECK_EQ(vk_sampler_start(&device.sampler, r, &how, NULL, 0, 0, &err), 0);
        for (int i = 0; i < VOCAB; i++) {
            ((float *)device.logits.map)[r * VOCAB + (uint32_t)i] = (float)log(p[i]) + 3;
        }
    }
    for (uint32_t step = 0; step < RUNS; step++) {
        run(&device, VK_SAMPLE_DRAW + 2, N_ROWS);
        for (uint32_t r = 0; r < N_ROWS; r++) {
            int32_t id;
            CHECK_EQ(vk_sampler_token(&device.sampler, r, step, &err, &id), 0);
            counts[id]++;
        }
    }
    /* .4 + .2 + .1 < .75 <= .4 + .2 + .1 + .1 */
    const double n = (double)RUNS * N_ROWS, kept = .8;
    for (int i = 0; i < VOCAB; i++) {
        double expected = p[i] >= .1 ? p[i] / kept : 0;
        double sigma = sqrt(n * expected * (1 - expected));
        CHECK(fabs(counts[i] - n * expected) <= 5 * sigma + 1e-9);
    }
    vkc_buffer_finish(backend->device, &device.next);
    vkc_buffer_finish(backend->device, &device.logits);
    vk_sampler_finish(&device.sampler);
}

int main(int argc, char **argv)
{
    struct backend_params params;
    struct backend *backend;
    struct err err;
    bool quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    if (!vk_can_open(&params)) {
        return SKIP;
    }
    CHECK_EQ(vulkan_backend.open(&params, &err, &backend), 0);
    static const uint32_t vocabs[] = {1, 7, 33, 500, 4099};
    for (size_t i = 0; i < sizeof vocabs / sizeof vocabs[0]; i++) {
        test_vocab(backend, vocabs[i], N_ROWS, quick ? 7 : 20);
    }
    test_vocab(backend, 262144, 5, quick ? 1 : VK_SAMPLE_KINDS);
    test_frequencies(backend);
    printf("%u tokens, %u of them at a border and not sampler.c's; %u rows were not numbers\n",
           n_drawn, n_different, n_errors);
    CHECK(n_drawn > 1000 && n_errors > 50);
    CHECK(n_different * 200 < n_drawn);
    vulkan_backend.close(backend);
    return 0;
}
