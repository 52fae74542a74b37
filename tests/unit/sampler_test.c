/* SPDX-License-Identifier: MIT */
/* Sampling: each filter alone, against what its definition says; frequencies against probabilities.
 */
#include "../../runtime/engine/sampler.h"
#include "check.h"

#include <errno.h>
#include <math.h>

#define VOCAB 8

static const struct llm_sampling plain = {.temperature = 1,
                                          .top_p = 1,
                                          .repetition_penalty = 1,
                                          .seed = 7};

/* Logits whose softmax at temperature 1 is .4 .2 .1 .1 .08 .06 .04 .02. */
static const double probability[VOCAB] = {.1, .4, .02, .2, .1, .08, .06, .04};

static void set_logits(float *logits)
{
    for (int i = 0; i < VOCAB; i++) {
        logits[i] = (float)log(probability[i]) + 3;
    }
}

static void count(const struct llm_sampling *sampling, const int32_t *history, size_t n_history,
                  int n, int counts[VOCAB])
{
    struct sampler *sampler;
    float logits[VOCAB];
    CHECK(sampler_create(VOCAB, sampling, NULL, &sampler) == 0);
    memset(counts, 0, VOCAB * sizeof *counts);
    for (int i = 0; i < n; i++) {
        int32_t id = -1;
        set_logits(logits);
        CHECK(sampler_draw(sampler, logits, history, n_history, (uint64_t)i, NULL, &id) == 0);
        CHECK(id >= 0 && id < VOCAB);
        counts[id]++;
    }
    sampler_destroy(sampler);
}

/* Counts of n draws within five standard deviations of the probabilities p. */
static void expect(const int counts[VOCAB], int n, const double p[VOCAB])
{
    for (int i = 0; i < VOCAB; i++) {
        double sigma = sqrt(n * p[i] * (1 - p[i]));
        CHECK(fabs(counts[i] - n * p[i]) <= 5 * sigma + 1e-9);
    }
}

static void test_frequencies(void)
{
    enum { N = 20000 };
    int counts[VOCAB], again[VOCAB];
    struct llm_sampling s = plain;
    count(&s, NULL, 0, N, counts);
    expect(counts, N, probability);
    count(&s, NULL, 0, N, again);
    CHECK(memcmp(counts, again, sizeof counts) == 0); /* same seed, same draws */
    s.seed = 8;
    count(&s, NULL, 0, N, again);
    CHECK(memcmp(counts, again, sizeof counts) != 0);

    s = plain;
    s.temperature = 0.5f; /* squares the odds */
    double squared[VOCAB], sum = 0;
    for (int i = 0; i < VOCAB; i++) {
        sum += squared[i] = probability[i] * probability[i];
    }
    for (int i = 0; i < VOCAB; i++) {
        squared[i] /= sum;
    }
    count(&s, NULL, 0, N, counts);
    expect(counts, N, squared);
}

static void test_filters(void)
{
    enum { N = 20000 };
    int counts[VOCAB];
    struct llm_sampling s = plain;
    s.top_k = 2;
    count(&s, NULL, 0, N, counts);
    expect(counts, N, (const double[VOCAB]){[1] = 2. / 3, [3] = 1. / 3});

    s = plain;
    s.top_p = 0.65f; /* .4 + .2 < .65 <= .4 + .2 + .1; of the two with .1 the lower id */
    count(&s, NULL, 0, N, counts);
    expect(counts, N, (const double[VOCAB]){[0] = .1 / .7, [1] = .4 / .7, [3] = .2 / .7});

    s.top_p = 1e-38f; /* the best one all the same */
    count(&s, NULL, 0, 10, counts);
    CHECK_EQ(counts[1], 10);

    s = plain;
    s.min_p = 0.3f; /* of .4: .12 */
    count(&s, NULL, 0, N, counts);
    expect(counts, N, (const double[VOCAB]){[1] = 2. / 3, [3] = 1. / 3});

    /* token 1 has a positive logit and is divided, 2 a negative one and is multiplied, once each */
    s = plain;
    s.repetition_penalty = 2;
    int32_t history[] = {2, 2, 1, -1, 99};
    double p[VOCAB], sum = 0;
    float logits[VOCAB];
    set_logits(logits);
    logits[1] /= 2;
    logits[2] *= 2;
    for (int i = 0; i < VOCAB; i++) {
        sum += p[i] = exp(logits[i]);
    }
    for (int i = 0; i < VOCAB; i++) {
        p[i] /= sum;
    }
    count(&s, history, 5, N, counts);
    expect(counts, N, p);
}

static void test_bias_and_mask(void)
{
    enum { N = 20000 };
    int counts[VOCAB];
    struct llm_sampling s = plain;
    const struct llm_logit_bias bias[] = {{0, logf(2)}, {3, -1000}, {0, logf(2)}};
    s.bias = bias; /* of token 0: four times the odds; of 3: none */
    s.n_bias = 3;
    double p[VOCAB], sum = .4 + 1 - .1 - .2;
    for (int i = 0; i < VOCAB; i++) {
        p[i] = (i == 0 ? .4 : i == 3 ? 0 : probability[i]) / sum;
    }
    count(&s, NULL, 0, N, counts);
    expect(counts, N, p);

    const uint32_t allowed[] = {1u << 0 | 1u << 2 | 1u << 3}; /* and 3 is unlikely */
    s.allowed = allowed;
    count(&s, NULL, 0, N, counts);
    expect(counts, N, (const double[VOCAB]){[0] = .4 / .42, [2] = .02 / .42});

    s = plain;
    s.allowed = allowed;
    s.top_k = 5; /* there are only three */
    s.temperature = 0;
    count(&s, NULL, 0, 10, counts);
    CHECK_EQ(counts[3], 10);
}

static void test_greedy(void)
{
    struct sampler *sampler;
    struct llm_sampling s = plain;
    float logits[VOCAB];
    int32_t id;
    s.temperature = 0;
    CHECK(sampler_create(VOCAB, &s, NULL, &sampler) == 0);
    set_logits(logits);
    CHECK(sampler_draw(sampler, logits, NULL, 0, 0, NULL, &id) == 0);
    CHECK_EQ(id, 1);
    logits[5] = logits[1]; /* the lowest id of equals */
    CHECK(sampler_draw(sampler, logits, NULL, 0, 0, NULL, &id) == 0);
    CHECK_EQ(id, 1);
    logits[4] = NAN;
    CHECK_EQ(sampler_draw(sampler, logits, NULL, 0, 0, NULL, &id), -EDOM);
    set_logits(logits);
    logits[4] = INFINITY;
    CHECK_EQ(sampler_draw(sampler, logits, NULL, 0, 0, NULL, &id), -EDOM);
    sampler_destroy(sampler);

    s.repetition_penalty = 4; /* 3 + log .4 = 2.08 -> 0.52, below 3 + log .2 = 1.39 */
    CHECK(sampler_create(VOCAB, &s, NULL, &sampler) == 0);
    set_logits(logits);
    CHECK(sampler_draw(sampler, logits, (const int32_t[]){1}, 1, 0, NULL, &id) == 0);
    CHECK_EQ(id, 3);
    sampler_destroy(sampler);
}

static void test_refused(void)
{
    struct sampler *sampler;
    static const struct llm_logit_bias out[] = {{VOCAB, 1}}, endless[] = {{1, INFINITY}};
    static const uint32_t none[] = {1u << VOCAB};
    struct llm_sampling bad[9];
    for (int i = 0; i < 9; i++) {
        bad[i] = plain;
    }
    bad[0].temperature = -1;
    bad[1].temperature = NAN;
    bad[2].top_p = 0;
    bad[3].top_p = 1.5f;
    bad[4].min_p = -0.1f;
    bad[5].repetition_penalty = 0;
    bad[6].bias = out;
    bad[7].bias = endless;
    bad[6].n_bias = bad[7].n_bias = 1;
    bad[8].allowed = none;
    for (int i = 0; i < 9; i++) {
        struct err err = {{0}};
        CHECK_EQ(sampler_create(VOCAB, &bad[i], &err, &sampler), -EINVAL);
        CHECK(err.text[0]);
    }
}

int main(void)
{
    test_frequencies();
    test_filters();
    test_bias_and_mask();
    test_greedy();
    test_refused();
    return 0;
}
