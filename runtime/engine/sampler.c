/* SPDX-License-Identifier: MIT */
/* Sampling: see sampler.h. */
#include "sampler.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    float logit;
    int32_t id;
};

struct sampler {
    struct llm_sampling sampling;
    uint32_t vocab;
    struct candidate *candidates; /* [vocab] */
    uint64_t *seen;               /* bitmap [vocab]: tokens already penalised in this draw */
};

/* splitmix64's finaliser: Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
 * 2014. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Uniform in [0, 1), 53 bits. */
static double uniform(uint64_t seed, uint64_t step)
{
    return (double)(mix(mix(seed) ^ step) >> 11) * 0x1p-53;
}

int sampler_create(uint32_t vocab, const struct llm_sampling *s, struct err *err,
                   struct sampler **ret)
{
    if (!(s->temperature >= 0 && s->temperature <= 100)) {
        return err_set(err, -EINVAL, "temperature must be between 0 and 100");
    }
    if (!(s->top_p > 0 && s->top_p <= 1)) {
        return err_set(err, -EINVAL, "top_p must be more than 0 and at most 1");
    }
    if (!(s->min_p >= 0 && s->min_p <= 1)) {
        return err_set(err, -EINVAL, "min_p must be between 0 and 1");
    }
    if (!(s->repetition_penalty > 0 && s->repetition_penalty <= 100)) {
        return err_set(err, -EINVAL, "repetition_penalty must be more than 0 and at most 100");
    }
    struct sampler *sampler = calloc(1, sizeof *sampler);
    if (!sampler) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    sampler->sampling = *s;
    sampler->vocab = vocab;
    sampler->candidates = malloc(vocab * sizeof *sampler->candidates);
    sampler->seen = calloc((vocab + 63) / 64, sizeof *sampler->seen);
    if (!sampler->candidates || !sampler->seen) {
        sampler_destroy(sampler);
        return err_set(err, -ENOMEM, "out of memory");
    }
    *ret = sampler;
    return 0;
}

void sampler_destroy(struct sampler *sampler)
{
    if (!sampler) {
        return;
    }
    free(sampler->candidates);
    free(sampler->seen);
    free(sampler);
}

/* Keskar et al., "CTRL", 2019: positive logits are divided, negative ones multiplied; once per
 * token. */
static void penalise(struct sampler *sampler, float *logits, const int32_t *history, size_t n)
{
    float penalty = sampler->sampling.repetition_penalty;
    memset(sampler->seen, 0, (sampler->vocab + 63) / 64 * sizeof *sampler->seen);
    for (size_t i = 0; i < n; i++) {
        uint32_t id = (uint32_t)history[i];
        if (id >= sampler->vocab || (sampler->seen[id / 64] >> (id % 64) & 1)) {
            continue;
        }
        sampler->seen[id / 64] |= 1ull << (id % 64);
        logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
    }
}

static int by_logit(const void *pa, const void *pb)
{
    const struct candidate *a = pa, *b = pb;
    if (a->logit != b->logit) {
        return a->logit < b->logit ? 1 : -1;
    }
    return (a->id > b->id) - (a->id < b->id);
}

/* Whether a is to be thrown out before b. */
static int worse(const struct candidate *a, const struct candidate *b)
{
    return by_logit(a, b) > 0;
}

/* Restore the heap whose root is the worst of the kept candidates. */
static void sift_down(struct candidate *heap, size_t n, size_t i)
{
    for (;;) {
        size_t worst = i, left = 2 * i + 1, right = left + 1;
        if (left < n && worse(&heap[left], &heap[worst])) {
            worst = left;
        }
        if (right < n && worse(&heap[right], &heap[worst])) {
            worst = right;
        }
        if (worst == i) {
            return;
        }
        struct candidate swap = heap[i];
        heap[i] = heap[worst];
        heap[worst] = swap;
        i = worst;
    }
}

/* The k best of logits, best first. */
static void select_top(struct candidate *out, const float *logits, uint32_t vocab, uint32_t k)
{
    for (uint32_t i = 0; i < k; i++) {
        out[i] = (struct candidate){logits[i], (int32_t)i};
    }
    if (k < vocab) {
        for (size_t i = k / 2; i-- > 0;) {
            sift_down(out, k, i);
        }
        for (uint32_t i = k; i < vocab; i++) {
            struct candidate c = {logits[i], (int32_t)i};
            if (worse(&out[0], &c)) {
                out[0] = c;
                sift_down(out, k, 0);
            }
        }
    }
    qsort(out, k, sizeof *out, by_logit);
}

static int argmax(const float *logits, uint32_t vocab, int32_t *ret)
{
    uint32_t best = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        if (isnan(logits[i])) {
            return -EDOM;
        }
        if (logits[i] > logits[best]) {
            best = i;
        }
    }
    if (!isfinite(logits[best])) {
        return -EDOM;
    }
    *ret = (int32_t)best;
    return 0;
}

int sampler_draw(struct sampler *sampler, float *logits, const int32_t *history, size_t n,
                 uint64_t step, int32_t *ret_id)
{
    const struct llm_sampling *s = &sampler->sampling;
    if (s->repetition_penalty != 1) {
        penalise(sampler, logits, history, n);
    }
    int32_t best;
    int r = argmax(logits, sampler->vocab, &best);
    if (r < 0 || s->temperature == 0) {
        if (r == 0) {
            *ret_id = best;
        }
        return r;
    }

    struct candidate *c = sampler->candidates;
    uint32_t k = s->top_k && s->top_k < sampler->vocab ? s->top_k : sampler->vocab;
    if (k < sampler->vocab || s->top_p < 1) {
        select_top(c, logits, sampler->vocab, k);
    } else {
        for (uint32_t i = 0; i < k; i++) {
            c[i] = (struct candidate){logits[i], (int32_t)i};
        }
    }

    /* weights relative to the best token, so that the largest is 1 */
    double sum = 0;
    for (uint32_t i = 0; i < k; i++) {
        c[i].logit = expf((c[i].logit - logits[best]) / s->temperature);
        sum += c[i].logit;
    }
    if (s->top_p < 1) {
        double kept = 0;
        uint32_t n_kept = 0;
        while (n_kept < k && kept < s->top_p * sum) {
            kept += c[n_kept++].logit;
        }
        k = n_kept;
    }
    sum = 0;
    for (uint32_t i = 0; i < k; i++) {
        if (c[i].logit < s->min_p) {
            c[i].logit = 0;
        }
        sum += c[i].logit;
    }
    double left = uniform(s->seed, step) * sum;
    *ret_id = best;
    for (uint32_t i = 0; i < k; i++) {
        if (c[i].logit <= 0) {
            continue;
        }
        *ret_id = c[i].id;
        left -= c[i].logit;
        if (left < 0) {
            break;
        }
    }
    return 0;
}
